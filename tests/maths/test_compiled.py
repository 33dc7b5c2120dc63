"""Compiled loops against what torch and numpy do."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from compressnet.maths import compiled, indices
from compressnet.maths.hashing import Hashing
from compressnet.maths.indices import signed_indices
from compressnet.maths.sharing import Reader, Sums, reads

COUNT = compiled.FROM + 12_345


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on, numba is not there."""
    return lambda: monkeypatch.setattr(compiled, "installed", lambda: False)


@pytest.mark.parametrize("hashing", ["balanced", "independent"])
@pytest.mark.parametrize(
    ("numel", "buckets"),
    [(COUNT, 1), (COUNT, 2), (COUNT, COUNT), (1 << 20, 1 << 16), (3_000_000, 1_000_001), (2_500_000, 100)],
)
def test_indices_are_those_of_numpy(numel: int, buckets: int, hashing: Hashing, without: Callable[[], None]) -> None:
    ours = signed_indices(numel, buckets, 7, 3, hashing)
    some = slice(numel // 3, numel - 17)
    assert torch.equal(ours[some], signed_indices(numel, buckets, 7, 3, hashing, some))
    without()
    assert torch.equal(ours[some], signed_indices(numel, buckets, 7, 3, hashing, some))
    assert torch.equal(ours, signed_indices(numel, buckets, 7, 3, hashing))


@pytest.mark.parametrize(("positions", "owned"), [(1, 1), (3, 2), (1000, 999), (1 << 20, 1 << 20), ((1 << 20) - 1, 3)])
def test_any_run_of_a_tile_can_be_indexed(positions: int, owned: int) -> None:
    from compressnet.maths.compiled.hashing import balanced

    keys, signs = (tuple(map(np.uint32, range(11, 11 + n))) for n in (16, 2))
    start = positions // 3
    made, reference = np.zeros((2, positions - start), np.uint32)
    for fill, out in ((balanced, made), (indices.balanced, reference)):
        fill(out, start, positions, keys, 4_000_000, owned, 5_000_000, signs)
    assert (made == reference).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_gathered_and_summed_as_by_torch(dtype: torch.dtype, without: Callable[[], None]) -> None:
    values, places = torch.randn(10_007, dtype=dtype), signed_indices(COUNT, 10_007, 1)
    found: list[tuple[Tensor, Tensor]] = []
    for _ in range(2):
        out, sums = values.new_empty(COUNT), Sums(values, len(values), COUNT)
        reader = Reader(values, COUNT)
        reader.gather_(out, places)
        sums.add_(places, out)
        found.append((out, sums.total()))
        assert reader.compiled is sums.compiled is compiled.installed()
        without()
    (gathered, summed), (by_torch, summed_by_torch) = found
    assert torch.equal(gathered, by_torch)
    torch.testing.assert_close(summed, summed_by_torch)


def test_reads_are_counted_as_by_torch() -> None:
    places = signed_indices(COUNT, 10_007, 1, hashing="independent")
    assert torch.equal(reads(places, 10_010), torch.bincount(places >> 1, minlength=10_010))


def test_loops_read_tensors_of_one_kind_on_the_cpu(without: Callable[[], None]) -> None:
    x = torch.ones(3)
    assert compiled.reads(x, torch.nn.Parameter(x))
    for others in ([x.half()], [x.short()], [x, x.int()], [x, x.double()], [x.to("meta")]):
        assert not compiled.reads(*others)
    without()
    assert not compiled.reads(x)


def test_a_loop_is_compiled_where_its_code_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    njit = numba.njit

    def refusing(**options: bool) -> Callable[..., object]:
        if options.get("cache"):
            raise RuntimeError("no locator available")
        return njit(**options)  # type: ignore[no-any-return]

    monkeypatch.setattr(numba, "njit", refusing)
    assert compiled.loop(lambda x: x + 1)(1) == 2


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_lanes_add_multiply_and_change_places_as_arrays_do(real: type) -> None:
    from compressnet.maths.compiled.lanes import load, store, total
    from compressnet.maths.compiled.straight import transpose

    @compiled.loop
    def compute(out, x, factor):  # type: ignore[no-untyped-def]
        a, b = load(x, 1), load(x, 32)
        store(out, 3, (a + b * factor) * b - factor * a)
        return total(a)

    @compiled.loop
    def turn(out, x):  # type: ignore[no-untyped-def]
        transpose(out, 0, 16, x, 4, 20)

    x, out, square = (
        np.random.default_rng(0).random((16, 20)).astype(real),
        np.zeros(20, real),
        np.zeros((16, 16), real),
    )
    flat, factor = x.ravel(), real(0.3)
    assert compute(out, x, factor) == pytest.approx(flat[1:17].sum(), rel=1e-5)
    a, b = flat[1:17], flat[32:48]
    np.testing.assert_allclose(out[3:19], (a + b * factor) * b - factor * a, rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(out) == 16
    turn(square, x)
    assert (square == x[:, 4:].T).all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # what torch's jvp does at first
@pytest.mark.parametrize("method", ["deepfried", "acdc", "monarch", "lowrank"])
def test_products_go_through_the_transforms_of_torch_func(method: str) -> None:
    from compressnet.methods import BY_NAME

    weight = BY_NAME[method]((512, 512), BY_NAME[method].config_near((512, 512), 8), seed=1).double()
    x = torch.randn(4, 512, dtype=torch.double)
    matrix = weight.to_dense().detach()
    torch.testing.assert_close(torch.func.vmap(weight.matmul)(x[:, None])[:, 0], x @ matrix.T)
    y, pull = torch.func.vjp(weight.matmul, x)
    torch.testing.assert_close(y, x @ matrix.T)
    torch.testing.assert_close(pull(x)[0], x @ matrix)
    torch.testing.assert_close(torch.func.jvp(weight.matmul, (x,), (x,))[1], x @ matrix.T)


def test_arrays_of_other_layouts_are_refused() -> None:
    from numba import TypingError

    from compressnet.maths.compiled.lanes import load, total

    @compiled.loop
    def first(x):  # type: ignore[no-untyped-def]
        return total(load(x, 0))

    assert first(np.ones((4, 16))) == 16
    for other in (np.ones((4, 16)).T, np.ones((4, 16))[:, ::2]):
        with pytest.raises(TypingError, match="are contiguous"):
            first(other)
