"""What a page finds around it: the configuration, the database, the bundles, the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import HTTPConnection

from dicomnode.archive.database import Database
from dicomnode.bundle import Bundle
from dicomnode.config import Configuration
from dicomnode.errors import NodeError


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The surroundings of one page.

    Attributes:
        configuration: What is in force.
        file: Where it was read from.
        bundles: Model → its bundle, or what is wrong with it.
        is_listening: Whether DICOM is received.
        clock: Seconds since the epoch.
        ending: Set when the page is to end.
    """

    configuration: Configuration = field(repr=False)
    file: Path
    database: Database
    bundles: Mapping[str, Bundle | NodeError] = field(repr=False)
    is_listening: Callable[[], bool]
    clock: Callable[[], float]
    ending: threading.Event = field(default_factory=threading.Event)

    @property
    def data_dir(self) -> Path:
        """Where everything lies that is kept."""
        return self.configuration.node.data_dir

    @property
    def models(self) -> dict[str, Bundle]:
        """The bundles that can be run."""
        return {name: one for name, one in self.bundles.items() if isinstance(one, Bundle)}

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach the page over TLS."""
        return self.configuration.web.certificate is not None


def of(connection: HTTPConnection) -> Surroundings:
    """The surroundings of the page that was asked."""
    found: Surroundings = connection.app.state.surroundings
    return found
