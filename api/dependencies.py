"""What a route may ask for. Stores are the caller's: they know only what it may see."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Request

from api.metrics import Metrics
from api.outbound import Outbound
from api.watch import Watcher
from jobs.artifacts import ArtifactStore
from jobs.audit import AuditStore
from jobs.collector import Collector
from jobs.datasets import DatasetStore
from jobs.doorbell import Doorbell
from jobs.figures import FigureStore
from jobs.keys import KeyStore
from jobs.log_lines import LogStore
from jobs.roles import Caller
from jobs.sources import Sources
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
    datasets: DatasetStore
    scratch: Path
    outbound: Outbound
    logs: LogStore
    watcher: Watcher
    storage: StorageCheck
    figures: FigureStore
    metrics: Metrics
    keys: KeyStore
    audit: AuditStore
    sources: Sources


# Asynchronous, so that the look-ups below take no turn in the thread pool.
async def _services(request: Request) -> Services:
    return cast(Services, request.state.services)


# Set for every request, so that one which came in by another way fails.
async def _caller(request: Request) -> Caller | None:
    return cast(Caller | None, request.state.caller)


_Services = Annotated[Services, Depends(_services)]
_Caller = Annotated[Caller | None, Depends(_caller)]


async def _store(services: _Services, caller: _Caller) -> JobStore:
    return services.store.on_behalf_of(caller)


async def _artifacts(services: _Services) -> ArtifactStore:
    return services.artifacts


async def _doorbell(services: _Services) -> Doorbell:
    return services.doorbell


async def _workers(services: _Services, caller: _Caller) -> WorkerStore:
    return services.workers.on_behalf_of(caller)


async def _kept(services: _Services, caller: _Caller) -> Collector:
    return services.kept.on_behalf_of(caller)


async def _keys(services: _Services, caller: _Caller) -> KeyStore:
    return services.keys.on_behalf_of(caller)


async def _audit(services: _Services) -> AuditStore:
    return services.audit


async def _sources(services: _Services) -> Sources:
    return services.sources


async def _webhooks(services: _Services, caller: _Caller) -> WebhookStore:
    return services.webhooks.on_behalf_of(caller)


async def _datasets(services: _Services, caller: _Caller) -> DatasetStore:
    return services.datasets.on_behalf_of(caller)


async def _scratch(services: _Services) -> Path:
    return services.scratch


async def _outbound(services: _Services) -> Outbound:
    return services.outbound


async def _logs(services: _Services, caller: _Caller) -> LogStore:
    return services.logs.on_behalf_of(caller)


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
Datasets = Annotated[DatasetStore, Depends(_datasets)]
Scratch = Annotated[Path, Depends(_scratch)]
WayOut = Annotated[Outbound, Depends(_outbound)]
Logs = Annotated[LogStore, Depends(_logs)]
Watch = Annotated[Watcher, Depends(_watcher)]
Storage = Annotated[StorageCheck, Depends(_storage)]
Counted = Annotated[FigureStore, Depends(_figures)]
Measured = Annotated[Metrics, Depends(_metrics)]
Keys = Annotated[KeyStore, Depends(_keys)]
Audit = Annotated[AuditStore, Depends(_audit)]
AllowedSources = Annotated[Sources, Depends(_sources)]
