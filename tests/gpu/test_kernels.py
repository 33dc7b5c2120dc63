"""Kernels give what the CPU gives: on a CUDA device, or interpreted on the CPU where TRITON_INTERPRET is 1."""

import os

import pytest
import torch
from torch import Tensor, nn

from compressnet.hashed import HashedWeight, recomputing
from compressnet.layers import CompressedConv2d, CompressedLinear
from compressnet.maths import cuda, dct, spreading
from compressnet.maths.assignment import Assignment
from compressnet.maths.hashing import Hashing
from compressnet.maths.sharing import expand
from compressnet.methods import BY_NAME

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="this machine has no CUDA device"),
]
on_cuda = pytest.mark.skipif(INTERPRETED, reason="interpreted kernels need no CUDA device")

THREE = (0, 1, 2, 1, 2, 3, 2, 3, 4)
FEW = {
    "one": (1, (0,), (1,)),
    "walking": (1500, (0,), (1500,)),
    "a power of two": (4096, (0,), (256,)),
    "one value": (777, (0,), (1,)),
    "bands": (300, (0, 1, 1, 2), (5, 20, 7)),
    "3×3": (12 * 40, THREE, (70, 101, 203, 33, 5)),
    "5×3": (201, tuple(a + b for a in range(5) for b in range(3)), (9, 8, 100, 6, 50, 4, 3)),
}
MANY = {
    "tiles": (2_360_000, (0,), (147_501,)),
    "tiles of one value": (1_500_000, (0,), (7,)),
    "bands of tiles": (1_000_001, (0, 1, 1), (70_000, 80_001)),
    "a classifier": (102_760_448, (0,), (6_422_528,)),
    "a layer of ResNet-50": (512 * 512, THREE, (40_000, 50_000, 40_000, 15_000, 2_456)),
}
SHAPES = {"linear": (60, 50), "conv": (12, 13, 3, 3), "1×1": (24, 10, 1, 1)}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The CUDA device, or the CPU with kernels that are interpreted, many positions at a time."""
    if not INTERPRETED:
        return torch.device("cuda", torch.cuda.current_device())
    monkeypatch.setattr(cuda, "BLOCK", 1 << 11)
    monkeypatch.setattr(cuda, "_LEAST", 1 << 8)
    monkeypatch.setattr(cuda, "runs", lambda assignment, device: True)
    return torch.device("cpu")


def assignment_of(case: str, hashing: Hashing = "balanced") -> Assignment:
    kernels, bands, buckets = (FEW | MANY)[case]
    return Assignment(kernels, bands, buckets, 0x9E3779B9, hashing)


@on_cuda
def test_kernels_run_on_this_device(device: torch.device) -> None:
    assert cuda.runs(assignment_of("one"), device)


@pytest.mark.parametrize("hashing", ["balanced", "independent"])
@pytest.mark.parametrize("case", [*FEW, *(pytest.param(case, marks=on_cuda) for case in MANY)])
def test_indices_are_the_same_integers(case: str, hashing: Hashing, device: torch.device) -> None:
    assignment = assignment_of(case, hashing)
    assert torch.equal(spreading.read(assignment, device).cpu(), assignment.signed_indices())


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, torch.float32) for case in FEW]
    + [("bands", dtype) for dtype in (torch.half, torch.bfloat16, torch.double)],
    ids=str,
)
def test_what_is_gathered_is_what_indices_give(case: str, dtype: torch.dtype, device: torch.device) -> None:
    assignment = assignment_of(case)
    values = torch.randn(sum(assignment.buckets), dtype=torch.float64).to(dtype)
    made = spreading.spread(values.to(device), assignment)
    assert made.dtype is dtype
    assert torch.equal(made.cpu(), expand(values, assignment.signed_indices()))


@pytest.mark.parametrize("case", FEW)
def test_sums_are_those_of_indices(case: str, device: torch.device) -> None:
    assignment = assignment_of(case)
    values = torch.randn(sum(assignment.buckets), dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(assignment.numel, dtype=torch.float64)
    (expected,) = torch.autograd.grad(expand(values, assignment.signed_indices()), values, upstream)
    for dtype in (torch.float32, torch.float64):
        there = values.detach().to(device, dtype).requires_grad_()
        (given,) = torch.autograd.grad(spreading.spread(there, assignment), there, upstream.to(device, dtype))
        torch.testing.assert_close(given.cpu(), expected.to(dtype), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 5)], ids=str)
def test_kernels_are_the_inverse_dct_of_what_they_read(size: tuple[int, int], device: torch.device) -> None:
    bands, shape = tuple(dct.bands(*size).tolist()), torch.Size((7, 19, *size))
    assignment = Assignment(7 * 19, bands, tuple(range(3, 3 + size[0] + size[1] - 1)), 11)
    values, upstream = torch.randn(sum(assignment.buckets)).double().requires_grad_(), torch.randn(shape).double()
    transform = dct.dct2_matrix(*size)
    expected = dct.kernels(expand(values, assignment.signed_indices()), transform, shape)
    there = values.detach().to(device).requires_grad_()
    made = spreading.spread_kernels(there, assignment, transform.to(device), shape)
    torch.testing.assert_close(made.cpu(), expected)
    (given,) = torch.autograd.grad(made, there, upstream.to(device))
    torch.testing.assert_close(given.cpu(), torch.autograd.grad(expected, values, upstream)[0])


def test_sums_of_half_precision_are_added_in_single(device: torch.device) -> None:
    assignment = assignment_of("one value")
    numbers = torch.randn(assignment.numel, device=device).half()
    signs = expand(torch.ones(1), assignment.signed_indices())
    expected = (numbers.cpu().float() @ signs).half()
    torch.testing.assert_close(cuda.add(numbers, assignment).cpu()[0], expected)


def test_weights_can_be_differentiated_twice(device: torch.device) -> None:
    assignment = assignment_of("3×3")
    values = torch.randn(sum(assignment.buckets), device=device, requires_grad=True)
    made = spreading.spread(values, assignment)
    (once,) = torch.autograd.grad(made.square().sum(), values, create_graph=True)
    (twice,) = torch.autograd.grad(once.sum(), values)
    reads = torch.bincount(assignment.signed_indices() >> 1, minlength=len(values))
    assert torch.equal(twice.cpu(), 2.0 * reads)


def layer_of(name: str, shape: tuple[int, ...], device: torch.device) -> CompressedLinear | CompressedConv2d:
    torch.manual_seed(0)
    weight = BY_NAME[name](shape, BY_NAME[name].Config(ratio=8), 5)
    nn.init.normal_(weight.get_parameter("buckets"))
    if len(shape) == 2:
        return CompressedLinear.like(nn.Linear(shape[1], shape[0]), weight).to(device)
    return CompressedConv2d.like(nn.Conv2d(shape[1], shape[0], shape[2], padding=1), weight).to(device)


def gradients(layer: nn.Module, x: Tensor, half: bool) -> list[Tensor]:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        y = layer(x)
    return [y.detach(), *torch.autograd.grad(y.float().square().mean(), [x, *layer.parameters()])]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", ["hashednet", "freshnet"])
def test_a_layer_that_recomputes_makes_no_indices_and_gives_the_same(
    name: str, shape: tuple[int, ...], half: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_of(name, shape, device)
    x = torch.randn(4, shape[1], *[5] * (len(shape) - 2), device=device, requires_grad=True)
    kept = gradients(layer, x, half)
    with recomputing(layer), monkeypatch.context() as patched:
        patched.setattr(cuda, "signed_indices", None)
        patched.setattr(Assignment, "signed_indices", None)
        made = gradients(layer, x, half)
        assert all(tensor.numel() <= 81 for tensor in layer.buffers())
    for a, b in zip(kept, made, strict=True):
        assert (a - b).norm() <= (0.02 if half else 1e-5) * a.norm()


def test_sums_that_are_to_be_the_same_in_every_run_are_made_by_indices(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    assignment = assignment_of("3×3")
    values = torch.randn(sum(assignment.buckets), device=device, requires_grad=True)
    monkeypatch.setattr(cuda, "add", None)
    torch.use_deterministic_algorithms(True)
    try:
        (given,) = torch.autograd.grad(spreading.spread(values, assignment).sum(), values)
    finally:
        torch.use_deterministic_algorithms(False)
    (expected,) = torch.autograd.grad(expand(values, spreading.read(assignment, device)).sum(), values)
    torch.testing.assert_close(given, expected)


@on_cuda
def test_a_weight_that_recomputes_takes_no_memory_but_its_own(device: torch.device) -> None:
    weight = BY_NAME["hashednet"]((4096, 4096), BY_NAME["hashednet"].Config(ratio=16), 5, device=device)
    assert isinstance(weight, HashedWeight)
    weight.recompute_()
    dense = 4 * 4096 * 4096
    for _ in range(2):  # the first compiles
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        weight.to_dense().backward(torch.ones((), device=device).expand(4096, 4096))
        above = torch.cuda.max_memory_allocated(device) - before
    assert above < 2.5 * dense  # the weight, its gradient, and of 1/16 values the sums
