"""Several bundles as one model: where a later step looks, and how answers are merged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from pydantic import TypeAdapter
from pydicom import Dataset

from dicomnode import bundle
from dicomnode.errors import Misconfigured, ModelFailed
from dicomnode.prediction import Boxes, Classification, LabelMap, Masks, Numbers, Prediction
from dicomnode.volume import SliceSource, Volume
from workers import inference

pytestmark = bundles.QUIET

LABELS = bundles.LABEL_MAP + bundles.segment(1, "Blob")
CLASSES = """
[outputs.pred]
kind       = "classification"
concept    = { value = "363698007", scheme = "SCT", meaning = "Finding Site" }
activation = "sigmoid"
classes    = [
    { name = "dark",   code = { value = "1", scheme = "99T", meaning = "dark" } },
    { name = "bright", code = { value = "2", scheme = "99T", meaning = "bright" } },
]
"""
NUMBERS = """
[outputs.pred]
kind = "numbers"
[[outputs.pred.quantities]]
name = "Size"
code = { value = "1", scheme = "99T", meaning = "size" }
unit = { value = "1", scheme = "UCUM", meaning = "no units" }
"""
BRIGHTER = "torch.cat([{level} - image, image - {level}], dim=1)"
ARGMAX = [bundles.ARGMAX]


def write_step(
    root: Path, forward: str, outputs: str, post: list[dict[str, Any]] | None = None
) -> None:
    bundles.write(
        root,
        manifest=bundles.of_one_image(root.name) + outputs,
        configuration=bundles.plain(after=post or []),
        script=bundles.net(forward),
    )


def write_chain(root: Path, chain: str) -> bundle.Bundle:
    (root / "configs").mkdir(parents=True, exist_ok=True)
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "2.0"}))
    (root / "dicom.toml").write_text(chain.replace("HEAD", bundles.of_one_image("Chain")))
    bundle.write_lock(root)
    return bundle.load(root)


CHAIN = """
takes = { organ = "organ.pred", inside = "inside.pred" }
HEAD
[steps.organ]
bundle = "../organ"
[steps.inside]
bundle = "../inside"
region = { of = "organ.pred", margin_mm = 2.0 }
"""


def an_output(kind: str, **about: Any) -> bundle.Output:
    spec: bundle.Output = TypeAdapter(bundle.Output).validate_python({"kind": kind, **about})
    return spec


def a_finding(label: int) -> dict[str, Any]:
    code = {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"}
    about = {"name": f"Blob {label}", "category": code, "type": code, "color": "#ff0000"}
    return {"label": label} | about


def a_volume(bright: tuple[slice, slice, slice] | None) -> Volume:
    """Zero, and 5 in a block; its axes are those of a coronal scan, and no two are alike."""
    array = np.zeros((8, 9, 10), dtype=np.float32)
    if bright is not None:
        array[bright] = 5
    affine = np.eye(4)
    affine[:3, 0] = (0, 3.0, 0)
    affine[:3, 1] = (0, 0, -2.0)
    affine[:3, 2] = (1.0, 0, 0)
    affine[:3, 3] = (-20, 7, 11)
    sources = tuple(
        SliceSource(
            sop_instance_uid=f"1.2.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
            path="",
            frame_number=1,
            is_multiframe=False,
            position=(-20.0, 7.0 + 3 * number, 11.0),
        )
        for number in range(8)
    )
    return Volume(
        array=array,
        affine=affine,
        sources=sources,
        modality="MR",
        frame_of_reference_uid="1.2",
        orientation=(1, 0, 0, 0, 0, -1),
        pixel_spacing=(2.0, 1.0),
        slice_thickness=3.0,
        header=Dataset(),
    )


def run(model: bundle.Bundle, shown: Volume) -> Prediction:
    return inference.load_model(model, device="cpu").predict({"image": shown})


BLOCK = (slice(2, 5), slice(3, 6), slice(4, 8))


def test_a_later_step_sees_the_region_alone_and_its_answer_goes_back_there(tmp_path: Path) -> None:
    write_step(tmp_path / "organ", BRIGHTER.format(level=1), LABELS, ARGMAX)
    # Marks all that it is shown: what it marks is what it saw.
    write_step(tmp_path / "inside", "torch.cat([image * 0, image * 0 + 1], 1)", LABELS, ARGMAX)
    model = write_chain(tmp_path / "chain", CHAIN)

    answers = {one.output: one for one in run(model, a_volume(BLOCK)).answers}

    organ, inside = answers["organ"], answers["inside"]
    assert isinstance(organ, LabelMap)
    assert isinstance(inside, LabelMap)
    assert organ.array.sum() == 3 * 3 * 4
    # 2 mm are no slice of 3 mm (but part of one), one row of 2 mm and two columns of 1 mm.
    expected = np.zeros_like(inside.array)
    expected[1:6, 2:7, 2:10] = 1
    np.testing.assert_array_equal(inside.array, expected)


def test_where_there_is_no_region_the_later_step_is_not_run(tmp_path: Path) -> None:
    write_step(tmp_path / "organ", BRIGHTER.format(level=1), LABELS, ARGMAX)
    write_step(tmp_path / "inside", "image / 0", NUMBERS)
    model = write_chain(tmp_path / "chain", CHAIN)

    prediction = run(model, a_volume(None))

    (organ,) = prediction.answers
    assert isinstance(organ, LabelMap)
    assert not organ.array.any()
    assert list(prediction.silent) == ["inside"]
    assert "organ" in prediction.silent["inside"]


def test_the_number_of_a_region_is_that_of_the_region(tmp_path: Path) -> None:
    write_step(tmp_path / "organ", BRIGHTER.format(level=1), LABELS, ARGMAX)
    write_step(tmp_path / "inside", "image.sum().reshape(1, 1)", NUMBERS)
    model = write_chain(tmp_path / "chain", CHAIN)
    shown = a_volume(BLOCK)
    shown.array[7, 8, 0] = 0.5  # beyond the region, below the organ's level

    answers = {one.output: one for one in run(model, shown).answers}

    inside = answers["inside"]
    assert isinstance(inside, Numbers)
    assert inside.values == (5.0 * 36,)


def test_a_vote_takes_what_most_say(tmp_path: Path) -> None:
    for name, level in (("a", 1), ("b", 3), ("c", 9)):
        write_step(tmp_path / name, BRIGHTER.format(level=level), LABELS, ARGMAX)
    model = write_chain(
        tmp_path / "chain",
        'HEAD\n[steps]\na = { bundle = "../a" }\nb = { bundle = "../b" }\nc = { bundle = "../c" }\n'
        '[merges.pred]\nhow = "vote"\nof = ["a.pred", "b.pred", "c.pred"]\n',
    )
    shown = a_volume(BLOCK)
    shown.array[0, 0, 0] = 2  # one of three says so

    (answer,) = run(model, shown).answers

    assert isinstance(answer, LabelMap)
    assert answer.output == "pred"
    np.testing.assert_array_equal(answer.array, shown.array == 5)


def test_the_mean_of_probabilities_decides_anew(tmp_path: Path) -> None:
    for name, logit in (("a", 3.0), ("b", -2.0)):
        write_step(tmp_path / name, f"image.mean().reshape(1, 1) * 0 + {logit}", CLASSES)
    model = write_chain(
        tmp_path / "chain",
        'HEAD\n[steps]\na = { bundle = "../a" }\nb = { bundle = "../b" }\n'
        '[merges.pred]\nhow = "mean"\nof = ["a.pred", "b.pred"]\n',
    )

    (answer,) = run(model, a_volume(BLOCK)).answers

    assert isinstance(answer, Classification)
    expected = (1 / (1 + np.exp(-3.0)) + 1 / (1 + np.exp(2.0))) / 2
    np.testing.assert_allclose(answer.probabilities, (1 - expected, expected), rtol=1e-6)
    assert answer.chosen == (1,)


def test_the_identity_of_a_chain_changes_with_the_weights_of_a_step(tmp_path: Path) -> None:
    write_step(tmp_path / "organ", BRIGHTER.format(level=1), LABELS, ARGMAX)
    write_step(tmp_path / "inside", BRIGHTER.format(level=2), LABELS, ARGMAX)
    before = write_chain(tmp_path / "chain", CHAIN)
    assert [one.manifest.name for one in before.models] == ["Chain", "organ", "inside"]

    net = tmp_path / "inside" / "scripts" / "net.py"
    net.write_text(net.read_text().replace("2", "3"))
    bundle.write_lock(tmp_path / "inside")

    after = bundle.load(tmp_path / "chain")
    assert after.digest != before.digest
    with pytest.raises(Misconfigured) as caught:
        run(before, a_volume(BLOCK))
    assert caught.value.reason == "bundle-changed"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('inside = "inside.pred"', 'inside = "inside.mask"', "there is no 'inside.mask'"),
        ('of = "organ.pred"', 'of = "inside.pred"', "no output of an earlier step"),
        ('bundle = "../inside"', 'bundle = "."', "contains itself"),
        ("margin_mm = 2.0", "labels = [4]", "has no label 4"),
        ("[steps.inside]", "[outputs.more]\nkind = 'image'\n[steps.inside]", "outputs.more"),
    ],
)
def test_a_fault_of_a_chain_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    write_step(tmp_path / "organ", BRIGHTER.format(level=1), LABELS, ARGMAX)
    write_step(tmp_path / "inside", BRIGHTER.format(level=2), LABELS, ARGMAX)
    assert old in CHAIN
    with pytest.raises(Misconfigured) as caught:
        write_chain(tmp_path / "chain", CHAIN.replace(old, new))
    assert caught.value.reason == "manifest-faulty"
    assert told in caught.value.detail


def test_outputs_that_differ_in_meaning_are_not_merged(tmp_path: Path) -> None:
    write_step(tmp_path / "a", BRIGHTER.format(level=1), LABELS, ARGMAX)
    write_step(tmp_path / "b", BRIGHTER.format(level=1), LABELS.replace("Blob", "Else"), ARGMAX)
    with pytest.raises(Misconfigured) as caught:
        write_chain(
            tmp_path / "chain",
            'HEAD\n[steps]\na = { bundle = "../a" }\nb = { bundle = "../b" }\n'
            '[merges.pred]\nhow = "vote"\nof = ["a.pred", "b.pred"]\n',
        )
    assert "differ in meaning" in caught.value.detail


def test_a_region_may_lie_around_boxes() -> None:
    from dicomnode.bundle import Region
    from dicomnode.prediction import Box
    from workers.inference import region

    shown = a_volume(BLOCK)
    corners = [(shown.affine @ [*index, 1])[:3] for index in ((2, 3, 4), (4, 5, 7))]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    box = Box(label=1, score=1.0, low=tuple(low.tolist()), high=tuple(high.tolist()))

    spec = an_output("boxes", scores="s", coordinates="lps", findings=[a_finding(1)])
    part = region.around([Boxes(output="b", boxes=(box,))], Region(of="a.b"), shown, spec)

    assert part is not None
    assert (part.low, part.high) == ((2, 3, 4), (5, 6, 8))
    assert region.around([Boxes(output="b", boxes=())], Region(of="a.b"), shown, spec) is None


def test_a_region_lies_around_the_mask_of_its_label_wherever_that_stands() -> None:
    from dicomnode.bundle import Region
    from workers.inference import region

    shown = a_volume(BLOCK)
    spec = an_output("masks", segments=[a_finding(7), a_finding(2)])
    array = np.zeros((2, *shown.array.shape), dtype=np.bool_)
    array[0][0, 0, 0] = True  # of label 7
    array[1][BLOCK] = True  # of label 2
    masks = [Masks(output="b", array=array)]

    one = region.around(masks, Region(of="a.b", labels=(2,)), shown, spec)
    other = region.around(masks, Region(of="a.b", labels=(7,)), shown, spec)
    both = region.around(masks, Region(of="a.b"), shown, spec)

    first, last = (
        region.Part(low=(2, 3, 4), high=(5, 6, 8)),
        region.Part(low=(0,) * 3, high=(1,) * 3),
    )
    assert (one, other) == (first, last)
    assert both == region.Part(low=last.low, high=first.high)


TWO = """
takes = { first = "first.pred", second = "second.pred" }
HEAD
[inputs.other]
modality = "MR"
sop_classes = ["MRImageStorage"]
[steps.first]
bundle = "../first"
[steps.second]
bundle = "../second"
inputs = { image = "other" }
"""


def test_an_answer_on_another_grid_is_not_taken_for_one_on_the_first(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_step(tmp_path / name, BRIGHTER.format(level=1), LABELS, ARGMAX)
    model = inference.load_model(write_chain(tmp_path / "chain", TWO), device="cpu")
    shown, other = a_volume(BLOCK), a_volume(None)
    answers = model.predict({"image": shown, "other": other}).answers
    assert [one.output for one in answers] == ["first", "second"]

    # As many voxels, and elsewhere: nothing but the affine tells the grids apart.
    moved = other.affine.copy()
    moved[0, 3] += 40
    with pytest.raises(ModelFailed, match="wrong-grid"):
        model.predict({"image": shown, "other": dataclasses.replace(other, affine=moved)})


def test_a_merge_of_which_a_part_was_not_run_says_so(tmp_path: Path) -> None:
    write_step(tmp_path / "organ", BRIGHTER.format(level=1), LABELS, ARGMAX)
    for name in ("whole", "inside"):
        write_step(tmp_path / name, "image.sum().reshape(1, 1)", NUMBERS)
    chain = """HEAD
[steps]
organ = { bundle = "../organ" }
whole = { bundle = "../whole" }
inside = { bundle = "../inside", region = { of = "organ.pred" } }
[merges.size]
how = "mean"
of = ["whole.pred", "inside.pred"]
"""
    model = write_chain(tmp_path / "chain", chain)
    (size,) = run(model, a_volume(BLOCK)).answers
    assert isinstance(size, Numbers)

    prediction = run(model, a_volume(None))

    assert prediction.answers == ()
    assert "organ" in prediction.silent["size"]


def test_what_a_chain_within_a_chain_cannot_say_is_not_said(tmp_path: Path) -> None:
    write_step(tmp_path / "organ", BRIGHTER.format(level=1), LABELS, ARGMAX)
    write_step(tmp_path / "inside", "image.sum().reshape(1, 1)", NUMBERS)
    write_chain(tmp_path / "chain", CHAIN)
    outer = write_chain(
        tmp_path / "outer",
        'takes = { size = "inner.inside" }\nHEAD\n[steps]\ninner = { bundle = "../chain" }\n',
    )
    prediction = run(outer, a_volume(None))
    assert prediction.answers == ()
    assert "organ" in prediction.silent["size"]
