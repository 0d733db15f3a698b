"""Every route: who may ask for it, what comes with the answer, and what nobody gets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from paged import FIRST, PATIENT, Pages, act, pages, sample, sign_in, word

from dicomnode.archive.access import audit
from dicomnode.archive.work import jobs
from dicomnode.web.guard import MAX_BODY_BYTES

NOBODY, VIEWER, OPERATOR, ADMINISTRATOR = range(4)
ROLES = ("nobody", "viewer", "operator", "administrator")

#: Method and path → the least role that gets it.
ROUTES = {
    ("GET", "/healthz"): NOBODY,
    ("GET", "/readyz"): NOBODY,
    ("GET", "/metrics"): NOBODY,
    ("GET", "/sign-in"): NOBODY,
    ("POST", "/sign-in"): NOBODY,
    ("GET", "/sign-in/oidc"): NOBODY,
    ("GET", "/sign-in/oidc/answer"): NOBODY,
    ("GET", "/sign-out/oidc"): NOBODY,
    ("POST", "/sign-out"): VIEWER,
    ("GET", "/"): VIEWER,
    ("GET", "/live"): VIEWER,
    ("GET", "/studies"): VIEWER,
    ("GET", "/studies-list"): VIEWER,
    ("GET", "/studies/{uid}"): VIEWER,
    ("GET", "/studies/{uid}/part"): VIEWER,
    ("GET", "/jobs/{job_id}/picture.png"): VIEWER,
    ("GET", "/accounting"): VIEWER,
    ("GET", "/accounting-table"): VIEWER,
    ("GET", "/models"): VIEWER,
    ("GET", "/peers"): VIEWER,
    ("GET", "/peers-table"): VIEWER,
    ("GET", "/workers"): VIEWER,
    ("GET", "/alerts"): VIEWER,
    ("GET", "/alerts-part"): VIEWER,
    ("GET", "/workers-part"): VIEWER,
    ("GET", "/retention"): VIEWER,
    ("POST", "/jobs/{job_id}/retry"): OPERATOR,
    ("POST", "/jobs/{job_id}/cancel"): OPERATOR,
    ("POST", "/jobs/{job_id}/run"): OPERATOR,
    ("POST", "/jobs/{job_id}/send"): OPERATOR,
    ("POST", "/peers/{name}/echo"): OPERATOR,
    ("GET", "/configuration"): ADMINISTRATOR,
    ("POST", "/configuration/check"): ADMINISTRATOR,
    ("POST", "/configuration/apply"): ADMINISTRATOR,
    ("GET", "/people"): ADMINISTRATOR,
    ("GET", "/audit"): ADMINISTRATOR,
}
#: What is not asked for here: it never ends, or ends the session, or is not there without [oidc].
NOT_ASKED = {
    ("GET", "/live"),
    ("POST", "/sign-out"),
    ("POST", "/sign-in"),
    ("GET", "/sign-in/oidc"),
    ("GET", "/sign-in/oidc/answer"),
    ("GET", "/sign-out/oidc"),
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    with pages(tmp_path_factory.mktemp("page")) as made:
        sample(made.database, made.here.data_dir)
        yield made


@pytest.fixture(scope="module")
def browsers(web: Pages) -> list[Any]:
    return [web.browser(), *(web.as_(name) for name in ROLES[1:])]


def filled(web: Pages, path: str) -> str:
    with web.database.read() as tx:
        (job, *_) = jobs.of_study(tx, FIRST)
    values = {"{uid}": FIRST, "{job_id}": job.id, "{name}": "research"}
    for key, value in values.items():
        path = path.replace(key, value)
    return path


def test_the_table_has_every_route(web: Pages) -> None:
    from dicomnode.web.guard import Guard

    assert isinstance(web.application, Guard)
    routes = {
        (method, route.path)
        for route in _routes(web.application._inner)  # type: ignore[arg-type]
        for method in route.methods
    }
    assert routes == set(ROUTES)


def _routes(application: Any) -> Iterator[APIRoute]:
    """Every route, however the framework nests its routers."""
    stack = list(application.routes)
    while stack:
        one = stack.pop()
        if isinstance(one, APIRoute):
            yield one
        else:
            inner = getattr(one, "routes", None) or getattr(
                getattr(one, "original_router", None), "routes", []
            )
            stack += inner


@pytest.mark.parametrize("role", range(4), ids=ROLES)
@pytest.mark.parametrize("route", sorted(set(ROUTES) - NOT_ASKED), ids=" ".join)
def test_each_role_gets_what_it_may_and_nothing_else(
    web: Pages, browsers: list[Any], route: tuple[str, str], role: int
) -> None:
    method, path = route[0], filled(web, route[1])
    browser = browsers[role]
    if method == "GET":
        answer = browser.get(path)
    else:
        answer = browser.post(path, data={"csrf": word(browser) if role else "x", "model": "no"})
    if role >= ROUTES[route]:
        assert answer.status_code in {200, 303, 422}, answer.text
        assert not answer.headers.get("location", "").startswith("/sign-in")
    elif role == NOBODY and method == "GET":
        assert answer.headers["location"].startswith("/sign-in?next=")
    else:
        assert answer.status_code == (401 if role == NOBODY else 403)


def test_what_somebody_may_not_do_is_written_down(web: Pages, browsers: list[Any]) -> None:
    path = filled(web, "/jobs/{job_id}/retry")
    act(browsers[VIEWER], path)
    with web.database.read() as tx:
        line = audit.newest(tx, limit=1)[0]
    assert (line.person, line.outcome, line.subject) == ("viewer", "refused", f"POST {path}")


@pytest.mark.parametrize("route", sorted(ROUTES), ids=" ".join)
def test_nobody_learns_of_a_patient_without_signing_in(web: Pages, route: tuple[str, str]) -> None:
    answer = web.browser().request(route[0], filled(web, route[1]))
    told = answer.text + str(answer.headers)
    for secret in (PATIENT, PATIENT.split("^")[0], "P-20425", "A-77120", "hippocampus, Brain"):
        assert secret.lower() not in told.lower()


def test_a_part_of_a_page_is_refused_and_not_replaced_by_the_sign_in(web: Pages) -> None:
    assert web.browser().get("/studies-list", headers={"X-Part": "1"}).status_code == 401


@pytest.mark.parametrize(
    "spoilt",
    [
        {"csrf": "0" * 64},
        {"csrf": ""},
        {},
    ],
)
def test_a_form_that_is_not_of_this_session_changes_nothing(
    web: Pages, browsers: list[Any], spoilt: dict[str, str]
) -> None:
    answer = browsers[ADMINISTRATOR].post("/configuration/check", data=spoilt)
    assert answer.status_code == 403


def test_the_word_of_one_session_is_worth_nothing_in_another(
    web: Pages, browsers: list[Any]
) -> None:
    stolen = word(browsers[VIEWER])
    answer = browsers[ADMINISTRATOR].post("/configuration/check", data={"csrf": stolen})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}]
)
def test_a_form_of_another_site_changes_nothing_even_with_the_word(
    web: Pages, browsers: list[Any], headers: dict[str, str]
) -> None:
    browser = browsers[OPERATOR]
    path = filled(web, "/jobs/{job_id}/retry")
    answer = browser.post(path, data={"csrf": word(browser)}, headers=headers)
    assert answer.status_code == 403


def test_the_word_may_come_in_a_header_and_from_our_own_pages(
    web: Pages, browsers: list[Any]
) -> None:
    browser = browsers[OPERATOR]
    headers = {
        "X-CSRF": word(browser),
        "Origin": "http://node.example",
        "Sec-Fetch-Site": "same-origin",
    }
    path = filled(web, "/jobs/{job_id}/retry")
    assert browser.post(path, headers=headers).status_code == 303


@pytest.mark.parametrize("path", ["/sign-in", "/studies", "/nowhere", "/metrics", "/studies/1.2.3"])
def test_every_answer_carries_the_headers_that_browsers_keep_to(
    browsers: list[Any], path: str
) -> None:
    headers = browsers[VIEWER].get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"


def test_no_page_has_anything_inline(web: Pages, browsers: list[Any]) -> None:
    for method, path in set(ROUTES) - NOT_ASKED:
        if method == "GET" and "picture" not in path:
            text = browsers[ADMINISTRATOR].get(filled(web, path)).text
            assert not re.search(r"<script(?! src=)|<style| style=| on[a-z]+=", text), path
            assert not re.search(r"(?:src|href)=\"(?!/|#)", text), path


def test_static_files_are_kept_and_nothing_beside_them_is_to_be_had(browsers: list[Any]) -> None:
    found = browsers[NOBODY].get("/static/live.js")
    assert found.status_code == 200
    assert "immutable" in found.headers["cache-control"]
    assert found.headers["x-content-type-options"] == "nosniff"
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/"):
        assert browsers[ADMINISTRATOR].get(path).status_code in {404, 405}


@pytest.mark.parametrize(
    "job",
    ["..", "%2e%2e", "..%2f..%2fnode.db", "../../../etc/passwd", "0" * 32, "a\0b", "results"],
)
def test_no_path_leads_to_a_file_that_is_no_picture(browsers: list[Any], job: str) -> None:
    answer = browsers[ADMINISTRATOR].get(f"/jobs/{job.replace(chr(0), '%00')}/picture.png")
    assert answer.status_code == 404


def test_a_path_of_the_database_that_leads_out_of_the_data_folder_is_not_followed(
    web: Pages, browsers: list[Any], tmp_path: Path
) -> None:
    from sqlalchemy import update

    from dicomnode.archive import tables

    outside = web.here.data_dir.parent / "secret"
    outside.mkdir()
    (outside / "overlay.png").write_bytes(b"secret")
    with web.database.read() as tx:
        (job, *_) = jobs.of_study(tx, FIRST)
        before = (
            tx.execute(tables.result.select().where(tables.result.c.job == job.id)).mappings().all()
        )
    result = tables.result.c
    with web.database.write() as tx:
        tx.execute(
            update(tables.result)
            .where(result.job == job.id)
            .values(path="results/../../secret/seg.dcm")
        )
    assert browsers[VIEWER].get(f"/jobs/{job.id}/picture.png").status_code == 404
    with web.database.write() as tx:
        for row in before:
            tx.execute(
                update(tables.result)
                .where(result.job == job.id, result.position == row["position"])
                .values(path=row["path"])
            )
    picture = browsers[VIEWER].get(f"/jobs/{job.id}/picture.png")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert picture.headers["cache-control"] == "no-store"


def test_a_body_longer_than_any_form_is_not_read(web: Pages, browsers: list[Any]) -> None:
    long = {"csrf": "x" * (MAX_BODY_BYTES + 1)}
    assert browsers[NOBODY].post("/sign-in", data=long).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 8192

    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = browsers[NOBODY].post("/sign-in", content=pieces(), headers=form)
    assert answer.status_code == 413


def test_an_error_names_nothing_to_whoever_asks(
    web: Pages, browsers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomnode.archive.asked import finding

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("SECRET")

    monkeypatch.setattr(finding, "page", breaks)
    answer = browsers[VIEWER].get("/studies?q=Lindqvist")
    assert answer.status_code == 500
    assert "SECRET" not in answer.text


def test_what_is_looked_for_is_never_logged(
    web: Pages,
    browsers: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dicomnode import log
    from dicomnode.archive.asked import finding

    log.configure(level="debug", as_json=True, strict=True)

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(finding, "page", breaks)
    browsers[VIEWER].get("/studies?q=Lindqvist")
    said = capsys.readouterr().err
    assert "page failed" in said
    assert "Lindqvist" not in said


def test_what_a_sender_wrote_into_a_header_is_text(web: Pages, browsers: list[Any]) -> None:
    from paged import NOW, arrive

    with web.database.write() as tx:
        arrive(
            tx, "1.2.3.4.666", at=NOW - 9e6, PatientName="<script>alert(1)</script>",
            PatientID='"><img src=x>', StudyDescription="{{ 7*7 }}",
        )  # fmt: skip
    for path in ("/studies?q=%3Cscript", "/studies/1.2.3.4.666"):
        text = browsers[VIEWER].get(path).text
        assert "<script>alert" not in text
        assert "<img src=x>" not in text
        assert "49" not in re.findall(r"<td data-label=\"Study\">(.*?)</td>", text)


def test_a_page_of_the_sign_in_alone_sets_no_session(web: Pages) -> None:
    browser = web.browser()
    browser.get("/sign-in")
    assert "dicomnode" not in browser.cookies
    assert sign_in(browser, "viewer").status_code == 303
