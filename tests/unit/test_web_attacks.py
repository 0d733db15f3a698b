"""The usual attacks on the page: traversal, forged forms, guessing, and sessions that are over."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from paged import FIRST, PASSWORD, Pages, pages, sample, sign_in, word
from sqlalchemy import select, update

from dicomnode.archive import tables
from dicomnode.archive.access import audit, people
from dicomnode.archive.access.people import Role
from dicomnode.archive.work import jobs
from dicomnode.web import passwords

SECRET = "the-node-s-own-secret"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("page")
    with pages(folder) as made:
        sample(made.database, made.here.data_dir)
        (folder / "secret").write_text(SECRET)
        yield made


@pytest.fixture(scope="module")
def administrator(web: Pages) -> Any:
    return web.as_("administrator")


def routes(web: Pages, method: str) -> list[str]:
    """The paths of the application that answer to the method, however it nests its routers."""
    found, stack = [], list(web.application._inner.routes)
    while stack:
        one = stack.pop()
        if isinstance(one, APIRoute):
            found += [one.path] if method in one.methods else []
        else:
            inner = getattr(one, "original_router", one)
            stack += getattr(inner, "routes", None) or []
    return sorted(found)


def a_job(web: Pages) -> str:
    with web.database.read() as tx:
        return jobs.of_study(tx, FIRST)[0].id


def filled(web: Pages, path: str) -> str:
    values = {"{uid}": FIRST, "{job_id}": a_job(web), "{name}": "pacs"}
    for key, value in values.items():
        path = path.replace(key, value)
    return path


# ── Traversal ───────────────────────────────────────────────────────────────────────────────────

WAYS_OUT = [
    "../secret", "..", "../../secret", "....//secret", "..\\secret", "..\\..\\secret",
    "/etc/passwd", "%2e%2e%2fsecret", "%2e%2e/secret", "..%2fsecret", "..%5csecret",
    "%252e%252e%252fsecret",
    "..%252fsecret", "%c0%ae%c0%ae%c0%afsecret", "..;/secret", "secret%00.png", "%00", "%0d%0aX: y",
    "file:///etc/passwd", "C:%5csecret", "~root", "a" * 5000, "%ff%fe", "\u2025/secret",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_path_leads_out(web: Pages, administrator: Any, way: str) -> None:
    places = [path for path in routes(web, "GET") if "{" in path] + ["/static/{}", "/{}"]
    for place in places:
        start, _, end = place.partition("{")
        path = f"{start}{way}{end.partition('}')[2]}"
        answer = administrator.get(path)
        assert answer.status_code in {303, 404}, path
        assert SECRET not in answer.text
        assert "root:" not in answer.text
        assert "x" not in answer.headers
        # Where it is sent on, it stays here.
        assert not answer.headers.get("location", "/").startswith(("//", "http"))


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_form_leads_out(web: Pages, administrator: Any, way: str) -> None:
    said = word(administrator)
    for place in (one for one in routes(web, "POST") if "{" in one):
        start, _, end = place.partition("{")
        path = f"{start}{way}{end.partition('}')[2]}"
        answer = administrator.post(path, data={"csrf": said, "model": way, "destination": way})
        assert answer.status_code in {404, 405, 422}, path


@pytest.mark.parametrize("field", ["model", "destination"])
def test_a_name_in_a_form_is_one_of_the_configuration(
    web: Pages, administrator: Any, field: str
) -> None:
    path = filled(web, f"/jobs/{{job_id}}/{'run' if field == 'model' else 'send'}")
    for way in WAYS_OUT:
        answer = administrator.post(path, data={"csrf": word(administrator), field: way})
        assert answer.status_code == 422


@pytest.mark.parametrize(
    ("charset", "name"),
    [("unicode_escape", r"\ud800"), ("utf-7", "+2AA-"), ("undefined", "x"), ("no-such", "x")],
)
def test_what_a_charset_makes_of_a_form_does_not_break_the_page(
    web: Pages, charset: str, name: str
) -> None:
    browser = web.browser()
    found = re.search(r'name="csrf" value="(\w+)"', browser.get("/sign-in").text)
    assert found is not None
    fields = {"csrf": found[1], "name": name, "password": "wrong"}
    parts = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    )
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = browser.post("/sign-in", content=f"{parts}--x--\r\n", headers=headers)
    assert answer.status_code in {401, 422}


# ── Forged forms ────────────────────────────────────────────────────────────────────────────────


def as_form(said: str) -> dict[str, Any]:
    return {"data": {"csrf": said, "model": "pneumonia", "destination": "research"}}


FORGED: dict[str, Any] = {
    "without the word": lambda said: as_form(""),
    "with half of it": lambda said: as_form(said[:32]),
    "with more of it": lambda said: as_form(said + "0"),
    "with it in the URL": lambda said: {"params": {"csrf": said}},
    "with it in a cookie": lambda said: {"headers": {"cookie": f"csrf={said}; x-csrf={said}"}},
    "as text": lambda said: {
        "content": f"csrf={said}", "headers": {"content-type": "text/plain"},
    },
    "as JSON": lambda said: {"json": {"csrf": said}},
    "as a file": lambda said: {"files": {"csrf": ("csrf", said)}},
    "from another site": lambda said: {
        **as_form(said), "headers": {"origin": "https://evil.example"},
    },
    "from a page without a name": lambda said: {**as_form(said), "headers": {"origin": "null"}},
    "from our name under another scheme or port": lambda said: {
        **as_form(said), "headers": {"origin": "http://node.example:81"},
    },
    "from a neighbour": lambda said: {**as_form(said), "headers": {"sec-fetch-site": "same-site"}},
    "from elsewhere": lambda said: {**as_form(said), "headers": {"sec-fetch-site": "cross-site"}},
    "from a bookmark": lambda said: {**as_form(said), "headers": {"sec-fetch-site": "none"}},
}  # fmt: skip


@pytest.mark.parametrize("how", FORGED)
def test_no_forged_form_does_anything(web: Pages, administrator: Any, how: str) -> None:
    said = word(administrator)
    before = standing(web)
    for path in routes(web, "POST"):
        if path == "/sign-in":
            continue  # see test_web_signing
        forged = FORGED[how](said)
        if "cookie" in forged.get("headers", {}):
            token = administrator.cookies["dicomnode"]
            forged["headers"]["cookie"] += f"; dicomnode={token}"
        answer = administrator.post(filled(web, path), **forged)
        # Files are not even looked at.
        assert answer.status_code == (400 if how == "as a file" else 403), (path, how)
    assert standing(web) == before
    assert administrator.get("/accounting").status_code == 200  # nor was anybody signed out


def standing(web: Pages) -> list[Any]:
    """All that a form could change, but for the trail of what was refused."""
    with web.database.read() as tx:
        return [
            tx.execute(select(table).order_by(*table.primary_key.columns)).all()
            for table in (tables.job, tables.delivery, tables.person, tables.session)
        ]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_no_other_method_does_what_a_form_does(web: Pages, administrator: Any, method: str) -> None:
    before = standing(web)
    said = {"csrf": word(administrator), "model": "pneumonia", "destination": "research"}
    for path in set(routes(web, "POST")) - set(routes(web, "GET")):
        answer = administrator.request(
            method, filled(web, path), params=said, headers={"x-csrf": said["csrf"]}
        )
        assert answer.status_code == 405, path
    assert standing(web) == before


# ── The header Host ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"x-forwarded-host": "evil.example"},
        {"forwarded": "for=1.2.3.4;host=evil.example;proto=https"},
        {"x-forwarded-for": "1.2.3.4", "x-forwarded-proto": "https"},
        {"x-original-url": "/audit", "x-rewrite-url": "/audit"},
        {"x-http-method-override": "POST"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_no_header_says_where_the_page_is_or_who_asks(web: Pages, headers: dict[str, str]) -> None:
    browser = web.browser()
    for path in ("/", "/studies", "/studies/", "/sign-in", "/static", "/static/", "/nowhere/"):
        answer = browser.get(path, headers=headers)
        assert "evil.example" not in answer.text + str(answer.headers), path
        assert not answer.headers.get("location", "/").startswith(("//", "http")), path
    sign_in(web.browser(), "nobody", "x")
    browser.headers.update(headers)
    browser.headers.pop("host", None)
    sign_in(browser, "nobody", "x")
    with web.database.read() as tx:
        known = {line.address for line in audit.newest(tx, limit=1000)}
    assert "10.0.0.9" in known
    assert "1.2.3.4" not in known


# ── Guessing ────────────────────────────────────────────────────────────────────────────────────


def test_many_who_guess_at_once_try_no_more_passwords_than_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    is_right = passwords.is_right
    monkeypatch.setattr(
        passwords, "is_right", lambda given, kept: tried.append(given) or is_right(given, kept)
    )
    with pages(tmp_path) as web:
        forms = []
        for _ in range(16):
            browser = web.browser()
            form = browser.get("/sign-in").text
            said = form.partition('name="csrf" value="')[2][:64]
            forms.append((browser, {"name": "administrator", "password": "guess", "csrf": said}))
        asking = [
            threading.Thread(target=browser.post, args=["/sign-in"], kwargs={"data": form})
            for browser, form in forms
        ]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
    assert len(tried) == 5


def test_all_addresses_of_one_network_of_version_6_wait_together(tmp_path: Path) -> None:
    """Whoever has one such address has 2^64 of them."""
    with pages(tmp_path) as web:
        answers = [
            sign_in(web.browser(address=f"2001:db8:1:2::{number:x}"), f"name{number}", "x")
            for number in range(1, 22)
        ]
        assert [one.status_code for one in answers] == [401] * 20 + [429]
        assert sign_in(web.browser(address="2001:db8:1:3::1"), "viewer").status_code == 303
        assert sign_in(web.browser(address="::ffff:10.0.0.9"), "viewer").status_code == 303


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.0.0.9", "address:10.0.0.9"),
        ("::ffff:10.0.0.9", "address:10.0.0.9"),
        ("2001:db8:1:2:3:4:5:6", "address:2001:db8:1:2::/64"),
        ("fe80::1%eth0", "address:fe80::/64"),
        ("", "address:"),
        ("testclient", "address:testclient"),
    ],
)
def test_failures_are_counted_for_what_somebody_has(address: str, key: str) -> None:
    assert people.address_key(address) == key


def test_a_name_written_otherwise_is_another_account_and_not_a_way_around(web: Pages) -> None:
    for name in ("Administrator", "administrator\u200b", "\uff41dministrator"):
        answer = sign_in(web.browser(address="10.9.9.9"), name)
        assert answer.status_code == 401, name


@pytest.mark.parametrize("name", ["' OR '1'='1", "administrator'--", "%", "_", "*"])
def test_a_name_is_no_query(web: Pages, name: str) -> None:
    assert sign_in(web.browser(address="10.9.9.8"), name).status_code == 401


# ── Sessions that are over ──────────────────────────────────────────────────────────────────────


def test_who_is_demoted_may_less_at_once(tmp_path: Path) -> None:
    with pages(tmp_path) as web:
        browser = web.as_("administrator")
        said = word(browser)
        with web.database.write() as tx:
            person = tables.person.c
            tx.execute(
                update(tables.person).where(person.name == "administrator").values(role=Role.VIEWER)
            )
        assert browser.get("/audit").status_code == 403
        answer = browser.post("/configuration/check", data={"csrf": said})
        assert answer.status_code == 403
        assert browser.get("/studies").status_code == 200


def test_who_is_removed_and_comes_back_signs_in_anew(tmp_path: Path) -> None:
    with pages(tmp_path) as web:
        browser = web.as_("operator")
        said = word(browser)
        with web.database.write() as tx:
            people.remove(tx, "operator")
            people.add(
                tx, "operator", role=Role.ADMINISTRATOR,
                password_hash=passwords.hashed(PASSWORD), at=1.0,
            )  # fmt: skip
        assert browser.get("/studies").status_code == 303
        assert browser.post("/configuration/check", data={"csrf": said}).status_code == 401


@pytest.mark.parametrize(
    "token",
    ["", "0" * 43, "' OR 1=1 --", "%00", "../../session", "x" * 4000, "é".encode(), b"\xff\xfe"],
)
def test_no_other_token_is_a_session(web: Pages, token: str | bytes) -> None:
    web.as_("viewer")
    with web.database.read() as tx:
        (digest, *_) = tx.scalars(select(tables.session.c.digest))
    for one in (token, digest):  # what the database has is no token either
        kept = one if isinstance(one, bytes) else one.encode()
        answer = web.browser().get("/studies", headers={"cookie": b"dicomnode=" + kept})
        assert answer.status_code == 303


def test_of_two_cookies_of_one_name_neither_is_better(web: Pages) -> None:
    mine = web.as_("viewer").cookies["dicomnode"]
    for cookie in (f"dicomnode=x; dicomnode={mine}", f"dicomnode={mine}; dicomnode=x"):
        answer = web.browser().get("/audit", headers={"cookie": cookie})
        assert answer.status_code in {303, 403}


def test_a_place_of_the_trail_that_no_database_has_is_not_understood(administrator: Any) -> None:
    for before in ("-1", str(2**63), "9" * 5000, "1e9", "x"):
        assert administrator.get(f"/audit?before={before}").status_code == 422, before
