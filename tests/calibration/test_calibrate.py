import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer, mobilenet_v2, swin_t

from compressnet.attention import CompressedMultiheadAttention
from compressnet.calibration import calibrate_, walk
from compressnet.calibration.fit import fit_
from compressnet.layers import CompressedConv2d, CompressedLayer
from compressnet.plan import PlannedLayer, candidates, plan_layers
from compressnet.recipe import read_recipe
from compressnet.rewrite import project_


class Backwards(nn.Module):
    """Its layers run in another order than they are named, one of them twice, and one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 5)
        self.last = nn.Conv2d(12, 12, 1)
        self.idle = nn.Linear(7, 7)
        self.middle = nn.Conv2d(12, 12, 3, padding=1, groups=2, padding_mode="reflect")
        self.first = nn.Conv2d(3, 12, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = x + F.relu(self.middle(x))
        x = self.last(F.relu(self.last(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def dense() -> nn.Module:
    torch.manual_seed(0)
    return Backwards().train()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(60, 3, 11, 11, generator=torch.Generator().manual_seed(1))


def planned(module: nn.Module, **config: Any) -> tuple[PlannedLayer, ...]:
    rule = {"match": "*", "grouped": True, "method": "hashednet", "ratio": 3} | config
    return plan_layers(read_recipe({"layers": [rule]}), candidates(module))


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor) -> Tensor:
    training = model.training
    made = model.eval()(images)
    model.train(training)
    return made


def test_layers_are_fitted_in_the_order_they_run(dense: nn.Module, images: Tensor) -> None:
    order: list[str] = []
    calibrate_(dense, planned(dense), images, on_layer=lambda layer, *errors: order.append(layer.name))
    assert order == ["first", "middle", "last", "head", "idle"]


def test_a_layer_that_images_do_not_reach_is_projected_by_its_weight(dense: nn.Module, images: Tensor) -> None:
    alone = copy.deepcopy(dense)
    project_(alone, planned(dense))
    errors = calibrate_(dense, planned(dense), images)
    assert errors["idle"][1] is None
    assert torch.equal(dense.idle.weight, alone.idle.weight)  # type: ignore[union-attr]


def test_the_model_comes_nearer_to_the_dense_one_than_by_its_weights_alone(dense: nn.Module, images: Tensor) -> None:
    alone, expected = copy.deepcopy(dense), outputs(dense, images)
    project_(alone, planned(dense))
    calibrate_(dense, planned(dense), images)
    wrong = (outputs(dense, images) - expected).norm()
    assert wrong < 0.7 * (outputs(alone, images) - expected).norm()


def test_a_fit_goes_on_from_given_numbers(dense: nn.Module, images: Tensor) -> None:
    once, again = copy.deepcopy(dense), copy.deepcopy(dense)
    first = calibrate_(once, planned(dense), images)
    start = {layer.name: once.get_submodule(layer.name).structured for layer in planned(dense)}
    second = calibrate_(again, planned(dense), images, start=start)  # type: ignore[arg-type]
    for name in ("first", "middle", "last", "head"):
        assert again.get_submodule(name).structured is start[name]
        assert second[name][1] == pytest.approx(first[name][1], rel=0.05)  # it was solved


@pytest.mark.parametrize("name", ["first", "middle", "head"])
def test_one_layer_calibrated_disturbs_the_model_less_than_by_its_weight_alone(
    dense: nn.Module, images: Tensor, name: str
) -> None:
    (layer,) = [layer for layer in planned(dense) if layer.name == name]
    alone, expected = copy.deepcopy(dense), outputs(dense, images)
    project_(alone, [layer])
    calibrate_(dense, [layer], images)
    assert (outputs(dense, images) - expected).norm() <= (outputs(alone, images) - expected).norm()


@pytest.mark.parametrize(
    ("name", "behind"),
    [("first", lambda model, y: F.relu(model.norm.eval()(y))), ("middle", lambda model, y: F.relu(y)), ("head", None)],
)
def test_the_error_is_that_of_the_outputs_or_of_what_a_relu_lets_through(
    dense: nn.Module, images: Tensor, name: str, behind: Callable[[nn.Module, Tensor], Tensor] | None
) -> None:
    (layer,) = [layer for layer in planned(dense) if layer.name == name]
    calibrated, seen = copy.deepcopy(dense), {}
    errors = calibrate_(calibrated, [layer], images)
    for model in (dense, calibrated):
        handle = model.get_submodule(name).register_forward_hook(
            lambda module, args, output, model=model: seen.update({model: output.clone()})
        )
        outputs(model, images)
        handle.remove()
        if behind is not None:
            seen[model] = behind(model, seen[model])
    error = (seen[calibrated] - seen[dense]).norm() / seen[dense].norm()
    assert errors[name][1] == pytest.approx(error.item(), rel=1e-3)  # nothing before it is compressed


def test_the_bias_makes_the_means_of_the_outputs_those_of_the_dense_layer(dense: nn.Module, images: Tensor) -> None:
    expected = outputs(dense, images)
    calibrate_(dense, planned(dense), images)
    torch.testing.assert_close(outputs(dense, images).mean(0), expected.mean(0), rtol=1e-4, atol=1e-5)


def test_a_layer_without_a_bias_gets_none_and_modes_are_kept(dense: nn.Module, images: Tensor) -> None:
    calibrate_(dense, planned(dense), images)
    assert dense.first.bias is None
    assert dense.training
    assert dense.first.training  # type: ignore[union-attr]
    assert dense.norm.num_batches_tracked == 0  # type: ignore[union-attr]


def test_in_parts_it_gives_the_same(dense: nn.Module, images: Tensor) -> None:
    in_parts = copy.deepcopy(dense)
    whole = calibrate_(dense, planned(dense), images)
    again = calibrate_(in_parts, planned(in_parts), images, memory=1 << 19)
    reached = whole.keys() - {"idle"}
    assert [again[name][1] for name in reached] == [pytest.approx(whole[name][1], rel=0.05) for name in reached]
    torch.testing.assert_close(outputs(in_parts, images), outputs(dense, images), rtol=0.05, atol=0.02)


def test_where_memory_is_short_fewer_images_look_at_the_first_layers_and_all_at_the_last(
    dense: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(walk, "fit_", lambda *args: (counts.append(args[1].inputs.count), fit_(*args)))
    errors = calibrate_(dense, planned(dense), images, memory=1 << 17)
    first, head = counts[0] / 25, counts[-1]  # the first layer has 5×5 positions an image
    assert first < 20
    assert head == 60
    assert all(error is not None for name, (_, error) in errors.items() if name != "idle")


def test_no_more_positions_are_kept_than_memory_is_meant_for_them(
    dense: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(walk, "fit_", lambda *args: (counts.append(args[1].inputs.count), fit_(*args)))
    monkeypatch.setattr(walk, "_NUMBERS", 6_000)
    calibrate_(dense, planned(dense), images)
    numbers = [12 + 27, 12 + 2 * 54, 12 + 12, 5 + 12]  # of a position: outputs, and inputs of each group
    assert all(count * each <= 6_100 for count, each in zip(counts, numbers, strict=True))
    assert counts[1] >= 40


def test_behind_a_relu_what_it_lets_through_is_fitted(images: Tensor) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(648, 4)).eval()
    with torch.no_grad():
        dense[0].bias -= 0.5  # type: ignore[operator]
    layers = plan_layers(
        read_recipe({"layers": [{"match": "0", "method": "hashednet", "ratio": 2}]}), candidates(dense)
    )
    expected = dense[:2](images).detach()
    blind = copy.deepcopy(dense)
    blind[1] = nn.Threshold(0, 0)  # the same function, which is not looked for
    wrong = []
    for model in (dense, blind):
        calibrate_(model, layers, images)
        wrong.append((model[:2](images) - expected).norm().item())
    assert wrong[0] < wrong[1]


def test_no_thread_is_left_when_a_module_fails(dense: nn.Module, images: Tensor) -> None:
    def fail(module: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) > 1 and not torch.is_grad_enabled():  # on the way through, not before
            raise ValueError("of the module")

    dense.head.register_forward_pre_hook(fail)
    before = threading.active_count()
    with pytest.raises(ValueError, match="of the module"):
        calibrate_(dense, planned(dense), images)
    assert threading.active_count() == before


def test_methods_that_are_not_linear_are_fitted_to_what_they_see(images: Tensor) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 64, 1), nn.Flatten(), nn.Linear(64 * 81, 100))
    rule = {"match": ["2", "4"], "method": "deepfried", "steps": 50}
    layers = plan_layers(read_recipe({"layers": [rule]}), candidates(dense))
    alone, expected = copy.deepcopy(dense), outputs(dense, images)
    project_(alone, layers)
    errors = calibrate_(dense, layers, images)
    assert all(error is not None and 0 < error < 1 for _, error in errors.values())
    wrong = (outputs(dense, images) - expected).norm()
    assert wrong < (outputs(alone, images) - expected).norm()


def test_weights_that_a_model_passes_on_itself_are_met_as_well() -> None:
    torch.manual_seed(0)
    model = swin_t(num_classes=10).eval()
    rule = {"match": "features.1.0.*", "method": "hashednet", "ratio": 2}
    layers = plan_layers(read_recipe({"layers": [rule]}), candidates(model))
    order: list[str] = []
    errors = calibrate_(
        model, layers, torch.randn(4, 3, 64, 64), on_layer=lambda layer, *errors: order.append(layer.name)
    )
    assert [name.removeprefix("features.1.0.") for name in order] == ["attn.qkv", "attn.proj", "mlp.0", "mlp.3"]
    assert all(output is not None for _, output in errors.values())
    assert isinstance(model.get_submodule("features.1.0.attn.qkv"), CompressedLayer)


def transformer() -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(16, 4, 2, 4, 48, 96, num_classes=7)
    nn.init.normal_(model.heads.head.weight)  # type: ignore[arg-type]
    return model.eval()


def test_attention_is_fitted_to_its_outputs_in_the_order_it_runs() -> None:
    dense, images = transformer(), torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    layers = planned(dense, match="*.self_attention.*")
    alone, calibrated = copy.deepcopy(dense), copy.deepcopy(dense)
    project_(alone, layers)
    order: list[str] = []
    errors = calibrate_(calibrated, layers, images, on_layer=lambda layer, *errors: order.append(layer.name))
    assert order == [layer.name for layer in layers if layer.method]
    assert all(output is not None for _, output in errors.values())
    assert {type(m) for m in calibrated.modules() if isinstance(m, nn.MultiheadAttention)} == {
        CompressedMultiheadAttention
    }
    expected = outputs(dense, images)
    wrong = (outputs(calibrated, images) - expected).norm()
    assert wrong < 0.9 * (outputs(alone, images) - expected).norm()


@pytest.mark.parametrize("projection", ["in_proj", "out_proj"])
def test_the_biases_of_attention_are_corrected_in_a_copy(projection: str) -> None:
    dense, images = transformer(), torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    attention = dense.encoder.layers[0].self_attention
    nn.init.normal_(attention.in_proj_bias)
    before, calibrated = copy.deepcopy(attention.state_dict()), copy.deepcopy(dense)
    calibrate_(calibrated, planned(dense, match=f"*_0.self_attention.{projection}"), images)
    assert all(torch.equal(before[name], tensor) for name, tensor in attention.state_dict().items())
    held = calibrated.encoder.layers[0].self_attention
    x = dense.encoder.layers[0].ln_1(dense.encoder.pos_embedding + _embedded(dense, images)).detach()
    if projection == "in_proj":
        made = x @ held.in_proj.weight.T + held.in_proj_bias
        expected = x @ attention.in_proj_weight.T + attention.in_proj_bias
    else:
        made, expected = held(x, x, x)[0], attention(x, x, x)[0]
    torch.testing.assert_close(made.mean((0, 1)), expected.mean((0, 1)), rtol=1e-3, atol=1e-4)


def _embedded(model: VisionTransformer, images: Tensor) -> Tensor:
    tokens = model._process_input(images)
    return torch.cat((model.class_token.expand(len(tokens), -1, -1), tokens), 1)


class Crossing(nn.Module):
    """Attention that has its batch second, by itself and of one tensor to another of other width."""

    def __init__(self) -> None:
        super().__init__()
        self.within = nn.MultiheadAttention(8, 2)
        self.between = nn.MultiheadAttention(8, 2, kdim=3, vdim=3)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).permute(2, 0, 1)
        y = pixels.repeat(1, 1, 3)[..., :8]
        y = y + self.within(y, y, y)[0]
        return self.between(y, pixels, pixels)[0].transpose(0, 1)


def test_attention_with_its_batch_second_and_with_separate_projections_is_fitted(images: Tensor) -> None:
    torch.manual_seed(0)
    dense, images = Crossing(), images[..., :5, :5]
    alone, calibrated, expected = copy.deepcopy(dense), copy.deepcopy(dense), outputs(dense, images)
    project_(alone, planned(dense))
    errors = calibrate_(calibrated, planned(dense), images)
    assert len(errors) == 6
    assert all(output is not None for _, output in errors.values())
    assert (outputs(calibrated, images) - expected).norm() < (outputs(alone, images) - expected).norm()


class Across(Crossing):
    """Attention from one tensor to another of its own width."""

    def __init__(self) -> None:
        super().__init__()
        self.between = nn.MultiheadAttention(8, 2, kdim=8, vdim=8)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).permute(2, 0, 1).repeat(1, 1, 3)[..., :8]
        return self.between(self.within(pixels, pixels, pixels)[0], pixels, pixels)[0].transpose(0, 1)


def test_a_joint_projection_of_several_tensors_is_projected_by_its_weight(images: Tensor) -> None:
    torch.manual_seed(0)
    dense = Across()
    alone, layers = copy.deepcopy(dense), planned(dense)
    project_(alone, layers)
    errors = calibrate_(dense, layers, images[..., :5, :5])
    assert [name for name, (_, output) in errors.items() if output is None] == ["between.in_proj"]
    assert torch.equal(dense.between.in_proj_weight, alone.between.in_proj_weight)


@pytest.mark.parametrize(
    "rule", [{"match": "features.1.*", "grouped": True}, {"match": "features.1.conv.0.0"}], ids=str
)
def test_freshnet_takes_a_depthwise_convolution_when_asked_and_is_fitted_there(rule: dict[str, Any]) -> None:
    torch.manual_seed(0)
    dense, images = mobilenet_v2(num_classes=10).eval(), torch.randn(24, 3, 32, 32)
    layers = planned(dense, **{"grouped": False, "method": "freshnet", "ratio": 2} | rule)
    (depthwise,) = [layer for layer in layers if layer.method and layer.groups > 1]
    assert depthwise.shape == (32, 1, 3, 3)
    alone, calibrated = copy.deepcopy(dense), copy.deepcopy(dense)
    project_(alone, [depthwise])
    before = copy.deepcopy(dense.state_dict())
    errors = calibrate_(calibrated, layers, images)[depthwise.name]
    made = calibrated.get_submodule(depthwise.name)
    assert isinstance(made, CompressedConv2d)
    assert (made.groups, made.structured.numel) == (32, 144)
    assert errors[1] is not None
    seen = dense.features[0](images)
    given = [model.features[1].conv[0](seen) for model in (dense, alone, calibrated)]  # behind its ReLU
    assert (given[2] - given[0]).norm() < (given[1] - given[0]).norm()
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "deepfried", "steps": 50},
        {"method": "monarch"},
        {"method": "lowrank", "rank": 6},
        {"method": "lowrank", "rank": 6, "scheme": "separable"},
    ],
    ids=str,
)
@pytest.mark.parametrize("groups", [1, 2])
def test_products_with_large_kernels_are_fitted_to_their_patches(
    keys: dict[str, Any], groups: int, images: Tensor
) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, groups=groups))
    layers = plan_layers(read_recipe({"layers": [{"match": "2", **keys}]}), candidates(dense))
    alone, expected = copy.deepcopy(dense), outputs(dense, images)
    project_(alone, layers)
    errors = calibrate_(dense, layers, images)
    wrong, without = ((outputs(model, images) - expected).norm() for model in (dense, alone))
    assert wrong < without
    assert errors["2"][1] == pytest.approx((wrong / expected.norm()).item(), rel=0.2)
