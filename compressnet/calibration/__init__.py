"""Projection that knows the data: each layer is fitted to the dense network's outputs, in the order layers run.

A batch holds every image twice and goes through the model once: its first half is what the dense network computes, its
second half what the compressed one does. Where it reaches a planned layer, it halts; that layer is fitted, and the
second half goes on with the outputs of the fitted layer: what comes later knows the errors made before it.

Layers are met where their weight is used, by a function mode: Swin passes the weights of its attention to ``F.linear``
itself.
"""

from compressnet.calibration.blocks import BlockFit
from compressnet.calibration.calibrate import calibrate_

__all__ = ["BlockFit", "calibrate_"]
