"""An audit message must not undo what it tells of: one that cannot be made is given up."""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError

from dicomnode import log
from dicomnode.archive.auditing import outbox

_log = log.get(__name__)
_Facts = ParamSpec("_Facts")
_Tell = Callable[Concatenate[Connection, _Facts], None]


def apart(tell: _Tell[_Facts]) -> _Tell[_Facts]:
    """Let a function that tells of something fail by itself, within the transaction it is given.

    A node that cannot say what an association brought must go on receiving; its next start would
    come to the same message. What is given up is counted with what is dropped. A database that is
    away is no fault of the message: then all of the transaction is tried again.
    """

    @functools.wraps(tell)
    def told(tx: Connection, /, *args: _Facts.args, **facts: _Facts.kwargs) -> None:
        if not outbox.is_recorded(tx):
            return
        try:
            with tx.begin_nested():
                tell(tx, *args, **facts)
        except OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            _log.error("audit message failed", reason=type(error).__name__, detail=_where(error))
            # The first of two processes to count makes the row.
            with contextlib.suppress(IntegrityError), tx.begin_nested():
                outbox.give_up(tx)

    return told


def _where(error: Exception) -> str:
    """Where it was raised; what it says may be what the message says of a patient."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"
