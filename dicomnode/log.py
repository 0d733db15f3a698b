"""Logs on standard error: an event word and facts, and nothing that names a patient.

A log leaves the hospital long before an image does. The keys that may be logged are a list; any
other raises in tests (`strict`) and is dropped in production.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, TextIO, cast

import structlog

ALLOWED_KEYS = frozenset(
    {
        "event", "level", "timestamp", "module", "exc_info", "exception",
        "address", "ae_title", "alert", "association", "attempt", "attempts", "bytes", "channel",
        "chosen", "count", "delay_s", "destination", "detail", "device", "digest", "error",
        "exit_code", "free_bytes", "host", "instances", "job", "model", "path", "peer", "pid",
        "port", "process", "reason", "removed", "requested", "revision", "secure_port",
        "sop_instance", "state", "status", "study", "task", "worker",
    }
)  # fmt: skip


class _AllowList:
    """Drops, or with `strict` refuses, every key that is not in `ALLOWED_KEYS`."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        unknown = sorted(event.keys() - ALLOWED_KEYS)
        if unknown and self._strict:
            raise KeyError(f"not in dicomnode.log.ALLOWED_KEYS: {', '.join(unknown)}")
        for key in unknown:
            del event[key]
        return event


@dataclass(frozen=True, kw_only=True)
class Style:
    """How this process logs: what a process that it starts is told, so that both look alike."""

    level: str
    as_json: bool
    strict: bool


_style = Style(level="info", as_json=False, strict=False)


def style() -> Style:
    """What `configure` was told last."""
    return _style


class _Unbreakable(io.TextIOBase):
    """Where lines go that may be lost: on a full disk the node has more to do than to complain."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As `write`."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure(*, level: str = "info", as_json: bool | None = None, strict: bool = False) -> None:
    """Send logs to standard error: as JSON lines, or in colour where it is a terminal."""
    global _style  # noqa: PLW0603 - what is configured here is the process's own as well
    if as_json is None:
        as_json = not sys.stderr.isatty()
    _style = Style(level=level, as_json=as_json, strict=strict)
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _AllowList(strict=strict),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unbreakable(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    # Libraries speak through `logging`: only what they think is wrong is of interest here.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    # What pynetdicom says of associations the node says itself, with a reason.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def get(name: str) -> Any:
    """The logger of one module."""
    return structlog.get_logger(module=name)
