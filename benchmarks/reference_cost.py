"""One round of the paper's recipe as this library runs it, against its reference code's structure.

`python -m benchmarks.reference_cost --calibration FILE --evaluation FILE`: the same masks and
tokens for both, in turn, in one run. The structure is that of the reference code at commit 2f911d7,
written here from its description, in its kindest form: a fast tokenizer, WikiText-2's small parts
instead of its training part, no garbage collection and no evaluation of the test part.

- Each evaluation of a mask loads and tokenises both parts of the data again.
- Each masked forward pass computes the Wanda statistic of every gate, in float32.
- Sequences go through one by one, with eager attention and the logits of the whole sequence.
- Each round chooses among 36 regressions by 5 folds: 181 fits (`benchmarks.reference_regression`).
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from benchmarks.first_round import FirstRound
from benchmarks.packages import packaged_model
from benchmarks.reference_regression import regress
from benchmarks.report import RESULTS, Report, Table
from benchmarks.stopwatch import Seconds, clocks, since, timed
from bonsai_core.calibration import calibration_batch, read_text, tokenize
from bonsai_core.config import CalibrationSource
from bonsai_core.gates import Gate, Units
from bonsai_core.masks import applied
from bonsai_core.models import device_named, load
from bonsai_core.seeds import generator
from bonsai_core.utilities.utility import LiveModel

WINDOW = 512
CLOCKS = ("cpu", "wall")


@dataclass
class Parts:
    """Seconds of one side: of each mask, and once in a round."""

    masks: list[dict[str, Seconds]] = field(default_factory=list)
    once: dict[str, Seconds] = field(default_factory=dict)

    def round(self, masks: int) -> dict[str, Seconds]:
        """By part; masks that were not measured cost the mean of those that were."""
        found = dict(self.once)
        for name in self.masks[0]:
            total = sum((mask[name] for mask in self.masks), Seconds())
            found[name] = total * (masks / len(self.masks))
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    wish = _parser().parse_args(arguments)
    device = device_named(wish.device)
    loaded = load(packaged_model(), device)
    source = CalibrationSource(
        source=str(wish.calibration.resolve()), samples=wish.windows, sequence_length=WINDOW
    )
    sequences = calibration_batch(source, loaded.tokenizer, 0).to(device)
    live = LiveModel(loaded.model, loaded.family, loaded.tokenizer, device)
    work = FirstRound(live, loaded.widths, sequences, wish.masks)
    measured = measure(work, [wish.calibration, wish.evaluation], wish.measured)
    _report(work, measured, wish.measured).write(wish.output, device)


@dataclass(frozen=True, slots=True)
class Measured:
    """Both sides of one round, how many regressions the reference made, and how far apart the
    two perplexities of one mask were at most, relative."""

    ours: Parts
    reference: Parts
    fits: int
    apart: float


def measure(work: FirstRound, files: Sequence[Path], count: int) -> Measured:
    """The first `count` masks in turn, everything else of a round once; the model is cut."""
    device, ours, reference, apart = work.live.device, Parts(), Parts(), 0.0
    situation, ours.once["statistics and prior"] = timed(work.situation, device)
    trials, ours.once["candidates and masks"] = timed(
        lambda: work.recipe.propose(situation), device
    )
    reference.once = dict(ours.once)
    work.bench.measure(trials[0])  # warm-up: kernels chosen, memory allocated
    for number in range(count):
        trial = trials[number]
        utility, seconds = timed(lambda trial=trial: work.bench.measure(trial), device)
        ours.masks.append({"masked forward passes": seconds})
        perplexity, parts = reference_evaluation(work, trial.absent, files)
        reference.masks.append(parts)
        apart = max(apart, abs(perplexity + utility) / perplexity)
    # Utilities of the masks that were not measured are made up: linear in the mask, with noise.
    random = generator(0, 1, "utilities")
    utilities = trials.masks @ random.normal(size=trials.masks.shape[1])
    utilities += random.normal(size=len(utilities)) * utilities.std()
    decision, ours.once["regression and choice"] = timed(
        lambda: work.recipe.decide(situation, trials, utilities), device
    )
    (_, fits), reference.once["regression and choice"] = timed(
        lambda: regress(trials.masks, utilities), device
    )
    # Both sides end a round in the same way.
    _, after = timed(lambda: work.end(decision.absent), device)
    ours.once["cut and perplexity of the result"] = after
    reference.once["cut and perplexity of the result"] = after
    return Measured(ours, reference, fits, apart)


@torch.inference_mode()
def reference_evaluation(
    work: FirstRound, absent: Sequence[Units], files: Sequence[Path]
) -> tuple[float, dict[str, Seconds]]:
    """The perplexity of a mask with the structure of the reference code, and what each part took.

    Args:
        work: the model and the tokens.
        absent: units that the mask takes away, by gate.
        files: both parts of the data.
    """
    device, model, total = work.live.device, work.live.model, 0.0
    _, data = timed(
        lambda: [tokenize(read_text(str(path)), work.live.tokenizer) for path in files], device
    )
    spent = [Seconds()]
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")
    start = clocks(device)
    with applied(work.gates, absent), _statistic(work.gates, spent, device):
        for sequence in work.sequences:
            logits = model(input_ids=sequence[None], use_cache=False).logits.float()
            total += float(functional.cross_entropy(logits[0, :-1], sequence[1:]))
    passes = since(start, device) + spent[0] * -1
    model.set_attn_implementation(attention)
    parts = {
        "loading and tokenising": data,
        "masked forward passes": passes,
        "Wanda statistic in them": spent[0],
    }
    return float(np.exp(total / len(work.sequences))), parts


@contextmanager
def _statistic(gates: Sequence[Gate], spent: list[Seconds], device: torch.device) -> Iterator[None]:
    """While open, each gate's score |W| * rms(x) is computed in float32 whenever it is used."""

    def hook(gate: Gate) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def compute(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            start = clocks(device)
            square = inputs[0].float().flatten(0, -2).square().mean(0)
            (gate.output.weight.float().abs() * square.sqrt()).mean(0)
            spent[0] += since(start, device)

        return compute

    handles = [gate.output.register_forward_pre_hook(hook(gate)) for gate in gates]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _report(work: FirstRound, found: Measured, count: int) -> Report:
    masks, tokens = work.pruning.masks_per_round, work.sequences.numel()
    sides = {"ours": found.ours.round(masks), "reference": found.reference.round(masks)}
    totals = {name: sum(parts.values(), Seconds()) for name, parts in sides.items()}
    names = list(dict.fromkeys([*sides["reference"], *sides["ours"]]))
    rows = [
        [
            name,
            *(
                getattr(parts.get(name, Seconds()), clock)
                for parts in sides.values()
                for clock in CLOCKS
            ),
        ]
        for name in names
    ]
    rows.append(
        ["total", *(getattr(total, clock) for total in totals.values() for clock in CLOCKS)]
    )
    device = work.live.device
    ratio = totals["reference"].compared(device) / totals["ours"].compared(device)
    words = [
        "One round of the paper's recipe on the dense SmolLM2-135M-Instruct: "
        f"{masks} masks on {len(work.sequences)} windows of {WINDOW} tokens ({tokens:,} tokens). "
        f"{count} masks were measured, both sides in turn in one run, and multiplied up to "
        f"{masks}; everything else was measured once, whole. What both do alike (the statistics "
        "pass, drawing, cutting) was measured once and counts for both; saving is not counted.",
        f"The reference made {found.fits} regressions. The perplexities of the same mask were "
        f"apart by {found.apart:.1e} at most, relative.",
        f"**The reference's structure takes {ratio:.2f} times as long as ours**, in CPU seconds on "
        "a CPU, whose wall seconds depend on who else is there, and in wall seconds on a GPU.",
    ]
    values = {
        "masks": masks,
        "masks_measured": count,
        "windows": len(work.sequences),
        "window": WINDOW,
        "reference_over_ours": ratio,
        "regressions": found.fits,
        "seconds_of_a_round": {
            side: {name: asdict(seconds) for name, seconds in parts.items()}
            for side, parts in sides.items()
        },
    }
    heads = ["part of a round", *(f"{side}, {clock} s" for side in sides for clock in CLOCKS)]
    name = f"reference-cost-{device.type}-{tokens}-tokens"
    title = f"A round against the reference code's structure, {tokens:,} tokens per mask"
    return Report(name, title, words, values, [Table("Seconds", heads, rows)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--calibration", type=Path, required=True, help="text file, the first part of the data")
    add("--evaluation", type=Path, required=True, help="text file, the second part")
    add("--windows", type=int, default=2, help=f"of {WINDOW} tokens, that each mask is tried on")
    add("--masks", type=int, default=200, help="masks of the round")
    add("--measured", type=int, default=4, help="masks that are measured on both sides")
    add("--device", default="cpu")
    add("--output", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
