"""The files of a succeeded job: which there are, each whole or in ranges, and links to them."""

from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.access import Viewer
from api.dependencies import Artifacts, Store
from api.openapi import problems
from api.problems import NO_LINKS, ProblemError
from api.published import require_stored
from api.ranges import answer, ranged, stored_content
from api.schemas import ArtifactLink, ArtifactPage, artifact_path
from jobs.artifacts import StoredFile

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])

LONGEST_LINK_SECONDS = 7 * 24 * 3600
"""As S3 has it."""

Name = Annotated[
    str, Path(description="Name of the file, as listed; it may hold the name of a folder.")
]

_RESPONSES = ranged(
    "The file, in its own media type.",
    media_type="application/octet-stream",
    or_another=True,
    statuses=(404, 410, 422, 503),
    Repr_Digest="The SHA-256 of the whole file, as in RFC 9530.",
)


@router.get("", operation_id="list_artifacts", responses=problems(404, 422, 503))
def list_artifacts(job_id: UUID, store: Store, _: Viewer) -> ArtifactPage:
    """The published files of a job; none before it has succeeded. Sizes are in bytes."""
    return ArtifactPage.of(job_id, store.artifacts(job_id))


@router.get(
    "/{name:path}/link", operation_id="link_artifact", responses=problems(404, 409, 410, 422, 503)
)
def link(
    job_id: UUID,
    name: Name,
    store: Store,
    artifacts: Artifacts,
    _: Viewer,
    seconds: Annotated[
        int, Query(ge=1, le=LONGEST_LINK_SECONDS, description="For how long it shall be good.")
    ] = 3600,
) -> ArtifactLink:
    """A URL at which the store itself gives the file to whoever has the URL, with ranges.

    Only a store of objects has such links; a service that keeps its files in a folder answers 409.
    """
    artifact = store.artifact(job_id, name)
    require_stored(artifact, artifacts, store)
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
    url = artifacts.link(artifact.key, seconds)
    if url is None:
        here = artifact_path(job_id, name)
        detail = (
            f"this service keeps its files in a folder, which has no links; download {here}, or "
            "have the operator set BONSAI_ARTIFACTS_URL"
        )
        raise ProblemError(NO_LINKS, detail)
    return ArtifactLink(
        url=url, expires_at=expires_at, size_bytes=artifact.size_bytes, sha256=artifact.sha256
    )


@router.head("/{name:path}", response_class=Response, include_in_schema=False)
@router.get(
    "/{name:path}", operation_id="download_artifact", response_class=Response, responses=_RESPONSES
)
def download(
    request: Request, job_id: UUID, name: Name, store: Store, artifacts: Artifacts, _: Viewer
) -> Response:
    """One file. To go on with a download, send `Range: bytes=N-` with `If-Range` and the ETag.

    The ETag is the file's SHA-256.
    """
    artifact = store.artifact(job_id, name)
    require_stored(artifact, artifacts, store)
    content = stored_content(
        artifacts,
        StoredFile(artifact.key, artifact.size_bytes, artifact.sha256),
        file_name=PurePosixPath(artifact.name).name,
        media_type=artifact.content_type,
    )
    return answer(request, content)
