"""What a model is shown, guessed from the bundle's loaders and metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicomnode.bundle import Form, Values
from dicomnode.onboarding.description import Component, Description
from dicomnode.onboarding.page import Page, ascii_text, identifier

#: Words → Modality (0008,0060), the first that fits.
_MODALITIES = (
    (r"mammogra|\bmg\b", "MG"),
    (r"endoscop|laparoscop|colonoscop|bronchoscop", "ES"),
    (r"patholog|histolog|\bwsi\b|whole.slide|microscop", "SM"),
    (r"\bpet\b|\bpt\b|positron", "PT"),
    (r"\bmri?\b|magnetic resonance|\bflair\b|\bt1w?\b|\bt2w?\b", "MR"),
    (r"\bct\b|\bcta\b|computed tomograph|hounsfield", "CT"),
    (r"x-?ray|\bcxr\b|\bdx\b|radiograph", "DX"),
    (r"ultraso|\bus\b|echocardio", "US"),
    (r"\boct\b|optical coherence", "OPT"),
    (r"fundus|retinal photo", "OP"),
)
_SOP_CLASSES = {
    "CT": ("CTImageStorage", "EnhancedCTImageStorage"),
    "MR": ("MRImageStorage", "EnhancedMRImageStorage"),
    "PT": ("PositronEmissionTomographyImageStorage", "EnhancedPETImageStorage"),
    "MG": ("DigitalMammographyXRayImageStorageForPresentation",),
    "DX": ("DigitalXRayImageStorageForPresentation", "ComputedRadiographyImageStorage"),
    "CR": ("ComputedRadiographyImageStorage", "DigitalXRayImageStorageForPresentation"),
    "XA": ("XRayAngiographicImageStorage",),
    "US": ("UltrasoundImageStorage", "UltrasoundMultiFrameImageStorage"),
    "ES": ("VLEndoscopicImageStorage",),
    "SM": ("VLWholeSlideMicroscopyImageStorage",),
    "OP": ("OphthalmicPhotography8BitImageStorage",),
    "OPT": ("OphthalmicTomographyImageStorage",),
    "XC": ("VLPhotographicImageStorage",),
    "OT": ("SecondaryCaptureImageStorage",),
}
#: Radiographs are of either modality, whichever a model's makers had.
_ALIKE = {"DX": ("CR", "DX"), "CR": ("CR", "DX")}
_SINGLE_FIELD_OF_A_SLIDE = ("VLSlideCoordinatesMicroscopicImageStorage",)
_UNKNOWN_MODALITY = "OT"
# What JPEG and PNG files hold of these is what a viewer shows.
_SHOWN = {"MG", "DX", "CR", "XA", "US", "OT"}

_SLIDE_DATASET = re.compile(r"\w*WSIDataset")
# What a bundle's loaders may read beside images: the answers of training.
_ANSWERS = re.compile(r"(?i)labels?|seg|segmentation|masks?|gt|target")
_COLOUR = 3
_VOLUME, _IMAGE = 3, 2  # spatial dimensions


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One input as it is guessed.

    Attributes:
        name: Of the manifest's input.
        key: What the loader calls it, if not so.
        said: What the metadata says of it.
        channels: Of one image: 3 for colour.
    """

    name: str
    key: str | None
    said: Mapping[str, Any]
    channels: int


def form(description: Description) -> tuple[Form, str]:
    """How images are taken together, and why it is a guess ("" where it is none)."""
    components = description.components()
    if any(_SLIDE_DATASET.fullmatch(one.name) for one in components):
        return "slide", ""
    if any(one.name == "Transpose" and _takes_time(description, one) for one in components):
        return "cine", "the loader's array has an axis of time"
    dimensions = _dimensions(description)
    if dimensions == _VOLUME:
        return "volume", ""
    if any("Slice" in one.name and "Infer" in one.name for one in components):
        return "volume", "the network sees slices, one by one, of what is loaded: or is it a cine?"
    if dimensions == _IMAGE:
        return "image", ""
    return "volume", "neither the metadata nor the network says how many dimensions there are"


def modality(description: Description, said: Mapping[str, Any]) -> tuple[str, str]:
    """Modality (0008,0060), and why it is a guess ("" where it is none)."""
    named = str(said.get("modality") or "").strip()
    if named.upper() in _SOP_CLASSES:
        return named.upper(), ""
    found = _modality_in(named)
    if found:
        return found, "" if len(named.split()) == 1 else f"the metadata says '{named}'"
    found = _modality_in(words(description))
    if found:
        return found, "from the words of the description"
    return _UNKNOWN_MODALITY, "nothing says what the images are"


def words(description: Description) -> str:
    """Everything that the metadata says in words, and the bundle's name."""
    said = description.said(
        "name", "task", "description", "data_source", "data_type", "image_classes"
    )
    return f"{said} {description.root.name.replace('_', ' ')}"


def write(page: Page, description: Description) -> None:
    """Draft `[inputs.…]`."""
    shown = _shown(description)
    first = shown[0].name
    for one in shown:
        page.table(f"inputs.{one.name}")
        _write_one(page, description, one, series=len(shown))
        if one.name != first:
            page.put(
                "on_grid_of",
                first,
                guess=True,
                why="are they of one patient position, so that one may be resampled to the other?",
            )


def _write_one(page: Page, description: Description, one: Shown, *, series: int) -> None:
    how, doubt = form(description)
    if doubt or how != "volume":
        page.put("form", how, why=doubt, guess=bool(doubt))
    if one.key is not None:
        page.put("key", one.key, why=_why_key(description, series), guess=series > 1)
    found, doubt = modality(description, one.said)
    page.put("modality", _ALIKE.get(found, found), why=doubt or "metadata", guess=bool(doubt))
    kinds = _sop_classes(found, form=how)
    page.put("sop_classes", kinds, why="the usual ones of this modality", guess=True)
    if one.channels != 1:
        page.put("channels", one.channels, why="RGB")
    values = _values(description, found, form=how)
    if values != "modality":
        page.put("values", values, guess=True, why="what the images of the training held")
    if how == "volume":
        _suggest_limits(page, description)


def _why_key(description: Description, series: int) -> str:
    if series > 1 and len(_keys(description)) == 1:
        return "the loader stacks these inputs as channels, in the order of this file"
    return "as the bundle's loader calls it"


def _suggest_limits(page: Page, description: Description) -> None:
    page.note("slices = { min = 16 }  # keeps a localizer out; also spacing_mm, extent_mm, planes")
    spacing = next(
        (
            description.value(one.content.get("pixdim"))
            for one in description.chain("preprocessing")
            if one.name == "Spacing"
        ),
        None,
    )
    if isinstance(spacing, list):
        page.note(f"The bundle resamples to {' x '.join(str(one) for one in spacing)} mm.")


def _shown(description: Description) -> list[Shown]:
    keys = _keys(description)
    said = description.network_data("inputs")
    if len(keys) > 1:
        return [_as_input(key, key, said.get(key) or _first(said), 1) for key in keys]
    key = keys[0] if keys else next(iter(said), "image")
    about = said.get(key) or _first(said)
    channels = _channels(about)
    how, _ = form(description)
    if how in {"image", "slide"}:
        return [_as_input(key, key, about, _COLOUR if channels == _COLOUR else 1)]
    if channels <= 1 or how == "cine":
        return [_as_input(key, key, about, 1)]
    return [_as_input(name, key, about, 1) for name in _channel_names(about, channels, key)]


def _as_input(name: str, key: str, said: Mapping[str, Any], channels: int) -> Shown:
    known = identifier(name) or "image"
    return Shown(name=known, key=None if known == key else key, said=said, channels=channels)


def _keys(description: Description) -> list[str]:
    """What the loaders read, in their order."""
    found: dict[str, None] = {}
    for one in description.chain("preprocessing"):
        if one.name == "LoadImage":
            found |= dict.fromkeys(description.texts(one.content.get("keys")))
    images = [key for key in found if not _ANSWERS.fullmatch(key)]
    return images or list(found)


def _first(said: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(iter(said.values()), {})


def _channels(said: Mapping[str, Any]) -> int:
    count = said.get("num_channels")
    return count if isinstance(count, int) else 1


def _channel_names(said: Mapping[str, Any], count: int, key: str) -> list[str]:
    """Of images that are stacked as channels: as the metadata calls them, or numbered."""
    defined = said.get("channel_def")
    named = list(defined.values()) if isinstance(defined, Mapping) else []
    known = [identifier(ascii_text(str(one), limit=32)) for one in named]
    if len(known) == count == len(set(known)) and all(known):
        return known
    return [f"{identifier(key)}_{number}" for number in range(1, count + 1)]


def _takes_time(description: Description, one: Component) -> bool:
    indices = description.value(one.content.get("indices"))
    return isinstance(indices, list) and len(indices) > _VOLUME


def _dimensions(description: Description) -> int | None:
    for said in description.network_data("inputs").values():
        shape = said.get("spatial_shape")
        if isinstance(shape, list) and len(shape) in {_IMAGE, _VOLUME}:
            return len(shape)
    for one in description.components():
        dimensions = description.value(one.content.get("spatial_dims"))
        if dimensions in {_IMAGE, _VOLUME}:
            return int(dimensions)
    return None


def _modality_in(text: str) -> str:
    return next((found for word, found in _MODALITIES if re.search(word, text, re.IGNORECASE)), "")


def _sop_classes(found: str, *, form: Form) -> tuple[str, ...]:
    if found == "SM" and form != "slide":
        return _SINGLE_FIELD_OF_A_SLIDE
    return _SOP_CLASSES[found]


def _values(description: Description, found: str, *, form: Form) -> Values:
    if found == "PT" and re.search(r"\bsuv", words(description), re.IGNORECASE):
        return "suvbw"
    return "displayed" if form in {"image", "cine"} and found in _SHOWN else "modality"
