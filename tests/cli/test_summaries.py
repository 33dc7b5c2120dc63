import pytest

from compressnet.cli.display.summaries import show_metrics
from compressnet.training.evaluation import Divergence, Metrics


def test_a_figure_that_nothing_has_takes_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    show_metrics({"val": Divergence(1234, 0.5)})
    head, *_, row = capsys.readouterr().out.strip().splitlines()
    assert head.split() == ["part", "images", "divergence"]
    assert row.split() == ["val", "1,234", "0.5000"]


def test_a_figure_that_one_row_lacks_is_left_blank(capsys: pytest.CaptureFixture[str]) -> None:
    show_metrics({"val": Divergence(9, 0.5), "test": Metrics(30, 50, 100, 1.25)})
    *_, val, test = capsys.readouterr().out.strip().splitlines()
    assert val.split() == ["val", "9", "0.5000"]
    assert test.split() == ["test", "30", "50.00", "100.00", "1.2500"]
