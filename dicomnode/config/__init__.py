"""The configuration: one TOML file, its overrides in the environment, and a frozen tree of values.

`load` gives the tree or refuses with every problem; `read` gives the problems and whatever could
be understood beside them. Nothing else in the project reads the environment.
"""

from dicomnode.config.keyword import PSEUDO_KEYWORDS
from dicomnode.config.peer import Address, Endpoint, Peer, Results
from dicomnode.config.problem import Problem, did_you_mean, key_path
from dicomnode.config.reading import ConfigurationError, Parts, Reading, load, read
from dicomnode.config.sense import tables
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
from dicomnode.config.url import sqlite_file

__all__ = [
    "FILE_NAME",
    "PSEUDO_KEYWORDS",
    "Address",
    "Complete",
    "Configuration",
    "ConfigurationError",
    "Database",
    "Deliver",
    "Disk",
    "Endpoint",
    "Listen",
    "Model",
    "Node",
    "Parts",
    "Peer",
    "Problem",
    "Queue",
    "Reading",
    "Results",
    "Route",
    "Tls",
    "Web",
    "Worker",
    "did_you_mean",
    "json_schema",
    "key_path",
    "load",
    "read",
    "sqlite_file",
    "starter",
    "tables",
    "write_starter",
]
