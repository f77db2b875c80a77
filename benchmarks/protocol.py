"""The protocol of a table: all that decides its numbers apart from the methods."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines import DAMPING
from benchmarks.exam import Exam
from benchmarks.texts import Text
from bonsai_core.cloze import CHOICES, CONTEXT_WORDS, CONTINUATION_WORDS
from bonsai_core.config import ModelSource
from bonsai_core.hardware import processor
from bonsai_core.models import LoadedModel, non_embedding_parameters, parameters
from bonsai_core.utilities.questions import Question
from bonsai_core.versions import versions

Protocol = Mapping[str, Any]


def protocol_of(
    source: ModelSource,
    loaded: LoadedModel,
    calibration: Mapping[str, Any],
    texts: Mapping[str, Text],
    exam: Exam,
) -> Protocol:
    """The protocol as plain values; names of files without their folders."""
    everything = next(iter(exam.all_windows.values()))
    return {
        "model": {
            "name": source.gguf_file or Path(source.source).name,
            "files_sha256": loaded.digest,
            "architecture": loaded.family.architecture,
            "parameters": parameters(loaded.model),
            "non_embedding_parameters": non_embedding_parameters(loaded.model),
        },
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": loaded.device.type,
        "calibration": dict(calibration),
        "texts": {name: text.sha256 for name, text in texts.items()},
        "window": everything.shape[1],
        "windows": {name: len(windows) for name, windows in exam.windows.items()},
        "all_windows": len(everything),
        "predictions": "all tokens of a window but its first; no overlap, no special tokens",
        "questions": {
            "by_text": {name: _digest_of(asked) for name, asked in exam.questions.items()},
            "choices": CHOICES,
            "context_words": CONTEXT_WORDS,
            "continuation_words": list(CONTINUATION_WORDS),
        },
        "sparsity": "removed parameters / non-embedding parameters of the dense model",
        "damping": DAMPING,
        "versions": versions(),
    }


def _digest_of(questions: Sequence[Question]) -> dict[str, Any]:
    words = json.dumps([[q.context, q.choices, q.answer] for q in questions])
    return {"count": len(questions), "sha256": hashlib.sha256(words.encode()).hexdigest()}


def digest(protocol: Protocol) -> str:
    """Twelve hexadecimal digits that change with anything in it."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]


def machine(device: torch.device) -> str:
    """The processor's name and how much of it is used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
