"""The blocks of a plan: which run of layers each stands for, and the layers that are made to fit them."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from compressnet.block import Block
from compressnet.blocks import BY_NAME
from compressnet.errors import FileError, PlanError, did_you_mean
from compressnet.maths.seeds import layer_seed
from compressnet.plan.layers import REPLACED, PlannedLayer, check_pace, check_scales
from compressnet.plan.runs import find_run, matching
from compressnet.recipe import BlockRule, Draft
from compressnet.recipe.rules import BLOCK_RULES


@dataclass(frozen=True)
class PlannedBlock:
    """One block and what it stands for.

    Args:
        name: of the first layer it stands for, in whose place it is.
        block: by name.
        run: names of all it stands for, in order.
        head: the linear layer behind it, which is made to fit its features.
        shape: features and inputs.
        dense_numel: weights and biases of what it stands for.
        seed: of its hashes.
        config: the block's recipe keys.
        dense_macs: multiply–accumulates of one image through what it stands for, where they are known.
        macs: the same as executed.
        lr_scale: times the learning rate of its stored tensors; or a number for each that differs, by name.
        weight_decay: of its stored tensors; None is that of the training section.
        bits: of each of its numbers in an exported file; None is those of the export section.
    """

    name: str
    block: str
    run: tuple[str, ...]
    head: str
    shape: tuple[int, int]
    dense_numel: int
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    dense_macs: int | None = None
    macs: int | None = None
    lr_scale: float | Mapping[str, float] = 1.0
    weight_decay: float | None = None
    bits: int | None = None

    @property
    def prefix(self) -> str:
        """What the names of its stored tensors begin with."""
        return f"{self.name}."

    def build(self, device: str = "cpu") -> Block:
        """The block as drawn; on ``meta`` only its shapes."""
        block = BY_NAME[self.block]
        return block(self.shape[1], block.Config(**self.config), self.seed, device=device)

    def numel(self) -> int:
        """How many numbers are stored for it."""
        return self.build("meta").numel

    def to_json(self) -> dict[str, Any]:
        """As it travels in a file: what is None or usual is left out."""
        items = {key: getattr(self, key) for key in self.__dataclass_fields__}
        items["lr_scale"] = None if self.lr_scale == 1 else self.lr_scale
        made = {"run": list(self.run), "shape": list(self.shape), "config": dict(self.config)}
        return {key: value for key, value in (items | made).items() if value is not None}

    @classmethod
    def from_json(cls, item: Mapping[str, Any], where: str) -> "PlannedBlock":
        """As read from a file.

        Raises:
            FileError: it is not what this version writes.
        """
        try:
            block = cls(**{**item, "run": tuple(item["run"]), "shape": tuple(item["shape"])})
            outs, ins = block.shape
            counts = [
                outs,
                ins,
                block.dense_numel,
                block.seed,
                *(c or 0 for c in (block.macs, block.dense_macs, block.bits)),
            ]
            names = [block.name, block.block, block.head, *block.run]
            if not all(type(count) is int and count >= 0 for count in counts) or min(outs, ins) < 1:
                raise ValueError
            if not all(isinstance(name, str) for name in names) or block.run[0] != block.name:
                raise ValueError
            if block.block not in BY_NAME:
                raise FileError(f"unknown block '{block.block}'; {did_you_mean(block.block, BY_NAME)}", where)
            check_pace(block)
            kind = BY_NAME[block.block]
            config = kind.Config(**block.config)
            if kind.rejects(ins, config) or kind.features(ins, config) != outs:
                raise ValueError
        except (TypeError, KeyError, ValueError, AttributeError, IndexError):
            raise FileError(f"its plan of {item.get('name', 'a block')} is damaged", where, "fetch it again") from None
        return block


def in_order(blocks: Sequence[PlannedBlock], layers: Sequence[PlannedLayer]) -> Iterator[PlannedBlock | PlannedLayer]:
    """Blocks and layers in the order they run: a block stands before the layer that is made to fit it."""
    for layer in layers:
        yield from (block for block in blocks if block.head == layer.name)
        yield layer


def plan_blocks(
    draft: Draft, model: nn.Module, layers: Sequence[PlannedLayer]
) -> tuple[tuple[PlannedBlock, ...], list[PlannedLayer]]:
    """Place the blocks of a recipe; mistakes are noted in the draft.

    Args:
        draft: of the recipe.
        model: the dense one, on any device.
        layers: its candidates.

    Returns:
        the blocks, and the candidates as rules of methods then find them: those that a block stands for say so in
        their remark, and those behind a block have the shape that fits it.
    """
    fates = {layer.name: layer for layer in layers}
    blocks = []
    for index, rule in _rules(draft):
        try:
            blocks.append(_place(draft, rule, model, fates))
            check_scales(draft, index, rule.lr_scale, rule.block, blocks[-1].build("meta"))
        except PlanError as error:
            draft.mistake(("layers", index, "match"), str(error))
        except _Refused as refused:
            draft.mistake(("layers", index, "features"), f"{rule.block} cannot take it: {refused}")
    return tuple(blocks), [fates[layer.name] for layer in layers]


class _Refused(Exception):  # noqa: N818 - carries a reason to where the mistake is noted
    pass


def _rules(draft: Draft) -> Iterator[tuple[int, BlockRule]]:
    """The block rules that are right in themselves, even where other parts of the recipe are wrong."""
    raw = draft.raw.get("layers")
    for index, item in enumerate(raw if isinstance(raw, list) else ()):
        try:
            yield index, BLOCK_RULES[item["block"]].model_validate(item)
        except (ValueError, KeyError, TypeError):
            continue


def _place(draft: Draft, rule: BlockRule, model: nn.Module, fates: dict[str, PlannedLayer]) -> PlannedBlock:
    patterns = (rule.match,) if isinstance(rule.match, str) else rule.match
    run = find_run(model, matching(model, patterns))
    for name in (*run.linear, run.head):
        layer = fates[name]
        if layer.dense_shape or layer.remark == REPLACED:
            raise PlanError(f"{name} belongs to an earlier block")
        if layer.remark:
            raise PlanError(f"no block takes {name}: {layer.remark}")
    block, config, head = BY_NAME[rule.block], rule.config, fates[run.head]
    if reason := block.rejects(run.ins, config):
        raise _Refused(reason)
    features = block.features(run.ins, config)
    replaced = [fates[name] for name in run.linear]
    counts = [layer.dense_macs for layer in replaced if layer.dense_macs is not None]
    positions = counts[0] // replaced[0].dense_numel if counts else None
    fates.update({layer.name: dataclasses.replace(layer, remark=REPLACED) for layer in replaced})
    shape = (head.shape[0], features)
    fates[head.name] = dataclasses.replace(
        head,
        shape=shape,
        dense_shape=head.shape,
        macs=None if positions is None else positions * math.prod(shape),
    )
    return PlannedBlock(
        run.names[0],
        rule.block,
        run.names,
        run.head,
        (features, run.ins),
        run.dense_numel,
        layer_seed(draft.recipe.seed if draft.recipe else 0, run.names[0]),
        config.model_dump(),
        sum(counts) if counts else None,
        None if positions is None else positions * block.macs_per_input(run.ins, config),
        rule.lr_scale,
        block.weight_decay if rule.weight_decay is None else rule.weight_decay,
        rule.bits,
    )
