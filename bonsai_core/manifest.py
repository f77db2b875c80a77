"""The manifest of a result, `bonsai.json`: reading it, and comparing files with its digests."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bonsai_core.digests import sha256_of
from bonsai_core.errors import InvalidModelError
from bonsai_core.folders import MANIFEST

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.py")
"""What a folder may not hold besides what was written: programs would load it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the manifest says."""

    name: str
    said: Any
    found: Any
    holds: bool


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a result.

    Raises:
        InvalidModelError: there is none with digests.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text())
        if not isinstance(found["files"], dict):
            raise TypeError("files")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidModelError(
            f"it has no {MANIFEST} with digests of its files: {type(error).__name__}",
            field="folder",
            value=str(folder),
            allowed="the folder that `bonsai prune` or `bonsai download` wrote",
        ) from error
    return dict(found)


def checked_files(folder: Path, manifest: dict[str, Any]) -> Iterator[Check]:
    """Each file's digest, and files that would be loaded though nobody told of them."""
    said = manifest["files"]
    for name, expected in sorted(said.items()):
        path = folder / name
        found = sha256_of(path) if path.is_file() else "missing"
        yield Check(name, expected, found, found == expected)
    for pattern in _WEIGHTS:
        for path in sorted(folder.glob(pattern)):
            if path.name not in said:
                yield Check(path.name, "absent", sha256_of(path), False)
