"""What every mapping of a recipe has in common, be it a section, a method's keys or a block's."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, field_validator


class Keys(BaseModel):
    """Frozen, nothing but its keys is accepted, and true is not the number 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @field_validator("*", mode="wrap")
    @classmethod
    def _true_is_no_number(cls, given: Any, make: ValidatorFunctionWrapHandler) -> Any:
        made = make(given)
        if _became_a_number(given, made):
            raise ValueError(f"should be a valid number, not {given!r}")
        return made


def _became_a_number(given: Any, made: Any) -> bool:
    if isinstance(given, bool):
        return not isinstance(made, bool)
    if isinstance(given, list | tuple) and isinstance(made, tuple):
        return any(map(_became_a_number, given, made))
    if isinstance(given, dict) and isinstance(made, dict):
        return any(map(_became_a_number, given.values(), made.values()))
    return False
