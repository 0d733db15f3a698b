"""The listener processes as the node sees them: sockets, facts, and what becomes of the dead.

The node listens; its listeners accept, all from the same sockets. So a connection that is made
while a listener is down waits for another one, and none is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from dicomnode import log
from dicomnode.archive import arrival
from dicomnode.archive.arrival import Arrival
from dicomnode.config import Configuration
from dicomnode.errors import Failed, Misconfigured
from dicomnode.network.serving import listener, listener_process
from dicomnode.network.serving.ledger import Ledger
from dicomnode.network.serving.listener import Sockets
from dicomnode.network.serving.listener_process import ListenerSettings
from dicomnode.network.serving.places import Counts, columns

_log = log.get(__name__)

_COMMAND = (sys.executable, "-m", "dicomnode.network.serving.listener_process")
# Some thousands of facts. Without a privilege the kernel gives no more than this.
_PIPE_BYTES = 2**20
_HANDFUL_S = 0.01
_START_S = 60.0
_STOP_S = 30.0
_END_S = 5.0
_BACKOFF_S = (0.2, 1.0, 5.0, 15.0, 30.0)
# After so long without a fault a listener counts as healthy again.
_HEALTHY_S = 60.0


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
        self._keepers: list[_Keeper] = []

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
        listen, peers = self._configuration.listen, self._configuration.peers
        self._counts = Counts.create(rows=listen.processes, columns=len(columns(peers)))
        self._keepers = [
            _Keeper(
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

    def _launch(self, number: int) -> _Child:
        """Start the process of a listener."""
        configuration, sockets = self._configuration, self._bound()
        assert self._counts is not None  # noqa: S101 - made together with the sockets
        secure = None if sockets.secure is None else sockets.secure.fileno()
        facts, writing = os.pipe()
        with contextlib.suppress(OSError):  # then it is as long as the kernel likes
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
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
        return _Child(process, facts=io.FileIO(facts), settings=settings)


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


class _Child:
    """The process of a listener, told what it has to know, and the pipe of its facts."""

    def __init__(
        self, process: subprocess.Popen[bytes], *, facts: io.FileIO, settings: ListenerSettings
    ) -> None:
        self._process = process
        self._facts = facts
        assert process.stdin is not None  # noqa: S101 - it was asked for
        self._stdin = process.stdin
        # One that has died already is seen by the end of its facts.
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(settings.to_json())

    def lines(self) -> Iterator[bytes]:
        """What it says, until it is dead.

        What it had not finished to say then is left out: it was waited for, so that nothing was
        acknowledged that depends on it.
        """
        begun = b""
        while said := self._facts.read(_PIPE_BYTES):
            *lines, begun = (begun + said).split(b"\n")
            yield from lines
            # Each waking takes a core from those who receive: facts come in handfuls.
            time.sleep(_HANDFUL_S)

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask it to end in order."""
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def bury(self) -> int:
        """Make sure that it is dead; returns its exit code."""
        self._stdin.close()
        self._facts.close()
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class _Keeper:
    """Keeps one listener running, in a thread of its own, which reads what it says.

    The kernel ends a listener when the thread that started it ends, so that none stays unread.
    """

    def __init__(
        self,
        number: int,
        *,
        launch: Callable[[int], _Child],
        report: Callable[[Arrival], None],
        clock: Callable[[], float],
        clear_up: Callable[[int], None],
    ) -> None:
        self._number = number
        self._launch = launch
        self._report = report
        self._clock = clock
        self._clear_up = clear_up
        self._ready: Future[None] = Future()
        self._stopping = threading.Event()
        self._changing = threading.Lock()  # it is not started and told to stop at the same time
        self._child: _Child | None = None
        self._thread = threading.Thread(target=self._keep, name=self._name, daemon=True)

    @property
    def _name(self) -> str:
        return f"listener {self._number + 1}"

    @property
    def is_alive(self) -> bool:
        """Whether its process is there, and it has ever accepted connections."""
        child = self._child
        return child is not None and self._ready.done() and child.is_alive

    def start(self) -> None:
        """Start the listener; returns at once."""
        self._thread.start()

    def wait_until_ready(self) -> None:
        """Return once the listener accepts connections for the first time.

        Raises:
            Misconfigured: What the listener says.
            Failed: `listener-did-not-start`.
        """
        try:
            self._ready.result(_START_S)
        except TimeoutError as error:
            raise _did_not_start(f"not within {_START_S:.0f} s") from error

    def ask_to_stop(self) -> None:
        """Tell the listener to end its associations, and start no other."""
        with self._changing:
            self._stopping.set()
            if self._child is not None:
                self._child.terminate()

    def stop(self, *, until: float) -> None:
        """Return when it has stopped and all it said is reported; kill it when the time is over."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive() and self._child is not None:
            _log.error("listener does not end", process=self._name)
            self._child.kill()
            self._thread.join(_END_S)

    def _keep(self) -> None:
        faults = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._live()
            if self._stopping.is_set() or not self._has_started():
                return
            faults = 0 if time.monotonic() - began > _HEALTHY_S else faults
            delay_s = _BACKOFF_S[min(faults, len(_BACKOFF_S) - 1)]
            faults += 1
            _log.error("listener died", process=self._name, exit_code=code, delay_s=delay_s)
            self._stopping.wait(delay_s)

    def _has_started(self) -> bool:
        """Whether it ever accepted connections. Before, `start` is told what is in the way."""
        if not self._ready.done():
            self._ready.set_exception(_did_not_start("see the log"))
        return self._ready.exception() is None

    def _live(self) -> int | None:
        """One life of the listener, from its start to the last of its facts.

        The edge of this thread: whatever goes wrong with this one, another is started.

        Returns:
            Its exit code; `None` where there was none.
        """
        ledger = Ledger()
        try:
            with self._changing:
                self._child = None
                if self._stopping.is_set():
                    return None
                self._child = self._launch(self._number)
            for line in self._child.lines():
                self._hear(line, ledger)
        except Exception:  # noqa: BLE001 - see above
            _log.exception("listener lost", process=self._name)
        return self._bury(ledger)

    def _bury(self, ledger: Ledger) -> int | None:
        code = None if self._child is None else self._child.bury()
        self._clear_up(self._number)
        for ended in ledger.unended(at=self._clock()):
            self._report(ended)
        return code

    def _hear(self, line: bytes, ledger: Ledger) -> None:
        """Take a line. One that says nothing ends the listener, and not the lines behind it."""
        try:
            self._take(line, ledger)
        except Exception:  # noqa: BLE001 - what was acknowledged may be in the next line
            _log.exception("listener not understood", process=self._name)
            if self._child is not None:
                self._child.kill()

    def _take(self, line: bytes, ledger: Ledger) -> None:
        if listener_process.is_answer(line):
            self._answered(listener_process.answer(line))
            return
        fact = arrival.decode(line)
        ledger.note(fact)
        self._report(fact)

    def _answered(self, fault: Misconfigured | None) -> None:
        """Take note of how the start of the listener went."""
        if self._ready.done():
            if fault is not None:
                _log.error("listener misconfigured", reason=fault.reason, detail=fault.detail)
        elif fault is None:
            self._ready.set_result(None)
        else:
            self._ready.set_exception(fault)


def _did_not_start(why: str) -> Failed:
    return Failed("listener-did-not-start", f"A listener process did not start: {why}.")
