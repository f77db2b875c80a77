"""The worked example of each operation, typed as it stands, reaches that operation."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import Engine

from api.app import create_app
from jobs.settings import Settings
from tests.api.conftest import ADMIN_KEY
from tests.served import served

OPERATIONS = {
    operation["operationId"]: operation
    for methods in create_app(Settings()).openapi()["paths"].values()
    for operation in methods.values()
}


class Routed:
    """Notes which operation each request came to, before it is answered."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start" and "route" in scope:
                self.reached.append(scope["route"].operation_id)
            await send(message)

        await self.app(scope, receive, noted)


@pytest.fixture
def routed(settings: Settings, engine: Engine) -> Iterator[tuple[Routed, str]]:
    changes = {"admin_key": SecretStr(ADMIN_KEY.reveal())}
    routed = Routed(create_app(settings.model_copy(update=changes)))
    with served(routed) as url:
        yield routed, url


def test_every_operation_is_reached_by_its_example(
    routed: tuple[Routed, str], tmp_path: Path
) -> None:
    app, url = routed
    (tmp_path / "text.txt").write_text("A tree is best pruned in winter.")
    environment = {**os.environ, "BONSAI_URL": url, "BONSAI_API_KEY": ADMIN_KEY.reveal()}
    for name, operation in OPERATIONS.items():
        (example,) = re.findall(r"```sh\n(.*)\n```", operation["description"], flags=re.DOTALL)
        app.reached.clear()
        subprocess.run(
            ["bash", "-c", example], cwd=tmp_path, env=environment, capture_output=True, check=True
        )
        assert app.reached == [name], example
        assert shlex.split(example)[0] == "curl"
