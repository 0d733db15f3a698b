"""What the parts of a manifest are made of: codes, limits, strict tables."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(min_length=1, max_length=64)]
Color = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class Strict(BaseModel):
    """A table in which a key that is not listed is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Code(Strict):
    """A coded concept (PS3.3 Table 8.8-1)."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class Range(Strict):
    """Limits, both inclusive; a missing one is no limit."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"no value lies between min {self.min:g} and max {self.max:g}")
        return self

    def holds(self, value: float) -> bool:
        """Whether `value` lies within the limits."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)
