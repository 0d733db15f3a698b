"""`dicom.toml`: what DICOM needs to know of a bundle, or of a chain of bundles."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dicomnode.bundle.inputs import Input
from dicomnode.bundle.outputs import (
    BoxesOutput,
    ClassificationOutput,
    HeatMapOutput,
    LabelMapOutput,
    MasksOutput,
    NumbersOutput,
    Output,
    RegistrationOutput,
)
from dicomnode.bundle.terms import Code, Name, Strict
from dicomnode.errors import Misconfigured

MANIFEST_NAME = "dicom.toml"
METADATA_NAME = "configs/metadata.json"

#: How many hexadecimal digits of the digest stand in an algorithm version.
DIGEST_SHOWN = 16
#: Algorithm Version is an LO: at most 64 characters (PS3.5 6.2). "+" and the digest are part of it.
MAX_VERSION = 64 - 1 - DIGEST_SHOWN

_WITHOUT_PLACE = ClassificationOutput | NumbersOutput | RegistrationOutput


class Region(Strict):
    """Where a step of a chain looks: the smallest box around what an earlier step found.

    Attributes:
        of: The earlier step's label map, masks or boxes: "step.output".
        labels: Which of its labels; all, where none is named.
        margin_mm: What is added to the box on each side.
    """

    of: Name
    labels: tuple[int, ...] = ()
    margin_mm: Annotated[float, Field(ge=0)] = 0.0


class Step(Strict):
    """One model of a chain.

    Attributes:
        bundle: Its folder, relative to the chain's.
        inputs: Its input → the chain's input; left out, those of the same name.
        region: Where it looks; left out, everywhere. Where the earlier step found nothing, this
            one is not run, and finds nothing.
    """

    bundle: Annotated[str, Field(min_length=1)]
    inputs: dict[Name, Name] = Field(default_factory=dict)
    region: Region | None = None


class Merge(Strict):
    """How the answers of the steps of an ensemble become one.

    Attributes:
        how: "mean" of probabilities, numbers, points and images; "vote" of labels and masks: what
            most steps say, and of a tie the lowest label.
        of: The steps' outputs: "step.output", all of one kind and meaning.
    """

    how: Literal["mean", "vote"]
    of: Annotated[tuple[Name, ...], Field(min_length=2)]


class Manifest(Strict):
    """`dicom.toml`: what DICOM needs to know of a bundle.

    A chain has `steps`, and says in `takes` which of their outputs are its own (its output →
    "step.output") and in `merges` which it makes of several. Its `outputs` are then those.

    Attributes:
        draft: Which entries were guessed (key paths): `models add` writes them, an administrator
            confirms them by taking them out. A model with any is not run.
    """

    name: Annotated[str, Field(min_length=1, max_length=40)]  # stands in Series Description
    manufacturer: Annotated[str, Field(min_length=1, max_length=64)]
    family: Code  # Algorithm Family, CID 7162
    intended_use: str
    notice: str
    procedure: Code  # Procedure Reported, CID 100: the imaging procedure, not the algorithm
    inputs: Annotated[dict[str, Input], Field(min_length=1)]
    outputs: dict[str, Output] = Field(default_factory=dict)
    steps: dict[Name, Step] = Field(default_factory=dict)
    takes: dict[Name, Name] = Field(default_factory=dict)
    merges: dict[Name, Merge] = Field(default_factory=dict)
    draft: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _inputs_fit_together(self) -> Self:
        for name, one in self.inputs.items():
            if one.on_grid_of is None:
                continue
            grid = self.inputs.get(one.on_grid_of)
            if grid is None or grid.form != "volume" or grid.on_grid_of is not None:
                raise ValueError(
                    f"inputs.{name}.on_grid_of: '{one.on_grid_of}' is not a volume among the"
                    " inputs that lies on a grid of its own"
                )
        return self

    @model_validator(mode="after")
    def _outputs_fit_together(self) -> Self:
        if bool(self.outputs) == bool(self.steps):
            raise ValueError("outputs: a bundle has outputs, a chain has steps instead")
        if bool(self.steps) != bool(self.takes or self.merges):
            raise ValueError("steps: a chain says in takes or merges what it answers")
        for name, one in self.outputs.items():
            fault = self._misfit(one) or self._off_grid(one)
            if fault:
                raise ValueError(f"outputs.{name}.{fault}")
        return self

    def _off_grid(self, output: Output) -> str:
        """Why an output would not lie on the images that it is said of; "" if it does."""
        first, one = next(iter(self.inputs.items()))
        if one.on_grid_of is None or isinstance(output, _WITHOUT_PLACE):
            return ""
        return f"kind: it lies on the images of '{first}': they keep their own grid (on_grid_of)"

    def _misfit(self, output: Output) -> str:
        """What of an output does not fit to the inputs and the other outputs; "" if all does."""
        first, *others = self.inputs
        form = self.inputs[first].form
        if isinstance(output, HeatMapOutput) and not isinstance(
            self.outputs.get(output.of), ClassificationOutput
        ):
            return f"of: '{output.of}' is no classification"
        if isinstance(output, BoxesOutput) and form != "volume" and output.coordinates != "index":
            return f"coordinates: of form {form} they are 'index'"
        if isinstance(output, RegistrationOutput):
            if output.moving not in others:
                return f"moving: '{output.moving}' is no input beside the first"
            if {form, self.inputs[output.moving].form} != {"volume"}:
                return "moving: only a volume is registered to a volume"
        return ""

    @model_validator(mode="after")
    def _steps_follow(self) -> Self:
        before: list[str] = []
        for name, step in self.steps.items():
            unknown = [given for given in step.inputs.values() if given not in self.inputs]
            if unknown:
                raise ValueError(f"steps.{name}.inputs: the chain has no input '{unknown[0]}'")
            if step.region and any(one.form != "volume" for one in self.inputs.values()):
                raise ValueError(f"steps.{name}.region: is of volumes alone")
            if step.region and step.region.of.partition(".")[0] not in before:
                raise ValueError(
                    f"steps.{name}.region.of: '{step.region.of}' is no output of an earlier step"
                )
            before.append(name)
        for path, named in self._named():
            if named.partition(".")[0] not in self.steps:
                raise ValueError(f"{path}: '{named}' is no output of a step")
        return self

    def _named(self) -> Iterator[tuple[str, str]]:
        for name, of in self.takes.items():
            yield f"takes.{name}", of
        for name, merge in self.merges.items():
            for of in merge.of:
                yield f"merges.{name}.of", of

    def with_outputs(self, of_steps: Mapping[str, Manifest], *, path: Path) -> Manifest:
        """The manifest of a chain, with the outputs that its steps give it.

        Args:
            of_steps: Step → its manifest.
            path: The chain's manifest, for the error.

        Raises:
            Misconfigured: `manifest-faulty`: a step has no such output, or it does not fit.
        """
        said = {
            f"{step}.{name}": output
            for step, manifest in of_steps.items()
            for name, output in manifest.outputs.items()
        }
        self._require_said(said, path)
        outputs = {name: said[of] for name, of in self.takes.items()}
        for name, merge in self.merges.items():
            first, *others = (said[of] for of in merge.of)
            if any(_meaning(one) != _meaning(first) for one in others):
                raise Misconfigured(
                    "manifest-faulty", f"{path}: merges.{name}: its outputs differ in meaning."
                )
            outputs[name] = first
        for name, output in outputs.items():
            if fault := self._off_grid(output):
                raise Misconfigured("manifest-faulty", f"{path}: outputs.{name}.{fault}.")
        return self.model_copy(update={"outputs": outputs})

    def _require_said(self, said: Mapping[str, Output], path: Path) -> None:
        """Make sure that steps say what the chain takes from them, and that it can be taken."""
        for key, named in self._all_named():
            if named not in said:
                raise Misconfigured("manifest-faulty", f"{path}: {key}: there is no '{named}'.")
        for name, step in self.steps.items():
            fault = step.region and _misplaced(step.region, said[step.region.of])
            if fault:
                raise Misconfigured("manifest-faulty", f"{path}: steps.{name}.region.{fault}.")
        for key, named in self._named():
            if isinstance(said[named], RegistrationOutput):
                # It names an input of its step, which the chain may call otherwise, or not have.
                raise Misconfigured(
                    "manifest-faulty", f"{path}: {key}: a chain answers no registration."
                )

    def _all_named(self) -> Iterator[tuple[str, str]]:
        yield from self._named()
        for name, step in self.steps.items():
            if step.region:
                yield f"steps.{name}.region.of", step.region.of


def _misplaced(region: Region, output: Output) -> str:
    """Why nothing can ever be found where a step looks; "" if it can."""
    if isinstance(output, LabelMapOutput | MasksOutput):
        known = {one.label for one in output.segments}
    elif isinstance(output, BoxesOutput):
        known = {one.label for one in output.findings}
    else:
        return "of: has no place in the image"
    unknown = sorted(set(region.labels) - known)
    return f"labels: '{region.of}' has no label {unknown[0]}" if unknown else ""


def _meaning(output: Output) -> dict[str, Any]:
    """What two answers that are merged must have in common: all but what a bundle calls them."""
    return output.model_dump(exclude={"key", "scores", "classes"})


def read(path: Path) -> Manifest:
    """Read `dicom.toml`.

    Raises:
        Misconfigured: `bundle-incomplete` or `manifest-faulty`.
    """
    content = _parsed(path, tomllib.loads, reason="manifest-faulty")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{_place(fault)}: {fault['msg']}".removeprefix(": ") for fault in error.errors()
        )
        raise Misconfigured("manifest-faulty", f"{path}: {faults}.") from error


def _place(fault: Mapping[str, Any]) -> str:
    place = key_path(fault["loc"])
    return f"{place}.kind" if str(fault["type"]).startswith("union_tag") else place


def key_path(location: Iterable[int | str]) -> str:
    """`("outputs", "pred", "label_map", "segments", 0)` → `outputs.pred.segments[0]`."""
    steps = list(location)
    if steps[:1] == ["outputs"]:
        del steps[2:3]  # pydantic names the kind, the file does not
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in steps]
    return "".join(parts).removeprefix(".")


def read_version(path: Path) -> str:
    """The version of a bundle as its makers number it, from its metadata.

    Raises:
        Misconfigured: `bundle-incomplete` or `metadata-faulty`.
    """
    content = _parsed(path, json.loads, reason="metadata-faulty")
    version = content.get("version") if isinstance(content, dict) else None
    if not isinstance(version, str) or not 0 < len(version) <= MAX_VERSION:
        raise Misconfigured(
            "metadata-faulty", f"{path}: version: must be a text of 1 to {MAX_VERSION} characters."
        )
    return version


def _parsed(path: Path, parse: Callable[[str], Any], *, reason: str) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured("bundle-incomplete", f"{path}: {error.strerror}.") from error
    except ValueError as error:  # what tomllib, json and UTF-8 raise alike
        raise Misconfigured(reason, f"{path}: {error}.") from error
