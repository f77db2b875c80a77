"""The commands that talk to a service."""

import inspect
import itertools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from client import options
from client.connection import connect
from client.console import messages, print_json, results
from client.errors import ClientError
from client.exit_codes import ExitCode
from client.job_ids import find_job
from client.progress import JobJson, job_display, watch_job
from client.request import (
    absolute,
    given,
    parse_labels,
    parse_metadata,
    parse_utility,
    parse_window,
    prune_request,
    report_wish,
    target,
)
from client.responses import STATES, Artifact, Estimate, Job
from client.service import BonsaiClient
from client.tables import attempts_table, estimate_table, failure_of, job_table, jobs_table


def submit(
    context: typer.Context,
    model: options.ModelArgument,
    calibration: options.Calibration,
    sparsity: options.Sparsity = None,
    stop: options.Stops = None,
    parameters: options.Parameters = None,
    weights: options.Weights = None,
    weights_dtype: options.WeightsDtype = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label; may be repeated.")
    ] = None,
    metadata: options.Metadata = None,
    owner: options.Owner = None,
    priority: options.Priority = None,
    not_before: options.NotBefore = None,
    deadline: options.Deadline = None,
    after: options.After = None,
    window: options.WindowHours = None,
    device_kind: options.DeviceKind = None,
    memory: options.Memory = None,
    gguf_file: options.GgufFile = None,
    revision: options.Revision = None,
    dtype: options.Dtype = None,
    samples: options.Samples = None,
    sequence_length: options.SequenceLength = None,
    preset: options.Preset = None,
    recipe: options.Recipe = None,
    prior: options.Prior = None,
    utility: options.Utility = None,
    masks_per_round: options.MasksPerRound = None,
    sparsity_per_round: options.SparsityPerRound = None,
    improvements: options.Improvements = None,
    own_text: options.OwnText = None,
    samples_per_mask: options.SamplesPerMask = None,
    layout: options.Layout = None,
    experts: options.Experts = None,
    align: options.Align = None,
    tensor_parallel: options.TensorParallel = None,
    refit: options.Refit = None,
    damping: options.Damping = None,
    seed: options.Seed = None,
    formats: options.Formats = None,
    report: options.Report = None,
    report_text: options.ReportText = None,
    prompt: options.Prompts = None,
    idempotency_key: options.IdempotencyKey = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and watch it, as `watch`.")] = False,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Submit nothing, as `validate`.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Submit a pruning job; print its id."""
    request = prune_request(
        model=model,
        calibration=calibration,
        target=target(sparsity, parameters, weights, weights_dtype, stop),
        model_options={"gguf_file": gguf_file, "revision": revision, "dtype": dtype},
        calibration_options={"samples": samples, "sequence_length": sequence_length},
        pruning={
            "preset": preset,
            "recipe": recipe,
            "prior": prior,
            "utility": parse_utility(utility),
            "masks_per_round": masks_per_round,
            "sparsity_per_round": sparsity_per_round,
            "improvements": improvements,
            "own_text": own_text,
            "samples_per_mask": samples_per_mask,
            "layout": layout,
            "experts": experts,
            "align": align,
            "tensor_parallel": tensor_parallel,
            "refit": refit,
            "damping": damping,
            "seed": seed,
        },
        formats=formats,
        report=report_wish(report, report_text, prompt),
    )
    said: dict[str, Any] = {"labels": parse_labels(label or [])}
    if (kept := parse_metadata(metadata)) is not None:
        said["metadata"] = kept
    with connect(context) as client:
        schedule = {
            "priority": priority,
            "not_before": not_before,
            "deadline": deadline,
            "after": after and find_job(client, after),
            "window": parse_window(window),
        }
        needs = {"kind": device_kind, "memory_bytes": memory and int(memory * 2**30)}
        queueing = given(
            {
                "name": name,
                "owner": owner,
                "schedule": given(schedule) or None,
                "device": given(needs) or None,
            }
        )
        if validate_only:
            _print_estimate(client.validate(request, **said, **queueing), as_json=json)
            return
        job = client.submit(request, idempotency_key=idempotency_key, **said, **queueing)
        if watch and json:
            _watch(client, job.id, as_json=True)
        _print_id(job, as_json=json)
        if watch:
            _watch(client, job.id)


def validate(*arguments: Any, **said: Any) -> None:
    """Check a job as `submit` would, and show what it would take; nothing is submitted."""
    submit(*arguments, **{**said, "validate_only": True})


def _take_options(command: Callable[..., None], of: Callable[..., None], *but: str) -> None:
    """Give a command the options of another one, but some."""
    signature = inspect.signature(of)
    kept = [each for name, each in signature.parameters.items() if name not in but]
    vars(command)["__signature__"] = signature.replace(parameters=kept)


_take_options(validate, submit, "validate_only", "watch", "idempotency_key")


def _known_states(incomplete: str) -> list[str]:
    """For completion."""
    return [state for state in STATES if state.startswith(incomplete)]


def list_jobs(
    context: typer.Context,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="queued, running, pausing, paused, cancelling, succeeded, failed or cancelled; "
            "may be repeated.",
            autocompletion=_known_states,
        ),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Only jobs of this owner.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only jobs with this label; may be repeated."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs on this model.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
            help="Only jobs submitted then or later, such as 2026-12-01 (local time).",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="-created_at (default), created_at, -finished_at or finished_at."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most jobs to show.")] = None,
    json: options.Json = False,
) -> None:
    """List jobs, newest first."""
    with connect(context) as client:
        found = client.jobs(
            state=state,
            owner=owner,
            labels=parse_labels(label or []),
            model=model and absolute(model),
            name=name,
            # Without a zone it is this machine's.
            created_after=since and since.astimezone(),
            sort=sort,
        )
        jobs = list(itertools.islice(found, limit))
    if json:
        print_json([job.model_dump(mode="json") for job in jobs])
    else:
        results().print(jobs_table(jobs) if jobs else "no jobs")


def show(context: typer.Context, job: options.JobArgument, json: options.Json = False) -> None:
    """Show one job."""
    with connect(context) as client:
        found = client.job(find_job(client, job))
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        results().print(job_table(found))


def watch(
    context: typer.Context,
    job: options.JobArgument,
    json: Annotated[
        bool, typer.Option("--json", help="Print the job as a line of JSON with each change.")
    ] = False,
) -> None:
    """Watch a job to its end. Exit code: 0 succeeded, 1 failed, 3 cancelled."""
    with connect(context) as client:
        _watch(client, find_job(client, job), as_json=json)


def wait(
    context: typer.Context,
    job: options.JobArgument,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="How long at most (default: to its end)."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Wait until a job has ended, and print how, in one line.

    Exit code: 0 succeeded, 1 failed, 3 cancelled, 124 not ended within the timeout.
    """
    with connect(context) as client:
        found = client.wait(find_job(client, job), timeout_seconds=timeout)
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        state = " ".join(filter(None, [found.id, found.state, failure_of(found)]))
        results().print(" ".join(state.split()), soft_wrap=True)
    raise typer.Exit(ExitCode.of(found))


def pause(context: typer.Context, job: options.JobArgument, json: options.Json = False) -> None:
    """Pause a job; a running one frees its device after the forward pass in flight."""
    with connect(context) as client:
        _print_state(client.pause(find_job(client, job)), as_json=json)


def resume(context: typer.Context, job: options.JobArgument, json: options.Json = False) -> None:
    """Let a paused job go on from what it has evaluated."""
    with connect(context) as client:
        _print_state(client.resume(find_job(client, job)), as_json=json)


def cancel(context: typer.Context, job: options.JobArgument, json: options.Json = False) -> None:
    """Cancel a job; a running one ends after the forward pass in flight."""
    with connect(context) as client:
        _print_state(client.cancel(find_job(client, job)), as_json=json)


def retry(context: typer.Context, job: options.JobArgument, json: options.Json = False) -> None:
    """Queue a job that goes on from what a failed or cancelled one has evaluated; print its id."""
    with connect(context) as client:
        _print_id(client.retry(find_job(client, job)), as_json=json)


def list_attempts(
    context: typer.Context, job: options.JobArgument, json: options.Json = False
) -> None:
    """List the attempts at a job: which worker held it, how far it came, why it let go."""
    with connect(context) as client:
        attempts = client.attempts(find_job(client, job))
    if json:
        print_json([attempt.model_dump(mode="json") for attempt in attempts])
    else:
        results().print(attempts_table(attempts) if attempts else "no attempts")


def download(
    context: typer.Context,
    job: options.JobArgument,
    output: options.Output,
    json: options.Json = False,
) -> None:
    """Download the files of a succeeded job, and check each against its digest."""
    with connect(context) as client:
        found = client.job(find_job(client, job))
        if found.state != "succeeded":
            raise ClientError(f"job {found.id} is {found.state}; files come when it has succeeded")
        paths = _download(client, found, output)
    if json:
        print_json({"folder": str(output), "files": [str(path) for path in paths]})
    else:
        results().print(f"{len(paths)} files in {output}", soft_wrap=True)


def _print_estimate(estimate: Estimate, *, as_json: bool) -> None:
    if as_json:
        print_json(estimate.model_dump(mode="json"))
    else:
        results().print(estimate_table(estimate))


def _print_id(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(job.model_dump(mode="json"))
    else:
        results().print(job.id)


def _print_state(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(job.model_dump(mode="json"))
    else:
        results().print(f"{job.id} {job.state}")


def _watch(client: BonsaiClient, job_id: str, *, as_json: bool = False) -> None:
    """Ends the command with the exit code of the job."""
    console = messages()
    try:
        with JobJson(results()) if as_json else job_display(console) as display:
            job = watch_job(client, job_id, display)
    except KeyboardInterrupt:
        console.print(f"no longer watching; the job goes on (bonsai cancel {job_id} ends it)")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if job.error is not None and not as_json:
        console.print(failure_of(job), soft_wrap=True)
    raise typer.Exit(ExitCode.of(job))


def _download(client: BonsaiClient, job: Job, output: Path) -> list[Path]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=messages()) as bars:
        tasks = {}

        def tell(artifact: Artifact, received: int) -> None:
            if artifact.name not in tasks:
                tasks[artifact.name] = bars.add_task(artifact.name, total=artifact.size_bytes)
            bars.update(tasks[artifact.name], completed=received)

        return client.download(job.id, output, on_bytes=tell)
