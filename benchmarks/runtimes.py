"""Whether programs that run models compute what torch does from a result, and how fast.

`python -m benchmarks.runtimes DENSE PRUNED`: both folders are exported, and each program continues
the same prompts, dense and pruned in turn. Tokens that agree with torch's say that the export is
right; the ratios say what pruning gains there.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.llama_cpp import llama_cpp
from benchmarks.report import RESULTS, Report, Table
from bonsai_core.formats.exporter import export
from bonsai_core.formats.names import Format
from bonsai_core.registration import register

PROMPT = "The history of the region is long. " * 200

Run = tuple[list[int], float, float]
"""Tokens written, and tokens read and written in a second."""


class Runtime(Protocol):
    """A model loaded in some program."""

    def timed(self, tokens: Sequence[int], count: int) -> Run: ...


class Torch:
    """transformers, in float32; the same prompt several times side by side."""

    def __init__(self, folder: Path, batch: int) -> None:
        register()
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.batch = batch

    @torch.inference_mode()
    def timed(self, tokens: Sequence[int], count: int) -> Run:
        """Greedy tokens of one of them; speeds of all together."""
        begun = time.perf_counter()
        ids = torch.tensor([list(tokens)] * self.batch)
        found = self.model(ids, use_cache=True, logits_to_keep=1)
        read, written = time.perf_counter(), [found.logits[:, -1:].argmax(-1)]
        while len(written) < count:
            found = self.model(written[-1], past_key_values=found.past_key_values, use_cache=True)
            written.append(found.logits[:, -1:].argmax(-1))
        ended = time.perf_counter()
        first = torch.cat(written, dim=1)[0].tolist()
        prefill = self.batch * len(tokens) / (read - begun)
        return first, prefill, self.batch * (count - 1) / (ended - read)


class Mlx:
    """mlx-lm, on what its build computes with."""

    def __init__(self, folder: Path) -> None:
        from mlx_lm import load  # noqa: PLC0415 - has no build for every platform

        self.model, self.tokenizer = load(str(folder))[:2]

    def timed(self, tokens: Sequence[int], count: int) -> Run:
        """As its own command measures it."""
        from mlx_lm.generate import stream_generate  # noqa: PLC0415

        self.tokenizer._eos_token_ids = set()
        answers = list(stream_generate(self.model, self.tokenizer, list(tokens), count))
        written = [int(answer.token) for answer in answers]
        return written[:count], answers[-1].prompt_tps, answers[-1].generation_tps


@contextmanager
def loaded(kind: str, folder: Path, place: Path, threads: int) -> Iterator[Runtime]:
    """A folder in one of the programs; what it needs is written to `place`."""
    match kind.split():
        case ["llama.cpp", weights]:
            path = place / f"{folder.name}-{weights}.gguf"
            export(folder, Format(f"gguf-{weights}"), path)
            exact = weights == "f32"
            with llama_cpp(path, exact=exact, context=2048, threads=threads) as runtime:
                yield runtime
        case ["mlx"]:
            export(folder, Format.MLX, place / f"{folder.name}-mlx")
            yield Mlx(place / f"{folder.name}-mlx")
        case ["transformers", "batch", size]:
            yield Torch(folder, int(size))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each program, and write."""
    wish = _parser().parse_args(arguments)
    torch.set_num_threads(wish.threads)
    register()
    tokenizer = AutoTokenizer.from_pretrained(wish.pruned)
    prompt = tokenizer.encode(PROMPT, add_special_tokens=False)[: wish.prompt_tokens]
    expected, _, _ = Torch(wish.pruned, 1).timed(prompt, wish.tokens)
    values = {}
    for kind in wish.programs:
        values[kind] = measured(kind, wish, prompt, expected)
        print(kind, values[kind], flush=True)
    _report(wish, values).write(wish.output, torch.device("cpu"))


def measured(
    kind: str, wish: argparse.Namespace, prompt: list[int], expected: list[int]
) -> dict[str, Any]:
    """Dense and pruned in turn in one program."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bonsai-")))
        pair = [
            stack.enter_context(loaded(kind, folder, place, wish.threads))
            for folder in (wish.dense, wish.pruned)
        ]
        for runtime in pair:
            runtime.timed(prompt, 4)  # warm-up
        runs = [[runtime.timed(prompt, wish.tokens) for runtime in pair] for _ in range(wish.pairs)]
    written = runs[0][1][0]
    pairs = list(zip(written, expected, strict=False))
    first = next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))
    return {
        "first_tokens_as_torch": first,
        "tokens": wish.tokens,
        "prefill_dense": statistics.median(dense[1] for dense, _ in runs),
        "prefill_ratio": statistics.median(pruned[1] / dense[1] for dense, pruned in runs),
        "decode_dense": statistics.median(dense[2] for dense, _ in runs),
        "decode_ratio": statistics.median(pruned[2] / dense[2] for dense, pruned in runs),
    }


def _report(wish: argparse.Namespace, values: dict[str, dict[str, Any]]) -> Report:
    rows = [
        [
            kind,
            f"{found['first_tokens_as_torch']} of {found['tokens']}",
            *(found[name] for name in ("prefill_dense", "prefill_ratio")),
            *(found[name] for name in ("decode_dense", "decode_ratio")),
        ]
        for kind, found in values.items()
    ]
    heads = ["program", "first tokens as torch's", "read/s, dense", "ratio", "written/s", "ratio"]
    return Report(
        name=wish.name,
        title="Results in the programs that run models",
        words=[
            f"`{wish.pruned.name}` beside `{wish.dense.name}`, {wish.note or 'no note'}. Each "
            f"reads {wish.prompt_tokens} tokens and writes {wish.tokens}, the likeliest ones; "
            f"{wish.pairs} pairs in turn, medians; {wish.threads} CPU threads. Ratios are pruned "
            "over dense, each of one pair. Torch's tokens are those of float32 weights.",
        ],
        values={"programs": values, "pairs": wish.pairs, "threads": wish.threads},
        tables=[Table("Tokens and speeds", heads, rows)],
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dense", type=Path)
    parser.add_argument("pruned", type=Path)
    parser.add_argument(
        "--programs",
        nargs="+",
        default=[
            "transformers batch 1",
            "transformers batch 8",
            "llama.cpp f32",
            "llama.cpp f16",
            "llama.cpp q8_0",
            "mlx",
        ],
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="runtimes")
    parser.add_argument("--note", default="")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
