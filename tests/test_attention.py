import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import VisionTransformer, swin_t

import compressnet
from compressnet.attention import CompressedMultiheadAttention, opened
from compressnet.dense import dense_
from compressnet.layers import CompressedLinear, freeze
from compressnet.methods import BY_NAME
from compressnet.plan import PlannedLayer, candidates, plan_layers
from compressnet.pretrained import dense_state
from compressnet.recipe import read_recipe
from compressnet.rewrite import project_, rewrite_

CONSTRUCTED: list[dict[str, Any]] = [
    {"batch_first": True},
    {"batch_first": False},
    {"batch_first": True, "bias": False},
    {"batch_first": False, "add_bias_kv": True},
    {"batch_first": True, "add_zero_attn": True},
    {"batch_first": True, "add_bias_kv": True, "add_zero_attn": True, "bias": False},
    {"batch_first": False, "kdim": 6, "vdim": 10},
]
CALLED: list[dict[str, Any]] = [
    {"need_weights": False},
    {"need_weights": True},
    {"average_attn_weights": False},
    {"need_weights": False, "attn_mask": "bool"},
    {"need_weights": True, "attn_mask": "each"},
    {"need_weights": False, "attn_mask": "each", "key_padding_mask": "bool"},
    {"need_weights": True, "attn_mask": "float", "key_padding_mask": "float"},
    {"need_weights": False, "key_padding_mask": "float"},
]
RULE = {"match": "*", "method": "hashednet", "ratio": 2}
WIDTH, HEADS = 12, 3


class Holder(nn.Module):
    """Attention of a model: itself is never replaced."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, **arguments)

    def forward(self, *arguments: Tensor, **options: Any) -> Any:
        return self.attention(*arguments, **options)


def holder(**arguments: Any) -> Holder:
    torch.manual_seed(0)
    made = Holder(**arguments).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def planned(module: nn.Module, *rules: dict[str, Any]) -> tuple[PlannedLayer, ...]:
    return plan_layers(read_recipe({"layers": list(rules or (RULE,))}), candidates(module))


def compressed(module: nn.Module, *rules: dict[str, Any]) -> Any:
    made = copy.deepcopy(module)
    project_(made, planned(module, *rules))
    return made


def dense_like(module: nn.Module, dense: nn.Module) -> Any:
    """torch's own attention with the dense weights of a compressed one."""
    reference = copy.deepcopy(dense)
    reference.load_state_dict(dense_state(module))
    return reference


def inputs(attention: nn.MultiheadAttention, batched: bool, same: bool) -> tuple[Tensor, ...]:
    wanted = (5, WIDTH), (7, attention.kdim), (7, attention.vdim)
    made = [torch.randn(4, *sides) if batched else torch.randn(*sides) for sides in wanted]
    made = [x if attention.batch_first or not batched else x.transpose(0, 1) for x in made]
    return (made[0],) * 3 if same else tuple(made)


def masks(called: dict[str, Any], queries: int, keys: int, batch: int | None) -> dict[str, Any]:
    """The call's arguments with random masks in the place of their kinds."""
    given = dict(called)
    for name, kind in called.items():
        if isinstance(kind, str):
            shape: tuple[int, ...] = (queries, keys) if kind != "each" else ((batch or 1) * HEADS, queries, keys)
            if name == "key_padding_mask":
                shape = (keys,) if batch is None else (batch, keys)
            given[name] = (
                torch.randn(shape)
                if kind == "float"
                else (torch.rand(shape) < 0.4).index_fill_(-1, torch.tensor(0), False)
            )
    return given


def assert_equal(found: tuple[Tensor, Tensor | None], expected: tuple[Tensor, Tensor | None]) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    assert (found[1] is None) == (expected[1] is None)
    if found[1] is not None:
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("same", [True, False], ids=["self", "cross"])
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "single"])
@pytest.mark.parametrize("called", CALLED, ids=str)
@pytest.mark.parametrize("constructed", CONSTRUCTED, ids=str)
def test_it_equals_torchs_attention_with_its_dense_weights(
    constructed: dict[str, Any], called: dict[str, Any], batched: bool, same: bool
) -> None:
    if same and "kdim" in constructed:
        pytest.skip("keys and values are of other widths")
    dense = holder(**constructed)
    ours = compressed(dense)
    assert isinstance(ours.attention, CompressedMultiheadAttention)
    x = inputs(dense.attention, batched, same)
    options = masks(called, 5, 5 if same else 7, 4 if batched else None)
    reference = dense_like(ours, dense)
    assert_equal(ours(*x, **options), reference(*x, **options))
    with torch.no_grad():  # torch's fast path
        freeze(ours)
        assert_equal(ours(*x, **options), reference(*x, **options))


@pytest.mark.parametrize("need_weights", [True, False])
def test_the_causal_hint_needs_its_mask_and_changes_nothing(need_weights: bool) -> None:
    dense = holder(batch_first=True)
    ours = compressed(dense)
    x = inputs(dense.attention, True, True)
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    options = {"attn_mask": causal, "is_causal": True, "need_weights": need_weights}
    assert_equal(ours(*x, **options), dense_like(ours, dense)(*x, **options))
    with pytest.raises(RuntimeError, match="is_causal"):
        ours(*x, is_causal=True)


@pytest.mark.parametrize("method", BY_NAME)
def test_every_method_holds_its_projections(method: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(32, 4, 16, batch_first=True)).eval()
    sizes = {"ratio": 2, "density": 0.4, "steps": 3}
    keys = {key: value for key, value in sizes.items() if key in BY_NAME[method].Config.model_fields}
    rules = [{"match": f"0.self_attn.{name}", "method": method, **keys} for name in ("in_proj", "out_proj")]
    ours = compressed(model, *rules)
    x = torch.randn(3, 6, 32)
    torch.testing.assert_close(ours(x), dense_like(ours, model)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("match", "names"),
    [
        ("*.in_proj", {"in_proj.structured.buckets", "in_proj_bias", "out_proj.weight", "out_proj.bias"}),
        ("*.out_proj", {"in_proj_weight", "in_proj_bias", "out_proj.structured.buckets", "out_proj.bias"}),
        ("*", {"in_proj.structured.buckets", "in_proj_bias", "out_proj.structured.buckets", "out_proj.bias"}),
    ],
)
def test_what_is_not_compressed_keeps_its_name_and_its_numbers(match: str, names: set[str]) -> None:
    dense = holder(batch_first=True)
    ours = compressed(dense, {**RULE, "match": match})
    state, before = ours.attention.state_dict(), dense.attention.state_dict()
    assert set(state) == names
    assert all(torch.equal(state[name], before[name]) for name in names & before.keys())
    assert set(dense_state(ours)) == set(dense.state_dict())


@pytest.mark.parametrize("constructed", CONSTRUCTED, ids=str)
def test_on_meta_it_has_the_names_shapes_and_price_it_has_when_made(constructed: dict[str, Any]) -> None:
    dense = holder(**constructed)
    layers, ours = planned(dense), compressed(dense)
    ghost = rewrite_(copy.deepcopy(dense).to("meta"), layers)
    assert all(t.is_meta for t in ghost.state_dict().values())
    shapes = {name: t.shape for name, t in ours.state_dict().items()}
    assert {name: t.shape for name, t in ghost.state_dict().items()} == shapes
    stored = sum(t.numel() for name, t in ours.state_dict().items() if ".structured." in name)
    assert sum(layer.numel() for layer in layers) == stored


@pytest.mark.parametrize("constructed", CONSTRUCTED, ids=str)
def test_gradients_reach_every_number_and_are_those_of_the_dense_weights(constructed: dict[str, Any]) -> None:
    dense = holder(**constructed)
    ours = compressed(dense)
    reference, x = dense_like(ours, dense), inputs(dense.attention, True, "kdim" not in constructed)
    for model in (ours, reference):
        model(*x, need_weights=False)[0].square().sum().backward()
    assert all(p.grad is not None for p in ours.parameters())
    for name, parameter in ours.named_parameters():
        if ".structured." not in name:
            torch.testing.assert_close(parameter.grad, reference.get_parameter(name).grad, rtol=1e-4, atol=1e-4)
    for layer in planned(dense):
        structured = ours.get_submodule(layer.name).structured
        given = reference.get_parameter(layer.parameter).grad
        (expected,) = torch.autograd.grad(structured.to_dense(), structured.buckets, given)
        torch.testing.assert_close(structured.buckets.grad, expected, rtol=1e-4, atol=1e-4)


def test_dropout_is_of_training_alone_and_modes_are_kept() -> None:
    ours = compressed(holder(batch_first=True, dropout=0.5).train())
    assert all(module.training for module in ours.modules())
    x = torch.randn(2, 5, WIDTH)
    options: list[dict[str, Any]] = [{"need_weights": False}, {"need_weights": True}]
    assert not any(torch.equal(ours(x, x, x, **o)[0], ours(x, x, x, **o)[0]) for o in options)
    ours.eval()
    assert all(torch.equal(ours(x, x, x, **o)[0], ours(x, x, x, **o)[0]) for o in options)


def test_the_model_that_was_copied_stays_as_it_was() -> None:
    dense = holder(batch_first=True)
    before = copy.deepcopy(dense.state_dict())
    ours = compressed(dense)
    for parameter in ours.parameters():
        nn.init.zeros_(parameter)
    again = copy.deepcopy(ours)
    nn.init.ones_(again.attention.in_proj_bias)
    assert ours.attention.in_proj_bias.sum() == 0
    assert type(dense.attention) is nn.MultiheadAttention
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())


def test_a_product_of_ones_own_stays_a_product() -> None:
    dense = nn.Sequential(nn.TransformerEncoderLayer(64, 4, 16, batch_first=True))
    rule = {"match": "*.self_attn.*", "method": "lowrank", "rank": 4}
    x, flops = torch.randn(2, 50, 64), []
    for model in (dense, compressed(dense, rule)):
        with FlopCounterMode(display=False) as counter:
            model(x)
        flops.append(counter.get_total_flops())
    assert flops[0] - flops[1] == 2 * 100 * (4 * 64 * 64 - 4 * (64 + 192) - 4 * (64 + 64))


def encoder() -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # torch's own, on its fast path
@pytest.mark.parametrize("match", ["*", "*.self_attn.*", "layers.1.*", "*.linear1"])
def test_torchs_encoder_layers_work_with_it_in_training_and_on_their_fast_path(match: str) -> None:
    dense = encoder()
    ours = compressed(dense, {**RULE, "match": match})
    reference = dense_like(ours, dense)
    x, padding = torch.randn(3, 6, 32), torch.arange(6) >= torch.tensor([[6], [4], [2]])
    torch.testing.assert_close(ours(x), reference(x), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-4, atol=1e-5)
        found, expected = ours(x, src_key_padding_mask=padding), reference(x, src_key_padding_mask=padding)
        torch.testing.assert_close(found[~padding], expected[~padding], rtol=1e-4, atol=1e-5)


def transformer() -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 4, 48, 96, num_classes=7)
    nn.init.normal_(model.heads.head.weight)  # type: ignore[arg-type]
    return model.eval()


ATTENTION = [
    {"match": "*.self_attention.in_proj", "method": "freshnet", "ratio": 8},
    {"match": "*.self_attention.out_proj", "method": "hashednet", "ratio": 8},
]


def test_a_vision_transformer_is_saved_and_loaded_with_the_same_logits(tmp_path: Path) -> None:
    model = compressnet.compress(transformer(), {"layers": ATTENTION})
    compressnet.save(model, tmp_path / "vit.safetensors")
    loaded = compressnet.load(tmp_path / "vit.safetensors", into=transformer())
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    (account,) = compressnet.report(tmp_path / "vit.safetensors")
    rows = {row.name: row for row in account.rows}
    assert rows["encoder.layers.encoder_layer_1.self_attention.in_proj"].numel == 3 * 48 * 48 // 8
    assert account.numel == sum(t.numel() for t in model.state_dict().values())


def test_its_dense_state_is_that_of_the_ordinary_model() -> None:
    model, plain = compressnet.compress(transformer(), {"layers": ATTENTION}), transformer()
    plain.load_state_dict(dense_state(model))
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-5)


def test_while_it_is_open_a_model_has_its_own_tensors_and_computes_the_same() -> None:
    model, x = transformer(), torch.randn(3, 3, 32, 32)
    state, before = model.state_dict(keep_vars=True), list(model.modules())
    expected = model(x)
    with opened(model):
        assert len([m for m in model.modules() if isinstance(m, CompressedMultiheadAttention)]) == 2
        assert {n: id(t) for n, t in model.state_dict(keep_vars=True).items()} == {n: id(t) for n, t in state.items()}
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert list(model.modules()) == before


def test_swins_attention_is_hashed_and_learns() -> None:
    torch.manual_seed(0)
    dense = swin_t(num_classes=7)
    ours = compressed(dense, {**RULE, "match": ["*.attn.qkv", "*.attn.proj"]})
    ours(torch.randn(2, 3, 32, 32)).square().sum().backward()
    held = {name: module for name, module in ours.named_modules() if isinstance(module, CompressedLinear)}
    assert len(held) == 24
    assert all(m.structured.buckets.grad.abs().sum() > 0 for m in held.values())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(dense_like(ours, dense).eval()(x), ours.eval()(x), rtol=1e-4, atol=1e-4)


def test_separate_projections_have_names_of_their_own() -> None:
    found = {layer.parameter: layer.shape for layer in candidates(holder(kdim=6, vdim=10))}
    assert found == {
        "attention.q_proj_weight": (WIDTH, WIDTH),
        "attention.k_proj_weight": (WIDTH, 6),
        "attention.v_proj_weight": (WIDTH, 10),
        "attention.out_proj.weight": (WIDTH, WIDTH),
    }


class Subclass(nn.MultiheadAttention):
    pass


def test_attention_that_cannot_be_replaced_says_why() -> None:
    shared, own = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2)
    assert {layer.remark for layer in candidates(nn.ModuleList([shared, shared]))} == {"shared by several places"}
    assert [layer.remark for layer in candidates(nn.ModuleList([Subclass(8, 2)]))] == [
        "of its own type, Subclass",
        "of its own type, NonDynamicallyQuantizableLinear",
    ]
    assert [layer.name for layer in candidates(own) if layer.remark is None] == []
    own.out_proj = nn.Linear(8, 8)  # type: ignore[assignment]
    assert isinstance(compressed(nn.ModuleList([own]))[0].out_proj, CompressedLinear)


@pytest.mark.parametrize("arguments", CONSTRUCTED, ids=str)
@pytest.mark.parametrize("match", ["*", "*.out_proj", "*.[iq]*_proj"])
def test_the_ordinary_attention_of_a_compressed_one_is_torchs_and_computes_the_same(
    arguments: dict[str, Any], match: str
) -> None:
    model = compressnet.compress(holder(**arguments), {"layers": [RULE | {"match": match}]})
    ordinary = dense_(copy.deepcopy(model)).attention
    assert type(ordinary) is nn.MultiheadAttention
    assert type(ordinary.out_proj) is NonDynamicallyQuantizableLinear
    assert str(ordinary) == str(nn.MultiheadAttention(WIDTH, HEADS, **arguments))
    assert ordinary.state_dict().keys() == nn.MultiheadAttention(WIDTH, HEADS, **arguments).state_dict().keys()
    query = torch.randn(5, 2, WIDTH)
    key, value = (torch.randn(5, 2, arguments.get(width, WIDTH)) for width in ("kdim", "vdim"))
    with torch.no_grad():
        for given, expected in zip(ordinary(query, key, value), model(query, key, value), strict=True):
            torch.testing.assert_close(given, expected)
