"""What one input of a model must be, and how it is read."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydicom.uid
from pydantic import AfterValidator, Field, model_validator

from dicomnode.bundle.terms import Name, Range, Strict

#: How the images of a series are taken together.
#:
#: ========  =====================================================================================
#: volume    parallel slices of one patient: a regular grid with an affine
#: image     each frame of each instance alone: radiographs, mammograms, ultrasound, photographs
#: cine      frames of one plane and size, in the order of time: the model sees them at once
#: slide     a whole-slide image with its pyramid (PS3.3 A.32.8)
#: ========  =====================================================================================
Form = Literal["volume", "image", "cine", "slide"]

#: What a pixel's number means when the model sees it.
#:
#: =========  ====================================================================================
#: modality   after the Modality LUT (PS3.4 N.2.1.1): Hounsfield units of a CT, and no other of its
#:            maps (iodine, electron density); RGB of colour
#: displayed  after the VOI LUT and the photometric interpretation too (PS3.4 N.2.1), scaled to
#:            0 to 255, brightest 255: what a viewer shows, and what JPEG and PNG files hold
#: suvbw      PET in standardized uptake values by body weight, g/mL
#: =========  ====================================================================================
Values = Literal["modality", "displayed", "suvbw"]


_Modality = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]  # a CS, PS3.5 6.2


def _storage_sop_class(keyword: str) -> str:
    uid = getattr(pydicom.uid, keyword, None)
    if not isinstance(uid, pydicom.uid.UID) or uid.type != "SOP Class":
        raise ValueError(f"'{keyword}' is not the keyword of a storage SOP class (PS3.6 Table A-1)")
    return keyword


class View(Strict):
    """Which images of a series are meant, where one series holds several views.

    Attributes:
        position: View Position (0018,5101): "CC", "MLO", "PA".
        laterality: Image Laterality (0020,0062), else Laterality (0020,0060): "L" or "R".
    """

    position: Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")] | None = None
    laterality: Literal["L", "R"] | None = None


class Input(Strict):
    """What one input of the model must be (lengths in mm).

    `extent_mm` limits the field of view: the voxels times their spacing, along each of the three
    axes of the volume. A model made for a crop says there that it is not meant for a whole head.

    Attributes:
        modality: One, or a list of those that are served alike: ["CR", "DX"].
        form: How the images are taken together; planes, slices, spacings, extent and tolerances
            are those of a volume, `images` counts the frames of the other forms.
        key: What the bundle's loader calls it. Inputs with one key are given to it as one list, in
            the manifest's order: it stacks them as channels.
        channels: 3 for colour, as RGB; a monochrome image is then repeated three times.
        values: What a pixel's number means.
        view: Which images of the series.
        on_grid_of: The input whose grid this one is resampled to, linearly, before the model sees
            it; left out, it stays on its own, as the first input must where anything is marked.
    """

    form: Form = "volume"
    key: Name | None = None
    modality: _Modality | Annotated[tuple[_Modality, ...], Field(min_length=1)]
    sop_classes: Annotated[  # keywords of the dictionary: "MRImageStorage"
        tuple[Annotated[str, AfterValidator(_storage_sop_class)], ...], Field(min_length=1)
    ]
    planes: tuple[Literal["axial", "sagittal", "coronal"], ...] = ()  # empty: any
    slices: Range = Range()
    images: Range = Range()
    spacing_mm: Range = Range()  # within the plane and between slices alike
    slice_spacing_mm: Range = Range()
    extent_mm: Range = Range()
    channels: Literal[1, 3] = 1
    values: Values = "modality"
    view: View | None = None
    on_grid_of: Name | None = None
    irregular_spacing: bool = False
    gantry_tilt: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.form == "volume" and self.channels != 1:
            raise ValueError("channels: a volume has one")
        if self.form == "volume" and self.values == "displayed":
            raise ValueError("values: of a volume they are not as displayed")
        if self.form != "volume" and self.on_grid_of is not None:
            raise ValueError("on_grid_of: only a volume lies on a grid in the patient")
        if self.values == "suvbw" and self.modalities != ("PT",):
            raise ValueError(f"values: suvbw is of PT, not of {', '.join(self.modalities)}")
        if self.view is not None and self.form != "image":
            raise ValueError(f"view: picks images, and form is {self.form}")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """Every modality that it may be of."""
        return (self.modality,) if isinstance(self.modality, str) else self.modality
