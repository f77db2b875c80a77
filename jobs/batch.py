"""Many jobs in one request: a list of them, or one over several models and sparsities."""

from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bonsai_core.config import ModelSource
from bonsai_core.target import Target
from jobs.request import JobRequest

MOST_JOBS = 1000


class BatchRequest(BaseModel):
    """The body of POST /v1/batches: `jobs`, or a `template` with what varies."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    """A name for people; need not be unique."""

    jobs: Annotated[tuple[JobRequest, ...], Field(max_length=MOST_JOBS)] = ()
    """Each as in POST /v1/jobs."""

    template: JobRequest | None = None
    """As in POST /v1/jobs; one job for each model and sparsity is made of it."""

    models: Annotated[tuple[ModelSource, ...], Field(max_length=MOST_JOBS)] = ()
    """Instead of the template's; empty: the template's alone."""

    sparsities: Annotated[
        tuple[Annotated[float, Field(strict=True, gt=0, lt=1)], ...], Field(max_length=MOST_JOBS)
    ] = ()
    """Instead of the template's; empty: the template's alone."""

    @model_validator(mode="after")
    def _one_way_of_saying_it(self) -> "BatchRequest":
        if (self.template is None) == (not self.jobs):
            raise ValueError("give either jobs or a template")
        if self.template is None and (self.models or self.sparsities):
            raise ValueError("models and sparsities vary a template; jobs say their own")
        if self.template is not None and len(self._variants()) > MOST_JOBS:
            raise ValueError(f"makes {len(self._variants())} jobs; at most {MOST_JOBS} are allowed")
        return self

    def requests(self) -> list[JobRequest]:
        """One request for each job."""
        if self.template is None:
            return list(self.jobs)
        return [self.template.model_copy(update=changes) for changes in self._variants()]

    def pointer_to(self, number: int) -> str:
        """Where in this request the job of a number is said, as a JSON pointer."""
        return "/template" if self.template is not None else f"/jobs/{number}"

    def field_of(self, number: int, field: str) -> str:
        """A field of the job of a number, as a dotted path into this request."""
        return f"{self.pointer_to(number)[1:].replace('/', '.')}.{field}"

    def _variants(self) -> list[dict[str, Any]]:
        assert self.template is not None
        targets = [Target(sparsity=sparsity) for sparsity in self.sparsities]
        return [
            {"model": model, "target": target}
            for model, target in product(
                self.models or (self.template.model,), targets or (self.template.target,)
            )
        ]
