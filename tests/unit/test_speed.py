"""What is computed sooner is computed the same."""

from __future__ import annotations

import bundles
import pytest

pytestmark = bundles.QUIET


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("keepdim", [True, False])
def test_the_highest_channel_is_the_one_that_torch_names(channels: int, keepdim: bool) -> None:
    import torch

    from workers.inference import speed

    torch.manual_seed(1)
    # Few values: many ties, of which the first counts.
    values = torch.randint(0, 4, (channels, 64, 128, 160)).float()
    expected = torch.argmax(values, dim=0, keepdim=keepdim)
    with speed.SwiftArgmax():
        found = torch.argmax(values, dim=0, keepdim=keepdim)
        along_another = torch.argmax(values, dim=1)
        small = torch.argmax(values[:, :2, :2, :2], dim=0)
    assert found.dtype is expected.dtype
    assert torch.equal(found, expected)
    assert torch.equal(along_another, torch.argmax(values, dim=1))
    assert torch.equal(small, torch.argmax(values[:, :2, :2, :2], dim=0))


def test_what_knows_its_place_keeps_it() -> None:
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.post.array import AsDiscrete

    from workers.inference import speed

    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    values = MetaTensor(torch.rand(2, 128, 128, 80), affine=affine)
    expected = AsDiscrete(argmax=True)(values)
    with speed.SwiftArgmax():
        found = AsDiscrete(argmax=True)(values)
    assert isinstance(found, MetaTensor)
    assert torch.equal(found.affine, affine)
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))
