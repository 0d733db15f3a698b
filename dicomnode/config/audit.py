"""Audit messages: where they go, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dicomnode.auditing.codes import Kind
from dicomnode.config.table import Table
from dicomnode.config.values import AnchoredPath, Count, Host, Port, Positive, TlsName

Transport = Literal["tls", "tcp", "udp"]
# RFC 5425 4.1, RFC 6587 and RFC 5426 3.3
_PORTS: dict[Transport, int] = {"tls": 6514, "tcp": 601, "udp": 514}


class Audit(Table):
    """Audit messages (PS3.15 A.5) to a collector, by syslog. They name patients, as they must."""

    host: Host | None = None
    """Name or address of the collector; left out, no audit messages are made."""
    port: Port | None = None
    """Its port; left out, 6514 with tls, 601 with tcp, 514 with udp."""
    transport: Transport = "tls"
    """tls (RFC 5425); tcp and udp carry patients' names in the clear. udp loses messages."""
    tls_name: TlsName | None = None
    """What the collector's certificate is issued for, if not `host`; "": any that `ca` signed."""
    ca: AnchoredPath | None = None
    """File with the certificates of who signs the collector's, PEM; left out, that of [tls], and
    without one those that the system trusts."""
    certificate: AnchoredPath | None = None
    """File with the certificate that the collector is shown, PEM; left out, that of [tls], if there
    is one."""
    key: AnchoredPath | None = None
    """File with the private key of that certificate, PEM."""
    key_password_file: AnchoredPath | None = None
    """File with the password of the key, and nothing else."""
    source_id: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """What the node calls itself as the source of a message; left out, its AE title."""
    enterprise_site_id: Annotated[str, Field(max_length=255)] = ""
    """Where in the enterprise that is; empty, messages do not say."""
    leave_out: Annotated[tuple[Annotated[Kind, Field(strict=False)], ...], Field(strict=False)] = ()
    """Kinds of messages that are not made: application, transfer, access, deletion, procedure,
    query, authentication, security, log-used."""
    keep_days: Positive = 30.0
    """Days that a message waits for a collector that is away; then it is dropped, and that is
    told."""
    keep_messages: Count = 200_000
    """Messages that may wait; of more, the oldest are dropped. Each takes about 2 KiB."""

    @property
    def port_to_call(self) -> int:
        """The port, also where the file names none."""
        return self.port or _PORTS[self.transport]
