"""Threads that do for an event loop what would block it, and that no process waits for at its end.

Those of asyncio's own executor are waited for by the interpreter: a name server that does not
answer, or a database, would keep a node from ending that has let go of everything else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Helpers(ThreadPoolExecutor):
    """A thread of its own for each call; asyncio takes no executor of another class."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin a call; whoever wants its result waits for that alone."""
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, name="alert helper", daemon=True).start()
        return future
