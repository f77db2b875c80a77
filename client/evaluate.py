"""`bonsai evaluate` and `bonsai compare`: models put to the same exam, in this process."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from bonsai_core.config import ModelSource
from bonsai_core.digests import sha256_of
from bonsai_core.errors import PruneError
from bonsai_core.exam import Exam
from bonsai_core.harness import Harness, TaskScore
from bonsai_core.measurement import REPEATS, WRITTEN_TOKENS, Measurement, compare
from bonsai_core.versions import versions
from client.console import print_json, results
from client.errors import ClientError

_TEXT = "text"


def run_evaluate(
    models: Sequence[Mapping[str, Any]],
    text: Path,
    *,
    window: int,
    windows: int | None,
    tasks: Mapping[str, Any],
    device: str,
    as_json: bool,
) -> None:
    """Measure and print; `windows` None means the whole text, `tasks` what a `Harness` takes."""
    text = text.expanduser().resolve()
    try:
        sources = [ModelSource.model_validate(model) for model in models]
        harness = Harness(**tasks) if tasks else None
        exam, found = compare(
            sources, text, window=window, windows=windows, device=device, harness=harness
        )
    except ValidationError as error:
        faults = [f"model.{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        raise ClientError("\n".join(faults)) from error
    except PruneError as error:
        raise ClientError(str(error)) from error
    digest = sha256_of(text)
    if as_json:
        rows = [
            {"model": source.source, **_flat(exam, one), "text_sha256": digest}
            for source, one in zip(sources, found, strict=True)
        ]
        print_json(rows[0] if len(rows) == 1 else rows)
        return
    results().print(_table([source.source for source in sources], found))
    results().print(_protocol(exam, found[0], digest), soft_wrap=True)


def _flat(exam: Exam, found: Measurement) -> dict[str, Any]:
    """A measurement on one text, with its protocol."""
    count, window = exam.texts[0].windows.shape
    return {
        **{key: value for key, value in asdict(found).items() if key != "completions"},
        "perplexity": found.perplexity[_TEXT],
        "mean_nll": found.mean_nll[_TEXT],
        "windows": count,
        "window": window,
        "tokens": count * (window - 1),
        "questions": len(exam.questions),
        "prompt_tokens": exam.prompt_tokens,
        **({"harness": exam.harness.protocol()} if exam.harness else {}),
        "versions": versions(),
    }


def _table(names: Sequence[str], found: Sequence[Measurement]) -> Table:
    """A column for each model, and where there are two, how the second compares."""
    pair = len(found) == 2
    table = Table("", *names, *(["ratio"] if pair else []))
    rows: list[tuple[str, list[float | None], str]] = [
        ("parameters", [one.parameters for one in found], ",.0f"),
        ("  outside the embeddings", [one.non_embedding_parameters for one in found], ",.0f"),
        ("files, MB", [one.file_bytes / 1e6 for one in found], ",.1f"),
        ("weights in memory, MB", [one.weight_bytes / 1e6 for one in found], ",.1f"),
        ("perplexity", [one.perplexity[_TEXT] for one in found], ".4f"),
        ("questions answered right", [one.accuracy for one in found], ".1%"),
        ("  lead of the answer, nats", [one.margin for one in found], ".3f"),
        ("reading, tokens per second", [one.prefill_tokens_per_second for one in found], ",.0f"),
        ("writing, tokens per second", [one.decode_tokens_per_second for one in found], ",.1f"),
    ]
    for name, values, form in rows:
        if all(value is not None for value in values):
            numbers = [value for value in values if value is not None]
            ratio = [f"{numbers[1] / numbers[0]:.3f}" if numbers[0] else ""] if pair else []
            table.add_row(name, *(format(number, form) for number in numbers), *ratio)
    for scores in zip(*(one.tasks for one in found), strict=True):
        table.add_row(*_task_row(scores))
    return table


def _task_row(scores: Sequence[TaskScore]) -> list[str]:
    """One metric of one task, of each model, with its standard error."""
    first = scores[0]
    name = f"{first.task}, {first.metric}"
    if first.filter != "none":
        name += f", {first.filter}"
    shown = [
        f"{score.value:.4f}"
        + (f" ± {score.standard_error:.4f}" if score.standard_error is not None else "")
        for score in scores
    ]
    pair = len(scores) == 2
    ratio = [f"{scores[1].value / first.value:.3f}" if first.value else ""] if pair else []
    return [name, *shown, *ratio]


def _protocol(exam: Exam, found: Measurement, digest: str) -> str:
    """What makes the numbers comparable."""
    count, window = exam.texts[0].windows.shape
    asked = (
        f"{len(exam.questions)} questions of four choices: which words go on a paragraph of it\n"
        if exam.questions
        else ""
    )
    return (
        f"{count} windows of {window} tokens without overlap, {count * (window - 1):,} predicted; "
        f"text SHA-256 {digest}\n{asked}{_tasks(exam, found)}"
        f"speeds: {exam.prompt_tokens} tokens read, {WRITTEN_TOKENS} written, batch 1, median of "
        f"{REPEATS}, {found.device}, {found.dtype}; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
    )


def _tasks(exam: Exam, found: Measurement) -> str:
    """Which tasks, as they were asked; each once, whatever it gave."""
    if exam.harness is None:
        return ""
    told = dict.fromkeys(
        f"{score.task} (version {score.version}, {score.shots} shots, {score.samples} samples)"
        for score in found.tasks
        if score.shots is not None  # none of a group, whose tasks are named themselves
    )
    version = exam.harness.protocol()["lm_eval"]
    return f"tasks of lm-evaluation-harness {version}, ± standard error: {', '.join(told)}\n"
