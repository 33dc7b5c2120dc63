"""The dense form of a model: the layers of ``torch.nn`` that compute the same."""

from torch import nn

from compressnet.attention import CompressedMultiheadAttention
from compressnet.block import Block
from compressnet.layers import CompressedLayer


def dense_(model: nn.Module) -> nn.Module:
    """Put ordinary layers in the place of all that is compressed, one at a time, and a chain of them in a block's.

    Args:
        model: changed in place.

    Returns:
        ``model``, with no class of ours inside.
    """
    for name, child in model.named_children():
        if isinstance(child, CompressedLayer | CompressedMultiheadAttention | Block):
            setattr(model, name, child.ordinary())
        else:
            dense_(child)
    return model


def expansion(model: nn.Module) -> str | None:
    """What a user should know of the size of a model's dense form, or None: blocks are far larger in it.

    Args:
        model: compressed, on any device.
    """
    blocks = {name: module for name, module in model.named_modules() if isinstance(module, Block)}
    grown = ", ".join(f"{name} from {block.numel:,} to {block.ordinary_numel:,}" for name, block in blocks.items())
    return f"the dense form has Linear and ReLU in the place of blocks, whose numbers grow: {grown}" if grown else None
