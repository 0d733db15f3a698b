"""What a manifest may say of inputs and answers, and what it may not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dicomnode.bundle import Manifest, manifest
from dicomnode.errors import Misconfigured

HEAD = """
name         = "Anything"
manufacturer = "Nobody"
intended_use = "Tests"
notice       = "RESEARCH USE ONLY"
family       = { value = "123110", scheme = "DCM", meaning = "Artificial Intelligence" }
procedure    = { value = "25056-3", scheme = "LN", meaning = "MRI unspecified body region" }
"""
INPUT = """
[inputs.image]
modality    = "MR"
sop_classes = ["MRImageStorage"]
"""
CODE = '{ value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }'
FINDING = f'{{ label = 1, name = "One", category = {CODE}, type = {CODE}, color = "#ff0000" }}'
OUTPUTS = {
    "label_map": f"segments = [{FINDING}]",
    "masks": f"threshold = 0.4\nsegments = [{FINDING}]",
    "probability_map": f"findings = [{FINDING}]",
    "boxes": f'scores = "s"\nclasses = "c"\ncoordinates = "ras"\nfindings = [{FINDING}]',
    "points": f'layout = "axes"\ncoordinates = "index"\nlandmarks = [{FINDING}]',
    "classification": f'concept = {CODE}\nclasses = [{{ name = "yes", code = {CODE} }}]',
    "numbers": f'quantities = [{{ name = "n", code = {CODE}, unit = {CODE} }}]',
    "image": f'description = "Denoised"\nderivation = {CODE}',
}


def read(tmp_path: Path, text: str) -> Manifest:
    path = tmp_path / "dicom.toml"
    path.write_text(text)
    return manifest.read(path)


def fault(tmp_path: Path, text: str) -> str:
    tomllib.loads(text)  # the fault is in what it says
    with pytest.raises(Misconfigured) as caught:
        read(tmp_path, text)
    assert caught.value.reason == "manifest-faulty"
    return caught.value.detail


def an_output(kind: str, about: str | None = None) -> str:
    return f'\n[outputs.pred]\nkind = "{kind}"\n{OUTPUTS[kind] if about is None else about}\n'


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_kind_of_answer_can_be_said(tmp_path: Path, kind: str) -> None:
    assert read(tmp_path, HEAD + INPUT + an_output(kind)).outputs["pred"].kind == kind


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_word_that_a_kind_does_not_know_is_named(tmp_path: Path, kind: str) -> None:
    told = fault(tmp_path, HEAD + INPUT + an_output(kind, OUTPUTS[kind] + "\nshape = 3"))
    assert "outputs.pred.shape: Extra inputs are not permitted" in told


@pytest.mark.parametrize(
    ("kind", "about", "told"),
    [
        ("masks", f"segments = [{FINDING}, {FINDING}]", "more than once: 1"),
        ("boxes", f'scores = "s"\ncoordinates = "mm"\nfindings = [{FINDING}]', "coordinates"),
        (
            "classification",
            OUTPUTS["classification"] + "\ncalibration_temperature = 2.0",
            "activation is none",
        ),
        (
            "classification",
            OUTPUTS["classification"].replace("}]", f'}}, {{ name = "yes", code = {CODE} }}]'),
            "each name stands once",
        ),
        ("heat_map", 'of = "pred"\nmethod = "gradcam"', "layer"),
        ("heat_map", 'of = "pred"', "no classification"),
    ],
)
def test_what_does_not_fit_together_in_an_answer_is_named(
    tmp_path: Path, kind: str, about: str, told: str
) -> None:
    assert told in fault(tmp_path, HEAD + INPUT + an_output(kind, about))


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("channels = 3", "a volume has one"),
        ('form = "image"\non_grid_of = "image"', "only a volume"),
        ('on_grid_of = "image"', "a grid of its own"),
        ('on_grid_of = "other"', "'other'"),
        ('values = "suvbw"', "suvbw is of PT"),
        ('view = { position = "CC" }', "picks images"),
        ('form = "cube"', "form"),
    ],
)
def test_what_does_not_fit_together_in_an_input_is_named(
    tmp_path: Path, added: str, told: str
) -> None:
    assert told in fault(tmp_path, HEAD + INPUT + added + an_output("label_map"))


def test_what_is_marked_lies_on_the_first_inputs_own_grid(tmp_path: Path) -> None:
    second = INPUT.replace("inputs.image", "inputs.other")
    grids = HEAD + INPUT + 'on_grid_of = "other"\n' + second
    assert "they keep their own grid" in fault(tmp_path, grids + an_output("label_map"))
    assert read(tmp_path, grids + an_output("numbers"))
    grids = HEAD + INPUT + second + 'on_grid_of = "image"\n'
    assert read(tmp_path, grids + an_output("label_map"))


def test_boxes_on_an_image_are_in_its_columns_and_rows(tmp_path: Path) -> None:
    text = HEAD + INPUT + 'form = "image"' + an_output("boxes")
    assert "they are 'index'" in fault(tmp_path, text)
    assert read(tmp_path, text.replace('"ras"', '"index"'))


def test_a_bundle_that_answers_nothing_is_none(tmp_path: Path) -> None:
    assert "a bundle has outputs" in fault(tmp_path, HEAD + INPUT)


def test_several_modalities_may_be_served_by_one_input(tmp_path: Path) -> None:
    text = HEAD + INPUT.replace('"MR"', '["CR", "DX"]') + an_output("numbers")
    assert read(tmp_path, text).inputs["image"].modalities == ("CR", "DX")
    one = read(tmp_path, HEAD + INPUT + an_output("numbers"))
    assert one.inputs["image"].modalities == ("MR",)
