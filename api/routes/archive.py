"""All files of a succeeded job at once."""

from functools import partial
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.access import Viewer
from api.archive import Archive, Member
from api.dependencies import Artifacts, Store
from api.problems import DOMAIN, ProblemError
from api.published import require_stored
from api.ranges import Content, answer, ranged
from jobs.errors import ArtifactNotFoundError

router = APIRouter(prefix="/v1/jobs/{job_id}/archive", tags=["artifacts"])

_TAR = "application/x-tar"
_RESPONSES = ranged("The archive.", media_type=_TAR, statuses=(404, 410, 422, 503))


@router.head("", response_class=Response, include_in_schema=False)
@router.get("", operation_id="download_archive", response_class=Response, responses=_RESPONSES)
def download(
    request: Request, job_id: UUID, store: Store, artifacts: Artifacts, _: Viewer
) -> Response:
    """Every published file in one tar archive, in a folder named as the job, uncompressed.

    The same job always gives the same bytes, so a download that was cut goes on as that of a file
    does: with `Range: bytes=N-` and `If-Range` with the ETag.
    """
    published = store.artifacts(job_id)
    if not published:
        detail = f"job {job_id} has no files to archive; there are none before it has succeeded"
        raise ProblemError(DOMAIN[ArtifactNotFoundError], detail)
    for artifact in published:
        require_stored(artifact, artifacts, store)
    members = [
        Member(artifact.name, artifact.key, artifact.size_bytes, artifact.sha256)
        for artifact in published
    ]
    archive = Archive(str(job_id), members)
    content = Content(
        size_bytes=archive.size_bytes,
        tag=archive.tag,
        file_name=f"{job_id}.tar",
        media_type=_TAR,
        pieces=partial(archive.read, artifacts),
    )
    return answer(request, content)
