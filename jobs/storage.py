"""Which artifact store the settings name."""

from collections.abc import Callable

from jobs.artifacts import ArtifactStore, LocalArtifactStore
from jobs.s3_artifacts import S3ArtifactStore
from jobs.settings import Settings

_PATIENCE_SECONDS = 5.0
"""Of a process in which others wait, too."""


def artifact_store(
    settings: Settings,
    *,
    patience_seconds: float = _PATIENCE_SECONDS,
    on_piece: Callable[[], object] = lambda: None,
) -> ArtifactStore:
    """The store of these settings; nothing is connected before it is used.

    Args:
        settings: of this process.
        patience_seconds: for how long a request to a store at a URL is tried again.
        on_piece: called for each piece sent to it or received.
    """
    if settings.artifacts_url is None:
        return LocalArtifactStore(settings.artifacts_dir)
    return S3ArtifactStore(
        settings.artifacts_url, patience_seconds=patience_seconds, on_piece=on_piece
    )
