"""What a list of jobs is asked for, as parameters of its address."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from jobs.listing import JobFilter, JobSort
from jobs.moments import Moment
from jobs.states import JobState


def _labelled(label: str) -> str:
    key, equals, _ = label.partition("=")
    if not equals or not key:
        raise ValueError(f"got {label!r}; say key=value")
    return label


NoNul = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class JobQuery(BaseModel):
    """The parameters; any other is refused, as a filter that is not known would let all through."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Most jobs to return."""

    cursor: Annotated[str | None, Field(max_length=300)] = None
    """`next_cursor` of the page before, unchanged; with the same `sort`."""

    sort: JobSort = JobSort.NEWEST
    """The order; with `-`, the latest first. By `finished_at`, jobs that have not ended are left
    out."""

    state: Annotated[list[JobState], Field(max_length=8)] = []
    """Only jobs in this state; may be repeated for several."""

    owner: Annotated[NoNul | None, Field(max_length=63)] = None
    """Only jobs of this owner."""

    label: Annotated[
        list[Annotated[NoNul, AfterValidator(_labelled)]],
        Field(max_length=64, examples=[["team=search"]]),
    ] = []
    """Only jobs with this label, as `key=value`; may be repeated, and then all must match."""

    model: Annotated[NoNul | None, Field(max_length=4096)] = None
    """Only jobs on the model of this source, as it was submitted."""

    name: Annotated[NoNul | None, Field(max_length=200)] = None
    """Only jobs of exactly this name."""

    created_after: Moment | None = None
    """Only jobs submitted at this moment (RFC 3339) or later."""

    created_before: Moment | None = None
    """Only jobs submitted before this moment (RFC 3339)."""

    @property
    def wanted(self) -> JobFilter:
        """The filter that it says."""
        labels = dict(label.split("=", 1) for label in self.label)
        return JobFilter(
            states=frozenset(self.state),
            owner=self.owner,
            labels=labels,
            model=self.model,
            name=self.name,
            created_after=self.created_after,
            created_before=self.created_before,
        )
