"""The base class of all tables of settings, in run.toml and in other settings files."""

from collections.abc import Set
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from d3po.text import flaw

LARGEST = 1e9
"""The largest number allowed in run.toml, except for seeds. Larger ones make no sense, and would fail later in float32 or in loops."""


class Section(BaseModel):
    """A table of settings. Unknown keys are refused, and values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _usable(cls, value: Any, info: Any) -> Any:
        """Refuse text that no file could store, and numbers above `LARGEST`."""
        for each in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(each, str) and (found := flaw(each)):
                raise ValueError(f"it holds {found}; remove it")
            if isinstance(each, (int, float)) and info.field_name not in ("seed", "seeds") and each > LARGEST:
                raise ValueError(f"it must not be above {LARGEST:g}")
        return value

    def unread(self) -> Set[str]:
        """Names of the inner tables that the run does not read. They are not written to run.toml."""
        return frozenset()
