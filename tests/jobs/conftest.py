"""What tests of jobs share: the store as clients see it."""

import pytest
from sqlalchemy import Engine

from jobs.store import JobStore


@pytest.fixture
def store(engine: Engine) -> JobStore:
    return JobStore(engine)
