"""What Prometheus reads: figures from the rows, and what this process measures of itself.

Nothing is registered globally. No label has a job's id, or anything else that grows without bound.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jobs.devices import DeviceKind
from jobs.figures import WAITS, Attempts, Figures
from jobs.queue import Waiting
from jobs.schedule import WaitingReason
from jobs.states import JobState
from jobs.workers import Presence, WorkerAccount

_DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """What this process measures of itself.

    Attributes:
        durations: of requests, in seconds, by method, route and status.
    """

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        build = Gauge("bonsai_build_info", "Always 1.", ["version"], registry=self._registry)
        build.labels(version).set(1)
        self.durations = Histogram(
            "bonsai_http_request_duration_seconds",
            "Until the last byte was sent, by this process; none: no route, or no response.",
            ["method", "route", "status"],
            buckets=_DURATIONS,
            registry=self._registry,
        )

    def text(self, families: Iterable[Metric]) -> bytes:
        """These and some others, in Prometheus' text format."""
        others = CollectorRegistry()
        others.register(_Given(families))
        return generate_latest(self._registry) + generate_latest(others)


def of_connections(in_use: int, most: int) -> Iterator[Metric]:
    """Of the database's connections of this process."""
    yield GaugeMetricFamily(
        "bonsai_database_connections_in_use", "By requests of this process.", in_use
    )
    yield GaugeMetricFamily(
        "bonsai_database_connections_limit", "That this process may have.", most
    )


def of_rows(figures: Figures, workers: Iterable[WorkerAccount]) -> Iterator[Metric]:
    """What the rows tell: the same in every process."""
    yield _gauge("bonsai_jobs", "Jobs.", "state", JobState, figures.jobs)
    yield from _of_queue(figures.queue)
    yield from _of_attempts(figures.attempts)
    yield _of_workers(workers)
    yield GaugeMetricFamily(
        "bonsai_artifacts_bytes", "Of all published files.", figures.artifact_bytes
    )


def of_database(*, up: bool) -> Metric:
    """Whether the rows could be read."""
    return GaugeMetricFamily(
        "bonsai_database_up", "1: it answers. 0: what its rows tell is missing.", up
    )


class _Given(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _of_queue(queue: Sequence[Waiting]) -> Iterator[Metric]:
    counts = {waiting.reason or "none": waiting.jobs for waiting in queue}
    yield _gauge(
        "bonsai_queue_jobs",
        "Queued jobs by what they wait for; none: a free worker would take them.",
        "reason",
        ["none", *WaitingReason],
        counts,
    )
    oldest = max(
        (waiting.longest_seconds for waiting in queue if waiting.reason is None), default=0
    )
    yield GaugeMetricFamily(
        "bonsai_queue_age_seconds", "For how long a job has been waiting for a worker.", oldest
    )


def _of_attempts(attempts: Attempts) -> Iterator[Metric]:
    yield GaugeMetricFamily("bonsai_attempts_running", "That hold a job now.", attempts.running)
    ended = CounterMetricFamily("bonsai_attempts", "That have ended.", labels=["outcome"])
    for outcome, count in attempts.by_outcome.items():
        ended.add_metric([outcome], count)
    yield ended
    lost = attempts.by_outcome.get("lease_expired", 0)
    for name, meaning, count in (
        ("bonsai_leases_lost", "Attempts whose worker was lost.", lost),
        ("bonsai_retries", "Attempts that were not the first one at their job.", attempts.again),
        ("bonsai_masks_evaluated", "By all attempts.", attempts.masks_evaluated),
        ("bonsai_forward_tokens", "Tokens that masks were judged on.", attempts.forward_tokens),
    ):
        yield CounterMetricFamily(name, meaning, count)
    yield _of_waits(attempts)


def _of_waits(attempts: Attempts) -> Metric:
    up_to, buckets = 0, []
    for bound, count in zip([*map(str, WAITS), "+Inf"], attempts.waits, strict=True):
        up_to += count
        buckets.append((bound, up_to))
    waits = HistogramMetricFamily(
        "bonsai_claim_latency_seconds", "From when a job could be taken to when it was."
    )
    waits.add_metric([], buckets, attempts.waited_seconds)
    return waits


def _of_workers(workers: Iterable[WorkerAccount]) -> Metric:
    counts = Counter((account.presence, account.worker.device_kind) for account in workers)
    family = GaugeMetricFamily(
        "bonsai_workers", "Workers; lost ones for a day.", labels=["presence", "device_kind"]
    )
    for presence in Presence:
        for kind in DeviceKind:
            family.add_metric([presence, kind], counts[presence, kind])
    return family


def _gauge(
    name: str, meaning: str, label: str, values: Iterable[str], counts: Mapping[Any, int]
) -> Metric:
    """One count for each value of a label, 0 where there is none."""
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for value in values:
        family.add_metric([value], counts.get(value, 0))
    return family
