"""The types of what a file says of itself: what reads it then, from the report to the loader, can rely on them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

STAGES = ("dense", "converted", "finetuned", "exported")
MAX_NUMEL = 2**40
"""What no weight has, so that sizes made of a shape stay countable."""
Check = Callable[[Any], bool]


def damage(meta: Mapping[str, Any]) -> str | None:
    """What has not the types of ``docs/format.md``, or None; other keys may stand beside those."""
    if not _fits(meta, _META):
        return "compressnet metadata"
    wrong = (item for item in meta["plan"] if not _fits(item, _BLOCK if "block" in item else _LAYER))
    return next((f"plan of {item.get('name', 'a layer')}" for item in wrong), None)


def _fits(value: Any, keys: Mapping[str, Check]) -> bool:
    """Whether it is a mapping whose values pass; those of keys that are left out are None."""
    return isinstance(value, Mapping) and all(check(value.get(key)) for key, check in keys.items())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_side(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_shape(value: Any) -> bool:
    return _list_of(_is_side)(value) and len(value) in (2, 4) and math.prod(value) < MAX_NUMEL


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check, least: int = 1) -> Check:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(check, value))


def _mapping_of(check: Check) -> Check:
    return lambda value: isinstance(value, Mapping) and all(map(check, value.values()))


def _keys(**keys: Check) -> Check:
    return lambda value: _fits(value, keys)


def _is_results(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        (_are_errors if name in ERRORS else _are_measured)(figures) for name, figures in value.items()
    )


ERRORS = ("projection_errors", "output_errors")
"""The results that are about layers; the others are about stages."""
_are_errors = _mapping_of(_is_number)
_are_measured = _keys(test=_or_none(_keys(top1=_is_number, count=_is_count)))
_PRICED = {"name": _is_text, "macs": _or_none(_is_count), "dense_macs": _or_none(_is_count)}
_META: Mapping[str, Check] = {
    "stage": lambda value: value in STAGES,
    "model": _or_none(_keys(name=_is_text)),
    "preprocessing": _or_none(_is_mapping),
    "classes": _or_none(_list_of(_is_text)),
    "plan": _list_of(_is_mapping, least=0),
    "recipe": _is_mapping,
    "results": _is_results,
    "quantisers": _or_none(_mapping_of(_keys(kind=_is_text))),
}
_LAYER: Mapping[str, Check] = {
    **_PRICED,
    "kind": _is_text,
    "shape": _is_shape,
    "dense_shape": _or_none(_is_shape),
    "groups": _or_none(_is_side),
    "method": _or_none(_is_text),
    "remark": _or_none(_is_text),
}
_BLOCK: Mapping[str, Check] = {
    **_PRICED,
    "block": _is_text,
    "run": _list_of(_is_text),
    "shape": _is_shape,
    "dense_numel": _is_count,
}
