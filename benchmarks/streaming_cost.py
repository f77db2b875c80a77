"""What it costs that a model is larger than the device: the same passes with fewer weights on it.

`python -m benchmarks.streaming_cost --shape SHAPE --device DEVICE`: a Llama of that shape with
random weights, evaluated with all weights on the device, with half of its layers, and with two at a
time; in turn. The losses have to be the same to the last bit.
"""

import gc
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.peak import Peak
from benchmarks.report import Report, Table
from benchmarks.round_cost import FAMILY, made, parser
from benchmarks.stopwatch import timed
from bonsai_core import memory
from bonsai_core.evaluation import mean_nll
from bonsai_core.streaming import Streaming

PASSES = 3
HOST = torch.device("cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    wish = parser(__doc__).parse_args(arguments)
    model, _, sequences = made(wish)
    measure(model, sequences, wish.shape).write(wish.output, torch.device(wish.device))


def measure(model: Any, sequences: Tensor, shape: str) -> Report:
    """The model with less and less of it on the device of its sequences."""
    layers, device = model.model.layers, sequences.device
    layer = _bytes(layers[0])
    beside = _bytes(model) - _bytes(layers)
    budgets = {
        "all layers": beside + len(layers) * layer,
        "half of the layers": beside + max(2, len(layers) // 2) * layer,
        "two layers at a time": beside + 2 * layer,
    }
    found = {name: _measured(model, sequences, budget) for name, budget in budgets.items()}
    whole = found["all layers"]
    values: dict[str, Any] = {
        "shape": shape,
        "layers": len(layers),
        "dtype": str(model.dtype).removeprefix("torch."),
        "sequences": len(sequences),
        "sequence_length": sequences.shape[1],
        "weights_bytes": beside + len(layers) * layer,
        "same_loss": all(run["nll"] == whole["nll"] for run in found.values()),
        "runs": found,
    }
    words = [
        f"Random weights of the shape {shape}, {len(layers)} layers, {values['dtype']}: loss on "
        f"{len(sequences)} sequences of {sequences.shape[1]} tokens. Seconds: the least of "
        f"{PASSES} evaluations after one to warm up. Losses are "
        f"{'the same' if values['same_loss'] else 'NOT the same'} to the last bit.",
    ]
    heads = ["on the device", "layers that come and go", "seconds", "of all layers'", "peak MiB"]
    rows = [
        [
            name,
            run["streamed"],
            run["seconds"],
            run["seconds"] / whole["seconds"],
            round(run["peak_bytes"] / 2**20),
        ]
        for name, run in found.items()
    ]
    title = f"A model larger than the device: {shape}"
    return Report(
        f"streaming-{shape}-{device.type}", title, words, values, [Table("Seconds", heads, rows)]
    )


def _measured(model: Any, sequences: Tensor, budget: int) -> dict[str, Any]:
    """One budget, from the host's memory on; the model is back there afterwards."""
    device = sequences.device
    model.to(HOST)
    gc.collect()
    memory.give_back(device)
    streaming = Streaming(model, model.model, model.model.layers, device, budget)
    peak = Peak(device)
    peak.restart()
    runs = [timed(lambda: mean_nll(model, FAMILY, sequences), device) for _ in range(PASSES + 1)]
    seconds = [run[1].compared(device) for run in runs[1:]]
    for layer in model.model.layers:
        vars(layer).pop("forward", None)
    model.model._forward_pre_hooks.clear()
    return {
        "nll": runs[0][0],
        "seconds": min(seconds),
        "tokens_per_second": sequences.numel() / min(seconds),
        "streamed": streaming.streamed,
        "weights_peak_bytes": streaming.peak,
        "peak_bytes": peak.bytes(),
    }


def _bytes(module: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


if __name__ == "__main__":
    main()
