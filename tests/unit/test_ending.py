"""The end is told by signals and threads at once, and always heard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from dicomnode.ending import Ending

ROOT = Path(__file__).resolve().parents[2]

STORM = """
import os, signal, threading
from dicomnode.ending import Ending

for _ in range(300):
    end = Ending()
    end.on_signals()
    threading.Thread(target=end.tell).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        threading.Thread(target=os.kill, args=[os.getpid(), number]).start()
    assert end.wait()
print("heard")
"""


def test_what_is_told_is_heard_before_and_after() -> None:
    end = Ending()
    assert not end.is_told
    assert not end.wait(0.01)
    threading.Timer(0.05, end.tell).start()
    assert end.wait(30)
    assert end.wait()
    assert end.is_told


def test_signals_and_threads_together_are_heard() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORM],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "heard\n", done.stderr


def test_the_usual_handlers_stay_until_asked() -> None:
    before = signal.getsignal(signal.SIGTERM)
    Ending()
    assert signal.getsignal(signal.SIGTERM) is before
