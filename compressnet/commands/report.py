"""``report``: where every byte is, of files and of plans."""

from collections.abc import Iterable
from pathlib import Path

from compressnet.accounting import Account, account_of_file


def report(*paths: str | Path, overrides: Iterable[str] = ()) -> list[Account]:
    """Account for files, from their headers alone, and price recipes.

    Args:
        paths: files of any stage, or recipes (.yaml).
        overrides: ``key.path=value`` each, on the recipes.

    Raises:
        CompressnetError: a file is damaged, or a recipe is wrong.
    """
    return [_account(Path(path), list(overrides)) for path in paths]


def _account(path: Path, overrides: list[str]) -> Account:
    if path.suffix not in (".yaml", ".yml"):
        return account_of_file(path)
    from compressnet.plan import make_plan  # imports torch, which a file's report does without
    from compressnet.plan.price import price
    from compressnet.recipe import read_recipe

    return price(make_plan(read_recipe(path, overrides)), str(path))
