"""What radiologists see of our answers: OHIF, in a real browser, over a real archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import ohif
import phantom
import pydicom
import pytest
import running
import servers
from numpy.typing import NDArray
from ohif import Viewer
from playwright.sync_api import Browser
from scipy import ndimage
from servers import Orthanc
from skimage.measure import points_in_poly

from dicomnode import profile, results, uid, volume
from dicomnode.prediction import LabelMap, Prediction

pytestmark = pytest.mark.server("orthanc", "orthanc-dicomweb", "chromium", "npm")

PROFILE = profile.NAMED["ohif"].with_choices({"capture": False})
WITHIN_S = 20


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An archive for all studies of this module."""
    server = Orthanc(tmp_path_factory.mktemp("orthanc"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def site(orthanc: Orthanc) -> Iterator[str]:
    """The address of the viewer."""
    try:
        ohif.fetched()
    except ohif.NotFetched as error:
        servers.do_without(str(error))
    with ohif.site(orthanc.http_url) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all pages."""
    with ohif.chromium() as started:
        yield started


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One image, and what was said of it.

    Attributes:
        points: The centre of every pixel in patient coordinates (rows, columns, 3).
        labels: What the model said of each: the number of a segment, or 0.
    """

    sop_instance_uid: str
    points: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study in the archive with an answer to it.

    Attributes:
        series: Kind of a result → its Series Instance UID.
        names, colors: Of the segments, from number 1 on.
    """

    uid: str
    series: dict[str, str]
    slices: tuple[Slice, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]


#: The phantom's grids. Their pixels are large, so that a browser's canvas has many for each.
GRIDS: dict[str, dict[str, Any]] = {
    "square": {"spacing": (2.5, 0.75, 0.75), "shape": (14, 40, 44)},
    "oblong": {"spacing": (2.5, 0.625, 0.75), "shape": (14, 48, 44)},
    "oblique": {
        "spacing": (2.5, 0.75, 0.75),
        "shape": (14, 44, 40),
        "orientation": "oblique",
        "reversed": True,
    },
}


@pytest.fixture(scope="module")
def phantoms(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Study]:
    """Studies of the phantom by their grids, each with the right answer to it."""
    made: dict[str, Study] = {}

    def study(grid: str) -> Study:
        if grid not in made:
            made[grid] = _a_phantom(orthanc, tmp_path_factory.mktemp(grid), grid)
        return made[grid]

    return study


def _a_phantom(orthanc: Orthanc, folder: Path, grid: str) -> Study:
    study = uid.derived("ohif", grid)
    scan = phantom.write_series(
        folder / "images", key=grid,
        attributes={"StudyInstanceUID": study, "WindowCenter": 700, "WindowWidth": 1600},
        **GRIDS[grid],
    )  # fmt: skip
    model = phantom.a_bundle()
    prediction = Prediction(
        subject=volume.load(scan.files),
        answers=(LabelMap(output="bodies", array=scan.labels),),
    )
    built = results.build(
        prediction, bundle=model, key=grid, created=datetime(2026, 3, 4, tzinfo=UTC),
        profiles=[PROFILE],
    )  # fmt: skip
    files = results.write(built, folder / "results")
    results.check(files, prediction=prediction, bundle=model, key=grid, profiles=[PROFILE])
    for file in (*scan.files, *files):
        orthanc.upload(file)
    segments = model.manifest.outputs["bodies"].segments
    numbers = np.zeros(256, dtype=np.int64)
    numbers[[one.label for one in segments]] = range(1, len(segments) + 1)
    return Study(
        uid=study,
        series={one.kind: str(one.dataset.SeriesInstanceUID) for one in built},
        slices=tuple(
            Slice(
                sop_instance_uid=str(pydicom.dcmread(scan.file_of(index)).SOPInstanceUID),
                points=scan.points[index],
                labels=numbers[scan.labels[index]],
            )
            for index in range(scan.shape[0])
        ),
        names=tuple(one.name for one in segments),
        colors=tuple(one.color for one in segments),
    )


@pytest.mark.parametrize("grid", ["oblong", "oblique"])
def test_every_pixel_has_the_color_of_its_segment(
    phantoms: Callable[[str], Study], browser: Browser, site: str, grid: str
) -> None:
    study = phantoms(grid)
    with ohif.viewer(browser, site, study.uid) as viewer:
        viewer.open(study.series["seg"])
        viewer.answer("Do you want to open this Segmentation?")
        for one in study.slices:
            viewer.turn_to(one.sop_instance_uid)
            places = viewer.places(one.points)
            seen = ohif.labels_in(viewer.colors(places), study.colors)
            print(grid, (seen != one.labels).sum(), np.unique(seen), np.unique(one.labels))
        print(viewer.segments())
        print(viewer.errors)
