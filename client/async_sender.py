"""Runs operations on an event loop; `client.sender`, awaited."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, BinaryIO, TypeVar

import anyio
import anyio.to_thread
import httpx
from pydantic import ValidationError

from client.address import reading, unexpected, unreachable
from client.answers import body_of, require_success
from client.effects import Call, Effect, Item, Open, Operation, Pause, Piece, Upload, Work, advance
from client.errors import ClientError
from client.pieces import pieces_of

Value = TypeVar("Value")


class AsyncSender:
    """One run of one operation."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._opened = AsyncExitStack()
        self._pieces: AsyncIterator[bytes] | None = None

    async def run(self, operation: Operation[Value]) -> Value:
        """What an operation without items comes to."""
        outcome: object = None
        async with self._opened:
            while True:
                try:
                    effect = self._next(operation, outcome)
                except StopIteration as end:
                    value: Value = end.value
                    return value
                outcome = await self._outcome(effect)

    async def items(self, operation: Operation[None]) -> AsyncIterator[Any]:
        """The items of an operation, each as soon as it is there."""
        outcome: object = None
        async with self._opened:
            while True:
                try:
                    effect = self._next(operation, outcome)
                except StopIteration:
                    return
                if isinstance(effect, Item):
                    yield effect.value
                    outcome = None
                else:
                    outcome = await self._outcome(effect)

    def _next(self, operation: Operation[Any], outcome: object) -> Effect:
        try:
            return advance(operation, outcome)
        except ValidationError as error:
            raise unexpected(self._http, error) from error
        except httpx.TransportError as error:
            raise unreachable(self._http, error) from error

    async def _outcome(self, effect: Effect) -> object:
        """What an effect comes to: a value or an error."""
        try:
            return await self._do(effect)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            failure = unreachable(self._http, error)
            failure.__cause__ = error
            return failure
        except (ClientError, ValidationError, OSError) as error:
            return error

    async def _do(self, effect: Effect) -> object:
        match effect:
            case Call():
                return await self._call(effect)
            case Upload():
                return await self._upload(effect)
            case Open():
                return await self._open(effect)
            case Piece():
                assert self._pieces is not None
                return await anext(self._pieces, None)
            case Pause(seconds):
                await anyio.sleep(seconds)
            case Work(do):
                return await anyio.to_thread.run_sync(do)
        return None

    async def _call(self, call: Call[Value]) -> Value | None:
        timeout = reading(self._http, (self._http.timeout.read or 0) + call.wait_seconds)
        content = call.content
        response = await self._http.request(call.method, call.path, timeout=timeout, **content)
        require_success(response)
        return body_of(response, call.model)

    async def _upload(self, wish: Upload[Value]) -> Value | None:
        size = wish.file.stat().st_size
        headers = {**wish.headers, "Content-Length": str(size)}
        with wish.file.open("rb") as file:
            response = await self._http.post(
                wish.path, content=_pieces_of(file), headers=headers, params=dict(wish.query)
            )
        require_success(response)
        return body_of(response, wish.model)

    async def _open(self, wish: Open) -> httpx.Response:
        await self._opened.aclose()
        timeout = reading(self._http, wish.silent_seconds or self._http.timeout.read)
        opening = self._http.stream("GET", wish.path, headers=wish.headers, timeout=timeout)
        response = await self._opened.enter_async_context(opening)
        if response.is_error:
            await response.aread()
        self._pieces = response.aiter_raw()
        return response


async def _pieces_of(file: BinaryIO) -> AsyncIterator[bytes]:
    for piece in pieces_of(file):
        yield piece
