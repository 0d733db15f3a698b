"""Pauses before something is tried again: longer each time, and never longer than some time."""

from __future__ import annotations

from dataclasses import dataclass

# By then every longest pause has long been reached; after a thousand a float would overflow.
_MAX_DOUBLINGS = 30

_BEFORE_RESTART_S = (0.2, 1.0, 5.0, 15.0, 30.0)
# After so long without a fault a process counts as healthy again.
_HEALTHY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """How long what fails is left alone (seconds); each pause is twice the last.

    Attributes:
        first_s: After the first attempt.
        longest_s: At most.
    """

    first_s: float
    longest_s: float

    def after(self, attempts: int) -> float:
        """The pause after so many attempts in vain, from 1."""
        return min(self.longest_s, self.first_s * 2.0 ** min(attempts - 1, _MAX_DOUBLINGS))


class Restarts:
    """How soon a process that died is started again: the sooner, the longer it has lived."""

    def __init__(self) -> None:
        self._faults = 0

    def after(self, lived_s: float) -> float:
        """The pause after a life of so many seconds."""
        if lived_s > _HEALTHY_S:
            self._faults = 0
        pause_s = _BEFORE_RESTART_S[min(self._faults, len(_BEFORE_RESTART_S) - 1)]
        self._faults += 1
        return pause_s
