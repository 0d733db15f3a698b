"""Where a finding is said to be in the reports, and on which side."""

from __future__ import annotations

from dataclasses import dataclass

from dicomnode.bundle import Code, Finding, Quantity

# "Anatomical Structure" of CID 7150 "Segmentation Property Categories", now and in older editions.
_ANATOMICAL_STRUCTURES = ("91723000", "123037004")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A Finding Site (PS3.16 TID 1410, 1411 and 1501).

    Attributes:
        place: Where.
        side: Laterality.
        part: Topographical modifier: of the place, which part.
    """

    place: Code
    side: Code | None = None
    part: Code | None = None


def of(finding: Finding) -> Site | None:
    """Where a finding is; `None` where the manifest does not say.

    An anatomical structure is its own site, and what the manifest says more exactly of it
    (anterior, left) is said of that site: TID 1411 has no modifier of the finding. Anything else
    lies in its anatomic region, of which only the side is known.
    """
    if finding.category.value in _ANATOMICAL_STRUCTURES:
        return Site(place=finding.type, side=finding.laterality, part=finding.type_modifier)
    if finding.anatomic_region is not None:
        return Site(place=finding.anatomic_region, side=finding.laterality)
    return None


def of_quantity(quantity: Quantity) -> Site | None:
    """What a number was measured on; `None` where the manifest does not say."""
    if quantity.anatomic_region is None:
        return None
    return Site(place=quantity.anatomic_region, side=quantity.laterality)
