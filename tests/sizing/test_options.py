"""What a layer could be: bytes are those of the entropy, losses those of the error that is really made."""

import math

import numpy as np
import pytest
import torch

from compressnet.coding.quantisers import Uniform
from compressnet.coding.tensors import encode
from compressnet.methods import BY_NAME
from compressnet.sizing.options import RECORD, STEPS, Form, entropy, options
from compressnet.structured import MethodConfig

SHARED = BY_NAME["hashednet"].Config(ratio=2)


def form(config: MethodConfig | None = SHARED, count: int = 4000) -> Form:
    numbers = torch.from_numpy(np.random.default_rng(0).normal(size=count)).float()
    return Form(config, numbers, 0, lost=0.5, noise=2.0)


@pytest.mark.parametrize("counts", [[5], [1, 1], [3, 1, 4, 1, 5], [1000, 1]])
def test_the_entropy_is_that_of_the_relative_frequencies(counts: list[int]) -> None:
    symbols = torch.tensor([value - 2 for value, count in enumerate(counts) for _ in range(count)])
    chances = [count / sum(counts) for count in counts]
    assert entropy(symbols) == pytest.approx(-sum(p * math.log2(p) for p in chances))


def test_a_finer_step_takes_more_bytes_and_loses_less() -> None:
    made = options([form()], None)
    assert [each.nbytes for each in made] == sorted(each.nbytes for each in made)
    assert [each.loss for each in made] == sorted((each.loss for each in made), reverse=True)
    assert [each.bits for each in made] == sorted(each.bits for each in made)
    assert made[0].nbytes - RECORD == pytest.approx(4000 * 2.1 / 8, rel=0.05)
    assert made[-1].loss == pytest.approx(0.5, rel=1e-2)


def test_dense_numbers_may_have_coarser_steps() -> None:
    dense, shared = options([form(None)], None), options([form()], None)
    assert [each.nbytes for each in dense[-len(shared) :]] == [each.nbytes for each in shared]
    assert dense[0].nbytes < 0.5 * shared[0].nbytes
    assert [each.loss for each in dense] == sorted((each.loss for each in dense), reverse=True)


@pytest.mark.parametrize("place", range(0, 13, 4))
def test_bytes_are_near_those_of_the_coded_tensor(place: int) -> None:
    numbers = form().numbers
    step = STEPS[place]
    coded = encode(Uniform(step)(numbers), Uniform(step))
    assert options([form()], None)[place].nbytes - RECORD == pytest.approx(coded.nbytes - len(coded.record), rel=0.05)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_given_bits_are_kept(bits: int) -> None:
    (only,) = options([form()], bits)
    assert only.bits == bits
    assert (bits - 1.5) * 500 < only.nbytes - RECORD < bits * 500


def test_positions_and_every_tensor_take_bytes_of_their_own() -> None:
    bare, more = form(), form()
    beside = Form(SHARED, more.numbers, 70, more.lost, more.noise, tensors=3)
    assert options([beside], 4)[0].nbytes == options([bare], 4)[0].nbytes + 70 + 2 * RECORD
