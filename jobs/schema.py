"""Which revision of the tables this code works with, and which one a database has."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from jobs.errors import SchemaOutdatedError

REVISION = "0020"
"""The newest one in `migrations`; they are numbered, so a newer one is greater."""


def require_schema(session: Session) -> str:
    """The revision of the database: this code's, or a newer one.

    Raises:
        SchemaOutdatedError: it is an older one, or there are no tables at all.
    """
    found: str | None = None
    if session.scalar(text("SELECT to_regclass('alembic_version')")) is not None:
        found = session.scalar(text("SELECT max(version_num) FROM alembic_version"))
    if found is None or found < REVISION:
        raise SchemaOutdatedError(found, REVISION)
    return found
