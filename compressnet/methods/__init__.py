"""The table of methods: one line each, explicit, so that a typo is an error and not a method that vanishes."""

from compressnet.methods.acdc import ACDCWeight
from compressnet.methods.deepfried import DeepFriedWeight
from compressnet.methods.dropfilt import DropFiltWeight
from compressnet.methods.dropfreq import DropFreqWeight
from compressnet.methods.freshnet import FreshNetWeight
from compressnet.methods.hashednet import HashedNetWeight
from compressnet.methods.lowrank import LowRankWeight
from compressnet.methods.monarch import MonarchWeight
from compressnet.methods.pruned import PrunedWeight
from compressnet.structured import StructuredWeight

METHODS: tuple[type[StructuredWeight], ...] = (
    FreshNetWeight,
    HashedNetWeight,
    DeepFriedWeight,
    LowRankWeight,
    DropFreqWeight,
    DropFiltWeight,
    PrunedWeight,
    MonarchWeight,
    ACDCWeight,
)

BY_NAME: dict[str, type[StructuredWeight]] = {method.name: method for method in METHODS}
