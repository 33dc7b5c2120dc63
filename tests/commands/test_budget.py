"""A budget in place of ratios: shared by what is measured, shown by a dry run, met by the exported file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import compressnet
from compressnet.description import describe
from compressnet.errors import RecipeError
from compressnet.plan import make_plan
from compressnet.pretrained import dense_model
from compressnet.progress import Progress
from compressnet.recipe import read_recipe
from compressnet.sizing import resolve
from compressnet.sizing.overhead import overhead
from tests.cli.calls import compressnet as call

pytestmark = pytest.mark.slow

RULES = [
    {"match": "conv2", "method": "freshnet", "min_ratio": 2, "max_ratio": 6},
    {"match": "fc1", "method": "hashednet", "min_ratio": 16, "max_ratio": 64},
    {"match": "fc2", "method": "hashednet", "max_ratio": 4},
]


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a LeNet-5 that knows digits a little."""
    folder = tmp_path_factory.mktemp("dense")
    recipe = {
        "model": {"name": "lenet5", "num_classes": 10},
        "data": {"dataset": "digits", "image_size": 28},
        "finetune": {"epochs": 2, "lr": 0.002},
    }
    compressnet.convert(recipe, folder / "drawn.safetensors")
    compressnet.finetune(folder / "drawn.safetensors", folder)
    return str(folder / "best.safetensors")


@pytest.fixture
def recipe(dense: str) -> dict[str, Any]:
    return {
        "model": {"name": "lenet5", "weights": dense},
        "data": {"dataset": "digits", "image_size": 28},
        "layers": RULES,
        "calibration": {"images": 32},
        "finetune": {"epochs": 1, "lr": 0.001},
        "budget": "12kB",
    }


@pytest.mark.parametrize("budget", [5000, "30KiB"])
def test_the_exported_file_fits_and_uses_what_it_may(recipe: dict[str, Any], tmp_path: Path, budget: Any) -> None:
    recipe["budget"] = budget
    allowed = read_recipe(recipe).checked().budget or 0
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    exported = compressnet.export(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert 0.97 * allowed <= exported.nbytes <= allowed
    assert exported.nbytes == (tmp_path / "b.safetensors").stat().st_size
    account = compressnet.report(tmp_path / "b.safetensors")[0]
    foreseen = overhead(make_plan(read_recipe(recipe)))
    assert foreseen.index == pytest.approx(account.overhead["header"] + account.overhead["index"], rel=0.5)
    (biases,) = [row for row in account.rows if row.name == "biases"]
    assert foreseen.numel == biases.numel
    assert 0.3 * foreseen.vectors < (biases.nbytes or 0) < 1.5 * foreseen.vectors
    assert all(row.bits is None for row in account.rows)


def test_the_plan_has_exact_ratios_and_bits_and_more_where_there_is_more_room(recipe: dict[str, Any]) -> None:
    accounts = {
        budget: compressnet.convert(recipe, dry_run=True, overrides=[f"budget={budget}"]) for budget in ("6kB", "25kB")
    }
    for account in accounts.values():
        rows = [row for row in account.rows if row.shape]
        assert all(row.bits and row.nbytes and row.loss_share is not None for row in rows)
        assert sum(row.loss_share or 0 for row in rows) == pytest.approx(1)
        assert account.nbytes is not None
        assert account.budget is not None
        assert account.nbytes == pytest.approx(account.budget, rel=0.1)
        assert account.nbytes <= account.budget * 1.001
    assert [account.numel for account in accounts.values()] == sorted(each.numel for each in accounts.values())


def test_what_is_given_is_kept_and_bounds_are_respected(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["layers"] = [
        {"match": "conv2", "method": "freshnet", "ratio": 5, "bits": 7},
        {"match": "fc1", "method": "hashednet", "min_ratio": 30, "max_ratio": 50},
        {"match": "fc2", "method": "hashednet", "numel": 1234},
    ]
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    conv1, conv2, fc1, fc2 = describe(tmp_path / "a.safetensors").layers
    assert (conv2.config["ratio"], conv2.bits) == (5, 7)
    assert 30 <= fc1.config["ratio"] <= 50
    assert fc2.numel() == 1234
    assert all(layer.bits is not None for layer in (conv1, fc1, fc2))
    compressnet.export(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert describe(tmp_path / "b.safetensors").layers[1].bits == 7


@pytest.mark.parametrize("images", [True, False], ids=["images", "weights"])
def test_resolving_leaves_the_model_as_it_was(recipe: dict[str, Any], images: bool) -> None:
    plan = make_plan(read_recipe(recipe))
    model = dense_model(plan)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draw = torch.Generator().manual_seed(0)
    given = torch.randn(20, 1, 28, 28, generator=draw) if images else None
    first, again = resolve(plan, model, given), resolve(plan, model, given)
    assert first == again
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"budget": 900}, r"budget: 900 bytes are too few: the rules take at least [\d,]+, [\d,]+ numbers of 2 bits"),
        ({"budget": "2MB"}, r"budget: 2,000,000 bytes hold the dense model at 16 bits a number, which takes 862,"),
        ({"export": {"coder": "none"}}, "budget: it is met by the size of steps"),
        ({"export": {"quantiser": "codebook"}}, "budget: it is met by the size of steps"),
    ],
)
def test_budgets_that_cannot_be_met_are_told_before_images_and_weights_are_read(
    recipe: dict[str, Any], tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    recipe |= change | {"data": {"dataset": "imagefolder", "root": str(tmp_path / "nowhere")}}
    for make in (compressnet.convert, compressnet.run):
        with pytest.raises(RecipeError, match=text):
            make(recipe, tmp_path / "out")


def test_compress_takes_ratios_only() -> None:
    with pytest.raises(RecipeError, match="budget: it is of a file that is exported"):
        compressnet.compress(torch.nn.Sequential(torch.nn.Linear(3, 3)), {"budget": "1kB", "layers": []})


def test_a_dry_run_does_with_what_is_there_and_says_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["data"] = {"dataset": "imagefolder", "root": str(tmp_path / "nowhere"), "image_size": 28}
    told = Told()
    account = compressnet.convert(recipe, dry_run=True, progress=told)
    assert any("no images: " in note for note in told.notes)
    assert any("counted by themselves" in note for note in told.notes)
    assert account.nbytes is not None


def test_the_command_line_gives_the_budget_and_shows_how_it_is_shared(recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe | {"budget": None}), encoding="utf-8")
    refused = call("convert", tmp_path / "recipe.yaml", "--dry-run")
    assert refused.exit_code == 1
    shown = call("convert", tmp_path / "recipe.yaml", "--dry-run", "--target-size", "9kB")
    assert shown.exit_code == 0
    assert "loss %" in shown.stdout
    assert "of the 9,000 that the file may have" in shown.stdout
    given = call("convert", tmp_path / "recipe.yaml", "--dry-run", "--json", "--target-size", "9kB")
    assert json.loads(given.stdout)["budget"] == 9000


def test_a_run_meets_its_budget_and_another_budget_is_another_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["calibration"] = None
    first = compressnet.run(recipe, tmp_path / "run")
    assert 0.97 * 12_000 <= (first.account.file_nbytes or 0) <= 12_000
    again = compressnet.run(recipe, tmp_path / "run")
    assert {"convert", "finetune", "export"} <= set(again.skipped)
    other = compressnet.run(recipe, tmp_path / "run", overrides=["budget=6kB"])
    assert "convert" not in other.skipped
    assert 0.97 * 6000 <= (other.account.file_nbytes or 0) <= 6000


def test_trained_steps_are_kept_where_they_fit(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["calibration"] = None
    recipe["export"] = {"bits": 2, "vector_bits": 4}
    recipe["finetune"] |= {"quantise": {}}
    recipe["layers"] = [rule | {"bits": 2, "min_ratio": 90, "max_ratio": 100} for rule in RULES]
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    compressnet.finetune(tmp_path / "a.safetensors", tmp_path)
    assert compressnet.export(tmp_path / "best.safetensors", tmp_path / "b.safetensors").nbytes <= 12_000
