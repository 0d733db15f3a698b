"""Who somebody is and what they may do, by the claims of the provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from dicomnode.config.oidc import Oidc, PageRole
from dicomnode.oidc.refusal import SignInRefused

_LONGEST_NAME = 64
_ROLES: tuple[PageRole, ...] = get_args(PageRole)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom the provider has named.

    Attributes:
        subject: What stays the same of a person at this issuer (OpenID Connect Core 5.7).
        name: What the person is called on the page.
    """

    issuer: str
    subject: str
    name: str
    groups: frozenset[str]


def lacks(claims: Mapping[str, Any], settings: Oidc) -> bool:
    """Whether the claims do not say what is asked of them."""
    asked = (settings.name_claim, settings.groups_claim)
    return any(found(claims, one) is None for one in asked)


def identity(claims: Mapping[str, Any], settings: Oidc) -> Identity:
    """The person that the claims are about.

    Raises:
        SignInRefused: `name-unusable`.
    """
    name = found(claims, settings.name_claim)
    if not isinstance(name, str) or not _is_name(name):
        raise SignInRefused(
            "name-unusable",
            f"The provider does not give you a name of 1 to {_LONGEST_NAME} characters. Whoever"
            " runs the node looks at oidc.name_claim and oidc.scopes.",
        )
    return Identity(
        issuer=str(claims["iss"]),
        subject=str(claims["sub"]),
        name=name,
        groups=frozenset(_texts(found(claims, settings.groups_claim))),
    )


def role(who: Identity, roles: Mapping[str, PageRole]) -> PageRole:
    """The highest role that one of the groups stands for.

    Args:
        roles: Group → role.

    Raises:
        SignInRefused: `no-role`.
    """
    given = [roles[group] for group in who.groups if group in roles]
    if not given:
        raise SignInRefused(
            "no-role",
            f"You are known as {who.name}, and are in none of the groups that may see this page."
            " Whoever runs the node can tell you which those are (oidc.roles).",
            name=who.name,
        )
    return max(given, key=_ROLES.index)


def found(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by its way: "a.b" is the claim b within a; `None` for none."""
    if name in claims:
        return claims[name]
    here: Any = claims
    for step in name.split("."):
        here = here.get(step) if isinstance(here, Mapping) else None
    return here


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable() and name == name.strip()


def _texts(value: Any) -> Iterable[str]:
    """A text is a list of one; what is no text is left out."""
    values = value if isinstance(value, list) else [value]
    return (one for one in values if isinstance(one, str))
