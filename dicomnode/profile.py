"""What a destination is sent of an answer, and how it is encoded.

Viewers and archives differ: one draws segmentations and no graphics of reports, another refuses a
label map, a third shows pictures and nothing else. A profile is a set of choices; one inference
serves destinations of different profiles, and objects that several profiles ask for alike are the
same objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

#: Digits, in hex, that tell profiles apart.
_DIGITS = 16

Segmentation = Literal["binary", "labelmap", "fractional", "none"]
Coordinates = Literal["image", "patient"]
Title = Literal["imaging", "oncology"]
Superseded = Literal["keep", "reject"]
Workarounds = Literal["none", "ohif"]


class Profile(BaseModel):
    """What is sent to one destination.

    Attributes:
        segmentation: How masks are encoded. "labelmap" is for masks that do not overlap; those that
            do are sent as "binary" all the same. With "fractional", probability maps are too.
        maps: Whether heat maps and probability maps are sent as parametric maps.
        images: Whether images that were made of the images are sent.
        registrations: Whether registrations are sent.
        capture: Whether a picture for people is sent, as a secondary capture.
        regions: Whether the report that viewers draw from is sent: contours, boxes and points.
        coordinates: Whether those are on the image (SCOORD) or in the patient (SCOORD3D), where the
            image says where it lies.
        presentation: Whether presentation states are sent that draw the same.
        key_images: Whether a selection of the key images is sent.
        report: Whether the report of everything that was found is sent.
        title: The report's title (CID 7021): some viewers choose by it how they show a report.
        not_analysed: Whether a report is sent for a study that was routed and not analysed.
        superseded: What becomes of an answer that a newer one takes the place of: it stays, and the
            newer one names it; or it is rejected by a key object selection (IHE IOCM).
        workarounds: Whose faults are worked around. "ohif" (3.13): segmentations whose frames do
            not fill bytes are arranged so that they are read right, or left out, and regions are
            left out where pixels are not square.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    segmentation: Segmentation = "binary"
    maps: bool = True
    images: bool = True
    registrations: bool = True
    capture: bool = True
    regions: bool = True
    coordinates: Coordinates = "image"
    presentation: bool = False
    key_images: bool = False
    report: bool = True
    title: Title = "imaging"
    not_analysed: bool = False
    superseded: Superseded = "keep"
    workarounds: Workarounds = "none"

    @property
    def digest(self) -> str:
        """The same choices of objects have the same digest.

        What becomes of earlier answers, and whether a missing one is explained, changes no object.
        """
        objects = self.model_dump_json(exclude={"not_analysed", "superseded"})
        return hashlib.sha256(objects.encode()).hexdigest()[:_DIGITS]

    def with_choices(self, choices: Mapping[str, Any]) -> Profile:
        """The same with some keys chosen otherwise; `None` leaves a key as it is."""
        chosen = {key: value for key, value in choices.items() if value is not None}
        return self.model_copy(update=chosen)


#: The keys that say whether something is sent, beside `segmentation`.
SENT = (
    "maps",
    "images",
    "registrations",
    "capture",
    "regions",
    "presentation",
    "key_images",
    "report",
)

Name = Literal["standard", "ohif", "weasis", "slicer", "captures-only"]

#: What is known to work where (measured or read in the viewers' own trackers).
NAMED: dict[Name, Profile] = {
    "standard": Profile(),
    # Shows a report without a place on an image only under another title than that of CID 7021's
    # first; draws regions of a report of its own; has nothing for maps on a stack, presentation
    # states and key objects.
    "ohif": Profile(title="oncology", maps=False, workarounds="ohif"),
    # Draws no graphics of reports, but those of presentation states.
    "weasis": Profile(regions=False, presentation=True, key_images=True, maps=False),
    "slicer": Profile(regions=False, capture=False),
    "captures-only": Profile(
        segmentation="none",
        maps=False,
        images=False,
        registrations=False,
        regions=False,
        report=False,
    ),
}
