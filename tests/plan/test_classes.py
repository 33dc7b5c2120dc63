import pytest

from compressnet.plan import PlannedLayer
from compressnet.plan.classes import of_classes

KEYS = {"shape": (1000, 512, 1, 1), "kind": "conv2d", "name": "classifier.1", "seed": 7}


def layer(**keys: object) -> PlannedLayer:
    return PlannedLayer(**{**KEYS, "dense_macs": 1000 * 512 * 169, "macs": 1000 * 512 * 169, **keys})  # type: ignore[arg-type]


def test_a_dense_layer_changes_its_outputs_and_what_they_cost() -> None:
    new = of_classes(layer(seed=None, remark="no rule matches it"), 17)
    assert (new.shape, new.dense_macs, new.macs) == ((17, 512, 1, 1), 17 * 512 * 169, 17 * 512 * 169)
    assert (new.method, new.remark) == (None, "no rule matches it")


def test_a_compressed_layer_keeps_its_rule() -> None:
    new = of_classes(layer(method="hashednet", config={"ratio": 4}, bits=3, lr_scale=2.0, weight_decay=0.1), 17)
    assert (new.method, new.seed, new.bits, new.lr_scale, new.weight_decay) == ("hashednet", 7, 3, 2.0, 0.1)
    assert new.numel() == 17 * 512 // 4


def test_a_product_counts_what_it_runs() -> None:
    old = layer(method="lowrank", config={"rank": 3})
    new = of_classes(old, 17)
    assert new.macs == 169 * 3 * (17 + 512)


def test_keys_that_only_a_packed_weight_has_are_left_out() -> None:
    new = of_classes(layer(method="pruned", config={"density": 0.1, "bits": 5, "codes": 60_000}), 17)
    assert dict(new.config) == {"density": 0.1}


def test_what_the_method_refuses_becomes_dense_and_says_why() -> None:
    new = of_classes(layer(method="lowrank", config={"rank": 300}, lr_scale={"left": 2.0}, bits=4), 17)
    assert new.method is None
    assert new.remark is not None
    assert new.remark.startswith("lowrank cannot hold it: ")
    assert (new.macs, new.lr_scale, new.bits) == (17 * 512 * 169, 1.0, 4)
    assert new == PlannedLayer.from_json(new.to_json(), "the test")


def test_a_layer_behind_a_block_keeps_the_features_of_the_block() -> None:
    old = PlannedLayer("fc2", "linear", (10, 1024), dense_shape=(10, 500), dense_macs=5000, macs=10240)
    new = of_classes(old, 4)
    assert (new.shape, new.dense_shape, new.dense_macs, new.macs) == ((4, 1024), (4, 500), 2000, 4096)


@pytest.mark.parametrize("method", [None, "hashednet"])
def test_a_head_that_never_runs_costs_nothing(method: str | None) -> None:
    config = {"ratio": 2.0} if method else {}
    assert of_classes(layer(dense_macs=None, macs=None, method=method, config=config), 17).macs is None
