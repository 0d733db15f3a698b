"""Passwords: which are taken, and how they are kept (argon2id, RFC 9106)."""

from __future__ import annotations

import threading

import argon2

#: NIST SP 800-63B: length is what counts.
SHORTEST = 12
_LONGEST = 1024
# Each takes 64 MiB and a core: a flood of attempts waits its turn.
_AT_ONCE = threading.Semaphore(2)

_hasher = argon2.PasswordHasher()
# What an account that is not there is compared with: it takes as long as one that is.
_NOBODY = _hasher.hash("nobody")


def fault(password: str) -> str:
    """What is wrong with a new password; "" where nothing is."""
    if len(password) < SHORTEST:
        return f"A password has at least {SHORTEST} characters."
    if len(password) > _LONGEST:
        return f"A password has at most {_LONGEST} characters."
    return ""


def hashed(password: str) -> str:
    """What is kept of it."""
    with _AT_ONCE:
        return _hasher.hash(password)


def is_right(password: str, kept: str | None) -> bool:
    """Whether it is the password that `kept` was made of; with `None` or "", no."""
    if len(password) > _LONGEST:
        return False
    with _AT_ONCE:
        try:
            _hasher.verify(kept or _NOBODY, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
    return bool(kept)


def is_dated(kept: str) -> bool:
    """Whether today's costs are others than those that `kept` was made with."""
    return _hasher.check_needs_rehash(kept)
