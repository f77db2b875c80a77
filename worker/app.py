"""The Celery application: one task, which hears the doorbell."""

import os
import socket
import threading
from functools import partial
from typing import Any

from celery import Celery
from celery.signals import worker_init, worker_shutdown, worker_shutting_down

from jobs.attempts import AttemptStore
from jobs.collector import Collector
from jobs.connections import connect
from jobs.doorbell import TASK, broker_options
from jobs.log_lines import LogStore
from jobs.logs import configure_logs
from jobs.registrations import RegistrationStore
from jobs.settings import Settings
from jobs.storage import artifact_store
from jobs.traces import traces_of
from jobs.workers import WorkerStore
from worker.device import DeviceWatch
from worker.presence import Presence
from worker.registrar import Registrar, mlflow_registry
from worker.runner import Runner
from worker.supervisor import Supervisor
from worker.sweeper import Sweeper


def create_app(settings: Settings) -> Celery:
    """The application of one worker process; nothing is connected before the worker starts.

    One process runs one job at a time (`worker.runner`), because a device is not shared. Messages
    are acknowledged when they arrive: the row, not the broker, remembers what is to be done.
    """
    app = Celery("bonsai", set_as_current=False)
    app.conf.update(
        **broker_options(settings),
        task_acks_late=False,
        result_backend=None,
        worker_pool="solo",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        # A broker that is away for a night comes back: never give up.
        broker_connection_max_retries=None,
    )
    stopping, bell = threading.Event(), threading.Event()
    engine = connect(settings, connections=4)
    is_told = settings.mlflow_tracking_uri is not None
    attempts = AttemptStore(engine, settings.fairness, registers=is_told)
    name = settings.worker_name or f"{socket.gethostname()}-{os.getpid()}"
    files = artifact_store(settings)
    device = DeviceWatch(settings.device, settings.device_memory, settings.hold_seconds)
    traces, logs = traces_of("worker"), LogStore(engine)
    supervisor = Supervisor(settings, attempts, files, logs, name, device, stopping, traces)
    runner = Runner(supervisor, bell, stopping, settings.sweep_seconds)
    presence = Presence(WorkerStore(engine), name, device, settings.heartbeat_seconds, stopping)

    registrar = Registrar(
        RegistrationStore(engine),
        partial(mlflow_registry, settings),
        stopping,
        settings.sweep_seconds,
    )

    @app.task(name=TASK, ignore_result=True)
    def work(job_id: str) -> None:  # noqa: ARG001 - the id is a hint for eyes; the row decides
        bell.set()

    def start(**_: Any) -> None:
        configure_logs(settings, name)
        runner.start()
        Sweeper(settings, attempts, Collector(engine, files, settings.retention), stopping).start()
        presence.start()
        if is_told:
            registrar.start()

    def stop(**_: Any) -> None:
        stopping.set()
        bell.set()

    def leave(**_: Any) -> None:
        runner.join()
        presence.leave()
        traces.close()

    # Strong references: Celery's signals would drop functions that nobody else holds.
    worker_init.connect(start, weak=False)
    worker_shutting_down.connect(stop, weak=False)
    worker_shutdown.connect(leave, weak=False)
    return app
