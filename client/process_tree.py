"""Servers, migrations, API and workers: what runs below `bonsai up`."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

import client
from client.embedded.child import Child
from client.embedded.devices import device_environment
from client.embedded.errors import EmbeddedStackError
from client.embedded.port import reachable_address
from client.embedded.service import Service
from client.embedded.stack import EmbeddedStack

# The folder of our packages. Python imports from the working folder first, and a folder `api` or
# `worker` is likely enough where a user stands.
PACKAGES = Path(client.__file__).resolve().parent.parent
READY_WITHIN = 60.0
WORKER_GRACE = 20.0
API_GRACE = 10.0
THIS_MACHINE = "127.0.0.0/8,::1/128"
"""What webhooks may reach by default: receivers that people try things with."""


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """What the user of `bonsai up` chooses."""

    data: Path
    host: str
    port: int
    workers: int
    device: str


class ProcessTree:
    """Starts in one order and stops in the reverse one.

    `say` prints a line for the user; `stopping` tells that the user wants it to end.
    """

    def __init__(
        self, settings: TreeSettings, say: Callable[[str], None], stopping: Callable[[], bool]
    ) -> None:
        self.data = settings.data
        self.logs = settings.data / "logs"
        self.url = f"http://{reachable_address(settings.host)}:{settings.port}"
        self._settings = settings
        self._say = say
        self._stopping = stopping
        self._database_url = os.environ.get("BONSAI_DATABASE_URL")
        self._redis_url = os.environ.get("BONSAI_REDIS_URL")
        self._servers = EmbeddedStack(
            settings.data, postgres=not self._database_url, valkey=not self._redis_url
        )
        self._migrations: Child | None = None
        self._api: Service | None = None
        self._workers: list[Service] = []

    def run(self) -> None:
        """Returns when it is stopping; the caller then calls `stop`."""
        self._say(f"Starting in {self.data} ...")
        self._servers.start()
        environment = self._environment()
        if not self._migrate(environment):
            return
        self._start_services(environment)
        if self._wait_ready():
            self._say(
                f"Bonsai is ready.\n  URL   {self.url}\n  Data  {self.data}\n  Logs  {self.logs}\n"
                "Ctrl-C stops it."
            )
        while not self._stopping():
            self._tend()
            time.sleep(0.2)
        self._say("Stopping: workers give their jobs back. Ctrl-C again kills at once.")

    def stop(self) -> None:
        """Workers first, while the servers that they give their jobs back to still run."""
        if self._migrations is not None:
            self._migrations.kill_group()
        _stop([service.child for service in self._workers], WORKER_GRACE)
        _stop([self._api.child] if self._api is not None else [], API_GRACE)
        self._servers.stop()

    def kill(self) -> None:
        for service in self._services():
            service.child.kill_group()
        if self._migrations is not None:
            self._migrations.kill_group()
        self._servers.kill()

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "BONSAI_DATABASE_URL": self._database_url or self._servers.database_url,
            "BONSAI_REDIS_URL": self._redis_url or self._servers.redis_url,
            "BONSAI_DATA_DIR": str(self.data),
            "BONSAI_DEVICE": self._settings.device,
            "BONSAI_WEBHOOK_NETWORKS": os.environ.get("BONSAI_WEBHOOK_NETWORKS", THIS_MACHINE),
            "PYTHONUNBUFFERED": "1",
        }

    def _python(self, name: str, *arguments: str, environment: Mapping[str, str]) -> Child:
        """Killed when we are: no server is left that a worker could give its job back to."""
        return Child(
            name,
            [sys.executable, "-m", *arguments],
            log=self.logs / f"{name}.log",
            environment=environment,
            folder=PACKAGES,
            death_signal=signal.SIGKILL,
        )

    def _migrate(self, environment: Mapping[str, str]) -> bool:
        """False when the user wants it to end before."""
        migrations = self._python("migrations", "migrations", "upgrade", environment=environment)
        self._migrations = migrations
        migrations.start()
        while not migrations.wait(0.2):
            self._servers.require_alive()
            if self._stopping():
                return False
        if migrations.exit_code != 0:
            raise EmbeddedStackError(migrations.obituary())
        return True

    def _start_services(self, environment: Mapping[str, str]) -> None:
        settings = self._settings
        address = ("--host", settings.host, "--port", str(settings.port))
        application = ("uvicorn", "api.app:create_app", "--factory", *address, "--no-access-log")
        # A client that does not take what it was sent would hold up the end for ever.
        impatience = ("--timeout-graceful-shutdown", "5")
        child = self._python("api", *application, *impatience, environment=environment)
        self._api = Service(child, self._say)
        self._api.start()
        for index in range(settings.workers):
            service = Service(self._worker(index, environment), self._say)
            self._workers.append(service)
            service.start()

    def _worker(self, index: int, environment: Mapping[str, str]) -> Child:
        settings = self._settings
        name = f"worker-{index + 1}"
        own = {"BONSAI_WORKER_NAME": name}
        own |= device_environment(settings.device, index, settings.workers)
        return self._python(name, "worker", environment={**environment, **own})

    def _services(self) -> list[Service]:
        return [*self._workers, *([self._api] if self._api is not None else [])]

    def _tend(self) -> None:
        self._servers.require_alive()
        for service in self._services():
            service.tend()

    def _wait_ready(self) -> bool:
        """False when the user wants it to end before."""
        deadline = time.monotonic() + READY_WITHIN
        answer = "no answer"
        while not self._stopping():
            self._tend()
            try:
                # Without the environment's proxies, which know nothing of this machine's ports.
                response = httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False)
            except httpx.HTTPError as error:
                answer = str(error) or type(error).__name__
            else:
                if response.status_code == httpx.codes.OK:
                    return True
                answer = f"{response.status_code} {response.text[:500]}"
            if time.monotonic() > deadline:
                raise EmbeddedStackError(
                    f"The API is not ready after {READY_WITHIN:.0f} s: "
                    f"GET {self.url}/readyz gave {answer}. {self._api_log()}"
                )
            time.sleep(0.1)
        return False

    def _api_log(self) -> str:
        if self._api is None:
            return ""
        return f"Its log {self._api.child.log} ends with:\n{self._api.child.log_tail()}"


def _stop(children: list[Child], grace: float) -> None:
    """Ask all at once, wait for all within one grace, then kill."""
    for child in children:
        child.send(signal.SIGTERM)
    deadline = time.monotonic() + grace
    for child in children:
        child.wait(max(0.0, deadline - time.monotonic()))
        child.kill_group()
