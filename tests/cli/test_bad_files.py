"""Files and images that cannot be used, and outputs that are there: one message, exit 1, and nothing lost or left."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file
from torch import zeros

from tests.cli.calls import compressnet, tree


def refused(*arguments: object) -> str:
    """The message of a command that must end with one."""
    result = compressnet(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.count("Error: ") == 1
    return result.stderr[result.stderr.index("Error: ") :]


def _truncated(path: Path, good: bytes) -> None:
    path.write_bytes(good[:-100])


def _headless(path: Path, good: bytes) -> None:
    path.write_bytes(good[:40])


def _tampered(path: Path, good: bytes) -> None:
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))


def _relabelled(path: Path, good: bytes) -> None:
    assert good.count(b'\\"stage\\":\\"converted\\"') == 1
    path.write_bytes(good.replace(b'\\"stage\\":\\"converted\\"', b'\\"stage\\":\\"finetuned\\"'))


def _foreign(path: Path, good: bytes) -> None:
    path.write_text("hello, this is not a model at all")


def _pickle(path: Path, good: bytes) -> None:
    path.write_bytes(b"PK\x03\x04" + good[:100])


def _plain(path: Path, good: bytes) -> None:
    save_file({"weight": zeros(3)}, path)


def _newer(path: Path, good: bytes) -> None:
    path.write_bytes(good.replace(b'\\"format\\":1', b'\\"format\\":9'))


def _empty(path: Path, good: bytes) -> None:
    path.write_bytes(b"")


def _missing(path: Path, good: bytes) -> None:
    pass


@pytest.mark.parametrize("command", ["finetune", "export", "evaluate", "predict"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_truncated, "truncated"),
        (_headless, "truncated"),
        (_tampered, "SHA-256 does not match"),
        (_relabelled, "SHA-256 does not match"),
        (_foreign, "not a safetensors file"),
        (_pickle, "a PyTorch pickle"),
        (_plain, "not one of compressnet's"),
        (_newer, "format version 9"),
        (_empty, "truncated"),
        (_missing, "no such file"),
    ],
)
def test_a_spoilt_file_is_refused(
    command: str, spoil: Callable[[Path, bytes], None], message: str, converted: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bad.safetensors"
    spoil(file, converted.read_bytes())
    image = tmp_path / "image.png"
    Image.new("L", (28, 28)).save(image)
    before = tree(tmp_path)
    rest = {"finetune": ["-o", tmp_path / "out"], "export": ["-o", tmp_path / "out.safetensors"], "predict": [image]}
    error = refused(command, file, *rest.get(command, []))
    assert f"{file}: " in error
    assert message in error
    assert tree(tmp_path) == before


@pytest.mark.parametrize("spoil", [_truncated, _headless, _foreign, _pickle, _plain, _newer, _empty, _missing])
def test_a_report_refuses_what_its_header_shows(
    spoil: Callable[[Path, bytes], None], converted: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bad.safetensors"
    spoil(file, converted.read_bytes())
    assert f"{file}: " in refused("report", converted, file)


def test_an_output_that_exists_is_kept(recipe: Path, converted: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.safetensors"
    there.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_text("precious")
    before = tree(tmp_path)
    assert "it exists already" in refused("convert", recipe, "-o", there, "--set", "pretrain=null")
    assert "--force replaces it" in refused("export", converted, "-o", there)
    assert "--force replaces it" in refused("export", converted, "-o", there, "--dense")
    assert "--resume goes on, --force starts anew" in refused("finetune", converted, "-o", tmp_path / "run")
    assert f"{there}: it is a file, not a folder" in refused("run", recipe, "-o", there)
    assert tree(tmp_path) == before


def test_a_folder_is_no_output_file_whatever_is_forced(recipe: Path, converted: Path, tmp_path: Path) -> None:
    for force in ([], ["--force"]):
        assert "it is a folder" in refused("convert", recipe, "-o", tmp_path, *force)
        assert "it is a folder" in refused("export", converted, "-o", tmp_path, *force)


LITTLE_SPACE = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
runpy.run_module("compressnet", run_name="__main__")
"""


@pytest.mark.parametrize("command", ["convert", "export", "export --dense", "finetune"])
def test_a_full_disk_is_told_and_nothing_half_written_is_left(
    command: str, recipe: Path, converted: Path, tmp_path: Path
) -> None:
    pytest.importorskip("resource")
    name, *options = command.split()
    source = recipe if name == "convert" else converted
    output = tmp_path / ("out" if name == "finetune" else "out.safetensors")
    # in a process of its own: pytest's output may be a file, too
    call = [sys.executable, "-c", LITTLE_SPACE, name, str(source), "-o", str(output), *options]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    written = output / "best.safetensors" if name == "finetune" else output
    assert f"{written}: cannot be written: File too large" in done.stderr
    assert tree(tmp_path) == {}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_place_that_takes_no_files_is_told(recipe: Path, converted: Path) -> None:
    for arguments in (["convert", recipe], ["export", converted]):
        assert "/proc/x.safetensors: cannot be written: " in refused(*arguments, "-o", "/proc/x.safetensors")


def test_force_replaces_the_output(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").write_text("old")
    assert compressnet("export", converted, "-o", tmp_path / "there.safetensors", "--force").exit_code == 0
    assert list(tree(tmp_path)) == ["there.safetensors"]


def test_there_must_be_something_to_resume(converted: Path, tmp_path: Path) -> None:
    assert "there is nothing to resume" in refused("finetune", converted, "-o", tmp_path / "out", "--resume")


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:99", "no such CUDA device"), ("gpu", "unknown device 'gpu'"), ("mps", "unknown device")],
)
def test_a_device_that_is_not_there_is_told(
    device: str, message: str, recipe: Path, converted: Path, tmp_path: Path
) -> None:
    for arguments in (
        ["finetune", converted, "-o", tmp_path / "out"],
        ["run", recipe, "-o", tmp_path / "out"],
        ["evaluate", converted],
        ["predict", converted, "x.png"],
    ):
        assert message in refused(*arguments, "--device", device)
    assert tree(tmp_path) == {}


def test_an_unknown_dtype_is_told(converted: Path, tmp_path: Path) -> None:
    error = refused("export", converted, "-o", tmp_path / "out.safetensors", "--dtype", "float61")
    assert "unknown dtype 'float61'; did you mean 'float16'?" in error


def _folders(root: Path, classes: int) -> None:
    for number in range(classes):
        (root / f"class{number:02}").mkdir(parents=True)
        for copy in range(3):
            Image.new("L", (28, 28), 20 * number).save(root / f"class{number:02}" / f"{copy}.png")


@pytest.mark.parametrize("command", ["convert", "finetune", "evaluate", "run"])
@pytest.mark.parametrize("case", ["missing", "empty", "classes", "unreadable", "unset"])
def test_data_that_cannot_be_used_is_told(
    command: str, case: str, recipe: Path, converted: Path, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    if case == "empty":
        root.mkdir()
    elif case in ("classes", "unreadable"):
        _folders(root, 11 if case == "classes" else 10)
    bad = root / "class03" / "1.png"
    if case == "unreadable":
        for path in root.rglob("*.png"):
            path.write_bytes(b"not a picture") if path == bad else None
    sets = ["--set", "data.dataset=imagefolder", "--set", f"data.root={root}", "--set", "data.val_fraction=0.4"]
    if case == "unset":
        sets = ["--set", "data=null"]
    known = ["--set", "pretrain=null", "--set", f"model.weights={converted}"]
    target = {
        "convert": [recipe, "-o", tmp_path / "out.safetensors", *known],
        "finetune": [converted, "-o", tmp_path / "out"],
        "evaluate": [converted],
        "run": [recipe, "-o", tmp_path / "out"],
    }[command]
    if command == "convert" and case == "unset":
        assert compressnet(command, *target, *sets).exit_code == 0  # weights are projected by themselves
        return
    error = refused(command, *target, *sets)
    expected = {
        "missing": "there is no such folder",
        "empty": "the folder is empty",
        "classes": "11 classes",
        "unreadable": f"{bad}: unreadable image",
        "unset": "data section",
    }
    assert expected[case] in error
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "out.safetensors").exists()


def test_an_unreadable_image_to_predict_is_named(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 torn off")
    error = refused("predict", converted, tmp_path / "bad.jpg")
    assert f"{tmp_path / 'bad.jpg'}: unreadable image" in error


def test_an_image_too_large_to_decode_is_named(converted: Path, tmp_path: Path) -> None:
    Image.new("1", (14_000, 14_000)).save(tmp_path / "huge.png")
    assert f"{tmp_path / 'huge.png'}: unreadable image" in refused("predict", converted, tmp_path / "huge.png")


def test_long_paths_and_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "[bold]" / ("x" * 120) / "model [v2].safetensors"
    assert refused("report", path) == f"Error: {path}: no such file\n"


def test_a_damaged_ledger_of_a_run_is_told(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"convert": 1})[:-3])
    assert "run.json: it is damaged" in refused("run", recipe, "-o", tmp_path)
