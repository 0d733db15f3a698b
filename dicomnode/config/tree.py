"""The configuration as a frozen tree of values: each section, its keys, and what they may be.

Every table is strict: a key that is not listed is an error, and a number in quotes is no number.
Relative paths are relative to the folder of the file, which validation gets as its context.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from dicomnode.config import url
from dicomnode.config.alerts import Alerts
from dicomnode.config.audit import Audit
from dicomnode.config.oidc import Oidc
from dicomnode.config.peer import Peer
from dicomnode.config.table import Table
from dicomnode.config.values import (
    AETitle,
    AnchoredPath,
    Clauses,
    Count,
    Device,
    Host,
    ListeningPort,
    Name,
    NotNegative,
    Positive,
    RuleName,
    from_folder,
)
from dicomnode.job import Priority


class Node(Table):
    """Who the node is and where it keeps what it has."""

    ae_title: AETitle = "DICOMNODE"
    """AE title of the node: what scanners and the PACS call it, and what it calls itself."""
    data_dir: AnchoredPath = Path("data")
    """Folder of the received instances, the results and the embedded database."""


class Listen(Table):
    """Where the node receives, and from whom."""

    host: Host = "0.0.0.0"  # noqa: S104 - a receiver is there to be reached
    """Address to listen on; 0.0.0.0 is every address of the machine."""
    port: ListeningPort = 11112
    """TCP port; 0 lets the system pick a free one."""
    processes: Count = 1
    """Number of listener processes that share the port."""
    reactor: Literal["streaming", "stock"] = "streaming"
    """How associations are served: by the node itself, or by pynetdicom, which is slower."""
    accept_unknown_peers: bool = False
    """Whether anyone may associate; otherwise only the peers below."""
    max_associations: Count = 256
    """Number of associations that may be open at once, over all listener processes."""
    max_associations_per_peer: Count = 64
    """The same for one peer; all unknown peers together count as one."""
    max_pdu_kib: Annotated[int, Field(ge=4, le=1024)] = 128
    """Longest PDU in KiB: what the node announces, and takes."""
    max_instance_gib: Positive = 8.0
    """Longest instance in GiB; a longer one is refused."""
    idle_s: Positive = 300.0
    """Seconds without a byte after which an association is aborted."""


class Tls(Table):
    """Secure associations (PS3.15 B.12): those taken, on a port of their own, and those asked for.

    The files are PEM. They may be replaced while the node runs: the next association uses them.
    """

    port: ListeningPort | None = None
    """TCP port for secure associations; left out, none are taken. 0 lets the system pick one."""
    certificate: AnchoredPath | None = None
    """File with the certificate of the node, then those that lead to its issuer."""
    key: AnchoredPath | None = None
    """File with the private key of that certificate."""
    key_password_file: AnchoredPath | None = None
    """File with the password of the key, and nothing else."""
    ca: AnchoredPath | None = None
    """File with the certificates of who signs the peers'; left out, peers that the node calls are
    checked against those that the system trusts."""
    client_certificates: Literal["required", "none"] = "required"
    """Whether who calls on the secure port must show a certificate signed by `ca`."""


class Database(Table):
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
            absolute=lambda path: from_folder(path, info),
            password_file=_password_file(info),
        )


class Queue(Table):
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


class Disk(Table):
    """How much room is left on the disk of `data_dir`, and how it is kept free."""

    min_free_gib: NotNegative = 2.0
    """Free space in GiB below which new studies are refused; those that have begun go on. 0, with a
    floor of 0, is no limit."""
    floor_gib: NotNegative = 0.5
    """Free space in GiB below which everything is refused."""
    keep_delivered_days: Positive | None = None
    """Days after which a study is removed whose results are all delivered and which nothing more is
    to come of; left out, nothing ever is. Kept are a study that no rule applied to, and one about
    which a peer was answered a storage commitment."""


class Worker(Table):
    """How models run."""

    device: Device = "auto"
    """auto, cpu, or cuda:0; a named device that is absent refuses to start."""
    slots: Count = 1
    """Number of models that run at once on this machine."""
    timeout_s: Positive = 600.0
    """Longest time in seconds that one run of a model may take; then it is killed."""
    lease_s: Positive = 15.0
    """Seconds without a sign of life after which a job goes back to pending."""
    attempts: Count = 3
    """Number of times that a job is begun before it is parked as failed."""
    memory_gib: Positive | None = None
    """Memory in GiB that one slot may take on the CPU; left out, four fifths of the machine's,
    shared by the slots. A model that wants more ends its job, and not the worker."""
    model_memory_gib: Positive | None = None
    """Memory in GiB that models kept warm may hold on the device, for one slot; left out, half of
    what is free when the first is loaded."""
    cpu_when_full: bool = False
    """Whether a model for which the GPU is too small may run on the CPU, slowly."""


class Complete(Table):
    """When a study is taken for complete."""

    settle_s: NotNegative = 2.0
    """Seconds after an association that ended in order and left every series without a gap."""
    quiet_s: NotNegative = 30.0
    """Otherwise: seconds without an instance. Who repeats prolongs it, up to eleven times."""


class Deliver(Table):
    """How results are sent when a destination does not answer."""

    retry_s: Positive = 5.0
    """Seconds before the second attempt; each wait after it is twice the one before."""
    retry_max_s: Positive = 600.0
    """Longest wait in seconds between two attempts."""
    commitment_s: Positive = 120.0
    """Seconds after which a storage commitment that is not answered is asked for again; each such
    wait is twice the one before, up to an hour."""


class Web(Table):
    """The administrator's page."""

    port: ListeningPort | None = None
    """TCP port of the page; left out, there is none. 0 lets the system pick a free one."""
    host: Host = "127.0.0.1"
    """Address to listen on; this one is reached from the machine itself alone."""
    certificate: AnchoredPath | None = None
    """File with the certificate of the page, PEM, then those that lead to its issuer; left out, the
    page speaks plain HTTP."""
    key: AnchoredPath | None = None
    """File with the private key of that certificate, PEM, without a password."""
    public_url: Annotated[str, AfterValidator(url.public)] | None = None
    """Address that browsers know the page by, such as https://node.example; needed for [oidc]. With
    https, cookies are sent over TLS alone."""
    session_hours: Positive = 12.0
    """Hours after which who has signed in must do so again."""


class Model(Table):
    """A MONAI bundle."""

    bundle: AnchoredPath
    """Folder of the bundle."""
    manifest: AnchoredPath | None = None
    """Its manifest, where that is not dicom.toml in the bundle's folder."""


class Route(Table):
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


class Configuration(Table):
    """Everything that the node is told. See `read` and `load`."""

    node: Node
    listen: Listen
    tls: Tls
    database: Database
    disk: Disk
    queue: Queue
    worker: Worker
    complete: Complete
    deliver: Deliver
    web: Web
    oidc: Oidc
    alerts: Alerts
    audit: Audit
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
    "tls": Tls,
    "database": Database,
    "disk": Disk,
    "queue": Queue,
    "worker": Worker,
    "complete": Complete,
    "deliver": Deliver,
    "web": Web,
    "oidc": Oidc,
    "alerts": Alerts,
    "audit": Audit,
}
#: Sections that hold many tables of one kind.
COLLECTIONS: dict[str, type[BaseModel]] = {"peers": Peer, "models": Model, "routes": Route}


def keys(table: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a table as they are written in the file."""
    return {about.alias or name: about for name, about in table.model_fields.items()}


def below(table: type[BaseModel], key: str) -> type[BaseModel]:
    """The table that stands at `key` of another one; that one itself where no table does."""
    about = keys(table).get(key)
    inner = get_args(about.annotation) if about else ()
    return next((one for one in inner if isinstance(one, type) and issubclass(one, Table)), table)


def json_schema() -> dict[str, Any]:
    """The JSON schema of the configuration file, for editors and other programs."""
    schema = Configuration.model_json_schema()
    # `read` fills in a section that is left out; in the tree none is missing.
    del schema["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
