"""A problem: one thing that an administrator should put right, and where it stands."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault of the configuration or of the place it is meant for.

    Attributes:
        level: With an error nothing can run; a warning is to be thought about.
        path: The key path (`routes[0].series.Modality`); empty where it is the whole file, and
            the name of the environment variable where that is at fault.
        message: What is wrong and what to do next. Never a secret.
        code: A stable word in kebab case.
    """

    level: Literal["error", "warning"]
    path: str
    message: str
    code: str

    @classmethod
    def error(cls, path: str, message: str, code: str) -> Self:
        """What keeps everything from running."""
        return cls(level="error", path=path, message=message, code=code)

    @classmethod
    def warning(cls, path: str, message: str, code: str) -> Self:
        """What is to be thought about."""
        return cls(level="warning", path=path, message=message, code=code)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def key_path(*keys: str | int) -> str:
    """The keys as a person would write them: `peers."ct 1".port`, `routes[0].name`."""
    path = ""
    for key in keys:
        if isinstance(key, int):
            path += f"[{key}]"
            continue
        name = key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
        path += f".{name}" if path else name
    return path


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option that `word` most likely means, whatever its case; `None` when none is near."""
    by_folded = {option.casefold(): option for option in options}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """The sentence that leads from a misspelt word to the right one."""
    names = list(options)
    meant = nearest(word, names)
    if meant is not None:
        return f'Did you mean "{meant}"?'
    return f"Known are: {', '.join(names)}." if names else "None is known."
