"""A whole model, coded as finely as its answers ask for or as its file has room for."""

import copy
from collections.abc import Mapping
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from compressnet.allocation import Target, allocate_
from compressnet.allocation.allocate import SLACK
from compressnet.allocation.sensitivity import divergence
from compressnet.coding.payload import encode
from compressnet.coding.quantisers import Float, Quantiser, Uniform
from compressnet.errors import FileError
from compressnet.layers import CompressedLinear
from compressnet.methods import BY_NAME
from compressnet.plan import PlannedLayer, candidates, plan_layers
from compressnet.recipe import ExportSection, read_recipe

SETTINGS = ExportSection(bits="auto")


@cache
def trained() -> tuple[nn.Module, Tensor]:
    """A network that tells digits apart, and digits that it has not seen."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(bunch.target)
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 3, 2), nn.ReLU())
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for _ in range(8):
        for batch, wanted in zip(images[:1200].split(60), labels[:1200].split(60), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), wanted).backward()
            optimizer.step()
    return model.eval(), images[1200:]


@pytest.fixture
def model() -> nn.Module:
    return copy.deepcopy(trained()[0])


@pytest.fixture
def images() -> Tensor:
    return trained()[1][:300]


@pytest.fixture
def judges() -> Tensor:
    return trained()[1][300:]


def layers_of(model: nn.Module, bits: int | None = None) -> tuple[PlannedLayer, ...]:
    layers = plan_layers(read_recipe({"layers": []}), candidates(model))
    return tuple(PlannedLayer(**{**vars(layer), "bits": bits if layer.name == "2" else None}) for layer in layers)


def nbytes(model: nn.Module, quantisers: Mapping[str, Quantiser]) -> int:
    return sum(coded.nbytes for coded in encode(model.state_dict(), quantisers).values())


def apart(model: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        return divergence(trained()[0](images), model(images))


@pytest.mark.parametrize("tolerance", [0.1, 0.01, 0.0003])
def test_answers_are_within_the_tolerance_and_use_it(
    model: nn.Module, images: Tensor, judges: Tensor, tolerance: float
) -> None:
    found = allocate_(model, layers_of(model), ExportSection(bits="auto", tolerance=tolerance), images, judges)
    assert found.divergence == apart(model, judges)
    assert 2 ** -(3 * SLACK) * tolerance < found.divergence <= tolerance


@pytest.mark.parametrize("target", [3000, 6000, 10_000])
def test_the_target_is_met_and_all_but_a_hundredth_of_it_used(
    model: nn.Module, images: Tensor, judges: Tensor, target: int
) -> None:
    found = allocate_(model, layers_of(model), SETTINGS, images, judges, Target(target, nbytes))
    assert 0.97 * target <= nbytes(model, found.quantisers) <= target


def test_numbers_are_those_of_their_quantisers_bit_for_bit(model: nn.Module, images: Tensor, judges: Tensor) -> None:
    quantisers = allocate_(model, layers_of(model), SETTINGS, images, judges).quantisers
    state = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    assert quantisers.keys() == state.keys()
    assert all(torch.equal(quantisers[name](tensor), tensor) for name, tensor in state.items())


def test_it_takes_fewer_bytes_than_equal_steps_at_equal_divergence(
    model: nn.Module, images: Tensor, judges: Tensor
) -> None:
    found = allocate_(model, layers_of(model), SETTINGS, images, judges)
    equal, step = copy.deepcopy(trained()[0]), 1.0
    while apart(equal, judges) > found.divergence or step == 1.0:
        step *= 0.98
        quantisers: dict[str, Quantiser] = {
            name: Uniform(step) if name in dict(model.named_parameters()) else each
            for name, each in found.quantisers.items()
        }
        before = trained()[0].state_dict()
        equal.load_state_dict({name: quantisers[name](t) if name in quantisers else t for name, t in before.items()})
    assert nbytes(model, found.quantisers) < 0.85 * nbytes(equal, quantisers)


def test_without_images_the_tolerance_is_kept_as_well(model: nn.Module, judges: Tensor) -> None:
    found = allocate_(model, layers_of(model), SETTINGS, None, judges)
    assert 0 < found.divergence <= 0.01


def test_a_rule_that_says_its_bits_has_these(model: nn.Module, images: Tensor, judges: Tensor) -> None:
    found = allocate_(model, layers_of(model, bits=7), SETTINGS, images, judges)
    quantiser = found.quantisers["2.weight"]
    assert isinstance(quantiser, Uniform)
    assert quantiser.most == 63


def test_statistics_are_bfloat16_and_equal_numbers_stay_as_they_are(
    model: nn.Module, images: Tensor, judges: Tensor
) -> None:
    model[4].bias.data.fill_(0.123)
    found = allocate_(model, layers_of(model), SETTINGS, images, judges)
    assert found.quantisers["0.1.running_var"] == Float("bfloat16")
    assert found.quantisers["4.bias"] == Float("float32")
    assert torch.equal(model[4].bias, torch.full((10,), 0.123))


def test_stored_numbers_of_every_kind_have_their_steps(model: nn.Module, images: Tensor, judges: Tensor) -> None:
    method = BY_NAME["lowrank"]
    weight = method((64, 96), method.Config(rank=20), 1).project_(model[2].weight.detach())
    model[2] = CompressedLinear.like(model[2], weight)
    rule = {"match": "2", "method": "lowrank", "rank": 20}
    planned = plan_layers(read_recipe({"layers": [rule]}), candidates(trained()[0]))
    found = allocate_(model, planned, SETTINGS, images, judges)
    assert isinstance(found.quantisers["2.structured.left"], Uniform)
    assert found.quantisers["2.structured.left"] != found.quantisers["2.structured.right"]
    assert 0.007 < found.divergence <= 0.01


def test_a_tolerance_that_given_bits_do_not_allow_is_refused(model: nn.Module, images: Tensor, judges: Tensor) -> None:
    settings = ExportSection(bits="auto", tolerance=1e-4)
    with pytest.raises(FileError, match=r"no steps keep the answers within 0.0001 nats"):
        allocate_(model, layers_of(model, bits=2), settings, images, judges)


def test_a_target_below_what_the_coarsest_steps_take_is_refused(
    model: nn.Module, images: Tensor, judges: Tensor
) -> None:
    with pytest.raises(FileError, match=r"no steps make the file fit 50 bytes"):
        allocate_(model, layers_of(model), SETTINGS, images, judges, Target(50, nbytes))


def test_a_target_above_what_the_finest_steps_take_loses_nothing(
    model: nn.Module, images: Tensor, judges: Tensor
) -> None:
    found = allocate_(model, layers_of(model), SETTINGS, images, judges, Target(10**9, nbytes))
    assert found.divergence < 1e-4
