"""What a round costs beside its forward passes, and what the memory of a prune is.

`python -m benchmarks.round_cost --shape SHAPE --device DEVICE`: a Llama of that shape with random
weights; plain and masked forward passes in turn, then each other part of a round once. Results go
to benchmarks/results as JSON and Markdown, with hardware and versions.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bonsai_core.config import Layout, Prior
from bonsai_core.evaluation import mean_nll
from bonsai_core.families import FAMILIES, Widths, widths_of
from bonsai_core.gates import Gate, gates_of
from bonsai_core.importance import fit
from bonsai_core.masks import applied, draw, split
from bonsai_core.models import non_embedding_parameters, parameters
from bonsai_core.priors import unit_scores
from bonsai_core.refit import refitted
from bonsai_core.seeds import generator
from bonsai_core.selection import GateShape, choose_candidates, select
from bonsai_core.statistics import column_statistics
from bonsai_core.surgery import cut
from bonsai_core.versions import versions

RESULTS = Path(__file__).parent / "results"
FAMILY = FAMILIES["LlamaForCausalLM"]
MASKS = 200
SHARE = 0.05
PASSES = 7

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


@dataclass(frozen=True)
class Cost:
    """Seconds of the parts of one round, and bytes."""

    shape: str
    device: str
    dtype: str
    parameters: int
    non_embedding_parameters: int
    sequences: int
    sequence_length: int
    candidates: int
    plain_pass_seconds: float
    masked_pass_seconds: float
    masked_over_plain: float
    tokens_per_second_masked: float
    statistics_seconds: float
    prior_and_candidates_seconds: float
    draw_seconds: float
    fit_seconds: float
    select_seconds: float
    refit_seconds: float
    cut_seconds: float
    round_seconds: float
    share_of_masked_passes: float
    weights_bytes: int
    peak_bytes_masked: int | None
    peak_bytes_round: int | None


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--output", type=Path, default=RESULTS)
    wish = parser.parse_args()
    cost = measure(
        wish.shape, torch.device(wish.device), wish.dtype, wish.sequences, wish.sequence_length
    )
    write(cost, wish.output)


@torch.inference_mode()
def measure(shape: str, device: torch.device, dtype: str, count: int, length: int) -> Cost:
    """One round of a random model, part by part."""
    model, widths = random_model(shape, device, getattr(torch, dtype))
    gates = gates_of(model, FAMILY, widths)
    vocabulary = model.config.vocab_size
    random = torch.Generator(device).manual_seed(0)
    sequences = torch.randint(vocabulary, (count, length), generator=random, device=device)
    weights_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    budget = round(SHARE * non_embedding_parameters(model))

    moments, statistics_seconds = timed(
        device, lambda: column_statistics(model.model, gates, sequences)
    )
    (scores, shapes, candidates), prior_seconds = timed(
        device, lambda: prior_and_candidates(gates, moments, budget)
    )
    masks, draw_seconds = timed(
        device, lambda: draw(candidates, scores, MASKS, generator(0, 1, "masks"))
    )
    plain, masked = passes(model, gates, sequences, split(masks[0], candidates))
    peak_masked = peak(device)
    utilities = np.random.default_rng(0).normal(size=MASKS)
    found, fit_seconds = timed(device, lambda: fit(masks, utilities))
    ends = np.cumsum([len(units) for units in candidates])[:-1]
    removed, select_seconds = timed(
        device,
        lambda: select(
            shapes,
            candidates,
            np.split(-found.coefficients, ends),
            budget,
            layout=Layout.PER_LAYER,
            align=1,
        ),
    )
    _, refit_seconds = timed(device, lambda: refitted(model.model, gates, removed, sequences))
    before = parameters(model), non_embedding_parameters(model)
    _, cut_seconds = timed(
        device, lambda: [cut(gate, units) for gate, units in zip(gates, removed, strict=True)]
    )
    rest = (statistics_seconds + prior_seconds + draw_seconds + fit_seconds + select_seconds) + (
        refit_seconds + cut_seconds + plain
    )
    return Cost(
        shape=shape,
        device=device_name(device),
        dtype=dtype,
        parameters=before[0],
        non_embedding_parameters=before[1],
        sequences=count,
        sequence_length=length,
        candidates=masks.shape[1],
        plain_pass_seconds=plain,
        masked_pass_seconds=masked,
        masked_over_plain=masked / plain,
        tokens_per_second_masked=sequences.numel() / masked,
        statistics_seconds=statistics_seconds,
        prior_and_candidates_seconds=prior_seconds,
        draw_seconds=draw_seconds,
        fit_seconds=fit_seconds,
        select_seconds=select_seconds,
        refit_seconds=refit_seconds,
        cut_seconds=cut_seconds,
        round_seconds=MASKS * masked + rest,
        share_of_masked_passes=MASKS * masked / (MASKS * masked + rest),
        weights_bytes=weights_bytes,
        peak_bytes_masked=peak_masked,
        peak_bytes_round=peak(device),
    )


def random_model(shape: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Widths]:
    """A Llama with random weights, made on the device."""
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=8192)
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


def prior_and_candidates(gates: list[Gate], moments: list[Any], budget: int) -> Any:
    """Scores, shapes and candidates of a round."""
    random = generator(0, 1, "prior")
    scores = [
        unit_scores(Prior.WANDA, gate.output.weight, moment, gate.columns, random)
        for gate, moment in zip(gates, moments, strict=True)
    ]
    shapes = [GateShape(gate.kind, gate.units, gate.price) for gate in gates]
    candidates = choose_candidates(shapes, scores, budget, layout=Layout.PER_LAYER, align=1)
    return scores, shapes, candidates


def passes(model: Any, gates: list[Gate], sequences: Any, absent: Any) -> tuple[float, float]:
    """Median seconds of a plain and a masked evaluation, taken in turn after a warm-up."""
    plain, masked = [], []
    for number in range(PASSES + 1):
        _, seconds = timed(sequences.device, lambda: mean_nll(model, FAMILY, sequences))
        with applied(gates, absent):
            _, masked_seconds = timed(sequences.device, lambda: mean_nll(model, FAMILY, sequences))
        if number:
            plain.append(seconds)
            masked.append(masked_seconds)
    return statistics.median(plain), statistics.median(masked)


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and its wall time with the device waited for."""
    wait(device)
    started = time.perf_counter()
    value = work()
    wait(device)
    return value, time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Wait for all work on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device) -> int | None:
    """Most bytes allocated on the device so far; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def device_name(device: torch.device) -> str:
    """The name of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def write(cost: Cost, folder: Path) -> None:
    """JSON for machines, Markdown for people."""
    folder.mkdir(parents=True, exist_ok=True)
    values = asdict(cost)
    name = f"round-cost-{cost.shape}-{'cpu' if 'CPU' in cost.device else 'cuda'}"
    stamp = {"date": datetime.now(UTC).date().isoformat(), "versions": versions()}
    (folder / f"{name}.json").write_text(json.dumps({**stamp, **values}, indent=2) + "\n")
    rows = [f"| {key} | {shown(value)} |" for key, value in {**stamp, **values}.items()]
    head = [
        f"# Cost of a round: {cost.shape}",
        "",
        f"Random weights, {MASKS} masks, {SHARE:.0%} of the parameters, one run. Passes: medians "
        f"of {PASSES}, plain and masked in turn; the other parts once; `round_seconds` adds up.",
        "",
        "| what | value |",
        "| --- | --- |",
    ]
    (folder / f"{name}.md").write_text("\n".join([*head, *rows]) + "\n")
    print("\n".join(rows))


def shown(value: object) -> str:
    """A value in a table."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


if __name__ == "__main__":
    main()
