"""Puts the service together: `uvicorn --factory api.app:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.middleware import Middleware
from starlette.types import Lifespan

from api.authentication import Authentication
from api.body_limit import BodyLimit
from api.dependencies import Services
from api.handlers import install_handlers
from api.loopback import LoopbackOnly
from api.metrics import Metrics
from api.openapi import DocumentedAPI
from api.outbound import Outbound
from api.request_log import RequestLog
from api.routes import (
    archive,
    artifacts,
    audit,
    batches,
    datasets,
    events,
    health,
    jobs,
    keys,
    logs,
    metrics,
    models,
    queue,
    retention,
    webhooks,
    workers,
)
from api.safety import require_keys, require_sources
from api.sender import Sender
from api.stopping import when_told_to_stop
from api.upload import remove_left_overs
from api.watch import Watcher
from jobs.audit import AuditStore
from jobs.collector import Collector
from jobs.connections import connect
from jobs.datasets import DatasetStore
from jobs.deliveries import DeliveryQueue
from jobs.doorbell import Doorbell
from jobs.figures import FigureStore
from jobs.keys import KeyStore
from jobs.log_lines import LogStore
from jobs.logs import configure_logs
from jobs.settings import Settings
from jobs.sources import Sources
from jobs.storage import artifact_store
from jobs.storage_check import StorageCheck
from jobs.store import JobStore
from jobs.traces import Traces, traces_of
from jobs.webhooks import WebhookStore
from jobs.workers import WorkerStore

_DESCRIPTION = """
Makes large language models smaller: post a pruning job, follow it, download the smaller model.

Times are in UTC (RFC 3339), sizes in bytes, durations in seconds. Errors are problem details
(RFC 9457); every response has an `X-Request-ID`, which the service's log has too.
"""


_ROUTES = (
    *(jobs, queue, events, logs, batches, datasets, models, artifacts, archive, retention),
    *(webhooks, workers, keys, audit, health, metrics),
)


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
    measured, traces = Metrics(_version()), traces_of("api")
    guards = [] if settings.allow_remote else [Middleware(LoopbackOnly)]
    app = DocumentedAPI(
        title="Bonsai",
        summary="Structured pruning of large language models as a service",
        description=_DESCRIPTION,
        version=_version(),
        lifespan=_lifespan(settings, measured, traces),
        middleware=[
            Middleware(RequestLog, durations=measured.durations, traces=traces),
            *guards,
            Middleware(Authentication, settings),
            Middleware(
                BodyLimit, uploads=datasets.router.prefix, largest_upload=settings.largest_dataset
            ),
        ],
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    install_handlers(app)
    for module in _ROUTES:
        app.include_router(module.router)
    app.include_router(keys.me_router)
    return app


def _lifespan(settings: Settings, measured: Metrics, traces: Traces) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Services]]:
        del app
        engine = connect(settings)
        services = _services(settings, engine, measured)
        require_keys(settings, services.keys)
        remove_left_overs(services.scratch)
        keep = timedelta(days=settings.keep_deliveries_days)
        sender = Sender(DeliveryQueue(engine), services.outbound, keep)
        watcher = services.watcher
        try:
            async with watcher.running():
                with sender, when_told_to_stop(watcher.stop):
                    yield {"services": services}
        finally:
            traces.close()
            services.doorbell.close()
            engine.dispose()

    return lifespan


def _services(settings: Settings, engine: Engine, measured: Metrics) -> Services:
    artifacts = artifact_store(settings)
    store = JobStore(engine, settings.fairness)
    secret = settings.admin_key
    return Services(
        store=store,
        artifacts=artifacts,
        doorbell=Doorbell(settings),
        workers=WorkerStore(engine),
        kept=Collector(engine, artifacts, settings.retention),
        webhooks=WebhookStore(engine),
        datasets=DatasetStore(engine, artifacts, settings.disk_per_owner),
        scratch=settings.scratch_dir,
        outbound=Outbound(settings.webhook_networks, settings.webhook_timeout_seconds),
        logs=LogStore(engine),
        watcher=Watcher(store.glances),
        storage=StorageCheck(artifacts),
        figures=FigureStore(engine, settings.fairness),
        metrics=measured,
        keys=KeyStore(engine, None if secret is None else secret.get_secret_value()),
        audit=AuditStore(engine),
        sources=Sources.of(settings),
    )


def _version() -> str:
    try:
        return version("bonsai-pruning")
    except PackageNotFoundError:
        return "0"
