"""Shows a job while it runs: bars on a terminal, a line for each change anywhere else, or JSON."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from client.responses import Job
from client.responses import Progress as JobProgress
from client.service import BonsaiClient
from client.tables import how_far, perplexities, time_left


class JobDisplay(Protocol):
    """Something that shows a job, again and again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, job: Job) -> None:
        """Show how the job stands now."""
        ...


def job_display(console: Console) -> JobDisplay:
    """The display that suits where the console writes to."""
    return JobBars(console) if console.is_terminal else JobLines(console)


def watch_job(client: BonsaiClient, job_id: str, display: JobDisplay) -> Job:
    """Show a job until it has ended; the job as it is then."""
    # What has happened already is in the job.
    known = max((event.sequence for event in client.events(job_id)), default=0)
    job = client.job(job_id)
    display.show(job)
    for news in client.watch(job_id, after=known):
        if isinstance(news, JobProgress):
            job = job.model_copy(update={"progress": news})
        else:
            job = client.job(job_id)
        display.show(job)
    return job if job.is_final else client.job(job_id)


class JobBars:
    """Bars for the job as a whole, its rounds and the trials of one, below a line about it."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            *(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}")),
            console=console,
        )
        self._job, self._rounds, self._trials = (
            self._bars.add_task(name, total=None, visible=False, amount="")
            for name in ("job", "rounds", "trials")
        )
        self._about = Text()
        self._live = Live(Group(self._about, self._bars), console=console)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, job: Job) -> None:
        """See `JobDisplay.show`."""
        progress = job.progress
        self._about.plain = describe(job)
        done = rounds_done(job)
        self._update(
            self._job, done, progress.rounds, f"{done / max(progress.rounds, 1):.0%} of all rounds"
        )
        self._update(self._rounds, int(done), progress.rounds)
        trials = 0 if job.is_final else progress.masks_per_round
        self._update(self._trials, progress.masks_evaluated, trials)

    def _update(self, bar: TaskID, done: float, total: int, amount: str | None = None) -> None:
        """What has no total is not shown."""
        self._bars.update(
            bar,
            completed=done,
            total=total or None,
            visible=total > 0,
            amount=amount or f"{done}/{total}",
        )


class _Printing:
    """What needs no beginning and no end."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class JobLines(_Printing):
    """A line whenever the state, the stage or the round is another one."""

    _last: tuple[object, ...] = ()

    def show(self, job: Job) -> None:
        """See `JobDisplay.show`."""
        now = (job.state, job.progress.stage, job.progress.round)
        if now != self._last:
            self._console.print(" ".join(filter(None, [describe(job), how_far(job)])))
            self._last = now


class JobJson(_Printing):
    """The whole job as a line of JSON, whenever anything has changed."""

    def show(self, job: Job) -> None:
        """See `JobDisplay.show`."""
        self._console.print(job.model_dump_json(), soft_wrap=True)


def rounds_done(job: Job) -> float:
    """Rounds that are over, and the share of the current one's trials."""
    progress = job.progress
    if job.state == "succeeded":
        # It may have needed fewer than there might have been.
        return float(progress.rounds)
    trials = progress.masks_evaluated / progress.masks_per_round if progress.masks_per_round else 0
    return min(max(progress.round - 1, 0) + min(trials, 1.0), float(progress.rounds))


def describe(job: Job) -> str:
    """State, sparsity, perplexity, speed and time left, as far as they are known."""
    progress = job.progress
    running = job.state == "running"
    parts = [f"{job.state}, {progress.stage}" if running else job.state]
    if progress.sparsity:
        parts.append(f"sparsity {progress.sparsity:.3f}")
    if progress.perplexity_before is not None:
        parts.append(f"perplexity {perplexities(progress.perplexity_before, progress.perplexity)}")
    if progress.forward_passes_per_second is not None and running:
        parts.append(f"{progress.forward_passes_per_second:.3g} passes/s")
    if running and (left := time_left(progress)):
        parts.append(f"about {left} left")
    return "; ".join(parts)
