import pytest
import torch
from torch import nn

from compressnet.errors import FileError, PlanError
from compressnet.zoo.models import ModelSpec, drop_auxiliary_, fresh, names, skeleton
from compressnet.zoo.preprocessing import input_channels

NORM_STATISTICS = ("running_mean", "running_var")
SPEC = ModelSpec("resnet18", 10, {})


def shapes(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {key: (tensor.shape, tensor.dtype) for key, tensor in model.state_dict().items()}


def test_every_classifier_of_torchvision_is_there():
    assert len(names()) >= 82
    assert {"alexnet", "vit_h_14", "regnet_y_128gf", "swin_v2_t", "maxvit_t", "lenet5"} <= set(names())
    assert not [name for name in names() if "quantized" in name or "fcn" in name or "raft" in name]


@pytest.mark.parametrize("name", names())
def test_a_skeleton_has_meta_parameters_and_real_buffers(name):
    model = skeleton(ModelSpec(name, 7, {}))
    assert not model.training
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not [key for key, tensor in model.named_buffers() if tensor.is_meta and not key.endswith(NORM_STATISTICS)]
    assert input_channels(model) == (1 if name.startswith("lenet") else 3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("googlenet", {"aux_logits": True, "transform_input": True}),
        ("inception_v3", {"aux_logits": False}),
        ("lenet5", {}),
        ("mnasnet0_5", {}),
        ("mobilenet_v3_small", {}),
        ("regnet_x_400mf", {}),
        ("swin_t", {}),
        ("swin_v2_t", {}),
        ("squeezenet1_0", {}),
    ],
)
def test_a_skeleton_has_the_keys_shapes_and_computed_buffers_of_the_real_model(name, options):
    spec = ModelSpec(name, 7, options)
    bones, real = skeleton(spec), fresh(spec, seed=0)
    assert shapes(bones) == shapes(real)
    buffers = dict(real.named_buffers())
    for key, tensor in bones.named_buffers():
        assert tensor.is_meta or torch.equal(tensor, buffers[key])
    assert all(tensor.device.type == "cpu" for tensor in real.state_dict().values())


def test_a_skeleton_heeds_no_default_device():
    with torch.device("meta"):
        model = skeleton(ModelSpec("swin_t", 7, {}))
    assert not model.get_buffer("features.1.0.attn.relative_position_index").is_meta


def test_building_a_model_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    fresh(SPEC, seed=3)
    skeleton(SPEC)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_makes_the_same_fresh_model_and_another_seed_another():
    one, same, other = (fresh(ModelSpec("squeezenet1_1", 10, {}), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["features.0.weight"], other["features.0.weight"])


def test_a_fresh_model_is_in_eval_mode_and_answers_with_its_classes():
    model = fresh(SPEC, seed=0)
    assert not model.training
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_model_without_its_auxiliary_heads_is_the_model_of_its_new_spec(name):
    spec = ModelSpec(name, 7, {"aux_logits": True, "transform_input": True})
    model = skeleton(spec)
    without = drop_auxiliary_(model, spec)
    assert without == ModelSpec(name, 7, {"aux_logits": False, "transform_input": True})
    assert shapes(model) == shapes(skeleton(without))
    assert drop_auxiliary_(model, without) is without


@pytest.mark.parametrize("build", [skeleton, lambda spec: fresh(spec, 0)], ids=["skeleton", "fresh"])
def test_an_unknown_model_is_refused_with_the_nearest_name(build):
    with pytest.raises(PlanError, match=r"model.name: unknown model 'resnet81'; did you mean 'resnet18'\?"):
        build(ModelSpec("resnet81", 10, {}))


@pytest.mark.parametrize(
    "spec", [SPEC, ModelSpec("inception_v3", 1_000_000, {"aux_logits": True, "transform_input": False})]
)
def test_a_spec_survives_json(spec):
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet81"}, "model.name: unknown model 'resnet81'; did you mean 'resnet18'"),
        ({"name": 3}, "model.name: unknown model 3"),
        ({"num_classes": 0}, "model.num_classes: 0 is no number"),
        ({"num_classes": 1_000_001}, "model.num_classes: 1000001"),
        ({"num_classes": True}, "model.num_classes: True"),
        ({"num_classes": "10"}, "model.num_classes: '10'"),
        ({"options": []}, "model.options: "),
        ({"options": {"weights": True}}, "resnet18 has no option 'weights'"),
        ({"name": "googlenet", "options": {"init_weights": True}}, "googlenet has no option 'init_weights'"),
        ({"name": "googlenet", "options": {"aux_logits": 1}}, "model.options.aux_logits: 1 is not a setting"),
        ({"more": 1}, "holds no model description"),
    ],
)
def test_a_spec_that_is_not_ours_is_refused(changes, message):
    with pytest.raises(FileError, match=message):
        ModelSpec.from_json({**SPEC.to_json(), **changes})


def test_a_spec_that_is_no_object_is_refused():
    with pytest.raises(FileError, match="holds no model description"):
        ModelSpec.from_json("resnet18")
