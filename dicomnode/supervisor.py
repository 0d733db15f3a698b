"""Keeps a few processes running: starts them, restarts what dies, ends them in order."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dicomnode import hangup, log
from dicomnode.ending import Ending
from dicomnode.hangup import Hangups
from dicomnode.pauses import Restarts

_log = log.get(__name__)

#: A process that ends with this code was told wrongly; starting it again would not help.
EXIT_MISCONFIGURED = 2

_POLL_S = 0.1
# How long a process may take to finish what it does after SIGTERM; then it is told to hand its work
# back (SIGQUIT), and at last killed.
_GRACE_S = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass(kw_only=True)
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes]
    started_at: float
    restarts: Restarts = field(default_factory=Restarts)
    restart_at: float | None = None
    was_restarted: bool = False


class Supervisor:
    """Runs commands until it is told to end; a SIGHUP is passed on to each."""

    def __init__(self, commands: Mapping[str, Sequence[str]]) -> None:
        self._commands = commands
        self._end = Ending()
        self._hangups = Hangups()
        self._exit_code = 0

    def run(self) -> int:
        """Run everything until SIGTERM or SIGINT, or until a process is misconfigured.

        Returns:
            The exit code: 0, or 2 when a process was misconfigured.
        """
        self._end.on_signals()
        children = [
            _Child(name=name, command=command, process=_start(command), started_at=time.monotonic())
            for name, command in self._commands.items()
        ]
        while not self._end.is_told:
            for child in children:
                self._look_after(child)
            if self._hangups.any():
                _pass_on(children)
            self._end.wait(_POLL_S)
        self._end_all(children)
        return self._exit_code

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.restart_at is not None:
            if now >= child.restart_at:
                child.process, child.started_at = _start(child.command), now
                child.restart_at, child.was_restarted = None, True
            return
        code = child.process.poll()
        if code is None:
            return
        # Once it has run, its configuration was good: what is missing now may come back, and the
        # others must not end with it.
        if code == EXIT_MISCONFIGURED and not child.was_restarted:
            self._exit_code = EXIT_MISCONFIGURED
            self._end.tell()
            return
        delay_s = child.restarts.after(now - child.started_at)
        child.restart_at = now + delay_s
        _log.error("process died", process=child.name, exit_code=code, delay_s=delay_s)

    def _end_all(self, children: Sequence[_Child]) -> None:
        running = [child.process for child in children]
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL):
            running = [process for process in running if process.poll() is None]
            for process in running:
                process.send_signal(number)
            _wait(running, until=time.monotonic() + _GRACE_S)


def _pass_on(children: Sequence[_Child]) -> None:
    """Let each process that runs look at its file; one that does not reads it when it starts."""
    for child in children:
        if child.restart_at is None:
            child.process.send_signal(signal.SIGHUP)


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the supervisor alone, which ends the others in order.
    return subprocess.Popen(  # noqa: S603 - our own commands
        command,
        start_new_session=True,
        preexec_fn=_before,  # noqa: PLW1509 - no threads yet
    )


def _before() -> None:
    """Let the kernel send SIGTERM when the supervisor is gone, however it went; keep a SIGHUP."""
    hangup.hold_back()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(processes: Sequence[subprocess.Popen[bytes]], *, until: float) -> None:
    for process in processes:
        try:
            process.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
