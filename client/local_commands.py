"""The commands that need no service: start one, or prune, evaluate, export or verify here.

What they need is imported when they run, so that every other command starts at once and works
where torch and the servers are not installed.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from client import options
from client.errors import ClientError
from client.request import model_source, parse_utility, prune_request, report_wish, target


def up(
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the database and the artifacts.")
    ] = Path(".bonsai"),
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the API on 127.0.0.1.")
    ] = 8000,
    workers: Annotated[int, typer.Option(min=0, help="Workers to start.")] = 1,
    device: options.Device = "auto",
) -> None:
    """Start the whole service on this machine: database, broker, API and workers."""
    try:
        from client.up import run_up  # noqa: PLC0415 - only this command starts servers
    except ImportError as error:
        raise _missing(error, "all") from error
    raise typer.Exit(run_up(data=data, port=port, workers=workers, device=device))


def prune(
    model: options.ModelArgument,
    calibration: options.Calibration,
    output: options.Output,
    sparsity: options.Sparsity = None,
    stop: options.Stops = None,
    parameters: options.Parameters = None,
    weights: options.Weights = None,
    weights_dtype: options.WeightsDtype = None,
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
    device: options.Device = "auto",
    device_memory: options.DeviceMemory = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted prune of the same inputs.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Prune a model here and now, without a service.

    Ctrl-C ends it after the forward pass in flight, and it can be resumed; a second one at once.
    """
    wish = prune_request(
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
    try:
        from client.prune import run_prune  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise _missing(error, "core") from error
    limit = None if device_memory is None else int(device_memory * 2**30)
    code = run_prune(wish, output, device=device, device_memory=limit, resume=resume, as_json=json)
    raise typer.Exit(code)


def evaluate(
    model: options.ModelArgument,
    text: Annotated[Path, typer.Option(metavar="FILE", help="Text to evaluate on.")],
    window: options.Window = 512,
    windows: options.Windows = 32,
    task: options.Tasks = None,
    tasks_folder: options.TasksFolder = None,
    limit: options.Limit = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    gguf_file: options.GgufFile = None,
    json: options.Json = False,
) -> None:
    """Measure a model: perplexity and questions on a text, tasks, memory, speeds; the protocol."""
    wish = {**model_source(model), "dtype": dtype or "auto"}
    if gguf_file is not None:
        wish["gguf_file"] = gguf_file
    asked = _tasks(task, tasks_folder, limit)
    _evaluate([wish], text, window, windows, asked, device, as_json=json)


def compare(
    model: options.ModelArgument,
    other: Annotated[
        str, typer.Argument(metavar="OTHER", help="Another model, with the same tokenizer.")
    ],
    text: Annotated[Path, typer.Option(metavar="FILE", help="Text to measure both on.")],
    window: options.Window = 512,
    windows: options.Windows = 32,
    task: options.Tasks = None,
    tasks_folder: options.TasksFolder = None,
    limit: options.Limit = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    json: options.Json = False,
) -> None:
    """Measure two models as `evaluate` does, and show them side by side."""
    wishes = [{**model_source(name), "dtype": dtype or "auto"} for name in (model, other)]
    asked = _tasks(task, tasks_folder, limit)
    _evaluate(wishes, text, window, windows, asked, device, as_json=json)


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a saved model.")],
    kind: Annotated[
        Literal["gguf-f32", "gguf-f16", "gguf-bf16", "gguf-q8_0", "mlx"],
        typer.Option("--format", help="A GGUF file for llama.cpp, or a folder for mlx-lm."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="File or folder to write (default: beside FOLDER)."),
    ] = None,
    tokenizer_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A GGUF file of the dense model whose tokenizer is taken over."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a model, pruned or not, in the format of another program."""
    try:
        from client.export import run_export  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise _missing(error, "core") from error
    run_export(folder, kind, output, tokenizer_from=tokenizer_from, as_json=json)


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a result.")],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository of the Hugging Face hub.")
    ],
    branch: Annotated[str, typer.Option(metavar="NAME", help="Branch to commit to.")] = "main",
    public: Annotated[
        bool, typer.Option("--public", help="Show a new repository to everybody.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Upload a result to the Hugging Face hub, with its lineage; HF_TOKEN has the token."""
    try:
        from client.push import run_push  # noqa: PLC0415 - loads the hub's client
    except ImportError as error:
        raise _missing(error, "core") from error
    run_push(folder, repository, branch=branch, public=public, as_json=json)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a result.")],
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Check a result against its manifest: digests, sizes, and a number measured again."""
    try:
        from client.verify import run_verify  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise _missing(error, "core") from error
    raise typer.Exit(run_verify(folder, device=device, as_json=json))


def _tasks(names: list[str] | None, folder: Path | None, limit: int | None) -> dict[str, Any]:
    """What the harness is asked for; nothing without a task."""
    if not names and (folder is not None or limit is not None):
        raise typer.BadParameter("--tasks-folder and --limit are of a --task; name one")
    folder = None if folder is None else folder.expanduser().resolve()
    return {"tasks": names, "folder": folder, "limit": limit} if names else {}


def _evaluate(
    models: list[dict[str, str]],
    text: Path,
    window: int,
    windows: int,
    tasks: dict[str, Any],
    device: str,
    *,
    as_json: bool,
) -> None:
    try:
        from client.evaluate import run_evaluate  # noqa: PLC0415 - loads torch
    except ImportError as error:
        raise _missing(error, "core") from error
    run_evaluate(
        models,
        text,
        window=window,
        windows=windows or None,
        tasks=tasks,
        device=device,
        as_json=as_json,
    )


def _missing(error: ImportError, extra: str) -> ClientError:
    return ClientError(
        f"this command needs the package {error.name}, which is not installed; "
        f"install bonsai-pruning[{extra}]"
    )
