"""Folders of models that are written here: where they may lie, and who may read them."""

import stat
from pathlib import Path

from bonsai_core.errors import PruneError

MANIFEST = "bonsai.json"
"""Beside the weights of a result: how it was made."""


def require_free(folder: Path) -> None:
    """Refuse to write where something is.

    Raises:
        PruneError: the folder exists and is not empty, or is a mount point.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PruneError(
            "something is there already",
            field="output",
            value=str(folder),
            allowed="a folder that does not exist, or is empty",
            cure="choose another folder or remove this one",
        )
    if folder.is_mount():
        raise PruneError(
            "the folder is a mount point, which a whole result cannot take the place of",
            field="output",
            value=str(folder),
            allowed="a folder below it",
            cure=f"use {str(folder / 'model')!r}",
        )


def give_ordinary_permissions(folder: Path) -> None:
    """Weights are written for the owner alone; give them the mode that the umask gave config.json.

    Asking the umask itself would mean to change it, for all threads of the process.
    """
    mode = stat.S_IMODE((folder / "config.json").stat().st_mode)
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)
