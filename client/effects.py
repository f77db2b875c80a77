"""What an operation asks of whoever runs it: to send, to read, to wait.

An operation is a generator of these. It is written once, and run by `client.sender` for
`BonsaiClient` and by `client.async_sender` for its async twin. What an effect comes to is sent back
into the generator, its error thrown in.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

Value = TypeVar("Value")
Operation = Generator["Effect", Any, Value]


@dataclass(frozen=True, slots=True)
class Call(Generic[Value]):
    """Send a request; comes to its answer as a value.

    Attributes:
        model: of the answer; None: there is nothing to read in it.
        content: what httpx takes: `json`, `params`, `headers`.
        wait_seconds: that the service may take for it, besides the usual.
    """

    model: type[Value] | None
    method: str
    path: str
    content: Mapping[str, Any] = field(default_factory=dict)
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Upload(Generic[Value]):
    """Post a file as it is; comes to the answer as a value."""

    model: type[Value]
    path: str
    file: Path
    headers: Mapping[str, str]
    query: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Open:
    """Send a GET request; comes to the response before its body, in place of one opened before.

    Attributes:
        silent_seconds: that its body may pause; None: the usual.
    """

    path: str
    headers: Mapping[str, str]
    silent_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes of what was opened, as they came over; None after the last."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Do something that keeps the disk busy; comes to what it gives."""

    do: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Item:
    """Hand this to the caller, who may take no further one."""

    value: Any


Effect = Call[Any] | Upload[Any] | Open | Piece | Pause | Work | Item


def once(call: Call[Value]) -> Operation[Value]:
    """One request."""
    value: Value = yield call
    return value


def advance(operation: Operation[Any], outcome: object) -> Effect:
    """The next effect, after what the last one came to: a value or an error."""
    if isinstance(outcome, Exception):
        return operation.throw(outcome)
    return operation.send(outcome)


def as_model(model: type[Value], content: Any) -> Value:
    """A value out of JSON; raises pydantic's ValidationError, which runners know."""
    assert issubclass(model, BaseModel)
    value: Value = model.model_validate(content)
    return value
