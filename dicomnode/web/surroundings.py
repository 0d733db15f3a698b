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
from dicomnode.reload import Reload


@dataclass(kw_only=True)
class Surroundings:
    """The surroundings of one page. What is in force may change between two looks.

    Attributes:
        configuration: What is in force.
        file: Where it was read from.
        bundles: Model → its bundle, or what is wrong with it.
        is_listening: Whether DICOM is received.
        clock: Seconds since the epoch.
        reload: Brings what the file says into force; `None` where nobody can.
        ending: Set when the page is to end.
    """

    configuration: Configuration = field(repr=False)
    file: Path
    database: Database
    bundles: Mapping[str, Bundle | NodeError] = field(repr=False)
    is_listening: Callable[[], bool]
    clock: Callable[[], float]
    reload: Reload | None = None
    ending: threading.Event = field(default_factory=threading.Event)

    def change(
        self, configuration: Configuration, bundles: Mapping[str, Bundle | NodeError]
    ) -> None:
        """Go by another configuration from now on."""
        self.configuration, self.bundles = configuration, bundles

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
        """Whether browsers reach the page over TLS: its own, or that of a proxy before it."""
        web = self.configuration.web
        return web.certificate is not None or (web.public_url or "").startswith("https:")


def of(connection: HTTPConnection) -> Surroundings:
    """The surroundings of the page that was asked."""
    found: Surroundings = connection.app.state.surroundings
    return found
