"""Which packages a bundle imports when it runs, told from its texts: nothing of it is executed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.onboarding import packages
from dicomnode.onboarding.description import Component, Description, references

_SCRIPTS = "scripts"
#: Where the parts begin that the node takes out of a configuration.
_ROOTS = ("evaluator", "preprocessing", "postprocessing", "inferer", "network")
#: Of the evaluator: what the node leaves out.
_LEFT_OUT = frozenset(
    {"val_data_loader", "key_val_metric", "additional_metrics", "metric_cmp_fn", "val_handlers"}
)
# What the node does itself: reading, writing, reporting, loading weights.
_TAKEN_OVER = re.compile(
    r"LoadImage|\w*Save(r|Image)?|(Stats|TensorBoard\w*|MLFlow|ClearML\w*|Validation)Handler"
    r"|MetricLogger|CheckpointLoader|ProbMapProducer"
)
_EVALUATOR = re.compile(r"\w*Evaluator")
_SLIDE_DATASET = re.compile(r"\w*WSIDataset")
_IMPORT = re.compile(r"\$\s*(import|from)\s")
#: Functions that import what a text names.
_IMPORTERS = frozenset({"optional_import", "import_module", "__import__"})
_FAULTS_OF_IMPORT = frozenset(
    {"ImportError", "ModuleNotFoundError", "OptionalImportError", "Exception", "BaseException"}
)

#: Parts of MONAI → packages that they cannot do without, as of MONAI 1.6.
OF_MONAI: Mapping[str, tuple[str, ...]] = {
    "UNETR": ("einops",),
    "SwinUNETR": ("einops",),
    "ViT": ("einops",),
    "ViTAutoEnc": ("einops",),
    "AutoencoderKL": ("einops",),
    "DiffusionModelUNet": ("einops",),
    "ControlNet": ("einops",),
    "PatchEmbeddingBlock": ("einops",),
    "TorchVisionFCModel": ("torchvision",),
    "MILModel": ("torchvision",),
    "RetinaNet": ("torchvision",),
    "resnet_fpn_feature_extractor": ("torchvision",),
    "TorchVision": ("torchvision",),
    "Transchex": ("transformers", "einops"),
    "DiNTS": ("scipy",),
    "FillHoles": ("scipy",),
    "KeepLargestConnectedComponent": ("skimage",),
    "RemoveSmallObjects": ("skimage",),
    "HoVerNetInstanceMapPostProcessing": ("skimage", "scipy"),
    "HoVerNetNuclearTypePostProcessing": ("skimage",),
    "Watershed": ("skimage",),
    "CuCIM": ("cucim",),
    "SupervisedEvaluator": ("ignite",),
    "EnsembleEvaluator": ("ignite",),
}
_MENTIONED = re.compile(r"(?<![\w.'\"])(?:monai\.[\w.]*\.)(\w+)")


@dataclass(frozen=True, kw_only=True)
class Need:
    """One package that something imports.

    Attributes:
        imported: Its name in an import.
        by: What imports it, for people.
        surely: It is imported whenever the bundle runs; else only perhaps.
    """

    imported: str
    by: str
    surely: bool


def of(description: Description) -> list[Need]:
    """Every package, each once: by whoever needs it surely, if anybody does."""
    found: dict[str, Need] = {}
    for need in (*_of_config(description), *_of_scripts(description)):
        if not packages.is_foreign(need.imported):
            continue
        known = found.get(need.imported)
        if known is None or (need.surely and not known.surely):
            found[need.imported] = need
    return list(found.values())


def running(description: Description) -> list[Component]:
    """What the node builds when the bundle runs."""
    reached = _reached(description)
    return [
        one
        for one in description.components()
        if any(one.path == path or one.path.startswith(f"{path}::") for path in reached)
        and not _TAKEN_OVER.fullmatch(one.name)
        and not any(step in _LEFT_OUT for step in one.path.split("::"))
    ]


def _reached(description: Description) -> set[str]:
    """The entries at the top that the node takes, and those that they refer to."""
    waiting = [name for name in _ROOTS if name in description.config]
    waiting += [
        one.path.partition("::")[0]
        for one in description.components()
        if _EVALUATOR.fullmatch(one.name) or _SLIDE_DATASET.fullmatch(one.name)
    ]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in reached and name in description.config:
            reached.add(name)
            waiting += _referred(description.config[name])
    return reached


def _referred(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield from (re.split(r"#|::", one)[0] for one in references(content))
    elif isinstance(content, Mapping):
        is_dataset = bool(_SLIDE_DATASET.fullmatch(str(content.get("_target_", ""))))
        for key, value in content.items():
            if key not in _LEFT_OUT and not (is_dataset and key == "data"):
                yield from _referred(value)
    elif isinstance(content, list):
        for value in content:
            yield from _referred(value)


def _of_config(description: Description) -> Iterator[Need]:
    name = description.config_path.name
    for text in _texts(description.config):
        if _IMPORT.match(text):
            yield from (
                Need(imported=one, by=f"{name} ({text.lstrip('$ ')})", surely=True)
                for one in _imported_by_line(text)
            )
    bound = _bound(description)
    for one in running(description):
        head, dot, _ = one.target.partition(".")
        if dot and head not in bound:
            yield Need(imported=head, by=f"{one.path} ({one.target})", surely=True)
        for needed in OF_MONAI.get(one.name, ()):
            yield Need(imported=needed, by=f"{one.path} ({one.name})", surely=True)
    yield from _of_expressions(description)


def _of_expressions(description: Description) -> Iterator[Need]:
    """Parts of MONAI that an expression calls: `$monai.networks.nets.ViT(…)`."""
    for name in _reached(description):
        for text in _texts(description.config[name]):
            for part in _MENTIONED.findall(text) if text.startswith("$") else ():
                for needed in OF_MONAI.get(part, ()):
                    yield Need(imported=needed, by=f"{name} ({part})", surely=True)


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)


def _statement(text: str) -> ast.stmt | None:
    try:
        body = ast.parse(text.lstrip("$ ")).body
    except (SyntaxError, ValueError):
        return None
    return body[0] if body else None


def _imported_by_line(text: str) -> list[str]:
    statement = _statement(text)
    return [] if statement is None else [name for name, _ in _imports(statement)]


def _bound(description: Description) -> set[str]:
    """Names that the configuration's imports give to things."""
    bound: set[str] = set()
    for text in _texts(description.config):
        statement = _statement(text) if _IMPORT.match(text) else None
        if isinstance(statement, ast.Import | ast.ImportFrom):
            bound |= {(one.asname or one.name).partition(".")[0] for one in statement.names}
    return bound


def _imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Top name and level of what one statement imports; level 0 is absolute."""
    if isinstance(node, ast.Import):
        for one in node.names:
            yield one.name.partition(".")[0], 0
    elif isinstance(node, ast.ImportFrom):
        yield (node.module or "").partition(".")[0], node.level


def _of_scripts(description: Description) -> Iterator[Need]:
    folder = description.root / _SCRIPTS
    waiting = [folder / "__init__.py", *_scripts_named(description, folder)]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        tree = _tree(path)
        if tree is not None:
            waiting += _within_scripts(tree, path, folder)
            by = path.relative_to(description.root).as_posix()
            yield from _of_module(tree, by=by, surely=True)


def _tree(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return None  # the trial says what is wrong with it


def _scripts_named(description: Description, folder: Path) -> list[Path]:
    """The bundle's modules that its configuration names."""
    found = [one.target for one in running(description) if one.target.startswith(f"{_SCRIPTS}.")]
    for text in _texts(description.config):
        statement = _statement(text) if _IMPORT.match(text) else None
        if isinstance(statement, ast.Import):
            found += [one.name for one in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            found += [f"{statement.module}.{one.name}" for one in statement.names]
        elif text.startswith("$"):
            found += re.findall(rf"\b{_SCRIPTS}(?:\.\w+)+", text)
    return [path for name in found for path in _in_scripts(name, folder)]


def _files_of(root: Path, name: str) -> Iterator[Path]:
    """The modules on the way to a dotted name: "scripts.a.B" → scripts/a.py."""
    steps = name.split(".")
    for count in range(1, len(steps) + 1):
        place = root.joinpath(*steps[:count])
        yield place.with_suffix(".py")
        yield place / "__init__.py"


def _within_scripts(tree: ast.Module, path: Path, folder: Path) -> Iterator[Path]:
    """The bundle's own modules that one of them imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield from _in_scripts(one.name, folder)
        elif isinstance(node, ast.ImportFrom):
            for one in node.names:
                name = f"{node.module or ''}.{one.name}".lstrip(".")
                if node.level:
                    yield from _files_of(path.parents[node.level - 1], name)
                else:
                    yield from _in_scripts(name, folder)


def _in_scripts(name: str, folder: Path) -> Iterator[Path]:
    if name.split(".", maxsplit=1)[0] == _SCRIPTS:
        yield from _files_of(folder.parent, name)


def _of_module(node: ast.AST, *, by: str, surely: bool) -> Iterator[Need]:
    """What a module imports: surely where it stands bare at its top."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue  # read by type checkers alone
        for name, level in _imports(child):
            if name and not level:
                yield Need(imported=name, by=by, surely=surely)
        if isinstance(child, ast.Call):
            yield from _by_call(child, by)
        yield from _of_module(child, by=by, surely=surely and not _is_conditional(child))


def _by_call(call: ast.Call, by: str) -> Iterator[Need]:
    function = call.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name in _IMPORTERS and call.args and isinstance(call.args[0], ast.Constant):
        named = call.args[0].value
        if isinstance(named, str) and named and not named.startswith("."):
            yield Need(imported=named.partition(".")[0], by=by, surely=False)


def _is_conditional(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.If):
        return True
    return isinstance(node, ast.Try) and any(map(_catches_imports, node.handlers))


def _catches_imports(handler: ast.ExceptHandler) -> bool:
    kind = handler.type
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(
        one is None or getattr(one, "id", getattr(one, "attr", "")) in _FAULTS_OF_IMPORT
        for one in kinds
    )
