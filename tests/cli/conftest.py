"""A small net on random images, taken through every stage once."""

from pathlib import Path

import pytest

from tests.cli.calls import succeed

RECIPE = """\
model: {name: lenet5, weights: null, num_classes: 10}
data: {dataset: fake, image_size: 28, samples: 64, batch_size: 16}
layers:
  - {match: fc1, method: deepfried, steps: 20}
  - {match: conv2, method: freshnet, ratio: 4}
pretrain: {epochs: 1}
finetune: {epochs: 1}
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def done(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("done") / "run"
    succeed("run", recipe, "-o", folder, "--device", "cpu")
    return folder


@pytest.fixture(scope="session")
def converted(done: Path) -> Path:
    return done / "converted.safetensors"


@pytest.fixture(scope="session")
def exported(done: Path) -> Path:
    return done / "model.safetensors"
