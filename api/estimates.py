"""What a submission would come to, as it goes over the wire."""

from collections.abc import Iterable, Sequence
from typing import Self

from api.wire import Wire
from jobs.devices import DeviceKind
from jobs.estimate import Estimate as Spent
from jobs.queue import Fit
from jobs.request import JobRequest
from jobs.schedule import WaitingReason
from jobs.speeds import Basis, durations
from jobs.store import Rehearsal


class Duration(Wire):
    """How long the job would run on one kind of device."""

    device: str
    """What it is, for people, as workers say it."""

    seconds: float | None
    """From the first claim to the last file; null: not known yet."""

    basis: Basis
    """`measured_on_this_model`: by jobs of the same model on this device.
    `scaled_from_other_models`: by jobs of the models there whose size is nearest, with time
    growing as tokens times parameters. `not_known`: no job has run there, or what this one takes
    cannot be told."""

    jobs: int
    """How many jobs that is told from."""

    parameters: int | None
    """Of their models, without embeddings."""


class WorkerFit(Wire):
    """Whether a worker that is there could take the job, now or when it is idle."""

    name: str
    device: str
    device_kind: DeviceKind
    fits: bool
    whole: bool
    """Whether all weights could stay on its device, rather than come layer by layer."""

    @classmethod
    def of(cls, fit: Fit) -> Self:
        """The fit of a worker's row."""
        row = fit.worker
        kind = DeviceKind(row.device_kind)
        return cls(
            name=row.name, device=row.device, device_kind=kind, fits=fit.fits, whole=fit.whole
        )


class Estimate(Wire):
    """What a submission would come to. Nothing has been stored."""

    request: JobRequest
    """What would be asked, with every default written out."""

    rounds: int | None
    """At most."""

    masks: int | None
    """Sub-models to try, at most."""

    masks_at_least: int | None
    forward_tokens: int | None
    """At most: tokens through all layers of the dense model, of trials, statistics and repair."""

    parameters: int | None
    """Of the dense model, without embeddings."""

    memory_bytes: int | None
    """Peak on its device, with all weights there."""

    streamed_memory_bytes: int | None
    """Peak on its device, with the layers coming one by one."""

    result_bytes: int | None
    """Weights of the smaller model."""

    checkpoint_bytes: int | None
    """What is kept of the rounds until the job's files expire."""

    scratch_bytes: int | None
    """Files of the worker while the job runs, at most."""

    unknown: str | None
    """Why some of these are null, in words."""

    durations: list[Duration]
    """On each kind of device among the workers that could take it."""

    workers: list[WorkerFit]
    """Those that are there, by name."""

    position: int | None
    """Place in the queue, from 1; null for one that would wait for a reason."""

    waiting_reason: WaitingReason | None
    """Why a free worker would not take it; null: it would."""

    @classmethod
    def of(cls, request: JobRequest, spent: Spent, rehearsal: Rehearsal) -> Self:
        """The estimate of a checked request."""
        budget, disk, needs = spent.budget, spent.disk, request.device
        found = durations(
            rehearsal.samples,
            model=request.model.source,
            parameters=spent.parameters,
            forward_tokens=budget.forward_tokens if budget else None,
            devices=_devices(rehearsal.fits),
        )
        return cls(
            request=request,
            rounds=budget and budget.rounds,
            masks=budget and budget.trials,
            masks_at_least=budget and budget.trials_at_least,
            forward_tokens=budget and budget.forward_tokens,
            parameters=spent.parameters,
            memory_bytes=needs.memory_bytes,
            streamed_memory_bytes=needs.streamed_memory_bytes,
            result_bytes=disk and disk.result,
            checkpoint_bytes=disk and disk.checkpoints,
            scratch_bytes=disk and disk.scratch,
            unknown=spent.unknown,
            durations=[Duration.model_validate(each) for each in found],
            workers=[WorkerFit.of(fit) for fit in rehearsal.fits],
            position=rehearsal.place.position,
            waiting_reason=rehearsal.place.reason,
        )


class BatchEstimate(Wire):
    """What the submission of a batch would come to. Nothing has been stored."""

    jobs: list[Estimate]
    """In the order of the request, each where it would stand among the others."""

    masks: int | None
    """Of all jobs, at most; null where one of them is not known."""

    forward_tokens: int | None
    """Of all jobs, at most."""

    disk_bytes: int | None
    """Of all jobs: their results and what is kept of their rounds."""

    @classmethod
    def of(cls, jobs: Sequence[Estimate]) -> Self:
        """The estimates of its jobs, and their sums."""
        return cls(
            jobs=list(jobs),
            masks=_sum(job.masks for job in jobs),
            forward_tokens=_sum(job.forward_tokens for job in jobs),
            disk_bytes=_sum(
                size for job in jobs for size in (job.result_bytes, job.checkpoint_bytes)
            ),
        )


def _devices(fits: Sequence[Fit]) -> list[str]:
    return sorted({fit.worker.device for fit in fits if fit.fits})


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
