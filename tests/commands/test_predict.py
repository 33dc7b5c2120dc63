from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_digits

import compressnet
from compressnet.errors import DataError


@pytest.fixture
def trained(lenet: dict[str, Any], tmp_path: Path) -> Path:
    compressnet.run(lenet, tmp_path / "out", overrides=["pretrain.epochs=3", "finetune.epochs=3"])
    return tmp_path / "out" / "model.safetensors"


def test_classes_have_names_and_probabilities_in_order(trained: Path, tmp_path: Path) -> None:
    images = []
    for index in range(10):
        pixels = (load_digits().images[index] * 15.9).astype("uint8")
        Image.fromarray(pixels).resize((80, 80)).save(tmp_path / f"{index}.png")
        images.append(tmp_path / f"{index}.png")
    predictions = compressnet.predict(trained, images, top=3)
    assert [len(p.classes) for p in predictions] == [3] * 10
    assert all(list(p.probabilities) == sorted(p.probabilities, reverse=True) for p in predictions)
    assert sum(p.classes[0] == str(index) for index, p in enumerate(predictions)) >= 7


def test_an_image_that_is_not_there_or_not_one_is_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.png"):
        compressnet.predict(trained, [tmp_path / "nowhere.png"])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png"):
        compressnet.predict(trained, [tmp_path / "text.png"])
