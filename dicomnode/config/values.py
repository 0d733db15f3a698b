"""What one value of the configuration may be: each kind as an annotated type.

A check raises `ValueError`, with a sentence for who wrote the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    ValidationInfo,
    WithJsonSchema,
)

from dicomnode import matcher
from dicomnode.config.keyword import known_keyword
from dicomnode.matcher import Matcher

#: Key of the validation context: the folder that relative paths start from.
FOLDER = "folder"

# PS3.5 Table 6.2-1, AE: at most 16 characters of the default repertoire, without the backslash
# and control characters, and not spaces alone. Spaces at either end have no meaning.
_AE_TITLE_MAX_LENGTH = 16
_AE_TITLE = re.compile(r"[ -\[\]-~]+", re.ASCII)
_DEVICE = re.compile(r"auto|cpu|cuda:(0|[1-9][0-9]*)", re.ASCII)
_MAX_PORT = 65535


def _ae_title(value: str) -> str:
    title = value.strip(" ")
    if not title or len(title) > _AE_TITLE_MAX_LENGTH or not _AE_TITLE.fullmatch(title):
        raise ValueError(
            f"an AE title has 1 to {_AE_TITLE_MAX_LENGTH} plain ASCII characters, "
            "no backslash, and not only spaces"
        )
    return title


def _anchored(value: object, info: ValidationInfo) -> object:
    """The path `value`, absolute; what is no text is left for the strict check of its type."""
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text or "\0" in text or text.startswith("~"):
        raise ValueError("expects a path, absolute or relative to this file; ~ is not expanded")
    return from_folder(Path(text), info)


def from_folder(path: Path, info: ValidationInfo) -> Path:
    """The path, absolute: it starts from the folder of the file."""
    folder: Path | None = (info.context or {}).get(FOLDER)
    if folder is None and not path.is_absolute():
        raise ValueError("a relative path means something only in a file")
    return path if folder is None else folder / path


def _host(value: str) -> str:
    # One colon makes it host:port; an IPv6 address has several.
    if re.search(r"[\s/@\0]", value) or value.count(":") == 1 or not _is_resolvable(value):
        raise ValueError("expects the name or the address of a machine alone, such as 10.0.0.5")
    return value


def _tls_name(value: str) -> str:
    if value.startswith(".") or (value and not _is_resolvable(value)) or "\0" in value:
        raise ValueError('expects the name in a certificate, such as pacs.example, or ""')
    return value


def _is_resolvable(host: str) -> bool:
    """Whether Python could ask for its address; it raises on "a..b" otherwise than on a typo."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _one_or_several(check: Callable[[str], str]) -> BeforeValidator:
    """Takes a text for a list of one, so that what is wrong with it is told by the key itself."""

    def listed(value: object) -> object:
        if isinstance(value, str):
            return (check(value),)
        if not isinstance(value, list | tuple):
            raise ValueError("expects text in quotes, or a list of such texts")  # noqa: TRY004
        return value

    return BeforeValidator(listed)


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError('expects "auto", "cpu", or one GPU by its number such as "cuda:0"')
    return value


def _one_or_several_schema(one: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})


_AE_TITLE_SCHEMA = {"minLength": 1, "maxLength": _AE_TITLE_MAX_LENGTH}

AETitle = Annotated[str, AfterValidator(_ae_title), Field(json_schema_extra=dict(_AE_TITLE_SCHEMA))]
AETitles = Annotated[
    tuple[AETitle, ...],
    _one_or_several(_ae_title),
    Field(strict=False, min_length=1),
    _one_or_several_schema({"type": "string", **_AE_TITLE_SCHEMA}),
]
AnchoredPath = Annotated[Path, BeforeValidator(_anchored)]
Host = Annotated[str, AfterValidator(_host)]
TlsName = Annotated[str, AfterValidator(_tls_name)]
Hosts = Annotated[
    tuple[Host, ...],
    _one_or_several(_host),
    Field(strict=False, min_length=1),
    _one_or_several_schema({"type": "string"}),
]
Device = Annotated[str, AfterValidator(_device)]
Keyword = Annotated[str, AfterValidator(known_keyword)]
# As long as the columns that keep them.
Name = Annotated[str, Field(min_length=1, max_length=64)]
RuleName = Annotated[str, Field(min_length=1, max_length=128)]
Port = Annotated[int, Field(ge=1, le=_MAX_PORT)]
ListeningPort = Annotated[int, Field(ge=0, le=_MAX_PORT)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Clause = Annotated[
    InstanceOf[Matcher],
    BeforeValidator(matcher.parse),
    WithJsonSchema({"type": ["string", "number", "array", "object"]}),
]
#: DICOM keyword → what its value must be. All clauses must hold.
Clauses = Annotated[dict[Keyword, Clause], Field(min_length=1)]
