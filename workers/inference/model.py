"""One bundle in memory: images in, `Prediction` out, or a named reason why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch

from dicomnode.bundle import Bundle, ClassificationOutput, HeatMapOutput, identity, verify
from dicomnode.errors import Misconfigured, ModelFailed, NodeError, RetryLater
from dicomnode.prediction import Answer, Classification, HeatMap, Prediction, Shown
from dicomnode.volume import Images, Picture, Slide
from workers.inference import answers, classes, configuration, explain, readers
from workers.inference.answers import About
from workers.inference.network import Watched
from workers.inference.scripts import Scripts
from workers.inference.settings import AS_PUBLISHED, Settings
from workers.inference.speed import SwiftArgmax
from workers.inference.workflow import Said, Timings, Workflow

_MAX_MESSAGE = 300  # characters of a foreign message
#: What torch says where the machine itself has no memory left; it has no class of its own for it.
_CPU_IS_FULL = ("can't allocate memory", "not enough memory")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A bundle on its device, ready to be shown images, one study at a time.

    Attributes:
        settings: How it computes.
        timings: Of the last run, by stage: "prepare", "forward", "finish".
    """

    bundle: Bundle
    device: str
    workflow: Workflow
    shelf: readers.Shelf
    scripts: Scripts
    settings: Settings = AS_PUBLISHED
    _timings: Timings = field(default_factory=Timings, repr=False)

    @classmethod
    def of(cls, bundle: Bundle, *, device: str, settings: Settings = AS_PUBLISHED) -> Self:
        """Load `bundle`; see `workers.inference.load_model`."""
        require_locked(bundle)
        shelf, scripts = readers.Shelf(), Scripts(bundle.root)
        stand_ins = configuration.Readers(
            images=readers.MemoryReader(shelf), slides=readers.SlideReader(shelf)
        )
        with _faults_named(bundle), scripts.importable(), configuration.quiet():
            described = configuration.read(bundle.root, device=device, readers=stand_ins)
            workflow = Workflow(described, bundle.root, device=device)
        return cls(
            bundle=bundle,
            device=device,
            workflow=workflow,
            shelf=shelf,
            scripts=scripts,
            settings=settings,
        )

    def using(self, settings: Settings) -> Self:
        """The same model in memory, computing in another way."""
        return replace(self, settings=settings)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of the last run, by stage."""
        return self._timings.seconds

    @property
    def window_batch(self) -> int | None:
        """How many windows are shown at once; `None` where the bundle looks at the whole."""
        windows = self.workflow.inferers
        published = int(windows[0].sw_batch_size) if windows else None
        return published and (self.settings.window_batch or published)

    @property
    def parameter_bytes(self) -> int:
        """What the networks hold in memory."""
        return self.workflow.watched.parameter_bytes

    def predict(self, inputs: Mapping[str, Shown]) -> Prediction:
        """Show `inputs` to the model.

        Args:
            inputs: The manifest's input names → what was loaded for them.

        Returns:
            The answers about the manifest's first input.

        Raises:
            ModelFailed: `wrong-inputs`, `bundle-error`, `not-finite`, or as `answers.of`.
            UnsuitableSeries: `inputs-on-different-grids` or `several-images`.
            RetryLater: `out-of-memory`: the device is full now.
        """
        self._timings.seconds.clear()
        manifest = self.bundle.manifest
        if inputs.keys() != manifest.inputs.keys():
            raise ModelFailed(
                "wrong-inputs",
                f"The model takes {_listed(manifest.inputs)}, and was given {_listed(inputs)}.",
            )
        first, *others = manifest.inputs
        with _faults_named(self.bundle), self._at_work():
            said = list(self._about_each(inputs))
        return Prediction(
            subject=inputs[first],
            also_shown=tuple(inputs[name] for name in others),
            answers=_in_order(said, self.bundle),
            computed=self.settings.described,
        )

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        watched = self.workflow.watched
        with (
            self.scripts.importable(),
            configuration.quiet(),
            watched.computing(self.settings, self.workflow.inferers),
            SwiftArgmax(),
        ):
            yield

    def _about_each(self, inputs: Mapping[str, Shown]) -> Iterator[Answer]:
        """Run once for what is seen together: a study's volumes, one image, a slide."""
        first, *others = self.bundle.manifest.inputs
        subject = inputs[first]
        shared = About(
            subject=subject,
            is_interpolated=self.workflow.interpolates_back,
            others=tuple(others),
        )
        if isinstance(subject, Images) and subject.form == "image":
            for number, frames in enumerate(readers.one_by_one(inputs)):
                about = replace(shared, subject=frames[next(iter(inputs))], frame=number)
                yield from self._answers(frames, about)
        else:
            yield from self._answers(inputs, shared)

    def _answers(self, things: Mapping[str, Shown | Picture], about: About) -> Iterator[Answer]:
        with self.shelf.showing(things):
            said = self._run(things, about)
            with self._timings.time("finish"):
                found: dict[str, list[Answer]] = {}
                for name, output in self.bundle.manifest.outputs.items():
                    if isinstance(output, HeatMapOutput) and output.method != "bundle":
                        continue
                    found[name] = answers.of(said.answer, name, output, about)
            for made in found.values():
                yield from (_explained(one, found) for one in made)
            yield from self._explanations(said, found, about)

    def _run(self, things: Mapping[str, Shown | Picture], about: About) -> Said:
        watched = self.workflow.watched
        watched.forget()
        try:
            if isinstance(about.subject, Slide):
                said = self.workflow.run_slide(next(iter(things)), self._timings)
            else:
                said = self.workflow.run(self._item(things), self._timings)
        except Exception:
            _require_finite(watched)  # what went wrong after it is no news then
            raise
        _require_finite(watched)
        return said

    def _item(self, names: Mapping[str, Any]) -> Any:
        """What the bundle's loaders take: the names of the inputs under their keys."""
        by_key: dict[str, list[str]] = {}
        for name in names:
            key = self.bundle.manifest.inputs[name].key or name
            by_key.setdefault(key, []).append(name)
        item = {key: given[0] if len(given) == 1 else given for key, given in by_key.items()}
        return next(iter(item.values())) if self.workflow.takes_names else item

    def _explanations(
        self, said: Said, found: Mapping[str, Sequence[Answer]], about: About
    ) -> Iterator[HeatMap]:
        for name, output in self.bundle.manifest.outputs.items():
            if isinstance(output, HeatMapOutput) and output.method != "bundle":
                (classified,) = found[output.of]
                if isinstance(classified, Classification):
                    with self._timings.time("explain"):
                        yield explain.heat_map(
                            self.workflow,
                            said.batch,
                            name,
                            output,
                            classified=classified,
                            about=about,
                        )


def _require_finite(watched: Watched) -> None:
    if not watched.is_finite:
        raise ModelFailed(
            "not-finite", "The network's output has values that are infinite or no numbers."
        )


def _explained(answer: Answer, found: Mapping[str, Sequence[Answer]]) -> Answer:
    """A heat map that the bundle gave itself is about the class that it chose."""
    if isinstance(answer, HeatMap):
        (classified,) = found[answer.of]
        if isinstance(classified, Classification):
            return replace(answer, explains=explain.explained(classified))
    return answer


def _in_order(said: Sequence[Answer], bundle: Bundle) -> tuple[Answer, ...]:
    """The answers in the manifest's order; those of images joined where a series is classified."""
    ordered: list[Answer] = []
    for name, output in bundle.manifest.outputs.items():
        own = [one for one in said if one.output == name]
        if isinstance(output, ClassificationOutput) and output.of != "image":
            ordered.append(
                classes.combined([a for a in own if isinstance(a, Classification)], name, output)
            )
        else:
            ordered += own
    return tuple(ordered)


def require_locked(bundle: Bundle) -> None:
    """Make sure that the files are those that were locked when the bundle was read.

    Raises:
        Misconfigured: `bundle-changed`.
    """
    own = verify(bundle.root, manifest=bundle.manifest_path)
    if identity(own, bundle.steps) != bundle.digest:
        raise Misconfigured(
            "bundle-changed",
            f"{bundle.root}: the lock was written anew since the bundle was read: read it again.",
        )


@contextmanager
def _faults_named(bundle: Bundle) -> Iterator[None]:
    """Translate whatever a bundle's code raises: the one place where it can be anything."""
    try:
        yield
    except NodeError:
        raise
    except Exception as error:
        cause = _first_cause(error)
        if isinstance(cause, NodeError):
            raise cause from error
        said = f"{type(cause).__name__}: {cause}".strip()[:_MAX_MESSAGE]
        if _is_full(cause):
            raise RetryLater("out-of-memory", f"{bundle.manifest.name}: {said}") from error
        raise ModelFailed("bundle-error", f"{bundle.manifest.name}: {said}") from error


def _is_full(cause: BaseException) -> bool:
    if isinstance(cause, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(cause, RuntimeError) and any(words in str(cause) for words in _CPU_IS_FULL)


def _first_cause(error: BaseException) -> BaseException:
    """MONAI wraps what a transform raises in a `RuntimeError` that says little."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "nothing"
