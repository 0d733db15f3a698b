"""Several bundles as one model: each may look where an earlier one found something.

The steps run one after the other on the same images. A step with a region sees the smallest box
around it, in whole voxels, and what it says is put back where it belongs; where the region is
empty it is not run, and finds nothing. The answers of an ensemble are merged.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from dicomnode.bundle import Bundle, Output, Region, Step
from dicomnode.errors import ModelFailed
from dicomnode.prediction import Answer, OnGrid, Prediction, Shown
from dicomnode.volume import Volume
from workers.inference import merge, region
from workers.inference.model import LoadedModel, require_locked
from workers.inference.settings import AS_PUBLISHED, Settings

_SAME_MM = 1e-3  # between two affines of one grid


@dataclass(frozen=True, kw_only=True)
class LoadedChain:
    """The bundles of a chain on their device.

    Attributes:
        steps: In the order in which they run.
    """

    bundle: Bundle
    device: str
    steps: Mapping[str, LoadedModel | LoadedChain]
    settings: Settings = AS_PUBLISHED

    @classmethod
    def of(cls, bundle: Bundle, *, device: str, settings: Settings = AS_PUBLISHED) -> Self:
        """Load `bundle`; see `workers.inference.load_model`."""
        require_locked(bundle)
        steps: dict[str, LoadedModel | LoadedChain] = {
            name: (cls if step.steps else LoadedModel).of(step, device=device, settings=settings)
            for name, step in bundle.steps.items()
        }
        return cls(bundle=bundle, device=device, steps=steps, settings=settings)

    def using(self, settings: Settings) -> Self:
        """The same models in memory, computing in another way."""
        steps = {name: step.using(settings) for name, step in self.steps.items()}
        return replace(self, steps=steps, settings=settings)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of the last run, by stage, over all steps."""
        total: dict[str, float] = {}
        for step in self.steps.values():
            for stage, seconds in step.timings.items():
                total[stage] = total.get(stage, 0.0) + seconds
        return total

    @property
    def window_batch(self) -> int | None:
        """The largest of the steps'."""
        return max((step.window_batch or 0 for step in self.steps.values()), default=0) or None

    @property
    def parameter_bytes(self) -> int:
        """What the networks hold in memory."""
        return sum(step.parameter_bytes for step in self.steps.values())

    def predict(self, inputs: Mapping[str, Shown]) -> Prediction:
        """Show `inputs` to the steps, one after the other; as `LoadedModel.predict`.

        Raises:
            ModelFailed: `wrong-inputs`, `region-not-a-volume`, `wrong-grid`, or as the steps do.
        """
        manifest = self.bundle.manifest
        if inputs.keys() != manifest.inputs.keys():
            raise ModelFailed(
                "wrong-inputs",
                f"The model takes {', '.join(sorted(manifest.inputs))}, and was given"
                f" {', '.join(sorted(inputs)) or 'nothing'}.",
            )
        said: dict[str, list[Answer]] = {}
        silent: dict[str, str] = {}
        for name, step in manifest.steps.items():
            answers, unsaid = self._run(name, step, inputs, said)
            silent |= {f"{name}.{output}": why for output, why in unsaid.items()}
            for output in self.steps[name].bundle.manifest.outputs:
                said[f"{name}.{output}"] = [one for one in answers if one.output == output]
        first, *others = manifest.inputs
        of_outputs = {name: silent[of] for name, of in self._sources() if of in silent}
        return Prediction(
            subject=inputs[first],
            also_shown=tuple(inputs[name] for name in others),
            answers=tuple(self._own(said, of_outputs)),
            silent=of_outputs,
            computed=self.settings.described,
        )

    def _run(
        self,
        name: str,
        step: Step,
        inputs: Mapping[str, Shown],
        said: Mapping[str, Sequence[Answer]],
    ) -> tuple[Sequence[Answer], Mapping[str, str]]:
        """What one step says, and of which of its outputs nothing can be said, and why."""
        model = self.steps[name]
        given = {
            own: inputs[step.inputs.get(own, own)]
            for own in model.bundle.manifest.inputs
            if step.inputs.get(own, own) in inputs
        }
        whole = next(iter(inputs.values()))
        if step.region is None:
            prediction = model.predict(given)
            _require_same_grid(prediction, whole, name)
            return prediction.answers, prediction.silent
        subject = _volume(whole)
        box = region.around(said[step.region.of], step.region, subject, self._output(step.region))
        if box is None:
            return self._nothing(name, step.region, subject)
        seen = {own: region.cut(_volume(shown), box, subject) for own, shown in given.items()}
        prediction = model.predict(seen)
        _require_same_grid(prediction, region.cut(subject, box, subject), name)
        placed = [region.put_back(one, box, subject.array.shape) for one in prediction.answers]
        return placed, prediction.silent

    def _nothing(
        self, name: str, asked: Region, subject: Volume
    ) -> tuple[Sequence[Answer], Mapping[str, str]]:
        """That a step found nothing; of what cannot say that it is none, that it was not run."""
        outputs = self.steps[name].bundle.manifest.outputs
        found = {output: region.nothing(output, spec, subject) for output, spec in outputs.items()}
        why = f"'{name}' was not run: '{asked.of}' found nothing to look at."
        return (
            [answer for answers in found.values() for answer in answers],
            {output: why for output, answers in found.items() if not answers},
        )

    def _output(self, asked: Region) -> Output:
        """What the answers of an earlier step are of, in which a later one looks."""
        name, _, output = asked.of.partition(".")
        return self.steps[name].bundle.manifest.outputs[output]

    def _sources(self) -> Iterator[tuple[str, str]]:
        """The chain's outputs, each with the steps' outputs that it is made of."""
        manifest = self.bundle.manifest
        yield from manifest.takes.items()
        for name, one in manifest.merges.items():
            yield from ((name, of) for of in one.of)

    def _own(
        self, said: Mapping[str, Sequence[Answer]], silent: Container[str]
    ) -> Iterator[Answer]:
        """The chain's answers; none of an output of which a part could not be said."""
        manifest = self.bundle.manifest
        for name in (one for one in manifest.outputs if one not in silent):
            if name in manifest.takes:
                yield from (replace(one, output=name) for one in said[manifest.takes[name]])
            else:
                one = manifest.merges[name]
                yield from merge.merged(
                    name, manifest.outputs[name], [said[of] for of in one.of], how=one.how
                )


def _volume(shown: Shown) -> Volume:
    if not isinstance(shown, Volume):
        raise ModelFailed("region-not-a-volume", "A step can look at a part of a volume alone.")
    return shown


def _require_same_grid(prediction: Prediction, meant: Shown, step: str) -> None:
    """Make sure that what a step says lies where it is taken to lie.

    Args:
        meant: The chain's first input, or the part of it that the step looks at.
    """
    seen = prediction.subject
    if seen is meant or _is_on_grid(seen, meant):
        return
    if any(isinstance(one, OnGrid) or one.frame is not None for one in prediction.answers):
        raise ModelFailed(
            "wrong-grid",
            f"What '{step}' says lies on another grid than the chain's first input: that must be"
            " its first input, too, or have the grid of it (`on_grid_of`).",
        )


def _is_on_grid(seen: Shown, meant: Shown) -> bool:
    if not isinstance(seen, Volume) or not isinstance(meant, Volume):
        return False
    return seen.array.shape == meant.array.shape and np.allclose(
        seen.affine, meant.affine, rtol=0, atol=_SAME_MM
    )
