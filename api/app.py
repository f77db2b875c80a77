"""Puts the service together: `uvicorn --factory api.app:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Lifespan

from api.dependencies import Services
from api.handlers import install_handlers
from api.loopback import LoopbackOnly
from api.openapi import DocumentedAPI
from api.request_log import RequestLog
from api.routes import archive, artifacts, batches, health, jobs, retention, workers
from jobs.collector import Collector
from jobs.connections import connect
from jobs.doorbell import Doorbell
from jobs.logs import configure_logs
from jobs.settings import Settings
from jobs.storage import artifact_store
from jobs.store import JobStore
from jobs.workers import WorkerStore

_DESCRIPTION = """
Makes large language models smaller: post a pruning job, follow it, download the smaller model.

Times are in UTC (RFC 3339), sizes in bytes, durations in seconds. Errors are problem details
(RFC 9457); every response has an `X-Request-ID`, which the service's log has too.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; settings come from the environment if none are given.

    Connections are opened when it starts and closed when it ends. Neither the database nor the
    broker needs to be there at the start.
    """
    settings = settings or Settings()
    # Here and not in the lifespan: what is bound here is inherited by the tasks of requests.
    configure_logs(settings, "api")
    guards = [] if settings.allow_remote else [Middleware(LoopbackOnly)]
    app = DocumentedAPI(
        title="Bonsai",
        summary="Structured pruning of large language models as a service",
        description=_DESCRIPTION,
        version=_version(),
        lifespan=_lifespan(settings),
        middleware=[Middleware(RequestLog), *guards],
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    install_handlers(app)
    for module in (jobs, batches, artifacts, archive, retention, workers, health):
        app.include_router(module.router)
    return app


def _lifespan(settings: Settings) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Services]]:
        del app
        engine = connect(settings)
        doorbell = Doorbell(settings)
        try:
            artifacts = artifact_store(settings)
            store, workers = JobStore(engine, settings.fairness), WorkerStore(engine)
            kept = Collector(engine, artifacts, settings.retention)
            yield {"services": Services(store, artifacts, doorbell, workers, kept)}
        finally:
            doorbell.close()
            engine.dispose()

    return lifespan


def _version() -> str:
    try:
        return version("bonsai-pruning")
    except PackageNotFoundError:
        return "0"
