"""Server-sent events, out of the pieces that a response comes in."""

from collections.abc import Iterator
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


class EventStream:
    """Messages out of pieces, each as soon as it is whole; one that was cut off is left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, list[str]] = {}
        self.heard = False
        """Whether anything has come yet but comments."""

    def messages(self, piece: bytes) -> Iterator[Message]:
        """Those that end in the next piece."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            text = line.removesuffix(b"\r").decode(errors="replace")
            if text:
                name, _, value = text.partition(":")
                self._fields.setdefault(name, []).append(value.removeprefix(" "))
                continue
            fields, self._fields = self._fields, {}
            # Comments have no name.
            fields.pop("", None)
            if fields:
                self.heard = True
                yield _message(fields)


def _message(fields: dict[str, list[str]]) -> Message:
    retry = fields.get("retry", [""])[-1]
    return Message(
        event=fields.get("event", [""])[-1],
        data="\n".join(fields.get("data", [])),
        id=fields.get("id", [None])[-1],
        retry=int(retry) if retry.isdecimal() else None,
    )
