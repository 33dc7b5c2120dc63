"""What can hold each layer: a row for layers of one shape, a column for each method."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from compressnet.cli.display import terminal
from compressnet.cli.display.grid import Column, Grid, short
from compressnet.errors import listing

if TYPE_CHECKING:  # they import torch
    from compressnet.commands.report import Methods
    from compressnet.plan.choices import Choice, LayerChoices

NONE = "–"  # the method cannot hold the layer

Described = tuple[Column, Callable[["LayerChoices"], str]]

LAYERS: Described = Column("layers"), lambda layer: _names(layer)
SHAPE: Described = Column("shape"), lambda layer: "×".join(map(str, layer.shape))
DENSE: Described = Column("dense", True), lambda layer: short(layer.dense_numel)
MACS: Described = Column("MACs", True), lambda layer: short(layer.dense_macs)


def show(methods: "Methods", markdown: bool = False) -> None:
    """One table, or on a terminal without room for it one for each kind of method; below it, what needs a word."""
    layers = methods.layers
    names = list(dict.fromkeys(choice.method for layer in layers for choice in layer.choices))
    product = [name for name in names if any(_runs_otherwise(layer, name) for layer in layers)]
    dense = [_stored(layers, name) for name in names if name not in product]
    stored, run = [_stored(layers, name) for name in product], [_run(name) for name in product]
    pairs = (each for pair in zip(stored, run, strict=True) for each in pair)
    whole = _grid(layers, LAYERS, SHAPE, DENSE, MACS, *dense, *pairs)
    title = f"{methods.source}: {methods.model} at ratio {methods.ratio:g}, numbers stored for one layer"
    notes = _notes(methods, product)
    if markdown:
        below = "\n".join(f"- {line}" for line in notes)
        terminal.show_markdown(f"**{title}**\n\n{whole.markdown()}\n\n{below}")
        return
    parts = {title: whole}
    if terminal.is_narrow(whole.width):
        parts = {
            title: _grid(layers, LAYERS, DENSE, *dense),
            "\nthe same for methods that may run as a product of their own": _grid(layers, LAYERS, DENSE, *stored),
            "\ntheir multiply-accumulates": _grid(layers, LAYERS, MACS, *run),
        }
    for head, part in parts.items():
        terminal.show_text(head)
        terminal.show_grid(part)
    terminal.show_text("\n" + "\n".join(notes))


def _grid(layers: Sequence["LayerChoices"], *columns: Described) -> Grid:
    return Grid([column for column, _ in columns], [[cell(layer) for _, cell in columns] for layer in layers])


def _stored(layers: Sequence["LayerChoices"], method: str) -> Described:
    """What a method stores; its setting stands in the head where it is one for all layers, else in each cell."""
    settings = {setting for layer in layers for setting in _settings(_choice(layer, method))}
    title = f"{method}\n({next(iter(settings))[0]})" if settings else method
    if len(settings) == 1:
        title = "\n".join((method, *(f"{key}\n{value:g}" for key, value in settings)))

    def cell(layer: "LayerChoices") -> str:
        choice = _choice(layer, method)
        own = _settings(choice) if len(settings) > 1 else []
        return short(choice.numel) + "".join(f" ({value:g})" for _, value in own) if choice else NONE

    return Column(title, True), cell


def _run(method: str) -> Described:
    def cell(layer: "LayerChoices") -> str:
        choice = _choice(layer, method)
        return short(choice.macs) if choice else NONE

    return Column(f"{method}\nMACs", True), cell


def _settings(choice: "Choice | None") -> list[tuple[str, float]]:
    return [(key, value) for key, value in choice.setting.items() if key != "ratio"] if choice else []


def _choice(layer: "LayerChoices", method: str) -> "Choice | None":
    return next((choice for choice in layer.choices if choice.method == method and choice.numel is not None), None)


def _runs_otherwise(layer: "LayerChoices", method: str) -> bool:
    choice = _choice(layer, method)
    return choice is not None and choice.macs != layer.dense_macs


def _names(layer: "LayerChoices") -> str:
    return layer.names[0] + (f" +{len(layer.names) - 1}" if len(layer.names) > 1 else "")


def _notes(methods: "Methods", product: Sequence[str]) -> list[str]:
    """How to read the table, and why a method cannot hold a layer."""
    lines = []
    if any(len(layer.names) > 1 for layer in methods.layers):
        lines.append("+N: and N more layers of that shape")
    lines.append("a method without ratio takes the setting nearest to it, bitmaps aside")
    lines.append("a byte of a bitmap counts as a number")
    if product:
        lines.append(
            f"{', '.join(product)} run as products of their own where MACs differ, all else as the dense weight"
        )
    about: dict[tuple[str, str], list[str]] = {}
    for layer in methods.layers:
        if layer.reason:
            about.setdefault(("dense", layer.reason), []).append(_names(layer))
        for choice in layer.choices:
            if choice.reason:
                reason = choice.reason.removeprefix(f"{choice.method} ")
                about.setdefault((choice.method, reason), []).append(_names(layer))
    alike: dict[tuple[str, str], list[str]] = {}
    for (method, reason), names in about.items():
        alike.setdefault((reason, listing(names, 4)), []).append(method)
    return lines + [f"{NONE} {', '.join(found)}: {reason}: {names}" for (reason, names), found in alike.items()]
