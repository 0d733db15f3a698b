"""The listener processes as the node sees them: sockets, facts, and what becomes of the dead.

The node listens; its listeners accept, all from the same sockets. So a connection that is made
while a listener is down waits for another one, and none is refused.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from dicomnode import log
from dicomnode.archive.arrival import Arrival
from dicomnode.config import Configuration
from dicomnode.errors import Misconfigured
from dicomnode.network.serving import listener
from dicomnode.network.serving.keeper import Child, Keeper, widen
from dicomnode.network.serving.listener import Sockets
from dicomnode.network.serving.listener_process import ListenerSettings
from dicomnode.network.serving.places import Counts, columns

_log = log.get(__name__)

_COMMAND = (sys.executable, "-m", "dicomnode.network.serving.listener_process")
_STOP_S = 30.0
_CHANGE_S = 10.0
# Peers that may be added while the node runs; each keeps its column in the table of places.
_SPARE = 512


class Listeners:
    """Receives DICOM objects in processes of their own. `start`, then `stop`.

    The facts of each listener are reported in their order; those of several come as they come. An
    association whose listener died is reported as ended, `UNKNOWN`, after all that was known of it.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        report: Callable[[Arrival], None],
        clock: Callable[[], float],
        inherit: Sequence[int] = (),
        mend: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            configuration: What the listeners are told.
            report: Takes a fact; called from one thread for each listener. It must not raise.
            clock: Seconds since the epoch.
            inherit: Descriptors that each listener holds as long as it lives.
            mend: Called when a listener has died, before there is another: removes what it left
                unfinished. It must not raise.
        """
        self._configuration = configuration
        self._report = report
        self._clock = clock
        self._inherit = tuple(inherit)
        self._mend = mend
        self._sockets: Sockets | None = None
        self._counts: Counts | None = None
        self._keepers: list[Keeper] = []
        self._column = columns(configuration.peers)
        self._width = len(self._column) + _SPARE
        self._serial = 0

    @property
    def port(self) -> int:
        """The port for plain associations."""
        return int(self._bound().plain.getsockname()[1])

    @property
    def secure_port(self) -> int | None:
        """The port for associations over TLS; `None` where they are not taken."""
        secure = self._bound().secure
        return None if secure is None else int(secure.getsockname()[1])

    @property
    def is_alive(self) -> bool:
        """Whether some listener takes associations now."""
        return any(keeper.is_alive for keeper in self._keepers)

    def _bound(self) -> Sockets:
        if self._sockets is None:
            raise RuntimeError("the listeners have not been started")
        return self._sockets

    def start(self) -> None:
        """Listen; returns when every listener accepts connections.

        Raises:
            Misconfigured: `cannot-listen` where an address or a port is not to be had, or what a
                listener says.
            Failed: `listener-did-not-start`.
        """
        self._sockets = _bind(self._configuration)
        listen = self._configuration.listen
        self._counts = Counts.create(rows=listen.processes, columns=self._width)
        self._keepers = [
            Keeper(
                number,
                launch=self._launch,
                report=self._report,
                clock=self._clock,
                clear_up=self._clear_up,
            )
            for number in range(listen.processes)
        ]
        for keeper in self._keepers:
            keeper.start()
        for keeper in self._keepers:
            keeper.wait_until_ready()

    def require_room(self, peers: Iterable[str]) -> None:
        """Make sure that so many peers can be told apart, those of earlier changes among them.

        Raises:
            Misconfigured: `too-many-new-peers`.
        """
        if len(columns(peers, known=self._column)) > self._width:
            raise Misconfigured(
                "too-many-new-peers",
                f"More than {_SPARE} peers were added since the node started: restart it.",
            )

    def change(self, configuration: Configuration) -> bool:
        """Let another configuration hold for the associations that begin from now on.

        Those that are open go on. What is told at the start alone must be as it was
        (`config.in_force`), and there must be room (`require_room`).

        Returns:
            Whether every listener has taken it up; one that does not answer is logged.
        """
        self._column = columns(configuration.peers, known=self._column)
        self._configuration, self._serial = configuration, self._serial + 1
        for keeper in self._keepers:
            keeper.change(self._renewed)
        until = time.monotonic() + _CHANGE_S
        behind = [one for one in self._keepers if not one.has_taken_up(self._serial, until=until)]
        for keeper in behind:
            _log.error("listener has not taken the change up", process=keeper.name)
        return not behind

    def _renewed(self, told: ListenerSettings) -> ListenerSettings:
        configuration = self._configuration
        return told.model_copy(
            update={
                "listen": configuration.listen,
                "tls": configuration.tls,
                "disk": configuration.disk,
                "peers": configuration.peers,
                "column": self._column,
                "serial": self._serial,
            }
        )

    def stop(self) -> None:
        """Accept no more and end the open associations.

        When it returns, no listener is left, and all that they had to say has been reported.
        """
        for keeper in self._keepers:
            keeper.ask_to_stop()
        if self._sockets is not None:
            for one in (self._sockets.plain, self._sockets.secure):
                if one is not None:
                    one.close()
        until = time.monotonic() + _STOP_S
        for keeper in self._keepers:
            keeper.stop(until=until)
        counts, self._counts = self._counts, None
        if counts is not None:
            counts.close()

    def _clear_up(self, number: int) -> None:
        """Clear up after a listener that is dead."""
        if self._counts is not None:
            self._counts.clear(number)
        self._mend()

    def _launch(self, number: int) -> Child:
        """Start the process of a listener."""
        # The serial comes first: what is read behind it is at least as new (`change`).
        serial, configuration, sockets = self._serial, self._configuration, self._bound()
        assert self._counts is not None  # noqa: S101 - made together with the sockets
        secure = None if sockets.secure is None else sockets.secure.fileno()
        facts, writing = os.pipe()
        widen(writing)
        settings = ListenerSettings(
            node=configuration.node,
            listen=configuration.listen,
            tls=configuration.tls,
            disk=configuration.disk,
            peers=configuration.peers,
            database_url=configuration.database.url,
            log_style=log.style(),
            number=number,
            node_pid=os.getpid(),
            plain=sockets.plain.fileno(),
            secure=secure,
            facts=writing,
            places=self._counts.descriptor,
            width=self._width,
            column=self._column,
            serial=serial,
        )
        descriptors = (settings.plain, settings.secure, writing, settings.places, *self._inherit)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own command
                _COMMAND,
                bufsize=0,
                stdin=subprocess.PIPE,
                pass_fds=[one for one in descriptors if one is not None],
                # Ctrl-C reaches the node alone, which ends its listeners in order.
                start_new_session=True,
            )
        except OSError:
            os.close(facts)
            raise
        finally:
            os.close(writing)
        return Child(process, facts=io.FileIO(facts), settings=settings)


def _bind(configuration: Configuration) -> Sockets:
    """The sockets that listen; connections wait from now on."""
    listen, secure_port = configuration.listen, configuration.tls.port
    plain = listener.bind(listen.host, listen.port)
    if secure_port is None:
        return Sockets(plain=plain)
    try:
        return Sockets(plain=plain, secure=listener.bind(listen.host, secure_port))
    except Misconfigured:
        plain.close()
        raise
