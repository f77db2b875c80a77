"""Puts the service together: `uvicorn --factory api.app:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Lifespan

from api.authentication import Authentication
from api.dependencies import Services
from api.handlers import install_handlers
from api.loopback import LoopbackOnly
from api.openapi import DocumentedAPI
from api.request_log import RequestLog
from api.routes import artifacts, audit, batches, health, jobs, keys, retention, workers
from api.safety import require_keys, require_sources
from jobs.artifacts import LocalArtifactStore
from jobs.audit import AuditStore
from jobs.collector import Collector
from jobs.connections import connect
from jobs.doorbell import Doorbell
from jobs.keys import KeyStore
from jobs.logs import configure_logs
from jobs.settings import Settings
from jobs.sources import Sources
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

    Raises:
        UnsafeSettingsError: other machines would be served without what keeps them in bounds; for
            want of a key, it is raised at the start.
    """
    settings = settings or Settings()
    require_sources(settings)
    # Here and not in the lifespan: what is bound here is inherited by the tasks of requests.
    configure_logs(settings, "api")
    guards = [] if settings.allow_remote else [Middleware(LoopbackOnly)]
    app = DocumentedAPI(
        title="Bonsai",
        summary="Structured pruning of large language models as a service",
        description=_DESCRIPTION,
        version=_version(),
        lifespan=_lifespan(settings),
        middleware=[Middleware(RequestLog), *guards, Middleware(Authentication, settings)],
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    install_handlers(app)
    for module in (jobs, batches, artifacts, retention, workers, keys, audit, health):
        app.include_router(module.router)
    app.include_router(keys.me_router)
    return app


def _lifespan(settings: Settings) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Services]]:
        del app
        engine = connect(settings)
        doorbell = Doorbell(settings)
        try:
            artifacts = LocalArtifactStore(settings.artifacts_dir)
            store, workers = JobStore(engine, settings.fairness), WorkerStore(engine)
            kept = Collector(engine, artifacts, settings.retention)
            secret = settings.admin_key
            keys = KeyStore(engine, None if secret is None else secret.get_secret_value())
            require_keys(settings, keys)
            audit, sources = AuditStore(engine), Sources.of(settings)
            found = Services(store, artifacts, doorbell, workers, kept, keys, audit, sources)
            yield {"services": found}
        finally:
            doorbell.close()
            engine.dispose()

    return lifespan


def _version() -> str:
    try:
        return version("bonsai-pruning")
    except PackageNotFoundError:
        return "0"
