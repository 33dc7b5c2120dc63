"""What every block promises; a block's test inherits it and names its configuration."""

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from compressnet.block import Block
from compressnet.plan import make_plan
from compressnet.plan.price import price
from compressnet.recipe import read_recipe

INPUTS = [16, 33]


class BlockContract:
    """Subclasses set ``block`` and ``config``, which holds inputs of each of these lengths."""

    block: ClassVar[type[Block]]
    config: ClassVar[dict[str, Any]]

    def build(self, ins: int, seed: int = 7, **more: Any) -> Block:
        config = self.block.Config(**self.config)
        assert self.block.rejects(ins, config) is None
        return self.block(ins, config, seed, **more)

    def filled(self, ins: int, **more: Any) -> Block:
        """With stored numbers that are neither zero nor special."""
        block = self.build(ins, **more)
        generator = torch.Generator().manual_seed(3)
        for tensor in block.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
        return block

    @pytest.mark.parametrize("ins", INPUTS)
    def test_it_gives_as_many_features_as_it_says(self, ins: int) -> None:
        block = self.build(ins)
        assert block(torch.randn(2, 3, ins)).shape == (2, 3, block.features(ins, block.config))

    @pytest.mark.parametrize("ins", INPUTS)
    def test_the_meta_device_prices_it_exactly(self, ins: int) -> None:
        ghost, real = self.build(ins, device="meta"), self.build(ins)
        assert all(t.is_meta for t in [*ghost.parameters(), *ghost.buffers()])
        assert {k: (v.shape, v.dtype) for k, v in ghost.state_dict().items()} == {
            k: (v.shape, v.dtype) for k, v in real.state_dict().items()
        }

    @pytest.mark.parametrize("ins", INPUTS)
    def test_the_state_dict_alone_restores_it_bit_for_bit(self, ins: int) -> None:
        block, again = self.filled(ins), self.build(ins, device="meta")
        again.load_state_dict(block.state_dict(), assign=True)
        again.remake_("cpu")
        x = torch.randn(4, ins)
        assert torch.equal(again(x), block(x))

    @pytest.mark.parametrize("ins", INPUTS)
    def test_ordinary_layers_compute_the_same(self, ins: int) -> None:
        block, x = self.filled(ins, dtype=torch.float64), torch.rand(5, ins, dtype=torch.float64)
        layers = block.ordinary()
        assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU] * (len(layers) // 2)
        torch.testing.assert_close(layers(x), block(x))
        assert sum(parameter.numel() for parameter in layers.parameters()) == block.ordinary_numel
        assert self.build(ins, device="meta").ordinary_numel == block.ordinary_numel

    def test_gradients_are_right_in_double_precision(self) -> None:
        block, x = self.build(16, dtype=torch.float64), torch.rand(2, 16, dtype=torch.float64) + 0.5
        names = [name for name, _ in block.named_parameters()]

        def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(block, dict(zip(names, values, strict=True)), (x,))

        values = (p.detach().clone().requires_grad_() for p in block.parameters())
        assert torch.autograd.gradcheck(run, (x.requires_grad_(), *values))

    @pytest.mark.parametrize("ins", INPUTS)
    def test_the_same_seed_draws_the_same_block_and_another_seed_another(self, ins: int) -> None:
        x = torch.rand(4, ins)
        assert torch.equal(self.build(ins)(x), self.build(ins)(x))
        assert not torch.equal(self.build(ins)(x), self.build(ins, seed=8)(x))

    @pytest.mark.parametrize("ins", INPUTS)
    def test_it_runs_in_bfloat16_and_under_autocast(self, ins: int) -> None:
        block, x = self.build(ins), torch.rand(4, ins)
        expected = block(x)
        given = copy.deepcopy(block).bfloat16()(x.bfloat16())
        assert given.dtype is torch.bfloat16
        assert (given.float() - expected).norm() < 0.1 * expected.norm()
        with torch.autocast("cpu", torch.bfloat16):
            assert (block(x).float() - expected).norm() < 0.05 * expected.norm()

    def test_a_plan_prices_what_it_stores(self) -> None:
        rule = {"match": ["fc1", "relu1", "fc2"], "block": self.block.name, **self.config}
        if "features" in self.config:
            rule["features"] = 1024
        plan = make_plan(read_recipe({"model": {"name": "lenet_300_100"}, "layers": [rule]}))
        (planned,) = plan.blocks
        (row,) = (row for row in price(plan, "recipe").rows if row.name == "fc1")
        assert row.numel == planned.build().numel == sum(t.numel() for t in planned.build().state_dict().values())
        assert row.dense_numel == 784 * 300 + 300 + 300 * 100 + 100
