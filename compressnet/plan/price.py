"""The price of a plan: what its file will hold, before there is one."""

from compressnet.accounting import AUXILIARY, Account, Row, standing_for
from compressnet.plan.blocks import PlannedBlock, in_order
from compressnet.plan.layers import PlannedLayer
from compressnet.plan.make import Plan


def price(plan: Plan, source: str) -> Account:
    """What a plan's file will hold, before there is one."""
    rows = [_row(each) for each in in_order(plan.blocks, plan.layers) if getattr(each, "remark", None) != AUXILIARY]
    rest = plan.dense_numel - sum(row.dense_numel for row in rows)
    rows.append(Row("biases, norm layers and others", "", (), rest, rest))
    if plan.auxiliary_numel:
        rows.append(Row("auxiliary heads", "", (), 0, plan.auxiliary_numel, remark=AUXILIARY))
    return Account(source, "plan", plan.spec.name if plan.spec else "a module", tuple(rows))


def _row(each: PlannedBlock | PlannedLayer) -> Row:
    held, remark = (
        (each.block, standing_for(each.run))
        if isinstance(each, PlannedBlock)
        else (each.method or "dense", each.remark)
    )
    return Row(
        each.name,
        held,
        each.shape,
        each.dense_numel,
        each.numel(),
        dense_macs=each.dense_macs,
        macs=each.macs,
        remark=remark,
    )
