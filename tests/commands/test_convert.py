from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import resnet18

import compressnet
from compressnet.errors import DataError, FileError, RecipeError, WeightsError
from compressnet.plan import make_plan
from compressnet.pretrained import dense_model
from compressnet.progress import Progress
from compressnet.recipe import read_recipe


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def known(lenet: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The recipe with weights from a file: those that are only drawn are not calibrated."""
    compressnet.convert({"model": lenet["model"]}, tmp_path / "dense.safetensors")
    return lenet | {"model": lenet["model"] | {"weights": str(tmp_path / "dense.safetensors")}, "pretrain": None}


def test_a_dry_run_prices_exactly_what_the_file_will_hold(lenet: dict[str, Any], tmp_path: Path) -> None:
    priced = compressnet.convert(lenet, dry_run=True)
    made = compressnet.convert(lenet, tmp_path / "a.safetensors")
    assert (priced.numel, priced.dense_numel, priced.macs) == (made.numel, made.dense_numel, made.macs)
    assert {row.name: row.numel for row in priced.rows if row.shape} == {
        row.name: row.numel for row in made.rows if row.shape
    }


def test_a_dry_run_needs_neither_weights_nor_data() -> None:
    recipe = {
        "model": {"name": "alexnet", "weights": "IMAGENET1K_V1"},
        "data": {"dataset": "imagefolder", "root": "nowhere"},
        "layers": [{"match": "classifier.1", "method": "deepfried"}],
    }
    assert compressnet.convert(recipe, dry_run=True).numel < 30_000_000


def test_the_errors_of_each_layer_are_reported(known: dict[str, Any], tmp_path: Path) -> None:
    account = compressnet.convert(known, tmp_path / "a.safetensors")
    errors = {row.name: row.error for row in account.rows if row.method not in ("", "dense")}
    assert errors.keys() == {"conv2", "fc1", "fc2"}
    assert all(error is not None and error > 0 for error in errors.values())
    outputs = {row["name"]: row["output_error"] for row in account.to_json()["rows"] if row["output_error"] is not None}
    assert outputs.keys() == errors.keys()
    assert all(0 < error < 1 for error in outputs.values())


def test_drawn_weights_keep_their_norm_and_are_not_calibrated(lenet: dict[str, Any], tmp_path: Path) -> None:
    told = Told()
    account = compressnet.convert(lenet, tmp_path / "a.safetensors", progress=told)
    assert all(row.output_error is None for row in account.rows)
    assert any("an untrained model is converted" in note for note in told.notes)
    dense, made = dense_model(make_plan(read_recipe(lenet))), compressnet.load(tmp_path / "a.safetensors")
    for name in ("conv2", "fc2"):
        wanted = dense.get_parameter(f"{name}.weight").norm()
        torch.testing.assert_close(made.get_submodule(name).weight.norm(), wanted)  # type: ignore[union-attr]


@pytest.mark.parametrize("without", ["calibration", "data"])
def test_without_images_weights_are_projected_by_themselves(
    known: dict[str, Any], tmp_path: Path, without: str
) -> None:
    told = Told()
    account = compressnet.convert(known | {without: None}, tmp_path / "a.safetensors", progress=told)
    assert all(row.output_error is None for row in account.rows)
    assert any("projected by themselves" in note for note in told.notes) == (without == "data")


def test_calibration_needs_training_images(known: dict[str, Any], tmp_path: Path) -> None:
    known["data"] = {"dataset": "imagefolder", "root": str(tmp_path / "nowhere"), "image_size": 28}
    with pytest.raises(DataError, match="--set calibration=null"):
        compressnet.convert(known, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def download_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(weights: Any) -> Any:
        raise AssertionError(f"{weights} are downloaded")

    monkeypatch.setattr("compressnet.zoo.weights._download", download)


PRETRAINED: dict[str, Any] = {
    "model": {"name": "squeezenet1_1", "weights": "IMAGENET1K_V1"},
    "layers": [{"match": "classifier.1", "method": "hashednet", "ratio": 8}],
}


def test_images_that_are_not_there_are_told_before_weights_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_nothing(monkeypatch)
    data = {"dataset": "imagefolder", "root": str(tmp_path / "nowhere")}
    for make in (compressnet.convert, compressnet.run):
        with pytest.raises(DataError, match="there is no such folder"):
            make(PRETRAINED | {"data": data}, tmp_path / "out")


def test_a_run_that_could_only_measure_the_dense_model_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_nothing(monkeypatch)
    for number in range(1000):
        (tmp_path / "val" / f"n{number:08}").mkdir(parents=True)
        (tmp_path / "val" / f"n{number:08}" / "0.png").touch()
    recipe = PRETRAINED | {"data": {"dataset": "imagenet", "root": str(tmp_path)}}
    with pytest.raises(DataError, match=r"has no folder train[\s\S]*--set calibration=null"):
        compressnet.run(recipe, tmp_path / "out")
    with pytest.raises(AssertionError, match=r"IMAGENET1K_V1 are downloaded"):
        compressnet.run(recipe, tmp_path / "out", overrides=["calibration=null"])


def test_calibration_without_data_is_a_mistake_of_the_recipe() -> None:
    recipe = {"model": {"name": "alexnet", "weights": "IMAGENET1K_V1"}, "calibration": {"images": 50}}
    with pytest.raises(RecipeError, match="calibration: it takes images: name them in data"):
        compressnet.convert(recipe, dry_run=True)


def test_more_images_than_there_are_takes_all(known: dict[str, Any], tmp_path: Path) -> None:
    told = Told()
    compressnet.convert(known | {"calibration": {"images": 10_000}}, tmp_path / "a.safetensors", progress=told)
    assert any("training images there are" in note for note in told.notes)


def test_the_images_are_as_many_as_asked_for_and_of_the_training_part(known: dict[str, Any], tmp_path: Path) -> None:
    known["calibration"] = {"images": 30, "ridge": 0.1}
    known["data"] = known["data"] | {"augment": "crop"}
    told = Told()
    compressnet.convert(known, tmp_path / "a.safetensors", progress=told)
    compressnet.convert(known, tmp_path / "b.safetensors")
    assert any("30 training images" in note for note in told.notes)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_without_layers_the_model_is_kept_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = resnet18(num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    recipe = {"model": {"name": "resnet18", "weights": str(tmp_path / "model.pth")}, "layers": []}
    compressnet.convert(recipe, tmp_path / "a.safetensors")
    loaded = compressnet.load(tmp_path / "a.safetensors")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_another_number_of_classes_makes_the_last_layer_anew_and_keeps_the_rest(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = resnet18(num_classes=7)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    section = {"name": "resnet18", "weights": str(tmp_path / "model.pth"), "num_classes": 3}
    made = dense_model(make_plan(read_recipe({"model": section, "layers": []})))
    assert made.fc.weight.shape == (3, 512)  # type: ignore[union-attr]
    assert torch.equal(made.layer4[1].conv2.weight, model.layer4[1].conv2.weight)  # type: ignore[index, union-attr]


def test_a_file_of_ours_is_weights_too(lenet: dict[str, Any], tmp_path: Path) -> None:
    compressnet.convert(lenet, tmp_path / "a.safetensors")
    section = {"name": "lenet5", "weights": str(tmp_path / "a.safetensors")}
    again = dense_model(make_plan(read_recipe({"model": section, "layers": []})))
    first = compressnet.load(tmp_path / "a.safetensors")
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(again(x), first(x))


@pytest.mark.parametrize(
    ("change", "expected"),
    [("missing", "missing"), ("unexpected", "unexpected"), ("misshapen", "misshapen")],
)
def test_weights_that_do_not_fit_are_named(lenet: dict[str, Any], tmp_path: Path, change: str, expected: str) -> None:
    state = dense_model(make_plan(read_recipe(lenet))).state_dict()
    if change == "missing":
        del state["conv2.bias"]
    elif change == "unexpected":
        state["conv3.bias"] = torch.zeros(3)
    else:
        state["conv2.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "bad.pth")
    lenet["model"]["weights"] = str(tmp_path / "bad.pth")
    del lenet["pretrain"]
    with pytest.raises(WeightsError, match=rf"{expected}.*conv") as caught:
        compressnet.convert(lenet, tmp_path / "a.safetensors")
    assert "bad.pth" in str(caught.value)
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("number", [0.0, float("nan")])
def test_a_weight_of_zeros_is_converted_and_one_that_is_no_number_is_refused(
    lenet: dict[str, Any], tmp_path: Path, number: float
) -> None:
    state = dense_model(make_plan(read_recipe(lenet))).state_dict()
    state["fc2.weight"].fill_(number)
    torch.save(state, tmp_path / "odd.pth")
    recipe = lenet | {"model": lenet["model"] | {"weights": str(tmp_path / "odd.pth")}, "pretrain": None}
    if number == 0:
        compressnet.convert(recipe, tmp_path / "a.safetensors")
        assert not compressnet.load(tmp_path / "a.safetensors").get_submodule("fc2").weight.any()  # type: ignore[union-attr, operator]
    else:
        with pytest.raises(WeightsError, match=r"odd\.pth: fc2\.weight holds infinite numbers"):
            compressnet.convert(recipe, tmp_path / "a.safetensors")
        assert not (tmp_path / "a.safetensors").exists()


def test_an_output_must_be_named_unless_it_is_a_dry_run(lenet: dict[str, Any]) -> None:
    with pytest.raises(FileError, match="-o FILE"):
        compressnet.convert(lenet)
