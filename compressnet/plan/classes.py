"""The last layer of a plan for another number of classes."""

import dataclasses
import math

from compressnet.methods import BY_NAME
from compressnet.plan.layers import FITTED, PlannedLayer
from compressnet.plan.ratios import with_config


def of_classes(layer: PlannedLayer, num_classes: int) -> PlannedLayer:
    """A classifying layer with another number of outputs: of the same method and keys, dense where it refuses these.

    Args:
        layer: whose outputs are the classes.
        num_classes: from now on.
    """
    dense_shape = layer.dense_shape and (num_classes, *layer.dense_shape[1:])
    changed = dataclasses.replace(layer, shape=(num_classes, *layer.shape[1:]), dense_shape=dense_shape)
    if layer.dense_macs is not None:
        positions = layer.dense_macs // layer.dense_numel
        executed = positions * math.prod(changed.shape)
        changed = dataclasses.replace(changed, dense_macs=positions * changed.dense_numel, macs=executed)
    if layer.method is None:
        return changed
    method = BY_NAME[layer.method]
    # a packed weight has further keys, which count its numbers
    config = method.Config(**{key: value for key, value in layer.config.items() if key in method.Config.model_fields})
    reason = method.rejects(changed.shape, config)
    if reason is None:
        planned = with_config(changed, config)
        return dataclasses.replace(planned, remark=planned.remark or (FITTED if dense_shape else None))
    return dataclasses.replace(
        changed,
        method=None,
        config={},
        seed=None,
        remark=f"{layer.method} cannot hold it: {reason}",
        lr_scale=1.0,
        weight_decay=None,
    )
