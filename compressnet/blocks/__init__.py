"""The table of blocks: one line each, explicit, so that a typo is an error and not a block that vanishes."""

from compressnet.block import Block
from compressnet.blocks.acdc_stack import ACDCStack
from compressnet.blocks.deepfried_head import DeepFriedHead

BLOCKS: tuple[type[Block], ...] = (
    DeepFriedHead,
    ACDCStack,
)

BY_NAME: dict[str, type[Block]] = {block.name: block for block in BLOCKS}
