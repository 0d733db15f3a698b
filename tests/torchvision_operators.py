"""Operators for a torchvision whose compiled ones are not there.

torchvision comes built for one torch and one kind of device. Beside another torch its library of
operators does not load, and `import torchvision` itself then fails, because it registers shapes for
operators that nobody defined. The tests run none of them, so it is enough to define them.
"""

from __future__ import annotations

#: Whoever starts another Python puts this into its `sitecustomize`. It waits for the import of
#: torchvision, so that nothing that does not ask for it loads torch.
SOURCE = """
import importlib.abc
import sys


class _Define(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname == "torchvision._meta_registrations":
            import torch

            if not hasattr(torch.ops.torchvision, "nms"):
                library = torch.library.Library("torchvision", "DEF")
                boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                library.define("nms" + boxes)
                library.define("qnms" + boxes)
                library.define(
                    "roi_align(Tensor input, Tensor rois, float s, SymInt h, SymInt w, int r,"
                    " bool a) -> Tensor"
                )
                sys.modules["_torchvision_library"] = library
        return None


sys.meta_path.insert(0, _Define())
"""


def define_when_imported() -> None:
    """Make torchvision importable in this process.

    It must be called before anything asks for torchvision: MONAI keeps the failure of its first
    attempt for as long as the process lives.
    """
    exec(SOURCE, {})
