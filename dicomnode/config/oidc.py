"""Sign-in by OpenID Connect: what the configuration says of the provider, and whom it lets in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from dicomnode.config import url
from dicomnode.config.table import Table
from dicomnode.config.values import AnchoredPath

#: The roles of the page, least first.
PageRole = Literal["viewer", "operator", "administrator"]

# RFC 6749 3.3: what a scope may be made of.
_Scope = Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
_Text = Annotated[str, Field(min_length=1, max_length=255)]


def _with_openid(value: tuple[str, ...]) -> tuple[str, ...]:
    if "openid" not in value:
        raise ValueError('expects "openid" among them: without it there is no ID token')
    return value


class Oidc(Table):
    """Sign-in to the page by OpenID Connect, beside the accounts of the node itself.

    A provider that is away leaves those as they are.
    """

    issuer: Annotated[str, Field(max_length=255), AfterValidator(url.issuer)] | None = None
    """Address of the provider, as it names itself in its discovery document; left out, nobody signs
    in this way."""
    client_id: _Text | None = None
    """What the provider knows the node as."""
    client_secret_file: AnchoredPath | None = None
    """File with the client secret and nothing else; left out, the node is a public client."""
    ca: AnchoredPath | None = None
    """File with the certificates of who signs the provider's, PEM; left out, those that the system
    trusts."""
    button: _Text = "Sign in with OpenID Connect"
    """What the button on the sign-in page says."""
    scopes: Annotated[
        tuple[_Scope, ...], Field(strict=False, min_length=1), AfterValidator(_with_openid)
    ] = ("openid", "profile")
    """What the provider is asked for; openid is among it."""
    name_claim: _Text = "preferred_username"
    """Claim with the name that somebody has on the page; "a.b" is the claim b within a."""
    groups_claim: _Text = "groups"
    """Claim with the groups that somebody is in, written likewise."""
    roles: dict[str, PageRole] | None = None
    """Group → viewer, operator or administrator; of several the highest counts. Who is in none of
    these groups is not let in."""
