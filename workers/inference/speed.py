"""The same answers, sooner: where torch on the CPU takes its time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

#: From how many elements on it pays.
_MANY = 1 << 20
_UINT8 = 256


class SwiftArgmax(TorchFunctionMode):
    """Which channel is the highest, for tensors whose channels come first.

    `torch.argmax` over the first of several dimensions runs through memory across its grain: for
    two channels of a CT it takes ten seconds where comparing one channel after the other takes less
    than one. Of equal channels the first counts, as in torch.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer for `torch.argmax`; leave everything else as it is."""
        given = dict(kwargs or {})
        if func in (torch.argmax, torch.Tensor.argmax) and _pays(args, given):
            return _argmax(args[0], keepdim=bool(given.get("keepdim", False)))
        return func(*args, **given)


def _pays(args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    if len(args) != 1 or given.get("dim") != 0 or set(given) - {"dim", "keepdim"}:
        return False
    (values,) = args
    return bool(
        values.device.type == "cpu"
        and values.dim() > 1
        and values.numel() >= _MANY
        and values.is_floating_point()
        and values.shape[0] <= _UINT8
    )


def _argmax(values: torch.Tensor, *, keepdim: bool) -> torch.Tensor:
    highest = values[0].clone()
    index = torch.zeros_like(highest, dtype=torch.uint8)
    for channel in range(1, values.shape[0]):
        higher = values[channel] > highest
        index.masked_fill_(higher, channel)
        torch.maximum(highest, values[channel], out=highest)
    found = index.to(torch.int64)
    return found.unsqueeze(0) if keepdim else found
