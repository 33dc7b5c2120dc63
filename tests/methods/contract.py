"""What every method promises; a method's test inherits it and names its shapes and configurations."""

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressnet.structured import ConvGeometry, StructuredWeight

SHAPES = [(24, 40, 3, 3), (17, 9, 5, 3), (32, 48), (48, 32), (40, 24, 1, 1), (33, 70), (64, 64)]


def key(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


class Contract:
    """Subclasses set ``weight`` and ``config``; shapes that the method rejects are left out."""

    weight: ClassVar[type[StructuredWeight]]
    config: ClassVar[dict[str, Any]]
    seeded: ClassVar[bool] = True
    """Whether the seed of the layer matters."""

    def build(self, shape: tuple[int, ...], seed: int = 7, **more: Any) -> StructuredWeight:
        config = self.weight.Config(**self.config)
        reason = self.weight.rejects(shape, config)
        if reason:
            pytest.skip(f"rejected: {reason}")
        return self.weight(shape, config, seed, **more)

    def filled(self, shape: tuple[int, ...], **more: Any) -> StructuredWeight:
        """With parameters that are neither zero nor special."""
        weight = self.build(shape, **more)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for p in weight.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
        return weight

    def test_it_accepts_some_shapes(self) -> None:
        config = self.weight.Config(**self.config)
        assert any(self.weight.rejects(shape, config) is None for shape in SHAPES)

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_the_dense_weight_has_the_declared_shape(self, shape: tuple[int, ...]) -> None:
        assert self.filled(shape).to_dense().shape == shape

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_its_rows_are_those_of_the_dense_weight(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape)
        assert torch.equal(torch.cat([rows.clone() for rows in weight.rows()]), weight.to_dense())

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_fewer_numbers_are_stored_than_the_dense_weight_has(self, shape: tuple[int, ...]) -> None:
        weight = self.build(shape)
        assert weight.numel == sum(t.numel() for t in weight.state_dict().values())
        assert weight.numel < weight.shape.numel()

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_the_meta_device_prices_it_exactly(self, shape: tuple[int, ...]) -> None:
        ghost, real = self.build(shape, device="meta"), self.build(shape)
        assert {k: (v.shape, v.dtype) for k, v in ghost.state_dict().items()} == {
            k: (v.shape, v.dtype) for k, v in real.state_dict().items()
        }

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_matmul_equals_the_dense_product(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape, dtype=torch.float64)
        x = torch.randn(5, 3, weight.shape[1:].numel(), dtype=torch.float64)
        torch.testing.assert_close(weight.matmul(x), F.linear(x, weight.to_dense().flatten(1)))

    @pytest.mark.parametrize("shape", [(32, 48), (33, 70)], ids=key)
    @pytest.mark.parametrize("leading", [(), (1,), (0,), (5000,)], ids=str)
    def test_one_vector_none_and_many_are_multiplied_alike(
        self, shape: tuple[int, ...], leading: tuple[int, ...]
    ) -> None:
        weight = self.filled(shape, dtype=torch.float64)
        x = torch.randn(*leading, shape[1], dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(weight.matmul(x), F.linear(x, weight.to_dense()))

    @pytest.mark.parametrize("groups", [1, 2])
    @pytest.mark.parametrize("mode", ["zeros", "reflect"])
    @pytest.mark.parametrize("shape", [(24, 40, 3, 3), (16, 9, 5, 3), (40, 24, 1, 1)], ids=key)
    def test_a_convolution_equals_that_with_the_dense_weight(
        self, shape: tuple[int, ...], mode: str, groups: int
    ) -> None:
        weight = self.filled(shape, dtype=torch.float64)
        like = nn.Conv2d(groups * shape[1], shape[0], shape[2:], (2, 1), (1, 2), (1, 2), groups, False, mode).double()
        like.weight = nn.Parameter(weight.to_dense().detach())
        x = torch.randn(2, groups * shape[1], 11, 9, dtype=torch.float64)
        torch.testing.assert_close(weight.conv2d(x, ConvGeometry.of(like)), like(x))

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_the_state_dict_alone_restores_it_bit_for_bit(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape)
        again = self.build(shape, device="meta")
        again.load_state_dict(weight.state_dict(), assign=True)
        again.remake_("cpu")
        assert torch.equal(again.to_dense(), weight.to_dense())

    @pytest.mark.parametrize("shape", [(8, 16), (6, 4, 3, 3), (8, 16, 1, 1)], ids=key)
    def test_gradients_are_right_in_double_precision(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape, dtype=torch.float64)
        names = [name for name, _ in weight.named_parameters()]

        def dense(*values: torch.Tensor) -> torch.Tensor:
            replaced = dict(zip(names, values, strict=True))
            x = torch.eye(shape[1], dtype=torch.float64)
            if len(shape) == 2:
                return torch.func.functional_call(_Method(weight, "matmul"), _inside(replaced), (x,))
            return torch.func.functional_call(_Method(weight, "to_dense"), _inside(replaced), ())

        values = tuple(p.detach().clone().requires_grad_() for p in weight.parameters())
        assert torch.autograd.gradcheck(dense, values)

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_projection_never_makes_it_worse(self, shape: tuple[int, ...]) -> None:
        dense = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        weight = self.build(shape)
        before = (weight.to_dense() - dense).norm()
        after = (weight.project_(dense).to_dense() - dense).norm()
        assert after <= before
        if weight.exact_projection:
            assert after <= dense.norm()

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_an_exact_projection_leaves_a_residual_orthogonal_to_what_it_can_represent(
        self, shape: tuple[int, ...]
    ) -> None:
        weight = self.build(shape, dtype=torch.float64)
        if not weight.exact_projection:
            pytest.skip("its projection is not exact")
        dense = torch.randn(shape, dtype=torch.float64)
        residual = dense - weight.project_(dense).to_dense()
        grads = torch.autograd.grad((residual.detach() * weight.to_dense()).sum(), list(weight.parameters()))
        assert max(g.abs().max() for g in grads) < 1e-9

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_projecting_what_it_holds_changes_nothing(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape, dtype=torch.float64)
        if not weight.exact_projection:
            pytest.skip("its projection is not exact")
        dense = weight.to_dense().detach()
        torch.testing.assert_close(weight.project_(dense).to_dense(), dense)

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_it_is_linear_in_its_parameters_where_it_says_so(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape, dtype=torch.float64)
        if not weight.linear:
            pytest.skip("it is not linear in its parameters")
        once = weight.to_dense().detach()
        with torch.no_grad():
            for p in weight.parameters():
                p.mul_(-2.5)
        torch.testing.assert_close(weight.to_dense(), -2.5 * once)

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_scaling_it_scales_the_dense_weight(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape, dtype=torch.float64)
        once = weight.to_dense().detach()
        weight.scale_(-2.5)
        torch.testing.assert_close(weight.to_dense(), -2.5 * once)

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_scaling_its_rows_scales_those_of_the_dense_weight_or_changes_nothing(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape, dtype=torch.float64)
        once = weight.to_dense().detach()
        factors = torch.linspace(-2, 3, shape[0], dtype=torch.float64)
        taken = weight.scale_rows_(factors)
        wanted = once * factors.view(-1, *[1] * (len(shape) - 1)) if taken else once
        torch.testing.assert_close(weight.to_dense(), wanted)

    @pytest.mark.parametrize("shape", [(32, 48), (24, 40, 3, 3), (40, 24, 1, 1)], ids=key)
    def test_it_runs_in_bfloat16_and_under_autocast(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape)
        reference = weight.to_dense()
        half = copy.deepcopy(weight).bfloat16()
        assert half.to_dense().dtype is torch.bfloat16
        torch.testing.assert_close(
            half.to_dense().float(), reference, rtol=0.1, atol=0.15 * reference.abs().max().item()
        )
        if len(shape) == 2:
            x = torch.randn(4, shape[1])
            with torch.autocast("cpu", torch.bfloat16):
                y = weight.matmul(x)
            expected = x @ reference.T
            assert (y.float() - expected).norm() < 0.05 * expected.norm()

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_a_frozen_weight_is_used_without_gradients_only_and_is_never_stale(self, shape: tuple[int, ...]) -> None:
        weight = self.filled(shape)
        weight.freeze()
        with torch.no_grad():
            assert torch.equal(weight.dense(), weight.to_dense())
        assert weight.dense().requires_grad
        other = self.build(shape)
        other.freeze()
        other.load_state_dict(weight.state_dict())
        with torch.no_grad():
            assert torch.equal(other.dense(), weight.to_dense())
        other.freeze()
        assert copy.deepcopy(other).double().dense().dtype is torch.float64
        assert other.train()._frozen is None

    @pytest.mark.parametrize("shape", SHAPES, ids=key)
    def test_another_seed_gives_another_weight(self, shape: tuple[int, ...]) -> None:
        if not self.seeded:
            pytest.skip("nothing of it is hashed")
        weight, other = self.filled(shape), self.filled(shape, seed=8)
        assert not torch.equal(weight.to_dense(), other.to_dense())


class _Method(torch.nn.Module):
    def __init__(self, inner: StructuredWeight, method: str) -> None:
        super().__init__()
        self.inner, self.method = inner, method

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return getattr(self.inner, self.method)(*args)


def _inside(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"inner.{name}": value for name, value in values.items()}
