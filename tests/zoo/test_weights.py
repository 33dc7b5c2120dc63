import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from compressnet.errors import PlanError, WeightsError
from compressnet.zoo.models import ModelSpec, fresh, skeleton
from compressnet.zoo.weights import (
    classifier_keys,
    dense_model,
    is_path,
    load_weights_,
    preset,
    read_state_dict,
    spec_for,
)

SQUEEZE = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
FAMILIES = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "lenet5",
    "lenet_300_100", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18",
    "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11", "vit_b_32",
]  # fmt: skip
HEAD = {"classifier.1.weight", "classifier.1.bias"}


def squeezenet(num_classes: int) -> ModelSpec:
    return ModelSpec("squeezenet1_1", num_classes, {})


def state_of(spec: ModelSpec, seed: int = 1) -> dict[str, torch.Tensor]:
    return dict(fresh(spec, seed).state_dict())


@pytest.fixture
def saved(tmp_path):
    """A state_dict of SqueezeNet with 12 classes."""
    path = tmp_path / "mine.pth"
    torch.save(fresh(squeezenet(12), 1).state_dict(), path)
    return str(path)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("IMAGENET1K_V1", False),
        ("DEFAULT", False),
        ("SqueezeNet1_1_Weights.IMAGENET1K_V1", False),
        ("a.pth", True),
        ("A.PT", True),
        ("a.safetensors", True),
        ("./a", True),
    ],
)
def test_a_path_is_told_from_a_name(text, answer):
    assert is_path(text) is answer


def test_a_file_that_is_there_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_path("mine")
    (tmp_path / "mine").touch()
    assert is_path("mine")


@pytest.mark.parametrize(
    ("model", "name", "member"),
    [
        ("squeezenet1_1", "IMAGENET1K_V1", SQUEEZE),
        ("squeezenet1_1", "DEFAULT", SQUEEZE),
        (None, "SqueezeNet1_1_Weights.IMAGENET1K_V1", SQUEEZE),
        ("lenet5", "SqueezeNet1_1_Weights.DEFAULT", SQUEEZE),
        ("resnet50", "DEFAULT", models.ResNet50_Weights.IMAGENET1K_V2),
    ],
)
def test_a_name_of_weights_is_found(model, name, member):
    assert preset(model, name) is member


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        ("resnet50", "IMAGENET1K_V3", "did you mean 'IMAGENET1K_V.'.*\n  ResNet50_Weights has IMAGENET1K_V1, IMAGE"),
        ("resnet50", "coco", "there are IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"),
        ("resnet50", "DEFALT", "unknown weights 'DEFALT'; did you mean 'DEFAULT'\\?"),
        (None, "ResNet5_Weights.DEFAULT", "did you mean 'ResNet50_Weights'"),
        (None, "ResNet50_Weights.IMAGENET1K_V7", "unknown weights 'ResNet50_Weights.IMAGENET1K_V7'"),
        (None, "IMAGENET1K_V1", "could be any model's\n  write it with its class"),
        ("lenet5", "IMAGENET1K_V1", "no weights for lenet5.*\n  give the path"),
    ],
)
def test_unknown_weights_are_refused_with_those_there_are(model, name, message):
    with pytest.raises(WeightsError, match=f"model.weights: .*{message}"):
        preset(model, name)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_classifier_is_what_depends_on_the_number_of_classes(name):
    spec = ModelSpec(name, 5, {})
    keys = classifier_keys(spec)
    assert 1 <= len(keys) <= 6
    state = skeleton(spec).state_dict()
    assert {state[key].shape[0] for key in keys} == {5}


def test_weights_are_loaded_strictly():
    model, state = fresh(squeezenet(12), 0), state_of(squeezenet(12))
    assert load_weights_(model, state, HEAD, "here") == set()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_half_precision_weights_are_loaded_as_fp32():
    model, state = fresh(squeezenet(12), 0), state_of(squeezenet(12))
    load_weights_(model, {key: tensor.half() for key, tensor in state.items()}, HEAD, "here")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_a_classifier_of_other_classes_stays_fresh_and_is_named():
    model = fresh(squeezenet(12), 0)
    before = model.state_dict()["classifier.1.weight"].clone()
    assert load_weights_(model, state_of(squeezenet(30)), HEAD, "here") == HEAD
    assert torch.equal(model.state_dict()["classifier.1.weight"], before)


def test_tensors_that_do_not_fit_are_named():
    state = state_of(squeezenet(12))
    del state["features.0.weight"], state["classifier.1.bias"]
    state["extra.weight"] = torch.ones(1)
    state["features.0.bias"] = torch.ones(3)
    state["classifier.1.weight"] = torch.ones(12, 7, 1, 1)
    wrong = (
        "here: does not fit SqueezeNet: 2 missing (features.0.weight, classifier.1.bias); 1 unexpected (extra.weight); "
        "2 misshapen (features.0.bias is 3, not 64, classifier.1.weight is 12×7×1×1, not 12×512×1×1)\n  the file"
    )
    with pytest.raises(WeightsError, match=re.escape(wrong)):
        load_weights_(fresh(squeezenet(12), 0), state, HEAD, "here")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_tensor_that_is_not_finite_is_named(number):
    state = state_of(squeezenet(12))
    state["features.3.squeeze.weight"][3, 2] = number
    with pytest.raises(WeightsError, match=r"mine.pth: features\.3\.squeeze\.weight holds infinite numbers"):
        load_weights_(fresh(squeezenet(12), 2), state, HEAD, "mine.pth")


def test_of_many_wrong_tensors_a_few_are_named():
    with pytest.raises(WeightsError, match=r"52 missing \(.*, … .*\); 122 unexpected"):
        load_weights_(fresh(squeezenet(12), 0), state_of(ModelSpec("resnet18", 12, {})), HEAD, "here")


@pytest.mark.parametrize(
    "build",
    [
        lambda: models.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=7),
        lambda: models.MNASNet(0.5, num_classes=7),
        lambda: models.VisionTransformer(32, 16, 2, 2, hidden_dim=8, mlp_dim=16, num_classes=7),
    ],
    ids=["densenet", "mnasnet", "vit"],
)
def test_old_and_bare_files_of_models_with_a_history_are_understood(build):
    state = build().state_dict()
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.").replace("mlp.0.", "mlp.linear_1."): tensor
        for key, tensor in state.items()
        if not key.endswith("num_batches_tracked")
    }
    model = build()
    load_weights_(model, old, set(), "here")
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_dense_model_has_the_weights_of_its_file(tmp_path, suffix):
    state = state_of(squeezenet(12))
    path = str(tmp_path / f"a.{suffix}")
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    model = dense_model(squeezenet(12), path, seed=0)
    assert not model.training
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_a_dense_model_without_weights_is_fresh():
    made, expected = dense_model(squeezenet(12), None, seed=4), state_of(squeezenet(12), seed=4)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in made.state_dict().items())


def test_a_dense_model_of_other_classes_has_a_fresh_classifier(saved):
    model, state = dense_model(squeezenet(3), saved, seed=4), read_state_dict(saved)
    assert model.state_dict()["classifier.1.weight"].shape[0] == 3
    assert torch.equal(model.state_dict()["features.0.weight"], state["features.0.weight"])


def test_a_file_of_another_model_is_refused_by_its_path(saved):
    with pytest.raises(WeightsError, match=r"mine\.pth: does not fit ResNet: "):
        dense_model(ModelSpec("resnet18", 12, {}), saved, seed=0)


def test_a_download_that_fails_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # discard: nothing listens there
    with pytest.raises(WeightsError, match=r"cannot be downloaded: .*\n  fetch https://.*squeezenet1_1-.*\.pth"):
        dense_model(squeezenet(1000), "IMAGENET1K_V1", seed=0)
    assert not list(tmp_path.rglob("*.pth*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("resnet18", None, None, None), ModelSpec("resnet18", 1000, {})),
        (("lenet5", None, None, None), ModelSpec("lenet5", 10, {})),
        (("resnet18", "DEFAULT", None, None), ModelSpec("resnet18", 1000, {})),
        (("vgg16", "IMAGENET1K_FEATURES", None, None), ModelSpec("vgg16", 1000, {})),
        (("resnet18", "DEFAULT", 17, None), ModelSpec("resnet18", 17, {})),
        (
            ("googlenet", "DEFAULT", 17, None),
            ModelSpec("googlenet", 17, {"aux_logits": True, "transform_input": True}),
        ),
        (
            ("inception_v3", None, 5, None),
            ModelSpec("inception_v3", 5, {"aux_logits": True, "transform_input": False}),
        ),
        (
            ("googlenet", None, 5, "GoogLeNet_Weights.DEFAULT"),
            ModelSpec("googlenet", 5, {"aux_logits": True, "transform_input": True}),
        ),
    ],
)
def test_a_recipe_means_a_model(arguments, expected):
    assert spec_for(*arguments) == expected


def test_the_number_of_classes_is_read_off_a_file(saved):
    assert spec_for("squeezenet1_1", saved, None, None) == squeezenet(12)
    assert spec_for("squeezenet1_1", saved, 5, None) == squeezenet(5)


@pytest.mark.parametrize("aux_logits", [True, False])
def test_auxiliary_heads_are_read_off_a_file(tmp_path, aux_logits):
    options = {"aux_logits": aux_logits, "transform_input": False}
    path = tmp_path / "a.pth"
    bones = skeleton(ModelSpec("googlenet", 6, options)).state_dict()
    torch.save({key: torch.zeros(tensor.shape) for key, tensor in bones.items()}, path)
    assert spec_for("googlenet", str(path), None, None) == ModelSpec("googlenet", 6, options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("resnet81", None, None, None), PlanError, "unknown model 'resnet81'; did you mean 'resnet18'"),
        (("resnet18", None, 0, None), PlanError, "model.num_classes: 0"),
        (("resnet18", "IMAGENET1K_V2", None, None), WeightsError, "model.weights: unknown weights 'IMAGENET1K_V2'"),
        (("resnet18", "SqueezeNet1_1_Weights.DEFAULT", None, None), WeightsError, "are not weights of resnet18"),
        (("lenet5", "SqueezeNet1_1_Weights.DEFAULT", None, None), WeightsError, "are not weights of lenet5"),
        (("resnet18", "no/such.pth", None, None), WeightsError, "no/such.pth: there is no such file"),
        (("resnet18", "no/such.pth", 5, None), WeightsError, "no/such.pth: there is no such file"),
        (("resnet18", None, None, "ResNet81_Weights.DEFAULT"), WeightsError, "data.preset: unknown weights"),
    ],
)
def test_a_recipe_that_means_no_model_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        spec_for(*arguments)


def test_a_file_that_does_not_tell_its_classes_is_refused(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"does not tell resnet18's number of classes by fc.bias, fc.weight"):
        spec_for("resnet18", str(tmp_path / "a.pth"), None, None)


@pytest.mark.parametrize(
    ("name", "weights_name", "size"),
    [("vit_h_14", "DEFAULT", 518), ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", 384), ("vit_b_16", "IMAGENET1K_V1", None)],
)
def test_a_vision_transformer_is_built_for_the_images_of_its_weights(name: str, weights_name: str, size: int) -> None:
    assert spec_for(name, weights_name, None, None).options.get("image_size") == size


def test_a_vision_transformers_image_size_is_read_off_a_file(tmp_path: Path) -> None:
    spec = ModelSpec("vit_b_32", 3, {"image_size": 96})
    torch.save(fresh(spec, 0).state_dict(), tmp_path / "vit.pth")
    assert spec_for("vit_b_32", str(tmp_path / "vit.pth"), None, None) == spec


def test_a_models_parameters_have_memory_of_their_own_and_its_dtype(tmp_path: Path) -> None:
    state = {key: tensor.half() for key, tensor in state_of(ModelSpec("resnet18", 3, {})).items()}
    state["layer1.0.conv2.weight"] = state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "a.pth")
    model = dense_model(ModelSpec("resnet18", 3, {}), str(tmp_path / "a.pth"), seed=4)
    (tmp_path / "a.pth").write_bytes(b"")
    parameters = list(model.parameters())
    assert {(p.dtype, p.is_leaf, p.requires_grad) for p in parameters} == {(torch.float32, True, True)}
    assert len({p.data_ptr() for p in parameters}) == len(parameters)
    assert all(
        torch.equal(model.state_dict()[key], tensor.to(model.state_dict()[key])) for key, tensor in state.items()
    )
