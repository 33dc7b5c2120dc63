import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compressnet.errors import WeightsError
from compressnet.zoo.weights import read_state_dict

STATE = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.ones(20)}


class Code:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def equal(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_save_gives_its_tensors(tmp_path, suffix, zipped):
    path = tmp_path / f"a{suffix}"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    assert equal(read_state_dict(path), STATE)


def test_a_safetensors_file_gives_its_tensors(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    assert equal(read_state_dict(tmp_path / "a.safetensors"), STATE)


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_checkpoint_of_training_is_unwrapped(tmp_path, key):
    torch.save({key: STATE, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    assert equal(read_state_dict(tmp_path / "a.pth"), STATE)


def test_the_versions_in_a_state_dict_are_kept(tmp_path):
    torch.save(nn.BatchNorm2d(2).state_dict(), tmp_path / "a.pth")
    assert read_state_dict(tmp_path / "a.pth")._metadata[""] == {"version": 2}


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no\.pth: there is no such file\n  model.weights is relative"):
        read_state_dict(tmp_path / "no.pth")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="is a folder, not a file"):
        read_state_dict(tmp_path)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Code()}, "code.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Code()}))
    for name in ("code.pth", "plain.pth"):
        with pytest.raises(WeightsError, match=f"{name}: is a pickle that holds code .*\n  save it with torch.save"):
            read_state_dict(name)
    assert not (tmp_path / "harmed").exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"whole objects, not only tensors\n  save it with torch.save\(model.state"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"lr": 0.1}, "is no state_dict: 'lr' is a float, not a tensor"),
        ({1: torch.ones(1)}, "is no state_dict: 1 is a Tensor"),
        ([torch.ones(1)], "holds a list, not a state_dict"),
        (torch.ones(3), "holds a Tensor, not a state_dict"),
        ({}, "holds a dict, not a state_dict"),
    ],
)
def test_a_file_of_other_things_is_refused(tmp_path, value, message):
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("form", ["zip.pth", "legacy.pth", "plain.safetensors"])
def test_a_truncated_file_is_refused(tmp_path, form, kept):
    path = tmp_path / form
    if form.endswith(".pth"):
        torch.save(STATE, path, _use_new_zipfile_serialization=form.startswith("zip"))
    else:
        save_file(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(WeightsError, match=r"truncated|no whole safetensors|no file of torch.save"):
        read_state_dict(path)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_bytes_of_anything_else_are_refused(tmp_path, suffix, seed):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(torch.randint(256, (999,), generator=torch.Generator().manual_seed(seed)).byte().numpy().tobytes())
    with pytest.raises(WeightsError):
        read_state_dict(path)


@pytest.mark.parametrize("text", ["hello world\n", "<!DOCTYPE html>\n<html>404</html>", "PK and so on", "not"])
def test_a_text_is_refused(tmp_path, text):
    (tmp_path / "a.pth").write_text(text)
    with pytest.raises(WeightsError, match=r"truncated|no file of torch.save"):
        read_state_dict(tmp_path / "a.pth")
