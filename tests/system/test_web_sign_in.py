"""Signing in by OpenID Connect in a real browser, for which the provider is another site."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import axe
import ohif
import paged
import provider as providers
import pytest
import running
import servers
from playwright.sync_api import Browser, Page, expect
from provider import Provider

pytestmark = pytest.mark.server("chromium")

PICTURES = running.ROOT / "out" / "web"
SIZES = {"wide": {"width": 1280, "height": 800}, "narrow": {"width": 390, "height": 844}}
BUTTON = "Sign in with the hospital's account"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with ohif.chromium() as made:
        yield made


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providers.provider() as made:
        yield made


@pytest.fixture
def where(tmp_path: Path, provider: Provider) -> Iterator[str]:
    """The address of a page: "localhost", which to a browser is another site than 127.0.0.1."""
    port = servers.free_port()
    address = f"http://localhost:{port}"
    web = providers.settings(provider, tmp_path, public_url=address)
    with paged.pages(tmp_path, web=web) as made:
        provider.clock = made.clock
        paged.sample(made.database, made.here.data_dir)
        with paged.served(made, port=port):
            yield address


def open_page(browser: Browser, *, size: str = "wide", scheme: str = "light") -> Page:
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.on("console", lambda said: _no_policy_is_broken(said.text))
    return page


def _no_policy_is_broken(said: str) -> None:
    assert "Content Security" not in said


def test_somebody_signs_in_by_the_button_and_out_again(
    browser: Browser, provider: Provider, where: str
) -> None:
    page = open_page(browser)
    page.goto(f"{where}/accounting")
    page.get_by_role("link", name=BUTTON).click()
    page.get_by_role("link", name="Continue as Ada").click()
    # What was asked for first, and no sign-in in between: the session's cookie came along.
    expect(page).to_have_url(f"{where}/accounting")
    expect(page.locator(".who")).to_have_text("adaoperator")
    assert not [one for one in page.context.cookies() if one["name"] == "dicomnode-oidc"]
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="sign out there, too").click()
    expect(page.get_by_role("heading", name="Signed out everywhere")).to_be_visible()
    page.goto(f"{where}/studies")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.context.close()


def test_an_answer_that_another_browser_was_given_signs_nobody_in(
    browser: Browser, provider: Provider, where: str
) -> None:
    mine, theirs = open_page(browser), open_page(browser)
    mine.goto(f"{where}/sign-in")
    mine.get_by_role("link", name=BUTTON).click()
    answered = provider.approve(providers.asked_of(mine.url))
    theirs.goto(answered)
    expect(theirs.get_by_role("alert")).to_contain_text("was not begun in this browser")
    mine.goto(answered)
    expect(mine.locator(".who")).to_have_text("adaoperator")
    mine.context.close()
    theirs.context.close()


def test_the_sign_in_needs_no_script(browser: Browser, provider: Provider, where: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{where}/studies")
    page.get_by_role("link", name=BUTTON).click()
    page.get_by_role("link", name="Continue as Ada").click()
    expect(page).to_have_url(f"{where}/studies")
    expect(page.locator(".who")).to_have_text("adaoperator")
    context.close()


@pytest.mark.server("npm")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_sign_in_can_be_used_by_everybody_and_fits(
    browser: Browser, provider: Provider, where: str, size: str, scheme: str
) -> None:
    try:
        axe.script()
    except ohif.NotFetched as error:
        servers.do_without(str(error))
    PICTURES.mkdir(parents=True, exist_ok=True)
    page = open_page(browser, size=size, scheme=scheme)
    faults: dict[str, list[str]] = {}
    provider.person = {**providers.ADA, "groups": []}

    def look(name: str) -> None:
        faults[name] = axe.faults(page)
        page.screenshot(path=PICTURES / f"{name}-{size}-{scheme}.png", full_page=True)
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), name

    page.goto(f"{where}/sign-in")
    look("sign-in-oidc")
    page.get_by_role("link", name=BUTTON).click()
    page.get_by_role("link", name="Continue as Ada").click()
    expect(page.get_by_role("alert")).to_contain_text("in none of the groups")
    look("sign-in-no-role")
    page.goto(f"{where}/sign-in?left=provider")
    look("sign-in-left")
    provider.person = {**providers.ADA, "groups": ["dicom-admins"]}
    page.get_by_role("link", name=BUTTON).click()
    page.get_by_role("link", name="Continue as Ada").click()
    expect(page.locator(".who")).to_have_text("adaadministrator")
    page.goto(f"{where}/people")
    look("people-oidc")
    assert {name: one for name, one in faults.items() if one} == {}
    page.context.close()
