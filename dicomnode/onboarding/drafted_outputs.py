"""What a model answers, guessed from its postprocessing and metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dicomnode.bundle import Form
from dicomnode.onboarding import concepts, drafted_inputs, drafted_labels, postprocessing
from dicomnode.onboarding.description import Description
from dicomnode.onboarding.drafted_labels import code, name_of, unknown
from dicomnode.onboarding.page import Page, identifier
from dicomnode.onboarding.postprocessing import Answer

_POINTS = {"points", "landmarks", "coordinates", "keypoints"}
_IMAGES = {"image", "magnitude", "depth", "synthetic", "denoised"}
_CLASSIFIER = re.compile(
    r"ClassificationSaver|TorchVisionFCModel|DenseNet\w*|SEResNe[tX]\w*|Classifier|MILModel"
)
_INSTANCES = re.compile(r"(?i)\binstances?\b|instance_")
_BOX_CENTERS = {"cccwhd", "ccwh"}
_TWO_AXES = 2


@dataclass(frozen=True, kw_only=True)
class _Output:
    """One output while it is drafted.

    Attributes:
        name: In the manifest: "outputs.NAME".
        said: What the metadata says of it.
        shown: How the model is shown images.
    """

    name: str
    description: Description
    answer: Answer
    said: Mapping[str, Any]
    shown: Form

    @property
    def path(self) -> str:
        return f"outputs.{self.name}"

    @property
    def format(self) -> str:
        return str(self.said.get("format") or "").lower()

    @property
    def words(self) -> str:
        return drafted_inputs.words(self.description)

    @property
    def measure(self) -> tuple[str, ...]:
        return ("volume",) if self.shown == "volume" else ()


def write(page: Page, description: Description) -> None:
    """Draft `[outputs.…]`."""
    shown, _ = drafted_inputs.form(description)
    answers = postprocessing.answers(description)
    for answer in answers:
        if _INSTANCES.search(answer.key) and len(answers) > 1:
            page.note(
                f"The bundle also gives '{answer.key}', a number for each single object: no kind of"
                " output stands for that."
            )
            continue
        output = _Output(
            name=identifier(answer.key) or "pred",
            description=description,
            answer=answer,
            said=_said(description, answer.key),
            shown=shown,
        )
        page.table(output.path)
        kind(output)(page, output)


def kind(output: _Output) -> Callable[[Page, _Output], None]:
    """What drafts an output of this kind."""
    if postprocessing.box_components(output.description):
        return _boxes
    if output.shown == "slide":
        return _probability_map
    if output.format in _POINTS or "coordinate_meanings" in output.description.metadata:
        return _points
    if not output.answer.saved and _classifies(output):
        return _classification
    if not output.answer.saved and output.format == "regression":
        return _numbers
    return _image_like(output)


def _image_like(output: _Output) -> Callable[[Page, _Output], None]:
    answer = output.answer
    if answer.codes or (answer.argmax and not answer.onehot):
        return _label_map
    if answer.onehot or answer.threshold is not None:
        return _masks
    if answer.activation == "softmax":
        return _probability_map
    if answer.activation == "sigmoid":
        return _masks
    return _image if output.format in _IMAGES else _label_map


def _classifies(output: _Output) -> bool:
    if output.format == "classification":
        return True
    return any(_CLASSIFIER.fullmatch(one.name) for one in output.description.components())


def _begin(page: Page, output: _Output, kind: str, *, why: str, guess: bool = False) -> None:
    page.put("kind", kind, why=why, guess=guess)
    if output.answer.key != output.name and kind != "boxes":
        page.put("key", output.answer.key)
    if output.answer.unclear:
        page.note(f"The bundle also does this to it: {output.answer.unclear}")


def _label_map(page: Page, output: _Output) -> None:
    answer = output.answer
    if answer.codes:
        _begin(page, output, "label_map", why="a Lambda folds channels into labels", guess=True)
        page.note("Where channels overlap, the label that the bundle names first is given.")
        named = _named(page, output, background=False)
        labelled = [
            (label, named[at].name) for label, at in sorted(answer.codes.items()) if at < len(named)
        ]
    else:
        why = "argmax" if answer.argmax else "nothing in the postprocessing says what it is"
        _begin(page, output, "label_map", why=why, guess=not answer.argmax)
        named = _named(page, output, background=True)
        labelled = [(one.channel, one.name) for one in named if one.channel]
        if not labelled:  # a single channel whose one label is 1
            labelled = [(1, one.name) for one in named]
    drafted_labels.write(
        page, f"{output.path}.segments", labelled, context=output.words, measure=output.measure
    )


def _masks(page: Page, output: _Output) -> None:
    answer = output.answer
    why = "one channel for each label" if answer.onehot else "a threshold for each channel"
    _begin(page, output, "masks", why=why)
    if answer.threshold not in {None, 0.5}:
        page.put("threshold", answer.threshold, why="as the bundle's AsDiscrete")
    named = _named(page, output, background=answer.onehot)
    first = 0 if answer.drops_first else 1  # the label of channel 0
    labelled = [(one.channel + first, one.name) for one in named if not one.is_background]
    drafted_labels.write(
        page, f"{output.path}.segments", labelled, context=output.words, measure=output.measure
    )


def _probability_map(page: Page, output: _Output) -> None:
    why = "of the patches of a slide" if output.shown == "slide" else "softmax, and no argmax"
    _begin(page, output, "probability_map", why=why, guess=output.shown != "slide")
    named = _named(page, output, background=False)
    labelled = [(one.channel + 1, one.name) for one in named if not one.is_background]
    drafted_labels.write(page, f"{output.path}.findings", labelled, context=output.words)


def _named(page: Page, output: _Output, *, background: bool) -> list[drafted_labels.Named]:
    count, agree = postprocessing.channels(output.description, output.said)
    if not agree:
        page.note(
            f"The network gives {count} channels, the metadata says"
            f" {output.said.get('num_channels')}."
        )
    named = drafted_labels.channels(
        output.description, output.said, count=count, background=background and count > 1
    )
    silent = sum(not one.known for one in named)
    if silent:
        page.note(f"The metadata does not name {silent} of {len(named)} channels.")
    return named


def _boxes(page: Page, output: _Output) -> None:
    keys = _box_keys(output.description)
    _begin(page, output, "boxes", why="the bundle has a detector")
    if keys["box"] != output.name:
        page.put("key", keys["box"], guess=True)
    page.put("scores", keys["score"], guess=True)
    page.put("classes", keys["label"], guess=True)
    mode, coordinates = _box_frame(output.description)
    page.put("mode", mode, guess=True, why="the last ConvertBoxMode")
    page.put("coordinates", coordinates, guess=True, why="AffineBoxToWorldCoordinate, or none")
    page.put("least_score", 0.5, guess=True, why="from which score on a box is an answer")
    named = drafted_labels.channels(output.description, output.said, count=0, background=False)
    labelled = [(one.channel + 1, one.name) for one in named if not one.is_background]
    if not labelled:
        found = concepts.within(output.words, anatomy=False)
        labelled = [(1, found.name if found else "finding")]
    drafted_labels.write(page, f"{output.path}.findings", labelled, context=output.words)


def _box_keys(description: Description) -> dict[str, str]:
    """What the bundle calls boxes, scores and classes."""
    found = {"box": "box", "score": "label_scores", "label": "label"}
    for one in description.components():
        for part in found:
            for key in (f"pred_{part}_key", f"{part}_keys", f"{part}_key"):
                named = description.texts(one.content.get(key))
                if named:
                    found[part] = named[0]
                    break
    return found


def _box_frame(description: Description) -> tuple[str, str]:
    """Mode and coordinates of the boxes as they leave postprocessing."""
    mode, coordinates = "corners", "index"
    for one in description.chain("postprocessing"):
        if one.name == "ConvertBoxMode":
            wanted = str(description.value(one.content.get("dst_mode")))
            mode = "center" if wanted in _BOX_CENTERS else "corners"
        elif one.name == "AffineBoxToWorldCoordinate":
            is_lps = description.value(one.content.get("affine_lps_to_ras")) is True
            # What the node's loaders give is RAS: this option turns it over.
            coordinates = "lps" if is_lps else "ras"
        elif one.name == "AffineBoxToImageCoordinate":
            coordinates = "index"
    return mode, coordinates


def _points(page: Page, output: _Output) -> None:
    _begin(page, output, "points", why="metadata")
    shape = output.said.get("spatial_shape")
    is_axes = isinstance(shape, list) and len(shape) >= _TWO_AXES and shape[0] in {2, 3}
    page.put("layout", "axes" if is_axes else "points", guess=True, why="the shape in the metadata")
    page.put("coordinates", "index", guess=True)
    meanings = output.description.metadata.get("coordinate_meanings")
    if isinstance(meanings, Mapping) and meanings:
        names = [str(one) for one in meanings.values()]
    else:
        count = shape[1 if is_axes else 0] if isinstance(shape, list) and shape else 1
        names = [f"point {n}" for n in range(1, (count if isinstance(count, int) else 1) + 1)]
    drafted_labels.write(
        page, f"{output.path}.landmarks", list(enumerate(names, start=1)), context=output.words
    )


def _classification(page: Page, output: _Output) -> None:
    answer = output.answer
    _begin(page, output, "classification", why="a classifier", guess=True)
    topic = concepts.within(output.words)
    is_topic = topic is not None and topic.kind == "finding" and topic.code is not None
    concept = topic.code if is_topic and topic and topic.code else unknown(output.words)
    page.put("concept", code(concept), guess=True, why="what is classified")
    page.put("of", "image" if output.shown == "image" else "series", guess=True)
    page.put("activation", "none" if answer.activation or answer.argmax else "softmax", guess=True)
    named = [one for one in _named(page, output, background=False) if not one.is_background]
    is_one_hot = "one hot" in output.description.said("pred_classes", "label_classes").lower()
    exclusive = len(named) > 1 and (answer.activation != "sigmoid" or is_one_hot)
    page.put("exclusive", exclusive, guess=True, why="whether exactly one class is right")
    if answer.threshold is not None:
        page.note("The bundle compares with a threshold: what it calls a probability is 0 or 1.")
    page.guess_at(f"{output.path}.classes")
    for one in named:
        _class(page, output, one.name, topic=topic.name if is_topic and topic else "")


def _class(page: Page, output: _Output, name: str, *, topic: str) -> None:
    page.member(f"{output.path}.classes")
    page.put("name", name_of(name))
    found = concepts.find(f"{topic} {name}".strip()) or concepts.find(name)
    if found and found.code:
        page.put("code", code(found.code))
    else:
        page.put("code", code(unknown(name)), guess=True, why="look the code up")


def _numbers(page: Page, output: _Output) -> None:
    _begin(page, output, "numbers", why="metadata: regression", guess=True)
    page.guess_at(f"{output.path}.quantities")
    for one in _named(page, output, background=False):
        page.member(f"{output.path}.quantities")
        page.put("name", name_of(one.name))
        page.put("code", code(unknown(one.name)), guess=True, why="look the code up")
        unit = {"value": "1", "scheme": "UCUM", "meaning": "no units"}
        page.put("unit", unit, guess=True)


def _image(page: Page, output: _Output) -> None:
    _begin(page, output, "image", why="metadata", guess=True)
    page.put("description", name_of(output.description.said("name") or output.name), guess=True)
    page.put("derivation", code(unknown("derivation")), guess=True, why="CID 7203")


def _said(description: Description, key: str) -> Mapping[str, Any]:
    """What the metadata says of one answer: under its name, one like it, or the only one."""
    entries = description.network_data("outputs")
    if key in entries:
        return entries[key]
    words = set(identifier(key).split("_"))
    alike = [said for name, said in entries.items() if words & set(identifier(name).split("_"))]
    if alike:
        return alike[0]
    return next(iter(entries.values())) if len(entries) == 1 else {}
