"""What a route may ask for. Stores are the caller's: they know only what it may see."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from jobs.artifacts import ArtifactStore
from jobs.audit import AuditStore
from jobs.collector import Collector
from jobs.doorbell import Doorbell
from jobs.keys import KeyStore
from jobs.roles import Caller
from jobs.sources import Sources
from jobs.store import JobStore
from jobs.workers import WorkerStore


@dataclass(frozen=True, slots=True)
class Services:
    """What the application opens when it starts and closes when it ends."""

    store: JobStore
    artifacts: ArtifactStore
    doorbell: Doorbell
    workers: WorkerStore
    kept: Collector
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


Store = Annotated[JobStore, Depends(_store)]
Artifacts = Annotated[ArtifactStore, Depends(_artifacts)]
Bell = Annotated[Doorbell, Depends(_doorbell)]
Workers = Annotated[WorkerStore, Depends(_workers)]
Kept = Annotated[Collector, Depends(_kept)]
Keys = Annotated[KeyStore, Depends(_keys)]
Audit = Annotated[AuditStore, Depends(_audit)]
AllowedSources = Annotated[Sources, Depends(_sources)]
