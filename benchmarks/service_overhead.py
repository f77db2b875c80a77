"""What the service costs beside the pruning itself, on the same job.

`python -m benchmarks.service_overhead --calibration FILE`: the job runs in a fresh process as
`bonsai prune` runs it, and then on a service of its own (PostgreSQL, Valkey, one worker), again and
again in turn. A service's seconds are those from the submission to the published result.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.packages import packaged_model
from benchmarks.report import RESULTS, Report, Table
from bonsai_core.config import CalibrationSource, ModelSource, PruneRequest, Pruning, Target
from bonsai_core.file_ledger import FileLedger
from bonsai_core.pruner import prune
from client.embedded.stack import EmbeddedStack
from jobs.connections import connect
from jobs.doorbell import Doorbell
from jobs.request import JobRequest
from jobs.settings import Settings
from jobs.states import JobState
from jobs.store import JobStore
from migrations import upgrade

BARE = "--bare"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in turn, and write."""
    given = sys.argv[1:] if arguments is None else arguments
    if list(given[:1]) == [BARE]:
        request, output = given[1:]
        run_bare(PruneRequest.model_validate_json(request), Path(output))
        return
    wish = _parser().parse_args(given)
    request = _request(wish)
    pairs = []
    with tempfile.TemporaryDirectory(prefix="bonsai-") as folder, service(Path(folder)) as settings:
        for number in range(wish.pairs):
            bare = bare_seconds(request, Path(folder) / f"bare-{number}")
            pairs.append((bare, service_seconds(request, settings)))
            print(f"bare {pairs[-1][0]:.1f} s, service {pairs[-1][1]:.1f} s", flush=True)
    _report(wish, request, pairs).write(wish.output, torch.device("cpu"))


def run_bare(request: PruneRequest, output: Path) -> None:
    """What the child of a worker does, with nobody around it."""
    prune(request, output, ledger=FileLedger(output.with_name(f"{output.name}.ledger")))


def bare_seconds(request: PruneRequest, output: Path) -> float:
    """Of a fresh process, from its start to its end."""
    command = [sys.executable, "-m", "benchmarks.service_overhead", BARE]
    started = time.perf_counter()
    subprocess.run([*command, request.model_dump_json(), str(output)], check=True)
    return time.perf_counter() - started


def service_seconds(request: PruneRequest, settings: Settings) -> float:
    """From the submission to the end."""
    engine, doorbell = connect(settings), Doorbell(settings)
    store = JobStore(engine)
    started = time.perf_counter()
    job = store.submit(JobRequest.model_validate(request.model_dump(mode="json")))
    doorbell.ring(job.id)
    while job.finished_at is None:
        time.sleep(0.05)
        job = store.show(job.id)
    seconds = time.perf_counter() - started
    if job.state != JobState.SUCCEEDED:
        raise SystemExit(f"the job {job.state}: {job.error}")
    doorbell.close()
    engine.dispose()
    return seconds


@contextlib.contextmanager
def service(folder: Path) -> Iterator[Settings]:
    """Servers and a worker, with the settings of a real service."""
    with EmbeddedStack(folder / "data", durable=True) as stack:
        upgrade(stack.database_url)
        settings = Settings(
            database_url=stack.database_url, redis_url=stack.redis_url, data_dir=folder / "files"
        )
        environment = {
            "BONSAI_DATABASE_URL": settings.database_url,
            "BONSAI_REDIS_URL": settings.redis_url,
            "BONSAI_DATA_DIR": str(settings.data_dir),
        }
        with (folder / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker"],
                env=os.environ | environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield settings
        finally:
            worker.terminate()
            worker.wait()


def _request(wish: argparse.Namespace) -> PruneRequest:
    source = ModelSource(source=wish.model) if wish.model else packaged_model()
    return PruneRequest(
        model=source,
        calibration=CalibrationSource(
            source=str(wish.calibration.resolve()),
            samples=wish.samples,
            sequence_length=wish.window,
        ),
        target=Target(sparsity=0.2),
        pruning=Pruning(improvements=1),
    )


def _report(
    wish: argparse.Namespace, request: PruneRequest, pairs: Sequence[tuple[float, float]]
) -> Report:
    ratios = [service / bare for bare, service in pairs]
    ratio = statistics.median(ratios)
    words = [
        f"{request.model.gguf_file or Path(request.model.source).name}, preset best with "
        f"{request.pruning.improvements} improvement, {wish.samples} sequences of {wish.window} "
        f"tokens, to {request.target.sparsity:.0%}; {wish.pairs} pairs in turn, "
        f"{torch.get_num_threads()} threads.",
        f"The median of the pairs' ratios is {ratio:.3f}.",
    ]
    rows = [[bare, service, service / bare] for bare, service in pairs]
    values = {"seconds": [list(pair) for pair in pairs], "ratio": ratio}
    table = Table("Seconds of each pair", ["bare core", "service", "ratio"], rows)
    return Report("service-overhead", "The service beside the bare core", words, values, [table])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service_overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--calibration", type=Path, required=True, help="a .txt or .jsonl file")
    add("--model", help="a folder; the packaged model if absent")
    add("--samples", type=int, default=16)
    add("--window", type=int, default=512, help="tokens of a sequence")
    add("--pairs", type=int, default=3)
    add("--output", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
