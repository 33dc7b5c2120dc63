import pytest

from compressnet.cli.display import progress
from compressnet.cli.display.progress import Lines


def test_a_task_without_a_terminal_begins_and_ends_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines().task("projecting", 2) as advance:
        advance(1, layer="conv1", error=0.25)
        advance(1, layer="[red]", error=0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["projecting …", "projecting: 2 of 2, 0:00  [red]  error 0.500"]


def test_a_long_task_shows_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with Lines().task("epoch 1", 100) as advance:
        advance(50)  # done before the run was resumed
        advance(1, loss=1.5)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1 …",
        "epoch 1: 50 of 100, 0:00",
        "epoch 1: 51 of 100, 0:00, 0:00 left  loss 1.500",
        "epoch 1: 51 of 100, 0:00, 0:00 left  loss 1.500",
    ]


def test_a_task_that_fails_does_not_say_that_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), Lines().task("projecting", 2):
        raise ZeroDivisionError
    assert capsys.readouterr().err == "projecting …\n"


def test_a_task_of_unknown_length_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines().task("reading") as advance:
        advance()
    assert capsys.readouterr().err.endswith("reading: 1, 0:00\n")
