import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import compressnet


@pytest.mark.parametrize("stage", ["converted", "exported"])
def test_every_byte_of_the_file_is_in_a_row(lenet: dict[str, Any], tmp_path: Path, stage: str) -> None:
    path = tmp_path / "converted.safetensors"
    compressnet.convert(lenet, path)
    if stage == "exported":
        compressnet.export(path, tmp_path / "exported.safetensors")
        path = tmp_path / "exported.safetensors"
    (account,) = compressnet.report(path)
    assert account.stage == stage
    assert account.header_nbytes is not None
    assert account.header_nbytes + sum(row.nbytes or 0 for row in account.rows) == path.stat().st_size
    assert account.dense_numel == 431_080
    assert account.dense_nbytes == 4 * 431_080
    assert account.same_dtype_nbytes == (2 if stage == "exported" else 4) * 431_080


def test_files_and_recipes_are_reported_side_by_side(lenet: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(lenet))
    compressnet.convert(tmp_path / "recipe.yaml", tmp_path / "a.safetensors")
    plan, file = compressnet.report(tmp_path / "recipe.yaml", tmp_path / "a.safetensors")
    assert (plan.stage, file.stage) == ("plan", "converted")
    assert plan.numel == file.numel


def test_a_files_report_does_without_torch(lenet: dict[str, Any], tmp_path: Path) -> None:
    compressnet.convert(lenet, tmp_path / "a.safetensors")
    code = (
        "import sys, compressnet; compressnet.report(sys.argv[1]); "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.safetensors")], check=True)
