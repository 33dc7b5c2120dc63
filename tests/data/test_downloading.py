from pathlib import Path

import pytest

from compressnet.data.downloading import download_once
from compressnet.errors import DataError


class Kept:
    """A data set of one file in a folder, made like torchvision's; counts what it fetched."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails, self.fetched = fails, 0

    def __call__(self, root: Path, download: bool) -> str:
        file = root / "Kept" / "data"
        if download and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            print("torchvision prints while it downloads")
            (file.parent / "half").touch()
            if self.fails:
                raise self.fails
            self.fetched += 1
            file.write_text("whole")
        if not file.exists():
            raise RuntimeError("Dataset not found")
        return file.read_text()


def test_what_is_not_there_is_downloaded_once(tmp_path, capsys):
    build = Kept()
    assert download_once("kept", tmp_path / "new", ["Kept"], build) == "whole"
    assert download_once("kept", tmp_path / "new", ["Kept"], build) == "whole"
    assert build.fetched == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["Kept"]
    shown = capsys.readouterr()
    assert not shown.out
    assert "torchvision prints" in shown.err


@pytest.mark.parametrize(
    "error",
    [
        OSError("<urlopen error timed out>"),
        RuntimeError("Error downloading:\n<urlopen error timed out>"),
        EOFError("<urlopen error timed out>"),
    ],
)
def test_a_failed_download_leaves_nothing_behind(tmp_path, error):
    root = tmp_path / "new"
    cure = f"check the network, or put Kept into {root} yourself"
    with pytest.raises(DataError, match=f"new: kept is not there and cannot be downloaded: .*timed out>\n  {cure}"):
        download_once("kept", root, ["Kept"], Kept(error))
    assert not root.exists()


def test_a_failed_download_leaves_what_was_there(tmp_path):
    (tmp_path / "Kept").mkdir()
    (tmp_path / "Kept" / "archive").write_text("mine")
    with pytest.raises(DataError):
        download_once("kept", tmp_path, ["Kept"], Kept(OSError("no")))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["Kept", "Kept/archive"]


def test_archives_put_there_by_hand_are_taken_along(tmp_path):
    (tmp_path / "Kept").mkdir()
    (tmp_path / "Kept" / "archive").write_text("mine")
    (tmp_path / "unrelated").touch()
    assert download_once("kept", tmp_path, ["Kept", "absent"], Kept()) == "whole"
    assert (tmp_path / "Kept" / "archive").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Kept", "unrelated"]


def test_a_root_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be downloaded"):
        download_once("kept", tmp_path / "file" / "below", ["Kept"], Kept())


def test_a_damaged_data_set_is_refused_with_what_to_remove(tmp_path):
    def build(root: Path, download: bool) -> None:
        raise ValueError("cannot reshape")

    with pytest.raises(DataError, match=r"kept is damaged.*\n  remove Kept there"):
        download_once("kept", tmp_path, ["Kept"], build)
