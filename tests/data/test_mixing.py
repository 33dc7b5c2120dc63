import pytest
import torch
from torch import Tensor

from compressnet.data.mixing import Mixing

CLASSES = 5


def batch() -> tuple[Tensor, Tensor]:
    """Constant images, each of its own value and class."""
    labels = torch.arange(CLASSES)
    return labels.float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone(), labels


@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}], ids=str)
def test_labels_are_the_shares_of_the_images(alphas: dict[str, float]) -> None:
    torch.manual_seed(0)
    mixing = Mixing(CLASSES, **alphas)
    for _ in range(8):
        images, shares = mixing(*batch())
        assert images.shape == (CLASSES, 3, 8, 8)
        torch.testing.assert_close(shares.sum(1), torch.ones(CLASSES))
        torch.testing.assert_close(images.mean((1, 2, 3)), shares @ torch.arange(CLASSES).float())


def test_of_two_ways_each_batch_takes_one() -> None:
    torch.manual_seed(0)
    mixing = Mixing(CLASSES, mixup=0.4, cutmix=1.0)
    cut = [bool((mixing(*batch())[0] % 1 == 0).all()) for _ in range(30)]
    assert 5 < sum(cut) < 25


def test_a_draw_repeats_with_the_state_of_torchs_generator() -> None:
    mixing = Mixing(CLASSES, mixup=0.4, cutmix=1.0)
    state = torch.get_rng_state()
    first = [mixing(*batch()) for _ in range(6)]
    torch.set_rng_state(state)
    again = [mixing(*batch()) for _ in range(6)]
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))


def test_a_batch_of_one_image_is_left_alone() -> None:
    image = torch.rand(1, 3, 4, 4)
    mixed, shares = Mixing(CLASSES, mixup=0.4)(image, torch.tensor([2]))
    torch.testing.assert_close(mixed, image)
    assert shares.tolist() == [[0, 0, 1, 0, 0]]
