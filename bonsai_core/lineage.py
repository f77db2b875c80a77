"""Where a result comes from: the dense model, the job and the code; `lineage.json` beside it.

The manifest is the same for the same request, whichever job asked; the job's name is told here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bonsai_core.digests import sha256_of
from bonsai_core.errors import InvalidModelError
from bonsai_core.folders import MANIFEST
from bonsai_core.manifest import manifest_of

LINEAGE = "lineage.json"


def write_lineage(folder: Path, job: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write a result's lineage beside it.

    Args:
        folder: of the result.
        job: what names the job; None: there was none.

    Returns:
        What was written: the `base` model's source, revision and digest; the `job`; versions of
        the `code`; and the digest of the manifest, which has those of all files.

    Raises:
        InvalidModelError: the folder is no result.
    """
    manifest = manifest_of(folder)
    model = manifest["request"]["model"]
    lineage = {
        "base": {
            "source": model["source"],
            "gguf_file": model["gguf_file"],
            "revision": manifest.get("source_revision"),  # older results say none
            "sha256": manifest["source_sha256"],
        },
        "job": job and dict(job),
        "code": manifest["versions"],
        "manifest_sha256": sha256_of(folder / MANIFEST),
    }
    (folder / LINEAGE).write_text(json.dumps(lineage, indent=1) + "\n", encoding="utf-8")
    return lineage


def lineage_of(folder: Path) -> dict[str, Any]:
    """A result's lineage, written where it is not there yet.

    Raises:
        InvalidModelError: the folder is no result, or its lineage is unreadable or another's.
    """
    path = folder / LINEAGE
    if not path.is_file():
        return write_lineage(folder)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        is_its_own = found["manifest_sha256"] == sha256_of(folder / MANIFEST)
    except (ValueError, KeyError, TypeError):
        is_its_own = False
    if not is_its_own:
        raise InvalidModelError(
            f"its {LINEAGE} cannot be read, or is of another {MANIFEST}",
            field="folder",
            value=str(folder),
            allowed="a result as it was written",
            cure=f"download it again; without {LINEAGE} all but the job is written anew",
        )
    return dict(found)
