"""Learning what layers of the dense model give, beside its answers.

- Features: the outputs themselves. Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets: Hints for Thin Deep Nets,
  ICLR 2015, https://arxiv.org/abs/1412.6550, equation (3); there is no regressor, as the shapes are the same.
- Attention: where in the image they are large. Zagoruyko, Komodakis: Paying More Attention to Attention: Improving the
  Performance of Convolutional Neural Networks via Attention Transfer, ICLR 2017, https://arxiv.org/abs/1612.03928.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.errors import TrainingError

_TINY = 1e-30
_WHERE = "finetune.distill"


class Outputs:
    """What named modules of a model gave in its last forward pass.

    It is copied: an activation that follows may work in place. Of a module that runs several times it is the last
    output, of one that gives several tensors the first.

    Args:
        model: its modules keep a hook until :meth:`close`.
        names: of modules.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._last: dict[str, Tensor] = {}
        self._hooks = [
            model.get_submodule(name).register_forward_hook(self._keep(name)) for name in dict.fromkeys(names)
        ]

    def take(self) -> dict[str, Tensor]:
        """By name; they are forgotten then, so that no graph outlives its step."""
        taken = dict(self._last)
        self._last.clear()
        return taken

    def close(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                self._last[name] = first.clone()

        return keep


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared error of a layer's outputs over the teacher's mean square, so that layers of any scale compare.

    Args:
        student: shape (N, …).
        teacher: the same shape.
    """
    student, teacher = student.float(), teacher.float()
    return F.mse_loss(student, teacher) / teacher.square().mean().clamp(min=_TINY)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """What β multiplies in equation (2) of Zagoruyko and Komodakis, for one layer; a mean over images.

        ½ · ‖Q_S / ‖Q_S‖₂ − Q_T / ‖Q_T‖₂‖₂,    Q = vec(Σ A²) over the channels

    Args:
        student: A, shape (N, C, H, W).
        teacher: the same shape.
    """
    return 0.5 * torch.linalg.vector_norm(_attention(student) - _attention(teacher), dim=1).mean()


def _attention(outputs: Tensor) -> Tensor:
    return F.normalize(outputs.float().square().sum(1).flatten(1), dim=1)


@torch.no_grad()
def check_layers(
    student: nn.Module, teacher: nn.Module, features: Iterable[str], attention: Iterable[str], images: Tensor
) -> None:
    """Refuse to teach layers that give nothing, or not the same in both models.

    Args:
        student: left in evaluation mode.
        teacher: in evaluation mode.
        features: names of modules.
        attention: names of modules, whose outputs must have places.
        images: shape (N, C, H, W); one does.

    Raises:
        TrainingError: naming the layer.
    """
    maps = set(attention)
    names = [*features, *maps]
    given, wanted = _shapes(student.eval(), names, images), _shapes(teacher, names, images)
    for name in names:
        if name not in given or name not in wanted:
            what = f"{name} never runs as a layer by itself, so there is nothing of it to learn"
            raise TrainingError(what, _WHERE, "name one that does, such as the layer that holds it")
        if given[name] != wanted[name]:
            what = f"{name} gives {given[name]} in the compressed model, {wanted[name]} in the dense one"
            raise TrainingError(what, _WHERE, "name layers that no block stands for")
        if name in maps and len(wanted[name]) != 4:
            what = f"{name} gives {wanted[name]}, which has no places to attend to"
            raise TrainingError(what, f"{_WHERE}.attention", "name layers that give (N, C, H, W), or take features")


def _shapes(model: nn.Module, names: Iterable[str], images: Tensor) -> dict[str, tuple[int, ...]]:
    with closing(Outputs(model, names)) as outputs:
        model(images)
        return {name: tuple(output.shape) for name, output in outputs.take().items()}
