"""Models that jobs may name: which there are, and what may go of one."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.access import Viewer
from api.dependencies import AllowedSources
from api.models import Model, ModelPage
from api.openapi import problems
from jobs.models import found, inspect

router = APIRouter(prefix="/v1/models", tags=["models"])

Source = Annotated[
    str,
    Query(
        min_length=1,
        max_length=4096,
        pattern=r"^[^\x00]*$",
        description="As a job says it: a folder's absolute path, or a hub id.",
        examples=["/models/SmolLM2-135M"],
    ),
]


@router.get("", operation_id="list_models", responses=problems(422, 503))
def list_models(sources: AllowedSources, _: Viewer) -> ModelPage:
    """The models in the folders that the operator has named, with what may go of each."""
    return ModelPage.of(found(sources))


@router.get("/inspect", operation_id="inspect_model", responses=problems(422, 503))
def show(source: Source, sources: AllowedSources, _: Viewer) -> Model:
    """One model that a job may name: its sizes, and how much of it may go. A hub's config and a
    GGUF file's are read by workers alone."""
    return Model.of(inspect(source, sources))
