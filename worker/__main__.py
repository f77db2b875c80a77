"""`python -m worker`: one worker process for one device; SIGTERM gives its job back and ends it."""

from jobs.settings import Settings
from worker.app import create_app

settings = Settings()
create_app(settings).worker_main(
    [
        "worker",
        f"--loglevel={settings.log_level}",
        "--pool=solo",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
)
