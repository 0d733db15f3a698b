"""Heat maps of a classification: where the network looked, made by the node.

Grad-CAM weights the activations of a layer by the gradients of the class's score (Selvaraju et al.
2017); occlusion covers one part of the image after the other and looks how much the score falls
(Zeiler and Fergus 2014). Both are MONAI's; the node brings what they give onto the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.utils.enums import CommonKeys
from monai.visualize.class_activation_maps import GradCAM
from monai.visualize.occlusion_sensitivity import OcclusionSensitivity
from numpy.typing import NDArray

from dicomnode.bundle import HeatMapOutput
from dicomnode.errors import ModelFailed
from dicomnode.prediction import Classification, HeatMap
from dicomnode.volume import Picture, Volume
from workers.inference import grid
from workers.inference.answers import About
from workers.inference.workflow import Workflow

_BATCHED = 3  # dimensions of the affines of a batch
_TWO = 2
_OVERLAP = 0.5  # of one covered part with the next


def explained(classified: Classification) -> int:
    """The class that a heat map is about: the one that was said, or else the most probable."""
    if classified.chosen:
        return classified.chosen[0]
    return int(np.argmax(classified.probabilities))


def heat_map(
    workflow: Workflow,
    batch: Any,
    name: str,
    output: HeatMapOutput,
    *,
    classified: Classification,
    about: About,
) -> HeatMap:
    """Why a classification came out as it did.

    Raises:
        ModelFailed: `no-layer`, or `no-geometry`: what the network saw has lost its place.
    """
    image = batch[CommonKeys.IMAGE]
    subject = about.subject
    if not isinstance(image, MetaTensor) or not isinstance(subject, Volume | Picture):
        raise ModelFailed("no-geometry", f"'{name}': what the network saw has no known place.")
    number = explained(classified)
    network = _Scores(workflow.main_network, classes=len(classified.probabilities))
    seen = _METHODS[output.method](network, image.as_tensor(), output, number)
    affine = image.affine.cpu().numpy().astype(np.float64)
    placed = grid.of(subject).bring(
        seen, affine=affine[0] if affine.ndim == _BATCHED else affine, order=grid.LINEAR
    )
    return HeatMap(
        output=name,
        frame=about.frame,
        array=np.clip(placed, 0, 1).astype(np.float32),
        of=output.of,
        explains=number,
    )


class _Scores(torch.nn.Module):
    """A classifier with one score for each class.

    Of two classes, one number speaks for the second and against the first.
    """

    def __init__(self, network: torch.nn.Module, *, classes: int) -> None:
        super().__init__()
        self.network = network
        self._classes = classes

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Shape (batch, classes)."""
        scores: torch.Tensor = self.network(image)
        if scores.shape[1] == 1 and self._classes == _TWO:
            return torch.cat([-scores, scores], dim=1)
        return scores


def _gradients(
    network: _Scores, image: torch.Tensor, output: HeatMapOutput, number: int
) -> NDArray[np.float32]:
    layer = f"network.{output.layer}"
    if layer not in dict(network.named_modules()):
        raise ModelFailed("no-layer", f"The network has no layer '{output.layer}' to explain.")
    with torch.enable_grad(), _hooks_taken_off(network.get_submodule(layer)):
        maps = GradCAM(network, target_layers=layer, postprocessing=_as_it_is)(
            image.detach().clone().requires_grad_(), class_idx=number
        )
    network.zero_grad(set_to_none=True)
    return _scaled(torch.as_tensor(maps)[0, 0])


@contextmanager
def _hooks_taken_off(layer: torch.nn.Module) -> Iterator[None]:
    """Take off what is hung on a layer within the block: MONAI leaves its hooks there for good."""
    hooks = (layer._forward_hooks, layer._backward_hooks)  # noqa: SLF001 - torch lists them nowhere else
    before = [set(known) for known in hooks]
    try:
        yield
    finally:
        for present, known in zip(hooks, before, strict=True):
            for added in set(present) - known:
                del present[added]


def _occlusion(
    network: _Scores, image: torch.Tensor, output: HeatMapOutput, number: int
) -> NDArray[np.float32]:
    covered, _ = OcclusionSensitivity(
        network, mask_size=output.window, overlap=_OVERLAP, activate=False, verbose=False
    )(image)
    with torch.no_grad():
        uncovered = network(image)[0, number]
    return _scaled(torch.relu(uncovered.cpu() - covered[0, number].cpu()))


def _as_it_is(maps: torch.Tensor) -> torch.Tensor:
    return maps


def _scaled(seen: torch.Tensor) -> NDArray[np.float32]:
    """The most important place is 1, and what speaks for nothing 0."""
    values: NDArray[np.float32] = seen.detach().cpu().float().numpy()
    highest = float(values.max())
    return values / highest if highest > 0 else np.zeros_like(values)


_METHODS: dict[str, Callable[[_Scores, torch.Tensor, HeatMapOutput, int], NDArray[np.float32]]] = {
    "gradcam": _gradients,
    "occlusion": _occlusion,
}
