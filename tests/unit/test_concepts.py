"""The table of coded concepts: what its codes mean, and what names lead to them."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
import zoo
from pydicom.sr._concepts_dict import concepts as DICTIONARY  # noqa: N812 - it is a constant

from dicomnode.onboarding import concepts
from dicomnode.onboarding.concepts import Concept

EVERY = concepts.every()
CODED = [one for one in EVERY if one.code is not None]

#: The classes of TotalSegmentator, version 2.
TOTAL = """
    spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right
    adrenal_gland_left lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right
    lung_middle_lobe_right lung_lower_lobe_right esophagus trachea thyroid_gland small_bowel
    duodenum colon urinary_bladder prostate kidney_cyst_left kidney_cyst_right sacrum vertebrae_S1
    vertebrae_L5 vertebrae_L4 vertebrae_L3 vertebrae_L2 vertebrae_L1 vertebrae_T12 vertebrae_T11
    vertebrae_T10 vertebrae_T9 vertebrae_T8 vertebrae_T7 vertebrae_T6 vertebrae_T5 vertebrae_T4
    vertebrae_T3 vertebrae_T2 vertebrae_T1 vertebrae_C7 vertebrae_C6 vertebrae_C5 vertebrae_C4
    vertebrae_C3 vertebrae_C2 vertebrae_C1 heart aorta pulmonary_vein brachiocephalic_trunk
    subclavian_artery_right subclavian_artery_left common_carotid_artery_right
    common_carotid_artery_left brachiocephalic_vein_left brachiocephalic_vein_right
    atrial_appendage_left superior_vena_cava inferior_vena_cava portal_vein_and_splenic_vein
    iliac_artery_left iliac_artery_right iliac_vena_left iliac_vena_right humerus_left humerus_right
    scapula_left scapula_right clavicula_left clavicula_right femur_left femur_right hip_left
    hip_right spinal_cord gluteus_maximus_left gluteus_maximus_right gluteus_medius_left
    gluteus_medius_right gluteus_minimus_left gluteus_minimus_right autochthon_left autochthon_right
    iliopsoas_left iliopsoas_right brain skull rib_left_1 rib_left_2 rib_left_3 rib_left_4
    rib_left_5 rib_left_6 rib_left_7 rib_left_8 rib_left_9 rib_left_10 rib_left_11 rib_left_12
    rib_right_1 rib_right_2 rib_right_3 rib_right_4 rib_right_5 rib_right_6 rib_right_7 rib_right_8
    rib_right_9 rib_right_10 rib_right_11 rib_right_12 sternum costal_cartilages
""".split()  # noqa: SIM905 - as a list it has a line for each

MEANINGS: dict[tuple[str, str], set[str]] = defaultdict(set)
for scheme, by_keyword in DICTIONARY.items():
    for codes in by_keyword.values():
        for value, (meaning, _) in codes.items():
            MEANINGS[scheme, value].add(meaning.lower())

# The digits that a SNOMED CT identifier ends with (its check digit, by Verhoeff's method).
_FLIP = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _times(a: int, b: int) -> int:
    """The product of two members of the dihedral group of the pentagon."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


def _permuted(digit: int, times: int) -> int:
    for _ in range(times % 8):
        digit = _FLIP[digit]
    return digit


def _checks(identifier: str) -> bool:
    product = 0
    for place, digit in enumerate(reversed(identifier)):
        product = _times(product, _permuted(int(digit), place))
    return product == 0


def test_the_check_of_identifiers_knows_a_right_one_from_a_wrong_one() -> None:
    assert _checks("78961009")
    assert not _checks("78961006")
    assert not _checks("79861009")


@pytest.mark.parametrize("one", CODED, ids=lambda one: one.name)
def test_a_code_means_what_the_dictionary_of_the_standard_says(one: Concept) -> None:
    assert one.code is not None
    known = MEANINGS.get((one.code.scheme, one.code.value))
    if known is None:
        assert one.source, "a code that the dictionary does not hold says where it was checked"
    else:
        assert one.code.meaning.lower() in known
        assert not one.source


@pytest.mark.parametrize("one", CODED, ids=lambda one: one.name)
def test_a_code_of_snomed_ct_is_no_slip_of_a_digit(one: Concept) -> None:
    assert one.code is not None
    assert one.code.scheme != "SCT" or _checks(one.code.value)


@pytest.mark.parametrize("one", concepts.CATEGORIES.values(), ids=lambda one: one.meaning)
def test_a_category_is_one_of_the_standard(one: concepts.Code) -> None:
    assert one.meaning.lower() in MEANINGS[one.scheme, one.value]


def test_left_and_right_are_codes_of_their_own() -> None:
    left, right = concepts.find("kidney_left"), concepts.find("Right Kidney")
    assert left is not None
    assert right is not None
    assert left.code == right.code
    assert (left.laterality, right.laterality) == (concepts.LEFT, concepts.RIGHT)
    assert left.color != right.color
    for side in (concepts.LEFT, concepts.RIGHT):
        assert side.meaning.lower() in MEANINGS["SCT", side.value]


@pytest.mark.parametrize("name", sorted({*TOTAL, *zoo.WHOLE_BODY.split()}))
def test_every_structure_of_whole_body_models_has_a_code_and_its_side(name: str) -> None:
    found = concepts.find(name)
    assert found is not None
    assert found.code is not None
    side = next((one for one in ("left", "right") if one in name.split("_")), "")
    meant = found.laterality.meaning.lower() if found.laterality else found.code.meaning.lower()
    assert side in meant


@pytest.mark.parametrize("classes", [TOTAL, zoo.WHOLE_BODY.split()], ids=["v2", "v1"])
def test_structures_that_are_shown_together_have_colours_that_can_be_told_apart(
    classes: list[str],
) -> None:
    colors = {name: one.color for name in classes if (one := concepts.find(name))}
    assert len(set(colors.values())) == len(classes)


def test_two_structures_that_are_no_sides_of_one_have_different_codes() -> None:
    by_code: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in TOTAL:
        found = concepts.find(name)
        assert found is not None
        assert found.code is not None
        side = found.laterality.value if found.laterality else ""
        by_code[found.code.value, side].add(name)
    assert [names for names in by_code.values() if len(names) > 1] == []


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("IVC", "inferior vena cava"),
        ("Portal and Splenic Veins", "portal vein and splenic vein"),
        ("Left Kideny", "kidney"),
        ("lv_pool", "left ventricle"),
        ("3rd-Ventricle", "third ventricle"),
        ("Right-Inf-Lat-Vent", "inferior horn of lateral ventricle"),
        ("Whole tumour", "neoplasm"),
        ("tools", "surgical instrument"),
    ],
)
def test_names_as_bundles_write_them_are_known(written: str, name: str) -> None:
    found = concepts.find(written)
    assert found is not None
    assert found.name == name


def test_what_no_code_could_be_verified_for_is_a_named_gap() -> None:
    found = concepts.find("Right-ACgG--anterior-cingulate-gyrus")
    assert found is not None
    assert found.code is None
    assert found.laterality == concepts.RIGHT


@pytest.mark.parametrize("name", ["", "liver_left", "left right kidney", "spleen of a dragon"])
def test_a_name_that_fits_no_concept_exactly_is_not_guessed(name: str) -> None:
    assert concepts.find(name) is None


def test_a_text_leads_to_the_concept_with_the_longest_name_in_it() -> None:
    nodule = concepts.within("CT lung nodule detection")
    lung = concepts.within("CT lung nodule detection", anatomy=True)
    assert nodule is not None
    assert lung is not None
    assert (nodule.name, lung.name) == ("lung nodule", "lung")
    assert concepts.within("nothing of the kind") is None


def test_no_name_stands_for_two_concepts() -> None:
    rows = [one.name for one in EVERY]
    assert len(rows) == len(set(rows))
    assert len(concepts.names()) > len(rows)


def test_every_colour_is_one_and_every_region_is_in_the_table() -> None:
    for one in EVERY:
        assert one.kind == "finding" or re.fullmatch("#[0-9a-f]{6}", one.color), one.name
        region = concepts.find(one.region) if one.region else None
        assert not one.region or (region is not None and region.code is not None)
