"""Classes, numbers, boxes and points in the report: what stands there, and that no fault passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import examples
import numpy as np
import phantom
import pydicom
import pytest
from examples import Example, output
from made import CREATED, KEY, groups
from pydicom import Dataset

from dicomnode import results, volume
from dicomnode.bundle import Bundle, Output
from dicomnode.errors import ResultMismatch
from dicomnode.prediction import (
    Box,
    Boxes,
    Classification,
    HeatMap,
    LabelMap,
    Masks,
    Numbers,
    Point,
    Points,
    Prediction,
)
from dicomnode.volume import Images, Picture, SliceSource

CODE = {"value": "39607008", "scheme": "SCT", "meaning": "Lung"}


def finding(label: int, **more: Any) -> dict[str, Any]:
    named = {"label": label, "name": f"Nodule {label}", "category": CODE, "type": CODE}
    return named | {"color": "#ff8800"} | more


OUTPUTS: dict[str, Output] = {
    "kind": output(
        kind="classification",
        concept={"value": "404684003", "scheme": "SCT", "meaning": "Clinical finding"},
        classes=[
            {"name": "Normal", "code": {"value": "17621005", "scheme": "SCT", "meaning": "Normal"}},
            {"name": "Lung", "code": CODE, "operating_point": 0.4},
        ],
    ),
    "size": output(
        kind="numbers",
        quantities=[
            {
                "name": "Diameter",
                "code": {"value": "410668003", "scheme": "SCT", "meaning": "Length"},
                "unit": {"value": "mm", "scheme": "UCUM", "meaning": "millimeter"},
            }
        ],
    ),
    "nodules": output(
        kind="boxes",
        scores="s",
        coordinates="index",
        findings=[finding(1, anatomic_region=CODE), finding(2)],
    ),
    "tips": output(kind="points", coordinates="index", landmarks=[finding(1)]),
}


def an_image(folder: Path) -> Picture:
    """One radiograph on disk, without a place in the patient."""
    scan = phantom.write_series(folder, edit=lambda _, dataset: _bare(dataset))
    dataset = pydicom.dcmread(scan.files[0])
    return Picture(
        array=dataset.pixel_array.astype(np.float32),
        source=SliceSource(
            sop_instance_uid=dataset.SOPInstanceUID,
            sop_class_uid=dataset.SOPClassUID,
            path=str(scan.files[0]),
            frame_number=1,
            is_multiframe=False,
            position=None,
        ),
        pixel_spacing=None,
        affine=None,
        header=dataset,
    )


def _bare(dataset: Dataset) -> None:
    del dataset.FrameOfReferenceUID


def on_images(folder: Path) -> Prediction:
    frames = (an_image(folder),)
    return Prediction(
        subject=Images(frames=frames, form="image", modality="MR"),
        answers=(
            Classification(output="kind", frame=0, probabilities=(0.35, 0.65), chosen=(1,)),
            Numbers(output="size", frame=0, values=(12.5,)),
            Boxes(
                output="nodules",
                frame=0,
                boxes=(Box(label=2, score=0.875, low=(2.0, 3.0), high=(9.5, 11.0)),),
            ),
            Points(output="tips", frame=0, points=(Point(label=1, at=(4.0, 5.25)),)),
        ),
        computed="bfloat16, channels last",
    )


def on_a_volume(folder: Path) -> Prediction:
    shown = volume.load(phantom.write_series(folder, orientation="oblique").files)
    return Prediction(
        subject=shown,
        answers=(
            Classification(output="kind", probabilities=(0.7, 0.3), chosen=()),
            Numbers(output="size", values=(12.5,)),
            Boxes(output="nodules", boxes=()),
            Points(output="tips", points=(Point(label=1, at=(4.0, 5.25, -7.5)),)),
        ),
    )


def a_box_in_a_volume(folder: Path) -> Prediction:
    made = on_a_volume(folder)
    box = Box(label=1, score=0.5, low=(-10.0, -20.0, 3.0), high=(4.0, -8.0, 9.0))
    answers = [
        Boxes(output="nodules", boxes=(box,)) if one.output == "nodules" else one
        for one in made.answers
    ]
    return Prediction(subject=made.subject, answers=tuple(answers))


def a_model() -> Bundle:
    return phantom.a_bundle(outputs=OUTPUTS)


def make(prediction: Prediction, folder: Path) -> tuple[Path, ...]:
    built = results.build(
        prediction, bundle=a_model(), key=KEY, created=CREATED, profiles=[phantom.PLAIN]
    )
    return results.write(built, folder / "results")


MADE: list[Callable[[Path], Prediction]] = [on_images, on_a_volume, a_box_in_a_volume]


@pytest.mark.parametrize("predict", MADE)
def test_what_is_written_is_what_was_said(
    predict: Callable[[Path], Prediction], tmp_path: Path
) -> None:
    prediction = predict(tmp_path / "images")
    files = make(prediction, tmp_path)
    assert [path.name for path in files] == ["sr.dcm"]
    results.check(files, prediction=prediction, bundle=a_model(), key=KEY, profiles=[phantom.PLAIN])
    again = make(prediction, tmp_path / "again")
    assert files[0].read_bytes() == again[0].read_bytes()


def values(group: Dataset, kind: str) -> list[Dataset]:
    return [item for item in group.ContentSequence if item.ValueType == kind]


def test_a_class_is_said_with_its_certainty_and_the_image_it_is_of(tmp_path: Path) -> None:
    prediction = on_images(tmp_path / "images")
    classified, normal, lung, *_ = groups(pydicom.dcmread(make(prediction, tmp_path)[0]))

    said = [c.ConceptCodeSequence[0].CodeMeaning for c in values(classified, "CODE")]
    assert said[-1] == "Lung"
    (image,) = values(classified, "IMAGE")
    sop = image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert sop == prediction.subject.sources[0].sop_instance_uid
    certainties = [
        float(values(one, "NUM")[0].MeasuredValueSequence[0].NumericValue) for one in (normal, lung)
    ]
    assert certainties == [35, 65]
    texts = [item.TextValue for item in values(lung, "TEXT")]
    assert "Said to be so from 40 % on." in texts
    assert "bfloat16, channels last" in texts


def test_that_nothing_was_found_is_said(tmp_path: Path) -> None:
    prediction = on_a_volume(tmp_path / "images")
    found = groups(pydicom.dcmread(make(prediction, tmp_path)[0]))
    texts = [item.TextValue for group in found for item in values(group, "TEXT")]
    assert "No class reached its operating point." in texts
    assert "The algorithm found none." in texts


def test_the_centre_of_the_first_pixel_is_one_half(tmp_path: Path) -> None:
    prediction = on_images(tmp_path / "images")
    *_, box, tip = groups(pydicom.dcmread(make(prediction, tmp_path)[0]))
    (outline,) = values(box, "SCOORD")
    assert outline.GraphicType == "POLYLINE"
    corners = np.array(outline.GraphicData).reshape(-1, 2)
    np.testing.assert_array_equal(corners[0], [2.5, 3.5])
    np.testing.assert_array_equal(corners[2], [10, 11.5])
    np.testing.assert_array_equal(corners[0], corners[-1])
    (place,) = values(tip, "SCOORD")
    assert list(place.GraphicData) == [4.5, 5.75]


def test_a_box_in_the_patient_lies_in_millimetres(tmp_path: Path) -> None:
    prediction = a_box_in_a_volume(tmp_path / "images")
    *_, box, tip = groups(pydicom.dcmread(make(prediction, tmp_path)[0]))
    (outline,) = values(box, "SCOORD3D")
    corners = np.array(outline.GraphicData).reshape(-1, 3)
    np.testing.assert_array_equal(corners.min(axis=0), [-10, -20, 6])
    np.testing.assert_array_equal(corners.max(axis=0), [4, -8, 6])
    assert outline.ReferencedFrameOfReferenceUID == prediction.volume.frame_of_reference_uid
    (place,) = values(tip, "SCOORD3D")
    assert list(place.GraphicData) == [4, 5.25, -7.5]


LEFT = {"value": "7771000", "scheme": "SCT", "meaning": "Left"}
RIGHT = {"value": "24028007", "scheme": "SCT", "meaning": "Right"}
ANATOMY = {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"}


def test_the_side_of_a_landmark_and_of_a_number_is_said(tmp_path: Path) -> None:
    quantity = OUTPUTS["size"].model_dump()["quantities"][0]
    sided = quantity | {"anatomic_region": CODE, "laterality": RIGHT}
    model = phantom.a_bundle(
        outputs={
            "size": output(kind="numbers", quantities=[sided]),
            "tips": output(
                kind="points",
                coordinates="index",
                landmarks=[finding(1, category=ANATOMY, laterality=LEFT)],
            ),
        }
    )
    shown = on_images(tmp_path / "images")
    answers = tuple(one for one in shown.answers if one.output in ("size", "tips"))
    example = Example(prediction=replace(shown, answers=answers), model=model)
    (path,) = example.write(tmp_path / "results", phantom.PLAIN)

    report = pydicom.dcmread(path)
    sites = [
        (one.ConceptCodeSequence[0].CodeValue, one.ContentSequence[0].ConceptCodeSequence[0])
        for group in groups(report)
        for one in values(group, "CODE")
        if one.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site"
    ]
    assert [(place, side.CodeMeaning) for place, side in sites] == [
        (CODE["value"], "Right"),
        (CODE["value"], "Left"),
    ]

    sites[1][1].CodeValue = RIGHT["value"]
    report.save_as(path)
    with pytest.raises(ResultMismatch, match="site-differs"):
        example.check([path], phantom.PLAIN)


def _another_value(document: Dataset) -> None:
    item = values(groups(document)[1], "NUM")[0].MeasuredValueSequence[0]
    item.NumericValue = "36"


def _another_class(document: Dataset) -> None:
    values(groups(document)[0], "CODE")[-1].ConceptCodeSequence[0].CodeValue = "17621005"


def _elsewhere(document: Dataset) -> None:
    place = values(groups(document)[-1], "SCOORD")[0]
    place.GraphicData = [place.GraphicData[0] + 1, place.GraphicData[1]]


def _of_another_image(document: Dataset) -> None:
    image = values(groups(document)[0], "IMAGE")[0]
    image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def _another_unit(document: Dataset) -> None:
    item = values(groups(document)[3], "NUM")[0].MeasuredValueSequence[0]
    item.MeasurementUnitsCodeSequence[0].CodeValue = "cm"


def _without_a_group(document: Dataset) -> None:
    for item in document.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "126010":
            del item.ContentSequence[2]


def _another_version(document: Dataset) -> None:
    for item in values(groups(document)[2], "TEXT"):
        if item.ConceptNameCodeSequence[0].CodeValue == "111003":
            item.TextValue = "9.9"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_another_value, "measurement-differs"),
        (_another_class, "finding-differs"),
        (_elsewhere, "place-differs"),
        (_of_another_image, "reference-differs"),
        (_another_unit, "unit-differs"),
        (_without_a_group, "tracking-differs"),
        (_another_version, "algorithm-differs"),
    ],
)
def test_no_fault_passes_the_check(
    spoil: Callable[[Dataset], None], reason: str, tmp_path: Path
) -> None:
    prediction = on_images(tmp_path / "images")
    (path,) = make(prediction, tmp_path)
    document = pydicom.dcmread(path)
    spoil(document)
    document.save_as(path)
    with pytest.raises(ResultMismatch) as caught:
        results.check(
            [path], prediction=prediction, bundle=a_model(), key=KEY, profiles=[phantom.PLAIN]
        )
    assert caught.value.reason == reason


def test_masks_that_overlap_are_kept_as_they_overlap(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path / "images", orientation="sagittal")
    shown = volume.load(scan.files)
    segments = [finding(1, measure=["volume"]), finding(2)]
    model = phantom.a_bundle(outputs={"m": output(kind="masks", segments=segments)})
    array = np.zeros((2, *shown.array.shape), dtype=np.bool_)
    array[0, 2:6, 3:9, 4:12] = True
    array[1, 4:9, 5:12, 2:9] = True
    prediction = Prediction(subject=shown, answers=(Masks(output="m", array=array),))

    built = results.build(
        prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
    )
    files = results.write(built, tmp_path / "results")

    results.check(files, prediction=prediction, bundle=model, key=KEY, profiles=[phantom.PLAIN])
    segmentation = pydicom.dcmread(files[0])
    frames = segmentation.pixel_array.reshape(2, *shown.array.shape).astype(bool)
    np.testing.assert_array_equal(frames, array)
    swapped = Prediction(subject=shown, answers=(Masks(output="m", array=array[::-1]),))
    with pytest.raises(ResultMismatch):
        results.check(files, prediction=swapped, bundle=model, key=KEY, profiles=[phantom.PLAIN])


def test_what_could_not_be_said_is_said_to_be_so(tmp_path: Path) -> None:
    scan = phantom.write_series(tmp_path / "images")
    labels = phantom.a_bundle().manifest.outputs["bodies"]
    model = phantom.a_bundle(outputs={"bodies": labels, "size": OUTPUTS["size"]})
    prediction = Prediction(
        subject=volume.load(scan.files),
        answers=(LabelMap(output="bodies", array=scan.labels * 0),),
        silent={"size": "'size' was not run: 'bodies' found nothing to look at."},
    )
    built = results.build(
        prediction, bundle=model, key=KEY, created=CREATED, profiles=[phantom.PLAIN]
    )
    files = results.write(built, tmp_path / "results")
    results.check(files, prediction=prediction, bundle=model, key=KEY, profiles=[phantom.PLAIN])
    texts = [i.TextValue for i in pydicom.dcmread(files[-1]).ContentSequence if "TextValue" in i]
    assert any("was not run" in text for text in texts)


def test_a_probability_for_each_voxel_is_reported_under_the_name_of_its_segment(
    tmp_path: Path,
) -> None:
    example = examples.probabilities(tmp_path / "images")
    profile = phantom.PLAIN.with_choices({"segmentation": "fractional"})
    seg, report = examples.read(example.write(tmp_path / "results", profile))
    tracked = [values(group, "UIDREF")[0].UID for group in groups(report)]
    assert tracked == [segment.TrackingUID for segment in seg.SegmentSequence]
    texts = [item.TextValue for group in groups(report) for item in values(group, "TEXT")]
    assert texts.count("The algorithm gave a probability for each voxel.") == 2


def test_a_report_that_has_nothing_to_report_says_so(tmp_path: Path) -> None:
    example = examples.derived(tmp_path / "images")
    (report,) = examples.read(example.write(tmp_path / "results", phantom.PLAIN))
    (group,) = groups(report)
    texts = [item.TextValue for item in values(group, "TEXT")]
    assert "The algorithm reports no finding." in texts


def test_the_picture_shows_what_was_said_of_an_image(tmp_path: Path) -> None:
    prediction = on_images(tmp_path / "images")
    assert isinstance(prediction.subject, Images)
    heat = np.zeros(prediction.subject.frames[0].array.shape)
    heat[5:9, 5:9] = 1
    answers = (
        *prediction.answers,
        HeatMap(output="heat", frame=0, array=heat.astype(np.float32), of="kind", explains=1),
    )
    outputs = OUTPUTS | {"heat": output(kind="heat_map", of="kind")}
    model = phantom.a_bundle(outputs=outputs)
    plain = results.picture(prediction, bundle=model)
    warm = results.picture(Prediction(subject=prediction.subject, answers=answers), bundle=model)
    assert plain is not None
    assert warm is not None
    assert plain.size == warm.size
    assert plain.tobytes() != warm.tobytes()
