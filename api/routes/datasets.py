"""Uploaded texts to calibrate and to evaluate on: upload, list, read and delete them."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.access import Submitter, Viewer
from api.datasets import Dataset, DatasetPage, dataset_path
from api.dependencies import Artifacts, Datasets, Scratch
from api.openapi import problems
from api.problems import ARTIFACT_GONE, ProblemError
from api.ranges import answer, ranged, stored_content
from api.routes.jobs import Cursor, Limit
from api.upload import received
from jobs.artifacts import StoredFile
from jobs.dataset_text import DatasetType

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_BODY: dict[str, Any] = {
    "required": True,
    "description": "The text, in UTF-8: plain, or JSONL, one object with a `text` on each line.",
    "content": {
        "text/plain": {"schema": {"type": "string"}, "example": "A tree is best pruned in winter."},
        "application/jsonl": {
            "schema": {"type": "string"},
            "example": '{"text": "A tree is best pruned in winter."}\n',
        },
    },
}
_DIGEST: dict[str, Any] = {
    "name": "Content-Digest",
    "in": "header",
    "required": False,
    "description": "`sha-256=:...:` of the body, as in RFC 9530; what is not so is refused.",
    "schema": {"type": "string"},
}
_CREATED: dict[str, Any] = {
    "description": "Kept.",
    "headers": {"Location": {"description": "Its path.", "schema": {"type": "string"}}},
}
Name = Annotated[
    str | None,
    Query(min_length=1, max_length=200, pattern=r"^[^\x00]*$", description="For people."),
]
OwnerOf = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=63,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Whose jobs may use it (default: the key's); viewers and submitters may name "
        "no other.",
    ),
]


@router.post(
    "",
    operation_id="upload_dataset",
    status_code=201,
    responses={
        200: {"description": "Its content was there before.", "model": Dataset},
        201: _CREATED,
        **problems(400, 409, 415, 422, 503),
    },
    response_model=Dataset,
    openapi_extra={"requestBody": _BODY, "parameters": [_DIGEST]},
)
async def upload(
    request: Request,
    response: Response,
    datasets: Datasets,
    scratch: Scratch,
    _: Submitter,
    name: Name = None,
    owner: OwnerOf = None,
) -> Dataset:
    """Upload a text, for jobs to calibrate on: its `source` goes where a job says its own. It is
    checked as it comes, and named by its content: the same text again is the same data set."""
    whose = datasets.owner_of(owner)
    async with received(request, scratch) as text:
        row, known = await run_in_threadpool(datasets.add, text, name=name, owner=whose)
    if known:
        response.status_code = 200
    else:
        response.headers["Location"] = dataset_path(row.id)
    return Dataset.of(row)


@router.get("", operation_id="list_datasets", responses=problems(422, 503))
def list_datasets(
    datasets: Datasets, _: Viewer, limit: Limit = 50, cursor: Cursor = None
) -> DatasetPage:
    """All data sets, newest first."""
    page = datasets.list(limit=limit, cursor=cursor)
    return DatasetPage(items=[Dataset.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.get("/{dataset_id}", operation_id="show_dataset", responses=problems(404, 422, 503))
def show(dataset_id: UUID, datasets: Datasets, _: Viewer) -> Dataset:
    """One data set: its size, its digest, and how a job names it."""
    return Dataset.of(datasets.show(dataset_id))


_CONTENT = ranged(
    "The text.",
    media_type="text/plain",
    or_another=True,
    statuses=(404, 410, 422, 503),
    Repr_Digest="The SHA-256 of the whole text, as in RFC 9530.",
)


@router.head("/{dataset_id}/content", response_class=Response, include_in_schema=False)
@router.get(
    "/{dataset_id}/content",
    operation_id="download_dataset",
    response_class=Response,
    responses=_CONTENT,
)
def content(
    request: Request, dataset_id: UUID, datasets: Datasets, files: Artifacts, _: Viewer
) -> Response:
    """The text as it was uploaded. Ranges work; the ETag is its SHA-256."""
    row = datasets.show(dataset_id)
    try:
        size = files.size(row.key)
    except FileNotFoundError:
        size = -1
    if size != row.size_bytes:
        detail = f"data set {row.id} was uploaded, but its file is gone or cut; upload it again"
        raise ProblemError(ARTIFACT_GONE, detail)
    text = stored_content(
        files,
        StoredFile(row.key, row.size_bytes, row.sha256),
        file_name=f"{row.id}{DatasetType(row.media_type).suffix}",
        media_type=row.media_type,
    )
    return answer(request, text)


@router.delete(
    "/{dataset_id}",
    operation_id="delete_dataset",
    status_code=204,
    responses=problems(404, 409, 422, 503),
)
def delete(dataset_id: UUID, datasets: Datasets, _: Submitter) -> None:
    """Remove a data set with its file; not while a job needs it that has not ended."""
    datasets.delete(dataset_id)
