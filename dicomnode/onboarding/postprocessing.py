"""What a bundle's postprocessing does to each of its answers, told from its description."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dicomnode.onboarding.description import Component, Description

_SAVER = re.compile(r"\w*Save(r|Image)?")
_BOXES = re.compile(r"\w*Box\w*|\w*Detect(or|ion)\w*")
_DROPS_FIRST_CHANNEL = re.compile(r"\[\s*1\s*:\s*(,[^\]]*)?\]")
_DEFAULT_KEY = "pred"
_COUNTS = ("out_channels", "num_classes", "out_classes")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What becomes of one answer on its way.

    Attributes:
        key: What the bundle calls it.
        activation: "sigmoid", "softmax" or "".
        argmax: One label for each place.
        onehot: One channel for each label again.
        threshold: From which value on; `None` where nothing is compared.
        drops_first: The first channel is cut away.
        codes: Label → channel that it is made of, where channels are folded into labels.
        saved: It is written as an image.
        unclear: What is done to it in words of the bundle's own.
    """

    key: str
    activation: str = ""
    argmax: bool = False
    onehot: bool = False
    threshold: float | None = None
    drops_first: bool = False
    codes: Mapping[int, int] = field(default_factory=dict)
    saved: bool = False
    unclear: str = ""


def answers(description: Description) -> list[Answer]:
    """Every answer that the bundle keeps, in the order in which it is saved."""
    chain = description.chain("postprocessing")
    saved: dict[str, None] = {}
    for one in chain:
        if _SAVER.fullmatch(one.name):
            saved |= dict.fromkeys(description.texts(one.content.get("keys")))
    return [
        _answer(description, chain, key, saved=key in saved)
        for key in list(saved) or [_DEFAULT_KEY]
    ]


def box_components(description: Description) -> list[Component]:
    """What makes or changes boxes; empty where the model finds none."""
    return [one for one in description.components() if _BOXES.fullmatch(one.name)]


def channels(description: Description, said: Mapping[str, Any]) -> tuple[int, bool]:
    """How many channels the network gives, and whether metadata and network agree."""
    counted = [
        count
        for one in description.components()
        for name in _COUNTS
        if isinstance(count := description.value(one.content.get(name)), int)
        if "network" in one.path or "net" in one.path
    ]
    told = said.get("num_channels")
    if not counted:
        return (told if isinstance(told, int) else 1), True
    return counted[0], told in {None, counted[0]}


def _answer(description: Description, chain: list[Component], key: str, *, saved: bool) -> Answer:
    found: dict[str, Any] = {"key": key, "saved": saved}
    for one in chain:
        if key in description.texts(one.content.get("keys")):
            found |= _effect(description, one, after=found)
    return Answer(**found)


def _effect(
    description: Description, one: Component, *, after: Mapping[str, Any]
) -> dict[str, Any]:
    content = {name: description.value(raw) for name, raw in one.content.items()}
    if one.name == "Activations":
        active = [name for name in ("sigmoid", "softmax") if _is_on(content.get(name))]
        return {"activation": active[0]} if active else {}
    if one.name == "AsDiscrete":
        return _discretised(content)
    if one.name in {"Lambda", "TorchVision"}:
        return _folded(str(content.get("func", "")), after=after)
    return {}


def _discretised(content: Mapping[str, Any]) -> dict[str, Any]:
    effect: dict[str, Any] = {}
    if _is_on(content.get("argmax")):
        effect["argmax"] = True
    if content.get("to_onehot"):
        effect["onehot"] = True
    threshold = content.get("threshold", content.get("threshold_values"))
    if isinstance(threshold, list):
        threshold = next((one for one in threshold if isinstance(one, int | float)), None)
    if threshold is True or content.get("rounding"):
        threshold = 0.5
    if isinstance(threshold, int | float) and threshold is not False:
        effect["threshold"] = float(threshold)
    return effect


def _folded(function: str, *, after: Mapping[str, Any]) -> dict[str, Any]:
    if _DROPS_FIRST_CHANNEL.search(function) and after.get("onehot"):
        return {"drops_first": True}
    codes = label_codes(function)
    if codes:
        return {"codes": codes}
    return {"unclear": " ".join(function.split())}


def label_codes(function: str) -> dict[int, int]:
    """Label → channel of a nested `where(x[[2]] > 0, 4, where(…, 0))`; empty for anything else."""
    try:
        tree = ast.parse(function.lstrip("$ "), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return {}
    body = tree.body.body if isinstance(tree.body, ast.Lambda) else tree.body
    return dict(_nested(body))


def _nested(node: ast.expr) -> Iterator[tuple[int, int]]:
    match node:
        case ast.Call(
            func=ast.Attribute(attr="where"),
            args=[condition, ast.Constant(value=int(label)), otherwise],
        ):
            channel = _channel(condition)
            if channel is not None:
                yield label, channel
            yield from _nested(otherwise)


def _channel(condition: ast.expr) -> int | None:
    """Which channel a condition looks at: `x[[2]] > 0`, `x[2] > 0.5`."""
    for node in ast.walk(condition):
        if isinstance(node, ast.Subscript):
            index = node.slice
            if isinstance(index, ast.List | ast.Tuple) and index.elts:
                index = index.elts[0]
            if isinstance(index, ast.Constant) and isinstance(index.value, int):
                return index.value
    return None


def _is_on(raw: Any) -> bool:
    return raw is True or (isinstance(raw, list) and True in raw)
