"""The twin for an event loop does what the client does."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from client import AsyncBonsaiClient, BonsaiClient, Event, ServiceError, UnreachableServiceError
from tests.fake_worker import FakeWorker

METHODS = [name for name in vars(BonsaiClient) if not name.startswith("_")]
FILES = {"model.safetensors": b"x" * 100_000, "report.json": b"{}"}


def test_both_have_the_same_methods() -> None:
    assert [name for name in vars(AsyncBonsaiClient) if not name.startswith("_")] == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_and_gives_the_same(name: str) -> None:
    one, other = getattr(BonsaiClient, name), getattr(AsyncBonsaiClient, name)
    assert inspect.getdoc(one) == inspect.getdoc(other)
    parameters = inspect.signature(one).parameters
    assert parameters == inspect.signature(other).parameters
    given, awaited = get_type_hints(one)["return"], get_type_hints(other)["return"]
    if get_origin(given) is Iterator:
        assert (get_origin(awaited), get_args(awaited)) == (AsyncIterator, get_args(given))
    else:
        assert awaited == given
        assert inspect.iscoroutinefunction(other)


def test_it_submits_watches_waits_and_downloads(
    url: str, body: dict[str, Any], worker: FakeWorker, tmp_path: Path
) -> None:
    async def follow() -> None:
        async with AsyncBonsaiClient(url) as client:
            job = await client.submit(body, idempotency_key="once")
            assert (await client.submit(body, idempotency_key="once")).id == job.id
            assert [each.id async for each in client.jobs()] == [job.id]
            threading.Timer(0.3, work).start()
            news = [each async for each in client.watch(job.id)]
            events = [each.type for each in news if isinstance(each, Event)]
            assert events == ["submitted", "running", "succeeded"]
            assert (await client.wait(job.id)).state == "succeeded"
            received: dict[str, int] = {}
            paths = await client.download(
                job.id, tmp_path / "out", on_bytes=lambda file, n: received.update({file.name: n})
            )
            assert {path.name: path.read_bytes() for path in paths} == FILES
            assert received == {name: len(content) for name, content in FILES.items()}

    def work() -> None:
        worker.succeed(worker.claim(), FILES)

    asyncio.run(follow())


def test_many_jobs_are_waited_for_at_once(
    url: str, body: dict[str, Any], worker: FakeWorker
) -> None:
    async def follow() -> list[str]:
        async with AsyncBonsaiClient(url) as client:
            jobs = [await client.submit(body) for _ in range(3)]
            threading.Timer(0.3, work).start()
            ended = await asyncio.gather(*(client.wait(job.id) for job in jobs))
            return [job.state for job in ended]

    def work() -> None:
        for _ in range(3):
            worker.succeed(worker.claim(), {})

    assert asyncio.run(follow()) == ["succeeded"] * 3


def test_a_reader_may_leave(url: str, body: dict[str, Any]) -> None:
    async def look() -> str:
        async with AsyncBonsaiClient(url) as client:
            job = await client.submit(body)
            async for each in client.watch(job.id):
                assert isinstance(each, Event)
                return each.type
        raise AssertionError

    assert asyncio.run(look()) == "submitted"


def test_errors_are_the_same(url: str) -> None:
    async def ask(address: str) -> None:
        async with AsyncBonsaiClient(address) as client:
            await client.job("00000000-0000-0000-0000-000000000000")

    with pytest.raises(ServiceError, match="no job"):
        asyncio.run(ask(url))
    with pytest.raises(UnreachableServiceError):
        asyncio.run(ask("http://127.0.0.1:1"))
