"""Tensors come back from their records and streams, in few bytes where they have little to say."""

import numpy as np
import pytest
import torch
from torch import Tensor

from compressnet.coding import tensors
from compressnet.coding.payload import encode, on_grid
from compressnet.coding.quantisers import Codebook, Float, Quantiser, Uniform, fit_codebook, fit_uniform, from_json
from compressnet.coding.records import DamagedError, Reader

NORMAL = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
KEPT = torch.rand(4000, generator=torch.Generator().manual_seed(0)) < 0.05


def bitmap() -> Tensor:
    from compressnet.maths.bitmaps import pack

    return pack(KEPT)


GIVEN: dict[str, tuple[Tensor, Quantiser | None]] = {
    "uniform": (NORMAL, Uniform.of_bits(4, 0.4)),
    "rows": (NORMAL, Uniform(0.01, rows=tuple(range(-20, 20)))),
    "codebook": (NORMAL, fit_codebook(NORMAL, 16)),
    "halves": (NORMAL, Codebook((-1.0, 0.0, 0.5))),
    "one level": (NORMAL, Codebook((0.25,))),
    "as it is": (NORMAL, None),
    "float16": (NORMAL, Float("float16")),
    "bfloat16": (NORMAL, Float("bfloat16")),
    "float64": (NORMAL.double(), None),
    "a scalar": (torch.tensor(7), None),
    "constant": (torch.full((5, 6), -1.5), None),
    "zeros": (torch.zeros(1000), Uniform(1.0)),
    "nothing": (torch.zeros(0, 3), None),
    "nothing, quantised": (torch.zeros(0, 3), Uniform(1.0)),
    "truths": (KEPT, None),
    "a bitmap": (bitmap(), None),
    "noise": (torch.from_numpy(np.random.default_rng(0).integers(0, 256, 900, dtype=np.uint8)), None),
    "counters": (torch.arange(300), None),
}


def there_and_back(tensor: Tensor, quantiser: Quantiser | None, coder: tensors.Coder = "range") -> Tensor:
    made = tensors.encode(tensor, quantiser, coder)
    record = Reader(made.record)
    back = tensors.decode(record, made.dtype, made.shape, made.streams, [])
    assert record.place == len(made.record)
    return back


@pytest.mark.parametrize("coder", ["range", "huffman"])
@pytest.mark.parametrize("name", GIVEN)
def test_tensors_come_back_bit_for_bit(name: str, coder: tensors.Coder) -> None:
    tensor, quantiser = GIVEN[name]
    ((_, expected),) = on_grid({"a": tensor}, {"a": quantiser} if quantiser else {}).items()
    back = there_and_back(expected, quantiser, coder)
    assert back.dtype == expected.dtype
    assert torch.equal(back, expected)


@pytest.mark.parametrize("name", ["uniform", "rows", "codebook", "halves", "float16", "zeros"])
def test_quantised_numbers_stay_when_they_are_quantised_again(name: str) -> None:
    tensor, quantiser = GIVEN[name]
    assert quantiser is not None
    assert torch.equal(quantiser(quantiser(tensor)), quantiser(tensor))
    assert from_json(quantiser.to_json()) == quantiser


def test_every_number_becomes_the_nearest_of_its_quantiser() -> None:
    for quantiser, numbers in ((Uniform(0.3, 3), torch.arange(-3, 4) * 0.3), (Codebook((-1, 0.2, 0.9)), None)):
        levels = torch.tensor(quantiser.levels) if isinstance(quantiser, Codebook) else numbers
        assert levels is not None
        nearest = levels[(NORMAL[..., None] - levels).abs().argmin(-1)]
        torch.testing.assert_close(quantiser(NORMAL), nearest)


def test_the_searched_step_is_near_the_best_one() -> None:
    # the least squared error of 15 evenly spaced levels on a normal variable: J. Max 1960, step 0.3352 of 16 levels
    numbers = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert fit_uniform(numbers, 4).step == pytest.approx(0.35, abs=0.03)


def test_k_means_finds_the_levels_that_there_are() -> None:
    levels = torch.tensor([-2.0, -0.5, 0.0, 1.0])
    assert fit_codebook(levels.repeat(50), 16).levels == tuple(levels.tolist())


@pytest.mark.parametrize(
    ("name", "most"), [("constant", 5), ("zeros", 8), ("a scalar", 9), ("a bitmap", 160), ("noise", 902)]
)
def test_what_says_little_costs_little(name: str, most: int) -> None:
    assert tensors.encode(*GIVEN[name]).nbytes <= most  # 210 of 4000 positions: an entropy of 148 bytes


def test_a_repeated_tensor_costs_two_bytes() -> None:
    coded = encode({"a": NORMAL, "b": NORMAL[:3], "c": NORMAL.clone()}, {})
    assert coded["c"].nbytes == 2
    assert coded["b"].nbytes > 100


@pytest.mark.parametrize("name", GIVEN)
def test_damaged_bytes_are_refused_or_give_other_numbers(name: str) -> None:
    tensor, quantiser = GIVEN[name]
    made = tensors.encode(on_grid({"a": tensor}, {"a": quantiser} if quantiser else {})["a"], quantiser)
    generator = np.random.default_rng(0)
    for _ in range(60):
        record = bytearray(made.record)
        record[generator.integers(len(record))] = generator.integers(256)
        try:
            back = tensors.decode(Reader(bytes(record)), made.dtype, made.shape, made.streams, [])
        except DamagedError:
            continue
        assert back.shape == tensor.shape


@pytest.mark.parametrize("quantiser", [lambda: Uniform(0.0), lambda: Uniform(1.0, 10**6), lambda: Codebook((1.0, 1.0))])
def test_quantisers_that_are_none_are_refused(quantiser) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"no steps|levels"):
        quantiser()
