"""Whether a configuration wants audit messages, and who reports then."""

from __future__ import annotations

import socket

from dicomnode.archive.database import Database
from dicomnode.auditing.message import Source
from dicomnode.auditing.recorder import Recorder
from dicomnode.config import Configuration


def recorder_of(configuration: Configuration) -> Recorder | None:
    """Who reports; `None` where no collector is named."""
    audit, ae_title = configuration.audit, configuration.node.ae_title
    if audit.host is None:
        return None
    return Recorder(
        source=Source(id=audit.source_id or ae_title, enterprise_site_id=audit.enterprise_site_id),
        ae_title=ae_title,
        host=socket.gethostname(),
        left_out=frozenset(audit.leave_out),
    )


def database_of(configuration: Configuration) -> Database:
    """The database of a configuration, with who reports what is written to it."""
    return Database(configuration.database.url, recorder=recorder_of(configuration))
