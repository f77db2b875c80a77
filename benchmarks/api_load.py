"""How many requests the API answers, beside a route of the same application that does nothing.

`python -m benchmarks.api_load`: PostgreSQL and Valkey of its own, the API in one process of
uvicorn, `--connections` kept open that each send the next request as soon as the last one is
answered. Each route has its turn again and again, first alone, then with `--streams` streams of
events open on a job where nothing happens. Requests carry a key; submissions go through every
check and are committed durably.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch

from benchmarks.report import RESULTS, Report, Table
from client.embedded.stack import EmbeddedStack
from migrations import upgrade

NOTHING = "GET /healthz (does nothing)"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
}
"""Of an 8B model; submitting needs no weights."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where the API answers, and the key that it wants."""

    port: int
    key: str

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """A request as it goes over the wire."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass(slots=True)
class Measured:
    """What came of the turns of one route: seconds of each request, and of all turns."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def quantile(self, share: float) -> float:
        """Milliseconds in which that share of the requests was answered."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[int(share * (len(ordered) - 1))]

    @property
    def values(self) -> dict[str, float]:
        """Requests in a second and milliseconds."""
        return {
            "requests_per_second": len(self.latencies) / self.seconds,
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    wish = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bonsai-") as name, _service(Path(name)) as service:
        routes = _routes(service, Path(name))
        alone, beside = asyncio.run(_measure(wish, service, routes))
    _report(wish, alone, beside).write(wish.output, torch.device("cpu"))


@contextmanager
def _service(folder: Path) -> Iterator[Service]:
    with EmbeddedStack(folder, durable=True, postgres=True, valkey=True) as stack:
        upgrade(stack.database_url)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = int(server.getsockname()[1])
        environment = {
            **os.environ,
            "BONSAI_DATABASE_URL": stack.database_url,
            "BONSAI_REDIS_URL": stack.redis_url,
            "BONSAI_DATA_DIR": str(folder / "data"),
            "BONSAI_LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app"]
        process = subprocess.Popen(
            [*command, "--port", str(port), "--no-access-log", "--log-level", "warning"],
            env=environment,
        )
        try:
            yield Service(port, _key(port))
        finally:
            process.terminate()
            process.wait()


def _key(port: int) -> str:
    """The first key, once the service answers."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        while True:
            try:
                answer = http.post("/v1/keys", json={"name": "load", "role": "admin"})
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return str(answer.raise_for_status().json()["key"])


def _routes(service: Service, folder: Path) -> dict[str, bytes]:
    """Requests by what they are called; a hundred jobs are there to be read."""
    model, text = folder / "model", folder / "text.txt"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    text.write_text("A tree is best pruned in winter. " * 4000)
    job = {
        "model": {"source": str(model)},
        "calibration": {"source": str(text), "samples": 16, "sequence_length": 512},
        "target": {"sparsity": 0.3},
    }
    headers = {"Authorization": f"Bearer {service.key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", trust_env=False) as http:
        for _ in range(100):
            answer = http.post("/v1/jobs", json=job, headers=headers).raise_for_status()
    path = f"/v1/jobs/{answer.json()['id']}"
    return {
        NOTHING: service.request("GET", "/healthz"),
        "GET /v1/jobs/{job_id}": service.request("GET", path),
        "GET /v1/jobs?limit=50": service.request("GET", "/v1/jobs?limit=50"),
        "POST /v1/jobs": service.request("POST", "/v1/jobs", job),
        "stream": service.request("GET", f"{path}/events/stream"),
    }


async def _measure(
    wish: argparse.Namespace, service: Service, routes: dict[str, bytes]
) -> tuple[dict[str, Measured], dict[str, Measured]]:
    """Alone, and beside idle streams."""
    stream = routes.pop("stream")
    for request in routes.values():
        await _turn(service, request, wish.connections, 1.0, Measured())
    alone = await _turns(wish, service, routes)
    async with _streams(service, stream, wish.streams):
        beside = await _turns(wish, service, routes)
    return alone, beside


async def _turns(
    wish: argparse.Namespace, service: Service, routes: dict[str, bytes]
) -> dict[str, Measured]:
    found: dict[str, Measured] = defaultdict(Measured)
    for _ in range(wish.turns):
        for name, request in routes.items():
            await _turn(service, request, wish.connections, wish.seconds, found[name])
    return found


async def _turn(
    service: Service, request: bytes, connections: int, seconds: float, found: Measured
) -> None:
    """One route, over all connections, for so long."""
    started = time.perf_counter()
    end = started + seconds

    async def send() -> None:
        async with _connected(service) as (reader, writer):
            while (begun := time.perf_counter()) < end:
                writer.write(request)
                status = await _answered(reader)
                assert status in {200, 201}, status
                found.latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(send() for _ in range(connections)))
    found.seconds += time.perf_counter() - started


@asynccontextmanager
async def _connected(
    service: Service,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    # A client of the usual kind takes longer to send a request than the service to answer it.
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _answered(reader: asyncio.StreamReader) -> int:
    """The status of an answer, once all of it is here."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    length = next(line for line in head if line.startswith("content-length:"))
    await reader.readexactly(int(length.partition(":")[2]))
    return int(head[0].split()[1])


@asynccontextmanager
async def _streams(service: Service, request: bytes, count: int) -> AsyncIterator[None]:
    """Streams that have got what there is, and wait."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            reader, writer = await stack.enter_async_context(_connected(service))
            writer.write(request)
            await reader.readuntil(b"submitted")
        yield


def _report(
    wish: argparse.Namespace, alone: dict[str, Measured], beside: dict[str, Measured]
) -> Report:
    words = [
        f"One process of uvicorn, {wish.connections} connections, {wish.turns} turns of "
        f"{wish.seconds:g} seconds for each route in each half, over an embedded PostgreSQL that "
        "keeps what it has committed; whoever sends, the API and the database share the cores of "
        "the processor. Each request but those of the first route carries a key that is looked up. "
        "A hundred jobs are queued at the start, and each submission adds one, whose places in the "
        f"queue are told. Then the same with {wish.streams} streams of events open on an idle job.",
        "A ratio is that of requests in a second to those of the route that does nothing, in the "
        "same half of the same run.",
    ]
    halves = {"alone": alone, f"beside {wish.streams} idle streams": beside}
    heads = ["route", "requests per second", "ratio", "p50, ms", "p99, ms"]
    tables = [Table(title.capitalize(), heads, _rows(found)) for title, found in halves.items()]
    values = {
        "connections": wish.connections,
        "streams": wish.streams,
        "alone": {name: measured.values for name, measured in alone.items()},
        "beside_streams": {name: measured.values for name, measured in beside.items()},
    }
    return Report("api-load", "Requests to the API", words, values, tables)


def _rows(found: dict[str, Measured]) -> list[list[Any]]:
    most = found[NOTHING].values["requests_per_second"]
    return [
        [
            name,
            each["requests_per_second"],
            each["requests_per_second"] / most,
            each["p50"],
            each["p99"],
        ]
        for name, each in ((name, measured.values) for name, measured in found.items())
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.api_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--connections", type=int, default=8)
    add("--streams", type=int, default=500)
    add("--seconds", type=float, default=5.0, help="of a turn")
    add("--turns", type=int, default=4)
    add("--output", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
