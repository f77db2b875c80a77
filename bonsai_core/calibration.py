"""Text to token sequences: files, JSON lines, hub data sets; the choice of windows is seeded."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bonsai_core.config import CalibrationSource
from bonsai_core.errors import InvalidCalibrationError
from bonsai_core.seeds import generator

# A text is read up to this many characters per token needed: enough to choose windows from all
# over a small file, and bounded for a large one.
_CHARACTERS_PER_TOKEN = 64
_CHARACTERS_AT_LEAST = 4_000_000
_PIECE = 200_000


def calibration_batch(source: CalibrationSource, tokenizer: Any, seed: int) -> Tensor:
    """The calibration sequences; [samples, sequence_length] int64, on the CPU.

    Windows do not overlap; which ones are taken depends on the seed only.

    Raises:
        InvalidCalibrationError: the text is missing, unreadable, empty or too short.
    """
    tokens = _tokens(source, tokenizer)
    windows = _windows(tokens, source.sequence_length)
    if len(windows) < source.samples:
        raise InvalidCalibrationError(
            f"the text has {len(tokens)} tokens, which is {len(windows)} sequences of "
            f"{source.sequence_length} tokens",
            field="calibration.samples",
            value=source.samples,
            allowed=f"at most {len(windows)}" if len(windows) else "a longer text",
            cure="give a longer text, or lower calibration.samples or sequence_length",
        )
    return windows[sorted(_order(windows, seed)[: source.samples])]


def held_out_batch(source: CalibrationSource, tokenizer: Any, seed: int, count: int) -> Tensor:
    """Sequences of the same text that are not in `calibration_batch`; at most `count` of them."""
    windows = _windows(_tokens(source, tokenizer), source.sequence_length)
    return windows[sorted(_order(windows, seed)[source.samples : source.samples + count])]


def _tokens(source: CalibrationSource, tokenizer: Any) -> Tensor:
    """Of the text, or of as much of it as is read."""
    budget = max(_CHARACTERS_AT_LEAST, source.tokens * _CHARACTERS_PER_TOKEN)
    return tokenize(_pieces(read_text(source.source), budget), tokenizer)


def _windows(tokens: Tensor, length: int) -> Tensor:
    """All windows, without overlap; [windows, length]."""
    return tokens[: len(tokens) // length * length].reshape(-1, length)


def _order(windows: Tensor, seed: int) -> list[int]:
    """In which order windows are taken."""
    order: list[int] = generator(seed, 0, "calibration").permutation(len(windows)).tolist()
    return order


def digest_of(batch: Tensor) -> str:
    """SHA-256 of token sequences."""
    shape = "x".join(map(str, batch.shape)).encode()
    return hashlib.sha256(shape + batch.to(torch.int64).contiguous().numpy().tobytes()).hexdigest()


def tokenize(pieces: Iterable[str], tokenizer: Any) -> Tensor:
    """The tokens of a text without special tokens; [tokens] int64.

    Pieces are tokenised one by one, which bounds memory; they end at line ends.
    """
    ids: list[int] = []
    for piece in pieces:
        # verbose=False: a text is longer than any model's context, and that is no mistake here.
        ids.extend(tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"])
    return torch.tensor(ids, dtype=torch.int64)


def read_text(source: str, field: str = "calibration.source") -> Iterator[str]:
    """The lines of a `.txt` file, the texts of a `.jsonl` file, or the rows of a data set.

    `field` is what errors name.

    Raises:
        InvalidCalibrationError: there is no such text, or it cannot be read.
    """
    path = Path(source).expanduser()
    if path.suffix == ".txt" and path.is_file():
        return _text_lines(path, field)
    if path.suffix == ".jsonl" and path.is_file():
        return _json_lines(path, field)
    if path.suffix in {".txt", ".jsonl"} or path.is_file():
        raise InvalidCalibrationError(
            "there is no such file" if not path.is_file() else "unknown kind of file",
            field=field,
            value=source,
            allowed="a .txt file, a .jsonl file, a hub data set id, or a data set's folder",
        )
    return _data_set_rows(source, field)


def beginning(source: str, field: str = "calibration.source") -> str:
    """The first few million characters of a text; arguments and errors as of `read_text`."""
    return "".join(_pieces(read_text(source, field), _CHARACTERS_AT_LEAST))


def _pieces(lines: Iterable[str], budget: int) -> Iterator[str]:
    piece: list[str] = []
    length = total = 0
    for line in lines:
        piece.append(line)
        length += len(line)
        total += len(line)
        if length >= _PIECE:
            yield "".join(piece)
            piece, length = [], 0
        if total >= budget:
            break
    if piece:
        yield "".join(piece)


def _text_lines(path: Path, field: str) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise InvalidCalibrationError(
            f"the file is not UTF-8 text: {error}", field=field, value=str(path)
        ) from error


def _json_lines(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(_text_lines(path, field), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _bad_row(path, number, str(error), field) from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise _bad_row(path, number, "not an object with a text", field)
        yield row["text"] + "\n\n"


def _bad_row(path: Path, number: int, problem: str, field: str) -> InvalidCalibrationError:
    return InvalidCalibrationError(
        f"line {number}: {problem}",
        field=field,
        value=str(path),
        allowed='one object per line, such as {"text": "..."}',
    )


def _data_set_rows(source: str, field: str) -> Iterator[str]:
    """Rows of `name`, `name:subset` or `name:subset:split` (default split: train), streamed."""
    import datasets  # noqa: PLC0415 - heavy, and most runs read a file

    name, subset, split, *_ = [*source.split(":"), "", ""]
    if name.startswith("~"):
        name = str(Path(name).expanduser())
    try:
        rows = datasets.load_dataset(name, subset or None, split=split or "train", streaming=True)
        for row in rows:
            yield _text_of(row, source, field) + "\n\n"
    except InvalidCalibrationError:
        raise
    except Exception as error:  # the library raises many kinds, all meaning the same to a user
        raise InvalidCalibrationError(
            f"the data set cannot be read: {error}",
            field=field,
            value=source,
            allowed="a .txt or .jsonl file, or a data set as name[:subset[:split]]",
        ) from error


def _text_of(row: dict[str, Any], source: str, field: str) -> str:
    if "text" not in row:
        raise InvalidCalibrationError(
            f"the data set has no column 'text'; its columns: {', '.join(row)}",
            field=field,
            value=source,
            cure="use one that has, or write its texts to a .jsonl file",
        )
    return row["text"] or ""
