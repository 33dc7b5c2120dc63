"""The rules of a recipe's ``layers``: one form for each method and block, made from its own keys."""

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationInfo, create_model, model_validator

from compressnet.block import BlockConfig
from compressnet.blocks import BLOCKS
from compressnet.blocks import BY_NAME as BLOCK_BY_NAME
from compressnet.keys import Keys
from compressnet.methods import BY_NAME, METHODS
from compressnet.structured import MethodConfig

Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MatchSpec(Keys):
    """Layers by what they are.

    Args:
        name: a glob on the full module name.
        type: conv2d, linear, or attention for an attention's input projection.
        kernel: height and width.
        min_numel: least number of weights.
    """

    name: str = "*"
    type: Literal["conv2d", "linear", "attention"] | None = None
    kernel: tuple[int, int] | None = None
    min_numel: int = Field(default=0, ge=0)

    def fits(self, name: str, kind: str, shape: Sequence[int]) -> bool:
        """Whether a layer is such."""
        return (
            fnmatchcase(name, self.name)
            and self.type in (None, kind)
            and (self.kernel is None or tuple(shape[2:]) == self.kernel)
            and math.prod(shape) >= self.min_numel
        )


class StoredSection(Keys):
    """At what pace the numbers learn that a rule stores, and how exactly they are stored in the end.

    Args:
        lr_scale: times the learning rate, for what is stored; or a number for each tensor of it.
        weight_decay: of what is stored; by default the method's or block's own, else that of the training section.
        bits: of each number in the exported file; by default those of the export section.
    """

    lr_scale: Scale | dict[str, Scale] = 1.0
    weight_decay: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    bits: int | None = Field(default=None, ge=2, le=16)


class Rule(StoredSection):
    """Which layers take which method; every method adds its own keys.

    Args:
        match: a glob on the full module name, a list of globs, or a ``MatchSpec``.
        method: by name.
        grouped: also take grouped and depthwise convolutions, which globs leave alone; an exact name always takes them.
    """

    match: str | tuple[str, ...] | MatchSpec
    method: str
    grouped: bool = False

    @property
    def config(self) -> MethodConfig:
        """The method's own keys."""
        config = BY_NAME[self.method].Config
        return config(**{key: getattr(self, key) for key in config.model_fields})


class BudgetRule(Rule):
    """A rule of a method that has a ``ratio``, in whose place each layer may have a budget, or the whole file.

    Args:
        numel: how many numbers to store for each layer at most.
        nbytes: how many bytes each layer may take in the exported file, before it is coded.
        min_ratio: where the budget of the file chooses the ratio, the least it may be; at 1 the layer may stay dense.
        max_ratio: the largest.
    """

    ratio: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    numel: int | None = Field(default=None, ge=1)
    nbytes: int | None = Field(default=None, ge=1)
    min_ratio: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    max_ratio: float | None = Field(default=None, ge=1, allow_inf_nan=False)

    @property
    def given(self) -> list[str]:
        """The keys that set the size; where there are none, the budget of the file does."""
        sizes: tuple[str, ...] = getattr(self, "sizes", ())
        return [key for key in sizes if getattr(self, key) is not None]

    @model_validator(mode="after")
    def _one_size(self, info: ValidationInfo) -> Self:
        """In place of the method's own: with a budget of the file none may be given."""
        sizes = ", ".join(getattr(self, "sizes", ()))
        free = not self.given and (info.context is None or info.context["budget"])
        if len(self.given) != 1 and not free:
            raise ValueError(f"exactly one of {sizes} is to be given, not {' and '.join(self.given) or 'none'}")
        if self.given and (self.min_ratio > 1 or self.max_ratio is not None):
            raise ValueError(f"min_ratio and max_ratio bound what a budget chooses; here {self.given[0]} is given")
        if self.max_ratio is not None and self.min_ratio > self.max_ratio:
            raise ValueError(f"min_ratio {self.min_ratio:g} is above max_ratio {self.max_ratio:g}")
        return self

    def config_at(self, ratio: float) -> MethodConfig:
        """The method's own keys, with a ratio."""
        config = BY_NAME[self.method].Config
        return config(**{key: getattr(self, key) for key in config.model_fields} | {"ratio": ratio})


class BlockRule(StoredSection):
    """Which run of layers a block stands for; every block adds its own keys.

    Args:
        match: names or globs of consecutive children of one ``nn.Sequential``: linear layers, ReLU and dropout.
        block: by name.
    """

    match: str | tuple[str, ...]
    block: str

    @property
    def config(self) -> BlockConfig:
        """The block's own keys."""
        config = BLOCK_BY_NAME[self.block].Config
        return config(**{key: getattr(self, key) for key in config.model_fields})


BLOCK_TAG = "block "  # before the names of blocks, so that a method may have the same


def _rule_of(method: Any) -> Any:
    fields: Any = {"method": (Literal[method.name], ...)}
    if "ratio" not in method.Config.sizes:
        return create_model(f"{method.name}_rule", __base__=(Rule, method.Config), **fields)
    rule = create_model(f"{method.name}_rule", __base__=(BudgetRule, method.Config), **fields)
    rule.sizes = (*method.Config.sizes, "numel", "nbytes")  # type: ignore[attr-defined]
    return rule


def _block_rule_of(block: Any) -> Any:
    fields: Any = {"block": (Literal[block.name], ...)}
    return create_model(f"{block.name}_rule", __base__=(BlockRule, block.Config), **fields)


def _tag(rule: Any) -> str | None:
    """The name of a rule's method, or of its block with the tag before it."""
    get = rule.get if isinstance(rule, dict) else lambda key: getattr(rule, key, None)
    name, tag = (get("block"), BLOCK_TAG) if get("block") is not None else (get("method"), "")
    return f"{tag}{name}" if isinstance(name, str) else None


RULES: dict[str, type[Rule]] = {method.name: _rule_of(method) for method in METHODS}
BLOCK_RULES: dict[str, type[BlockRule]] = {block.name: _block_rule_of(block) for block in BLOCKS}
TAGS: dict[str, type[Keys]] = {**RULES, **{f"{BLOCK_TAG}{name}": rule for name, rule in BLOCK_RULES.items()}}
_TAGGED: Any = [Annotated[rule, Tag(tag)] for tag, rule in TAGS.items()]
AnyRule: Any = Annotated[reduce(or_, _TAGGED), Discriminator(_tag)]
