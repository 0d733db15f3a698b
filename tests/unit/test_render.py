"""What an administrator reads: documents as text."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from dicomnode import render


def status(**values: Any) -> str:
    counts = ("received", "delivered", "not_applicable", "failed", "in_progress")
    document = {
        "node": {"ae_title": "NODE", "listening_on": 104},
        "account": dict.fromkeys(counts, 0),
        "commitments_untold": 0,
        "workers": [],
        "studies": [],
        "refused": [],
    }
    console = Console(width=100)
    with console.capture() as captured:
        console.print(render.status(document | values))
    return captured.get()


@pytest.mark.parametrize("count", [0, 3])
def test_who_waits_for_the_answer_to_a_storage_commitment_is_counted(count: int) -> None:
    line = f"{count} storage commitments whose askers have not heard the answer yet"
    assert (line in status(commitments_untold=count)) == bool(count)
