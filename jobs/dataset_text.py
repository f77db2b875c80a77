"""What an uploaded text must be, seen while it comes: no piece of it is looked at twice."""

import codecs
import json
from enum import StrEnum

from jobs.errors import InvalidDatasetError

LONGEST_LINE = 16 << 20
"""Characters of a line of JSONL, each of which is parsed at once."""


class DatasetType(StrEnum):
    """What a data set is, as a media type."""

    TEXT = "text/plain"
    JSONL = "application/jsonl"

    @property
    def suffix(self) -> str:
        """Of its file, by which it is read."""
        return ".txt" if self is DatasetType.TEXT else ".jsonl"


class DatasetText:
    """A text that comes in pieces.

    Every method raises InvalidDatasetError, which names the line at fault.
    """

    def __init__(self, media_type: DatasetType) -> None:
        self._is_jsonl = media_type is DatasetType.JSONL
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._row: list[str] = []
        """The parts of a row of JSONL that has not ended yet."""
        self._has_words = False
        self._line_is_open = False
        self.lines = 0
        """That have ended so far."""

    def add(self, piece: bytes) -> None:
        """Look at the next piece."""
        self._take(self._decoded(piece))

    def end(self) -> None:
        """No more comes."""
        self._take(self._decoded(b"", final=True))
        if self._line_is_open:
            self._end_line()
        if not self._has_words:
            raise InvalidDatasetError(None, "the text is empty", "send some text")

    def _decoded(self, piece: bytes, *, final: bool = False) -> str:
        try:
            return self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            line = self.lines + error.object[: error.start].count(b"\n") + 1
            seen = error.object[error.start : error.start + 4]
            raise InvalidDatasetError(
                line, f"{seen!r} is not UTF-8 ({error.reason})", "send UTF-8 text"
            ) from error

    def _take(self, text: str) -> None:
        if not text:
            return
        self._line_is_open = not text.endswith("\n")
        if not self._is_jsonl:
            self.lines += text.count("\n")
            self._has_words = self._has_words or not text.isspace()
            return
        *ended, rest = text.split("\n")
        for part in ended:
            self._keep(part)
            self._end_line()
        self._keep(rest)

    def _keep(self, part: str) -> None:
        self._row.append(part)
        if sum(map(len, self._row)) > LONGEST_LINE:
            raise InvalidDatasetError(
                self.lines + 1,
                f"is longer than {LONGEST_LINE} characters",
                "give each text a line of its own",
            )

    def _end_line(self) -> None:
        self.lines += 1
        line = "".join(self._row)
        self._row.clear()
        if not line.strip():
            return
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidDatasetError(
                self.lines, f"is not JSON: {error}", "send one JSON object on each line"
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InvalidDatasetError(
                self.lines,
                f"{line[:60]!r} is not an object with a text",
                'send lines such as {"text": "..."}',
            )
        self._has_words = self._has_words or bool(row["text"].strip())
