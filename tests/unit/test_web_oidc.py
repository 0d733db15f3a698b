"""Signing in by OpenID Connect: who is let in, and whom no trick lets in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import provider as providers
import pytest
from paged import PASSWORD, Pages, act, pages, sign_in
from provider import Key, Provider, back, rsa_key, through

from dicomnode import log
from dicomnode.archive.access import audit, people
from dicomnode.archive.access.people import Role
from dicomnode.oidc import provider as asking

URL = "https://node.example"
SESSION = "__Host-dicomnode"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providers.provider() as made:
        yield made


@pytest.fixture
def web(tmp_path: Path, provider: Provider) -> Iterator[Pages]:
    more = providers.settings(provider, tmp_path, public_url=URL)
    with pages(tmp_path, web=more) as made:
        provider.clock = made.clock
        yield made


def last(web: Pages) -> tuple[str, str, str]:
    """The person, the outcome and the detail of the last line of the audit trail."""
    with web.database.read() as tx:
        line = audit.newest(tx, limit=1)[0]
    assert line.action == "sign in"
    assert line.address == "10.0.0.9"
    return line.person, line.outcome, line.detail


def change(web: Pages, **values: Any) -> None:
    """Another [oidc] comes into force."""
    whole = web.here.configuration
    oidc = whole.oidc.model_copy(update=values)
    web.here.change(whole.model_copy(update={"oidc": oidc}), web.here.bundles)


def role_of(browser: Any) -> str | None:
    """Who the page thinks that this is."""
    answer = browser.get("/accounting")
    if answer.status_code != 200:
        return None
    return next(str(role) for role in Role if f"<small>{role}</small>" in answer.text)


# ── Who is let in ───────────────────────────────────────────────────────────────────────────────


def test_who_signs_in_at_the_provider_is_in_with_the_role_of_the_group(
    web: Pages, provider: Provider
) -> None:
    browser = web.browser()
    answer = through(provider, browser, "/sign-in/oidc?next=/accounting%3Fx%3D1")
    assert answer.status_code == 200
    assert 'content="0; url=/accounting?x=1"' in answer.text
    assert role_of(browser) == "operator"
    assert last(web) == ("ada", "done", "OpenID Connect, operator")
    cookies = answer.headers.get_list("set-cookie")
    (session,) = [one for one in cookies if one.startswith(f"{SESSION}=")]
    assert all(word in session.lower() for word in ("secure", "httponly", "samesite=strict"))


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_keys_of_either_kind_are_taken(web: Pages, provider: Provider, alg: str) -> None:
    if alg == "ES256":
        provider.rotate()
    assert through(provider, web.browser()).status_code == 200


def test_what_is_asked_for_is_what_the_standard_asks(web: Pages, provider: Provider) -> None:
    browser = web.browser()
    sent = browser.get("/sign-in/oidc", headers={"host": "evil.example"})
    asked = {key: one[0] for key, one in parse_qs(urlsplit(sent.headers["location"]).query).items()}
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["scope"] == "openid profile"
    # Never from the header Host.
    assert asked["redirect_uri"] == f"{URL}/sign-in/oidc/answer"
    assert {len(asked[key]) for key in ("state", "nonce", "code_challenge")} == {43}
    again = web.browser().get("/sign-in/oidc").headers["location"]
    assert not {asked["state"], asked["nonce"], asked["code_challenge"]} & {
        one[0] for one in parse_qs(urlsplit(again).query).values()
    }


def test_of_several_groups_the_highest_counts_and_the_role_is_taken_anew_each_time(
    web: Pages, provider: Provider
) -> None:
    elsewhere, browser = web.browser(), web.browser()
    provider.person = {**providers.ADA, "groups": ["radiology", "dicom-admins"]}
    through(provider, elsewhere)
    assert role_of(elsewhere) == "administrator"
    provider.person = {**providers.ADA, "groups": ["radiology"]}
    through(provider, browser)
    assert role_of(browser) == "viewer"
    assert role_of(elsewhere) == "viewer"  # the older session is no way around it


def test_who_is_in_no_group_any_more_is_out_everywhere_and_told(
    web: Pages, provider: Provider
) -> None:
    browser = web.browser()
    through(provider, browser)
    provider.person = {**providers.ADA, "groups": ["staff"]}
    answer = through(provider, web.browser())
    assert answer.status_code == 403
    assert "You are known as ada, and are in none of the groups" in answer.text
    assert last(web) == ("ada", "refused", "OpenID Connect: no-role")
    assert role_of(browser) is None


def test_what_a_sign_in_does_to_the_accounts_is_written_down(
    web: Pages, provider: Provider
) -> None:
    for person in (
        {},
        {},
        {"groups": ["radiology"]},
        {"groups": ["radiology"], "preferred_username": "ada.lovelace"},
        {"groups": []},
        {"groups": []},
    ):
        provider.person = {**providers.ADA, **person}
        through(provider, web.browser())
    with web.database.read() as tx:
        lines = [one for one in audit.newest(tx, limit=99) if one.action != "sign in"]
    assert [(one.action, one.subject, one.detail) for one in reversed(lines)] == [
        ("add person", "ada", "OpenID Connect, operator"),
        ("set role", "ada", "OpenID Connect, viewer"),
        ("remove person", "ada", "OpenID Connect, viewer"),
        ("add person", "ada.lovelace", "OpenID Connect, viewer"),
        ("remove person", "ada.lovelace", "OpenID Connect"),
    ]


def test_a_group_may_come_alone_or_from_within_another_claim(
    tmp_path: Path, provider: Provider
) -> None:
    more = 'groups_claim = "realm_access.roles"\nname_claim = "email"'
    with pages(
        tmp_path, web=providers.settings(provider, tmp_path, public_url=URL, more=more)
    ) as web:
        provider.clock = web.clock
        provider.person = {
            "sub": "1", "email": "a@b.example", "realm_access": {"roles": "radiology"},
        }  # fmt: skip
        browser = web.browser()
        through(provider, browser)
        assert role_of(browser) == "viewer"
        assert last(web)[0] == "a@b.example"


def test_what_the_id_token_lacks_is_asked_of_the_provider(web: Pages, provider: Provider) -> None:
    provider.person = {"sub": "4711"}
    provider.more = dict(providers.ADA)
    browser = web.browser()
    through(provider, browser)
    assert role_of(browser) == "operator"
    provider.more = {**providers.ADA, "sub": "0815"}
    assert through(provider, web.browser()).status_code == 403
    assert last(web) == ("", "refused", "OpenID Connect: token-invalid")


def test_what_the_id_token_says_counts_before_what_is_told_beside_it(
    web: Pages, provider: Provider
) -> None:
    provider.person = {"sub": "4711", "groups": ["radiology"]}
    provider.more = {**providers.ADA, "groups": ["dicom-admins"]}
    browser = web.browser()
    through(provider, browser)
    assert role_of(browser) == "viewer"


def test_keys_that_were_replaced_are_fetched_once(web: Pages, provider: Provider) -> None:
    through(provider, web.browser())
    provider.rotate()
    assert through(provider, web.browser()).status_code == 200
    assert provider.asked.count("/keys") == 2
    through(provider, web.browser())
    assert provider.asked.count("/keys") == 2
    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_keys_that_are_of_no_use_here_are_passed_over(web: Pages, provider: Provider) -> None:
    class Other(Key):
        @property
        def public(self) -> dict[str, str]:
            return {"kty": "EC", "crv": "BP-256", "kid": self.kid, "x": "AA", "y": "AA"}

    provider.publishes = [Other(kid="other", private=None), *provider.publishes]
    assert through(provider, web.browser()).status_code == 200


def test_a_key_that_is_not_published_is_none(web: Pages, provider: Provider) -> None:
    provider.key = Key(kid="stranger", private=rsa_key(1))
    assert through(provider, web.browser()).status_code == 403
    assert last(web) == ("", "refused", "OpenID Connect: token-invalid")


# ── Whom no token lets in ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"aud": "another-client"},
        {"iss": "https://evil.example"},
        {"exp": 1_795_790_000 - 61},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_sign_in_lets_nobody_in(
    web: Pages, provider: Provider, claims: dict[str, Any]
) -> None:
    provider.claims = claims
    browser = web.browser()
    answer = through(provider, browser)
    assert answer.status_code == 403
    assert "cannot be believed" in answer.text
    assert "evil" not in answer.text
    assert role_of(browser) is None
    assert last(web) == ("", "refused", "OpenID Connect: token-invalid")


@pytest.mark.parametrize(
    "key",
    [
        Key(kid="one", private=rsa_key(), alg="none", method="none"),
        Key(kid="one", private=rsa_key(), alg="HS256", method="HS256"),
        Key(kid="one", private=rsa_key(1)),
    ],
    ids=lambda key: f"{key.alg}-by-{key.method or key.alg}",
)
def test_a_token_that_the_provider_has_not_signed_lets_nobody_in(
    web: Pages, provider: Provider, key: Key
) -> None:
    provider.key = key  # what it publishes is as before
    assert through(provider, web.browser()).status_code == 403
    assert last(web) == ("", "refused", "OpenID Connect: token-invalid")


def test_a_secret_that_the_provider_publishes_as_a_key_signs_nothing(
    web: Pages, provider: Provider
) -> None:
    class Shared(Key):
        @property
        def public(self) -> dict[str, str]:
            return {"kty": "oct", "kid": self.kid, "k": providers.encoded(self.pem)}

    provider.key = Shared(kid="one", private=rsa_key(), alg="HS256", method="HS256")
    provider.publishes += [provider.key]
    assert through(provider, web.browser()).status_code == 403


@pytest.mark.parametrize("id_token", ["", "a.b.c"])
def test_what_is_no_token_lets_nobody_in(
    web: Pages, provider: Provider, monkeypatch: pytest.MonkeyPatch, id_token: str
) -> None:
    monkeypatch.setattr(provider, "id_token", lambda _: id_token)
    assert through(provider, web.browser()).status_code == 403
    assert last(web)[2] == "OpenID Connect: token-invalid"


@pytest.mark.parametrize("name", ["", "a\nb", 7], ids=repr)
def test_a_name_that_cannot_be_shown_is_none(web: Pages, provider: Provider, name: Any) -> None:
    provider.person = {**providers.ADA, "preferred_username": name}
    assert through(provider, web.browser()).status_code == 403
    assert last(web) == ("", "refused", "OpenID Connect: name-unusable")


# ── Whom no answer lets in ──────────────────────────────────────────────────────────────────────


def path(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.path}?{parts.query}"


def test_an_answer_is_taken_once(web: Pages, provider: Provider) -> None:
    browser = web.browser()
    answered = back(provider, browser)
    flow = browser.cookies["__Host-dicomnode-oidc"]
    assert browser.get(answered).status_code == 200
    assert browser.get(answered).status_code == 403  # the browser has forgotten it
    assert last(web)[2] == "OpenID Connect: not-begun-here"
    browser.cookies.set("__Host-dicomnode-oidc", flow)
    assert browser.get(answered).status_code == 403  # the node has not
    assert last(web)[2] == "OpenID Connect: answered-twice"
    assert provider.asked.count("/token") == 1


def test_a_code_of_another_sign_in_is_not_redeemed(web: Pages, provider: Provider) -> None:
    stolen = parse_qs(urlsplit(back(provider, web.browser())).query)["code"][0]
    browser = web.browser()
    state = parse_qs(urlsplit(back(provider, browser)).query)["state"][0]
    assert browser.get(f"/sign-in/oidc/answer?code={stolen}&state={state}").status_code == 403
    assert last(web)[2] == "OpenID Connect: code-refused"


def test_an_answer_signs_in_no_other_browser_than_the_one_that_began(
    web: Pages, provider: Provider
) -> None:
    victim = web.browser()
    answered = back(provider, web.browser())
    assert victim.get(answered).status_code == 403
    back(provider, victim)  # it has begun one of its own
    assert victim.get(answered).status_code == 403
    assert role_of(victim) is None
    assert last(web)[2] == "OpenID Connect: not-begun-here"
    assert "/token" not in provider.asked


@pytest.mark.parametrize("state", ["", "x", "é", "%FF", "a" * 5000])
def test_an_answer_without_its_state_is_none(web: Pages, provider: Provider, state: str) -> None:
    browser = web.browser()
    back(provider, browser)
    assert browser.get(f"/sign-in/oidc/answer?code=x&state={state}").status_code == 403


@pytest.mark.parametrize(
    "flow",
    ["", "x", "x.y", "x.1.", "..", "x.99999999999999999999./", f"x.{'9' * 5000}./", "x.²./"],
    ids=lambda flow: flow[:30],
)
def test_a_cookie_that_holds_no_sign_in_is_none(web: Pages, flow: str) -> None:
    browser = web.browser()
    headers = {"cookie": f"__Host-dicomnode-oidc={flow}".encode()}
    assert browser.get("/sign-in/oidc/answer?code=x&state=x", headers=headers).status_code == 403


def test_an_answer_comes_within_ten_minutes(web: Pages, provider: Provider) -> None:
    browser = web.browser()
    answered = back(provider, browser)
    web.clock.now += 601
    assert browser.get(answered).status_code == 403


def test_the_answer_of_another_provider_is_not_redeemed(web: Pages, provider: Provider) -> None:
    provider.redirects = {"iss": "https://evil.example"}
    assert through(provider, web.browser()).status_code == 403
    assert last(web)[2] == "OpenID Connect: other-issuer"
    provider.redirects = {"iss": provider.issuer}
    assert through(provider, web.browser()).status_code == 200
    assert provider.asked.count("/token") == 1


def test_a_provider_that_names_itself_always_does(web: Pages, provider: Provider) -> None:
    provider.discovery = {"authorization_response_iss_parameter_supported": True}
    assert through(provider, web.browser()).status_code == 403
    assert last(web)[2] == "OpenID Connect: other-issuer"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"code": None, "error": "access_denied"}, "access_denied"),
        ({"code": None, "error": "<script>", "error_description": "SECRET"}, "it says why"),
        ({"error": "access_denied"}, "access_denied"),
        ({"code": None}, "it says why"),
    ],
)
def test_who_is_denied_is_told(
    web: Pages, provider: Provider, said: dict[str, str | None], told: str
) -> None:
    provider.redirects = said
    answer = through(provider, web.browser())
    assert answer.status_code == 403
    assert told in answer.text
    assert "SECRET" not in answer.text
    assert "<script>" not in answer.text
    assert last(web)[2] == "OpenID Connect: denied-by-provider"
    assert "/token" not in provider.asked


@pytest.mark.parametrize(
    "where",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/a\nb",
        "javascript:x",
        "x" * 9,
    ],
)
def test_signing_in_leads_to_no_other_site(web: Pages, provider: Provider, where: str) -> None:
    browser = web.browser()
    sent = browser.get("/sign-in/oidc", params={"next": where})
    assert sent.status_code == 303
    query = urlsplit(sent.headers["location"]).query
    asked = {key: one[0] for key, one in parse_qs(query).items()}
    answer = browser.get(provider.approve(asked))
    assert 'content="0; url=/"' in answer.text


def test_a_path_in_the_cookie_cannot_be_changed_on_the_way(web: Pages, provider: Provider) -> None:
    browser = web.browser()
    answered = back(provider, browser)
    kept = browser.cookies["__Host-dicomnode-oidc"]
    browser.cookies.clear()
    browser.cookies.set("__Host-dicomnode-oidc", f"{kept.rpartition('.')[0]}.%2Faudit")
    assert browser.get(answered).status_code == 403


def test_another_site_cannot_send_people_through_a_sign_in(web: Pages) -> None:
    for site in ("cross-site", "same-site"):
        answer = web.browser().get("/sign-in/oidc", headers={"sec-fetch-site": site})
        assert answer.status_code == 200
        assert "Sign in with the hospital&#39;s account" in answer.text


def test_a_token_from_before_signing_in_is_worth_nothing_after_it(
    web: Pages, provider: Provider
) -> None:
    browser, mine = web.browser(), web.as_("viewer")
    browser.cookies.set(SESSION, "chosen-by-an-attacker")
    through(provider, browser)
    assert role_of(browser) == "operator"
    other = web.browser()
    other.cookies.set(SESSION, "chosen-by-an-attacker")
    assert role_of(other) is None
    before = mine.cookies[SESSION]
    through(provider, mine)
    other.cookies.set(SESSION, before)
    assert role_of(other) is None


def test_the_session_before_is_over_though_its_cookie_does_not_come_with_the_answer(
    web: Pages, provider: Provider
) -> None:
    browser, other = web.as_("viewer"), web.browser()
    before = browser.cookies[SESSION]
    answered = back(provider, browser)
    browser.cookies.pop(SESSION, None)  # "strict": another site has sent the browser here
    assert browser.get(answered).status_code == 200
    other.cookies.set(SESSION, before)
    assert role_of(other) is None


# ── Names ───────────────────────────────────────────────────────────────────────────────────────


def test_a_name_that_an_account_of_the_node_has_is_not_taken_over(
    web: Pages, provider: Provider
) -> None:
    provider.person = {**providers.ADA, "preferred_username": "administrator"}
    browser = web.browser()
    answer = through(provider, browser)
    assert answer.status_code == 403
    assert "is another account&#39;s here" in answer.text
    assert last(web) == ("", "refused", "OpenID Connect: name-taken, as administrator")
    assert role_of(browser) is None
    assert sign_in(web.browser(), "administrator").status_code == 303


def test_who_is_refused_under_the_name_of_an_account_is_not_written_down_as_that(
    web: Pages, provider: Provider
) -> None:
    provider.person = {**providers.ADA, "preferred_username": "administrator", "groups": []}
    assert through(provider, web.browser()).status_code == 403
    assert last(web) == ("", "refused", "OpenID Connect: no-role, as administrator")


def test_a_person_is_who_the_provider_says_whatever_the_name(
    web: Pages, provider: Provider
) -> None:
    browser = web.browser()
    through(provider, browser)
    provider.person = {**providers.ADA, "sub": "another"}
    assert through(provider, web.browser()).status_code == 403
    assert last(web)[2] == "OpenID Connect: name-taken, as ada"
    provider.person = {**providers.ADA, "preferred_username": "ada.lovelace"}
    through(provider, web.browser())
    with web.database.read() as tx:
        names = {one.name for one in people.every(tx)}
    assert names == {"ada.lovelace", "viewer", "operator", "administrator"}
    assert role_of(browser) is None


@pytest.mark.parametrize("password", ["", "nobody", PASSWORD])
def test_whom_a_provider_names_has_no_password(
    web: Pages, provider: Provider, password: str
) -> None:
    through(provider, web.browser())
    assert sign_in(web.browser(), "ada", password).status_code == 401
    with web.database.write() as tx:
        assert not people.set_password(tx, "ada", password_hash="x", at=1.0)
    assert sign_in(web.browser(), "ada", password).status_code == 401


def test_whom_a_provider_named_that_is_none_any_more_is_out(web: Pages, provider: Provider) -> None:
    browser = web.browser()
    through(provider, browser)
    change(web, issuer="https://other.example")
    assert role_of(browser) is None


def test_a_configuration_that_is_reloaded_counts_from_the_next_sign_in_on(
    web: Pages, provider: Provider
) -> None:
    browser = web.browser()
    through(provider, browser)
    change(web, roles={"staff": "viewer"})
    assert role_of(browser) == "operator"
    through(provider, web.browser())
    assert role_of(browser) == "viewer"
    change(web, issuer=None)
    assert web.browser().get("/sign-in/oidc").status_code == 404


# ── A provider that is away ─────────────────────────────────────────────────────────────────────


def test_while_the_provider_is_away_the_accounts_of_the_node_sign_in(
    web: Pages, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(level="debug", as_json=True, strict=True)
    provider.is_away = True
    answer = web.browser().get("/sign-in/oidc")
    assert answer.status_code == 503
    assert "does not work at the moment (provider-unreachable)" in answer.text
    assert "or with an account of this node" in answer.text
    assert "provider-unreachable" in capsys.readouterr().err
    assert last(web) == ("", "failed", "OpenID Connect: provider-unreachable")
    assert sign_in(web.browser(), "viewer").status_code == 303
    assert web.browser().get("/sign-in").status_code == 200


def test_who_comes_back_while_the_provider_is_away_has_not_failed(
    web: Pages, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_SILENT_S", 0.0)
    for _ in range(21):  # as often as an address has to wait
        browser = web.browser()
        answered = back(provider, browser)
        provider.is_away = True
        assert browser.get(answered).status_code == 503
        provider.is_away = False
    assert sign_in(web.browser(), "viewer").status_code == 303


def test_what_anybody_may_ask_for_is_written_down_once_a_minute(
    web: Pages, provider: Provider
) -> None:
    def ask(address: str = "10.0.0.9") -> int:
        for path in ("/sign-in/oidc", "/sign-in/oidc/answer"):
            web.browser(address=address).get(path)
        with web.database.read() as tx:
            return len(audit.newest(tx, limit=100))

    provider.is_away = True
    assert [ask(), ask(), ask("10.0.0.10")] == [2, 2, 4]
    web.clock.now += 60
    assert ask() == 6


def test_a_provider_that_was_silent_is_not_asked_again_at_once(
    web: Pages, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.is_away = True
    for _ in range(5):
        assert web.browser().get("/sign-in/oidc").status_code == 503
    assert len(provider.asked) == 1
    monkeypatch.setattr(asking, "_SILENT_S", 0.0)
    provider.is_away = False
    assert through(provider, web.browser()).status_code == 200


def test_a_provider_that_hangs_holds_up_few(
    web: Pages, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_AT_ONCE", 2)
    provider.hung = threading.Event()
    waiting = [threading.Thread(target=web.browser().get, args=["/sign-in/oidc"]) for _ in range(2)]
    for one in waiting:
        one.start()
    while len(provider.asked) < 2:
        assert any(one.is_alive() for one in waiting)
    answer = web.browser().get("/sign-in/oidc")
    assert "(provider-busy)" in answer.text
    assert sign_in(web.browser(), "viewer").status_code == 303
    provider.hung.set()
    for one in waiting:
        one.join()


def test_a_provider_that_goes_between_is_told(web: Pages, provider: Provider) -> None:
    browser = web.browser()
    answered = back(provider, browser)
    provider.is_away = True
    answer = browser.get(answered)
    assert answer.status_code == 503
    assert last(web) == ("", "failed", "OpenID Connect: provider-unreachable")


@pytest.mark.parametrize(
    ("discovery", "reason"),
    [
        ({"issuer": "https://evil.example"}, "provider-unusable"),
        ({"issuer": None}, "provider-unusable"),
        ({"token_endpoint": None}, "provider-unusable"),
        ({"token_endpoint": 7}, "provider-unusable"),
        ({"jwks_uri": "http://keys.example/"}, "provider-unusable"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "provider-unusable"),
        ({"end_session_endpoint": "ftp://x.example"}, "provider-unusable"),
        ({"userinfo_endpoint": "http://[x"}, "provider-unusable"),
    ],
    ids=str,
)
def test_what_a_provider_says_of_itself_is_looked_at(
    web: Pages, provider: Provider, discovery: dict[str, Any], reason: str
) -> None:
    provider.discovery = discovery
    assert web.browser().get("/sign-in/oidc").status_code == 503
    assert last(web) == ("", "failed", f"OpenID Connect: {reason}")


def test_a_provider_that_does_not_know_the_node_is_told(
    web: Pages, provider: Provider, tmp_path: Path
) -> None:
    (tmp_path / "client-secret").write_text("old")
    assert through(provider, web.browser()).status_code == 503
    assert last(web) == ("", "failed", "OpenID Connect: client-refused")
    # A secret that is replaced is used from the next sign-in on.
    (tmp_path / "client-secret").write_text(providers.SECRET)
    assert through(provider, web.browser()).status_code == 200


def test_failing_too_often_from_one_address_has_to_wait(web: Pages, provider: Provider) -> None:
    provider.claims = {"nonce": "another"}
    answers = [through(provider, web.browser()).status_code for _ in range(20)]
    assert answers == [403] * 20
    provider.claims = {}
    refused = through(provider, web.browser())
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert sign_in(web.browser(), "viewer").status_code == 429
    elsewhere = web.browser(address="10.0.0.10")
    assert through(provider, elsewhere).status_code == 200
    web.clock.now += 2
    assert through(provider, web.browser()).status_code == 200


# ── Out again ───────────────────────────────────────────────────────────────────────────────────


def test_who_signs_out_is_offered_to_sign_out_there_too(web: Pages, provider: Provider) -> None:
    browser = web.browser()
    through(provider, browser)
    left = act(browser, "/sign-out")
    assert left.headers["location"] == "/sign-in?left=provider"
    assert role_of(browser) is None
    assert 'href="/sign-out/oidc"' in browser.get("/sign-in?left=provider").text
    assert 'href="/sign-out/oidc"' not in browser.get("/sign-in").text
    there = browser.get("/sign-out/oidc")
    assert there.status_code == 303
    to = urlsplit(there.headers["location"])
    assert there.headers["location"].startswith(f"{provider.issuer}/end-session?")
    assert parse_qs(to.query) == {
        "client_id": [providers.CLIENT],
        "post_logout_redirect_uri": [f"{URL}/"],
    }
    mine = web.as_("viewer")
    assert act(mine, "/sign-out").headers["location"] == "/sign-in"


def test_a_provider_that_ends_no_sessions_is_not_offered(web: Pages, provider: Provider) -> None:
    provider.discovery = {"end_session_endpoint": None}
    browser = web.browser()
    through(provider, browser)
    assert act(browser, "/sign-out").headers["location"] == "/sign-in"
    assert browser.get("/sign-out/oidc").status_code == 404


def test_without_a_provider_there_is_no_button_and_nothing_behind_it(tmp_path: Path) -> None:
    with pages(tmp_path) as web:
        browser = web.browser()
        assert "oidc" not in browser.get("/sign-in").text
        for place in ("/sign-in/oidc", "/sign-in/oidc/answer", "/sign-out/oidc"):
            assert browser.get(place).status_code == 404


def test_who_is_known_is_shown_with_the_way_in(web: Pages, provider: Provider) -> None:
    through(provider, web.browser())
    text = web.as_("administrator").get("/people").text
    assert f'title="{provider.issuer}">OpenID Connect' in text
    assert "the role is taken anew" in text.lower()
    assert providers.SECRET not in web.as_("administrator").get("/configuration").text
