import torch

from compressnet.data.affine import SCALE, SHIFT, random_affine
from compressnet.data.layout import channels_last


def test_every_image_is_moved_in_its_own_way_and_a_draw_repeats() -> None:
    images = torch.rand(1, 1, 12, 12).expand(4, 1, 12, 12)
    torch.manual_seed(1)
    first = random_affine(images)
    torch.manual_seed(1)
    assert torch.equal(random_affine(images), first)
    assert len(first.flatten(1).unique(dim=0)) == 4


def test_a_black_ground_stays_black() -> None:
    images = torch.full((16, 1, 20, 20), -1.0)
    images[:, :, 8:12, 8:12] = 1.0
    moved = random_affine(images)
    assert moved.min() == -1
    edges = torch.cat([moved[..., 0, :], moved[..., -1, :], moved[..., 0], moved[..., -1]], -1)
    assert (edges + 1).abs().max() < 1e-5


def test_images_move_no_farther_than_is_said() -> None:
    """A bright square of a quarter of the side: its centre of mass and its mass tell shift and scale."""
    side = 64
    images = torch.zeros(200, 1, side, side)
    images[..., 24:40, 24:40] = 1
    moved = random_affine(images)[:, 0]
    mass = moved.sum((1, 2))
    place = torch.arange(side) + 0.5
    across, down = (moved.sum(1) * place).sum(1) / mass, (moved.sum(2) * place).sum(1) / mass
    largest = max((across - side / 2).abs().max().item(), (down - side / 2).abs().max().item())
    assert 0.8 * SHIFT * side < largest < 1.15 * SHIFT * side * (1 + SCALE)
    scale = (mass / 256).sqrt()
    assert 1 - 1.2 * SCALE < scale.min() < 1 - 0.8 * SCALE
    assert 1 + 0.8 * SCALE < scale.max() < 1 + 1.2 * SCALE


def test_images_with_channels_last_are_the_same_images() -> None:
    for channels in (1, 3):
        images = torch.rand(2, channels, 5, 7)
        laid = channels_last(images)
        assert torch.equal(laid, images)
        assert laid.stride() == (35 * channels, 1, 7 * channels, channels)
