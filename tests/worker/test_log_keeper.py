"""What a child says is stored, bounded, and never waited for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from jobs.log_lines import LogStore
from worker import log_keeper
from worker.log_keeper import KEPT_BYTES, LONGEST_LINE, LogKeeper, LogWindow


class Shelf(LogStore):
    """Keeps lines in memory, as the table would."""

    def __init__(self) -> None:
        self.lines: dict[int, str] = {}
        self.left_out: tuple[int, int] | None = None
        self.away = 0

    def keep(self, fencing_token: int, lines: Mapping[int, str], left_out: Any = None) -> None:
        del fencing_token
        if self.away:
            self.away -= 1
            raise OperationalError("", None, Exception("the server is away"))
        self.lines |= lines
        self.left_out = left_out
        if left_out is not None:
            for number in range(left_out[0], left_out[1] + 1):
                self.lines.pop(number, None)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_keeper, "_SECONDS_BETWEEN_LOOKS", 0.01)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


@pytest.fixture
def keeper(shelf: Shelf, path: Path) -> Iterator[LogKeeper]:
    keeper = LogKeeper(shelf, 1, path)
    keeper.start()
    yield keeper
    keeper.end()


def say(path: Path, words: bytes) -> None:
    with path.open("ab") as log:
        log.write(words)


def test_lines_are_stored_as_they_are_said(keeper: LogKeeper, shelf: Shelf, path: Path) -> None:
    say(path, b"first\nsec")
    while shelf.lines != {1: "first"}:
        pass
    say(path, b"ond\r\n 10%\r 50%\r100%\nnul \0 and \xff\n\nwithout end")
    keeper.end()
    assert shelf.lines == {
        1: "first",
        2: "second",
        3: "100%",
        4: "nul \ufffd and \ufffd",
        5: "",
        6: "without end",
    }


def test_a_database_that_is_away_is_caught_up_with(
    keeper: LogKeeper, shelf: Shelf, path: Path
) -> None:
    shelf.away = 5
    say(path, b"".join(b"line %d\n" % number for number in range(1, 5001)))
    while shelf.away:
        pass
    keeper.end()
    assert shelf.lines == {number: f"line {number}" for number in range(1, 5001)}


def test_of_a_flood_the_first_and_the_last_lines_stay(
    keeper: LogKeeper, shelf: Shelf, path: Path
) -> None:
    lines = 100_000
    say(path, b"".join(b"%06d %s\n" % (number, b"x" * 93) for number in range(1, lines)))
    say(path, b"Fatal: the end\n")
    keeper.end()
    keeper.join(60)
    assert shelf.left_out is not None
    first, last = shelf.left_out
    assert set(shelf.lines) == {*range(1, first), *range(last + 1, lines + 1)}
    assert shelf.lines[lines] == "Fatal: the end"
    assert KEPT_BYTES < sum(map(len, shelf.lines.values())) < 2 * KEPT_BYTES


def test_a_line_without_end_is_cut(keeper: LogKeeper, shelf: Shelf, path: Path) -> None:
    say(path, b"y" * (5 * LONGEST_LINE))
    keeper.end()
    assert max(len(text) for text in shelf.lines.values()) == LONGEST_LINE
    assert set("".join(shelf.lines.values())) == {"y"}


def test_lines_that_were_stored_and_are_left_out_later_are_named() -> None:
    window = LogWindow(kept_bytes=200)
    for number in range(1, 6):
        window.add(f"{number} " + "z" * 48)
    assert (set(window.fresh), window.left_out) == ({1, 2, 4, 5}, (3, 3))
    window.fresh.clear()
    for _ in range(10):
        window.add("z" * 50)
    assert window.left_out is not None
    first, last = window.left_out
    assert (first, last) == (3, 13)
    assert set(window.fresh) == {14, 15}
