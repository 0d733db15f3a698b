"""OHIF as its users have it: the published viewer in headless Chromium, over an Orthanc.

The viewer comes from the npm registry and is no part of the project: it is fetched once, must be
what it was when its digest was written down here, and is kept in `.cache`. `site` serves it and,
below `/dicom-web`, an Orthanc on one port of 127.0.0.1; `Viewer` is a study that is open in it.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import mimetypes
import re
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import npm
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, sync_playwright
from servers import HOST

ROOT = Path(__file__).resolve().parents[1]

PACKAGE = "@ohif/app"
VERSION = "3.13.2"
# As npm writes it: of the archive that `npm pack` brings.
SHA512 = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="

CACHE = ROOT / ".cache" / "ohif"
#: Where pictures of the viewer are put, to be looked at.
PICTURES = ROOT / "out" / "ohif"

#: What the viewer asks when a segmentation is opened, and a report with something of its own kind.
OPEN = "Do you want to open this Segmentation?"
TRACK = "Do you want to continue tracking measurements for this study?"

SIZE = {"width": 1280, "height": 800}
_TURN_EVERY_MS = 100
WITHIN_MS = 60_000  # what a page may take for anything; two busy cores are slow

_BUILT = "package/dist/"  # in the archive: the viewer as browsers take it

_LEAST_SHARE = 0.2  # of a colour that lies over grey
_ROUNDING = 6  # of 255: colours are written as CIELab, mixed and drawn

# The viewer's own settings, but for the server: theirs is a public one.
_SETTINGS = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "strictZSpacingForVolumeViewport": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "orthanc",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "orthanc",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "orthanc",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
                "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
            },
        }
    ],
}

# No graphics card, no sandbox for root, and no talk but with this machine.
_CHROMIUM = "/usr/bin/chromium"
_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}, EXCLUDE localhost",
]


def fetched() -> Path:
    """The folder of the viewer's files, from the registry if they are not here yet.

    Raises:
        npm.NotFetched: It is not here and the registry did not give it.
        ValueError: What the registry gave is not what it was.
    """
    folder = CACHE / VERSION
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        archive = npm.packed(PACKAGE, VERSION, sha512=SHA512, folder=Path(temporary))
        _unpack(archive, Path(temporary) / "dist")
        # Another run of the tests may have been faster; its files are the same.
        with contextlib.suppress(OSError):
            (Path(temporary) / "dist").rename(folder)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        members = [one for one in opened.getmembers() if one.name.startswith(_BUILT)]
        for member in members:
            member.name = member.name.removeprefix(_BUILT)
        opened.extractall(folder, members=members, filter="data")


class _Handler(http.server.BaseHTTPRequestHandler):
    """Files, the settings in place of those that the viewer brings, and Orthanc's answers."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer."""
        path = urlsplit(self.path).path
        if path.startswith("/dicom-web/"):
            self._pass_on()
        elif path == "/app-config.js":
            self._answer(f"window.config = {json.dumps(_SETTINGS)};".encode(), "text/javascript")
        else:
            self._answer_with_file(path)

    def _answer_with_file(self, path: str) -> None:
        """Send a file, or where none has that name the page: it finds its way by the address."""
        file = (self.server.files / path.lstrip("/")).resolve()
        if not (file.is_file() and file.is_relative_to(self.server.files)):
            file = self.server.files / "index.html"
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._answer(file.read_bytes(), kind)

    def _pass_on(self) -> None:
        """Ask Orthanc the same; it builds addresses from the name that it is called by."""
        kept = {name: self.headers[name] for name in ("Accept", "Host") if name in self.headers}
        asked = http.client.HTTPConnection(self.server.orthanc, timeout=60)
        with contextlib.closing(asked):
            asked.request("GET", self.path, headers=kept)
            answer = asked.getresponse()
            kind = answer.getheader("Content-Type", "application/octet-stream")
            self._answer(answer.read(), kind, status=answer.status)

    def _answer(self, body: bytes, kind: str, *, status: int = 200) -> None:
        # A browser that has left the page does not wait for what it asked.
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
        """Say nothing: a page asks some hundred times."""


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, files: Path, orthanc: str) -> None:
        self.files = files.resolve()
        self.orthanc = orthanc
        super().__init__((HOST, 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet of a browser that hung up."""


@contextlib.contextmanager
def site(orthanc_url: str) -> Iterator[str]:
    """The address of the viewer over an Orthanc, for the length of a block."""
    with _Server(fetched(), urlsplit(orthanc_url).netloc) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium, for the length of a block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Viewer:
    """A study that is open in the viewer, as one sees it.

    Attributes:
        errors: What the page threw and nobody caught.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []

    def show(self, address: str, study_instance_uid: str) -> None:
        """Open a study, and return when its first image is drawn."""
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{address}/viewer?StudyInstanceUIDs={study_instance_uid}")
        self.page.wait_for_function("() => window.dicomnode.shown()")

    def open(self, series_instance_uid: str) -> None:
        """Double-click the series in the list on the left."""
        found = self.page.wait_for_function(
            "uid => window.dicomnode.displaySet(uid)", arg=series_instance_uid
        )
        self.page.locator(f"#thumbnail-{found.json_value()}").dblclick()

    def answer(
        self, question: str, answer: str = "Yes", *, within_s: float = WITHIN_MS / 1000
    ) -> None:
        """Answer what the viewer asks, once it asks it."""
        self.page.get_by_text(question).wait_for(timeout=within_s * 1000)
        self.page.get_by_role("button", name=answer, exact=True).click()

    def wait_for_badge(self, modality: str) -> None:
        """Return when the image bears the mark of what is drawn over it."""
        badge = self.page.locator("[data-cy^=ModalityLoadBadge]").filter(has_text=modality)
        badge.wait_for()

    def turn_to(self, sop_instance_uid: str) -> None:
        """Show this image of the series."""
        # Again until it stands: a viewer that loads an answer meanwhile sets up its stack anew,
        # and begins with an image of its own choice.
        self.page.wait_for_function(
            "uid => window.dicomnode.turnTo(uid)", arg=sop_instance_uid, polling=_TURN_EVERY_MS
        )

    def places(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Where points (…, 3) in patient coordinates lie on the canvas: (…, 2)."""
        flat = self._ask("places", points.reshape(-1, 3).tolist())
        return np.array(flat).reshape(*points.shape[:-1], 2)

    def places_of_pixels(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """Where pixels (…, 2), columns and rows, lie on the canvas: for images without a place."""
        flat = self._ask("placesOfPixels", pixels.reshape(-1, 2).tolist())
        return np.array(flat).reshape(pixels.shape)

    def colors(self, places: NDArray[Any]) -> NDArray[np.float64]:
        """The colours (…, 3) of the canvas at places (…, 2); NaN beside it."""
        flat = self._ask("colors", places.reshape(-1, 2).tolist())
        return np.array(flat, dtype=np.float64).reshape(*places.shape[:-1], 3)

    def lines(self) -> list[NDArray[np.float64]]:
        """The corners of the lines that are drawn over the image."""
        return [np.array(line) for line in self._ask("lines")]

    def texts(self) -> list[list[str]]:
        """The texts that are written over the image, line by line."""
        found: list[list[str]] = self._ask("texts")
        return found

    def segments(self) -> list[str]:
        """The names in the panel of segmentations, which is opened if it is not."""
        titles = self.page.locator("[data-cy=data-row-title]")
        if not titles.count():
            self.page.locator("[data-cy=panelSegmentation-btn]").click()
            titles.first.wait_for()
        return titles.all_inner_texts()

    def toggle_segments(self) -> None:
        """Click the eye in the panel: all segments are hidden, or shown again."""
        self.page.locator("[data-cy=all-segments-visibility-toggle]").click()

    def text(self, containing: str) -> str:
        """What stands in the middle, once `containing` does."""
        grid = self.page.locator("[data-cy=viewport-grid]").filter(has_text=containing)
        grid.wait_for()
        return re.sub(r"\s+", " ", grid.inner_text())

    def picture(self, name: str) -> Path:
        """Keep what is seen, for people."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def _ask(self, what: str, *arguments: Any) -> Any:
        # As one text each way: of thousands of small values the driver would be slow to make any.
        answer = self.page.evaluate(
            "async ([what, given]) =>"
            " JSON.stringify(await window.dicomnode[what](...JSON.parse(given)) ?? null)",
            [what, json.dumps(arguments)],
        )
        return json.loads(answer)


@contextlib.contextmanager
def viewer(browser: Browser, address: str, study_instance_uid: str) -> Iterator[Viewer]:
    """A study in a fresh page that remembers nothing, for the length of a block."""
    # A service worker would answer from what an earlier page was given.
    context = browser.new_context(viewport=SIZE, service_workers="block")
    context.set_default_timeout(WITHIN_MS)
    try:
        page = context.new_page()
        page.add_init_script(path=Path(__file__).with_suffix(".js"))
        opened = Viewer(page)
        try:
            opened.show(address, study_instance_uid)
            yield opened
        except Exception:
            opened.picture("failed")
            raise
    finally:
        context.close()


def labels_in(colors: NDArray[np.float64], palette: Sequence[str]) -> NDArray[np.int64]:
    """Which colour of the palette ("#rrggbb") lies over grey: its number from 1 on.

    What is seen is (1 - a) x grey + a x colour, with one grey and one a for the three channels; so
    the differences between channels are a times those of the colour. 0 is plain grey, and -1 a
    colour that is none of the palette, or none at all.
    """
    whole = np.array([[int(one[n : n + 2], 16) for n in (1, 3, 5)] for one in palette])
    differences = np.diff(colors, axis=-1)
    of_palette = np.diff(whole.astype(float), axis=-1)
    shares = differences @ of_palette.T / np.sum(of_palette**2, axis=-1)
    left = differences[..., None, :] - shares[..., None] * of_palette
    errors = np.where(shares >= _LEAST_SHARE, np.abs(left).max(axis=-1), np.inf)
    found = np.where(errors.min(axis=-1) <= _ROUNDING, errors.argmin(axis=-1) + 1, -1)
    is_grey = np.ptp(colors, axis=-1) <= _ROUNDING
    return np.where(is_grey, 0, found)
