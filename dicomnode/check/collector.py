"""Problems of the collector of audit messages: the files that it is called with, and itself."""

from __future__ import annotations

from collections.abc import Iterator

from dicomnode import settings
from dicomnode.check import file
from dicomnode.config import Audit, Problem, Tls, key_path
from dicomnode.errors import Misconfigured
from dicomnode.network import tls
from dicomnode.network.tls import Certificates

_TIMEOUT_S = 5.0


def problems(audit: Audit, node_tls: Tls) -> Iterator[Problem]:
    """What is wrong with the files that [audit] names; those of [tls] are looked at elsewhere."""
    if audit.host is None or audit.transport != "tls":
        return
    named = {
        "certificate": audit.certificate,
        "key": audit.key,
        "key_password_file": audit.key_password_file,
        "ca": audit.ca,
    }
    unreadable = [
        file.unreadable(one, path=key_path("audit", key), code="tls-file-missing")
        for key, one in named.items()
        if one is not None and not file.is_readable(one)
    ]
    yield from unreadable
    ours = settings.collector_tls(audit, node_tls)
    missing = [one for _, one in tls.files(ours) if not one.is_file()]
    if unreadable or missing or (ours.certificate is None) != (ours.key is None):
        return
    try:
        Certificates(ours)
    except Misconfigured as error:
        key = error.reason.partition("-")[0]
        path = key_path("audit", key if named.get(key) else "host")
        yield Problem.error(path, error.detail, error.reason)


def asked(audit: Audit, node_tls: Tls) -> None:
    """Connect to the collector, with all that belongs to it, and send nothing.

    Raises:
        RetryLater: As `Collector.try_out`.
        Misconfigured: As `settings.collector`.
    """
    collector = settings.collector(audit, node_tls)
    if collector is not None:
        collector.try_out(timeout_s=_TIMEOUT_S)
