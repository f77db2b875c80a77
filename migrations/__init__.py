"""The schema of the database, revision by revision; `upgrade` brings a database up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the database at `database_url` to `revision`; safe to run any number of times."""
    command.upgrade(configuration(database_url), revision)


def configuration(database_url: str) -> Config:
    """Alembic's configuration for this package and one database."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["database_url"] = database_url
    return config
