"""How a model computes: what may be chosen on a machine without changing what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model computes.

    Attributes:
        precision: Of the network; before and after it everything is float32.
        channels_last: Whether the channels of a voxel lie side by side in memory.
        compile: Whether the network is compiled by `torch.compile`.
        window_batch: How many windows of a sliding window are shown at once; `None`: as many as
            the bundle says.
        stitch_on_cpu: Whether the windows' answers are put together in the machine's memory
            instead of the device's.
        network_on_cpu: Whether the network runs on the CPU, whatever the device.
    """

    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    window_batch: int | None = None
    stitch_on_cpu: bool = False
    network_on_cpu: bool = False

    @property
    def described(self) -> str:
        """For people, and for the result: "bfloat16, channels last"."""
        named = {
            "channels last": self.channels_last,
            "compiled": self.compile,
            "on the CPU": self.network_on_cpu,
        }
        return ", ".join([self.precision, *(name for name, holds in named.items() if holds)])


AS_PUBLISHED = Settings()
