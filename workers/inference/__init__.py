"""Runs one bundle on the volumes of one study, and keeps models warm.

A bundle stays as its makers published it: its `configs/inference.json` says how an image is
prepared, shown to the network and turned into an answer. The node takes that configuration over
(`configuration`), reads the weights (`network`), lends the bundle its own `scripts` (`scripts`),
lets its loaders read from memory (`readers`, `grid`), runs it (`workflow`), judges what it said
(`answers`, `classes`, `places`) and explains it (`explain`). `model` is one bundle, `chain`
several in a row.

Importing this package is cheap. torch and MONAI are imported by the first `load_model`, which is
called in a worker's child: never before the fork.
"""

from __future__ import annotations

from workers.inference.loading import load_model
from workers.inference.models import Models
from workers.inference.settings import AS_PUBLISHED, Settings

__all__ = ["AS_PUBLISHED", "Models", "Settings", "load_model"]
