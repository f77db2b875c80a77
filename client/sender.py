"""Runs operations over a connection that blocks."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from client.address import reading, unexpected, unreachable
from client.answers import body_of, require_success
from client.effects import Call, Effect, Item, Open, Operation, Pause, Piece, Upload, Work, advance
from client.errors import ClientError
from client.pieces import pieces_of

Value = TypeVar("Value")


class Sender:
    """One run of one operation."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._opened = ExitStack()
        self._pieces: Iterator[bytes] = iter(())

    def run(self, operation: Operation[Value]) -> Value:
        """What an operation without items comes to."""
        outcome: object = None
        with self._opened:
            while True:
                try:
                    effect = self._next(operation, outcome)
                except StopIteration as end:
                    value: Value = end.value
                    return value
                outcome = self._outcome(effect)

    def items(self, operation: Operation[None]) -> Iterator[Any]:
        """The items of an operation, each as soon as it is there."""
        outcome: object = None
        with self._opened:
            while True:
                try:
                    effect = self._next(operation, outcome)
                except StopIteration:
                    return
                if isinstance(effect, Item):
                    yield effect.value
                    outcome = None
                else:
                    outcome = self._outcome(effect)

    def _next(self, operation: Operation[Any], outcome: object) -> Effect:
        try:
            return advance(operation, outcome)
        except ValidationError as error:
            raise unexpected(self._http, error) from error
        except httpx.TransportError as error:
            raise unreachable(self._http, error) from error

    def _outcome(self, effect: Effect) -> object:
        """What an effect comes to: a value or an error."""
        try:
            return self._do(effect)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            failure = unreachable(self._http, error)
            failure.__cause__ = error
            return failure
        except (ClientError, ValidationError, OSError) as error:
            return error

    def _do(self, effect: Effect) -> object:
        match effect:
            case Call():
                return self._call(effect)
            case Upload():
                return self._upload(effect)
            case Open():
                return self._open(effect)
            case Piece():
                return next(self._pieces, None)
            case Pause(seconds):
                time.sleep(seconds)
            case Work(do):
                return do()
        return None

    def _call(self, call: Call[Value]) -> Value | None:
        timeout = reading(self._http, (self._http.timeout.read or 0) + call.wait_seconds)
        content = call.content
        response = self._http.request(call.method, call.path, timeout=timeout, **content)
        require_success(response)
        return body_of(response, call.model)

    def _upload(self, wish: Upload[Value]) -> Value | None:
        size = wish.file.stat().st_size
        headers = {**wish.headers, "Content-Length": str(size)}
        with wish.file.open("rb") as file:
            response = self._http.post(
                wish.path, content=pieces_of(file), headers=headers, params=dict(wish.query)
            )
        require_success(response)
        return body_of(response, wish.model)

    def _open(self, wish: Open) -> httpx.Response:
        self._opened.close()
        timeout = reading(self._http, wish.silent_seconds or self._http.timeout.read)
        opening = self._http.stream("GET", wish.path, headers=wish.headers, timeout=timeout)
        response = self._opened.enter_context(opening)
        if response.is_error:
            response.read()
        self._pieces = response.iter_raw()
        return response
