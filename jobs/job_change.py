"""What may be changed of a job that is there."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from jobs.request import Label, LabelValue, Metadata
from jobs.schedule import Priority
from jobs.states import JobState

WAITING = {JobState.QUEUED, JobState.PAUSED}
"""States of jobs that no worker has, and that have not ended."""


class JobChange(BaseModel):
    """The body of PATCH /v1/jobs/{job_id}; what is absent or null stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    """Another name."""

    labels: Annotated[dict[Label, LabelValue] | None, Field(max_length=64)] = None
    """Labels in place of those that it has."""

    metadata: Metadata | None = None
    """Metadata in place of what it has."""

    priority: Priority | None = None
    """Another priority, while it is queued or paused."""

    @property
    def values(self) -> dict[str, Any]:
        """By column, what it shall be."""
        said = {"name": self.name, "labels": self.labels, "metadata_": self.metadata}
        level = None if self.priority is None else self.priority.level
        return {
            name: value for name, value in {**said, "priority": level}.items() if value is not None
        }
