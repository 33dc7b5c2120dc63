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
    from compressnet.training.evaluation import Metrics
    from compressnet.training.stage import Trained


def show_metrics(metrics: Mapping[str, "Metrics"], what: str = "part") -> None:
    """A row for each, such as parts of the data or stages of a run."""
    columns = [
        Column(what),
        Column("images", True),
        Column("top1 %", True),
        Column("top5 %", True),
        Column("loss", True),
    ]
    rows = [
        [name, count(each.count), f"{each.top1:.2f}", f"{each.top5:.2f}", f"{each.loss:.4f}"]
        for name, each in metrics.items()
    ]
    terminal.show_grid(Grid(columns, rows))


def show_trained(trained: "Trained") -> None:
    """How accuracy moved."""
    show_metrics({"val before": trained.before, "val best": trained.best, "test": trained.test})
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
    columns = [Column("model"), *(Column(f"{what} %", True) for what in ("val top1", "test top1", "test top5"))]
    columns += [Column("test loss", True), Column("bytes", True)]
    rows = []
    for name in dict.fromkeys(["dense", "converted", *finished.val, *finished.nbytes]):
        val, test = finished.val.get(name), finished.metrics.get(name)
        tested = [f"{test.top1:.2f}", f"{test.top5:.2f}", f"{test.loss:.4f}"] if test else [""] * 3
        rows.append([name, f"{val.top1:.2f}" if val else "", *tested, count(finished.nbytes.get(name))])
    terminal.show_grid(Grid(columns, rows).without_empty_columns())
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
