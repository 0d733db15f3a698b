"""What every table of the configuration is: frozen, strict, and documented key by key."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table: a key that is not listed is an error, and a number in quotes is no number."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        use_attribute_docstrings=True,
        field_title_generator=lambda name, about: getattr(about, "alias", None) or name,
    )
