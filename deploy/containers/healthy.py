"""Says by its exit code whether the process of this container does its work.

::

    healthy.py receiver FILE    its page answers, or its port where it has no page
    healthy.py worker FILE      it has shown itself in the database within the length of a lease
"""
# ruff: noqa: INP001 - a script on its own, in no package

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from dicomnode import config
from dicomnode.archive.asked import accounts
from dicomnode.archive.database import Database
from dicomnode.config import Configuration
from dicomnode.errors import NodeError

_TIMEOUT_S = 5
_OK = 200
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - nobody listens here


def receiver(configuration: Configuration) -> bool:
    """Whether the node answers on this machine."""
    listen, web = configuration.listen, configuration.web
    if web.port is None:
        host = _EVERY_ADDRESS.get(listen.host, listen.host).strip("[]")
        with socket.create_connection((host, listen.port), _TIMEOUT_S):
            return True
    scheme = "http" if web.certificate is None else "https"
    # The page's certificate names the machine as others see it, and nobody is in between.
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    ask = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
    )
    host = _EVERY_ADDRESS.get(web.host, web.host)
    with ask.open(f"{scheme}://{host}:{web.port}/healthz", timeout=_TIMEOUT_S) as answer:
        return bool(answer.status == _OK)


def worker(configuration: Configuration) -> bool:
    """Whether a worker of this host has been seen of late."""
    since = time.time() - configuration.worker.lease_s
    database = Database(configuration.database.url)
    try:
        with database.read() as tx:
            found = accounts.workers(tx, since=since)
    finally:
        database.close()
    return any(one.id.startswith(f"{socket.gethostname()}:") for one in found)


def main(what: str, file: str) -> int:
    """Look once; 0 where all is well."""
    with contextlib.suppress(OSError, urllib.error.URLError, NodeError):
        configuration = config.load(Path(file))
        return 0 if {"receiver": receiver, "worker": worker}[what](configuration) else 1
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
