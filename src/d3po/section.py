"""A table of settings: what all tables of run.toml and of other settings files have in common."""

from collections.abc import Set
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from d3po.text import flaw

LARGEST = 1e9
"""No number in run.toml makes sense above this, but the seed; float32 and loops over it would fail later."""


class Section(BaseModel):
    """A table of run.toml: unknown keys are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _usable(cls, value: Any, info: Any) -> Any:
        """What no setting can be, whatever it is of: text that no file could keep, a number that no arithmetic could."""
        for each in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(each, str) and (found := flaw(each)):
                raise ValueError(f"it holds {found}; remove it")
            if isinstance(each, (int, float)) and info.field_name not in ("seed", "seeds") and each > LARGEST:
                raise ValueError(f"it must not be above {LARGEST:g}")
        return value

    def unread(self) -> Set[str]:
        """Names of the tables in it that this run does not read; they are not written."""
        return frozenset()
