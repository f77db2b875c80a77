"""Finds the job that a person means by the beginning of its id."""

from uuid import UUID

from client.errors import ClientError
from client.service import BonsaiClient

_MOST_SHOWN = 5


def find_job(client: BonsaiClient, given: str) -> str:
    """The id of the one job whose id begins with `given`; a whole id is taken as it is."""
    try:
        return str(UUID(given))
    except ValueError:
        pass
    start = given.strip().lower()
    jobs = [job for job in client.jobs() if job.id.startswith(start)] if start else []
    if not jobs:
        raise ClientError(f"no job's id begins with {given!r}; `bonsai list` shows those there are")
    if len(jobs) > 1:
        shown = ", ".join(f"{job.id} ({job.name or job.state})" for job in jobs[:_MOST_SHOWN])
        raise ClientError(f"{len(jobs)} ids begin with {given!r}: {shown}; give more of one")
    return jobs[0].id
