"""OpenID Connect without a page: one sign-in, its token, and who it is about."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from joserfc.jwk import KeySet
from provider import ADA, CLIENT, Key, Provider, ec_key, rsa_key

from dicomnode import oidc
from dicomnode.archive.access.people import Role
from dicomnode.config.oidc import Oidc, PageRole
from dicomnode.oidc import Flow, SignInRefused, entry, metadata, token
from dicomnode.oidc.token import Expected, UnknownKey

NOW = 1_795_790_000
ISSUER = "https://login.example"
EXPECTED = Expected(issuer=ISSUER, client_id=CLIENT, nonce="the nonce")


def provider(**faults: Any) -> Provider:
    return Provider(issuer=ISSUER, clock=lambda: NOW, **faults)


def judged(of: Provider, *, keys: list[Key] | None = None, text: str | None = None) -> Any:
    """What is made of its token by somebody who knows its keys, or these."""
    known = KeySet.import_key_set({"keys": [one.public for one in keys or of.publishes]})  # type: ignore[typeddict-item]
    said = of.id_token("the nonce") if text is None else text
    return token.verified(said, known, EXPECTED, at=NOW)


@pytest.mark.parametrize(
    "key",
    [
        Key(kid="one", private=rsa_key()),
        Key(kid="one", private=ec_key(), alg="ES256"),
    ],
    ids=lambda key: key.alg,
)
def test_what_the_provider_signed_is_believed(key: Key) -> None:
    assert judged(provider(key=key))["sub"] == "4711"


@pytest.mark.parametrize(
    "claims", [{"aud": [CLIENT]}, {"azp": CLIENT}, {"aud": [CLIENT, "x"], "azp": CLIENT},
               {"exp": NOW - 59}, {"iat": NOW + 59}, {"nbf": NOW}], ids=str,
)  # fmt: skip
def test_what_the_standard_allows_is_believed(claims: dict[str, Any]) -> None:
    assert judged(provider(claims=claims))["sub"] == "4711"


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": ["another"]},
        {"aud": "another-client"},
        {"aud": None},
        {"aud": []},
        {"aud": ["another-client"]},
        {"aud": [CLIENT, "another-client"]},
        {"aud": [CLIENT, "another-client"], "azp": "another-client"},
        {"azp": "another-client"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": NOW - 61},
        {"exp": None},
        {"exp": "tomorrow"},
        {"iat": NOW + 3600},
        {"iat": None},
        {"nbf": NOW + 3600},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": "4711\x00"},
        {"sub": 4711},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_sign_in_is_not_believed(claims: dict[str, Any]) -> None:
    with pytest.raises(SignInRefused, match="token-invalid"):
        judged(provider(claims=claims))


@pytest.mark.parametrize(
    "key",
    [
        Key(kid="one", private=rsa_key(), alg="none", method="none"),
        Key(kid="one", private=rsa_key(), alg="NONE", method="none"),
        Key(kid="one", private=rsa_key(), alg="HS256", method="HS256"),
        Key(kid="one", private=rsa_key(), alg="RS256", method="HS256"),
        Key(kid="one", private=rsa_key(), alg="RS256", method="none"),
        Key(kid="one", private=rsa_key(1), alg="RS256"),
        Key(kid="one", private=rsa_key(), alg="ES256", method="RS256"),
    ],
    ids=lambda key: f"{key.alg}-by-{key.method or key.alg}-{key.kid}",
)
def test_a_token_that_the_provider_has_not_signed_is_not_believed(key: Key) -> None:
    published = Key(kid="one", private=rsa_key())
    with pytest.raises(SignInRefused, match="token-invalid"):
        judged(provider(key=key), keys=[published])


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "..", "é.é.é", "a" * 200_000, "e30.e30."])
def test_what_is_no_token_is_not_believed(text: str) -> None:
    with pytest.raises(SignInRefused, match="token-invalid"):
        judged(provider(), text=text)


def test_a_token_that_is_cut_or_changed_is_not_believed() -> None:
    of = provider()
    header, body, signature = of.id_token("the nonce").split(".")
    other = provider(claims={"sub": "root"}).id_token("the nonce").split(".")[1]
    for text in (f"{header}.{body}.", f"{header}.{other}.{signature}", f"{header}.{body}"):
        with pytest.raises(SignInRefused, match="token-invalid"):
            judged(of, text=text)


@pytest.mark.parametrize("count", [1, 2])
def test_a_key_that_is_not_known_is_told_from_a_wrong_signature(count: int) -> None:
    of = provider(key=Key(kid="new", private=rsa_key()))
    with pytest.raises(UnknownKey):
        judged(of, keys=[Key(kid=f"old{n}", private=rsa_key()) for n in range(count)])


def test_one_sign_in_has_a_state_a_nonce_and_a_verifier_of_its_own() -> None:
    one, other = (Flow.begin(word * 43, at=NOW, where="/") for word in "ab")
    assert len({one.state, one.nonce, one.verifier, other.state, other.nonce, other.verifier}) == 6
    assert "a" * 43 not in one.state + one.nonce + one.verifier + repr(one)
    digest = hashlib.sha256(one.verifier.encode()).digest()
    assert one.challenge == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert len(one.verifier) >= 43  # RFC 7636 4.1
    assert one.is_answered_by(one.state)
    assert not one.is_answered_by(other.state)


@pytest.mark.parametrize("where", ["/", "/studies?q=a.b&c=d%20e", "/é"])
def test_a_sign_in_comes_back_from_its_cookie_for_ten_minutes(where: str) -> None:
    flow = Flow.begin("t" * 43, at=NOW + 0.5, where=where)
    assert flow.cookie.isascii()
    assert Flow.read(flow.cookie, at=NOW + 600) == flow
    assert Flow.read(flow.cookie, at=NOW + 601) is None
    assert Flow.read(flow.cookie, at=NOW - 1) is None
    assert Flow.begin("t", at=NOW, where="/" + "x" * 1024).where == "/"


@pytest.mark.parametrize("cookie", ["", "x", "x.y./", "..", ".1./", "x.²./", "x.-1./"])
def test_what_is_no_sign_in_is_none(cookie: str) -> None:
    assert Flow.read(cookie, at=NOW) is None


SETTINGS = Oidc(issuer=ISSUER, client_id=CLIENT)


@pytest.mark.parametrize(
    "name", [None, "", " ada", "ada ", "a\nb", "x" * 65, 7, ["ada"], "a\u202eb"], ids=repr
)
def test_a_name_that_cannot_be_shown_is_none(name: Any) -> None:
    with pytest.raises(SignInRefused, match="name-unusable"):
        entry.identity({"iss": ISSUER, **ADA, "preferred_username": name}, SETTINGS)


@pytest.mark.parametrize(
    ("groups", "held"),
    [(["a", "b"], {"a", "b"}), ("a", {"a"}), ([], set()), (None, set()), ([1, "a", {}], {"a"}),
     ({"a": 1}, set())],
    ids=str,
)  # fmt: skip
def test_groups_are_texts(groups: Any, held: set[str]) -> None:
    who = entry.identity({"iss": ISSUER, **ADA, "groups": groups}, SETTINGS)
    assert who.groups == held


def test_a_claim_is_found_by_its_name_or_by_its_way() -> None:
    claims = {"https://a.example/groups": 1, "realm": {"roles": 2}, "x.y": 3, "x": {"y": 4}}
    names = ("https://a.example/groups", "realm.roles", "x.y", "realm.no", "realm.roles.no", "no")
    assert [entry.found(claims, name) for name in names] == [1, 2, 3, None, None, None]


def test_the_highest_role_counts_and_no_group_is_no_entry() -> None:
    roles: dict[str, PageRole] = {"a": "viewer", "b": "administrator", "c": "operator"}

    def who(*groups: str) -> oidc.Identity:
        return oidc.Identity(issuer=ISSUER, subject="1", name="ada", groups=frozenset(groups))

    assert [oidc.role(who(*one), roles) for one in ("a", "ac", "cba")] == [
        "viewer", "operator", "administrator",
    ]  # fmt: skip
    for groups in ("", "d", "A"):
        with pytest.raises(SignInRefused, match="no-role") as refused:
            oidc.role(who(*groups), roles)
        assert refused.value.name == "ada"


def test_the_roles_of_the_configuration_are_those_of_the_page() -> None:
    assert tuple(str(role) for role in Role) == entry._ROLES


def test_a_provider_elsewhere_is_reached_over_tls_alone() -> None:
    document = {**provider().document(), "token_endpoint": "http://127.0.0.1/token"}
    from dicomnode.errors import Misconfigured

    with pytest.raises(Misconfigured, match="token_endpoint is no https address"):
        metadata.read(document, issuer=ISSUER)
    assert metadata.read(provider().document(), issuer=ISSUER).takes_basic


@pytest.mark.parametrize("methods", [7, "client_secret_basic", ["private_key_jwt"]], ids=repr)
def test_a_way_to_show_the_secret_is_one_that_is_announced(methods: Any) -> None:
    said = {**provider().document(), "token_endpoint_auth_methods_supported": methods}
    assert not metadata.read(said, issuer=ISSUER).takes_basic
