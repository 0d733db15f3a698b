"""What machines ask of the page, and the stream that says that something has changed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paged import FIRST, NOW, Pages, arrive, pages, sample

from dicomnode import __version__
from dicomnode.archive.asked import figures
from dicomnode.config import Disk
from dicomnode.web import live


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Pages]:
    with pages(tmp_path) as made:
        yield made


def numbers(web: Pages) -> dict[str, float]:
    """Each series of the metrics with its value."""
    text = web.browser().get("/metrics").text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_the_process_lives(web: Pages) -> None:
    assert web.browser().get("/healthz").json() == {"alive": True}


def test_a_node_that_can_receive_is_ready(web: Pages) -> None:
    answer = web.browser().get("/readyz")
    assert answer.status_code == 200
    document = answer.json()
    assert document["ready"]
    assert set(document["checks"]) == {"database", "listener", "disk"}


def test_a_node_without_a_listener_is_not_ready(web: Pages) -> None:
    web.listens = False
    answer = web.browser().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["listener"] == {"ok": False, "detail": "no listener is running"}


def test_a_node_with_a_full_disk_is_not_ready(web: Pages) -> None:
    configuration = web.here.configuration
    full = configuration.model_copy(update={"disk": Disk(floor_gib=1e6, min_free_gib=2e6)})
    object.__setattr__(web.here, "configuration", full)
    assert not web.browser().get("/readyz").json()["checks"]["disk"]["ok"]


def test_a_node_without_its_tables_is_not_ready(web: Pages, tmp_path: Path) -> None:
    from dicomnode.archive.database import Database

    object.__setattr__(web.here, "database", Database(f"sqlite:///{tmp_path}/none.db"))
    assert not web.browser().get("/readyz").json()["checks"]["database"]["ok"]


def test_the_numbers_are_those_of_the_database(web: Pages) -> None:
    sample(web.database, web.here.data_dir)
    found = numbers(web)
    studies = {
        outcome: found[f'dicomnode_studies{{outcome="{outcome}"}}']
        for outcome in ("delivered", "failed", "not_applicable", "in_progress")
    }
    assert studies == {"delivered": 2, "failed": 3, "not_applicable": 1, "in_progress": 4}
    assert found['dicomnode_jobs{state="delivered"}'] == 2
    assert found['dicomnode_jobs{state="superseded"}'] == 0
    assert found['dicomnode_queue_depth{queue="predict"}'] == 1
    assert found['dicomnode_queue_oldest_seconds{queue="predict"}'] > 3600
    assert found['dicomnode_associations_open{peer="mr1"}'] == 0
    assert found['dicomnode_associations_open{peer="unknown"}'] == 0
    assert found["dicomnode_received_instances_total"] == 187
    assert found["dicomnode_received_bytes_total"] == 187 * 52_000
    assert found["dicomnode_disk_free_bytes"] > 0
    assert found['dicomnode_deliveries{destination="pacs",state="confirmed"}'] == 2
    assert found['dicomnode_deliveries{destination="research",state="failed"}'] == 0
    assert found['dicomnode_workers{device="cuda:0"}'] == 1
    gpu = '{device="cuda:0",host="gpu1"}'
    assert found[f"dicomnode_gpu_memory_used_bytes{gpu}"] == 9 * 2**30
    assert found[f"dicomnode_gpu_memory_bytes{gpu}"] == 80 * 2**30
    assert found['dicomnode_workers{device="none"}'] == 1
    assert found["dicomnode_last_received_timestamp_seconds"] == pytest.approx(NOW - 3, abs=1)
    assert found[f'dicomnode_info{{version="{__version__}"}}'] == 1


def test_every_name_that_dashboards_rely_on_is_there(web: Pages) -> None:
    sample(web.database, web.here.data_dir, now=NOW + 1000)  # it ends after the page began
    names = {re.split(r"[{ ]", one)[0] for one in numbers(web)}
    assert names >= {
        "dicomnode_studies", "dicomnode_jobs", "dicomnode_job_stage_seconds_bucket",
        "dicomnode_job_stage_seconds_sum", "dicomnode_job_stage_seconds_count",
        "dicomnode_queue_depth", "dicomnode_queue_oldest_seconds", "dicomnode_associations_open",
        "dicomnode_received_instances_total", "dicomnode_received_bytes_total",
        "dicomnode_disk_free_bytes", "dicomnode_deliveries", "dicomnode_delivery_failures_total",
        "dicomnode_workers", "dicomnode_last_received_timestamp_seconds", "dicomnode_info",
    }  # fmt: skip


def test_stages_and_failures_are_counted_once(web: Pages) -> None:
    failures = 'dicomnode_delivery_failures_total{destination="pacs"}'
    assert numbers(web)[failures] == 0
    sample(web.database, web.here.data_dir, now=NOW + 1000)
    for _ in range(2):
        found = numbers(web)
        stage = 'dicomnode_job_stage_seconds_count{model="hippocampus",stage="infer"}'
        assert found[stage] == 1  # the others ended before the page began
        assert found[failures] == 1
    web.clock.now += 10_000
    assert numbers(web)[stage] == 1


def test_no_number_names_a_patient(web: Pages) -> None:
    sample(web.database, web.here.data_dir)
    text = web.browser().get("/metrics").text
    assert "Lindqvist" not in text
    assert FIRST not in text


def test_the_pulse_changes_with_what_happens_and_with_nothing_else(web: Pages) -> None:
    def pulse() -> str:
        with web.database.read() as tx:
            return figures.pulse(tx)

    first = pulse()
    assert pulse() == first
    with web.database.write() as tx:
        arrive(tx, "1.2.3", at=NOW)
    assert pulse() != first


def test_the_stream_says_that_something_has_changed_and_ends_with_the_page(
    web: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_EVERY_S", 0.01)
    pulse = live.Pulse(web.here)

    class Request:
        app: Any = web.application._inner

    async def listen() -> list[str]:
        said = []
        async for one in live._beats(Request(), pulse):  # type: ignore[arg-type]
            said.append(one)
            if len(said) == 1:
                with web.database.write() as tx:
                    arrive(tx, "1.2.3", at=NOW)
            else:
                web.here.ending.set()
        return said

    said = asyncio.run(asyncio.wait_for(listen(), 20))
    assert said[0].startswith("retry:")
    assert said[1].startswith("event: changed\ndata: ")
    assert pulse.listening == 0


def test_a_stream_ends_with_its_session(web: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_EVERY_S", 0.01)
    monkeypatch.setattr(live, "_ASK_AGAIN_S", 0.0)
    monkeypatch.setattr(live.security, "visitor_of", lambda _: None)

    class Request:
        app: Any = web.application._inner

    async def listen() -> list[str]:
        return [one async for one in live._beats(Request(), live.Pulse(web.here))]  # type: ignore[arg-type]

    assert len(asyncio.run(asyncio.wait_for(listen(), 20))) == 1


def test_too_many_open_pages_are_turned_away(web: Pages) -> None:
    browser = web.as_("viewer")
    web.application._inner.state.pulse.listening = 10_000
    assert browser.get("/live").status_code == 503
