"""House rules: what no linter knows and every change must keep."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import dicomnode
from dicomnode import config, errors, log

ROOT = Path(__file__).resolve().parents[2]

TOP_LEVEL = {
    ".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "deploy", "dicomnode",
    "models", "pyproject.toml", "tests", "workers",
}  # fmt: skip

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

# Where packages and weights come from is the business of the machine that installs them. The names
# are put together here, so that this file does not hold them either.
REGISTRY_HOSTS = tuple(
    f"{name}.{domain}"
    for domain, names in {
        "org": ("pypi", "pythonhosted", "download.pytorch", "npmjs", "deb.debian"),
        "io": ("docker", "ghcr", "quay"),
        "co": ("huggingface",),
    }.items()
    for name in names
)
# A path that exists on one machine only.
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:work|tmp|root|home/[a-z]+)/[\w.]")

_LOG_METHODS = {"debug", "info", "warning", "error", "critical", "exception", "bind"}
_LOGGERS = {"log", "_log"}
# What structlog and the processors of `log` put into a line by themselves.
_OF_EVERY_LINE = {"event", "level", "timestamp", "module", "exc_info", "exception"}


def _tracked() -> list[Path]:
    """The files that are in version control or about to be."""
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return sorted({path for path in paths if path.is_file()})


TRACKED = _tracked()
MODULES = [
    path
    for path in TRACKED
    if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in {"dicomnode", "workers"}
    if "migrations" not in path.parts  # lists of columns, written once and never changed
]


def _names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _text(path: Path) -> str | None:
    """What stands in a text file; None for any other."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=_names(path))


def test_the_top_level_holds_only_the_names_that_were_agreed() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in TRACKED} <= TOP_LEVEL


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = []
    for path in TRACKED:
        text = _text(path)
        if text is None or path == Path(__file__):
            continue
        found += [f"{_names(path)}: {host}" for host in REGISTRY_HOSTS if host in text]
        found += [f"{_names(path)}: {match}" for match in MACHINE_PATHS.findall(text)]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=_names)
def test_a_module_is_short_enough_to_be_read_in_one_go(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines < MAX_MODULE_LINES


@pytest.mark.parametrize("path", MODULES, ids=_names)
def test_a_function_is_short_enough_for_one_screen(path: Path) -> None:
    too_long = [
        f"{function.name}: {_length(function)} lines"
        for function in ast.walk(_tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and _length(function) > MAX_FUNCTION_LINES
    ]
    assert too_long == []


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end; a docstring does not count."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


ERRORS = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, BaseException)
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_says_what_happens_next_and_stands_in_the_tree(
    error: type[BaseException],
) -> None:
    assert issubclass(error, errors.NodeError)
    assert error.__doc__
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or "")


def test_an_error_defined_elsewhere_is_one_of_ours_or_a_value_error() -> None:
    """A `ValueError` is what a parser raises for its caller, who knows the file and the key."""
    bases = {error.__name__ for error in ERRORS} | {"ValueError"}
    strangers = [
        f"{_names(path)}:{made.lineno} {made.name}"
        for path in MODULES
        if path != Path(inspect.getfile(errors))
        for made in ast.walk(_tree(path))
        if isinstance(made, ast.ClassDef) and _is_exception(made)
        if not (bases & _base_names(made) and ast.get_docstring(made))
    ]
    assert strangers == []


def _base_names(made: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).rpartition(".")[2] for base in made.bases}


def _is_exception(made: ast.ClassDef) -> bool:
    ours = {error.__name__ for error in ERRORS}
    return any(
        name in ours or name.endswith(("Error", "Exception", "Warning"))
        for name in _base_names(made)
    )


def test_every_reason_of_an_error_is_a_word_in_kebab_case() -> None:
    malformed = [
        f"{_names(path)}:{call.lineno} {reason}"
        for path in MODULES
        for call in _calls(path)
        if (reason := _reason(call)) is not None
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", reason)
    ]
    assert malformed == []


def _reason(call: ast.Call) -> str | None:
    """The reason that a call makes an error of this project with; None for any other call."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name not in {error.__name__ for error in ERRORS} or not call.args:
        return None
    match call.args[0]:
        case ast.Constant(value=str(reason)):
            return reason
    return None  # put together elsewhere


def test_only_agreed_keys_are_logged() -> None:
    """What is logged under a key that is computed (`**facts`) is seen by the strict log alone."""
    forbidden = [
        f"{_names(path)}:{call.lineno} {keyword.arg}"
        for path in MODULES
        for call in _calls(path)
        if _is_log_call(call)
        for keyword in call.keywords
        if keyword.arg is not None and keyword.arg not in log.ALLOWED_KEYS
    ]
    assert forbidden == []


def test_no_key_is_agreed_on_that_nothing_logs() -> None:
    """Each key on the list is one more under which a patient could be named."""
    logged = {
        keyword.arg
        for path in MODULES
        for call in _calls(path)
        if _is_log_call(call)
        for keyword in call.keywords
    }
    assert log.ALLOWED_KEYS - logged == _OF_EVERY_LINE


def test_what_is_logged_is_an_event_that_never_varies() -> None:
    """Facts go into keys: an event that is put together could carry a patient's name."""
    varying = [
        f"{_names(path)}:{call.lineno}"
        for path in MODULES
        for call in _calls(path)
        if _is_log_call(call) and not all(map(_is_written_out, call.args))
    ]
    assert varying == []


def _is_written_out(expression: ast.expr) -> bool:
    """Whether it is a text, or a choice between texts, that stands in the source."""
    if isinstance(expression, ast.IfExp):
        return _is_written_out(expression.body) and _is_written_out(expression.orelse)
    return isinstance(expression, ast.Constant)


def _calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(_tree(path)) if isinstance(node, ast.Call))


def _is_log_call(call: ast.Call) -> bool:
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in _LOG_METHODS:
        return False
    of = function.value
    name = of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
    return name in _LOGGERS


def test_every_dependency_is_pinned_and_torch_to_its_agreed_release() -> None:
    pins = _pins()
    assert pins["torch"] == "2.13.0"
    assert [name for name in _dependencies() if name not in pins] == []


def _pins() -> dict[str, str]:
    """Every line but a comment is `name==version`, without a local version, a URL or an option."""
    lines = (ROOT / "deploy" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)", line)
        assert match is not None, line
        pins[_normal(match[1])] = match[2]
    return pins


def _dependencies() -> list[str]:
    """The packages that pyproject.toml names, the build backend among them."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]
    named = [*pyproject["build-system"]["requires"], *project["dependencies"]]
    named += [name for extra in project["optional-dependencies"].values() for name in extra]
    return [_normal(re.split(r"[\[<>=!~; ]", name)[0]) for name in named]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PACKAGES = [path for path in MODULES if path.name == "__init__.py"]
STEMS = {name for path in MODULES for name in (path.stem, path.parent.name)}


@pytest.mark.parametrize("path", PACKAGES, ids=_names)
def test_a_package_speaks_of_modules_that_are_there(path: Path) -> None:
    tree = _tree(path)
    own = {
        name.asname or name.name
        for imported in ast.walk(tree)
        if isinstance(imported, ast.ImportFrom)
        for name in imported.names
    }
    spoken = re.findall(r"`([a-z_]+)`", ast.get_docstring(tree) or "")
    assert [name for name in spoken if name not in STEMS | own] == []


def test_the_map_of_the_node_names_all_that_is_at_its_top() -> None:
    parts = [path.relative_to(ROOT).parts[:2] for path in MODULES]
    top = {part[1].removesuffix(".py") for part in parts if part[0] == "dicomnode"}
    named = re.findall(r"`(\w+)`", dicomnode.__doc__ or "")
    assert top - {"__init__", "__main__"} - set(named) == set()


def test_every_module_that_a_document_names_is_there() -> None:
    """A decision is not written anew when a module moves, but it must not lead nowhere."""
    homes = (ROOT, ROOT / "dicomnode", ROOT / "workers")
    pages = [path for path in TRACKED if path.suffix == ".md" and "models" not in path.parts]
    lost = [
        f"{_names(page)}: {named}"
        for page in pages
        for named in re.findall(r"`((?:\w+/)+\w+\.py)\b", page.read_text(encoding="utf-8"))
        if not any((home / named).is_file() for home in homes)
    ]
    assert lost == []


def test_every_decision_is_numbered_and_listed() -> None:
    folder = ROOT / "deploy" / "decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [name[:4] for name in records] == [f"{n:04}" for n in range(1, len(records) + 1)]
    listing = (folder / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", listing) == records


def test_the_help_of_make_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE)) == set(phony.split())


def test_the_readme_names_every_command() -> None:
    from dicomnode import cli

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = list(_commands(typer.main.get_command(cli.app), "dicomnode"))
    assert len(commands) > 1
    assert [name for name in commands if f"`{name}" not in readme] == []


def _commands(command: object, name: str) -> Iterator[str]:
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        yield name
    for word, subcommand in subcommands.items():
        yield from _commands(subcommand, f"{name} {word}")


def test_the_configuration_in_the_readme_is_one(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (configuration,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    file = tmp_path / "node.toml"
    file.write_text(configuration, encoding="utf-8")
    (tmp_path / "models").symlink_to(ROOT / "models")
    assert [route.model for route in config.load(file, {}).routes] == ["hippocampus"]


def test_the_pieces_of_configuration_in_the_guide_make_one(tmp_path: Path) -> None:
    pages = [ROOT / "README.md", ROOT / "deploy" / "guide.md"]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    pieces = [
        piece for text in texts for piece in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    ]
    assert len(pieces) > 10
    file = tmp_path / "node.toml"
    file.write_text("\n".join(pieces), encoding="utf-8")
    (tmp_path / "models").symlink_to(ROOT / "models")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in re.findall(r'"secrets/(\S+)"', file.read_text(encoding="utf-8")):
        (secrets / name).write_text("https://chat.hospital.example/hooks/1", encoding="utf-8")
    loaded = config.load(file, {})
    assert set(loaded.peers) == {"pacs", "ct2", "archive", "viewer"}


def test_every_link_of_the_readme_leads_somewhere() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https://)([^)#]+)\)", readme)
    assert [link for link in links if not (ROOT / link).exists()] == []
