"""Runs the revisions; Alembic loads this file."""

from alembic import context
from sqlalchemy import text

from jobs.connections import connect_for_migrations
from jobs.records import Base
from jobs.settings import Settings

# One number that only this project's migrations lock, so two processes starting at once take turns.
MIGRATION_LOCK = 240205406


def run() -> None:
    """Run the revisions in one transaction, one process at a time."""
    url = context.config.attributes.get("database_url") or Settings().database_url
    engine = connect_for_migrations(url)
    with engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=Base.metadata, transaction_per_migration=False
        )
        with context.begin_transaction():
            connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            context.run_migrations()
    engine.dispose()


run()
