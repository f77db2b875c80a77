"""The fixtures of `tests.servers`, on either kind of URL."""

import redis

from tests.servers import Servers


def test_a_module_has_an_empty_logical_database_of_its_own(
    servers: Servers, redis_url: str
) -> None:
    own = redis.Redis.from_url(redis_url)
    own.set("key", "value")
    assert redis.Redis.from_url(servers.redis_url).get("key") is None
    assert own.get("key") == b"value"


def test_urls_keep_what_they_do_not_name() -> None:
    network = Servers("postgresql+psycopg://a:p%40@db:5433/app?sslmode=require", "redis://r:6380/0")
    assert network.database_url_of("other") == (
        "postgresql+psycopg://a:p%40@db:5433/other?sslmode=require"
    )
    assert network.redis_url_of(3) == "redis://r:6380/3"
    local = Servers("postgresql+psycopg://app@/app?host=/a%20b", "unix:///a%20b/valkey.sock?db=0")
    assert "/other?" in local.database_url_of("other")
    assert local.redis_url_of(3) == "unix:///a%20b/valkey.sock?db=3"
