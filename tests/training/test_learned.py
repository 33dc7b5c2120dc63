import math

import pytest
import torch

from compressnet.coding.quantisers import Codebook, Float, Quantiser, Uniform, fit_codebook
from compressnet.training.learned import Learned, LearnedUniform, learned

QUANTISERS: list[Quantiser] = [
    Uniform.of_bits(3, 0.3),
    Uniform.of_bits(4, 0.05, rows=(0, 3, 9, 5)),
    Codebook((-1.5, -0.25, 0.0, 0.7)),
    Float("float16"),
    Float("bfloat16"),
]


def numbers(shape: tuple[int, ...] = (4, 30)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("quantiser", QUANTISERS, ids=str)
def test_numbers_in_training_are_those_of_the_quantiser_bit_for_bit(quantiser: Quantiser) -> None:
    latent = numbers()
    each = learned(quantiser, latent)
    assert torch.equal(each(latent).detach(), each.quantiser()(latent.detach()))
    assert torch.equal(each.quantiser()(each.numbers(latent)), each.numbers(latent))


@pytest.mark.parametrize("quantiser", [QUANTISERS[0], QUANTISERS[3]], ids=str)
def test_the_gradient_goes_straight_through_inside_the_range(quantiser: Quantiser) -> None:
    latent = numbers()
    given = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    learned(quantiser, latent)(latent).backward(given)
    inside = latent.detach().abs() < 0.9 if isinstance(quantiser, Uniform) else torch.ones(latent.shape, dtype=bool)
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, torch.where(inside, given, 0.0))


@pytest.mark.parametrize("rows", [None, (0, 3, 9, 5)])
def test_the_gradient_of_a_step_is_that_of_lsq(rows: tuple[int, ...] | None) -> None:
    """Esser et al. 2020, equation 3, times the step, as its logarithm learns, and their scale of the gradient."""
    start = Uniform(0.2, 3, rows)
    latent = numbers()
    given = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    each = LearnedUniform(start, latent)
    each(latent).backward(given)
    steps = start.steps(latent).detach()
    place = latent.detach() / steps
    slope = torch.where(place <= -3, -3.0, torch.where(place >= 3, 3.0, place.round() - place))
    expected = (given * slope * steps).sum() / math.sqrt(latent.numel() * 3)
    assert each.log_step.grad == pytest.approx(expected.item(), rel=1e-4)


def test_the_gradient_of_a_level_is_the_sum_over_its_members() -> None:
    latent = numbers()
    start = fit_codebook(latent, 5)
    each = learned(start, latent)
    given = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    each(latent).backward(given)
    symbols = start.symbols(latent.detach())
    sums = [given[symbols == k].sum().item() for k in range(5)]
    assert each.levels.grad.tolist() == pytest.approx(sums, rel=1e-5)  # type: ignore[union-attr, operator]
    assert latent.grad is None


def test_levels_that_pass_each_other_are_a_codebook_still() -> None:
    latent = numbers()
    each = learned(Codebook((-1.0, 0.0, 1.0)), latent)
    with torch.no_grad():
        each.levels.copy_(torch.tensor([0.5, -0.25, 0.5]))  # type: ignore[operator, union-attr]
    assert each.quantiser() == Codebook((-0.25, 0.5))
    assert torch.equal(each.quantiser()(each.numbers(latent)), each(latent).detach())


def test_a_rate_is_the_entropy_where_numbers_are_on_the_grid() -> None:
    start = Uniform.of_bits(4, 0.25)
    latent = start(2 * numbers((20_000,)).detach())
    p = torch.bincount((latent / 0.25 + 7).long(), minlength=15).double() / latent.numel()
    entropy = latent.numel() * torch.special.entr(p).sum().item()
    assert learned(start, latent).nats(latent).item() == pytest.approx(entropy, rel=1e-3)


def test_a_rate_draws_numbers_to_the_likelier_of_their_neighbours() -> None:
    latent = torch.tensor([0.0] * 8 + [1.0] * 3 + [2.0] + [0.6, 1.4, -0.4, 9.0], requires_grad=True)
    LearnedUniform(Uniform(1.0, 2), latent).nats(latent).backward()
    assert latent.grad is not None
    assert latent.grad[-4] > 0
    assert latent.grad[-3] > 0
    assert latent.grad[-2] < 0
    assert latent.grad[-1] == 0, "beyond the largest symbol nothing is cheaper"


def test_steps_fall_into_files_as_they_are() -> None:
    each: Learned = learned(Uniform(0.1, 7), numbers())
    assert each.quantiser() == Uniform(each.quantiser().step, 7)  # type: ignore[attr-defined]
    assert each.quantiser().step == pytest.approx(0.1)  # type: ignore[attr-defined]
