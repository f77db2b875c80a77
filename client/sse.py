"""Server-sent events, out of the pieces that a response comes in."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream.

    Attributes:
        event: its name; empty where it has none.
        id: where to go on after it, if it says so.
        retry: milliseconds to wait before coming back, if it says so.
    """

    event: str = ""
    data: str = ""
    id: str | None = None
    retry: int | None = None


def messages(pieces: Iterable[bytes]) -> Iterator[Message]:
    """The messages, each as soon as it is whole; one that was cut off is left out."""
    fields: dict[str, list[str]] = {}
    for line in _lines(pieces):
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        # Comments have no name.
        fields.pop("", None)
        if fields:
            yield _message(fields)
        fields = {}


def _message(fields: dict[str, list[str]]) -> Message:
    retry = fields.get("retry", [""])[-1]
    return Message(
        event=fields.get("event", [""])[-1],
        data="\n".join(fields.get("data", [])),
        id=fields.get("id", [None])[-1],
        retry=int(retry) if retry.isdecimal() else None,
    )


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
