"""What a masked evaluation costs beside a plain one, and a round beside its masked evaluations.

`python -m benchmarks.round_cost --shape SHAPE --device DEVICE`: a Llama of that shape with random
weights; plain and masked evaluations of the same tokens in turn, then each other part of a round of
the paper's recipe once, and what a repair needs. A whole run of any preset is measured by
`benchmarks.whole_run`.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.first_round import FirstRound
from benchmarks.report import RESULTS, Report, Table
from benchmarks.stopwatch import Seconds, timed
from bonsai_core import elimination
from bonsai_core.families import FAMILIES, GateKind, Widths, widths_of
from bonsai_core.gates import Gate
from bonsai_core.models import non_embedding_parameters, parameters
from bonsai_core.recipe import Trial
from bonsai_core.refit import repaired
from bonsai_core.second_moments import SecondMoments, gather
from bonsai_core.seeds import generator
from bonsai_core.utilities.utility import LiveModel

FAMILY = FAMILIES["LlamaForCausalLM"]
MASKS = 200
PASSES = 7
DAMPING = 1e-3
MATRIX = {"cpu": 2048, "cuda": 8192}
"""Rows of the matrices whose product tells how fast a device can be."""
REPAIRED_SHARE = 1 / 4
"""Of a gate's units, in the repair that is measured."""

SHAPES = {
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "llama-2-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    },
    "llama-3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    wish = parser(__doc__).parse_args(arguments)
    device = torch.device(wish.device)
    model, widths, sequences = made(wish)
    live = LiveModel(model, FAMILY, None, device)
    measure(FirstRound(live, widths, sequences, MASKS), wish.shape).write(wish.output, device)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Of what measures passes of random weights over random tokens."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--layers", type=int, help="so many layers of the shape instead of all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


def made(wish: argparse.Namespace) -> tuple[Any, Widths, Tensor]:
    """The model, its widths, and tokens [N, S] on the device."""
    device = torch.device(wish.device)
    model, widths = random_model(wish.shape, device, getattr(torch, wish.dtype), wish.layers)
    random = torch.Generator(device).manual_seed(0)
    size = (wish.sequences, wish.sequence_length)
    tokens = torch.randint(model.config.vocab_size, size, generator=random, device=device)
    return model, widths, tokens


def measure(work: FirstRound, shape: str) -> Report:
    """One round of a random model, part by part; it ends cut."""
    device, model, tokens = work.live.device, work.live.model, work.sequences.numel()
    size = {
        "parameters": parameters(model),
        "non_embedding_parameters": non_embedding_parameters(model),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "sequences": len(work.sequences),
        "sequence_length": work.sequences.shape[1],
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
    }
    parts: dict[str, Seconds] = {}
    situation, parts["statistics and prior"] = timed(work.situation, device)
    trials, parts["candidates and masks"] = timed(lambda: work.recipe.propose(situation), device)
    plain, masked, ratio = passes(work, trials[0])
    peak_of_masks = peak(device)
    repairs = repair_parts(work)
    utilities = generator(0, 1, "utilities").normal(size=len(trials))
    decision, parts["regression and choice"] = timed(
        lambda: work.recipe.decide(situation, trials, utilities), device
    )
    _, parts["cut and perplexity of the result"] = timed(lambda: work.end(decision.absent), device)
    flops = flops_of_a_token(work)
    rate = matrix_rate(device, next(model.parameters()).dtype)
    values: dict[str, Any] = {
        **{"shape": shape, **size, "masks": len(trials), "candidates": trials.masks.shape[1]},
        "plain_pass": asdict(plain),
        "masked_pass": asdict(masked),
        "masked_over_plain": ratio,
        "masked_tokens_per_second": tokens / masked.wall,
        "flops_per_token": flops,
        "matrix_product_flops_per_second": rate,
        "plain_utilization": flops * tokens / plain.wall / rate,
        "masked_utilization": flops * tokens / masked.wall / rate,
        "other_parts_of_the_round": {name: asdict(seconds) for name, seconds in parts.items()},
        "share_of_other_parts": share(parts, masked * len(trials), device),
        "repair": {name: asdict(seconds) for name, seconds in repairs.items()},
        "peak_bytes_of_masked_passes": peak_of_masks,
        "peak_bytes": peak(device),
    }
    return report(values, parts | {f"for repairs: {name}": repairs[name] for name in repairs})


def flops_of_a_token(work: FirstRound) -> float:
    """Of a pass, as the model's form asks for them: 2 for each weight, and attention's products.

    A position attends to half of a sequence on average.
    """
    model = work.live.model
    weights = parameters(model)
    if not model.config.tie_word_embeddings:
        weights -= model.get_input_embeddings().weight.numel()
    attended = sum(
        gate.output.in_features for gate in work.gates if gate.kind is GateKind.ATTENTION
    )
    return 2 * weights + 4 * attended * work.sequences.shape[1] / 2


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second in the best of some products of large square matrices."""
    size = MATRIX[device.type]
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = [timed(lambda: one @ other, device)[1].wall for _ in range(PASSES + 1)]
    return float(2 * size**3 / min(seconds[1:]))


def share(parts: dict[str, Seconds], masks: Seconds, device: torch.device) -> float:
    """What a round spends on anything but masked passes."""
    others = sum(parts.values(), Seconds()).compared(device)
    return others / (others + masks.compared(device))


def passes(work: FirstRound, trial: Trial) -> tuple[Seconds, Seconds, float]:
    """Medians of a plain and of a masked evaluation, taken in turn after a warm-up; their ratio."""
    device = work.live.device
    plain, masked = [], []
    for number in range(PASSES + 1):
        _, without = timed(work.mixture.measure, device)
        _, under = timed(lambda: work.bench.measure(trial), device)
        if number:
            plain.append(without)
            masked.append(under)
    ratios = [
        under.compared(device) / without.compared(device)
        for without, under in zip(plain, masked, strict=True)
    ]
    return _median(plain), _median(masked), statistics.median(ratios)


def _median(found: Sequence[Seconds]) -> Seconds:
    return Seconds(
        statistics.median(seconds.cpu for seconds in found),
        statistics.median(seconds.wall for seconds in found),
    )


def repair_parts(work: FirstRound) -> dict[str, Seconds]:
    """What the presets with repair need: once for a run, and for each gate that a trial changes."""
    device, found = work.live.device, {}
    with tempfile.TemporaryDirectory(prefix="bonsai-") as folder:
        moments, found["second moments of all gates, with their pass"] = timed(
            lambda: gather(work.blocks, work.gates, Path(folder)), device
        )
        work.blocks.forget()
        for kind in (GateKind.ATTENTION, GateKind.MLP):
            number = next(n for n, gate in enumerate(work.gates) if gate.kind is kind)
            gate = work.gates[number]
            gates = sum(other.kind is kind for other in work.gates)
            _, seconds = timed(lambda gate=gate: _order(gate, moments), device)
            found[f"order of elimination, all {kind} gates (one measured)"] = seconds * gates
            gone = torch.zeros(gate.output.in_features, dtype=torch.bool, device=device)
            gone[: round(len(gone) * REPAIRED_SHARE)] = True
            _, found[f"repair of one {kind} gate"] = timed(
                lambda gate=gate, gone=gone: _repair(gate, moments, gone), device
            )
    return found


def _order(gate: Gate, moments: SecondMoments) -> Any:
    return elimination.scores(moments.weight(gate), moments.of(gate), gate.columns, DAMPING)


def _repair(gate: Gate, moments: SecondMoments, gone: Tensor) -> Tensor:
    return repaired(moments.weight(gate), moments.of(gate), gone, DAMPING)


def random_model(
    shape: str, device: torch.device, dtype: torch.dtype, layers: int | None = None
) -> tuple[Any, Widths]:
    """A Llama with random weights, made on the device; with its first layers only if so asked."""
    architecture = "LlamaForCausalLM"
    sizes = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    config = LlamaConfig(**sizes, max_position_embeddings=8192, architectures=[architecture])
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    # The rotary table is not a parameter and keeps its float32.
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    with device:
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    random = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.fill_(1)
        else:
            parameter.normal_(0, 0.02, generator=random)
    model.tie_weights()
    return model, widths_of(config.to_dict())


def peak(device: torch.device) -> int | None:
    """Most bytes allocated on the device so far; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def report(values: dict[str, Any], parts: dict[str, Seconds]) -> Report:
    """In words and tables."""
    words = [
        f"Random weights, {values['masks']} masks of the paper's recipe, 5 % of the parameters, "
        f"one run. Passes: medians of {PASSES}, plain and masked in turn; the other parts once. "
        "Ratios are of CPU seconds on a CPU, of wall seconds on a GPU.",
        f"**A masked evaluation takes {values['masked_over_plain']:.3f} of a plain one of the same "
        f"tokens; all else takes {values['share_of_other_parts']:.1%} of the round. Masked passes "
        f"reach {values['masked_utilization']:.2f} of the rate of large matrix products on the "
        f"device, {values['matrix_product_flops_per_second'] / 1e12:.3g} TFLOP/s.**",
    ]
    rows = [[name, seconds.cpu, seconds.wall] for name, seconds in parts.items()]
    rows = [
        ["plain evaluation", *values["plain_pass"].values()],
        ["masked evaluation", *values["masked_pass"].values()],
        *rows,
    ]
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    tables = [
        Table("Seconds", ["part", "CPU", "wall"], rows),
        Table("Values", ["what", "value"], list(plain.items())),
    ]
    device = "cuda" if values["peak_bytes"] else "cpu"
    name = f"round-cost-{values['shape']}-{device}"
    return Report(name, f"Cost of a round: {values['shape']}", words, values, tables)


if __name__ == "__main__":
    main()
