"""The price of a plan: what its file will hold, before there is one."""

from compressnet.accounting import AUXILIARY, Account, Row
from compressnet.plan.make import Plan


def price(plan: Plan, source: str) -> Account:
    """What a plan's file will hold, before there is one."""
    rows = [
        Row(
            layer.name,
            layer.method or "dense",
            layer.shape,
            layer.dense_numel,
            layer.numel(),
            dense_macs=layer.dense_macs,
            macs=layer.macs,
            remark=layer.remark,
        )
        for layer in plan.layers
        if layer.remark != AUXILIARY
    ]
    rest = plan.dense_numel - sum(row.dense_numel for row in rows)
    rows.append(Row("biases, norm layers and others", "", (), rest, rest))
    if plan.auxiliary_numel:
        rows.append(Row("auxiliary heads", "", (), 0, plan.auxiliary_numel, remark=AUXILIARY))
    return Account(source, "plan", plan.spec.name if plan.spec else "a module", tuple(rows))
