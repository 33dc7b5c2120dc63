"""Attention that is generic over the weights of its projections."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressnet.layers import CompressedLinear
from compressnet.structured import StructuredWeight

SEPARATE = ("q_proj", "k_proj", "v_proj")
"""The input projections where keys or values are of another width than queries."""
INPUTS = ("in_proj", *SEPARATE)
"""All input projections; the dense weight of one is ``<projection>_weight``."""


class InputProjection(CompressedLinear):
    """What an attention makes of its input; the bias stays with the attention."""

    parameter = "_weight"


class CompressedMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` whose projections are each a structured weight, or dense as they were.

    What stays dense keeps its name. A structured weight stands at ``in_proj.structured`` (or ``q_proj``, ``k_proj``,
    ``v_proj``) and ``out_proj.structured``. Every projection goes through its layer or through ``F.linear``, batch
    first, so that it can be met there.

    Args:
        attention: whose place it takes; its dense tensors are used as they are.

    Example:
        >>> attention = CompressedMultiheadAttention(nn.MultiheadAttention(8, 2, batch_first=True))
        >>> x = torch.randn(3, 5, 8)
        >>> attention(x, x, x, need_weights=False)[0].shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__(**_arguments(attention), device="meta")
        for name, parameter in attention.named_parameters(recurse=False):
            setattr(self, name, parameter)
        self.out_proj = attention.out_proj
        self.train(attention.training)

    def hold_(self, projection: str, structured: StructuredWeight, bias: Tensor | None = None) -> None:
        """Put a structured weight, and a joint bias where one is given, in the place of an input projection's."""
        delattr(self, f"{projection}_weight")
        self.add_module(projection, InputProjection(structured).train(self.training))
        if bias is not None and self.in_proj_bias is not None:
            self.in_proj_bias = nn.Parameter(bias.to(self.in_proj_bias))

    @torch.no_grad()
    def ordinary(self) -> nn.MultiheadAttention:
        """The ``nn.MultiheadAttention`` that computes the same, on the same device; it shares what is dense."""
        attention = nn.MultiheadAttention(**_arguments(self), device="meta")
        for name, parameter in self.named_parameters(recurse=False):
            setattr(attention, name, parameter)
        for name, projection in self.named_children():
            if isinstance(projection, InputProjection):
                setattr(attention, f"{name}_weight", nn.Parameter(projection.weight.contiguous()))
        attention.out_proj.weight = nn.Parameter(self.out_proj.weight.contiguous())
        attention.out_proj.bias = self.out_proj.bias
        return attention.train(self.training)

    def __getattr__(self, name: str) -> Any:
        """A structured projection's dense tensor by its usual name, for callers that read it (as encoder layers do)."""
        projection = name.removesuffix("_weight")
        if projection in INPUTS and projection != name and projection in self._modules:
            return self._modules[projection].weight  # type: ignore[union-attr]
        return super().__getattr__(name)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention``; the masks themselves are used, and ``is_causal`` as a word about one of them.

        Args:
            query: shape (L, N, embed_dim), (N, L, embed_dim) where ``batch_first``, or (L, embed_dim).
            key: the same with S and ``kdim``.
            value: the same with S and ``vdim``.
            key_padding_mask: shape (N, S), or (S,); true where a key is ignored, or added to its scores.
            need_weights: also give the attention's weights.
            attn_mask: shape (L, S) or (N · heads, L, S); true where a query must not look, or added to the scores.
            average_attn_weights: over the heads.
            is_causal: whether ``attn_mask`` is the causal mask.

        Returns:
            the output, shaped as ``query``, and the weights, of shape (N, L, S) or (N, heads, L, S), or None.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal says that attn_mask is causal; give that mask")
        batched = query.dim() == 3
        batch_first = {id(x): self._batch_first(x) for x in (query, key, value)}
        q, k, v = self._project(*(batch_first[id(x)] for x in (query, key, value)))
        k, v = self._lengthened(k, self.bias_k), self._lengthened(v, self.bias_v)
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask[None]
        mask = _mask(q, self.num_heads, attn_mask, key_padding_mask)
        if mask is not None:
            mask = F.pad(mask, (0, k.shape[1] - mask.shape[-1]))
        y, weights = self._attend(q, k, v, mask, need_weights)
        y = self.out_proj(y)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return y[0], None if weights is None else weights[0]
        return (y if self.batch_first else y.transpose(0, 1)), weights

    def _batch_first(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return x[None]
        return x if self.batch_first else x.transpose(0, 1)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values; in one product where all three come from one tensor."""
        bias = self.in_proj_bias
        biases = (None, None, None) if bias is None else bias.chunk(3)
        inputs = zip((query, key, value), biases, strict=True)
        if not self._qkv_same_embed_dim:
            return tuple(self._through(name, x, b) for name, (x, b) in zip(SEPARATE, inputs, strict=True))
        if query is key and key is value:
            return self._through("in_proj", query, bias).chunk(3, -1)
        return tuple(F.linear(x, w, b) for w, (x, b) in zip(self.in_proj_weight.chunk(3), inputs, strict=True))

    def _through(self, projection: str, x: Tensor, bias: Tensor | None) -> Tensor:
        layer = self._modules.get(projection)
        if not isinstance(layer, InputProjection):
            return F.linear(x, getattr(self, f"{projection}_weight"), bias)
        if (kept := layer.structured.frozen()) is not None:
            return F.linear(x, kept, bias)
        y = layer(x)
        return y if bias is None else y + bias.to(y.dtype)

    def _lengthened(self, x: Tensor, row: Tensor | None) -> Tensor:
        """Keys or values, with the rows behind them that ``add_bias_kv`` and ``add_zero_attn`` ask for."""
        if row is not None:
            x = torch.cat((x, row.expand(len(x), 1, -1)), 1)
        return F.pad(x, (0, 0, 0, 1)) if self.add_zero_attn else x

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What the heads give, side by side, and the weights of each where they are needed."""
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return F.scaled_dot_product_attention(q, k, v, mask, dropout).transpose(1, 2).flatten(2), None
        scores = (q * self.head_dim**-0.5) @ k.mT
        weights = F.dropout(torch.softmax(scores if mask is None else scores + mask, -1), dropout)
        return (weights @ v).transpose(1, 2).flatten(2), weights


@contextmanager
def opened(model: nn.Module) -> Iterator[None]:
    """While the block runs, the projections of a model's attention are met in ``F.linear``, with their own tensors."""
    closed = {name: module for name, module in model.named_modules() if name and type(module) is nn.MultiheadAttention}
    for name, attention in closed.items():
        model.set_submodule(name, CompressedMultiheadAttention(attention))
    try:
        yield
    finally:
        for name, attention in closed.items():
            model.set_submodule(name, attention)


def _arguments(attention: nn.MultiheadAttention) -> dict[str, Any]:
    """What builds an attention like another."""
    return {
        "embed_dim": attention.embed_dim,
        "num_heads": attention.num_heads,
        "dropout": attention.dropout,
        "bias": attention.in_proj_bias is not None,
        "add_bias_kv": attention.bias_k is not None,
        "add_zero_attn": attention.add_zero_attn,
        "kdim": attention.kdim,
        "vdim": attention.vdim,
        "batch_first": attention.batch_first,
    }


def _mask(queries: Tensor, heads: int, attention: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """What is added to the scores, in a shape that spreads to (N, heads, L, S)."""
    parts = []
    if attention is not None:
        parts.append(attention if attention.dim() == 2 else attention.unflatten(0, (-1, heads)))
    if padding is not None:
        parts.append(padding[:, None, None])
    added = [_added(part, queries) for part in parts]
    return sum(added[1:], added[0]) if added else None


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -torch.inf)
