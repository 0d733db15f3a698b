"""Trains the network, calibrates it, and chooses its operating point. From the bundle's folder::

    python -m scripts.training --dataset pneumoniamnist_train_val.npz --output OUT/model.pt

About twenty minutes on one CPU core. Only training images are learnt from; calibration and
operating point are chosen on the validation images.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets.resnet import ResNet
from numpy.typing import NDArray
from scipy import optimize

BATCH, EPOCHS, SEED = 128, 22, 1
#: Of the pneumonias of the validation images, how many the operating point must find.
LEAST_SENSITIVITY = 0.95
_EMA = 0.995
_SMOOTHED = 0.05
_STEP = 512


def network() -> ResNet:
    """A ResNet-18 of half the usual width for small images; two logits: normal, pneumonia."""
    return ResNet(
        block="basic",
        layers=[2, 2, 2, 2],
        block_inplanes=[32, 64, 128, 256],
        spatial_dims=2,
        n_input_channels=1,
        conv1_t_size=3,
        conv1_t_stride=1,
        no_max_pool=True,
        num_classes=2,
    )


def images(file: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 1, columns, rows) from 0 to 1 as MONAI's loaders lay them, and labels (n)."""
    data = np.load(file)
    pixels = data[f"{split}_images"].astype(np.float32).swapaxes(1, 2)[:, None] / 255
    return torch.as_tensor(pixels), torch.as_tensor(data[f"{split}_labels"].ravel().astype(int))


def standardized(batch: torch.Tensor) -> torch.Tensor:
    """Each image to mean 0 and standard deviation 1."""
    mean = batch.mean((1, 2, 3), keepdim=True)
    return (batch - mean) / (batch.std((1, 2, 3), keepdim=True, correction=0) + 1e-3)


def augmented(batch: torch.Tensor) -> torch.Tensor:
    """Other positions, exposures and detectors; no mirror: the heart has a side."""
    batch = _moved(batch)
    count = len(batch)
    batch = batch.clamp(0, 1).pow(torch.exp(_uniform(count, -0.6, 0.6)))
    batch = (batch - 0.5) * _uniform(count, 0.6, 1.4) + 0.5 + _uniform(count, -0.15, 0.15)
    if torch.rand(1) < 0.4:
        kernel = torch.tensor([1.0, 2, 1])
        kernel = (kernel[:, None] * kernel / 16)[None, None]
        blurred = F.conv2d(F.pad(batch, (1, 1, 1, 1), mode="replicate"), kernel)
        chosen = (torch.rand(count) < 0.5).float().view(-1, 1, 1, 1)
        batch = batch * (1 - chosen) + blurred * chosen
    if torch.rand(1) < 0.3:
        ramp = torch.linspace(-1, 1, batch.shape[-1])
        batch = batch + _uniform(count, -0.2, 0.2) * ramp.view(1, 1, 1, -1)
        batch = batch + _uniform(count, -0.2, 0.2) * ramp.view(1, 1, -1, 1)
    batch = batch + torch.randn_like(batch) * _uniform(count, 0, 0.05)
    return _erased(batch)


def _uniform(count: int, low: float, high: float) -> torch.Tensor:
    return torch.empty(count).uniform_(low, high).view(-1, 1, 1, 1)


def _moved(batch: torch.Tensor) -> torch.Tensor:
    count = len(batch)

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.empty(count).uniform_(low, high)

    angle, shear = draw(-15, 15) * np.pi / 180, draw(-0.12, 0.12)
    wide, high = draw(0.82, 1.15), draw(0.82, 1.15)
    move = torch.zeros(count, 2, 3)
    move[:, 0, 0], move[:, 0, 1] = angle.cos() * wide, -angle.sin() * high + shear
    move[:, 1, 0], move[:, 1, 1] = angle.sin() * wide, angle.cos() * high
    move[:, 0, 2], move[:, 1, 2] = draw(-0.2, 0.2), draw(-0.2, 0.2)
    grid = F.affine_grid(move, list(batch.shape), align_corners=False)
    padding = "border" if torch.rand(1) < 0.5 else "zeros"
    return F.grid_sample(batch, grid, padding_mode=padding, align_corners=False)


def _erased(batch: torch.Tensor) -> torch.Tensor:
    for index in torch.nonzero(torch.rand(len(batch)) < 0.25).ravel().tolist():
        height, width = np.random.randint(3, 9, 2)
        top, left = np.random.randint(0, 28 - height), np.random.randint(0, 28 - width)
        batch[index, :, top : top + height, left : left + width] = batch[index].mean()
    return batch


def trained(file: str) -> ResNet:
    """The average of the weights over the last steps, after `EPOCHS` epochs."""
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    pixels, labels = images(file, "train")
    model = network()
    average = copy.deepcopy(model)
    steps = len(pixels) // BATCH
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=EPOCHS * steps, pct_start=0.2
    )
    # As many normal images as pneumonias, though there are three times as many of the latter.
    weights = 1.0 / torch.bincount(labels)[labels].double()
    for epoch in range(EPOCHS):
        model.train()
        order = torch.multinomial(weights, steps * BATCH, replacement=True).view(steps, BATCH)
        for number, chosen in enumerate(order):
            loss = _loss(model, augmented(pixels[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            _follow(average, model, step=epoch * steps + number)
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", flush=True)
    return average.eval()


def _loss(model: ResNet, batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy with smoothed labels, of images mixed in pairs."""
    batch = standardized(batch)
    wanted = F.one_hot(labels, 2).float() * (1 - _SMOOTHED) + _SMOOTHED / 2
    share, other = np.random.beta(0.3, 0.3), torch.randperm(len(batch))
    mixed = share * batch + (1 - share) * batch[other]
    wanted = share * wanted + (1 - share) * wanted[other]
    return -(F.log_softmax(model(mixed), 1) * wanted).sum(1).mean()


@torch.no_grad()
def _follow(average: ResNet, model: ResNet, *, step: int) -> None:
    kept = min(_EMA, (step + 1) / (step + 10))
    for mean, new in zip(average.state_dict().values(), model.state_dict().values()):
        if mean.dtype.is_floating_point:
            mean.lerp_(new, 1 - kept)
        else:
            mean.copy_(new)


@torch.no_grad()
def scores(model: ResNet, batch: torch.Tensor) -> NDArray[np.float64]:
    """The logit of pneumonia less that of normal."""
    logits = torch.cat([model(standardized(part)) for part in batch.split(_STEP)])
    return (logits[:, 1] - logits[:, 0]).double().numpy()


def calibration(score: NDArray[np.float64], label: NDArray[np.int64]) -> tuple[float, float]:
    """What is added to the scores, and what they are then divided by (Platt scaling).

    Trained on as many normal images as pneumonias, the network expects too few of the latter.
    """
    sign = np.where(label == 1, -1.0, 1.0)
    found = optimize.minimize(
        lambda p: np.logaddexp(0, sign * (score + p[0]) / np.exp(p[1])).mean(), np.zeros(2)
    )
    return float(found.x[0]), float(np.exp(found.x[1]))


def operating_point(
    score: NDArray[np.float64], label: NDArray[np.int64], divisor: float
) -> float:
    """The highest probability that still finds `LEAST_SENSITIVITY` of the pneumonias."""
    positive = np.sort(score[label == 1])[::-1]
    lowest = positive[int(np.ceil(LEAST_SENSITIVITY * len(positive))) - 1]
    return float(1 / (1 + np.exp(-lowest / divisor)))


def main() -> None:
    """Train, and print what stands in the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    model = trained(arguments.dataset)
    pixels, labels = images(arguments.dataset, "val")
    score, label = scores(model, pixels), labels.numpy()
    shift, divisor = calibration(score, label)
    with torch.no_grad():
        model.fc.bias[1] += shift
    # Half precision halves the file; the answers differ in the fourth decimal.
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    torch.save({"model": state}, arguments.output)
    point = operating_point(score + shift, label, divisor)
    print(f"calibration_temperature = {divisor:.3f}, operating_point = {point:.3f}")


if __name__ == "__main__":
    main()
