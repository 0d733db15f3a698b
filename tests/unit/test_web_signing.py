"""Signing in and out of the page, and what keeps others from doing so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from paged import PASSWORD, Pages, act, pages, sign_in
from sqlalchemy import func, select

from dicomnode.archive import tables
from dicomnode.archive.access import audit, people
from dicomnode.web import passwords, signing
from dicomnode.web.surroundings import Surroundings


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Pages]:
    with pages(tmp_path) as made:
        yield made


def trail(web: Pages) -> list[audit.Line]:
    with web.database.read() as tx:
        return audit.newest(tx, limit=100)


def test_who_signs_in_sees_the_studies_and_it_is_written_down(web: Pages) -> None:
    browser = web.browser()
    answer = sign_in(browser, "viewer", next="/accounting")
    assert (answer.status_code, answer.headers["location"]) == (303, "/accounting")
    assert browser.get("/studies").status_code == 200
    line = trail(web)[0]
    assert (line.person, line.action, line.outcome) == ("viewer", "sign in", "done")
    assert line.address == "10.0.0.9"


def test_the_cookie_is_for_this_server_alone_and_the_database_has_its_digest(web: Pages) -> None:
    browser = web.browser()
    cookie = sign_in(browser, "viewer").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    token = browser.cookies["dicomnode"]
    with web.database.read() as tx:
        (kept,) = tx.scalars(select(tables.session.c.digest))
    assert kept == hashlib.sha256(token.encode()).hexdigest()


def test_over_tls_the_cookie_is_secure(web: Pages, tmp_path: Path) -> None:
    configuration = web.here.configuration
    secure = configuration.web.model_copy(update={"certificate": tmp_path / "page.crt"})
    here = replace(web.here, configuration=configuration.model_copy(update={"web": secure}))
    from starlette.responses import Response

    from dicomnode.web import security

    response = Response()
    security.set_session(response, here, "token")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-dicomnode=token")
    assert "Secure" in cookie


@pytest.mark.parametrize(
    ("name", "password"), [("viewer", "wrong"), ("nobody", PASSWORD), ("", ""), ("viewer", "")]
)
def test_nobody_learns_what_of_it_was_wrong(web: Pages, name: str, password: str) -> None:
    browser = web.browser()
    answer = sign_in(browser, name, password)
    assert answer.status_code == 401
    assert "Name or password is wrong." in answer.text
    assert "dicomnode" not in browser.cookies


def test_a_name_that_is_no_accounts_is_not_written_down(web: Pages) -> None:
    sign_in(web.browser(), "my secret password", "x")
    line = trail(web)[0]
    assert (line.person, line.outcome, line.detail) == ("", "failed", "no such account")
    with web.database.read() as tx:
        assert not any("secret" in key for key in tx.scalars(select(tables.attempt.c.key)))


def test_a_token_from_before_signing_in_is_worth_nothing_after_it(web: Pages) -> None:
    browser = web.browser()
    browser.cookies.set("dicomnode", "chosen-by-an-attacker")
    sign_in(browser, "viewer")
    token = browser.cookies.get("dicomnode", domain="node.example")
    assert token not in (None, "chosen-by-an-attacker")
    other = web.browser()
    other.cookies.set("dicomnode", "chosen-by-an-attacker")
    assert other.get("/studies").status_code == 303


def test_each_sign_in_has_a_token_of_its_own_and_ends_the_one_before(web: Pages) -> None:
    browser = web.as_("viewer")
    first = browser.cookies["dicomnode"]
    sign_in(browser, "viewer")
    assert browser.cookies["dicomnode"] != first
    other = web.browser()
    other.cookies.set("dicomnode", first)
    assert other.get("/studies").status_code == 303


def test_who_signs_out_is_out(web: Pages) -> None:
    browser = web.as_("viewer")
    token = browser.cookies["dicomnode"]
    assert act(browser, "/sign-out").status_code == 303
    browser.cookies.set("dicomnode", token)
    assert browser.get("/studies").status_code == 303


def test_a_session_ends_after_its_hours(web: Pages) -> None:
    browser = web.as_("viewer")
    web.clock.now += 12 * 3600 - 1
    assert browser.get("/studies").status_code == 200
    web.clock.now += 2
    assert browser.get("/studies").headers["location"] == "/sign-in?next=/studies"


def test_a_new_password_ends_every_session(web: Pages) -> None:
    browser = web.as_("viewer")
    with web.database.write() as tx:
        people.set_password(tx, "viewer", password_hash=passwords.hashed("y" * 12), at=1.0)
    assert browser.get("/studies").status_code == 303
    assert sign_in(browser, "viewer", "y" * 12).status_code == 303


def test_whoever_is_removed_is_out(web: Pages) -> None:
    browser = web.as_("viewer")
    with web.database.write() as tx:
        assert people.remove(tx, "viewer")
    assert browser.get("/studies").status_code == 303


@pytest.mark.parametrize("how", ["removed", "given another password"])
def test_who_is_shut_out_while_the_password_is_looked_at_is_out(
    web: Pages, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    looked = passwords.is_right

    def meanwhile(password: str, kept: str | None) -> bool:
        right = looked(password, kept)
        with web.database.write() as tx:
            if how == "removed":
                people.remove(tx, "viewer")
            else:
                people.set_password(tx, "viewer", password_hash=passwords.hashed("y" * 12), at=1.0)
        return right

    monkeypatch.setattr(passwords, "is_right", meanwhile)
    browser = web.browser()
    assert sign_in(browser, "viewer").status_code == 401
    assert browser.get("/studies").status_code == 303
    assert trail(web)[0].outcome == "failed"


def test_who_has_to_wait_is_written_down_once_a_minute(web: Pages) -> None:
    for _ in range(9):
        sign_in(web.browser(), "viewer", "wrong")
    assert [line.detail for line in trail(web)].count("too many attempts") == 1


def test_who_tried_in_vain_a_day_ago_is_forgotten(web: Pages) -> None:
    def kept() -> int:
        with web.database.read() as tx:
            return tx.scalar(select(func.count()).select_from(tables.attempt)) or 0

    for number in range(3):
        sign_in(web.browser(), f"name{number}", "wrong")
    assert kept() == 4  # three names and an address
    web.clock.now += 86_401
    sign_in(web.browser(), "another", "wrong")
    assert kept() == 2


def test_the_waits_of_an_account_grow_and_end(web: Pages) -> None:
    browser = web.browser()
    for _ in range(5):
        assert sign_in(browser, "viewer", "wrong").status_code == 401
    refused = sign_in(browser, "viewer")  # the right one: it is not even looked at
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    web.clock.now += 1.1
    assert sign_in(browser, "viewer", "wrong").status_code == 401
    assert sign_in(browser, "viewer").headers["retry-after"] == "2"
    web.clock.now += 2.1
    assert sign_in(browser, "viewer").status_code == 303
    assert sign_in(browser, "viewer", "wrong").status_code == 401  # all is forgotten
    assert {"too many attempts", "wrong password"} <= {line.detail for line in trail(web)}


def test_another_account_does_not_wait_and_another_address_does(web: Pages) -> None:
    for _ in range(6):
        sign_in(web.browser(), "viewer", "wrong")
    assert sign_in(web.browser(), "operator").status_code == 303
    assert sign_in(web.browser(address="10.0.0.10"), "viewer").status_code == 429


def test_an_address_that_tries_many_names_waits(web: Pages) -> None:
    browser = web.browser()
    answers = [sign_in(browser, f"name{number}", "wrong").status_code for number in range(21)]
    assert answers == [401] * 20 + [429]
    assert sign_in(browser, "operator").status_code == 429
    assert sign_in(web.browser(address="10.0.0.10"), "operator").status_code == 303


def test_who_gets_in_does_not_wipe_out_what_the_address_failed(web: Pages) -> None:
    browser = web.browser()
    answers = []
    for number in range(21):
        answers.append(sign_in(browser, f"name{number}", "wrong").status_code)
        if number % 5 == 0:
            sign_in(web.browser(), "operator")
    assert answers[-1] == 429


def test_the_waits_have_an_end() -> None:
    patience = people.Patience(free=4)
    assert [patience.wait_s(n) for n in (0, 4, 5, 6, 7)] == [0, 0, 1, 2, 4]
    assert patience.wait_s(10_000) == 900


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://["},
    ],
)
def test_the_form_of_another_site_signs_nobody_in(web: Pages, headers: dict[str, str]) -> None:
    browser = web.browser()
    browser.headers.update(headers)
    assert sign_in(browser, "viewer").status_code == 403


def test_a_form_without_its_word_signs_nobody_in(web: Pages) -> None:
    browser = web.browser()
    browser.get("/sign-in")
    answer = browser.post("/sign-in", data={"name": "viewer", "password": PASSWORD})
    assert answer.status_code == 403
    assert sign_in(browser, "viewer", csrf="0" * 64).status_code == 403


@pytest.mark.parametrize(
    "where", ["https://evil.example/", "//evil.example", "/\\evil.example", "/a\nb", "javascript:x"]
)
def test_signing_in_leads_to_no_other_site(web: Pages, where: str) -> None:
    assert signing.local(where) == "/"
    assert sign_in(web.browser(), "viewer", next=where).headers["location"] == "/"


def test_a_hash_with_other_costs_is_renewed(web: Pages) -> None:
    import argon2

    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8192).hash(PASSWORD)
    with web.database.write() as tx:
        people.rehash(tx, "viewer", password_hash=cheap, at=1.0)
    assert sign_in(web.browser(), "viewer").status_code == 303
    with web.database.read() as tx:
        person = people.person(tx, "viewer")
    assert person is not None
    assert not passwords.is_dated(person.password_hash)


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_a_password_that_is_too_short_or_too_long_is_not_taken(password: str) -> None:
    assert passwords.fault(password)


def test_a_password_far_too_long_costs_nothing() -> None:
    assert not passwords.is_right("x" * 10_000_000, passwords.hashed("y" * 12))


def test_the_surroundings_do_not_show_their_secrets(web: Pages) -> None:
    assert isinstance(web.here, Surroundings)
    assert "configuration" not in repr(web.here)
