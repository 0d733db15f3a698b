"""The ID token: who signed it, for whom, and for which sign-in (OpenID Connect Core 3.1.3.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import errors, jwt
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from dicomnode.oidc.refusal import SignInRefused

#: Signatures that a public key verifies. Neither "none" nor those of a shared secret are among
#: them: with those a client's secret, or the public key itself, could sign (RFC 8725 2.1).
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
)  # fmt: skip

# Clocks differ.
_LEEWAY_S = 60
_LONGEST_SUBJECT = 255  # OpenID Connect Core 2
# Headers that are not registered are of no concern; a critical one that is not known still is.
_registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)


class UnknownKey(ValueError):
    """The token names a key that is not among those that are known."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What an ID token must say."""

    issuer: str
    client_id: str
    nonce: str


def verified(id_token: str, keys: KeySet, expected: Expected, *, at: float) -> Mapping[str, Any]:
    """The claims of a token that is to be believed.

    Args:
        at: The time now (seconds since the epoch).

    Raises:
        UnknownKey: It is signed with a key that is none of `keys`: they may have been replaced.
        SignInRefused: `token-invalid`.
    """
    try:
        token = jwt.decode(id_token, keys, algorithms=ALGORITHMS, registry=_registry)
        _claims(expected, at).validate(token.claims)
    except errors.InvalidKeyIdError as error:
        raise UnknownKey(str(error)) from error
    except (errors.JoseError, ValueError, TypeError) as error:
        raise _invalid(_why(error)) from error
    _require_meant_for(token.claims, expected.client_id)
    return token.claims


def _claims(expected: Expected, at: float) -> JWTClaimsRegistry:
    return JWTClaimsRegistry(
        now=int(at),
        leeway=_LEEWAY_S,
        iss={"essential": True, "value": expected.issuer},
        aud={"essential": True, "value": expected.client_id},
        nonce={"essential": True, "value": expected.nonce},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    )


def _require_meant_for(claims: Mapping[str, Any], client_id: str) -> None:
    """OpenID Connect Core 3.1.3.7: several audiences need a party that it was issued to."""
    audience, party = claims["aud"], claims.get("azp")
    if isinstance(audience, list) and len(set(audience)) > 1 and party is None:
        raise _invalid("it is for several, and does not say which of them asked")
    if party is not None and party != client_id:
        raise _invalid("it was issued to another client")
    subject = claims["sub"]
    is_whole = 0 < len(subject) <= _LONGEST_SUBJECT and subject.isprintable()
    if not is_whole or not isinstance(claims["nonce"], str):
        raise _invalid("it does not say whom it is about")


def _why(error: Exception) -> str:
    """In our words: what the token says itself is not repeated."""
    if isinstance(error, errors.ExpiredTokenError):
        return "it has expired, or the clocks differ"
    if isinstance(error, errors.ClaimError):
        return f"its {error.claim} is missing or another"
    if isinstance(error, errors.BadSignatureError):
        return "its signature is not the provider's"
    if isinstance(error, errors.UnsupportedAlgorithmError):
        return "it is not signed in a way that is taken here"
    return "it cannot be read"


def _invalid(why: str) -> SignInRefused:
    return SignInRefused(
        "token-invalid", f"What the provider says of you cannot be believed: {why}."
    )
