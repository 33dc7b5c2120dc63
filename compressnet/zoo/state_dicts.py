"""Reading a state_dict from a file, without running what may be in it."""

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from compressnet.errors import WeightsError

_WRAPPERS = ("model", "state_dict")
_SAVE = "save it with torch.save(model.state_dict(), path), or as safetensors"
_AGAIN = "download or copy it again; it may be cut short"


def read_state_dict(path: str | os.PathLike[str], *, mapped: bool = True) -> dict[str, Tensor]:
    """The tensors of a ``.pth``, ``.pt`` or ``.safetensors`` file, on the CPU; no code in it is run.

    A state_dict inside ``{"model": …}`` or ``{"state_dict": …}`` is unwrapped.

    Args:
        path: of the file.
        mapped: whether numbers of ``.pth`` stay in the file until they are read, which must not change meanwhile.

    Raises:
        WeightsError: the file is missing, truncated, or no state_dict.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "there is no such file"
        raise WeightsError(what, str(path), "model.weights is relative to where compressnet is started")
    value = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_pickle(path, mapped)
    for key in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
            break
    if not isinstance(value, dict) or not value:
        raise WeightsError(f"holds a {type(value).__name__}, not a state_dict", str(path), _SAVE)
    for key, tensor in value.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            what = f"is no state_dict: {key!r} is a {type(tensor).__name__}, not a tensor"
            raise WeightsError(what, str(path), _SAVE)
    return value


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"no whole safetensors file: {error}", str(path), _AGAIN) from error


def _read_pickle(path: Path, mapped: bool) -> object:
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK") and not zipped:  # the directory is at the end, so a cut file has none
        raise WeightsError("the file is truncated", str(path), _AGAIN)
    try:
        with warnings.catch_warnings():
            # torch.load warns of a pickle that torch.save did not write, which then fails or is a plain state_dict.
            warnings.simplefilter("ignore", UserWarning)
            # Only torch.save's zip files, its default since 1.6, can be mapped into memory.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped and mapped)
    except pickle.UnpicklingError as error:
        what = "is a pickle that holds code or whole objects, not only tensors"
        pickled = zipped or start.startswith(b"\x80")
        raise WeightsError(what if pickled else "no file of torch.save", str(path), _SAVE) from error
    except (EOFError, RuntimeError, OSError) as error:
        reason = (str(error) or "it ends too early").splitlines()[0]
        raise WeightsError(f"truncated, or no file of torch.save: {reason}", str(path), _AGAIN) from error
    except (LookupError, ValueError, TypeError, AttributeError, struct.error) as error:
        # What the unpickler stumbles on in bytes that are no pickle at all.
        raise WeightsError("no file of torch.save", str(path), _SAVE) from error
