"""Which of ``torchrun``'s processes this one is; without torch, for which ``--help`` need not wait."""

import os

from compressnet.errors import CompressnetError

TOGETHER = ("finetune",)
"""Commands that several processes run together."""


def is_first() -> bool:
    """Whether this process shows what all have done."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


def check_together(command: str | None) -> None:
    """Refuse several processes that would each do all of a command.

    Raises:
        CompressnetError: in the first of them.
        SystemExit: in the others.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1" or command in TOGETHER:
        return
    if not is_first():
        raise SystemExit(CompressnetError.exit_code)
    raise CompressnetError(
        f"torchrun has started {os.environ['WORLD_SIZE']} processes, and {command} is for one",
        cure=f"several processes share only {' and '.join(TOGETHER)}; start the others by themselves",
    )
