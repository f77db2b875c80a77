"""How often one caller may ask, counted in Redis for all processes of the API together."""

import math
import time

import structlog
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import ConnectionPool
from redis.exceptions import RedisError

from jobs.settings import Settings

_AWAY_SECONDS = 5.0
"""For so long after it did not answer, Redis is not asked: requests must not wait for it."""

_log = structlog.get_logger(__name__)


class RateLimit:
    """Requests of one caller within any minute. Without Redis nobody is kept out."""

    def __init__(self, settings: Settings) -> None:
        self.per_minute = settings.requests_per_minute
        if self.per_minute is None:
            return
        self._item = RateLimitItemPerMinute(self.per_minute, namespace="bonsai")
        pool = ConnectionPool.from_url(
            settings.redis_url, socket_connect_timeout=0.5, socket_timeout=0.5
        )
        self._limiter = MovingWindowRateLimiter(RedisStorage("redis://", connection_pool=pool))
        self._away_until = 0.0

    def exceeded(self, kind: str, name: str) -> int | None:
        """Count a request of a caller; None where it may pass, else the seconds until another may.

        A request that may not is not counted.
        """
        if self.per_minute is None or time.monotonic() < self._away_until:
            return None
        try:
            if self._limiter.hit(self._item, kind, name):
                return None
            again = self._limiter.get_window_stats(self._item, kind, name).reset_time
        except (RedisError, OSError) as error:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            _log.warning("rate_limit_unreachable", error=str(error))
            return None
        return max(1, math.ceil(again - time.time()))
