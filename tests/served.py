"""The real application behind a real socket: in a thread, or in a process that can be stopped."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from jobs.settings import Settings


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an application that a thread serves."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


class ServedProcess:
    """The service in a process of its own, at an address that it keeps over restarts."""

    def __init__(self, settings: Settings, database_url: str | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._port = int(server.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self._environment = {
            **os.environ,
            "BONSAI_DATABASE_URL": database_url or settings.database_url,
            "BONSAI_REDIS_URL": settings.redis_url,
            "BONSAI_DATA_DIR": str(settings.data_dir),
            "BONSAI_LOG_LEVEL": "warning",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app"]
        self._process = subprocess.Popen(
            [*command, "--port", str(self._port), "--no-access-log"], env=self._environment
        )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                httpx.get(f"{self.url}/healthz")
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("the service did not come up")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait until it has ended by itself."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(30)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
