import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import compressnet
from compressnet.commands.report import report_methods
from compressnet.plan import make_plan
from compressnet.recipe import read_recipe


@pytest.mark.parametrize("stage", ["converted", "exported"])
def test_every_byte_of_the_file_is_in_a_row(lenet: dict[str, Any], tmp_path: Path, stage: str) -> None:
    path = tmp_path / "converted.safetensors"
    compressnet.convert(lenet, path)
    if stage == "exported":
        compressnet.export(path, tmp_path / "exported.safetensors")
        path = tmp_path / "exported.safetensors"
    (account,) = compressnet.report(path)
    assert account.stage == stage
    assert sum(account.overhead.values()) + sum(row.nbytes or 0 for row in account.rows) == path.stat().st_size
    assert account.dense_numel == 431_080
    assert account.dense_nbytes == 4 * 431_080
    widths = {row.name: row.width for row in account.rows}
    assert account.same_dtype_nbytes == round(sum(row.dense_numel * widths[row.name] for row in account.rows))
    assert widths["fc2"] == 4 if stage == "converted" else widths["fc2"] < 2


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


@pytest.mark.parametrize("ratio", [4, 16])
def test_the_numbers_of_a_choice_are_those_of_a_plan_with_its_setting(ratio: float) -> None:
    table = report_methods("lenet5", ratio=ratio)
    assert [name for layer in table.layers for name in layer.names] == ["conv1", "conv2", "fc1", "fc2"]
    for layer in table.layers:
        for choice in layer.choices:
            rule = {"match": layer.names[0], "method": choice.method, **choice.setting}
            draft = read_recipe({"model": {"name": "lenet5"}, "layers": [rule]})
            if choice.reason:
                with pytest.raises(compressnet.CompressnetError, match=re.escape(choice.reason)):
                    make_plan(draft)
            else:
                planned = next(planned for planned in make_plan(draft).layers if planned.method)
                assert (choice.numel, choice.macs) == (planned.numel(), planned.macs)


@pytest.mark.parametrize("ratio", [2, 8, 16, 64])
@pytest.mark.parametrize(("method", "key"), [("monarch", "blocks"), ("acdc", "depth")])
def test_no_whole_setting_is_nearer_to_the_ratio(method: str, key: str, ratio: float) -> None:
    (fc1,) = [layer for layer in report_methods("lenet5", ratio=ratio).layers if "fc1" in layer.names]
    (choice,) = [choice for choice in fc1.choices if choice.method == method]
    assert choice.numel is not None
    value, distances = choice.setting[key], {}
    for other in (value - 1, value, value + 1):
        draft = read_recipe({"model": {"name": "lenet5"}, "layers": [{"match": "fc1", "method": method, key: other}]})
        with suppress(compressnet.CompressnetError):
            distances[other] = abs(make_plan(draft).layers[2].numel() - 400_000 / ratio)
    assert distances[value] == min(distances.values())


def test_layers_of_one_shape_stand_together_and_what_must_stay_dense_says_why() -> None:
    table = report_methods("vit_b_16")
    assert sum(len(layer.names) for layer in table.layers) == 50
    mlp = next(layer for layer in table.layers if layer.names[0].endswith("mlp.0"))
    assert len(mlp.names) == 12
    assert all(bool(layer.reason) != bool(layer.choices) for layer in table.layers)


def test_a_recipe_and_its_file_have_the_choices_of_their_model(lenet: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(lenet))
    compressnet.convert(lenet, tmp_path / "a.safetensors")
    model = report_methods("lenet5").layers
    assert report_methods(tmp_path / "recipe.yaml").layers == model
    assert report_methods(tmp_path / "a.safetensors").layers == model


def test_grouped_layers_have_choices_and_auxiliary_heads_none() -> None:
    grouped = [layer for layer in report_methods("mobilenet_v2").layers if layer.groups > 1]
    assert grouped
    assert all(layer.choices for layer in grouped)
    assert not [layer for layer in report_methods("googlenet").layers if layer.names[0].startswith("aux")]


@pytest.mark.parametrize(
    ("source", "ratio", "message"),
    [
        ("resnet81", 16, "resnet81: neither a model, a recipe nor a file\n  did you mean 'resnet18'"),
        ("resnet18", 0.5, "--ratio: 0.5 is no ratio"),
        ("resnet18", float("inf"), "--ratio: inf is no ratio"),
        ("resnet18", float("nan"), "--ratio: nan is no ratio"),
        ("nowhere.yaml", 16, "nowhere.yaml: no such recipe"),
    ],
)
def test_what_has_no_choices_is_refused(source: str, ratio: float, message: str) -> None:
    with pytest.raises(compressnet.CompressnetError, match=message):
        report_methods(source, ratio=ratio)
