"""Which request a change comes from, so that the one is found from the other.

Set around a request by whoever answers it; what has no request, such as a worker, has no origin.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """A request.

    Attributes:
        request_id: as in its response's `X-Request-ID`.
        traceparent: names its span, as in W3C Trace Context; None where it is not traced.
    """

    request_id: str | None = None
    traceparent: str | None = None


_NOWHERE = Origin()

_origin: ContextVar[Origin] = ContextVar("origin", default=_NOWHERE)


def current_origin() -> Origin:
    """Where what is done now comes from."""
    return _origin.get()


@contextmanager
def coming_from(origin: Origin) -> Iterator[None]:
    """What is done inside comes from there, also in threads that take this context along."""
    token = _origin.set(origin)
    try:
        yield
    finally:
        _origin.reset(token)
