"""Who may associate with the node, for which objects, and in which encodings (PS3.8, PS3.7 D.3).

pynetdicom and pydicom keep settings in module globals. The node's are set here, once, and nowhere
else.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom import config as pydicom_config
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import (
    AllStoragePresentationContexts,
    VerificationPresentationContexts,
    _config,
    build_context,
)
from pynetdicom.presentation import PresentationContext

from dicomnode.archive.disk import elements
from dicomnode.errors import Refused

# Every PDU would be formatted for a log that nobody reads.
_config.LOG_HANDLER_LEVEL = "none"
# A file goes out as the bytes that it is.
_config.STORE_SEND_CHUNKED_DATASET = True
# Identifiers hold patients' data.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
# Values that break a rule of the standard are judged by the node, by name. pydicom would warn of
# them on standard error, value and all.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

# The longest PDU that DCMTK sends. Of longer ones nothing is gained.
MAX_PDU_LENGTH = 131_072

# A-ASSOCIATE-RJ (PS3.8 Table 9-21) as one number: result, source, reason, a byte each.
APPLICATION_CONTEXT_NAME_NOT_SUPPORTED = 0x01_01_02
PROTOCOL_VERSION_NOT_SUPPORTED = 0x01_02_02
CALLING_AE_TITLE_NOT_RECOGNIZED = 0x01_01_03
CALLED_AE_TITLE_NOT_RECOGNIZED = 0x01_01_07
REJECTED_FOR_NOW = 0x02_02_01  # by the service provider, no reason given
LOCAL_LIMIT_EXCEEDED = 0x02_03_02

_DICOM_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
_FIRST_VERSION = 1  # bit 0 of Protocol Version, PS3.8 9.3.2

# Transfer syntaxes that do not bring the whole object.
_NOT_FOR_STORAGE = (
    "1.2.840.10008.1.2.4.204",  # JPIP: the pixels stay with the sender
    "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.7.",  # real-time video, PS3.22
)

# Newer than pydicom's list.
_FURTHER = (
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
)

# What a sender may choose from is chosen in this order: first what needs no codec to read.
_PREFERRED = (
    elements.EXPLICIT_VR_LITTLE_ENDIAN,
    elements.IMPLICIT_VR_LITTLE_ENDIAN,
    elements.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    elements.EXPLICIT_VR_BIG_ENDIAN,
)


_STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"  # PS3.4 J.3


class PeerEntry(Protocol):
    """What the configuration says of one peer."""

    @property
    def origins(self) -> tuple[tuple[str, str], ...]:
        """AE titles that it calls itself, each with a name or address that it connects from."""


def transfer_syntaxes() -> tuple[str, ...]:
    """Every standard transfer syntax in which a whole object comes, preferred ones first."""
    known = [str(uid) for uid in AllTransferSyntaxes if not uid.startswith(_NOT_FOR_STORAGE)]
    return tuple(dict.fromkeys((*_PREFERRED, *known, *_FURTHER)))


def accepted_contexts() -> list[PresentationContext]:
    """Everything that the node supports.

    That is verification, storage commitment, and every standard storage SOP class in every transfer
    syntax. A peer may propose 128 contexts (PS3.8 7.1.1.13); what an acceptor supports has no such
    limit.
    """
    return contexts_for(_SUPPORTED)


def contexts_for(abstract_syntaxes: Iterable[str]) -> list[PresentationContext]:
    """Those of `accepted_contexts` that are for `abstract_syntaxes`."""
    return [_context(uid, _SUPPORTED[uid]) for uid in abstract_syntaxes if uid in _SUPPORTED]


def is_for_storage(abstract_syntax: str) -> bool:
    """Whether a presentation context for it takes instances."""
    return abstract_syntax in _STORAGE


def _context(abstract_syntax: str, syntaxes: Sequence[str]) -> PresentationContext:
    context = build_context(abstract_syntax, [*syntaxes])
    if abstract_syntax == _STORAGE_COMMITMENT:
        # We are asked, and we are told what we asked for: both on associations of the peer.
        context.scu_role = context.scp_role = True
    return context


def require_dicom(application_context_name: str, *, protocol_version: int) -> None:
    """Make sure that a request is for DICOM, in the one version of its protocol (PS3.8 9.3.2).

    Raises:
        Refused: `other-protocol-version` or `other-application-context`.
    """
    if not protocol_version & _FIRST_VERSION:
        raise Refused(
            "other-protocol-version",
            f"An association was asked for in protocol version 0x{protocol_version:04X}.",
            status=PROTOCOL_VERSION_NOT_SUPPORTED,
        )
    if application_context_name.strip(" \0") != _DICOM_APPLICATION_CONTEXT:
        raise Refused(
            "other-application-context",
            "An association was asked for in another application context than DICOM's.",
            status=APPLICATION_CONTEXT_NAME_NOT_SUPPORTED,
        )


def rejection(status: int) -> tuple[int, int, int]:
    """Result, source and reason of an A-ASSOCIATE-RJ, out of one of the numbers above."""
    result, source, reason = status.to_bytes(3, "big")
    return result, source, reason


_STORAGE = frozenset(str(one.abstract_syntax) for one in AllStoragePresentationContexts)


def _supported() -> dict[str, tuple[str, ...]]:
    services = {str(one.abstract_syntax): _PREFERRED for one in VerificationPresentationContexts}
    storage = dict.fromkeys(sorted(_STORAGE), transfer_syntaxes())
    return {**services, _STORAGE_COMMITMENT: _PREFERRED, **storage}


# Abstract syntax → the transfer syntaxes that it is taken in.
_SUPPORTED = _supported()


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Who may associate.

    Attributes:
        ae_title: The node's own: who calls another one is turned away.
        peers: Name in the configuration → peer.
        accept_unknown_peers: Whether others may associate too.
    """

    ae_title: str
    peers: Mapping[str, PeerEntry]
    accept_unknown_peers: bool

    def admit(self, *, calling_ae_title: str, called_ae_title: str, address: str) -> str:
        """Decide on a request.

        Args:
            calling_ae_title: What the requestor calls itself.
            called_ae_title: What it calls us.
            address: Where it connects from.

        Returns:
            The peer's name in the configuration, or "" for an unknown one that may associate.

        Raises:
            Refused: `wrong-called-ae-title`, `unknown-peer`, `wrong-host` or `host-not-resolved`;
                its status is one of the rejections above.
        """
        if called_ae_title.strip() != self.ae_title.strip():
            raise Refused(
                "wrong-called-ae-title",
                f"{calling_ae_title} at {address} calls {called_ae_title}; "
                f"this node is {self.ae_title}.",
                status=CALLED_AE_TITLE_NOT_RECOGNIZED,
            )
        titled = [
            (name, host)
            for name, peer in self.peers.items()
            for title, host in peer.origins
            if calling_ae_title.strip() == title.strip()
        ]
        name, unresolved = _located(titled, address)
        if name is not None:
            return name
        if self.accept_unknown_peers:
            return ""
        if unresolved:
            raise _unresolved(calling_ae_title, address, unresolved)
        raise _unknown(calling_ae_title, address, titled=bool(titled))


def _located(titled: Sequence[tuple[str, str]], address: str) -> tuple[str | None, str]:
    """The first of the peers that is at `address`, and a host that may be, and is not resolved."""
    unresolved = ""
    for name, host in titled:
        try:
            if is_at(host, address):
                return name, ""
        except socket.gaierror:
            unresolved = host
    return None, unresolved


def _unresolved(calling_ae_title: str, address: str, host: str) -> Refused:
    return Refused(
        "host-not-resolved",
        f"{calling_ae_title} calls from {address}; whether that is {host} no name server says now.",
        status=REJECTED_FOR_NOW,
    )


def _unknown(calling_ae_title: str, address: str, *, titled: bool) -> Refused:
    if titled:
        reason, detail = "wrong-host", f"{calling_ae_title} is known, but not at {address}."
    else:
        reason, detail = "unknown-peer", f"{calling_ae_title} at {address} is not in [peers]."
    return Refused(reason, detail, status=CALLING_AE_TITLE_NOT_RECOGNIZED)


def is_at(host: str, address: str) -> bool:
    """Whether `host`, a name or an address, is what connects from `address`.

    All loopback addresses are this machine. A name that nobody knows is nowhere.

    Raises:
        socket.gaierror: The name is not resolved now, and may be later.
    """
    here = _normal(address)
    return any(one == here or (one.is_loopback and here.is_loopback) for one in _resolved(host))


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _resolved(host: str) -> set[_Address]:
    try:
        return {_normal(host)}
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        if error.errno == socket.EAI_AGAIN:
            raise
        return set()
    return {_normal(str(address[0])) for *_kind, address in found}


def _normal(address: str) -> _Address:
    """An address without its scope; an IPv4 address in IPv6's clothes is itself again."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        return parsed.ipv4_mapped
    return parsed
