"""The options that commands share. Left out, an option is decided where the prune runs.

Values that the preset decides are none of ours: an option's default would overwrite them.
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

ModelArgument = Annotated[
    str,
    Argument(
        metavar="MODEL",
        help="A folder in Hugging Face format, a .gguf file, or a hub id such as owner/name.",
    ),
]
JobArgument = Annotated[
    str, Argument(metavar="ID", help="The job's id, or enough of its beginning.")
]
Calibration = Annotated[
    str,
    Option(
        metavar="FILE",
        help="Text to calibrate on: a .txt or .jsonl file, dataset:ID of an uploaded "
        "text, or a hub data set.",
    ),
]
Sparsity = Annotated[
    float | None,
    Option(
        help="Share of the non-embedding parameters to remove, between 0 and 1; or say "
        "--parameters or --weights instead."
    ),
]
Stops = Annotated[
    list[float] | None,
    Option(
        "--stop",
        metavar="SHARE",
        help="A larger result of the same run, in the term of the target; may be repeated, the "
        "largest model first. Each result has a folder of its own.",
    ),
]
Parameters = Annotated[
    int | None,
    Option(metavar="N", min=1, help="The most parameters of the result, embeddings included."),
]
Weights = Annotated[
    float | None,
    Option(metavar="GIB", min=0, help="The most GiB that the weights of the result may take."),
]
WeightsDtype = Annotated[
    str | None,
    Option(help="Format that --weights is meant for: bfloat16, float16 or float32 (bfloat16)"),
]

GgufFile = Annotated[
    str | None, Option(metavar="NAME", help="GGUF file inside the folder or hub repository.")
]
Revision = Annotated[str | None, Option(help="Branch, tag or commit of a hub id.")]
Dtype = Annotated[
    str | None,
    Option(help="auto, float32, bfloat16 or float16; auto keeps the stored format (default auto)"),
]
Samples = Annotated[
    int | None, Option(help="Token sequences in the calibration batch (default 32)")
]
SequenceLength = Annotated[int | None, Option(help="Tokens per sequence (default 1024)")]

Owner = Annotated[str | None, Option(help="Whom the job counts for (default default)")]
Priority = Annotated[
    str | None, Option(help="lowest, low, normal, high or highest (default normal)")
]
Metadata = Annotated[
    str | None,
    Option(metavar="JSON", help="An object to keep with the job, which the service does not read."),
]
NotBefore = Annotated[
    str | None, Option(metavar="TIME", help="Wait until then, such as 2026-12-01T22:00:00+01:00.")
]
Deadline = Annotated[
    str | None, Option(metavar="TIME", help="Fail if the job has not succeeded by then.")
]
After = Annotated[str | None, Option(metavar="ID", help="Wait until this job has succeeded.")]
WindowHours = Annotated[
    str | None,
    Option(
        "--window",
        metavar="HOURS",
        help="Run only in these hours, such as '22:00-07:00 Europe/Berlin' (zone: default UTC).",
    ),
]
DeviceKind = Annotated[str | None, Option(help="Run only on cuda, or only on cpu (default any)")]
Memory = Annotated[
    float | None,
    Option(
        metavar="GIB",
        min=0,
        help="GiB that must be free on its device (default: estimated from the model's config)",
    ),
]

IdempotencyKey = Annotated[
    str | None,
    Option(
        metavar="KEY",
        help="Name of this submission, for scripts that may run twice: the same key and request "
        "again give the same job, for a week (default: a fresh one)",
    ),
]

Preset = Annotated[
    str | None,
    Option(
        help="Settings that belong together; other options change single ones. best: measured "
        "damage and least squares; paper: random masks and a regression; statistics: no trials, "
        "minutes instead of hours (default best)"
    ),
]
Recipe = Annotated[
    str | None,
    Option(
        help="What decides: measured_damage, random_masks, statistics or a plug-in's name "
        "(default: the preset's)"
    ),
]
Prior = Annotated[
    str | None,
    Option(
        help="How units are scored before anything is tried: wanda, activation, fluctuation, "
        "elimination or random (default: the preset's)"
    ),
]
Utility = Annotated[
    str | None,
    Option(
        help="What a trial is worth: nll, perplexity, kl or a plug-in's name, or a mix as a JSON "
        "list of objects with name, weight and settings (default: the preset's)"
    ),
]
MasksPerRound = Annotated[
    int | None,
    Option(help="Of random_masks: sub-models of each round, an even number (default 200)"),
]
SparsityPerRound = Annotated[
    float | None,
    Option(
        help="Of random_masks: share of the original parameters removed in each round "
        "(default 0.05)"
    ),
]
Improvements = Annotated[
    int | None,
    Option(help="Of measured_damage: rounds that move width between layers (default 2)"),
]
OwnText = Annotated[
    float | None,
    Option(
        help="Sequences that the model writes itself, beside the given ones and as a share of "
        "those, for all that the text does not show (default: the preset's, 0.125 in best)"
    ),
]
SamplesPerMask = Annotated[
    int | None,
    Option(
        help="Sequences of the calibration batch that trials are measured on (default: all for "
        "random_masks, else 4, a quarter at most)"
    ),
]
Layout = Annotated[
    str | None,
    Option(
        help="per_layer: free widths in each layer; uniform: the same in all, a stock model "
        "(default per_layer)"
    ),
]
Align = Annotated[
    int | None,
    Option(
        help="MLP widths of the result are multiples of this (default 128; 64 to 8 for narrow "
        "models, 1 for very narrow ones)"
    ),
]
TensorParallel = Annotated[
    int | None,
    Option(
        help="Devices that will serve the result together: attention groups come in multiples of "
        "this, MLP widths in multiples of this times align (default 1)"
    ),
]
Experts = Annotated[
    str | None,
    Option(
        help="Units of a mixture of experts: the channels of each, or whole experts "
        "(default channels)"
    ),
]
Refit = Annotated[
    bool | None,
    Option(
        "--refit/--no-refit",
        help="Refit the kept output columns on the calibration text (default: the preset's)",
    ),
]
Damping = Annotated[
    float | None,
    Option(help="Of the refit: how firmly it holds on to the old weights (default 0.001)"),
]
Seed = Annotated[int | None, Option(help="Seed of every random choice (default 0)")]

Formats = Annotated[
    list[str] | None,
    Option(
        "--format",
        metavar="FORMAT",
        help="Write the result in another format, too: gguf-f32, gguf-f16, gguf-bf16, gguf-q8_0 "
        "(for llama.cpp), mlx; may be given several times",
    ),
]

Report = Annotated[
    bool | None,
    Option(
        "--report/--no-report",
        help="Measure the dense model and the result, and write report.html and report.json "
        "(default: do)",
    ),
]
ReportText = Annotated[
    str | None,
    Option(metavar="FILE", help="Another text, .txt or .jsonl, that the report measures on."),
]
Prompts = Annotated[
    list[str] | None,
    Option(
        "--prompt",
        metavar="TEXT",
        help="A beginning that the report shows each model go on with; may be given several times",
    ),
]

Window = Annotated[int, Option(min=2, help="Tokens in each window.")]
Windows = Annotated[int, Option(min=0, help="Windows to evaluate, from the beginning; 0 for all.")]

Tasks = Annotated[
    list[str] | None,
    Option(
        "--task",
        metavar="NAME",
        help="A task of lm-evaluation-harness, such as arc_easy, or a group of them; may be given "
        "several times (needs bonsai-pruning[lm-eval])",
    ),
]
TasksFolder = Annotated[
    Path | None,
    Option(metavar="DIR", help="Task definitions of your own, as lm-evaluation-harness has them."),
]
Limit = Annotated[
    int | None,
    Option(min=1, help="Samples of each task to ask, from its first (default: all)"),
]

Device = Annotated[str, Option(help="auto, cpu or cuda; auto takes CUDA when it is there.")]
DeviceMemory = Annotated[
    float | None,
    Option(
        metavar="GIB",
        min=0,
        help="GiB of the device that weights may take; layers beyond that come from the host's "
        "memory to run (default: three quarters of what a GPU has free, no limit on a CPU)",
    ),
]
Json = Annotated[bool, Option("--json", help="Print JSON, and nothing else, on standard output.")]
Output = Annotated[Path, Option(metavar="DIR", help="Folder for the result.")]
