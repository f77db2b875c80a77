"""Published files, and whether the store still has them."""

from api.problems import ARTIFACT_GONE, ProblemError
from jobs import records
from jobs.artifacts import ArtifactStore
from jobs.store import JobStore


def require_stored(artifact: records.Artifact, files: ArtifactStore, store: JobStore) -> None:
    """That a published file is there as it was; what cannot be had is said before a byte is sent.

    Raises:
        ProblemError: it has expired, was lost, or was cut.
    """
    try:
        size = files.size(artifact.key)
    except FileNotFoundError as error:
        expired = store.show(artifact.job_id).expired_at
        why = f"has expired ({expired:%Y-%m-%d %H:%M} UTC)" if expired else "is gone"
        raise ProblemError(ARTIFACT_GONE, _lost(artifact, why)) from error
    if size != artifact.size_bytes:
        why = f"is damaged: it has {size} of {artifact.size_bytes} bytes"
        raise ProblemError(ARTIFACT_GONE, _lost(artifact, why))


def _lost(artifact: records.Artifact, why: str) -> str:
    return f"{artifact.name} was published, but its file {why}; prune again, or restore a backup"
