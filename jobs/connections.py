"""The one place where connections to PostgreSQL are opened; nothing is opened at import."""

from sqlalchemy import Engine, NullPool, create_engine

from jobs.settings import Settings

_LIMITS = {
    "statement_timeout": 30_000,
    "lock_timeout": 10_000,
    # A worker that is frozen, or cut off, within a transaction has locks that others wait for: it
    # loses them before those give up.
    "idle_in_transaction_session_timeout": 5_000,
}
"""In milliseconds."""


def connect(settings: Settings, *, connections: int = 10) -> Engine:
    """An engine over a pool of at most `connections`; sessions run in UTC, each statement and each
    pause within a transaction bounded.

    A connection is tried before it is handed out, so a restarted server costs one retry.
    """
    return create_engine(
        settings.database_url,
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=10,
        connect_args={
            "connect_timeout": 10,
            "options": " ".join(["-c timezone=UTC", *(f"-c {k}={v}" for k, v in _LIMITS.items())]),
        },
    )


def connect_for_migrations(database_url: str) -> Engine:
    """An engine without a pool, for one connection; a revision may take as long as it needs."""
    return create_engine(
        database_url, poolclass=NullPool, connect_args={"options": "-c lock_timeout=10000"}
    )
