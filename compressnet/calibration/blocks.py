"""The blocks of a model, fitted to what the dense model makes of images."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressnet.calibration.images import taken
from compressnet.fitting import fit_head_
from compressnet.maths.hashing import normal
from compressnet.plan import PlannedBlock
from compressnet.rewrite import place_

OnBlock = Callable[[PlannedBlock, float], None]
"""Told a block and the relative error of the outputs behind it."""
GAUSSIAN = 1024  # inputs, where there are no images
ROWS = 1 << 14  # samples at most, where an image gives several


class BlockFit:
    """Places the blocks of a model and fits them, and fits the layers behind them again when others have changed.

    Args:
        model: dense, on the CPU; changed in place by the methods. It is run in evaluation mode.
        blocks: of the plan, in the order they run.
        images: unlabelled, of shape (N, C, H, W). Without them a block sees normal vectors, and gives what the layers
            it stands for make of them.

    Raises:
        DataError: they are no images, or the model cannot take them.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[PlannedBlock], images: Tensor | None) -> None:
        self.model, self.blocks, self.images = model, blocks, images
        self.targets: dict[str, Tensor] = {}
        if blocks and images is not None:
            with taken(model, images):
                self.targets = _seen(model, [block.head for block in blocks], images, outputs=True)

    def place_(self, on_block: OnBlock | None = None) -> dict[str, float]:
        """Put every block in its place, with a layer behind it that gives the dense outputs as well as it can.

        Args:
            on_block: told each block and its error when it is done.

        Returns:
            of each block, the relative error of the outputs behind it, on samples that the fit leaves out.
        """
        errors = {}
        for planned in self.blocks:
            inputs, targets = self._pair(planned)
            block, head = place_(self.model, planned)
            with torch.no_grad():
                features = torch.cat([block(part) for part in inputs.split(64)])
            errors[planned.name] = fit_head_(head, features, targets)
            if on_block:
                on_block(planned, errors[planned.name])
        return errors

    def refit_(self) -> dict[str, float]:
        """Fit the dense layers behind blocks to what the blocks now give them; errors as :meth:`place_` has them."""
        errors = {}
        for planned in self.blocks:
            head = self.model.get_submodule(planned.head)
            if self.images is not None and type(head) is nn.Linear:
                features = _seen(self.model, [planned.head], self.images)[planned.head]
                errors[planned.name] = fit_head_(head, features, self.targets[planned.head])
        return errors

    def _pair(self, planned: PlannedBlock) -> tuple[Tensor, Tensor]:
        """What a block sees, and what is wanted of the layer behind it."""
        if self.images is not None:
            return _seen(self.model, [planned.name], self.images)[planned.name], self.targets[planned.head]
        ins = planned.shape[1]
        inputs = normal(GAUSSIAN * ins, planned.seed, stream=3).view(GAUSSIAN, ins).float()
        return inputs, _through(self.model, planned, inputs)


@torch.no_grad()
def _seen(model: nn.Module, names: Sequence[str], images: Tensor, outputs: bool = False) -> dict[str, Tensor]:
    """The vectors that go into, or come out of, modules when images pass through a model."""
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = []
    for name in names:

        def keep(module: nn.Module, args: tuple[Tensor, ...], y: Any, into: list[Tensor] = kept[name]) -> None:
            vectors = y if outputs else args[0]
            into.append(vectors.reshape(-1, vectors.shape[-1]).clone())

        handles.append(model.get_submodule(name).register_forward_hook(keep))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for batch in images.split(32):
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    whole = {name: torch.cat(parts) for name, parts in kept.items()}
    return {name: rows[:: max(1, -(-len(rows) // ROWS))] for name, rows in whole.items()}


@torch.no_grad()
def _through(model: nn.Module, planned: PlannedBlock, x: Tensor) -> Tensor:
    """What the layers that a block stands for, and the one behind them, make of inputs."""
    for name in (*planned.run, planned.head):
        module = model.get_submodule(name)
        x = x if isinstance(module, nn.Dropout) else module(x)
    return x
