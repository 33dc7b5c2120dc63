"""What the commands other than convert and report return, in a few lines each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compressnet.cli.display import terminal
from compressnet.cli.display.grid import Column, Grid, count, times

if TYPE_CHECKING:  # these import torch, which `recipes` does without
    from compressnet.commands.export import Exported
    from compressnet.commands.predict import Prediction
    from compressnet.commands.recipes import Shipped
    from compressnet.commands.run import Finished
    from compressnet.training.evaluation import Divergence, Metrics
    from compressnet.training.trained import Trained


_FIGURES: Mapping[str, tuple[str, str]] = {
    "count": ("images", "{:,}"),
    "top1": ("top1 %", "{:.2f}"),
    "top5": ("top5 %", "{:.2f}"),
    "loss": ("loss", "{:.4f}"),
    "divergence": ("divergence", "{:.4f}"),
}


def show_metrics(metrics: Mapping[str, "Metrics | Divergence"], what: str = "part") -> None:
    """A row for each, such as parts of the data or stages of a run; a column for each figure that one of them has."""
    told = {name: each.to_json() for name, each in metrics.items()}
    shown = [key for key in _FIGURES if any(key in figures for figures in told.values())]
    columns = [Column(what), *(Column(_FIGURES[key][0], True) for key in shown)]
    rows = [
        [name, *(_FIGURES[key][1].format(figures[key]) if key in figures else "" for key in shown)]
        for name, figures in told.items()
    ]
    terminal.show_grid(Grid(columns, rows))


def show_trained(trained: "Trained") -> None:
    """How accuracy moved."""
    stages = {f"val after {name}": val for name, val in trained.stages.items()}
    parts = {"val before": trained.before, **stages, "val best": trained.best}
    show_metrics(parts | ({"test": trained.test} if trained.test else {}))
    best = f"the best by val is epoch {trained.best_epoch} of {trained.epochs}"
    terminal.show_text(f"{trained.path}: {count(trained.nbytes)} bytes, {best}")


def show_exported(exported: "Exported") -> None:
    """How large and how faithful the file is."""
    ratio = exported.source_nbytes / exported.nbytes
    smaller = f", {times(ratio)} as many" if ratio >= 1 else ""
    terminal.show_text(
        f"{exported.path}: {exported.kind} in {exported.form}, {count(exported.nbytes)} bytes\n"
        f"its source has {count(exported.source_nbytes)} bytes{smaller}\n"
        f"reloaded and compared on {exported.compared_on}: "
        f"logits within {exported.logits_difference:.2g} of the source's, "
        f"the largest of which is {exported.logits_scale:.2g}; the same class on {exported.agreement:.0%}"
    )


def show_finished(finished: "Finished") -> None:
    """What a run came to, on one screen."""
    if finished.skipped:
        terminal.show_text(f"done before with the same inputs: {', '.join(finished.skipped)}\n")
    shown = [("val", "top1"), ("val", "divergence"), ("test", "top1"), ("test", "top5"), ("test", "loss")]
    columns = [Column(f"{part} {_FIGURES[key][0]}", True) for part, key in shown]
    rows = []
    for name in dict.fromkeys(["dense", "converted", *finished.val, *finished.nbytes]):
        parts = {"val": finished.val.get(name), "test": finished.metrics.get(name)}
        figures = [(key, getattr(parts[part], key, None)) for part, key in shown]
        cells = ["" if figure is None else _FIGURES[key][1].format(figure) for key, figure in figures]
        rows.append([name, *cells, count(finished.nbytes.get(name))])
    terminal.show_grid(Grid([Column("model"), *columns, Column("bytes", True)], rows).without_empty_columns())
    dense, exported = finished.dense_file_nbytes, finished.account.file_nbytes or 0
    terminal.show_text(f"{times(dense / exported)} smaller than dense\n")


def show_predictions(predictions: Sequence["Prediction"]) -> None:
    """A row for each class of each image."""
    rows = [
        [each.image, name, f"{100 * probability:.2f}"]
        for each in predictions
        for name, probability in zip(each.classes, each.probabilities, strict=True)
    ]
    terminal.show_grid(Grid([Column("image"), Column("class"), Column("probability %", True)], rows))


def show_recipes(recipes: Sequence["Shipped"]) -> None:
    """A row for each."""
    terminal.show_grid(
        Grid([Column("recipe"), Column("what it does")], [[each.name, each.summary] for each in recipes])
    )
