"""One sign-in, as a browser began it: what binds the provider's answer to that browser.

Everything follows from a token of 256 random bits in a cookie: `state` (RFC 6749 10.12), `nonce`
(OpenID Connect Core 3.1.2.1) and the code verifier (RFC 7636). The node keeps nothing of a sign-in
that was begun, so that nobody can fill anything by beginning many.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

#: Seconds within which the provider's answer must come.
LASTS_S = 600
_LONGEST_PATH = 1024
# Python makes no number of a few thousand digits.
_WHOLE = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A sign-in that was begun.

    Attributes:
        token: 256 random bits, in text.
        begun_at: When (seconds since the epoch, whole).
        where: The path on this server to show afterwards.
    """

    token: str = field(repr=False)
    begun_at: int
    where: str

    @classmethod
    def begin(cls, token: str, *, at: float, where: str) -> Flow:
        """A new one; a path that is too long for a cookie is forgotten."""
        kept = where if len(quote(where)) <= _LONGEST_PATH else "/"
        return cls(token=token, begun_at=int(at), where=kept)

    @classmethod
    def read(cls, cookie: str, *, at: float) -> Flow | None:
        """The one that a cookie holds; `None` where it holds none, or one from too long ago."""
        token, _, rest = cookie.partition(".")
        begun, _, where = rest.partition(".")
        if not token or not _WHOLE.fullmatch(begun):
            return None
        made = cls(token=token, begun_at=int(begun), where=unquote(where))
        return made if 0 <= at - made.begun_at <= LASTS_S else None

    @property
    def cookie(self) -> str:
        """What the browser keeps."""
        return f"{self.token}.{self.begun_at}.{quote(self.where, safe='')}"

    @property
    def state(self) -> str:
        """What the provider hands back with its answer."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """What the ID token must contain."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """What only who began can show when the code is redeemed (RFC 7636 4.1)."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """What the provider learns of the verifier beforehand: S256 (RFC 7636 4.2)."""
        return _encoded(hashlib.sha256(self.verifier.encode()).digest())

    @property
    def digest(self) -> str:
        """Under what is kept that it was answered: it lets nobody in."""
        return hashlib.sha256(self.state.encode()).hexdigest()

    def is_answered_by(self, state: str) -> bool:
        """Whether an answer with this `state` belongs to it."""
        return hmac.compare_digest(state.encode(), self.state.encode())

    def _derived(self, purpose: str) -> str:
        told = f"{purpose}\x1f{self.begun_at}\x1f{self.where}"
        return _encoded(hmac.digest(self.token.encode(), told.encode(), "sha256"))


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
