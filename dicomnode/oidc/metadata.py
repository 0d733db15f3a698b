"""The discovery document of a provider (OpenID Connect Discovery 1.0, 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dicomnode.config import is_loopback
from dicomnode.errors import Misconfigured

WELL_KNOWN = "/.well-known/openid-configuration"

_NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_OPTIONAL = ("userinfo_endpoint", "end_session_endpoint")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a provider says of itself; an address that it does not announce is "".

    Attributes:
        takes_basic: Whether it takes a client's secret in the header `Authorization`.
        names_itself: Whether its answers name their issuer (RFC 9207).
    """

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    end_session_endpoint: str
    takes_basic: bool
    names_itself: bool


def read(document: Mapping[str, Any], *, issuer: str) -> Metadata:
    """What the document says.

    Raises:
        Misconfigured: `provider-unusable`: it is another issuer's, lacks an address, or has one
            that anybody on the way could answer for.
    """
    if document.get("issuer") != issuer:
        raise _unusable(
            issuer, "it names another issuer; oidc.issuer is written as it names itself"
        )
    addresses = {key: document.get(key, "") for key in (*_NEEDED, *_OPTIONAL)}
    for key, value in addresses.items():
        if key in _NEEDED and not value:
            raise _unusable(issuer, f"it has no {key}")
        if value and not _is_safe(value, issuer=issuer):
            raise _unusable(issuer, f"its {key} is no https address")
    # What is left out means client_secret_basic (Discovery 1.0, 3).
    methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    return Metadata(
        **addresses,
        takes_basic=isinstance(methods, list) and "client_secret_basic" in methods,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _is_safe(address: Any, *, issuer: str) -> bool:
    """Whether TLS leads there; on this machine itself, where the issuer is here as well."""
    try:
        parts = urlsplit(address) if isinstance(address, str) else None
    except ValueError:
        return False
    if parts is None or not parts.hostname or not address.isprintable() or " " in address:
        return False
    if parts.scheme == "https":
        return True
    is_here = is_loopback(parts.hostname) and issuer.startswith("http://")
    return parts.scheme == "http" and is_here


def _unusable(issuer: str, why: str) -> Misconfigured:
    return Misconfigured(
        "provider-unusable", f"What {issuer}{WELL_KNOWN} says cannot be used: {why}."
    )
