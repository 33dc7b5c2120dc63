"""What is done to a compressed model once, before it is trained end to end: ``calibrate`` and ``batchnorm``."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from compressnet.calibration import BlockFit, calibrate_
from compressnet.data.datasets import PartDataset
from compressnet.data.loading import make_loader
from compressnet.errors import TrainingError
from compressnet.layers import CompressedLayer
from compressnet.maths.hashing import Purpose, permutation
from compressnet.plan import PlannedBlock, PlannedLayer
from compressnet.progress import Progress
from compressnet.recipe import BatchNormSection, CalibrateSection, FinetuneSection
from compressnet.training.parts import sample_images

Stage = Callable[[nn.Module, Progress], None]
"""Changes a model in place."""


@dataclass(frozen=True)
class Preparation:
    """What the stages before training need beside the model.

    Args:
        layers: of the plan.
        blocks: of the plan.
        dense: the dense model, where there is one.
        images: of the training part, as in evaluation; labels are not used.
        seed: which of them are taken.
        ridge: see :func:`compressnet.calibration.calibrate_`.
        batch_size: images at a time.
        device: where the model is.
    """

    layers: Sequence[PlannedLayer]
    blocks: Sequence[PlannedBlock]
    dense: nn.Module | None
    images: PartDataset
    seed: int
    ridge: float
    batch_size: int
    device: torch.device

    def stages(self, model: nn.Module, settings: FinetuneSection, progress: Progress) -> dict[str, Stage]:
        """The stages that settings ask for, in order; those that have nothing to do are left out, with a note.

        Raises:
            TrainingError: the model cannot be calibrated.
        """
        found: dict[str, Stage] = {}
        if settings.calibrate is not None:
            calibrate = settings.calibrate
            if any(layer.method for layer in self.layers) or self.blocks:
                self._check(model)
                found["calibrate"] = lambda model, progress: self.calibrate_(model, calibrate, progress)
            else:
                progress.note("finetune.calibrate: no layer is compressed, there is nothing to fit")
        if settings.batchnorm is not None:
            batchnorm = settings.batchnorm
            if any(isinstance(module, _BatchNorm) and module.track_running_stats for module in model.modules()):
                found["batchnorm"] = lambda model, progress: self.batchnorm_(model, batchnorm, progress)
            else:
                progress.note("finetune.batchnorm: the model has no norm statistics, there is nothing to estimate")
        return found

    def calibrate_(self, model: nn.Module, settings: CalibrateSection, progress: Progress) -> None:
        """Fit every layer to the dense model's outputs, on the inputs that the compressed model gives it."""
        images = sample_images(self.images, settings.images, self.seed)
        for number in range(settings.passes):
            title = f"calibrating, pass {number + 1} of {settings.passes}"
            with progress.task(title, sum(layer.method is not None for layer in self.layers)) as advance:
                fitted = self._fitted(model, images, lambda layer, *errors: advance(1, layer=layer.name))
            model.load_state_dict(fitted.state_dict())

    def batchnorm_(self, model: nn.Module, settings: BatchNormSection, progress: Progress) -> None:
        """Estimate the statistics of norm layers anew: the mean over batches of their own."""
        count = min(settings.images, len(self.images))
        whole = count // self.batch_size * self.batch_size or count
        order = permutation(len(self.images), self.seed, Purpose.ORDER)[:whole].tolist()
        loader = make_loader(self.images, self.batch_size, 0, order=order, device=self.device)
        with progress.task("estimating norm statistics", len(loader)) as advance:

            def batches() -> Iterator[Tensor]:
                for images, _ in loader:
                    yield images
                    advance(1)

            update_bn(batches(), model, self.device)

    def _fitted(self, model: nn.Module, images: Tensor, on_layer: Callable[..., None]) -> nn.Module:
        """A model as the given one, fitted from its numbers, on the CPU."""
        dense = copy.deepcopy(self.dense)
        assert dense is not None
        dense = dense.cpu()
        held = {layer.name: model.get_submodule(layer.name) for layer in self.layers if layer.method}
        start = {
            name: copy.deepcopy(layer.structured).cpu()
            for name, layer in held.items()
            if isinstance(layer, CompressedLayer)
        }
        blocks = BlockFit(dense, self.blocks, images)
        blocks.place_()
        calibrate_(dense, self.layers, images, ridge=self.ridge, on_layer=on_layer, start=start)
        blocks.refit_()
        return dense

    def _check(self, model: nn.Module) -> None:
        """What is not compressed is the dense model's: outputs to reach come from it, inputs go through it."""
        assert self.dense is not None
        fitted = [layer.bias for layer in self.layers if layer.method]
        fitted += [f"{name}." for block in self.blocks for name in (*block.run, block.head)]
        state = model.state_dict()
        for name, tensor in self.dense.state_dict().items():
            kept = name in state and not name.startswith(tuple(fitted))
            if kept and not torch.equal(tensor.cpu(), state[name].cpu()):
                raise TrainingError(
                    f"{name} is not the dense model's: what is calibrated is a file as convert makes it",
                    "finetune.calibrate",
                    "--set finetune.calibrate=null leaves it out",
                )
