"""What a route may ask for."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from api.metrics import Metrics
from api.outbound import Outbound
from api.watch import Watcher
from jobs.artifacts import ArtifactStore
from jobs.collector import Collector
from jobs.doorbell import Doorbell
from jobs.figures import FigureStore
from jobs.log_lines import LogStore
from jobs.storage_check import StorageCheck
from jobs.store import JobStore
from jobs.webhooks import WebhookStore
from jobs.workers import WorkerStore


@dataclass(frozen=True, slots=True)
class Services:
    """What the application opens when it starts and closes when it ends."""

    store: JobStore
    artifacts: ArtifactStore
    doorbell: Doorbell
    workers: WorkerStore
    kept: Collector
    webhooks: WebhookStore
    outbound: Outbound
    logs: LogStore
    watcher: Watcher
    storage: StorageCheck
    figures: FigureStore
    metrics: Metrics


# Asynchronous, so that the look-ups below take no turn in the thread pool.
async def _services(request: Request) -> Services:
    return cast(Services, request.state.services)


_Services = Annotated[Services, Depends(_services)]


async def _store(services: _Services) -> JobStore:
    return services.store


async def _artifacts(services: _Services) -> ArtifactStore:
    return services.artifacts


async def _doorbell(services: _Services) -> Doorbell:
    return services.doorbell


async def _workers(services: _Services) -> WorkerStore:
    return services.workers


async def _kept(services: _Services) -> Collector:
    return services.kept


async def _webhooks(services: _Services) -> WebhookStore:
    return services.webhooks


async def _outbound(services: _Services) -> Outbound:
    return services.outbound


async def _logs(services: _Services) -> LogStore:
    return services.logs


async def _watcher(services: _Services) -> Watcher:
    return services.watcher


async def _storage(services: _Services) -> StorageCheck:
    return services.storage


async def _figures(services: _Services) -> FigureStore:
    return services.figures


async def _metrics(services: _Services) -> Metrics:
    return services.metrics


Store = Annotated[JobStore, Depends(_store)]
Artifacts = Annotated[ArtifactStore, Depends(_artifacts)]
Bell = Annotated[Doorbell, Depends(_doorbell)]
Workers = Annotated[WorkerStore, Depends(_workers)]
Kept = Annotated[Collector, Depends(_kept)]
Webhooks = Annotated[WebhookStore, Depends(_webhooks)]
WayOut = Annotated[Outbound, Depends(_outbound)]
Logs = Annotated[LogStore, Depends(_logs)]
Watch = Annotated[Watcher, Depends(_watcher)]
Storage = Annotated[StorageCheck, Depends(_storage)]
Counted = Annotated[FigureStore, Depends(_figures)]
Measured = Annotated[Metrics, Depends(_metrics)]
