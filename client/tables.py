"""Jobs as people read them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.table import Table

from client.profiles import Profiles, masked
from client.responses import (
    Attempt,
    Batch,
    BatchSummary,
    Dataset,
    Delivery,
    Duration,
    Estimate,
    Expiries,
    Job,
    Key,
    Model,
    Progress,
    QueuedJob,
    Round,
    Webhook,
    Worker,
    WorkerFit,
)

SHORT_ID = 8
"""Characters of an id in a list: enough to name a job among very many."""

_WHOLE = {"ID", "JOB", "STATE", "ROLE", "KEY", "MASKS", "MB"}
"""Columns that are never broken into lines: ids are copied from them, the others are short."""

_WIDTHS = {"ID": SHORT_ID, "STATE": 10, "PROGRESS": 14, "SPARSITY": 9, "AGE": 6, "PRIORITY": 8}
"""Characters that a column keeps where others give way."""


def _listing(*headings: str, title: str | None = None) -> Table:
    """A line for each thing. What has a `*` takes what room the others leave, and is cut where that
    is too little; where nothing has one, what is long goes on below."""
    gives_way = any(heading.endswith("*") for heading in headings)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title=title,
        expand=gives_way,
    )
    for heading in headings:
        name = heading.rstrip("*")
        if name != heading:
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1)
        else:
            whole, least = gives_way or name in _WHOLE, _WIDTHS.get(name) if gives_way else None
            table.add_column(name, no_wrap=whole, overflow="fold", min_width=least)
    return table


def jobs_table(jobs: Iterable[Job]) -> Table:
    """One line for each job; the names give way where there is no room."""
    table = _listing("ID", "NAME*", "STATE", "PROGRESS", "SPARSITY", "MODEL*", "AGE")
    for job in jobs:
        table.add_row(
            job.id[:SHORT_ID],
            job.name or "",
            job.state,
            _briefly(job),
            f"{job.progress.sparsity:.3f}/{_short_target(job.request.get('target', {}))}",
            _last_part(str(job.request.get("model", {}).get("source", ""))),
            _age(job.created_at),
        )
    return table


def _briefly(job: Job) -> str:
    """As `how_far`, for a list."""
    progress = job.progress
    if job.state == "queued" or not progress.rounds:
        return how_far(job)
    rounds = f"{progress.round}/{progress.rounds}"
    if job.is_final or not progress.masks_per_round:
        return rounds
    return f"{rounds}, {progress.masks_evaluated}/{progress.masks_per_round}"


def _age(at: datetime) -> str:
    """How long ago something was, in its largest unit, such as `3 h`."""
    seconds = (datetime.now(UTC) - at).total_seconds()
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def job_table(job: Job) -> Table:
    """Everything worth knowing of one job, a line for each thing."""
    return _grid(_facts(job))


def _grid(facts: Iterable[tuple[str, str]]) -> Table:
    """A line for each fact that there is something to say about."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        if value:
            table.add_row(name, value)
    return table


def queue_table(jobs: Iterable[QueuedJob]) -> Table:
    """One line for each job that runs or waits; the names give way where there is no room."""
    table = _listing("PLACE", "ID", "NAME*", "OWNER*", "PRIORITY", "MODEL*", "AGE")
    for job in jobs:
        place = f"#{job.position}" if job.position else job.waiting_reason or ""
        table.add_row(
            f"{job.state} on {job.worker}" if job.worker else place,
            job.id[:SHORT_ID],
            job.name or "",
            job.owner,
            job.priority,
            _last_part(job.model),
            _age(job.queued_at),
        )
    return table


def rounds_table(rounds: Iterable[Round]) -> Table:
    """One line for each round of a job."""
    table = _listing("ROUND", "MASKS", "SPARSITY", "PERPLEXITY", "TOOK", "STARTED")
    for each in rounds:
        masks = "" if each.masks is None else f" of {each.masks}"
        table.add_row(
            str(each.number),
            f"{each.masks_evaluated}{masks}",
            "" if each.sparsity is None else f"{each.sparsity:.3f}{'' if each.cut else ' planned'}",
            "" if each.perplexity is None else f"{each.perplexity:.4g}",
            "" if each.seconds is None else duration(each.seconds),
            _moment(each.started_at),
        )
    return table


def models_table(models: Iterable[Model]) -> Table:
    """One line for each model that a job may name."""
    table = _listing("SOURCE", "ARCHITECTURE", "PARAMETERS", "REACHABLE")
    for model in models:
        units = model.units
        table.add_row(
            model.source,
            model.architecture or ", ".join(model.gguf_files),
            f"{units.parameters:,}" if units else "",
            f"{units.reachable_sparsity:.3f}" if units else model.reason or "",
        )
    return table


def model_table(model: Model) -> Table:
    """Everything worth knowing of one model, a line for each thing."""
    units = model.units
    facts = [
        ("source", model.source),
        ("architecture", model.architecture or ""),
        ("stored in", model.dtype or ""),
        ("weights", _size(model.weights_bytes)),
        ("GGUF files", ", ".join(model.gguf_files)),
        ("not prunable" if model.prunable is False else "not known", model.reason or ""),
    ]
    if units:
        facts += [
            (
                "parameters",
                f"{units.parameters:,}, {units.non_embedding_parameters:,} of them not embedding",
            ),
            ("layers", f"{units.layers} of {units.hidden_size}"),
            ("attention", f"{units.attention_groups} groups of {units.heads_per_group} heads"),
            ("MLP channels", f"{units.mlp_channels:,}"),
            ("experts", _number(units.experts or None)),
            ("context", _number(units.context)),
            ("reachable", f"sparsity {units.reachable_sparsity:.4f}"),
        ]
    return _grid(facts)


def _last_part(source: str) -> str:
    """Of a path or a hub id, what people call it by."""
    return source.rstrip("/").rpartition("/")[2]


def estimate_table(estimate: Estimate) -> Table:
    """What a submission would come to, a line for each thing."""
    return _grid(
        [
            ("rounds", _number(estimate.rounds)),
            ("sub-models", _range(estimate.masks_at_least, estimate.masks)),
            ("forward tokens", _number(estimate.forward_tokens)),
            ("device memory", _size(estimate.memory_bytes)),
            ("layer by layer", _size(estimate.streamed_memory_bytes)),
            ("result", _size(estimate.result_bytes)),
            ("checkpoints", _size(estimate.checkpoint_bytes)),
            ("scratch files", _size(estimate.scratch_bytes)),
            ("not known", estimate.unknown or ""),
            *((f"on {each.device}", _expected(each)) for each in estimate.durations),
            ("workers", ", ".join(f"{each.name} ({_fit(each)})" for each in estimate.workers)),
            ("position", _number(estimate.position)),
            ("waits", estimate.waiting_reason or ""),
        ]
    )


def _expected(found: Duration) -> str:
    if found.seconds is None:
        return "how long is not known: no job has told yet"
    of_others = found.basis == "scaled_from_other_models"
    basis = f"models of {_number(found.parameters)} parameters" if of_others else "this model"
    return f"{duration(found.seconds)}, told by {found.jobs} job(s) of {basis}"


def _fit(found: WorkerFit) -> str:
    if not found.fits:
        return "does not fit"
    return "fits" if found.whole else "layer by layer"


def _range(least: int | None, most: int | None) -> str:
    return _number(most) if least in (None, most) else f"{_number(least)} to {_number(most)}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _size(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def batch_table(batch: Batch) -> Table:
    """A line about the batch, and one for each job."""
    counts = ", ".join(f"{count} {state}" for state, count in batch.counts.items())
    title = f"{batch.name or batch.id}: {counts}"
    table = _listing("ID", "NAME", "STATE", "SPARSITY", "MODEL", "ERROR", title=title)
    for job in batch.jobs:
        table.add_row(
            job.id[:SHORT_ID],
            job.name or "",
            job.state,
            f"{job.sparsity:.3f}/{_short_target(job.target)}",
            _last_part(job.model),
            (job.error or {}).get("code", ""),
        )
    return table


def attempts_table(attempts: Iterable[Attempt]) -> Table:
    """One line for each attempt at a job."""
    table = _listing("ATTEMPT", "WORKER", "DEVICE", "STARTED", "ENDED", "WHY", "MASKS", "LAST")
    for attempt in attempts:
        last = attempt.last_mask
        table.add_row(
            str(attempt.number),
            attempt.worker,
            attempt.device,
            _moment(attempt.started_at),
            _moment(attempt.ended_at),
            attempt.outcome or "",
            str(attempt.masks_evaluated),
            f"round {last.round}, trial {last.trial}" if last else "",
        )
    return table


def workers_table(workers: Iterable[Worker]) -> Table:
    """One line for each worker."""
    table = _listing("NAME", "DEVICE", "FREE", "PRESENCE", "JOB", "STARTED", "SEEN")
    for worker in workers:
        table.add_row(
            worker.name,
            worker.device,
            _free(worker),
            worker.presence,
            (worker.job_id or "")[:SHORT_ID],
            _moment(worker.started_at),
            _moment(worker.seen_at),
        )
    return table


def _free(worker: Worker) -> str:
    if worker.free_bytes is None or worker.memory_bytes is None:
        return ""
    return f"{worker.free_bytes / 2**30:.0f} of {worker.memory_bytes / 2**30:.0f} GiB"


def expiries_table(expiries: Expiries) -> Table:
    """One line for each job whose files are not kept any longer."""
    table = _listing("JOB", "NAME", "OWNER", "ENDED", "WHY", "GOES", "MB")
    for expiry in expiries.items:
        table.add_row(
            expiry.job_id[:SHORT_ID],
            expiry.name or "",
            expiry.owner,
            _moment(expiry.finished_at),
            expiry.why,
            "now" if expiry.is_due else _moment(expiry.due_at) or "announced now",
            f"{expiry.size_bytes / 1e6:.1f}",
        )
    return table


def datasets_table(datasets: Iterable[Dataset]) -> Table:
    """One line for each uploaded text."""
    table = _listing("ID", "NAME", "OWNER", "LINES", "SIZE", "UPLOADED")
    for dataset in datasets:
        table.add_row(
            dataset.id,
            dataset.name or "",
            dataset.owner,
            f"{dataset.lines:,}",
            _size(dataset.size_bytes),
            _moment(dataset.created_at),
        )
    return table


def batches_table(batches: Iterable[BatchSummary]) -> Table:
    """One line for each batch; names and states give way where there is no room."""
    table = _listing("ID", "NAME*", "JOBS*", "AGE")
    for batch in batches:
        states = ", ".join(f"{count} {state}" for state, count in batch.counts.items())
        table.add_row(batch.id, batch.name or "", states, _age(batch.created_at))
    return table


def webhooks_table(webhooks: Iterable[Webhook]) -> Table:
    """One line for each webhook."""
    table = _listing("ID", "NAME", "OWNER", "URL, EVENTS", "PRESENCE")
    for webhook in webhooks:
        table.add_row(
            webhook.id,
            webhook.name or "",
            webhook.owner,
            f"{webhook.url}\n{', '.join(webhook.events)}",
            _presence(webhook),
        )
    return table


def webhook_table(webhook: Webhook) -> Table:
    """Everything worth knowing of one webhook, a line for each thing."""
    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("id", webhook.id),
        ("name", webhook.name or ""),
        ("owner", webhook.owner),
        ("url", webhook.url),
        ("events", ", ".join(webhook.events)),
        ("state", _presence(webhook)),
        ("secret", webhook.secret),
        ("old secret until", _moment(webhook.previous_secret_until)),
        ("created", _moment(webhook.created_at)),
    ):
        if value:
            table.add_row(name, value)
    return table


def _presence(webhook: Webhook) -> str:
    if not webhook.enabled:
        return f"disabled: {webhook.disabled_reason}" if webhook.disabled_reason else "disabled"
    since = webhook.failing_since
    return "enabled" if since is None else f"enabled, failing since {_moment(since)}"


def deliveries_table(deliveries: Iterable[Delivery]) -> Table:
    """One line for each message to a webhook."""
    table = _listing("ID", "EVENT", "STATE", "ANSWER", "WHEN")
    for delivery in deliveries:
        table.add_row(
            delivery.id,
            delivery.event,
            delivery.state,
            _answer(delivery),
            _moment(delivery.delivered_at or delivery.next_try_at),
        )
    return table


def _answer(delivery: Delivery) -> str:
    """What came of the last try, and which one that was."""
    if not delivery.attempts:
        return ""
    came = delivery.last_error or delivery.last_status or "none"
    return f"{came}, try {delivery.attempts}"


def keys_table(keys: Iterable[Key]) -> Table:
    """One line for each API key."""
    table = _listing("ID", "NAME", "OWNER", "ROLE", "STATE", "EXPIRES", "LAST USED")
    for key in keys:
        table.add_row(
            key.id,
            key.name,
            key.owner,
            key.role,
            "live" if key.live else "revoked" if key.revoked_at else "expired",
            _moment(key.expires_at) or "never",
            _moment(key.last_used_at) or "never",
        )
    return table


def profiles_table(profiles: Profiles) -> Table:
    """One line for each profile."""
    table = _listing("NAME", "URL", "KEY", "USE")
    for profile in profiles.by_name.values():
        used = "in use" if profile.name == profiles.in_use else ""
        table.add_row(profile.name, profile.url, masked(profile.key), used)
    return table


def how_far(job: Job) -> str:
    """Round and trial, while there are some; of a queued job, what it waits for."""
    progress = job.progress
    if job.state == "queued":
        return f"waits: {job.waiting_reason}" if job.waiting_reason else _position(job)
    if not progress.rounds:
        return ""
    round_of = f"round {progress.round}/{progress.rounds}"
    if job.is_final or not progress.masks_per_round:
        return round_of
    return f"{round_of}, trial {progress.masks_evaluated}/{progress.masks_per_round}"


def _position(job: Job) -> str:
    return f"position {job.position}" if job.position else ""


def duration(seconds: float) -> str:
    """A duration for people, such as `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def time_left(progress: Progress) -> str:
    """The estimate, and what it leaves out."""
    if progress.seconds_left is None:
        return ""
    only = ", of trials alone," if progress.seconds_left_basis == "masks" else ""
    return duration(progress.seconds_left) + only


def perplexities(before: float | None, now: float | None) -> str:
    """How the perplexity on the calibration batch has changed so far."""
    if before is None:
        return ""
    return f"{before:.2f}" if now is None else f"{before:.2f} -> {now:.2f}"


def _facts(job: Job) -> list[tuple[str, str]]:
    progress, request = job.progress, job.request
    return [
        ("id", job.id),
        ("name", job.name or ""),
        ("owner", job.owner),
        ("schedule", _pairs(_said(request.get("schedule", {})))),
        ("labels", ", ".join(f"{key}={value}" for key, value in job.labels.items())),
        ("state", job.state),
        ("stage", "" if job.is_final else progress.stage),
        ("progress", how_far(job)),
        ("sparsity", f"{progress.sparsity:.4f} of {_target(request.get('target', {}))}"),
        ("perplexity", perplexities(progress.perplexity_before, progress.perplexity)),
        ("time left", "" if job.is_final else time_left(progress).rstrip(",")),
        ("attempts", str(job.attempts or "")),
        ("retry of", job.retry_of or ""),
        ("model", str(request.get("model", {}).get("source", ""))),
        ("calibration", str(request.get("calibration", {}).get("source", ""))),
        ("pruning", _pairs(request.get("pruning", {}))),
        ("created", _moment(job.created_at)),
        ("started", _moment(job.started_at)),
        ("finished", _moment(job.finished_at)),
        ("error", failure_of(job)),
        ("result", _pairs(job.result or {})),
    ]


def failure_of(job: Job) -> str:
    """Why a job failed, if it did."""
    if job.error is None:
        return ""
    return f"{job.error.get('code', 'error')}: {job.error.get('detail', '')}"


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_plain(value)}" for key, value in values.items())


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_pairs(value)})"
    if isinstance(value, list):
        return f"[{', '.join(_plain(item) for item in value)}]"
    return str(value)


def _target(target: dict[str, Any]) -> str:
    """How small the result shall be, in the terms it was asked in."""
    match target:
        case {"sparsity": float(share)}:
            return str(share)
        case {"parameters": int(most)}:
            return f"at most {most:,} parameters"
        case {"memory_bytes": int(most)}:
            return f"at most {most:,} bytes in {target.get('dtype') or 'bfloat16'}"
    return "?"


def _short_target(target: dict[str, Any]) -> str:
    """As `_target`, for a list."""
    match target:
        case {"parameters": int(most)}:
            return f"{most / 1e6:,.0f}M"
        case {"memory_bytes": int(most)}:
            return _size(most)
    return _target(target)


def _moment(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
