import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from compressnet.errors import FileError, RecipeError
from compressnet.zoo.preprocessing import Preprocessing, from_preset, input_channels, resolve

NOISE = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
PHOTO = Image.fromarray(NOISE)
WEIGHTS = [weights for name in models.list_models(module=models) for weights in models.get_model_weights(name)]
DISTINCT = list({str(from_preset(weights)): weights for weights in WEIGHTS}.values())
BASE = Preprocessing(256, 224, "bicubic", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), 3)
SMALL = Preprocessing(32, 32, "bilinear", (0.5,) * 3, (0.25,) * 3, 3)


@pytest.mark.parametrize("weights", DISTINCT, ids=str)
def test_the_evaluation_transform_is_torchvisions_own(weights):
    ours, theirs = from_preset(weights).transform(), weights.transforms()
    assert torch.equal(ours(PHOTO), theirs(PHOTO))


def test_every_weights_of_torchvision_have_a_preset_that_can_be():
    assert [from_preset(weights).mistake() for weights in WEIGHTS] == [None] * len(WEIGHTS)


def test_a_square_image_is_only_resized_when_resize_and_crop_agree():
    square = PHOTO.resize((8, 8))
    scaled = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR))
    expected = (torch.from_numpy(scaled.copy()).permute(2, 0, 1) / 255 - 0.5) / 0.25
    torch.testing.assert_close(SMALL.transform()(square), expected)


def test_a_grey_image_is_repeated_to_three_channels():
    image = SMALL.transform()(PHOTO.convert("L"))
    assert image.shape == (3, 32, 32)
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


def test_a_coloured_image_becomes_grey_for_one_channel():
    grey = Preprocessing(28, 28, "bilinear", (0.5,), (0.5,), 1).transform()
    assert grey(PHOTO).shape == (1, 28, 28)
    assert torch.equal(grey(PHOTO), grey(PHOTO.convert("L")))
    assert torch.equal(grey(PHOTO.convert("L")), grey(PHOTO.convert("L").convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_an_image_of_any_mode_gives_float32_of_the_models_shape(mode):
    image = SMALL.transform()(Image.new(mode, (40, 50)))
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32


def test_a_palette_with_transparency_gives_no_warning():
    image = PHOTO.convert("P")
    image.info["transparency"] = b"\x00\xff"
    assert SMALL.transform()(image).shape == (3, 32, 32)


def test_flipping_mirrors_some_images_and_leaves_others():
    flip, plain = SMALL.transform("flip"), SMALL.transform()(PHOTO)
    seen = [flip(PHOTO) for _ in range(20)]
    mirrored = [torch.equal(image, plain.flip(-1)) for image in seen]
    assert {True, False} == set(mirrored)
    assert all(torch.equal(image, plain) for image, m in zip(seen, mirrored, strict=True) if not m)


def test_cropping_gives_another_part_each_time():
    crop = SMALL.transform("crop")
    one, two = crop(PHOTO), crop(PHOTO)
    assert one.shape == two.shape == (3, 32, 32)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_goes_as_far_as_its_magnitude_says(channels):
    image = PHOTO if channels == 3 else PHOTO.convert("L")
    base = Preprocessing(32, 32, "bilinear", (0.0,) * channels, (1.0,) * channels, channels)
    spread = []
    for magnitude in (0, 30):
        torch.manual_seed(0)
        augment, plain = base.transform("randaugment", magnitude), []
        for _ in range(40):
            state = torch.get_rng_state()
            after = augment(image)
            torch.set_rng_state(state)
            plain.append((after - base.transform("crop")(image)).abs().mean())
        spread.append(torch.stack(plain).mean())
    assert spread[0] < 0.6 * spread[1]


@pytest.mark.parametrize("augment", ["none", "flip", "crop", "randaugment"])
def test_a_transform_travels_to_another_process(augment):
    again = pickle.loads(pickle.dumps(SMALL.transform(augment)))
    assert again(PHOTO).shape == (3, 32, 32)


@pytest.mark.parametrize("made", [BASE, SMALL, from_preset(DISTINCT[0])])
def test_preprocessing_survives_json(made):
    assert Preprocessing.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": 0}, "preprocessing.resize: 0"),
        ({"resize": 1e9}, "preprocessing.resize"),
        ({"crop": "224"}, "preprocessing.crop: '224'"),
        ({"crop": 257}, "preprocessing.crop: 257 pixels cannot be cut out of 256"),
        ({"interpolation": "cubic"}, "preprocessing.interpolation: unknown interpolation 'cubic'"),
        ({"mean": 0.5}, "preprocessing.mean: 0.5 is no list"),
        ({"mean": [0.5]}, "preprocessing.mean: 1 numbers for 3 channels"),
        ({"mean": [0.5, None, 0.5]}, "preprocessing.mean: .* are not all numbers"),
        ({"std": [1.0, 1.0, float("nan")]}, "preprocessing.std: .* are not all numbers"),
        ({"std": [1.0, 0.0, 1.0]}, "preprocessing.std: .* are not all above 0"),
        ({"channels": 2}, "preprocessing.channels: 2 channels"),
        ({"more": 1}, "preprocessing: holds no resize"),
    ],
)
def test_preprocessing_that_is_not_ours_is_refused(changes, message):
    with pytest.raises(FileError, match=message):
        Preprocessing.from_json({**BASE.to_json(), **changes})


@pytest.mark.parametrize(
    ("base", "keys", "expected"),
    [
        (None, {}, (224, 224)),
        (None, {"image_size": 64}, (64, 64)),
        (None, {"resize": 72, "crop": 64}, (72, 64)),
        (None, {"resize": 72}, (72, 72)),
        (None, {"crop": 64}, (64, 64)),
        (None, {"image_size": 64, "resize": 72}, (72, 64)),
        (BASE, {}, (256, 224)),
        (BASE, {"image_size": 112}, (128, 112)),
        (BASE, {"crop": 200}, (256, 200)),
        (BASE, {"resize": 224}, (224, 224)),
        (BASE, {"image_size": 112, "resize": 112}, (112, 112)),
    ],
)
def test_what_is_said_goes_before_the_image_size_the_preset_and_the_defaults(base, keys, expected):
    made = resolve(base, channels=3, **keys)
    assert (made.resize, made.crop) == expected


def test_the_presets_numbers_hold_unless_others_are_said():
    made = resolve(BASE, channels=3, mean=[0.0, 0.0, 0.0], interpolation="nearest")
    assert made == Preprocessing(256, 224, "nearest", (0.0, 0.0, 0.0), BASE.std, 3)
    assert resolve(BASE, channels=3) == BASE


def test_without_a_preset_the_numbers_are_imagenets_or_one_half():
    assert resolve(None, channels=3).mean == (0.485, 0.456, 0.406)
    assert resolve(None, channels=1) == Preprocessing(224, 224, "bilinear", (0.5,), (0.5,), 1)


def test_a_colour_preset_gives_a_grey_model_its_sizes_only():
    assert resolve(BASE, channels=1) == Preprocessing(256, 224, "bicubic", (0.5,), (0.5,), 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"crop": 300}, "data.crop: 300 pixels cannot be cut out of 256\n  give data.resize as well"),
        ({"mean": [0.5]}, "data.mean: 1 numbers for 3 channels\n  give one number for each channel"),
        ({"std": [0.5, 0.5, -1]}, "data.std: .* are not all above 0"),
        ({"interpolation": "bilinaer"}, "data.interpolation: unknown interpolation 'bilinaer'; there are nearest"),
        ({"image_size": 0}, "data.resize: 0 is no number of pixels"),
    ],
)
def test_values_that_do_not_fit_are_a_mistake_of_the_recipe(keys, message):
    with pytest.raises(RecipeError, match=message):
        resolve(BASE, channels=3, **keys)


def test_images_of_four_channels_are_refused():
    with pytest.raises(RecipeError, match="4 channels; images have 1 or 3"):
        resolve(None, channels=4)


@pytest.mark.parametrize(
    ("module", "channels"),
    [(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 3)), 1), (nn.Linear(4, 2), 3)],
)
def test_a_models_input_channels_are_its_first_convolutions(module, channels):
    assert input_channels(module) == channels
