"""Writes a saved model in another format, and says what was written."""

from dataclasses import dataclass
from pathlib import Path

from bonsai_core.errors import PruneError
from bonsai_core.formats.gguf_file import write_gguf
from bonsai_core.formats.mlx_folder import write_mlx
from bonsai_core.formats.names import Format, WeightType


@dataclass(frozen=True, slots=True)
class Exported:
    """What lies there now."""

    format: Format
    path: str
    bytes: int


def default_output(folder: Path, kind: Format, weights: WeightType = WeightType.F16) -> Path:
    """Beside the folder, under its name."""
    folder = folder.resolve()
    endings = {Format.GGUF: f"-{weights}.gguf", Format.MLX: "-mlx"}
    return folder.with_name(folder.name + endings[kind])


def export(
    folder: Path,
    kind: Format,
    output: Path | None = None,
    *,
    weights: WeightType = WeightType.F16,
    tokenizer_from: Path | None = None,
) -> Exported:
    """Write a saved model, pruned or dense, for another program.

    Args:
        folder: of the model.
        kind: the format.
        output: a file or folder that is not there; None for a name beside the folder.
        weights: how a GGUF file stores matrices.
        tokenizer_from: a GGUF file whose tokenizer a GGUF file takes over.

    Raises:
        InvalidModelError: the folder cannot be read.
        PruneError: something is at `output` already.
        UnsupportedExportError: the format cannot say what this model computes.
    """
    output = output or default_output(folder, kind, weights)
    if kind is Format.MLX:
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
        write_gguf(folder, output, weights, tokenizer_from)
    files = [output] if output.is_file() else [p for p in output.rglob("*") if p.is_file()]
    return Exported(kind, str(output), sum(path.stat().st_size for path in files))
