"""The options that commands share. Left out, an option is decided where the prune runs."""

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
    Option(metavar="FILE", help="Text to calibrate on: a .txt or .jsonl file, or a hub data set."),
]
Sparsity = Annotated[
    float, Option(help="Share of the non-embedding parameters to remove, between 0 and 1.")
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

Prior = Annotated[
    str | None,
    Option(
        help="How units are scored before any mask is tried: wanda, activation, fluctuation "
        "or random (default wanda)"
    ),
]
Utility = Annotated[
    str | None, Option(help="What a masked model is worth: nll or perplexity (default nll)")
]
MasksPerRound = Annotated[
    int | None, Option(help="Sub-models evaluated in each round, an even number (default 200)")
]
SamplesPerMask = Annotated[
    int | None,
    Option(help="Sequences of the calibration batch that each mask is evaluated on (default all)"),
]
SparsityPerRound = Annotated[
    float | None,
    Option(help="Share of the original parameters removed in each round (default 0.05)"),
]
Layout = Annotated[
    str | None,
    Option(
        help="per_layer: free widths in each layer; uniform: the same in all, a stock model "
        "(default per_layer)"
    ),
]
Align = Annotated[
    int | None, Option(help="MLP widths of the result are multiples of this (default 1)")
]
Refit = Annotated[
    bool | None,
    Option(
        "--refit/--no-refit",
        help="Refit the kept output columns on the calibration text (default refit)",
    ),
]
Seed = Annotated[int | None, Option(help="Seed of every random choice (default 0)")]

Device = Annotated[str, Option(help="auto, cpu or cuda; auto takes CUDA when it is there.")]
Json = Annotated[bool, Option("--json", help="Print JSON, and nothing else, on standard output.")]
Output = Annotated[Path, Option(metavar="DIR", help="Folder for the result.")]
