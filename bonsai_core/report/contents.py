"""What a report says, as plain values: made from manifests and measurements."""

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bonsai_core.config import PruneRequest
from bonsai_core.digests import sha256_of
from bonsai_core.exam import Exam
from bonsai_core.folders import MANIFEST
from bonsai_core.hardware import processor
from bonsai_core.measurement import REPEATS, WRITTEN_TOKENS, Measurement
from bonsai_core.report.command import command_of

FORMAT = 1

_KINDS = {"attention": "attention groups", "mlp": "MLP channels", "experts": "experts"}


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found of one model, or why nothing was."""

    found: Measurement | None = None
    problem: str | None = None


def contents(
    request: PruneRequest,
    folder: Path,
    exam: Exam | None,
    dense: Measured,
    results: Mapping[Path, Measured],
) -> dict[str, Any]:
    """The report of a prune, as `report.json` has it.

    Args:
        request: what was asked.
        folder: of the result; where the target has stops, of the results' folders.
        exam: what the models were asked; None: it could not be made.
        dense: what was found of the dense model.
        results: of each result by its folder, the largest model first.
    """
    manifests = {place: json.loads((place / MANIFEST).read_text()) for place in results}
    first = next(iter(manifests.values()))
    models = [
        _result(request, folder, place, manifests[place], measured)
        for place, measured in results.items()
    ]
    report = {
        "format": FORMAT,
        "title": f"{_name(request)}, pruned by {models[-1]['sparsity']:.1%}",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": request.model_dump(mode="json"),
        "command": command_of(request),
        "source_revision": first["source_revision"],
        "source_sha256": first["source_sha256"],
        "calibration": first["perplexity"]["protocol"],
        "exam": exam and exam.protocol() | _of_speeds(exam),
        "prompts": list(exam.prompts) if exam else [],
        "dense": {
            "name": "dense",
            "perplexity": first["perplexity"]["before"],
            "utilities": first["utilities"]["before"],
            **_measured(dense),
        },
        "results": models,
        "versions": first["versions"],
        "machine": machine(),
    }
    return report | {"knee": knee(report)}


def _name(request: PruneRequest) -> str:
    source = request.model.gguf_file or request.model.source.rstrip("/")
    return source.rpartition("/")[2].removesuffix(".gguf")


def _of_speeds(exam: Exam) -> dict[str, Any]:
    return {
        "speeds": {
            "prompt_tokens": exam.prompt_tokens,
            "written_tokens": WRITTEN_TOKENS,
            "batch": 1,
            "median_of": REPEATS,
        }
    }


def _measured(measured: Measured) -> dict[str, Any]:
    found = measured.found
    return {"measurement": found and asdict(found), "problem": measured.problem}


def _result(
    request: PruneRequest, root: Path, place: Path, manifest: Mapping[str, Any], measured: Measured
) -> dict[str, Any]:
    same = ("architecture", "sparsity", "parameters", "non_embedding_parameters", "rounds")
    return {
        "name": f"{manifest['sparsity']:.1%} pruned",
        "folder": place.relative_to(root).as_posix(),
        "manifest_sha256": sha256_of(place / MANIFEST),
        "formats": [kind.place for kind in request.formats],
        **{key: manifest[key] for key in same},
        "perplexity": manifest["perplexity"]["after"],
        "utilities": manifest["utilities"]["after"],
        "layers": _layers(manifest),
        **_measured(measured),
    }


def _layers(manifest: Mapping[str, Any]) -> list[dict[str, dict[str, int]]]:
    """Of each layer and kind of unit, how many there are and were; experts' channels together."""
    found: dict[int, dict[str, dict[str, int]]] = {}
    for name, before in manifest["units_before"].items():
        number, kind, *_ = name.split(".")
        layer = found.setdefault(int(number), {})
        units = layer.setdefault(_KINDS[kind], {"kept": 0, "before": 0})
        units["kept"] += len(manifest["kept"][name])
        units["before"] += before
    return [found.get(number, {}) for number in range(max(found) + 1)]


def knee(report: Mapping[str, Any]) -> str | None:
    """The result after which quality is lost fastest: the farthest below the line from the dense
    model to the smallest, in parameters and log perplexity; None for fewer than two results."""
    text = _hardest(report)
    models = [report["dense"], *report["results"]]
    if text is None or len(models) < 3:
        return None
    found = [model["measurement"] for model in models]
    xs = [float(one["parameters"]) for one in found]
    ys = [math.log(one["perplexity"][text]) for one in found]
    wide, high = (xs[0] - xs[-1]) or 1.0, (ys[-1] - ys[0]) or 1.0
    gains = [
        (xs[0] - x) / wide - (y - ys[0]) / high for x, y in zip(xs[1:-1], ys[1:-1], strict=True)
    ]
    best = max(range(len(gains)), key=gains.__getitem__)
    return str(report["results"][best]["name"]) if gains[best] > 0 else None


def _hardest(report: Mapping[str, Any]) -> str | None:
    """The text that tells most of the models apart from what they were fitted to: the given one,
    else the calibration's; None where a model was not measured."""
    if any(model["measurement"] is None for model in (report["dense"], *report["results"])):
        return None
    texts: dict[str, Any] = report["dense"]["measurement"]["perplexity"]
    return "given" if "given" in texts else "calibration"


def machine() -> dict[str, Any]:
    """What it was measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
    }
