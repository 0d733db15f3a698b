"""The frame around a message: RFC 5424, octet counting of RFC 5425, datagrams of RFC 5426."""

from __future__ import annotations

import re

from dicomnode import NAME
from dicomnode.auditing.message import moment

#: PS3.15 A.6: facility 10 (security and authorization), severity 5 (normal but significant).
PRIORITY = 10 * 8 + 5
#: PS3.15 A.6 and A.7.
MESSAGE_ID = "DICOM+RFC3881"
_VERSION = 1
_NIL = "-"
_BOM = b"\xef\xbb\xbf"
# RFC 5424 6.2.4
_LONGEST_HOST = 255
#: What one datagram of IPv4 takes: 65,535 less the headers of IP and UDP.
LONGEST_DATAGRAM = 65_507
#: PS3.15 A.6: who complies takes messages of this length at least.
LEAST_LONGEST = 32_768


def frame(body: str, *, at: float, host: str, process: str) -> bytes:
    """A SYSLOG-MSG.

    Args:
        body: The XML of the message.
        at: When it happened, in seconds since the epoch.
        host: The name of the machine.
        process: What PROCID says.
    """
    header = (
        f"<{PRIORITY}>{_VERSION} {moment(at)} {_printable(host)[:_LONGEST_HOST]} {NAME}"
        f" {_printable(process)} {MESSAGE_ID} {_NIL} "
    )
    return header.encode("ascii") + _BOM + body.encode()


def counted(framed: bytes) -> bytes:
    """A SYSLOG-FRAME (RFC 5425 4.3): its length in octets, a space, and the message."""
    return b"%d %b" % (len(framed), framed)


def _printable(text: str) -> str:
    """A field of the header: printable ASCII without spaces, or nothing."""
    return re.sub(r"[^!-~]", "", text) or _NIL
