"""Giving a result to a repository of the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from bonsai_core.errors import HubError
from bonsai_core.lineage import lineage_of
from bonsai_core.manifest import checked_files, manifest_of

_OF_EARLIER_RESULTS = ["*.safetensors", "*.safetensors.index.json", "*.gguf", "modeling_*.py"]
"""Removed from the repository unless they are among the files given: a result in fewer files would
otherwise load weights of another."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a result lies on the hub."""

    repository: str
    branch: str
    commit: str
    url: str


def push(folder: Path, repository: str, *, branch: str = "main", public: bool = False) -> Pushed:
    """Upload a result; the commit tells its lineage.

    The token is the environment's `HF_TOKEN`, or what `hf auth login` stored. After an
    interruption the same call uploads what is missing.

    Args:
        folder: of the result, unchanged since it was written.
        repository: `owner/name`; made where it does not exist.
        branch: made where it does not exist.
        public: whether everybody can see a repository that is made; one that exists stays as it is.

    Raises:
        InvalidModelError: the folder is no result, or its lineage is another's.
        HubError: files are not what they were, there is no token, or the hub refuses or is away.
    """
    manifest = manifest_of(folder)
    _require_unchanged(folder, manifest)
    lineage = lineage_of(folder)
    if get_token() is None:
        raise HubError(
            "there is no token",
            field="HF_TOKEN",
            value=None,
            cure="set HF_TOKEN in the environment to a token that may write to the repository",
        )
    api = HfApi(library_name="bonsai-pruning")
    with _told(repository):
        api.create_repo(repository, private=not public, exist_ok=True)
        if branch != "main":
            api.create_branch(repository, branch=branch, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=branch,
            commit_message=f"{folder.name}: pruned by {manifest['sparsity']:.1%}",
            commit_description=_description(lineage),
            delete_patterns=_OF_EARLIER_RESULTS,
        )
    return Pushed(repository, branch, commit.oid, commit.commit_url)


def _require_unchanged(folder: Path, manifest: dict[str, Any]) -> None:
    changed = [check.name for check in checked_files(folder, manifest) if not check.holds]
    if changed:
        raise HubError(
            f"files are not as the manifest says: {', '.join(changed)}",
            field="folder",
            value=str(folder),
            allowed="a result as it was written",
            cure="download it again; `bonsai verify` tells more",
        )


def _description(lineage: dict[str, Any]) -> str:
    base, job = lineage["base"], lineage["job"] or {}
    file = f", {base['gguf_file']}" if base["gguf_file"] else ""
    revision = f", revision {base['revision']}" if base["revision"] else ""
    code = ", ".join(f"{name} {version}" for name, version in lineage["code"].items())
    lines = [
        f"Base model: {base['source']}{file}{revision}, SHA-256 {base['sha256']}",
        "Job: " + (", ".join(f"{k} {v}" for k, v in job.items()) or "none, pruned by hand"),
        f"Code: {code}",
        f"bonsai.json: SHA-256 {lineage['manifest_sha256']}",
    ]
    return "\n\n".join(lines)


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Turns the errors of the hub's client into ours."""
    try:
        yield
    except HFValidationError as error:
        raise HubError(
            str(error), field="repository", value=repository, allowed="owner/name"
        ) from error
    except HfHubHTTPError as error:
        raise HubError(
            f"the hub refuses it: {error}",
            field="repository",
            value=repository,
            cure="check that the token of HF_TOKEN may write there; if the hub is at fault, the "
            "same command goes on later",
        ) from error
    except Exception as error:  # of its transports, which are several libraries
        raise HubError(
            f"the upload was interrupted: {type(error).__name__}: {error}",
            field="repository",
            value=repository,
            cure="the same command goes on from there",
        ) from error
