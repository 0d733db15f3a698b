"""What no browser asks, of a page over either database: each has texts and numbers of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from paged import Pages, pages, sample, sign_in, word

from dicomnode.web.studies import Filter

ODD = [
    "%00",
    "a%00b",
    "%ff%fe",
    "%ed%a0%80",
    "%f4%8f%bf%bf",
    "x" * 3000,
    "-1",
    "1e999_1.2",
    "nan_1",
]


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server("postgresql"))]
)
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pages]:
    is_sqlite = request.param == "sqlite"
    url = None if is_sqlite else request.getfixturevalue("postgres_url")
    with pages(tmp_path, url=url) as made:
        sample(made.database, made.here.data_dir)
        yield made


def routes(web: Pages) -> list[tuple[str, str]]:
    """Method and path of each operation with something in its path."""
    found, stack = [], list(web.application._inner.routes)  # type: ignore[attr-defined]
    while stack:
        one = stack.pop()
        if isinstance(one, APIRoute):
            found += [(method, one.path) for method in one.methods if "{" in one.path]
        else:
            inner = getattr(one, "original_router", one)
            stack += getattr(inner, "routes", None) or []
    return sorted(found)


def test_no_text_and_no_number_makes_the_page_fail(web: Pages) -> None:
    browser: Any = web.as_("administrator")
    said = word(browser)
    asked = [f"/{place}?{key}={odd}" for place in ("studies", "studies-list")
             for key in Filter().url for odd in ODD]  # fmt: skip
    asked += [f"/audit?{key}={odd}" for key in ("person", "before") for odd in ODD]
    asked += [f"/studies/1.2.3?done={odd}" for odd in ODD]
    for path in asked:
        assert browser.get(path).status_code in {200, 404, 422}, path
    for method, path in routes(web):
        start, _, end = path.partition("{")
        for odd in ODD:
            there = f"{start}{odd}{end.partition('}')[2]}"
            form = {"data": {"csrf": said, "model": "pneumonia", "destination": "research"}}
            answer = browser.request(method, there, **(form if method == "POST" else {}))
            assert answer.status_code in {404, 422}, there


@pytest.mark.parametrize(
    ("name", "status"), [("\x00", 422), ("a\x00b", 422), ("\U0010ffff", 401), ("x" * 3000, 401)]
)
def test_no_name_makes_the_sign_in_fail(web: Pages, name: str, status: int) -> None:
    assert sign_in(web.browser(), name, name).status_code == status


@pytest.mark.parametrize("token", [b"\x00", b"\xff\xfe", b"%00", b"x" * 3000])
def test_no_token_makes_the_page_fail(web: Pages, token: bytes) -> None:
    headers = {"cookie": b"dicomnode=" + token}
    assert web.browser().get("/studies", headers=headers).status_code == 303
