"""The provider: what it says of itself, and what it answers for somebody who signs in.

It is asked in the threads that answer browsers. So few questions are open at once, and one that it
has left unanswered is not repeated for a while: a provider that hangs must not hold up the page.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote_plus, urlencode, urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, KeySetSerialization

from dicomnode.config.oidc import Oidc
from dicomnode.errors import Misconfigured, RetryLater
from dicomnode.oidc import calling, entry, metadata, token
from dicomnode.oidc.calling import Answer, Question
from dicomnode.oidc.entry import Identity
from dicomnode.oidc.flow import Flow
from dicomnode.oidc.metadata import WELL_KNOWN, Metadata
from dicomnode.oidc.refusal import SignInRefused
from dicomnode.oidc.token import Expected, UnknownKey

#: Where the provider sends browsers back to, below the page's public address.
ANSWER_PATH = "/sign-in/oidc/answer"

_FRESH_S = 3600.0
_SILENT_S = 5.0
_AT_ONCE = 8
_OK, _UNAUTHORIZED = 200, 401
_KINDS_OF_KEYS = ("RSA", "EC")
# RFC 6749 4.1.2.1 and OpenID Connect Core 3.1.2.6: what a provider may answer in place of a code.
_ERRORS = {
    "access_denied", "account_selection_required", "consent_required", "interaction_required",
    "invalid_request", "invalid_request_object", "invalid_request_uri", "invalid_scope",
    "login_required", "registration_not_supported", "request_not_supported",
    "request_uri_not_supported", "server_error", "temporarily_unavailable", "unauthorized_client",
    "unsupported_response_type",
}  # fmt: skip


class Provider:
    """The provider of one configuration. Safe to share between threads."""

    def __init__(self, settings: Oidc, *, public_url: str) -> None:
        """Prepare; nothing is asked yet.

        Args:
            settings: With an issuer and a client_id.
            public_url: Address that browsers know the page by.
        """
        self.settings = settings
        self.public_url = public_url
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._metadata: Metadata | None = None
        self._keys: KeySet | None = None
        self._read_at = self._silent_at = float("-inf")

    @property
    def issuer(self) -> str:
        """What it calls itself."""
        assert self.settings.issuer is not None  # noqa: S101 - see the constructor
        return self.settings.issuer

    @property
    def _client_id(self) -> str:
        assert self.settings.client_id is not None  # noqa: S101 - see the constructor
        return self.settings.client_id

    @property
    def redirect_uri(self) -> str:
        """Where it sends browsers back to: by the configuration, whatever the browser says."""
        return self.public_url + ANSWER_PATH

    def discover(self) -> Metadata:
        """What it says of itself, asked at most once an hour, and its keys.

        Raises:
            RetryLater: `provider-unreachable`, `provider-busy`.
            Misconfigured: `provider-unusable`, `provider-not-trusted`, `ca-unusable`.
        """
        known = self._metadata
        if known is not None and time.monotonic() - self._read_at < _FRESH_S:
            return known
        answer = self._ask(Question(url=self.issuer.rstrip("/") + WELL_KNOWN))
        if answer.status != _OK:
            raise Misconfigured(
                "provider-unusable",
                f"{self.issuer}{WELL_KNOWN} is not there ({answer.status}): see oidc.issuer.",
            )
        known = metadata.read(answer.document, issuer=self.issuer)
        self._keys = self._read_keys(known)
        self._metadata, self._read_at = known, time.monotonic()
        return known

    def begin(self, flow: Flow) -> str:
        """Where to send the browser (OpenID Connect Core 3.1.2.1).

        Raises:
            RetryLater, Misconfigured: As `discover`.
        """
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": flow.challenge,
            "code_challenge_method": "S256",
        }
        return _with_query(self.discover().authorization_endpoint, asked)

    def finish(self, flow: Flow, said: Mapping[str, str], *, at: float) -> Identity:
        """Who has signed in.

        Args:
            flow: The sign-in that is answered; that `state` is its own was looked at before.
            said: The parameters of the answer: `code`, or `error`; `iss`.
            at: The time now (seconds since the epoch).

        Raises:
            SignInRefused: `other-issuer`, `denied-by-provider`, `code-refused`, `token-invalid`,
                `name-unusable`.
            RetryLater: As `discover`.
            Misconfigured: As `discover`; `client-refused`, `secret-unreadable`.
        """
        known = self.discover()
        self._require_issuer(known, said.get("iss"))
        if "error" in said or not said.get("code"):
            word = said.get("error", "no code")
            raise SignInRefused(
                "denied-by-provider",
                f"The provider did not let you in ({word if word in _ERRORS else 'it says why'}).",
            )
        tokens = self._redeem(known, said["code"], flow.verifier)
        claims = self._claims(known, str(tokens.get("id_token", "")), flow, at=at)
        if entry.lacks(claims, self.settings) and known.userinfo_endpoint:
            claims = {**self._more(known, str(tokens.get("access_token", "")), claims), **claims}
        return entry.identity(claims, self.settings)

    def end_session(self) -> str:
        """Where a browser is sent to sign out of the provider itself; "" where it offers none.

        Only what is known is told: the provider is not asked (RP-Initiated Logout 1.0, 2).
        """
        known = self._metadata
        if known is None or not known.end_session_endpoint:
            return ""
        back = {"client_id": self._client_id, "post_logout_redirect_uri": self.public_url + "/"}
        return _with_query(known.end_session_endpoint, back)

    def _require_issuer(self, known: Metadata, named: str | None) -> None:
        """RFC 9207 2.4: an answer that another provider has given is not redeemed here."""
        if named != self.issuer and (named is not None or known.names_itself):
            raise SignInRefused("other-issuer", "The answer comes from another provider.")

    def _redeem(self, known: Metadata, code: str, verifier: str) -> Mapping[str, Any]:
        """The tokens that the code stands for (OpenID Connect Core 3.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
        }
        secret, password = self._secret(), None
        if secret and known.takes_basic:
            # RFC 6749 2.3.1: both are encoded as a form is.
            password = (quote_plus(self._client_id), quote_plus(secret))
        else:
            form |= {"client_id": self._client_id, **({"client_secret": secret} if secret else {})}
        answer = self._ask(Question(url=known.token_endpoint, form=form, password=password))
        if answer.status == _UNAUTHORIZED or answer.document.get("error") == "invalid_client":
            raise Misconfigured(
                "client-refused",
                "The provider does not take the node for its client: see oidc.client_id and"
                " oidc.client_secret_file.",
            )
        if answer.status != _OK:
            raise SignInRefused(
                "code-refused", "The provider does not confirm the sign-in. Begin it again."
            )
        return answer.document

    def _secret(self) -> str:
        file = self.settings.client_secret_file
        if file is None:
            return ""
        try:
            return read_secret(file)
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(
                "secret-unreadable", f"{file} cannot be read: see oidc.client_secret_file."
            ) from error

    def _claims(
        self, known: Metadata, id_token: str, flow: Flow, *, at: float
    ) -> Mapping[str, Any]:
        expected = Expected(issuer=self.issuer, client_id=self._client_id, nonce=flow.nonce)
        keys = self._keys or self._read_keys(known)
        try:
            return token.verified(id_token, keys, expected, at=at)
        except UnknownKey:
            # The provider has new keys (OpenID Connect Core 10.1.1): they are asked for once.
            self._keys = self._read_keys(known)
        try:
            return token.verified(id_token, self._keys, expected, at=at)
        except UnknownKey as error:
            raise SignInRefused(
                "token-invalid",
                "What the provider says of you is signed with a key that it does not publish.",
            ) from error

    def _read_keys(self, known: Metadata) -> KeySet:
        answer = self._ask(Question(url=known.jwks_uri))
        published = answer.document.get("keys")
        usable = (
            [key for one in published for key in _key(one)] if isinstance(published, list) else []
        )
        if not usable:
            raise Misconfigured(
                "provider-unusable", f"{known.jwks_uri} holds no keys that can be used."
            )
        return KeySet(usable)

    def _more(
        self, known: Metadata, access_token: str, claims: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What the provider tells beside the ID token (OpenID Connect Core 5.3)."""
        answer = self._ask(Question(url=known.userinfo_endpoint, bearer=access_token))
        # 5.3.2: it must be about the same person.
        if answer.status != _OK or answer.document.get("sub") != claims["sub"]:
            raise SignInRefused("token-invalid", "What the provider says of you does not agree.")
        return answer.document

    def _ask(self, question: Question) -> Answer:
        with self._turn():
            if time.monotonic() - self._silent_at < _SILENT_S:
                host = urlsplit(question.url).netloc
                raise RetryLater("provider-unreachable", f"{host} did not answer a moment ago.")
            try:
                return calling.ask(question, ca=self.settings.ca)
            except RetryLater:
                self._silent_at = time.monotonic()
                raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(blocking=False):
            raise RetryLater("provider-busy", "Too many sign-ins wait for the provider already.")
        try:
            yield
        finally:
            self._turns.release()


def _key(published: Any) -> list[Key]:
    """A key; none where it is of no use here.

    RFC 7517 5: others may be there, or curves that are not known, and are passed over. A shared
    secret among them would be none.
    """
    try:
        if published.get("kty") not in _KINDS_OF_KEYS:
            return []
        return KeySet.import_key_set(cast("KeySetSerialization", {"keys": [published]})).keys
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return []


def read_secret(file: Path) -> str:
    """The secret in a file, without the line break at its end.

    Raises:
        OSError, UnicodeDecodeError: It cannot be read.
    """
    return file.read_text(encoding="utf-8").rstrip("\r\n")


def _with_query(address: str, values: Mapping[str, str]) -> str:
    """An address with these parameters; those that it has stay (RFC 6749 3.1)."""
    parts = urlsplit(address)
    query = "&".join(part for part in (parts.query, urlencode(values)) if part)
    return parts._replace(query=query, fragment="").geturl()
