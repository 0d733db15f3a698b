"""Several bundles as one model: each may look where an earlier one found something.

The steps run one after the other on the same images. A step with a region sees the smallest box
around it, in whole voxels, and what it says is put back where it belongs; where the region is
empty it is not run, and finds nothing. The answers of an ensemble are merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from dicomnode.bundle import Bundle, Step
from dicomnode.errors import ModelFailed
from dicomnode.prediction import Answer, Prediction, Shown
from dicomnode.volume import Volume
from workers.inference import merge, region
from workers.inference.model import LoadedModel, require_locked
from workers.inference.settings import AS_PUBLISHED, Settings


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
            ModelFailed: `wrong-inputs`, `region-not-a-volume`, or as the steps do.
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
            for output, given in self._run(name, step, inputs, said).items():
                said[f"{name}.{output}"] = given
                if not given and step.region:
                    silent[f"{name}.{output}"] = (
                        f"'{name}' was not run: '{step.region.of}' found nothing to look at."
                    )
        first, *others = manifest.inputs
        return Prediction(
            subject=inputs[first],
            also_shown=tuple(inputs[name] for name in others),
            answers=tuple(self._own(said)),
            silent={name: silent[of] for name, of in self._sources() if of in silent},
            computed=self.settings.described,
        )

    def _run(
        self,
        name: str,
        step: Step,
        inputs: Mapping[str, Shown],
        said: Mapping[str, Sequence[Answer]],
    ) -> dict[str, list[Answer]]:
        """What one step says, by its outputs; nothing of one that cannot say that it found none."""
        model = self.steps[name]
        outputs = model.bundle.manifest.outputs
        given = {
            own: inputs[step.inputs.get(own, own)]
            for own in model.bundle.manifest.inputs
            if step.inputs.get(own, own) in inputs
        }
        if step.region is None:
            answers = model.predict(given).answers
            return {output: [a for a in answers if a.output == output] for output in outputs}
        subject = _volume(next(iter(inputs.values())))
        box = region.around(said[step.region.of], step.region, subject)
        if box is None:
            return {
                output: region.nothing(output, spec, subject) for output, spec in outputs.items()
            }
        seen = {own: region.cut(_volume(shown), box, subject) for own, shown in given.items()}
        placed = [
            region.put_back(one, box, subject.array.shape) for one in model.predict(seen).answers
        ]
        return {output: [a for a in placed if a.output == output] for output in outputs}

    def _sources(self) -> Iterator[tuple[str, str]]:
        """The chain's outputs, each with the step's output that it is, or is first made of."""
        manifest = self.bundle.manifest
        yield from manifest.takes.items()
        for name, one in manifest.merges.items():
            yield name, one.of[0]

    def _own(self, said: Mapping[str, Sequence[Answer]]) -> Iterator[Answer]:
        manifest = self.bundle.manifest
        for name in manifest.outputs:
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
