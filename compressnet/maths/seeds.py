"""The seeds of layers: pure Python, as a report of a file needs them without torch."""

import hashlib


def layer_seed(seed: int, name: str) -> int:
    """The 32-bit seed of a layer: the first four bytes, little-endian, of SHA-256 of ``"<seed>:<name>"``."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "little")
