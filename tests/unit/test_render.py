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
        "alerts": [],
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


def test_how_full_a_gpu_is_stands_beside_it() -> None:
    worker = {"id": "gpu1:1", "requested": "auto", "slots": 1, "started_at": 0.0}
    memory = {"memory_used": 9 * 2**30, "memory_total": 80 * 2**30}
    assert "cuda:0 (auto), 9.0 of 80.0 GiB in use" in status(
        workers=[worker | memory | {"device": "cuda:0"}]
    )


def printed(part: Any) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(part)
    return captured.get()


def test_what_is_wrong_with_a_bundle_is_told_below_its_name() -> None:
    text = printed(
        render.models_check(
            [
                {
                    "name": "spleen",
                    "sound": False,
                    "detail": "",
                    "findings": [{"level": "error", "code": "package-missing", "message": "x"}],
                    "trial": None,
                }
            ]
        )
    )
    assert text.splitlines() == ["spleen: refused", "  error package-missing: x"]


def test_a_trial_tells_where_how_long_and_what_was_answered() -> None:
    ran = {
        "ran": True, "device": "cuda:0", "seconds": 1.234, "memory_bytes": 1024**3,
        "answers": [{"output": "pred", "kind": "label_map", "shape": [2, 3]}],
    }  # fmt: skip
    one = {"name": "a", "sound": True, "detail": "sha256 0", "findings": [], "trial": ran}
    text = printed(render.models_check([one]))
    assert "trial: ran on cuda:0 in 1.23 s, 1.0 GiB of memory" in text
    assert "pred: label_map 2 x 3" in text


@pytest.mark.parametrize(("guesses", "said"), [(["a"], "1 guess in"), (["a", "b"], "2 guesses in")])
def test_what_to_do_with_a_bundle_that_has_come_is_told_in_order(
    guesses: list[str], said: str
) -> None:
    document = {
        "name": "spleen", "path": "models/spleen", "version": "1", "digest": "0",
        "warnings": ["no hash"], "findings": [], "trial": None, "guesses": guesses,
    }  # fmt: skip
    text = printed(render.added(document))
    assert "warning: no hash" in text
    assert said in text
    assert text.index("1. Confirm") < text.index("2. dicomnode models lock models/spleen")
    assert "[models.spleen]" in text


def test_a_download_says_nothing_where_nobody_watches() -> None:
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured, render.download(console) as advance:
        advance(5, 10)
        advance(10, None)
    assert captured.get() == ""
