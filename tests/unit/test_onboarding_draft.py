"""`dicom.toml` as it is drafted from what a bundle's makers wrote."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import zoo
from zoo import Tree

from dicomnode.bundle import (
    BoxesOutput,
    ClassificationOutput,
    LabelMapOutput,
    Manifest,
    MasksOutput,
    PointsOutput,
    ProbabilityMapOutput,
)
from dicomnode.errors import Misconfigured
from dicomnode.onboarding import description, postprocessing
from dicomnode.onboarding.draft import Draft, draft
from dicomnode.onboarding.page import Page, ascii_text, toml

NAMES = list(zoo.EVERY)


def drafted(root: Path) -> tuple[Draft, Manifest]:
    made = draft(description.read(root), name=root.name)
    return made, Manifest.model_validate(tomllib.loads(made.text))


def of(name: str, tmp_path: Path) -> Manifest:
    return drafted(zoo.written(name, tmp_path))[1]


def changed(tmp_path: Path, about: Tree | None = None, how: Tree | None = None) -> Path:
    """The bundle of one organ, with other words of its makers."""
    metadata, config = zoo.spleen()
    return zoo.write(tmp_path / "spleen", metadata | (about or {}), config | (how or {}))


@pytest.mark.parametrize("name", NAMES)
def test_every_draft_is_a_manifest_whose_guesses_are_marked_and_listed(
    name: str, tmp_path: Path
) -> None:
    made, manifest = drafted(zoo.written(name, tmp_path))
    assert manifest.draft == made.guesses
    assert manifest.draft, "somebody has to look at a draft"
    assert made.text.count("GUESS") >= sum(
        path.rpartition(".")[2] not in {"segments", "findings", "landmarks", "classes"}
        for path in manifest.draft
    )
    content = tomllib.loads(made.text)
    for path in manifest.draft:
        assert _at(content, path) is not None, path


def _at(content: Any, path: str) -> Any:
    for step in re.findall(r"[^.\[\]]+", path):
        content = content[int(step)] if isinstance(content, list) else content[step]
    return content


@pytest.mark.parametrize("name", NAMES)
def test_every_draft_is_in_ascii_but_for_the_intended_use(name: str, tmp_path: Path) -> None:
    manifest = of(name, tmp_path)
    assert manifest.model_dump_json(exclude={"intended_use"}).isascii()


@pytest.mark.parametrize(
    ("name", "kind", "form", "modality"),
    [
        ("spleen_ct_segmentation", "label_map", "volume", "CT"),
        ("wholeBody_ct_segmentation", "label_map", "volume", "CT"),
        ("brats_mri_segmentation", "label_map", "volume", "MR"),
        ("prostate_mri_anatomy", "label_map", "volume", "MR"),
        ("ventricular_short_axis_3label", "label_map", "volume", "MR"),
        ("lung_nodule_ct_detection", "boxes", "volume", "CT"),
        ("breast_density_classification", "classification", "image", "MG"),
        ("valve_landmarks", "points", "cine", "MR"),
        ("endoscopic_tool_segmentation", "masks", "image", "ES"),
        ("pathology_tumor_detection", "probability_map", "slide", "SM"),
        ("renalStructures_CECT_segmentation", "masks", "volume", "CT"),
        ("pancreas_ct_dints_segmentation", "label_map", "volume", "CT"),
        ("swin_unetr_btcv_segmentation", "label_map", "volume", "CT"),
        ("pathology_nuclei_segmentation_classification", "label_map", "image", "SM"),
    ],
)
def test_the_kind_of_answer_the_form_and_the_modality_are_told(
    name: str, kind: str, form: str, modality: str, tmp_path: Path
) -> None:
    manifest = of(name, tmp_path)
    (output,) = manifest.outputs.values()
    first = next(iter(manifest.inputs.values()))
    assert (output.kind, first.form, first.modality) == (kind, form, modality)


def test_the_labels_of_a_label_map_are_its_channels_without_the_background(tmp_path: Path) -> None:
    output = of("wholeBody_ct_segmentation", tmp_path).outputs["pred"]
    assert isinstance(output, LabelMapOutput)
    assert [one.label for one in output.segments] == list(range(1, 105))
    kidney = output.segments[1]
    assert (kidney.type.value, kidney.laterality and kidney.laterality.value) == (
        "64033007", "24028007",
    )  # fmt: skip
    assert not [one for one in output.segments if one.type.value == "UNKNOWN"]
    assert len({one.color for one in output.segments}) == 104


def test_series_that_are_stacked_are_inputs_of_one_key_in_their_order(tmp_path: Path) -> None:
    manifest = of("brats_mri_segmentation", tmp_path)
    assert list(manifest.inputs) == ["t1c", "t1", "t2", "flair"]
    assert {one.key for one in manifest.inputs.values()} == {"image"}
    assert [one.on_grid_of for one in manifest.inputs.values()] == [None, "t1c", "t1c", "t1c"]
    assert "inputs.t1.on_grid_of" in manifest.draft


def test_series_that_are_loaded_one_by_one_are_inputs_of_their_own_names(tmp_path: Path) -> None:
    manifest = of("renalStructures_CECT_segmentation", tmp_path)
    assert list(manifest.inputs) == ["artery", "vein", "excret"]
    assert {one.key for one in manifest.inputs.values()} == {None}


def test_channels_that_are_folded_into_labels_are_known_by_those_labels(tmp_path: Path) -> None:
    output = of("brats_mri_segmentation", tmp_path).outputs["pred"]
    assert isinstance(output, LabelMapOutput)
    assert {one.label: one.name for one in output.segments} == {
        1: "Tumor core", 2: "Whole tumor", 4: "Enhancing tumor",
    }  # fmt: skip
    assert output.segments[0].anatomic_region is not None
    assert output.segments[0].anatomic_region.meaning == "Brain"


@pytest.mark.parametrize(
    ("function", "codes"),
    [
        ("$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[0] > 0.5, 1, 0))", {4: 2, 1: 0}),
        ("lambda x: np.where(x[1:2] > 0, 3, 0)", {}),
        ("$lambda x: x + 1", {}),
        ("$lambda x: (", {}),
        ("$os.remove('/')", {}),
    ],
)
def test_only_nested_choices_between_labels_are_read_as_such(
    function: str, codes: dict[int, int]
) -> None:
    assert postprocessing.label_codes(function) == codes


def test_boxes_come_with_their_keys_their_mode_and_their_frame(tmp_path: Path) -> None:
    output = of("lung_nodule_ct_detection", tmp_path).outputs["pred"]
    assert isinstance(output, BoxesOutput)
    assert (output.key, output.scores, output.classes) == ("box", "label_scores", "label")
    assert (output.mode, output.coordinates) == ("center", "lps")
    (finding,) = output.findings
    assert (finding.name, finding.type.meaning) == ("Lung nodule", "Nodule")
    assert finding.anatomic_region is not None
    assert finding.anatomic_region.meaning == "Lung"


def test_classes_of_a_known_scale_have_its_codes(tmp_path: Path) -> None:
    manifest = of("breast_density_classification", tmp_path)
    output = manifest.outputs["pred"]
    assert isinstance(output, ClassificationOutput)
    assert output.concept.meaning == "Breast composition"
    assert [one.code.meaning for one in output.classes] == [
        "Almost entirely fat", "Scattered fibroglandular densities", "Heterogeneously dense",
        "Extremely dense",
    ]  # fmt: skip
    assert (output.activation, output.exclusive, output.of) == ("none", True, "image")
    image = manifest.inputs["image"]
    assert (image.channels, image.values) == (3, "displayed")


def test_landmarks_are_named_by_their_meanings(tmp_path: Path) -> None:
    output = of("valve_landmarks", tmp_path).outputs["pred"]
    assert isinstance(output, PointsOutput)
    assert (output.layout, output.coordinates) == ("axes", "index")
    assert [one.name for one in output.landmarks] == [
        "Mitral anterior 2CH", "Mitral posterior 2CH", "Aortic septal",
    ]  # fmt: skip


def test_a_channel_that_is_cut_away_shifts_the_labels(tmp_path: Path) -> None:
    output = of("endoscopic_tool_segmentation", tmp_path).outputs["pred"]
    assert isinstance(output, MasksOutput)
    assert [(one.label, one.name) for one in output.segments] == [(1, "Tools")]
    assert output.segments[0].category.meaning == "Physical object"


def test_channels_that_overlap_keep_their_numbers(tmp_path: Path) -> None:
    output = of("renalStructures_CECT_segmentation", tmp_path).outputs["pred"]
    assert isinstance(output, MasksOutput)
    assert [one.label for one in output.segments] == [2, 3, 4, 5, 6]


def test_patches_of_a_slide_have_a_map(tmp_path: Path) -> None:
    output = of("pathology_tumor_detection", tmp_path).outputs["pred"]
    assert isinstance(output, ProbabilityMapOutput)
    assert [(one.label, one.name) for one in output.findings] == [(1, "Metastasis")]


def test_answers_are_called_as_they_are_saved_and_numbers_of_objects_are_left_out(
    tmp_path: Path,
) -> None:
    made, manifest = drafted(zoo.written(NAMES[-1], tmp_path))
    assert list(manifest.outputs) == ["type_map"]
    assert "instance_map" in made.text
    output = manifest.outputs["type_map"]
    assert isinstance(output, LabelMapOutput)
    assert [one.label for one in output.segments] == [1, 2, 3, 4]
    assert "outputs.type_map.kind" in manifest.draft


def test_an_unknown_structure_gets_a_placeholder_that_is_to_be_confirmed(tmp_path: Path) -> None:
    manifest = of("prostate_mri_anatomy", tmp_path)
    output = manifest.outputs["pred"]
    assert isinstance(output, LabelMapOutput)
    gland, zone = output.segments
    assert (gland.type.value, gland.type.scheme, gland.type.meaning) == (
        "UNKNOWN", "99TODO", "central gland",
    )  # fmt: skip
    assert zone.type.value == "279706003"
    assert "outputs.pred.segments[0].type" in manifest.draft
    assert "outputs.pred.segments[1].type" not in manifest.draft


@pytest.mark.parametrize("defined", [None, {}, [], "spleen", {"zero": "spleen"}, {"1": 5}])
def test_names_are_taken_from_the_words_where_no_channel_is_defined(
    defined: Any, tmp_path: Path
) -> None:
    about = {
        "network_data_format": {
            "inputs": {"image": {"modality": "CT", "spatial_shape": [96, 96, 96]}},
            "outputs": zoo.segmentation(2, defined),
        },
        "pred_classes": "2 channels OneHot data, channel 1 is spleen, channel 0 is background",
    }
    _, manifest = drafted(changed(tmp_path, about))
    output = manifest.outputs["pred"]
    assert isinstance(output, LabelMapOutput)
    assert [(one.label, one.name) for one in output.segments] == [(1, "Spleen")]


def test_channels_that_nobody_names_are_counted_from_the_network(tmp_path: Path) -> None:
    how = {"network_def": {"_target_": "UNet", "spatial_dims": 3, "out_channels": 4}}
    about = {"network_data_format": {}}
    made, manifest = drafted(changed(tmp_path, about, how))
    output = manifest.outputs["pred"]
    assert isinstance(output, LabelMapOutput)
    assert [one.label for one in output.segments] == [1, 2, 3]
    assert {one.type.value for one in output.segments} == {"UNKNOWN"}
    assert "does not name 3 of 4 channels" in made.text


def test_metadata_that_contradict_the_network_are_told(tmp_path: Path) -> None:
    how = {"network_def": {"_target_": "UNet", "spatial_dims": 3, "out_channels": 3}}
    made, manifest = drafted(changed(tmp_path, None, how))
    assert "The network gives 3 channels, the metadata says 2." in made.text
    output = manifest.outputs["pred"]
    assert isinstance(output, LabelMapOutput)
    assert len(output.segments) == 2


@pytest.mark.parametrize(
    ("post", "kind"),
    [
        ([zoo.SOFTMAX, zoo.SAVE], "probability_map"),
        ([zoo.SIGMOID, zoo.SAVE], "masks"),
        ([zoo.SIGMOID, zoo.THRESHOLD, zoo.SAVE], "masks"),
        ([zoo.SOFTMAX, zoo.ARGMAX | {"to_onehot": 2}, zoo.SAVE], "masks"),
        ([zoo.ARGMAX | {"_disabled_": True}, zoo.SIGMOID, zoo.SAVE], "masks"),
        ([zoo.ARGMAX | {"_disabled_": "@is_off"}, zoo.SIGMOID, zoo.SAVE], "masks"),
        ([zoo.SAVE], "label_map"),
        ([], "label_map"),
    ],
)
def test_the_postprocessing_decides_the_kind(post: list[Tree], kind: str, tmp_path: Path) -> None:
    how = {"postprocessing": {"_target_": "Compose", "transforms": post}, "is_off": True}
    _, manifest = drafted(changed(tmp_path, None, how))
    assert manifest.outputs["pred"].kind == kind


@pytest.mark.parametrize(
    ("said", "kind"), [("image", "image"), ("regression", "numbers"), ("points", "points")]
)
def test_metadata_decide_where_the_postprocessing_says_nothing(
    said: str, kind: str, tmp_path: Path
) -> None:
    about = copy.deepcopy(zoo.spleen()[0])
    about["network_data_format"]["outputs"]["pred"]["format"] = said
    how = {"postprocessing": {"_target_": "Compose", "transforms": []}}
    _, manifest = drafted(changed(tmp_path, about, how))
    assert manifest.outputs["pred"].kind == kind


def test_a_threshold_other_than_one_half_is_kept(tmp_path: Path) -> None:
    post = [zoo.SIGMOID, zoo.THRESHOLD | {"threshold": 0.3}, zoo.SAVE]
    how = {"postprocessing": {"_target_": "Compose", "transforms": post}}
    _, manifest = drafted(changed(tmp_path, None, how))
    output = manifest.outputs["pred"]
    assert isinstance(output, MasksOutput)
    assert output.threshold == 0.3


def test_answers_of_training_are_no_inputs(tmp_path: Path) -> None:
    load = {"_target_": "LoadImaged", "keys": ["image", "label"]}
    how = {"preprocessing": {"_target_": "Compose", "transforms": [load]}}
    _, manifest = drafted(changed(tmp_path, None, how))
    assert list(manifest.inputs) == ["image"]


@pytest.mark.parametrize(
    ("words", "modality"),
    [
        ("Chest X-ray triage", ("CR", "DX")),
        ("Lesions in FDG PET", "PT"),
        ("Thyroid ultrasound", "US"),
        ("Retina from fundus photographs", "OP"),
        ("Something else entirely", "OT"),
    ],
)
def test_a_modality_that_is_not_named_is_guessed_from_words(
    words: str, modality: str | tuple[str, ...], tmp_path: Path
) -> None:
    about = zoo.metadata(words, modality=None, outputs=zoo.segmentation(2, {}))
    _, manifest = drafted(changed(tmp_path, about))
    assert manifest.inputs["image"].modality == modality
    assert "inputs.image.modality" in manifest.draft


def test_a_bundle_of_yaml_is_read_and_nothing_of_it_is_evaluated(tmp_path: Path) -> None:
    root = changed(tmp_path)
    json_file = root / "configs" / "inference.json"
    flag = tmp_path / "evaluated"
    text = json.dumps(
        json.loads(json_file.read_text(encoding="utf-8"))
        | {"output_dir": f"$__import__('pathlib').Path('{flag}').touch()"}
    )
    json_file.unlink()
    (root / "configs" / "inference.yaml").write_text(f"---\n{text}\n", encoding="utf-8")
    made, _ = drafted(root)
    assert "configs/inference.yaml" in made.text
    assert not flag.exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("inference.json", "{", "configuration-faulty"),
        ("inference.json", "[]", "configuration-faulty"),
        ("metadata.json", "no", "metadata-faulty"),
    ],
)
def test_a_description_that_cannot_be_read_is_refused_by_name(
    name: str, content: str, reason: str, tmp_path: Path
) -> None:
    root = changed(tmp_path)
    (root / "configs" / name).write_text(content, encoding="utf-8")
    with pytest.raises(Misconfigured) as caught:
        description.read(root)
    assert caught.value.reason == reason


def test_a_few_lines_that_stand_for_billions_are_refused(tmp_path: Path) -> None:
    root = changed(tmp_path)
    (root / "configs" / "inference.json").unlink()
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    (root / "configs" / "inference.yaml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(Misconfigured) as caught:
        description.read(root)
    assert caught.value.reason == "configuration-faulty"


def test_a_bundle_without_a_configuration_of_inference_is_refused(tmp_path: Path) -> None:
    root = changed(tmp_path)
    (root / "configs" / "inference.json").rename(root / "configs" / "train.json")
    with pytest.raises(Misconfigured, match="makers wrote for inference"):
        description.read(root)


def test_references_are_followed_and_a_circle_ends(tmp_path: Path) -> None:
    how = {"key": "@deep#0", "deep": ["image"], "round": "@about", "about": "@round"}
    described = description.read(changed(tmp_path, None, how))
    assert described.texts("@key") == ["image"]
    assert described.value("@deep::0") == "image"
    assert described.texts("@round") == []
    assert described.value("$@key + 1") == "$@key + 1"


@pytest.mark.parametrize("text", ['quote " and \\', "line\nbreak", "\x00\x7f\x1b", "Ärzte ½ 🙂"])
def test_any_text_survives_as_toml(text: str) -> None:
    page = Page()
    page.put("name", text, why="a\nreason", guess=True)
    read = tomllib.loads(page.text())
    assert read["name"] == "".join(one for one in text if one.isprintable() or one in "\n\t")
    assert read["draft"] == ["name"]
    assert toml(text).count("\n") == 0


def test_long_words_of_makers_are_cut_and_put_into_ascii(tmp_path: Path) -> None:
    about = {"name": "Größe " * 40, "authors": "Müller, " * 40, "version": "1.2.3"}
    _, manifest = drafted(changed(tmp_path, about))
    assert manifest.name.startswith("Groe Groe")
    assert len(manifest.name) <= 40
    assert ascii_text("one two three", limit=8) == "one two"
