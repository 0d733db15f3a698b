"""An OpenID Connect provider on this machine, with real keys, that can be told to misbehave.

Its tokens are put together by hand: what judges them must not have made them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CLIENT = "dicomnode"
SECRET = "a secret: with + and %"

ADA: Mapping[str, Any] = {
    "sub": "4711",
    "preferred_username": "ada",
    "groups": ["staff", "dicom-operators"],
}
ROLES = '{ dicom-admins = "administrator", dicom-operators = "operator", radiology = "viewer" }'


@cache
def rsa_key(which: int = 0) -> rsa.RSAPrivateKey:
    """A key; the same one for the same number."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key(which: int = 0) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _number(value: int) -> str:
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@dataclass(kw_only=True)
class Key:
    """A key that the provider signs with.

    Attributes:
        alg: What its tokens say that they are signed with.
        method: What they are signed with in truth: the same, "none", or "HS256" with what is public
            of the key as the secret.
    """

    kid: str
    private: Any
    alg: str = "RS256"
    method: str = ""

    @property
    def public(self) -> dict[str, str]:
        """As a JSON Web Key."""
        numbers = self.private.public_key().public_numbers()
        if isinstance(self.private, rsa.RSAPrivateKey):
            return {"kty": "RSA", "kid": self.kid, "n": _number(numbers.n), "e": _number(numbers.e)}
        x, y = (encoded(one.to_bytes(32, "big")) for one in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "kid": self.kid, "x": x, "y": y}

    @property
    def pem(self) -> bytes:
        """What is public of it, as everybody may have it."""
        public = self.private.public_key()
        made: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return made

    def signature(self, told: bytes) -> bytes:
        method = self.method or self.alg
        if method == "none":
            return b""
        if method == "HS256":
            return hmac.digest(self.pem, told, "sha256")
        if method == "ES256":
            r, s = decode_dss_signature(self.private.sign(told, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        signed: bytes = self.private.sign(told, padding.PKCS1v15(), hashes.SHA256())
        return signed


@dataclass(kw_only=True)
class Provider:
    """What it is, what it says, and what is wrong with that.

    Attributes:
        publishes: The keys that it shows; it signs with `key`.
        claims: Over what it would say in an ID token; `None` leaves a claim out.
        discovery: The same of its discovery document.
        redirects: The same of the parameters that the browser is sent back with.
        status: What its token endpoint answers, if not 200.
        is_away: Whether it answers 503 to everything.
        asked: The paths that were asked for, in their order.
    """

    issuer: str = ""
    key: Key = field(default_factory=lambda: Key(kid="one", private=rsa_key()))
    publishes: list[Key] = field(default_factory=list)
    person: Mapping[str, Any] = field(default_factory=lambda: dict(ADA))
    more: Mapping[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    discovery: dict[str, Any] = field(default_factory=dict)
    redirects: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    is_away: bool = False
    clock: Callable[[], float] = time.time
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    hung: threading.Event | None = None

    def __post_init__(self) -> None:
        self.publishes = [self.key]

    def rotate(self) -> None:
        """New keys, from now on; the old ones are gone."""
        self.key = Key(kid="two", private=ec_key(), alg="ES256")
        self.publishes = [self.key]

    def document(self) -> dict[str, Any]:
        return _over(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "end_session_endpoint": f"{self.issuer}/end-session",
            },
            self.discovery,
        )

    def approve(self, asked: Mapping[str, str]) -> str:
        """Where the browser is sent back to by somebody who has signed in."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = dict(asked)
        said = _over({"code": code, "state": asked["state"]}, self.redirects)
        return f"{asked['redirect_uri']}?{urlencode(said)}"

    def id_token(self, nonce: str) -> str:
        now = self.clock()
        header = {"alg": self.key.alg, "kid": self.key.kid, "typ": "JWT"}
        claims = _over(
            {
                "iss": self.issuer, "aud": CLIENT, "iat": int(now), "exp": int(now) + 300,
                "nonce": nonce, **self.person,
            },
            self.claims,
        )  # fmt: skip
        told = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        return f"{told}.{encoded(self.key.signature(told.encode()))}"

    def redeem(self, form: Mapping[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """RFC 6749 4.1.3, RFC 7636 4.6: a code is redeemed once, by who asked for it."""
        expected = "Basic " + base64.b64encode(_as_in_a_form(CLIENT, SECRET)).decode()
        if authorization != expected:
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or asked["code_challenge_method"] != "S256"
            or asked["code_challenge"] != encoded(verifier)
            or asked["redirect_uri"] != form["redirect_uri"]
            or form["grant_type"] != "authorization_code"
        ):
            return 400, {"error": "invalid_grant"}
        return self.status, {
            "access_token": "of-ada",
            "token_type": "Bearer",
            "id_token": self.id_token(asked["nonce"]),
        }


def asked_of(address: str) -> dict[str, str]:
    """What a browser is sent to the provider with."""
    return {key: values[-1] for key, values in parse_qs(urlsplit(address).query).items()}


def _as_in_a_form(*words: str) -> bytes:
    return ":".join(urlencode({"": word})[1:] for word in words).encode()


def _over(said: dict[str, Any], faults: Mapping[str, Any]) -> dict[str, Any]:
    return {key: one for key, one in {**said, **faults}.items() if one is not None}


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = asked_of(self.path)
        if self._is_answered_otherwise(parts.path):
            return
        if parts.path == "/.well-known/openid-configuration":
            self._json(200, self.provider.document())
        elif parts.path == "/keys":
            self._json(200, {"keys": [one.public for one in self.provider.publishes]})
        elif parts.path == "/userinfo":
            is_ada = self.headers["Authorization"] == "Bearer of-ada"
            self._json(200 if is_ada else 401, dict(self.provider.more))
        elif parts.path == "/authorize":
            self._page(f'<a href="/approve?{parts.query}">Continue as Ada</a>')
        elif parts.path == "/approve":
            self.send_response(303)
            self.send_header("Location", self.provider.approve(query))
            self.end_headers()
        elif parts.path == "/end-session":
            back = query["post_logout_redirect_uri"]
            self._page(f'<h1>Signed out everywhere</h1><a href="{back}">Back</a>')
        else:
            self._json(404, {})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        form = {key: one[-1] for key, one in parse_qs(self.rfile.read(length).decode()).items()}
        if not self._is_answered_otherwise(self.path):
            self._json(*self.provider.redeem(form, self.headers.get("Authorization", "")))

    def _is_answered_otherwise(self, path: str) -> bool:
        self.provider.asked.append(path)
        if self.provider.hung is not None:
            self.provider.hung.wait(30)
        if self.provider.is_away:
            self._json(503, {})
        return self.provider.is_away

    def _json(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(document).encode())

    def _page(self, body: str) -> None:
        self._send(200, "text/html", f"<!doctype html><title>Login</title>{body}".encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def provider(*, certificate: Path | None = None, key: Path | None = None) -> Iterator[Provider]:
    """A provider for the length of a block; with a certificate over TLS."""
    made = Provider()
    handler = type("Handler", (_Handler,), {"provider": made})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made.issuer = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        if made.hung is not None:
            made.hung.set()
        server.shutdown()
        thread.join()
        server.server_close()


def settings(of: Provider, folder: Path, *, public_url: str, more: str = "") -> str:
    """What belongs below [web] for a page that people sign in to with this provider."""
    secret = folder / "client-secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    return f"""public_url = "{public_url}"

[oidc]
issuer = "{of.issuer}"
client_id = "{CLIENT}"
client_secret_file = "client-secret"
button = "Sign in with the hospital's account"
roles = {ROLES}
{more}
"""


def through(of: Provider, browser: Any, where: str = "/sign-in/oidc") -> Any:
    """Press the button, sign in there, and come back: the page's answer to that."""
    return browser.get(back(of, browser, where))


def back(of: Provider, browser: Any, where: str = "/sign-in/oidc") -> str:
    """Press the button and sign in there: where the browser is sent back to."""
    sent = browser.get(where)
    assert sent.status_code == 303, sent.text
    to = urlsplit(sent.headers["location"])
    assert sent.headers["location"].startswith(f"{of.issuer}/authorize?")
    with httpx2.Client(trust_env=False) as client:
        answer = client.get(f"{of.issuer}/approve?{to.query}")
    return str(answer.headers["location"])
