"""The files of a succeeded job, whole or in ranges."""

import base64
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from api.access import Viewer
from api.dependencies import Artifacts, Store
from api.openapi import Responses, problems
from api.problems import (
    ARTIFACT_GONE,
    MALFORMED_REQUEST,
    RANGE_NOT_SATISFIABLE,
    ProblemError,
    ProblemResponse,
)
from api.request_log import request_id_of
from api.schemas import ArtifactPage

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])

_FILE_HEADERS = {
    "ETag": {"description": "The SHA-256 of the whole file.", "schema": {"type": "string"}},
    "Repr-Digest": {"description": "The same, as in RFC 9530.", "schema": {"type": "string"}},
}
_FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_RESPONSES: Responses = {
    200: {"description": "The file.", "content": _FILE, "headers": _FILE_HEADERS},
    206: {"description": "The range asked for.", "content": _FILE, "headers": _FILE_HEADERS},
    **problems(400, 404, 410, 416, 422, 503),
}


class ArtifactResponse(FileResponse):
    """A file; a range that cannot be had is answered with a problem."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, the range, or the problem."""
        refused: Message | None = None

        async def watched(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = message
            if refused is None:
                await send(message)

        await super().__call__(scope, receive, watched)
        if refused is None:
            return
        headers = dict(refused["headers"])
        outside = refused["status"] == RANGE_NOT_SATISFIABLE.status
        place = headers.get(b"content-range", b"").decode()
        problem = ProblemResponse(
            RANGE_NOT_SATISFIABLE if outside else MALFORMED_REQUEST,
            f"Range: the file has other bytes ({place})" if outside else "Range: cannot be read",
            request_id=request_id_of(scope),
            headers={"Content-Range": place} if outside else None,
        )
        await problem(scope, receive, send)


@router.get("", operation_id="list_artifacts", responses=problems(404, 422, 503))
def list_artifacts(job_id: UUID, store: Store, _: Viewer) -> ArtifactPage:
    """The published files of a job; none before it has succeeded. Sizes are in bytes."""
    return ArtifactPage.of(store.artifacts(job_id))


@router.head("/{name}", response_class=ArtifactResponse, include_in_schema=False)
@router.get(
    "/{name}",
    operation_id="download_artifact",
    response_class=ArtifactResponse,
    responses=_RESPONSES,
)
def download(
    job_id: UUID,
    name: Annotated[str, Path(description="Name of the file, as listed.")],
    store: Store,
    artifacts: Artifacts,
    _: Viewer,
) -> ArtifactResponse:
    """One file. To go on with a download, send `Range: bytes=N-` with `If-Range` and the ETag."""
    artifact = store.artifact(job_id, name)
    try:
        path = artifacts.path(artifact.key)
    except FileNotFoundError as error:
        expired = store.show(job_id).expired_at
        why = f"has expired ({expired:%Y-%m-%d %H:%M} UTC)" if expired else "is gone"
        detail = f"{name} was published, but its file {why}; prune again, or restore a backup"
        raise ProblemError(ARTIFACT_GONE, detail) from error
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    return ArtifactResponse(
        path,
        media_type=artifact.content_type,
        filename=artifact.name,
        headers={"ETag": f'"{artifact.sha256}"', "Repr-Digest": f"sha-256=:{digest}:"},
    )
