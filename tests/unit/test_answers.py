"""What a bundle says is judged, and brought to where it belongs, whatever its kind."""

from __future__ import annotations

from typing import Any

import bundles
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter
from pydicom import Dataset

from dicomnode.bundle import ClassificationOutput, Output
from dicomnode.errors import ModelFailed
from dicomnode.prediction import (
    Boxes,
    Classification,
    DerivedImage,
    HeatMap,
    LabelMap,
    Masks,
    Numbers,
    Points,
    ProbabilityMap,
)
from dicomnode.volume import Images, Picture, SliceSource, Volume

pytestmark = bundles.QUIET

CODE = {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"}


def finding(label: int) -> dict[str, Any]:
    return {
        "label": label,
        "name": f"Blob {label}",
        "category": CODE,
        "type": CODE,
        "color": "#ff0000",
    }


def output(kind: str, **about: Any) -> Output:
    spec: Output = TypeAdapter(Output).validate_python({"kind": kind, **about})
    return spec


def a_volume(shape: tuple[int, int, int] = (5, 6, 7)) -> Volume:
    """Sagittal and anisotropic: a swapped or reversed axis cannot go unseen."""
    affine = np.eye(4)
    affine[:3, 0] = (-3.0, 0, 0)
    affine[:3, 1] = (0, 0, -2.0)
    affine[:3, 2] = (0, 1.5, 0)
    affine[:3, 3] = (10, 20, 30)
    return Volume(
        array=np.zeros(shape, dtype=np.float32),
        affine=affine,
        sources=(),
        modality="CT",
        frame_of_reference_uid="1.2",
        orientation=(0, 1, 0, 0, 0, -1),
        pixel_spacing=(2.0, 1.5),
        slice_thickness=3.0,
        header=Dataset(),
    )


def a_picture(rows: int = 4, columns: int = 6) -> Picture:
    return Picture(
        array=np.zeros((rows, columns), dtype=np.float32),
        source=SliceSource(
            sop_instance_uid="1.2",
            sop_class_uid="1.3",
            path="",
            frame_number=1,
            is_multiframe=False,
            position=None,
        ),
        pixel_spacing=None,
        affine=None,
        header=Dataset(),
    )


def meta(array: NDArray[Any], subject: Volume | Picture, *, scale: float = 1.0) -> Any:
    """`array` (channels, columns, rows, slices) as MONAI hands it over, on the subject's grid."""
    import torch
    from monai.data.meta_tensor import MetaTensor

    from workers.inference import grid

    affine = grid.of(subject).affine.copy()
    affine[:3, :3] *= scale
    return MetaTensor(torch.as_tensor(array.copy()), affine=torch.as_tensor(affine))


def answers(said: dict[str, Any], spec: Output, subject: Any, *, frame: int | None = None) -> Any:
    from workers.inference.answers import About, of

    return of(said, "pred", spec, About(subject=subject, frame=frame))


def one(said: dict[str, Any], spec: Output, subject: Any, *, frame: int | None = None) -> Any:
    (answer,) = answers(said, spec, subject, frame=frame)
    return answer


def refused(said: dict[str, Any], spec: Output, subject: Any) -> str:
    with pytest.raises(ModelFailed) as caught:
        answers(said, spec, subject)
    return caught.value.reason


def test_masks_may_overlap_and_are_picked_by_their_channel() -> None:
    shown = a_volume()
    channels = np.random.default_rng(1).random((3, 7, 6, 5)).astype(np.float32)
    spec = output("masks", threshold=0.7, segments=[finding(3), finding(1)])

    answer = one({"pred": meta(channels, shown)}, spec, shown)

    assert isinstance(answer, Masks)
    np.testing.assert_array_equal(answer.array[0], channels[2].transpose() >= 0.7)
    np.testing.assert_array_equal(answer.array[1], channels[0].transpose() >= 0.7)
    assert (answer.array[0] & answer.array[1]).any()


def test_a_mask_that_was_decided_on_a_coarse_grid_stays_as_it_was_decided() -> None:
    shown = a_volume()
    coarse = np.zeros((1, 4, 3, 3), dtype=np.float32)
    coarse[0, 1, 1, 1] = 1
    spec = output("masks", threshold=0.3, segments=[finding(1)])

    answer = one({"pred": meta(coarse, shown, scale=2.0)}, spec, shown)

    # Twice the spacing, and the nearest centre: two voxels along each axis, and no more at 0.3.
    assert answer.array.sum() == 8


@pytest.mark.parametrize("threshold", [0.0, -2.0, 0.5])
def test_where_the_grid_of_an_answer_ends_nothing_is_marked(threshold: float) -> None:
    shown = a_volume()
    logits = np.full((1, 3, 6, 5), 4.0, dtype=np.float32)  # of the first 3 of 7 columns
    spec = output("masks", threshold=threshold, segments=[finding(1)])

    answer = one({"pred": meta(logits, shown)}, spec, shown)

    assert answer.array[0, :, :, :3].all()
    assert not answer.array[0, :, :, 4:].any()


def test_a_missing_channel_is_not_believed() -> None:
    shown = a_volume()
    spec = output("masks", segments=[finding(3)])
    assert refused({"pred": meta(np.zeros((2, 7, 6, 5)), shown)}, spec, shown) == "wrong-shape"


def test_a_probability_map_is_interpolated_and_must_be_one() -> None:
    shown = a_volume()
    spec = output("probability_map", findings=[finding(1)])
    ramp = np.broadcast_to(np.linspace(0, 1, 4)[None, :, None, None], (1, 4, 3, 3))

    answer = one({"pred": meta(ramp, shown, scale=2.0)}, spec, shown)

    assert isinstance(answer, ProbabilityMap)
    middle = answer.array[0, 2, 2]
    np.testing.assert_allclose(middle, np.arange(7) / 6, atol=1e-6)
    assert refused({"pred": meta(ramp * 2, shown)}, spec, shown) == "not-a-probability"
    assert refused({"pred": meta(ramp * np.nan, shown)}, spec, shown) == "not-finite"


def test_boxes_come_into_the_patient_whatever_their_coordinates() -> None:
    shown = a_volume()
    low, high = np.array([1.0, 2, 3]), np.array([4.0, 5, 4])  # column, row, slice
    corners = [shown.affine @ [z, y, x, 1] for x, y, z in (low, high)]
    lps = np.sort([corner[:3] for corner in corners], axis=0)
    ras = np.sort(lps * [-1, -1, 1], axis=0)
    center = [*(ras.mean(axis=0)), *(ras[1] - ras[0])]
    cases = {
        ("index", "corners"): [*low, *high],
        ("lps", "corners"): [*lps[0], *lps[1]],
        ("ras", "corners"): [*ras[0], *ras[1]],
        ("ras", "center"): center,
    }
    for (coordinates, mode), numbers in cases.items():
        spec = output(
            "boxes",
            key="box",
            scores="score",
            classes="label",
            mode=mode,
            coordinates=coordinates,
            findings=[finding(1), finding(2)],
        )
        said = {"box": [numbers, numbers], "score": [0.6, 0.9], "label": [1, 0]}

        answer = one(said, spec, shown)

        assert isinstance(answer, Boxes)
        assert [(box.label, box.score) for box in answer.boxes] == [(1, 0.9), (2, 0.6)]
        np.testing.assert_allclose(answer.boxes[0].low, lps[0], atol=1e-9)
        np.testing.assert_allclose(answer.boxes[0].high, lps[1], atol=1e-9)


def test_boxes_of_a_low_score_are_no_answer_and_none_is_one() -> None:
    shown = a_volume()
    spec = output("boxes", scores="score", coordinates="lps", findings=[finding(1)])

    assert one({"pred": [[0, 0, 0, 1, 1, 1]], "score": [0.4]}, spec, shown).boxes == ()
    assert one({"pred": np.zeros((0, 6)), "score": []}, spec, shown).boxes == ()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"pred": [[0, 0, 0, 1, 1, 1]], "score": [1.4]}, "not-a-probability"),
        ({"pred": [[0, 0, 0, 1, 1, 1]], "score": [np.nan]}, "not-finite"),
        ({"pred": [[0, 0, 2, 1, 1, 1]], "score": [0.9]}, "not-finite"),
        ({"pred": [[0, 0, 0, 1, 1, 1]], "score": [0.9, 0.8]}, "wrong-shape"),
        ({"pred": [[0, 0, 0, 1, 1, 1]]}, "no-answer"),
    ],
)
def test_boxes_that_are_none_are_not_believed(said: dict[str, Any], reason: str) -> None:
    spec = output("boxes", scores="score", coordinates="lps", findings=[finding(1)])
    assert refused(said, spec, a_volume()) == reason


def test_a_class_of_boxes_that_the_manifest_does_not_know_is_not_believed() -> None:
    spec = output(
        "boxes", scores="score", classes="label", coordinates="lps", findings=[finding(1)]
    )
    said = {"pred": [[0, 0, 0, 1, 1, 1]], "score": [0.9], "label": [1]}
    assert refused(said, spec, a_volume()) == "unknown-label"


def test_points_of_a_volume_come_into_the_patient() -> None:
    shown = a_volume()
    spec = output("points", layout="axes", coordinates="index", landmarks=[finding(1), finding(2)])
    table = np.array([[1.0, 2, 3], [4, 5, 0]]).T

    answer = one({"pred": table}, spec, shown)

    assert isinstance(answer, Points)
    np.testing.assert_allclose(answer.points[0].at, (shown.affine @ [3, 2, 1, 1])[:3])
    np.testing.assert_allclose(answer.points[1].at, (shown.affine @ [0, 5, 4, 1])[:3])


@pytest.mark.parametrize(
    ("layout", "shape"), [("points", (1, 3)), ("points", (1, 1, 3)), ("axes", (1, 3, 1))]
)
def test_one_landmark_is_a_point_too(layout: str, shape: tuple[int, ...]) -> None:
    shown = a_volume()
    spec = output("points", layout=layout, coordinates="lps", landmarks=[finding(1)])
    answer = one({"pred": np.array([4.0, 5.0, 6.0]).reshape(shape)}, spec, shown)
    assert answer.points[0].at == (4.0, 5.0, 6.0)


def test_points_of_a_cine_are_one_answer_for_each_phase() -> None:
    cine = Images(frames=(a_picture(),) * 3, form="cine", modality="MR")
    spec = output("points", layout="axes", coordinates="index", landmarks=[finding(1)])
    table = np.arange(6.0).reshape(2, 1, 3)

    found = answers({"pred": table}, spec, cine)

    assert [answer.frame for answer in found] == [0, 1, 2]
    assert [answer.points[0].at for answer in found] == [(0.0, 3.0), (1.0, 4.0), (2.0, 5.0)]
    assert refused({"pred": table[..., :2]}, spec, cine) == "wrong-shape"


def classification(**about: Any) -> ClassificationOutput:
    spec = output("classification", **({"concept": CODE} | about))
    assert isinstance(spec, ClassificationOutput)
    return spec


def named(*points: float | None) -> list[dict[str, Any]]:
    return [
        {"name": f"class {number}", "code": CODE}
        | ({} if point is None else {"operating_point": point})
        for number, point in enumerate(points)
    ]


def test_logits_become_probabilities_by_softmax_at_their_temperature() -> None:
    spec = classification(
        activation="softmax", calibration_temperature=2.0, classes=named(None, None, None)
    )

    answer = one({"pred": np.array([2.0, 4.0, 0.0])}, spec, a_volume())

    assert isinstance(answer, Classification)
    powers = np.exp([1.0, 2.0, 0.0])
    np.testing.assert_allclose(answer.probabilities, powers / powers.sum())
    assert answer.chosen == (1,)


@pytest.mark.parametrize(
    ("probability", "point", "chosen"),
    [(0.35, 0.3, 1), (0.25, 0.3, 0), (0.75, 0.8, 0), (0.85, 0.8, 1)],
)
def test_the_operating_point_decides_between_two_classes(
    probability: float, point: float, chosen: int
) -> None:
    spec = classification(classes=named(None, point))
    answer = one({"pred": [probability]}, spec, a_volume())
    np.testing.assert_allclose(answer.probabilities, (1 - probability, probability))
    assert answer.chosen == (chosen,)


def test_classes_that_do_not_exclude_each_other_have_an_operating_point_each() -> None:
    spec = classification(exclusive=False, classes=named(None, 0.2, 0.9))
    assert one({"pred": [0.6, 0.3, 0.8]}, spec, a_volume()).chosen == (0, 1)
    assert one({"pred": [0.1, 0.1, 0.1]}, spec, a_volume()).chosen == ()


def test_what_is_no_probability_is_not_believed() -> None:
    spec = classification(classes=named(None, None))
    assert refused({"pred": [3.0, -1.0]}, spec, a_volume()) == "not-a-probability"
    assert refused({"pred": [np.nan, 0.0]}, spec, a_volume()) == "not-finite"
    assert refused({"pred": [0.2, 0.3, 0.5]}, spec, a_volume()) == "wrong-shape"


def test_a_series_is_what_its_images_are_together() -> None:
    from workers.inference import classes

    parts = [
        Classification(output="pred", frame=n, probabilities=(1 - p, p), chosen=())
        for n, p in enumerate((0.2, 0.9))
    ]
    mean = classes.combined(parts, "pred", classification(classes=named(None, 0.6)))
    highest = classes.combined(
        parts, "pred", classification(combine="max", classes=named(None, 0.6))
    )
    np.testing.assert_allclose(mean.probabilities, (0.45, 0.55))
    assert mean.chosen == (0,)
    assert highest.chosen == (1,)
    assert mean.frame is None


def test_numbers_are_as_many_as_the_manifest_names() -> None:
    quantity = {"name": "Ejection fraction", "code": CODE, "unit": CODE}
    spec = output("numbers", quantities=[quantity, quantity])
    answer = one({"pred": np.array([[55.5, 2.0]])}, spec, a_volume())
    assert isinstance(answer, Numbers)
    assert answer.values == (55.5, 2.0)
    assert refused({"pred": [1.0]}, spec, a_volume()) == "wrong-shape"
    assert refused({"pred": [1.0, np.inf]}, spec, a_volume()) == "not-finite"


def test_a_label_map_of_an_image_has_its_rows_and_columns() -> None:
    shown = a_picture()
    labels = np.zeros((1, 6, 4), dtype=np.uint8)
    labels[0, 5, 1] = 1
    spec = output("label_map", segments=[finding(1)])

    answer = one({"pred": meta(labels, shown)}, spec, shown, frame=2)

    assert isinstance(answer, LabelMap)
    assert answer.frame == 2
    assert answer.array.shape == (4, 6)
    assert answer.array[1, 5] == 1
    assert answer.array.sum() == 1


def test_a_derived_image_is_interpolated_onto_the_grid() -> None:
    shown = a_volume()
    spec = output("image", description="Denoised", derivation=CODE)
    coarse = np.broadcast_to(np.arange(4.0)[None, :, None, None], (1, 4, 3, 3)) * 10
    answer = one({"pred": meta(coarse, shown, scale=2.0)}, spec, shown)
    assert isinstance(answer, DerivedImage)
    np.testing.assert_allclose(answer.array[2, 2], np.arange(7) * 5.0, atol=1e-4)


def test_a_heat_map_of_the_bundle_reaches_from_0_to_1() -> None:
    shown = a_volume()
    spec = output("heat_map", of="classes")
    heat = np.linspace(-5, 7, 7 * 6 * 5, dtype=np.float32).reshape(1, 7, 6, 5)
    answer = one({"pred": meta(heat, shown)}, spec, shown)
    assert isinstance(answer, HeatMap)
    assert (answer.array.min(), answer.array.max()) == (0, 1)


def test_an_answer_without_a_place_is_not_believed() -> None:
    import torch

    spec = output("label_map", segments=[finding(1)])
    assert refused({"pred": torch.zeros(1, 7, 6, 5)}, spec, a_volume()) == "no-geometry"
    assert refused({"other": torch.zeros(1)}, spec, a_volume()) == "no-answer"
