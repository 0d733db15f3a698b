"""A `dicom.toml` while it is being drafted: entries, why they are so, and which are guesses."""

from __future__ import annotations

import json
import re
import textwrap
import unicodedata
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH = 98
_GUESS = "GUESS"


class Page:
    """TOML with comments. `draft` lists the guesses, at the top, where TOML wants such entries."""

    def __init__(self) -> None:
        self.guesses: list[str] = []
        self._top: list[str] = []
        self._tables: list[str] = []
        self._path = ""
        self._counts: dict[str, int] = {}

    def note(self, text: str) -> None:
        """A comment on lines of its own."""
        self._lines.extend(textwrap.wrap(_one_line(text), _WIDTH, **_COMMENT))

    def table(self, path: str) -> None:
        """Begin the table `path`."""
        self._path = path
        self._tables += ["", f"[{path}]"]

    def member(self, path: str) -> None:
        """Begin the next table of the array `path`."""
        number = self._counts.get(path, 0)
        self._counts[path] = number + 1
        self._path = f"{path}[{number}]"
        self._tables += ["", f"[[{path}]]"]

    def put(self, key: str, value: Any, *, why: str = "", guess: bool = False) -> None:
        """Write one entry, and in a comment where it comes from.

        Args:
            guess: It is to be confirmed.
        """
        if guess:
            self.guess(key)
        marked = f"{_GUESS}: {why}" if guess and why else _GUESS if guess else why
        line = f"{key} = {toml(value)}"
        if marked and len(line) + len(marked) + 4 <= _WIDTH:
            line += f"  # {_one_line(marked)}"
        elif marked:
            self.note(marked)
        self._lines.append(line)

    def guess(self, key: str = "") -> None:
        """Let an entry of this table, or the table itself, be confirmed."""
        self.guess_at(".".join(part for part in (self._path, key) if part))

    def guess_at(self, path: str) -> None:
        """Let the entry at a path be confirmed."""
        self.guesses.append(path)

    def text(self) -> str:
        """The whole file."""
        draft = [f"    {toml(path)}," for path in self.guesses]
        listed = ["draft = [", *draft, "]"] if draft else []
        return "\n".join([*self._top, "", *listed, *self._tables, ""])

    @property
    def _lines(self) -> list[str]:
        return self._tables if self._path else self._top


_COMMENT: dict[str, Any] = {"initial_indent": "# ", "subsequent_indent": "# "}


def toml(value: Any) -> str:
    """A value as TOML writes it, on one line.

    Raises:
        TypeError: TOML has no such value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(_printable(value), ensure_ascii=False)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, Mapping):
        entries = (f"{toml_key(str(key))} = {toml(one)}" for key, one in value.items())
        return "{ " + ", ".join(entries) + " }"
    raise TypeError(f"TOML has no {type(value).__name__}")


def toml_key(key: str) -> str:
    """A key as TOML writes it: quoted only where it must be."""
    return key if _BARE.fullmatch(key) else toml(key)


def ascii_text(text: str, *, limit: int) -> str:
    """`text` in ASCII, without what would need a character set of its own, cut after a word."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = " ".join(_printable(plain).split())
    if len(plain) <= limit:
        return plain
    return plain[: limit + 1].rpartition(" ")[0][:limit] or plain[:limit]


def identifier(text: str) -> str:
    """`text` as the name of an input or output: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", ascii_text(text, limit=64).lower()).strip("_")


def _printable(text: str) -> str:
    """Without control characters, DEL among them, and halves of characters."""
    return "".join(one for one in text if one in "\n\t" or unicodedata.category(one)[0] != "C")


def _one_line(text: str) -> str:
    return " ".join(_printable(text).split())
