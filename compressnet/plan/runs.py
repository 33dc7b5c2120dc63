"""The run of layers a block stands for, found in a model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import cast

from torch import nn

from compressnet.errors import PlanError, did_you_mean, listing

REPLACED = (nn.Linear, nn.ReLU, nn.Dropout, nn.Identity)
PASSED = (nn.ReLU, nn.Dropout, nn.Identity)  # what may stand between a block and the layer that is made to fit it


@dataclass(frozen=True)
class Run:
    """Consecutive children of one ``nn.Sequential``.

    Args:
        names: of the children a block stands for, from a linear layer up to ``head``.
        head: the linear layer behind them, which is made to fit the block's features.
        linear: those of ``names`` that are linear layers.
        ins: length of an input.
        dense_numel: weights and biases of ``linear``.
    """

    names: tuple[str, ...]
    head: str
    linear: tuple[str, ...]
    ins: int
    dense_numel: int


def matching(model: nn.Module, patterns: Sequence[str], *, leaves: bool = True) -> list[str]:
    """The modules that patterns name: globs mean modules without children, or with ``leaves=False`` any.

    Raises:
        PlanError: a pattern matches none.
    """
    if not patterns:
        raise PlanError("it names no layer")
    modules = dict(model.named_modules(remove_duplicate=False))
    names = [name for name, module in modules.items() if name and not (leaves and any(module.children()))]
    found = []
    for pattern in patterns:
        matched = [pattern] if pattern in modules else [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            near = did_you_mean(pattern, names).replace("there are", "it has")
            raise PlanError(f"'{pattern}' matches no layer; {near}")
        found += matched
    return list(dict.fromkeys(found))


def find_run(model: nn.Module, names: Sequence[str]) -> Run:
    """What a block would stand for, and the layer behind it.

    That layer is the next linear one of the ``nn.Sequential``; where there is none, the last linear one of ``names``.

    Raises:
        PlanError: no block can stand for these.
    """
    children = _children(model, names)
    places = [place for place, (name, _) in enumerate(children) if name in names]
    between = [name for name, _ in children[places[0] : places[-1]] if name not in names]
    if between:
        raise PlanError(f"its layers are not consecutive: {listing(between, 4)} between them")
    for name, module in children[places[0] : places[-1] + 1]:
        if type(module) not in REPLACED:
            raise PlanError(f"{name} is {type(module).__name__}; a block stands for Linear, ReLU and Dropout")
    linear = [place for place in places if type(children[place][1]) is nn.Linear]
    if not linear:
        raise PlanError("there is no linear layer among them")
    end = _behind(children, places[-1] + 1)
    if end is None:
        end = linear.pop()
    if not linear:
        raise PlanError(
            f"no linear layer follows {children[end][0]}; the one behind a block is made to fit its features"
        )
    chain = [(name, cast(nn.Linear, module)) for name, module in (children[place] for place in (*linear, end))]
    _check_shapes(model, chain)
    replaced = [module for _, module in chain[:-1]]
    return Run(
        tuple(name for name, _ in children[linear[0] : end]),
        chain[-1][0],
        tuple(name for name, _ in chain[:-1]),
        replaced[0].in_features,
        sum(parameter.numel() for module in replaced for parameter in module.parameters()),
    )


def _children(model: nn.Module, names: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The children of the one ``nn.Sequential`` that all names are of."""
    parents = {name.rpartition(".")[0] for name in names}
    if len(parents) > 1 or names == [""]:
        raise PlanError(f"{listing(names, 4)} are not children of one nn.Sequential; a block crosses no branch")
    (parent,) = parents
    try:
        module = model.get_submodule(parent)
        for name in names:
            model.get_submodule(name)
    except AttributeError:
        raise PlanError(f"{listing(names, 4)} are not all in the model") from None
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        kind = type(module).__name__
        raise PlanError(f"{names[0]} is no child of an nn.Sequential; {kind} runs its children in its own way")
    return [
        (f"{parent}.{key}" if parent else key, child) for key, child in module._modules.items() if child is not None
    ]


def _behind(children: Sequence[tuple[str, nn.Module]], place: int) -> int | None:
    """The place of the linear layer that follows, with nothing between but what a block's features may pass."""
    while place < len(children) and type(children[place][1]) in PASSED:
        place += 1
    return place if place < len(children) and type(children[place][1]) is nn.Linear else None


def _check_shapes(model: nn.Module, chain: Sequence[tuple[str, nn.Linear]]) -> None:
    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for name, module in chain:
        if uses[id(module)] > 1:
            raise PlanError(f"{name} is shared by several places")
    for (before, source), (name, module) in pairwise(chain):
        outs, ins = source.out_features, module.in_features
        if outs != ins:
            raise PlanError(f"{name} takes {ins} inputs, and {before} gives {outs}")
