"""`dicom.toml`, drafted: what a bundle's makers say of it, in the node's words.

What is guessed is marked and listed in `draft`; a bundle with such a list is not run until somebody
has looked at each guess.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicomnode.bundle import MAX_SERIES_DESCRIPTION
from dicomnode.onboarding import drafted_inputs, drafted_outputs
from dicomnode.onboarding.description import Description
from dicomnode.onboarding.page import Page, ascii_text

NOTICE = "RESEARCH USE ONLY - not for diagnosis"

_MAX_NAME = 40
_MAX_MANUFACTURER = 64
_AROUND_NAME = len("AI  v (RESEARCH)")
_FAMILY = {"value": "123110", "scheme": "DCM", "meaning": "Artificial Intelligence"}
_PROCEDURES = {
    "CT": {"value": "25045-6", "scheme": "LN", "meaning": "CT unspecified body region"},
    "MR": {"value": "25056-3", "scheme": "LN", "meaning": "MRI unspecified body region"},
    "PT": {"value": "44136-0", "scheme": "LN", "meaning": "PET unspecified body region"},
}
_X_RAY = {"value": "43468-8", "scheme": "LN", "meaning": "XR unspecified body region"}
_IMAGING = {"value": "363679005", "scheme": "SCT", "meaning": "Imaging procedure"}
_OF_X_RAYS = {"DX", "CR", "MG", "XA"}


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A manifest that is not confirmed yet.

    Attributes:
        text: The file.
        guesses: The key paths in `draft`.
    """

    text: str
    guesses: tuple[str, ...]


def draft(description: Description, *, name: str) -> Draft:
    """Draft the manifest of a bundle.

    Args:
        name: What the bundle is called where its metadata gives no name.
    """
    page = Page()
    page.note(
        "Drafted from configs/metadata.json and configs/" + description.config_path.name + "."
    )
    page.note(
        "What is marked GUESS or listed in `draft` is to be confirmed: look at it, correct it, take"
        " it out of `draft`, then run `dicomnode models lock`. Lengths are in mm."
    )
    _write_head(page, description, name=name)
    drafted_inputs.write(page, description)
    drafted_outputs.write(page, description)
    return Draft(text=page.text(), guesses=tuple(page.guesses))


def _write_head(page: Page, description: Description, *, name: str) -> None:
    version = description.said("version")
    room = min(_MAX_NAME, MAX_SERIES_DESCRIPTION - _AROUND_NAME - len(version))
    title = description.said("name") or name.replace("_", " ")
    page.put("name", ascii_text(title, limit=max(room, 1)) or "model")
    makers = description.said("authors") or description.said("copyright")
    page.put(
        "manufacturer",
        ascii_text(makers, limit=_MAX_MANUFACTURER) or "unknown",
        guess=not makers,
    )
    use = description.said("intended_use")
    purpose = " ".join(description.said("description").split())
    page.put(
        "intended_use",
        ". ".join(part.rstrip(". ") for part in (purpose, use) if part) or "unknown",
        guess=not use,
    )
    page.put("notice", NOTICE)
    page.put("family", _FAMILY, why="CID 7162")
    page.put(
        "procedure", _procedure(description), why="CID 100: which part of the body?", guess=True
    )


def _procedure(description: Description) -> dict[str, str]:
    said = next(iter(description.network_data("inputs").values()), {})
    modality, _ = drafted_inputs.modality(description, said)
    if modality in _OF_X_RAYS:
        return _X_RAY
    return _PROCEDURES.get(modality, _IMAGING)
