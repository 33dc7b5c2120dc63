"""Errors a user can act on: what is wrong, where, and the cure.

CompressnetError
├── RecipeError     a recipe, or a value given by --set
├── PlanError       a recipe and a model that do not fit each other
├── WeightsError    pretrained weights that cannot be read or do not fit
├── DataError       images, folders, data sets
├── FileError       a compressnet file that cannot be read, or must not be written
├── TrainingError   training that cannot start or go on
│   └── ResumeError a state that cannot be resumed
└── DeviceError     a device that is not there
"""

import difflib
from collections.abc import Iterable


class CompressnetError(Exception):
    """An error the user can mend; its text says what, where and the cure.

    Args:
        what: what is wrong, quoting what the user typed.
        where: the file, line, layer or key it concerns.
        cure: what to do about it.
    """

    exit_code = 1
    """Of the process that ends with it."""

    def __init__(self, what: str, where: str | None = None, cure: str | None = None) -> None:
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text}\n  {cure}" if cure else text)


class RecipeError(CompressnetError):
    """A recipe, or a value given by ``--set``, is wrong."""


class PlanError(CompressnetError):
    """A recipe and a model do not fit each other."""


class WeightsError(CompressnetError):
    """Pretrained weights cannot be read or do not fit the model."""


class DataError(CompressnetError):
    """Images, folders or data sets are missing or wrong."""


class FileError(CompressnetError):
    """A file of ours cannot be read, or must not be written."""


class TrainingError(CompressnetError):
    """Training cannot start or go on."""


class ResumeError(TrainingError):
    """There is no state to resume, or it is damaged or another run's."""


class DeviceError(CompressnetError):
    """The device asked for is not there."""


def did_you_mean(word: str, options: Iterable[str], shown: int = 12) -> str:
    """The nearest option, or else the options themselves.

    >>> did_you_mean("freshent", ["freshnet", "hashednet"])
    "did you mean 'freshnet'?"
    >>> did_you_mean("zzz", ["freshnet", "hashednet"])
    'there are freshnet, hashednet'
    """
    names = list(options)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"there are {listing(names, shown)}"


def listing(names: Iterable[str], shown: int = 12) -> str:
    """Names joined by commas, the middle left out when there are many.

    >>> listing("abcdef", shown=3)
    'a, b, … f'
    """
    every = list(names)
    if len(every) > shown:
        return f"{', '.join(every[: shown - 1])}, … {every[-1]}"
    return ", ".join(every) if every else "none"


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
