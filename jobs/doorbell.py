"""The doorbell: a Celery message that says "there is work", and nothing that matters if lost.

The message holds a job id. A worker that hears it claims the best job there is, so bells are
harmless in any number; without one it looks from time to time all the same.
"""

from uuid import UUID

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from jobs.settings import Settings

TASK = "bonsai.work"
QUEUE = "bonsai"

_log = structlog.get_logger(__name__)


def broker_options(settings: Settings) -> dict[str, object]:
    """Celery settings that producer and consumer share."""
    return {
        "broker_url": settings.broker_url,
        "task_default_queue": QUEUE,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "broker_transport_options": {
            "socket_connect_timeout": 2,
            "socket_timeout": 30,
            "socket_keepalive": not settings.redis_url.startswith("unix"),
            "health_check_interval": 25,
            "retry_on_timeout": True,
        },
    }


class Doorbell:
    """Rings for jobs; never raises, since a lost bell costs seconds and a failed submit a user."""

    def __init__(self, settings: Settings) -> None:
        self._app = Celery("bonsai-doorbell", set_as_current=False)
        self._app.conf.update(broker_options(settings))
        # Nobody waits for a bell: kombu would retry for seconds, and workers look anyway.
        self._app.conf.broker_transport_options["max_retries"] = 0
        self._redis = Redis.from_url(settings.redis_url, socket_connect_timeout=2, socket_timeout=5)

    def ring(self, job_id: UUID) -> bool:
        """Ring once; False when the broker cannot be reached."""
        try:
            self._app.send_task(TASK, args=[str(job_id)], queue=QUEUE, retry=False)
        except (OperationalError, RedisError, OSError) as error:
            _log.warning("doorbell_unreachable", job_id=str(job_id), error=str(error))
            return False
        return True

    def pending(self) -> int | None:
        """Bells that no worker has heard yet; None when the broker cannot be reached."""
        try:
            # The Redis transport of Celery keeps a queue as a list of the same name.
            return int(self._redis.llen(QUEUE))
        except (RedisError, OSError) as error:
            _log.warning("broker_unreachable", error=str(error))
            return None

    def close(self) -> None:
        """Close the connections to the broker."""
        self._app.close()
        self._redis.close()
