"""The price of a resolved plan: what each layer is thought to take of the budget, and to lose."""

import dataclasses

from compressnet.accounting import Account, Row
from compressnet.plan.price import price
from compressnet.sizing.resolve import Sized


def expected(sized: Sized, source: str) -> Account:
    """What the exported file of a resolved plan is expected to hold.

    Args:
        sized: the plan.
        source: of it.
    """
    account = price(sized.plan, source)
    rows = tuple(_expected(row, sized) for row in account.rows)
    return dataclasses.replace(account, rows=rows, index_nbytes=sized.overhead.index, budget=sized.plan.recipe.budget)


def _expected(row: Row, sized: Sized) -> Row:
    estimate = sized.estimates.get(row.name)
    if estimate is None:
        return row if row.remark else dataclasses.replace(row, nbytes=sized.overhead.vectors)
    return dataclasses.replace(row, nbytes=round(estimate.nbytes), bits=estimate.bits, loss_share=estimate.share)
