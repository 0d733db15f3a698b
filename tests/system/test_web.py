"""The page as an administrator has it: a running node, a real browser, real studies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import axe
import npm
import ohif
import paged
import pydicom
import pytest
import running
import servers
from playwright.sync_api import Browser, BrowserContext, Page, expect
from running import RunningNode
from running import running as running_node

from dicomnode import node
from dicomnode.network.calling import sender

pytestmark = pytest.mark.server("chromium")

PICTURES = running.ROOT / "out" / "web"
SAMPLE = sorted((running.HIPPOCAMPUS / "sample").rglob("*.dcm"))
SIZES = {"wide": {"width": 1280, "height": 800}, "narrow": {"width": 390, "height": 844}}
ROLES = ("viewer", "operator", "administrator")
WITHIN_MS = 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with ohif.chromium() as made:
        yield made


@pytest.fixture
def live(tmp_path: Path) -> Iterator[RunningNode]:
    """A whole node with a page and three accounts. Its PACS is not there."""
    text = running.toml(
        pacs={"ae_title": "PACS", "port": servers.free_port()},
        routes=running.HIPPOCAMPUS_ROUTE,
        extra="[web]\nport = 0",
    )
    with running_node(tmp_path / "node", text) as made:
        password = tmp_path / "password"
        password.write_text(paged.PASSWORD)
        for role in ROLES:
            subprocess.run(
                [*running.PROGRAM, "users", "add", role, "--role", role,
                 "--password-file", str(password), "--config", str(made.file)],
                check=True, capture_output=True,
                env={**os.environ, "PYTHONPATH": str(running.ROOT)},
            )  # fmt: skip
        yield made


def address(of: RunningNode) -> str:
    return f"http://127.0.0.1:{node.page_of(of.configuration.node.data_dir)}"


@contextmanager
def visit(
    browser: Browser, where: str, who: str, *, size: str = "wide", scheme: str = "light"
) -> Iterator[Page]:
    """Somebody who has signed in, in a browser of their own."""
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(WITHIN_MS)
    try:
        page = context.new_page()
        _watch(page)
        page.goto(f"{where}/")
        page.get_by_label("Name").fill(who)
        page.get_by_label("Password").fill(paged.PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("link", name="Studies", exact=True)).to_be_visible()
        yield page
        assert _errors(context) == []
    finally:
        context.close()


_thrown: dict[int, list[str]] = {}


def _watch(page: Page) -> None:
    """Remember what a page threw and what its policy forbade."""
    errors = _thrown.setdefault(id(page.context), [])
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda said: errors.append(said.text) if "Content Security" in said.text else None,
    )


def _errors(context: BrowserContext) -> list[str]:
    return _thrown.pop(id(context), [])


def send(files: list[Path], to: RunningNode) -> str:
    """Send a study as a modality would; returns its UID."""
    destination = sender.Destination(ae_title="DICOMNODE", host="127.0.0.1", port=to.port)
    sent = sender.send(files, to=destination, calling_ae_title="MODALITY")
    assert all(sender.outcome(one.status) == "stored" for one in sent)
    return str(pydicom.dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def with_a_gap() -> list[Path]:
    """The sample without one slice of its middle."""
    slices = sorted(SAMPLE, key=lambda file: float(pydicom.dcmread(file).SliceLocation or 0))
    return [one for number, one in enumerate(slices) if number != len(slices) // 2]


def test_an_arrival_is_seen_while_somebody_looks(live: RunningNode, browser: Browser) -> None:
    with visit(browser, address(live), "viewer") as page:
        expect(page.get_by_text("No study has arrived.")).to_be_visible()
        expect(page.locator("#pulse")).to_have_text("Live")
        uid = send(SAMPLE, live)
        row = page.locator(f'tr[id="s{uid}"]')
        expect(row).to_be_visible()
        expect(row.get_by_text("in progress")).to_be_visible()
        expect(page.get_by_text("No study has arrived.")).to_have_count(0)
        # The PACS is not there: predicted, and on its way.
        row.get_by_role("link").click()
        expect(page.get_by_role("img", name="Key picture")).to_be_visible(timeout=120_000)
        expect(page.locator("article .state").first).to_have_text("delivering")


def test_a_failed_study_is_found_understood_and_retried_in_three_clicks(
    live: RunningNode, browser: Browser
) -> None:
    uid = send(with_a_gap(), live)
    assert live.outcome(uid)["outcome"] == "failed"
    with visit(browser, address(live), "operator") as page:
        page.get_by_role("link", name="1 failed").click()
        page.locator(f'tr[id="s{uid}"]').get_by_role("link").click()
        expect(page.get_by_text("missing-slices").first).to_be_visible()
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_text("The job is taken up again.")).to_be_visible()
        # And the images are as they were: it fails again, and that is seen without a click.
        expect(page.get_by_text("Job failed")).to_have_count(2, timeout=60_000)
    with visit(browser, address(live), "administrator") as page:
        page.goto(f"{address(live)}/audit")
        expect(page.get_by_role("cell", name="retry", exact=True)).to_be_visible()


def test_a_viewer_cannot_act(live: RunningNode, browser: Browser) -> None:
    uid = send(with_a_gap(), live)
    assert live.outcome(uid)["outcome"] == "failed"
    with visit(browser, address(live), "viewer") as page:
        page.goto(f"{address(live)}/studies/{uid}")
        expect(page.get_by_text("missing-slices").first).to_be_visible()
        expect(page.get_by_role("button", name="Retry")).to_have_count(0)
        job = live.outcome(uid)["jobs"][0]["job"]
        word = page.locator('input[name="csrf"]').first.input_value()
        answer = page.request.post(
            f"{address(live)}/jobs/{job}/retry", form={"csrf": word}, max_redirects=0
        )
        assert answer.status == 403
        assert live.outcome(uid)["outcome"] == "failed"
        page.goto(f"{address(live)}/configuration")
        expect(page.get_by_text("This is not for you.")).to_be_visible()


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A page over studies in every state; nothing moves there."""
    with paged.pages(tmp_path_factory.mktemp("page")) as pages:
        found = paged.sample(pages.database, pages.here.data_dir)
        with paged.served(pages) as where:
            yield where, found


def places(found: dict[str, str]) -> dict[str, str]:
    """Every page that there is, by name."""
    return {
        "studies": "/studies",
        "nothing": "/studies?q=zz",
        "study": f"/studies/{found['first']}",
        "failed": f"/studies/{found['missing-slices']}",
        "held": f"/studies/{found['held']}",
        "accounting": "/accounting",
        "models": "/models",
        "peers": "/peers",
        "workers": "/workers",
        "alerts": "/alerts",
        "retention": "/retention",
        "retention-asked": "/retention?days=7",
        "configuration": "/configuration",
        "people": "/people",
        "audit": "/audit",
        "problem": "/nowhere",
    }


@pytest.mark.server("npm")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_can_be_used_by_everybody_and_fits(
    browser: Browser, still: tuple[str, dict[str, str]], size: str, scheme: str
) -> None:
    try:
        axe.script()
    except npm.NotFetched as error:
        servers.do_without(str(error))
    where, found = still
    PICTURES.mkdir(parents=True, exist_ok=True)
    faults: dict[str, list[str]] = {}
    with visit(browser, where, "administrator", size=size, scheme=scheme) as page:
        for name, path in places(found).items():
            page.goto(f"{where}{path}")
            for closed in page.locator("details").all():
                closed.evaluate("one => { one.open = true }")
            faults[name] = axe.faults(page)
            for opened in page.locator("details").all():
                opened.evaluate("one => { one.open = false }")
            page.screenshot(path=PICTURES / f"{name}-{size}-{scheme}.png", full_page=True)
            too_wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not too_wide, f"{name} does not fit"
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        faults["sign-in"] = axe.faults(page)
        page.screenshot(path=PICTURES / f"sign-in-{size}-{scheme}.png")
    assert {name: one for name, one in faults.items() if one} == {}


def test_the_keyboard_is_enough(browser: Browser, still: tuple[str, dict[str, str]]) -> None:
    where, found = still
    with visit(browser, where, "operator") as page:
        page.goto(f"{where}/studies?q=lindqvist")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        row = page.locator(f'tr[id="s{found["first"]}"] a.row')
        for _ in range(40):
            page.keyboard.press("Tab")
            if row.evaluate("one => one === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Lindqvist, Astrid")).to_be_visible()
        summary = page.locator("summary").first
        summary.focus()
        page.keyboard.press("Enter")
        expect(page.locator("ul.objects").first).to_be_visible()


def test_light_and_dark_are_switched_and_stay_so(
    browser: Browser, still: tuple[str, dict[str, str]]
) -> None:
    where, _ = still
    with visit(browser, where, "viewer") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.get_by_role("button", name="Switch between light and dark").click()
        dark = page.evaluate(ground)
        assert dark != light
        page.goto(f"{where}/accounting")
        assert page.evaluate(ground) == dark


def test_without_scripts_everything_works_but_by_hand(
    browser: Browser, still: tuple[str, dict[str, str]]
) -> None:
    where, _ = still
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{where}/studies?outcome=failed")
    page.get_by_label("Name").fill("viewer")
    page.get_by_label("Password").fill(paged.PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("tr[id]")).to_have_count(3)
    page.get_by_label("Patient, accession").fill("tanaka")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tr[id]")).to_have_count(1)
    context.close()


def test_the_page_asks_nobody_else(browser: Browser, still: tuple[str, dict[str, str]]) -> None:
    where, found = still
    asked: list[str] = []
    with visit(browser, where, "administrator") as page:
        page.on("request", lambda request: asked.append(request.url))
        for path in places(found).values():
            page.goto(f"{where}{path}")
    assert asked
    assert [url for url in asked if not url.startswith(where)] == []
