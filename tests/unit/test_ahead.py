"""The next job's images are read beside the running one, and are only used for what they are of."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicomnode.archive.studies import index
from dicomnode.archive.work import jobs, leases
from dicomnode.errors import UnsuitableSeries
from workers import ahead


class World:
    """Jobs that wait, and the digests of their files, without a database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.digests = {"1.1": "a", "1.2": "b"}
        self.waiting: list[Any] = [self.job("next")]
        self.loads: list[str] = []
        self.fault: Exception | None = None
        (tmp_path / "file").write_bytes(b"0" * 100)
        bundle = SimpleNamespace(digest="d")
        self.context: Any = SimpleNamespace(
            database=_Database(),
            bundles={"model": bundle},
            store=SimpleNamespace(absolute=lambda _: tmp_path / "file"),
            configuration=SimpleNamespace(worker=SimpleNamespace(slots=1)),
            now=lambda: 0.0,
        )
        monkeypatch.setattr(leases, "next_up", self._next_up)
        monkeypatch.setattr(jobs, "job", lambda _, job_id: self._named(job_id))
        monkeypatch.setattr(index, "digests_of", lambda *_: dict(self.digests))
        monkeypatch.setattr(index, "paths_of", lambda *_: dict(self.digests))

    @staticmethod
    def job(name: str) -> Any:
        one = SimpleNamespace(instances=("1.1", "1.2"))
        return SimpleNamespace(id=name, model="model", model_digest="d", inputs={"image": one})

    def load(self, _context: Any, job: Any, _bundle: Any) -> Any:
        self.loads.append(threading.current_thread().name)
        if self.fault is not None:
            raise self.fault
        return {"image": job.id}

    def _next_up(self, _tx: Any, *, at: float, models: Any, position: int) -> str | None:
        return self.waiting[position].id if position < len(self.waiting) else None

    def _named(self, job_id: str) -> Any:
        return next(one for one in self.waiting if one.id == job_id)


class _Database:
    def read(self) -> _Database:
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


def test_what_was_read_ahead_is_given_to_its_job_once(world: World) -> None:
    reader = ahead.Ahead(world.load)
    reader.look(world.context)

    assert reader.take(world.context, world.waiting[0]) == {"image": "next"}
    assert world.loads == ["ahead"]
    assert reader.take(world.context, world.waiting[0]) is None


def test_another_job_gets_nothing(world: World) -> None:
    reader = ahead.Ahead(world.load)
    reader.look(world.context)
    assert reader.take(world.context, world.job("other")) is None


def test_a_file_that_was_replaced_meanwhile_is_read_anew(world: World) -> None:
    reader = ahead.Ahead(world.load)
    reader.look(world.context)
    reader._thread.join()  # type: ignore[union-attr]
    world.digests["1.2"] = "c"
    assert reader.take(world.context, world.waiting[0]) is None


def test_a_fault_is_left_to_the_job(world: World) -> None:
    for fault in (UnsuitableSeries("missing-slices", "One."), RuntimeError("boom")):
        world.fault = fault
        reader = ahead.Ahead(world.load)
        reader.look(world.context)
        assert reader.take(world.context, world.waiting[0]) is None


def test_nothing_is_read_where_nothing_waits_or_no_room_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ahead.Ahead(world.load)
    monkeypatch.setattr(ahead.limits, "available", lambda: 4 * 6 * 200)
    reader.look(world.context)
    assert reader.take(world.context, world.waiting[0]) is None
    job = world.waiting.pop()
    reader.look(world.context)
    assert reader.take(world.context, job) is None
    assert world.loads == []
