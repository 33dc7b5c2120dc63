from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from compressnet import __version__
from tests.cli.calls import compressnet, read_json, succeed, tree


def test_convert_prints_each_layer_and_writes_the_file(recipe: Path, tmp_path: Path) -> None:
    output = succeed("convert", recipe, "-o", tmp_path / "c.safetensors", "--set", "pretrain=null")
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line.strip()}
    assert rows["conv2"][1:6] == ["freshnet", "50×20×5×5", "25,000", "6,250", "4.0×"]
    assert rows["fc1"][1] == "deepfried"
    assert rows["fc2"][1] == "dense"
    assert "no rule matches it" in output
    assert f"{(tmp_path / 'c.safetensors').stat().st_size:,}" in rows["total"]
    assert list(tree(tmp_path)) == ["c.safetensors"]


def test_a_dry_run_prices_without_writing(recipe: Path, tmp_path: Path) -> None:
    priced = read_json("convert", recipe, "--dry-run", "--set", "layers.1.ratio=10")
    assert priced["stage"] == "plan"
    assert {row["name"]: row["numel"] for row in priced["rows"]}["conv2"] == 2500
    assert tree(tmp_path) == {}


def test_the_output_of_a_real_conversion_must_be_named(recipe: Path) -> None:
    result = compressnet("convert", recipe)
    assert result.exit_code == 2
    assert "-o" in result.stderr


def test_finetune_writes_its_files_and_prints_its_figures(converted: Path, tmp_path: Path) -> None:
    output = succeed("finetune", converted, "-o", tmp_path / "ft")
    assert tree(tmp_path / "ft").keys() == {"best.safetensors", "last.pt", "metrics.jsonl"}
    assert "val before      6" in output
    assert "val best        6" in output
    assert f"best.safetensors: {(tmp_path / 'ft' / 'best.safetensors').stat().st_size:,} bytes, the best" in output


def test_finetune_gives_json(converted: Path, tmp_path: Path) -> None:
    trained = read_json("finetune", converted, "-o", tmp_path / "ft", "--set", "finetune.epochs=2")
    assert trained["epochs"] == 2
    assert trained["test"]["count"] == 64


def test_export_says_how_near_the_file_is(converted: Path, tmp_path: Path) -> None:
    output = succeed("export", converted, "-o", tmp_path / "m.safetensors", "--dtype", "bfloat16")
    size = (tmp_path / "m.safetensors").stat().st_size
    assert f"in bfloat16, {size:,} bytes" in output
    assert "logits within" in output


def test_a_dense_export_is_an_ordinary_state_dict(converted: Path, tmp_path: Path) -> None:
    exported = read_json("export", converted, "-o", tmp_path / "m.safetensors", "--dense")
    assert exported["kind"] == "an ordinary state_dict"
    assert exported["form"] == "float32"
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert "fc1.weight" in file.keys()  # noqa: SIM118  (not a mapping)


def test_a_report_adds_up_to_the_file(exported: Path) -> None:
    (account,) = read_json("report", exported)
    assert account["file_nbytes"] == exported.stat().st_size
    overhead = account["header_nbytes"] + account["index_nbytes"] + account["records_nbytes"]
    assert overhead + sum(row["nbytes"] for row in account["rows"]) == account["file_nbytes"]
    output = succeed("report", exported)
    assert f"{account['file_nbytes']:,}" in output
    assert "…" not in output
    assert {"header", "index", "code"} <= {line.split(" ")[0] for line in output.splitlines()}


def test_a_file_with_its_recipe_says_what_was_measured(done: Path, tmp_path: Path) -> None:
    best = done / "finetune" / "best.safetensors"
    succeed("export", best, "-o", tmp_path / "m.safetensors", "--with-recipe", "--bits", "5")
    assert "finetuned: " in succeed("report", tmp_path / "m.safetensors")
    succeed("evaluate", tmp_path / "m.safetensors", "--device", "cpu")


def test_several_paths_are_compared(recipe: Path, converted: Path, exported: Path) -> None:
    output = succeed("report", recipe, converted, exported)
    lines = {line.split()[0]: line.split()[1] for line in output.splitlines()[2:]}
    assert lines == {str(recipe): "plan", str(converted): "converted", str(exported): "exported"}
    assert [account["stage"] for account in read_json("report", converted, exported)] == ["converted", "exported"]


@pytest.mark.parametrize("several", [False, True])
def test_a_report_can_be_markdown(converted: Path, exported: Path, several: bool) -> None:
    output = succeed("report", "--markdown", exported, *([converted] if several else []))
    table = [line for line in output.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert set(table[1]) <= set("|-: ")


def test_a_report_is_json_or_markdown(exported: Path) -> None:
    assert compressnet("report", exported, "--json", "--markdown").exit_code == 2


def test_a_table_of_methods_has_a_column_for_each(exported: Path) -> None:
    table = succeed("report", "--methods", "lenet5", "--ratio", "8").splitlines()
    assert table[0] == "lenet5: lenet5 at ratio 8, numbers stored for one layer"
    rows = {line.split()[0]: line.split() for line in table if line.strip()}
    assert rows["conv2"][1:6] == ["50×20×5×5", "25.0k", "1.60M", "3.12k", "3.12k"]
    assert rows["conv2"][-6:-4] == ["3.30k", "(6)"]  # monarch, of 50 by 500
    (read,) = read_json("report", "--methods", exported, "--ratio", "8")
    freshnet = read["layers"][1]["choices"][0]
    assert (read["model"], freshnet["method"], freshnet["numel"]) == ("lenet5", "freshnet", 3125)
    markdown = succeed("report", "--methods", "quickstart", "--markdown").splitlines()
    assert len({line.count("|") for line in markdown if line.startswith("|")}) == 1


def test_a_ratio_below_one_is_a_mistake_in_the_call() -> None:
    assert compressnet("report", "--methods", "lenet5", "--ratio", "0.5").exit_code == 2


def test_a_shipped_recipe_is_known_by_its_name() -> None:
    assert "alexnet, plan" in succeed("report", "quickstart")
    assert "alexnet, plan" in succeed("convert", "quickstart", "--dry-run")


def test_evaluate_measures_a_file(recipe: Path, exported: Path) -> None:
    asked = ("evaluate", exported, "--recipe", recipe)
    assert read_json(*asked, "--part", "train").keys() == {"count", "top1", "top5", "loss"}
    assert succeed(*asked, "--set", "data.samples=32").splitlines()[-1].split()[:2] == ["test", "32"]


def test_run_shows_each_accuracy_then_the_report(recipe: Path, done: Path) -> None:
    result = compressnet("run", recipe, "-o", done)
    assert result.exit_code == 0, result.stderr
    assert "done before with the same inputs: pretrain, convert, finetune, export" in result.stdout
    shown = {cells[0]: cells[1:] for cells in map(str.split, result.stdout.splitlines()[4:8])}
    finished = read_json("run", recipe, "-o", done)
    val, test = ({name: f"{each['top1']:.2f}" for name, each in finished[of].items()} for of in ("val", "metrics"))
    assert {name: cells[-1] for name, cells in shown.items()} == {
        name: f"{path.stat().st_size:,}"
        for name, path in {
            "dense": done / "pretrain" / "dense.safetensors",
            "converted": done / "converted.safetensors",
            "finetuned": done / "finetune" / "best.safetensors",
            "exported": done / "model.safetensors",
        }.items()
    }
    assert shown["dense"][:2] == [val["dense"], test["dense"]]
    assert shown["converted"][0] == val["converted"]
    assert shown["finetuned"][:2] == [val["finetuned"], test["finetuned"]]
    assert shown["exported"][0] == test["exported"]
    assert "total" in result.stdout
    assert finished["report"]["stage"] == "exported"


def test_predict_names_classes(exported: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("L", (40, 30), 90).save(tmp_path / name)
    images = [tmp_path / "a.png", tmp_path / "b.png"]
    predictions = read_json("predict", exported, *images, "--top", "3")
    assert [each["image"] for each in predictions] == [str(image) for image in images]
    assert [len(each["classes"]) for each in predictions] == [3, 3]
    assert len(succeed("predict", exported, *images, "--top", "2").splitlines()) == 2 + 4


def test_recipes_lists_and_prints() -> None:
    names = [item["name"] for item in read_json("recipes")]
    assert "quickstart" in names
    assert all(name in succeed("recipes") for name in names)
    assert "alexnet" in succeed("recipes", "quickstart")


def test_progress_goes_to_stderr(recipe: Path, exported: Path) -> None:
    result = compressnet("evaluate", exported, "--recipe", recipe, "--json")
    assert "evaluating: 4 of 4" in result.stderr
    assert "evaluating" not in result.stdout


def test_the_version_is_shown() -> None:
    assert succeed("--version") == f"compressnet {__version__}\n"
