"""Faults of sense in [audit]: what a collector needs, and what a network would see."""

from __future__ import annotations

from collections.abc import Iterator

from dicomnode.config import url
from dicomnode.config.problem import Problem, key_path
from dicomnode.config.raw import Tables, table

# What means nothing without a collector.
_OF_A_COLLECTOR = (
    "port", "tls_name", "ca", "certificate", "key", "key_password_file", "source_id",
)  # fmt: skip
_BESIDE = {"key": "certificate", "certificate": "key", "key_password_file": "key"}


def problems(raw: Tables) -> Iterator[Problem]:
    """Every fault of sense in [audit] as it is written."""
    audit = table(raw, "audit")
    if "host" not in audit:
        for key in (key for key in _OF_A_COLLECTOR if key in audit):
            message = "Needs audit.host beside it: without it no audit messages are made."
            yield _error(key, message, "audit-without-host")
        return
    for key, other in _BESIDE.items():
        if key in audit and other not in audit:
            message = f"Needs {key_path('audit', other)} beside it."
            yield _error(key, message, "tls-incomplete")
    has_ca = "ca" in audit or "ca" in table(raw, "tls")
    if audit.get("tls_name") == "" and not has_ca:
        message = "Any certificate would do, also a stranger's. Give audit.ca, or a name."
        yield _error("tls_name", message, "any-certificate")
    yield from _in_the_clear(audit)


def _in_the_clear(audit: Tables) -> Iterator[Problem]:
    host, transport = audit.get("host"), audit.get("transport", "tls")
    if transport not in ("tcp", "udp") or not isinstance(host, str) or url.is_loopback(host):
        return
    lossy = ", and what is lost on the way is lost" if transport == "udp" else ""
    message = (
        f"Patients' names and numbers cross the network in the clear{lossy}. "
        'Write transport = "tls", or send to a relay on this machine.'
    )
    yield Problem.warning(key_path("audit", "transport"), message, "audit-in-the-clear")


def _error(key: str, message: str, code: str) -> Problem:
    return Problem.error(key_path("audit", key), message, code)
