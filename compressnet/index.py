"""What a coded file says of itself, in few bytes: the metadata of any file, with what is usual left out, deflated.

Deflate starts from a dictionary of what such metadata are made of, so that even a plan of four layers is short.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

from compressnet.maths.seeds import layer_seed

MOST_NBYTES = 1 << 24
"""Of the metadata before they are deflated."""
KINDS = {2: "linear", 4: "conv2d"}
"""What a layer is that does not say so, by the sides of its shape."""
USUAL: Mapping[str, Any] = {
    "stage": "exported",
    "model": None,
    "preprocessing": None,
    "classes": None,
    "plan": [],
    "recipe": {},
    "results": {},
    "seed": 0,
}
"""The keys that are left out where they have these values."""
DICTIONARY = (
    b'"depth":"features":"rank":"separable":false,"bits":"copies":"sigma":null,"init":"hadamard","density":0.'
    b'"remark":"no rule matches it","groups":"method":"acdc""monarch""lowrank""dropfilt""dropfreq""deepfried"'
    b',"method":"pruned","config":{"density":0.0,"method":"freshnet","config":{"ratio":.0,"alpha":1.0,"beta":2.5,'
    b'"hashing":"balanced"},"dense_macs":,"macs":},{"name":"features..conv","shape":[64,3,3],'
    b'"config":{"ratio":.0,"hashing":"balanced"},"dense_macs":00},{"name":"classifier.1","shape":[1000,512],'
    b'"method":"hashednet"layer1.0.downsample.0.running_mean"running_var"num_batches_tracked","I64"],"F16"],'
    b'"classes":[".weight",[".structured.buckets",[".structured.values",[".structured.bitmap",["U8"],[".bias",['
    b'],["fc1.structured.buckets",[],[]],["conv1.structured.buckets",[],[]],["conv1.bias",[20],[]],["conv2.bias",[50],'
    b'[]],["fc1.bias",[500],[]],["fc2.bias",[10],[]]],"records":,"seed":0,"stage":'
    b'"interpolation":"bicubic","mean":[0.1307],"std":[0.3081],"channels":1},"options":{},'
    b'"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225],"channels":3},"plan":[{"name":"conv1","shape":[20,1,5,5],'
    b'"preprocessing":{"resize":256,"crop":224,"interpolation":"bilinear","num_classes":10,"num_classes":1000,'
    b'{"versions":{"compressnet":"0.1.0","torch":"2.15.0+cu130","torchvision":"0.29.2+cpu"},"model":{"name":"'
)


class Unreadable(Exception):  # noqa: N818 - its reader says what is wrong with the file
    """The bytes are no index."""


def deflated(meta: Mapping[str, Any]) -> bytes:
    """The bytes of metadata."""
    text = json.dumps(_short(meta), ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
    squeezed = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_FIXED):
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy, DICTIONARY)
        squeezed.append(squeeze.compress(text) + squeeze.flush())
    return min(squeezed, key=len)


def inflated(data: bytes) -> dict[str, Any]:
    """The metadata of bytes.

    Raises:
        Unreadable: they have none, or too much.
    """
    inflate = zlib.decompressobj(-15, DICTIONARY)
    try:
        text = inflate.decompress(data, MOST_NBYTES)
        if not inflate.eof or inflate.unused_data:
            raise Unreadable
        return _long(json.loads(text))
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Unreadable from None


def _short(meta: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in meta.items() if key not in USUAL or value != USUAL[key]}
    return kept | (
        {"plan": [_short_entry(entry, meta.get("seed", 0)) for entry in meta["plan"]]} if meta["plan"] else {}
    )


def _long(short: Mapping[str, Any]) -> dict[str, Any]:
    meta = dict(USUAL) | dict(short)
    return meta | {"plan": [_long_entry(entry, meta["seed"]) for entry in meta["plan"]]}


def _short_entry(entry: Mapping[str, Any], seed: int) -> dict[str, Any]:
    usual = _usual(entry, seed)
    kept = {key: value for key, value in entry.items() if key not in usual or value != usual[key]}
    return kept | {key: None for key in usual if key not in entry}


def _long_entry(entry: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {key: value for key, value in (_usual(entry, seed) | dict(entry)).items() if value is not None}


def _usual(entry: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What an entry of the plan has where it does not say so; null says that it has none."""
    usual: dict[str, Any] = {} if "block" in entry else {"kind": KINDS.get(len(entry["shape"]), "linear")}
    if "method" in entry or "block" in entry:
        usual["seed"] = layer_seed(seed, entry["name"])
    if "dense_macs" in entry:
        usual["macs"] = entry["dense_macs"]
    return usual
