"""The configuration: one TOML file, its overrides in the environment, and a frozen tree of values.

`load` gives the tree or refuses with every problem; `read` gives the problems and whatever could
be understood beside them. Nothing else in the project reads the environment.
"""

from dicomnode.config.alerts import Alerts, Email, Webhook, secret, web_url
from dicomnode.config.audit import Audit
from dicomnode.config.difference import Change, When, difference, digest, in_force
from dicomnode.config.keyword import PSEUDO_KEYWORDS
from dicomnode.config.oidc import Oidc
from dicomnode.config.peer import Address, Endpoint, Peer, Results
from dicomnode.config.problem import Problem, did_you_mean, key_path
from dicomnode.config.raw import tables
from dicomnode.config.reading import ConfigurationError, Parts, Reading, load, read
from dicomnode.config.starter import FILE_NAME, starter, write_starter
from dicomnode.config.tree import (
    Complete,
    Configuration,
    Database,
    Deliver,
    Disk,
    Listen,
    Model,
    Node,
    Queue,
    Route,
    Tls,
    Web,
    Worker,
    json_schema,
)
from dicomnode.config.url import is_loopback, masked, sqlite_file

__all__ = [
    "FILE_NAME",
    "PSEUDO_KEYWORDS",
    "Address",
    "Alerts",
    "Audit",
    "Change",
    "Complete",
    "Configuration",
    "ConfigurationError",
    "Database",
    "Deliver",
    "Disk",
    "Email",
    "Endpoint",
    "Listen",
    "Model",
    "Node",
    "Oidc",
    "Parts",
    "Peer",
    "Problem",
    "Queue",
    "Reading",
    "Results",
    "Route",
    "Tls",
    "Web",
    "Webhook",
    "When",
    "Worker",
    "did_you_mean",
    "difference",
    "digest",
    "in_force",
    "is_loopback",
    "json_schema",
    "key_path",
    "load",
    "masked",
    "read",
    "secret",
    "sqlite_file",
    "starter",
    "tables",
    "web_url",
    "write_starter",
]
