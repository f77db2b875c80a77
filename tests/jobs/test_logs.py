"""What a log line says of an error, and what it must not."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from jobs.logs import configure_logs
from jobs.settings import Settings


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_error_is_told_without_local_variables(
    settings: Settings, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure_logs(settings.model_copy(update={"log_format": log_format}), "test")
    password = "hunter2".upper()
    try:
        raise RuntimeError("no answer")
    except RuntimeError:
        structlog.get_logger("tests").exception("request_failed")
    said = capsys.readouterr().err
    assert all(word in said for word in ("request_failed", "RuntimeError", "no answer", __file__))
    assert password not in said
    if log_format == "json":
        assert json.loads(said)["process"] == "test"
