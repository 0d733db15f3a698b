"""The node's numbers for Prometheus. None of them names a patient.

What stands in the database is counted when it is asked for. What can only be seen as it happens,
stages and failed deliveries, is counted from the start of the process: as with every counter,
what matters is how fast it grows.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from dicomnode import __version__
from dicomnode.alert import Channel, Kind
from dicomnode.archive.alerts import messages, standing
from dicomnode.archive.asked import accounts, figures
from dicomnode.archive.asked.accounts import WorkerLine
from dicomnode.archive.auditing import outbox
from dicomnode.archive.studies.outcomes import Outcome
from dicomnode.config import Configuration
from dicomnode.job import DeliveryState, JobState
from dicomnode.web.surroundings import Surroundings

_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# A transaction may be seen later than the moment that it writes down.
_LATE_S = 120.0
_UNKNOWN = "unknown"
_NO_DEVICE = "none"  # a worker that delivers


class Numbers(Collector):
    """Everything that is asked for at a moment."""

    def __init__(self, here: Surroundings, registry: CollectorRegistry) -> None:
        self._here = here
        self._stages = Histogram(
            "dicomnode_job_stage_seconds",
            "Seconds that a stage of a finished job took.",
            ["stage", "model"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._failures = Counter(
            "dicomnode_delivery_failures",
            "Attempts to deliver that did not succeed.",
            ["destination"],
            registry=registry,
        )
        for destination in _destinations(here.configuration):
            self._failures.labels(destination)
        self._lock = threading.Lock()
        self._since = here.clock()
        self._seen: dict[str, float] = {}
        with here.database.read() as tx:
            self._event = figures.last_event(tx)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is, is asked of the database, and not at the start."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Ask the database."""
        with self._here.database.read() as tx:
            self._catch_up(tx)
            yield from self._of_work(tx)
            yield from self._of_peers(tx)
            yield from self._of_arrivals(tx)
            yield from _of_alerts(tx)
            yield from _of_audit(outbox.state(tx))
        info = GaugeMetricFamily("dicomnode_info", "Which node this is.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        free = shutil.disk_usage(self._here.data_dir).free
        yield GaugeMetricFamily(
            "dicomnode_disk_free_bytes", "Free on the disk of the data folder.", value=free
        )

    def _catch_up(self, tx: Connection) -> None:
        """Count what has happened since the last time."""
        with self._lock:
            for job in figures.finished(tx, since=self._since):
                if self._seen.get(job.id) == job.ended_at:
                    continue
                self._seen[job.id] = job.ended_at
                for stage, seconds in job.timings.items():
                    self._stages.labels(stage, job.model).observe(seconds)
            self._since = max(self._since, self._here.clock() - _LATE_S)
            self._seen = {one: at for one, at in self._seen.items() if at >= self._since}
            newest = figures.last_event(tx)
            failed = figures.delivery_failures(tx, after=self._event, through=newest)
            for destination, count in failed.items():
                self._failures.labels(destination).inc(count)
            self._event = newest

    def _of_work(self, tx: Connection) -> Iterator[Metric]:
        studies = figures.studies(tx)
        by_outcome = {one.replace(" ", "_"): studies.get(one, 0) for one in Outcome}
        yield _gauge("dicomnode_studies", "Studies by what became of them.", "outcome", by_outcome)
        jobs = figures.jobs(tx)
        by_state = {str(one): jobs.get(one, 0) for one in JobState}
        yield _gauge("dicomnode_jobs", "Jobs by state.", "state", by_state)
        now, queues = self._here.clock(), figures.queues(tx)
        depths = {str(task): queue.depth for task, queue in queues.items()}
        yield _gauge("dicomnode_queue_depth", "What waits for a worker.", "queue", depths)
        ages = {
            str(task): 0.0 if queue.oldest_at is None else max(0.0, now - queue.oldest_at)
            for task, queue in queues.items()
        }
        yield _gauge(
            "dicomnode_queue_oldest_seconds", "How long the oldest has waited.", "queue", ages
        )
        alive = now - self._here.configuration.worker.lease_s
        devices: dict[str, float] = {_NO_DEVICE: 0}
        living = accounts.workers(tx, since=alive)
        for worker in living:
            name = worker.device or _NO_DEVICE
            devices[name] = devices.get(name, 0) + 1
        yield _gauge("dicomnode_workers", "Workers that live.", "device", devices)
        yield from _of_gpus(living)

    def _of_peers(self, tx: Connection) -> Iterator[Metric]:
        configuration = self._here.configuration
        counted = figures.open_associations(tx)
        peers: dict[str, float] = {name: counted.get(name, 0) for name in configuration.peers}
        peers[_UNKNOWN] = sum(n for name, n in counted.items() if name not in configuration.peers)
        yield _gauge(
            "dicomnode_associations_open", "Associations that peers have opened.", "peer", peers
        )
        found = figures.deliveries(tx)
        states: dict[tuple[str, str], int] = {
            (name, str(state)): 0
            for name in _destinations(configuration)
            for state in DeliveryState
        }
        deliveries = GaugeMetricFamily(
            "dicomnode_deliveries",
            "Deliveries by destination and state.",
            labels=["destination", "state"],
        )
        for labels, count in (states | found).items():
            deliveries.add_metric(list(labels), count)
        yield deliveries

    def _of_arrivals(self, tx: Connection) -> Iterator[Metric]:
        received = figures.received(tx)
        yield CounterMetricFamily(
            "dicomnode_received_instances", "Instances that were kept.", value=received.instances
        )
        yield CounterMetricFamily(
            "dicomnode_received_bytes", "Bytes of the same.", value=received.size
        )
        yield GaugeMetricFamily(
            "dicomnode_last_received_timestamp_seconds",
            "When the last instance came, since the epoch; 0 before the first.",
            value=received.last_at or 0.0,
        )


def _of_gpus(living: Sequence[WorkerLine]) -> Iterator[Metric]:
    """Each GPU once, however many workers use it: as the one that was seen last has found it."""
    found = {
        (worker.id.partition(":")[0], worker.device): worker
        for worker in sorted(living, key=lambda one: one.seen_at)
        if worker.memory_total is not None
    }
    for name, about, of in (
        ("used_bytes", "Memory of the GPU in use, after the last job.", "memory_used"),
        ("bytes", "Memory that the GPU has.", "memory_total"),
    ):
        gauge = GaugeMetricFamily(f"dicomnode_gpu_memory_{name}", about, labels=["host", "device"])
        for labels, worker in found.items():
            gauge.add_metric(list(labels), getattr(worker, of))
        yield gauge


def _of_audit(state: outbox.State) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "dicomnode_audit_messages_waiting",
        "Audit messages that the collector does not have yet.",
        value=state.waiting,
    )
    for word, value, about in (
        ("sent", state.sent, "Audit messages that the collector has."),
        ("dropped", state.dropped, "Audit messages that the collector will never have."),
    ):
        yield CounterMetricFamily(f"dicomnode_audit_messages_{word}", about, value=value)
    yield CounterMetricFamily(
        "dicomnode_audit_collector_failures",
        "Attempts to reach the audit collector in vain.",
        value=state.failed,
    )


def _of_alerts(tx: Connection) -> Iterator[Metric]:
    opened = standing.counted(tx)
    by_kind = {str(kind): opened.get(kind, 0) for kind in Kind}
    yield _gauge("dicomnode_alerts", "Alerts that are open.", "alert", by_kind)
    waiting = messages.waiting(tx)
    by_channel = {str(channel): waiting.get(channel, 0) for channel in Channel}
    yield _gauge(
        "dicomnode_alert_messages_waiting",
        "Messages about alerts that are not sent yet.",
        "channel",
        by_channel,
    )


def registry(here: Surroundings) -> CollectorRegistry:
    """What `/metrics` gives."""
    made = CollectorRegistry()
    numbers = Numbers(here, made)
    # Before the counters: a look at the database brings them up to date.
    gathered = CollectorRegistry()
    gathered.register(numbers)
    gathered.register(_Of(made))
    return gathered


class _Of(Collector):
    """What another registry has."""

    def __init__(self, other: CollectorRegistry) -> None:
        self._other = other

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return self._other.collect()


def _gauge(name: str, about: str, label: str, values: dict[str, float] | dict[str, int]) -> Metric:
    gauge = GaugeMetricFamily(name, about, labels=[label])
    for key, value in values.items():
        gauge.add_metric([key], value)
    return gauge


def _destinations(configuration: Configuration) -> list[str]:
    return [name for name, peer in configuration.peers.items() if peer.port is not None]
