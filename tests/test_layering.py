"""Imports point down only: a module may import what stands on a lower floor, or beside it in its own package."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "compressnet"

FLOORS = [
    {"errors", "progress", "maths", "keys", "metadata", "nbytes"},
    {"index"},
    {"container", "output", "tensors"},
    {"accounting", "digest", "frozen"},
    {"structured", "block"},
    {"layers", "fitting", "trace"},
    {"product", "hashed"},
    {"methods", "blocks", "attention"},
    {"recipe", "zoo"},
    {"plan"},
    {"rewrite", "dense", "limits", "consistency", "data", "coding", "folding"},
    {"description"},
    {"checkpoint", "calibration", "interchange", "transfer"},
    {"allocation"},
    {"pretrained", "sizing"},
    {"training"},
    {"shipping"},
    {"commands", "api"},
    {"cli"},
    {"__init__", "__main__"},
]
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}
FILES = sorted(path for path in ROOT.rglob("*.py"))
BEHIND = {
    "yaml": {"recipe/text.py"},
    "safetensors": {"checkpoint.py", "zoo/state_dicts.py"},
    "rich": {"cli/display"},
    "constriction": {"coding/entropy.py"},
    "numba": {"maths/compiled"},
    "llvmlite": {"maths/compiled"},
    "triton": {"maths/cuda"},
    "typer": {"cli"},
    "torchvision": {"zoo", "data"},
    "onnx": {"interchange/onnx.py"},
    "onnxruntime": {"interchange/onnx.py"},
}


def parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


def imported(path: Path) -> set[str]:
    """The full names of the modules a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts(p)))
def test_imports_point_down_only(path: Path) -> None:
    own = parts(path)[0]
    assert own in HEIGHT, f"{path} has no floor"
    for name in imported(path):
        head, *rest = name.split(".")
        if head != "compressnet" or not rest or rest[0] not in HEIGHT or own in ("__init__",):
            continue
        assert rest[0] == own or HEIGHT[rest[0]] < HEIGHT[own], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts(p)))
def test_a_method_never_imports_a_method_nor_a_block_a_block_nor_a_command_a_command(path: Path) -> None:
    own = parts(path)
    if len(own) < 2 or own[0] not in ("methods", "blocks", "commands") or own[1] in ("__init__", "run"):
        return
    siblings = {f"compressnet.{own[0]}.{other.stem}" for other in (ROOT / own[0]).glob("*.py")} - {
        f"compressnet.{'.'.join(own)}",
        f"compressnet.{own[0]}.__init__",
    }
    assert not imported(path) & siblings


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts(p)))
def test_each_outside_library_stays_behind_its_named_files(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    for library in {module.split(".")[0] for module in imported(path)} & set(BEHIND):
        assert any(name == allowed or name.startswith(f"{allowed}/") for allowed in BEHIND[library]), (
            f"{name} imports {library}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts(p)))
def test_no_file_is_a_drawer(path: Path) -> None:
    assert path.stem not in {"utils", "helpers", "common", "misc", "manager", "handler"}
    assert len(path.read_text().splitlines()) <= 300, "split it"
