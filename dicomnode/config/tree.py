"""The configuration as a frozen tree of values: each section, its keys, and what they may be.

Every table is strict: a key that is not listed is an error, and a number in quotes is no number.
Relative paths are relative to the folder of the file, which validation gets as its context.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from dicomnode import matcher
from dicomnode.config import url
from dicomnode.config.keyword import known_keyword
from dicomnode.job import Priority
from dicomnode.matcher import Matcher

#: Key of the validation context: the folder that relative paths start from.
FOLDER = "folder"

# PS3.5 Table 6.2-1, AE: at most 16 characters of the default repertoire, without the backslash
# and control characters, and not spaces alone. Spaces at either end have no meaning.
_AE_TITLE_MAX_LENGTH = 16
_AE_TITLE = re.compile(r"[ -\[\]-~]+", re.ASCII)
_DEVICE = re.compile(r"auto|cpu|cuda:(0|[1-9][0-9]*)", re.ASCII)
_MAX_PORT = 65535


def _ae_title(value: str) -> str:
    title = value.strip(" ")
    if not title or len(title) > _AE_TITLE_MAX_LENGTH or not _AE_TITLE.fullmatch(title):
        raise ValueError(
            f"an AE title has 1 to {_AE_TITLE_MAX_LENGTH} plain ASCII characters, "
            "no backslash, and not only spaces"
        )
    return title


def _anchored(value: object, info: ValidationInfo) -> object:
    """The path `value`, absolute; what is no text is left for the strict check of its type."""
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text or "\0" in text or text.startswith("~"):
        raise ValueError("expects a path, absolute or relative to this file; ~ is not expanded")
    return _from_folder(Path(text), info)


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    folder: Path | None = (info.context or {}).get(FOLDER)
    if folder is None and not path.is_absolute():
        raise ValueError("a relative path means something only in a file")
    return path if folder is None else folder / path


def _host(value: str) -> str:
    # One colon makes it host:port; an IPv6 address has several.
    if re.search(r"[\s/@\0]", value) or value.count(":") == 1 or not _is_resolvable(value):
        raise ValueError("expects the name or the address of a machine alone, such as 10.0.0.5")
    return value


def _is_resolvable(host: str) -> bool:
    """Whether Python could ask for its address; it raises on "a..b" otherwise than on a typo."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError('expects "auto", "cpu", or one GPU by its number such as "cuda:0"')
    return value


AETitle = Annotated[
    str,
    AfterValidator(_ae_title),
    Field(json_schema_extra={"minLength": 1, "maxLength": _AE_TITLE_MAX_LENGTH}),
]
AnchoredPath = Annotated[Path, BeforeValidator(_anchored)]
Host = Annotated[str, AfterValidator(_host)]
Keyword = Annotated[str, AfterValidator(known_keyword)]
# As long as the columns that keep them.
Name = Annotated[str, Field(min_length=1, max_length=64)]
RuleName = Annotated[str, Field(min_length=1, max_length=128)]
Port = Annotated[int, Field(ge=1, le=_MAX_PORT)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Clause = Annotated[
    InstanceOf[Matcher],
    BeforeValidator(matcher.parse),
    WithJsonSchema({"type": ["string", "number", "array", "object"]}),
]
#: DICOM keyword → what its value must be. All clauses must hold.
Clauses = Annotated[dict[Keyword, Clause], Field(min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        use_attribute_docstrings=True,
        field_title_generator=lambda key, _: key,
    )


class Node(_Table):
    """Who the node is and where it keeps what it has."""

    ae_title: AETitle = "DICOMNODE"
    """AE title of the node: what scanners and the PACS call it, and what it calls itself."""
    data_dir: AnchoredPath = Path("data")
    """Folder of the received instances, the results and the embedded database."""


class Listen(_Table):
    """Where the node receives, and from whom."""

    host: Host = "0.0.0.0"  # noqa: S104 - a receiver is there to be reached
    """Address to listen on; 0.0.0.0 is every address of the machine."""
    port: Annotated[int, Field(ge=0, le=_MAX_PORT)] = 11112
    """TCP port; 0 lets the system pick a free one."""
    processes: Count = 1
    """Number of listeners that share the port; more than one is yet to come."""
    accept_unknown_peers: bool = False
    """Whether anyone may associate; otherwise only the peers below."""


class Database(_Table):
    """Where the rows are."""

    # Stands before `url`, which takes the password in.
    password_file: AnchoredPath | None = None
    """File with the password of the PostgreSQL user, and nothing else."""
    url: Annotated[str, Field(repr=False)] = "sqlite:///data/node.db"
    """sqlite:///PATH, or postgresql+psycopg://USER@HOST/NAME."""

    @field_validator("url")
    @classmethod
    def _complete(cls, value: str, info: ValidationInfo) -> str:
        return url.database(
            value,
            absolute=lambda path: _from_folder(path, info),
            password_file=_password_file(info),
        )


class Queue(_Table):
    """What carries the hints from the dispatcher to the workers."""

    # Stands before `broker`, which takes the password in.
    password_file: AnchoredPath | None = None
    """File with the password of the Redis user, and nothing else."""
    broker: Annotated[str, Field(repr=False)] = "memory://"
    """memory:// within one process, or redis://HOST:PORT/NUMBER."""

    @field_validator("broker")
    @classmethod
    def _complete(cls, value: str, info: ValidationInfo) -> str:
        return url.broker(value, password_file=_password_file(info))


def _password_file(info: ValidationInfo) -> Path | None:
    """The file named beside the URL; a fault in that key is reported there."""
    file: Path | None = info.data.get("password_file")
    return file


class Worker(_Table):
    """How models run."""

    device: Annotated[str, AfterValidator(_device)] = "auto"
    """auto, cpu, or cuda:0; a named device that is absent refuses to start."""
    slots: Count = 1
    """Number of models that run at once on this machine."""
    timeout_s: Positive = 600.0
    """Longest time in seconds that one run of a model may take; then it is killed."""
    lease_s: Positive = 15.0
    """Seconds without a sign of life after which a job goes back to pending."""
    attempts: Count = 3
    """Number of times that a job is begun before it is parked as failed."""


class Complete(_Table):
    """When a study is taken for complete."""

    settle_s: NotNegative = 2.0
    """Seconds after an association that ended in order and left every series without a gap."""
    quiet_s: NotNegative = 30.0
    """Otherwise: seconds without a new instance."""


class Deliver(_Table):
    """How results are sent when a destination does not answer."""

    retry_s: Positive = 5.0
    """Seconds before the second attempt; each wait after it is twice the one before."""
    retry_max_s: Positive = 600.0
    """Longest wait in seconds between two attempts."""


class Peer(_Table):
    """Another application entity: it sends to the node, gets its results, or both."""

    ae_title: AETitle
    """AE title of the peer."""
    host: Host
    """Its name or address."""
    port: Port | None = None
    """Its TCP port; needed to send results there."""
    confirm: Literal["find", "none"] = "find"
    """How a delivery is confirmed: by asking for the objects with C-FIND, or not at all."""


class Model(_Table):
    """A MONAI bundle."""

    bundle: AnchoredPath
    """Folder of the bundle."""
    manifest: AnchoredPath | None = None
    """Its manifest, where that is not dicom.toml in the bundle's folder."""


class Route(_Table):
    """A rule: which series go through which model, and where the answer goes.

    Exactly one of `series` and `inputs` is given.
    """

    name: RuleName
    """What the rule is called in the journal and on the web page."""
    model: Name
    """Name of a model below [models]."""
    series: Clauses | None = None
    """What a series must be, for a model of one input: DICOM keyword → value."""
    inputs: Annotated[dict[str, Clauses], Field(min_length=1)] | None = None
    """The same for a model of several inputs: input → DICOM keyword → value."""
    send_to: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
    """Names of the peers below [peers] that get the results."""
    priority: Annotated[Priority, Field(strict=False)] = Priority.ROUTINE
    """routine, or stat: these jobs run first."""


class Configuration(_Table):
    """Everything that the node is told. See `read` and `load`."""

    node: Node
    listen: Listen
    database: Database
    queue: Queue
    worker: Worker
    complete: Complete
    deliver: Deliver
    peers: dict[str, Peer]
    """Name → peer."""
    models: dict[str, Model]
    """Name → model."""
    routes: tuple[Route, ...]
    """The rules; each is asked for each study."""


#: Sections that are one table.
SECTIONS: dict[str, type[BaseModel]] = {
    "node": Node,
    "listen": Listen,
    "database": Database,
    "queue": Queue,
    "worker": Worker,
    "complete": Complete,
    "deliver": Deliver,
}
#: Sections that hold many tables of one kind.
COLLECTIONS: dict[str, type[BaseModel]] = {"peers": Peer, "models": Model, "routes": Route}


def json_schema() -> dict[str, Any]:
    """The JSON schema of the configuration file, for editors and other programs."""
    schema = Configuration.model_json_schema()
    # `read` fills in a section that is left out; in the tree none is missing.
    del schema["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
