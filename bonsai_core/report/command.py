"""The command line that does a prune again."""

import json
import shlex
from collections.abc import Iterator

from bonsai_core.config import DType, PruneRequest, Pruning
from bonsai_core.target import Target

_GIB = 2**30
_DATASET = "dataset:"
"""Before the id of a text that was uploaded to a service: only the service can read it."""


def command_of(request: PruneRequest) -> str:
    """`bonsai prune ...`, or `bonsai submit ...` where the text was uploaded to a service.

    Settings that the preset decides are left out.
    """
    uploaded = request.calibration.source.startswith(_DATASET)
    words = ["bonsai", "submit" if uploaded else "prune", request.model.source, *_words(request)]
    return shlex.join(words if uploaded else [*words, "--output", "pruned"])


def _words(request: PruneRequest) -> Iterator[str]:
    model, calibration = request.model, request.calibration
    if model.gguf_file is not None:
        yield from ("--gguf-file", model.gguf_file)
    if model.revision is not None:
        yield from ("--revision", model.revision)
    if model.dtype is not DType.AUTO:
        yield from ("--dtype", model.dtype)
    yield from ("--calibration", calibration.source, "--samples", str(calibration.samples))
    yield from ("--sequence-length", str(calibration.sequence_length))
    yield from _target(request.target)
    yield from _pruning(request.pruning)
    for kind in request.formats:
        yield from ("--format", kind)
    if not request.report.enabled:
        yield "--no-report"
    if request.report.text is not None:
        yield from ("--report-text", request.report.text)
    for prompt in request.report.prompts:
        yield from ("--prompt", prompt)


def _target(target: Target) -> Iterator[str]:
    if target.memory_bytes is None:
        yield from (f"--{target.field.rpartition('.')[2]}", str(target.value))
        yield from (word for stop in target.stops for word in ("--stop", _plain(stop)))
        return
    # A power of two divides without loss, so that the same number of bytes comes back.
    yield from ("--weights", str(target.memory_bytes / _GIB))
    yield from (word for stop in target.stops for word in ("--stop", str(stop / _GIB)))
    if target.dtype is not None:
        yield from ("--weights-dtype", target.dtype)


def _plain(number: float) -> str:
    return str(int(number) if number == int(number) else number)


def _pruning(pruning: Pruning) -> Iterator[str]:
    yield from ("--preset", pruning.preset)
    usual = Pruning(preset=pruning.preset).model_dump(mode="json")
    for name, value in pruning.model_dump(mode="json").items():
        option = name.replace("_", "-")
        if value == usual[name]:
            continue
        if isinstance(value, bool):
            yield f"--{option}" if value else f"--no-{option}"
        else:
            yield from (f"--{option}", value if isinstance(value, str) else json.dumps(value))
