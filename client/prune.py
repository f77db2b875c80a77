"""`bonsai prune`: the algorithm in this process, with its ledger in a folder beside the result."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bonsai_core.calibration import read_text
from bonsai_core.config import PruneRequest
from bonsai_core.errors import PruneError, Stopped
from bonsai_core.file_ledger import FileLedger
from bonsai_core.lineage import write_lineage
from bonsai_core.pruner import PruneResult, prune
from bonsai_core.report.writer import PAGE, write_report
from client.console import messages, print_json, results
from client.errors import ClientError
from client.exit_codes import ExitCode
from client.interruption import Interruption
from client.prune_display import PruneDisplay
from client.tables import duration


def run_prune(
    wish: Mapping[str, Any],
    output: Path,
    *,
    device: str,
    device_memory: int | None = None,
    resume: bool,
    as_json: bool = False,
) -> int:
    """Prune as wished; the exit code, 130 when it was interrupted."""
    request = parse_request(wish)
    output = output.expanduser().resolve()
    ledger = output.with_name(f"{output.name}.ledger")
    require_free(output, ledger, resume=resume)
    require_report_text(request)
    console, finished = messages(), False
    try:
        with Interruption() as interruption, PruneDisplay(console) as display:
            result = prune(
                request,
                output,
                ledger=FileLedger(ledger),
                device=device,
                device_memory=device_memory,
                listener=display.hear,
                stop=lambda: interruption.wished,
            )
            shutil.rmtree(ledger)  # the result is there, and nothing is needed to go on
            finished = True
            for one in (*result.on_the_way, result):
                write_lineage(one.folder)
            display.measuring()
            write_report(
                request,
                output,
                device=device,
                device_memory=device_memory,
                stop=lambda: interruption.wished,
            )
    except Stopped:
        if finished:
            console.print(f"stopped before the report; the result in {output} is whole")
            return ExitCode.INTERRUPTED
        console.print(f"stopped; what was measured is in {ledger}", soft_wrap=True)
        console.print("the same command with --resume goes on from there")
        return ExitCode.INTERRUPTED
    except PruneError as error:
        raise ClientError(str(error)) from error
    if as_json:
        print_json(asdict(result))
        return ExitCode.DONE
    for one in (*result.on_the_way, result):
        results().print(summary(one), soft_wrap=True)
    if request.report.enabled:
        results().print(f"report       {output / PAGE}", soft_wrap=True)
    return ExitCode.DONE


def parse_request(wish: Mapping[str, Any]) -> PruneRequest:
    """The request, or a ClientError that names each field at fault."""
    try:
        return PruneRequest.model_validate(wish)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']} "
            f"(got {fault['input']!r})"
            for fault in error.errors()
        ]
        raise ClientError("\n".join(lines)) from error


def require_report_text(request: PruneRequest) -> None:
    """Refuse a report's text that cannot be read, before anything is pruned."""
    if request.report.text is None:
        return
    try:
        next(read_text(request.report.text, "report.text"), None)
    except PruneError as error:
        raise ClientError(str(error)) from error


def require_free(output: Path, ledger: Path, *, resume: bool) -> None:
    """Refuse to write over what is there."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ClientError(f"--output: {output} is not empty; remove it, or name another folder")
    if FileLedger.exists(ledger) and not resume:
        raise ClientError(
            f"an interrupted prune has left its ledger in {ledger}; "
            "go on with --resume, or remove the ledger to start anew"
        )
    if resume and not FileLedger.exists(ledger):
        messages().print(f"nothing to resume in {ledger}; starting anew", soft_wrap=True)


def summary(result: PruneResult) -> str:
    """What came of a prune, in a few lines."""
    return "\n".join(
        [
            f"{result.folder}",
            f"parameters   {result.parameters_before:,} -> {result.parameters:,}",
            f"sparsity     {result.sparsity:.4f} of the non-embedding parameters "
            f"({result.non_embedding_parameters_before:,} -> "
            f"{result.non_embedding_parameters:,})",
            f"perplexity   {result.perplexity_before:.3f} -> {result.perplexity:.3f} "
            "on the calibration text",
            *(
                f"{title:<12} {before:.4f} -> {result.utilities[title]:.4f}, higher being better"
                for title, before in result.utilities_before.items()
            ),
            f"trials       {result.masks_evaluated} in {duration(result.seconds)}",
        ]
    )
