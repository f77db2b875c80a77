"""Writes a saved model in another format, and says what was written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bonsai_core.config import ModelSource, PruneRequest
from bonsai_core.errors import PruneError
from bonsai_core.formats.gguf_file import write_gguf
from bonsai_core.formats.gguf_tokens import tokenizer_of
from bonsai_core.formats.mlx_folder import write_mlx
from bonsai_core.formats.names import Format


@dataclass(frozen=True, slots=True)
class Exported:
    """What lies there now."""

    format: Format
    path: str
    bytes: int


def default_output(folder: Path, kind: Format) -> Path:
    """Beside the folder, under its name."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}-{f'{kind.weights}.gguf' if kind.weights else 'mlx'}")


def export(
    folder: Path,
    kind: Format,
    output: Path | None = None,
    *,
    tokenizer_from: Path | None = None,
) -> Exported:
    """Write a saved model, pruned or dense, for another program.

    Args:
        folder: of the model.
        kind: the format.
        output: a file or folder that is not there; None for a name beside the folder.
        tokenizer_from: a GGUF file whose tokenizer a GGUF file takes over.

    Raises:
        InvalidModelError: the folder cannot be read.
        PruneError: something is at `output` already.
        UnsupportedExportError: the format cannot say what this model computes.
    """
    output = output or default_output(folder, kind)
    if kind.weights is None:
        write_mlx(folder, output)
    else:
        if output.exists():
            raise PruneError(
                "something is there already",
                field="output",
                value=str(output),
                allowed="a file that does not exist",
                cure="choose another name or remove this file",
            )
        write_gguf(folder, output, kind.weights, tokenizer_from)
    files = [output] if output.is_file() else [p for p in output.rglob("*") if p.is_file()]
    return Exported(kind, str(output), sum(path.stat().st_size for path in files))


def export_wished(folder: Path, request: PruneRequest) -> None:
    """Write a result in the formats that its request names, inside its folder.

    Raises:
        UnsupportedExportError: one of them cannot say what this model computes.
    """
    for kind in request.formats:
        output = folder / kind.place
        output.parent.mkdir(exist_ok=True)
        export(folder, kind, output, tokenizer_from=_gguf_file(request.model))


def require_tokenizer(tokenizer: Any, request: PruneRequest, folder: Path) -> None:
    """Refuse, before any work, a tokenizer that a wished format has no name for.

    Args:
        tokenizer: of the dense model.
        request: with the formats.
        folder: an empty one to write to.

    Raises:
        UnsupportedExportError: llama.cpp has no such tokenizer.
    """
    if any(kind.weights for kind in request.formats) and _gguf_file(request.model) is None:
        tokenizer.save_pretrained(folder)
        tokenizer_of(folder)


def _gguf_file(model: ModelSource) -> Path | None:
    """The file that the dense model is read from, if it is one here: its tokenizer is known."""
    if model.gguf_file is None or not model.is_folder:
        return None
    return Path(model.source).expanduser() / model.gguf_file
