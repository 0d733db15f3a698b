"""One listener process: started, heard, told of changes, and started again when it dies."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import IO

from dicomnode import log
from dicomnode.archive import arrival
from dicomnode.archive.arrival import Arrival
from dicomnode.errors import Failed, Misconfigured
from dicomnode.network.serving import listener_process
from dicomnode.network.serving.ledger import Ledger
from dicomnode.network.serving.listener_process import ListenerSettings
from dicomnode.pauses import Restarts

_log = log.get(__name__)

# Some thousands of facts. Without a privilege the kernel gives no more than this.
_PIPE_BYTES = 2**20
_HANDFUL_S = 0.01
_START_S = 60.0
# For a listener to read what it is told, should its pipe be full.
_TELL_S = 5.0
_END_S = 5.0


def widen(descriptor: int) -> None:
    """Let a pipe hold as much as the kernel gives, that who writes need not wait."""
    with contextlib.suppress(OSError):  # then it is as long as the kernel likes
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


class Child:
    """The process of a listener, told what it has to know, and the pipe of its facts."""

    def __init__(
        self, process: subprocess.Popen[bytes], *, facts: io.FileIO, settings: ListenerSettings
    ) -> None:
        self._process = process
        self._facts = facts
        self.settings = settings
        assert process.stdin is not None  # noqa: S101 - it was asked for
        self._stdin = process.stdin
        self._telling = threading.Lock()
        widen(self._stdin.fileno())
        os.set_blocking(self._stdin.fileno(), False)
        self.tell(settings, within_s=_START_S)  # it reads once it has loaded its modules

    def tell(self, settings: ListenerSettings, *, within_s: float) -> None:
        """Tell it what it has to know, at its start and whenever that changes.

        One that stands still and reads nothing is killed: who waits for it cannot end the node.
        """
        # One that has died already is seen by the end of its facts.
        with self._telling, contextlib.suppress(BrokenPipeError, ValueError):
            if not _is_written(self._stdin, settings.to_json(), within_s=within_s):
                _log.error("listener does not read", pid=self._process.pid)
                self.kill()

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
        with self._telling:  # what is told goes to no other file that has its number then
            self._stdin.close()
        self._facts.close()
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _is_written(pipe: IO[bytes], line: bytes, *, within_s: float) -> bool:
    """Write a line to a pipe that does not block; whether all of it was taken in time."""
    room, until = select.poll(), time.monotonic() + within_s
    room.register(pipe.fileno(), select.POLLOUT)
    left = memoryview(line)
    while left:
        left_s = until - time.monotonic()
        if left_s <= 0 or not room.poll(left_s * 1000):
            return False
        left = left[pipe.write(left) or 0 :]
    return True


class Keeper:
    """Keeps one listener running, in a thread of its own, which reads what it says.

    The kernel ends a listener when the thread that started it ends, so that none stays unread.
    """

    def __init__(
        self,
        number: int,
        *,
        launch: Callable[[int], Child],
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
        # It is not started and told something at the same time.
        self._changing = threading.Lock()
        self._told: ListenerSettings | None = None
        self._taken_up = threading.Condition()
        self._serial = 0
        self._child: Child | None = None
        self._thread = threading.Thread(target=self._keep, name=self.name, daemon=True)

    @property
    def name(self) -> str:
        """What the log calls it."""
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

    def change(self, settings_of: Callable[[ListenerSettings], ListenerSettings]) -> None:
        """Tell the listener of a change; one that is started from now on is told at its start.

        Args:
            settings_of: What to tell in place of what it was told.
        """
        with self._changing:
            if self._child is not None and self._told is not None:
                self._told = settings_of(self._told)
                self._child.tell(self._told, within_s=_TELL_S)

    def has_taken_up(self, serial: int, *, until: float) -> bool:
        """Whether it goes by a change, or is dead; waits for that until then (monotonic)."""
        with self._taken_up:
            self._taken_up.wait_for(
                lambda: self._serial >= serial or not self.is_alive,
                max(0.0, until - time.monotonic()),
            )
            return self._serial >= serial or not self.is_alive

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
            _log.error("listener does not end", process=self.name)
            self._child.kill()
            self._thread.join(_END_S)

    def _keep(self) -> None:
        restarts = Restarts()
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._live()
            if self._stopping.is_set() or not self._has_started():
                return
            delay_s = restarts.after(time.monotonic() - began)
            _log.error("listener died", process=self.name, exit_code=code, delay_s=delay_s)
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
                self._told = self._child.settings
                self._note(self._told.serial)  # it accepts nothing under any other
            for line in self._child.lines():
                self._hear(line, ledger)
        except Exception:  # noqa: BLE001 - see above
            _log.exception("listener lost", process=self.name)
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
            _log.exception("listener not understood", process=self.name)
            if self._child is not None:
                self._child.kill()

    def _take(self, line: bytes, ledger: Ledger) -> None:
        if listener_process.is_answer(line):
            serial = listener_process.serial_taken_up(line)
            if serial is None:
                self._answered(listener_process.answer(line))
            else:
                self._note(serial)
            return
        fact = arrival.decode(line)
        ledger.note(fact)
        self._report(fact)

    def _note(self, serial: int) -> None:
        with self._taken_up:
            self._serial = max(self._serial, serial)
            self._taken_up.notify_all()

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
