"""The migrations make exactly the tables that the code describes, forwards and backwards."""

from alembic import command
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

from migrations import configuration, upgrade


def test_the_migrated_schema_is_that_of_the_records(database_url: str) -> None:
    command.check(configuration(database_url))


def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    upgrade(database_url)
    command.check(configuration(database_url))


def test_downgrading_leaves_nothing_and_upgrading_again_works(database_url: str) -> None:
    command.downgrade(configuration(database_url), "base")
    engine = create_engine(database_url, poolclass=NullPool)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert inspect(engine).get_sequence_names() == []
    upgrade(database_url)
    command.check(configuration(database_url))
