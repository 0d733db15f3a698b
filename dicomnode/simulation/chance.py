"""Chance that comes back: the same names give the same numbers, on every machine."""

from __future__ import annotations

import random


def of(*names: object) -> random.Random:
    """A generator that belongs to what `names` name."""
    seed = "\x1f".join(map(str, names))
    return random.Random(seed)  # noqa: S311 - it invents people, and keeps no secret
