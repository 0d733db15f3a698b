"""Reads where a group of a report says that its finding is, and compares it with the manifest."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset

from dicomnode.bundle import Code
from dicomnode.results.checking.expected import has_code, require
from dicomnode.results.checking.tree import children
from dicomnode.results.finding_site import Site

_SITE = Code(value="363698007", scheme="SCT", meaning="Finding Site")
_LATERALITY = Code(value="272741003", scheme="SCT", meaning="Laterality")
_PART = Code(value="106233006", scheme="SCT", meaning="Topographical modifier")


def check(group: Dataset, meant: Site | None, name: str) -> None:
    """Check that a finding is said to be where the manifest says, and on that side.

    Args:
        name: Of the finding, for the error.

    Raises:
        ResultMismatch: `site-differs`.
    """
    sites = list(children(group, _SITE))
    require(
        [_is(site, meant) for site in sites] == ([] if meant is None else [True]),
        "site-differs",
        f"{name} is said to be elsewhere, or on another side, than the manifest says.",
    )


def _is(site: Dataset, meant: Site | None) -> bool:
    return meant is not None and (
        has_code(site.get("ConceptCodeSequence"), meant.place)
        and _has(site, _LATERALITY, meant.side)
        and _has(site, _PART, meant.part)
    )


def _has(site: Dataset, name: Code, meant: Code | None) -> bool:
    said: Iterator[Dataset] = children(site, name)
    return [has_code(one.get("ConceptCodeSequence"), meant) for one in said] == (
        [] if meant is None else [True]
    )
