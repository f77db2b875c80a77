"""How a child process ends: what it tells its supervisor by exit code and one file."""

from enum import IntEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobs.artifacts import StoredFile, files_prefix
from jobs.attempts import Claim


class Exit(IntEnum):
    """Exit codes of the child; any other end is a crash."""

    SUCCEEDED = 0
    FAILED = 65
    STOPPED = 75
    LEASE_LOST = 76
    DISK_FULL = 77
    STORAGE_UNAVAILABLE = 78


class ResultFile(BaseModel):
    """A file of the result, stored and not yet published."""

    name: str
    stored: StoredFile
    content_type: str


class Outcome(BaseModel):
    """What the child leaves beside its log, when it succeeded or failed."""

    result: dict[str, Any] | None = None
    files: list[ResultFile] = []
    error: dict[str, Any] | None = None

    def write(self, path: Path) -> None:
        """Write for the supervisor; it reads after the process has ended."""
        path.write_text(self.model_dump_json())

    @classmethod
    def read(cls, path: Path) -> "Outcome":
        """What the child left; an empty outcome when it left nothing."""
        return cls.model_validate_json(path.read_text()) if path.is_file() else cls()


def result_prefix(claim: Claim) -> str:
    """Folder of the artifact store for the result of one attempt, and of no other."""
    return f"{attempt_prefix(claim)}/result"


def attempt_prefix(claim: Claim) -> str:
    """Folder of what one attempt stores, and no other."""
    return f"{files_prefix(claim.job_id)}/attempts/{claim.fencing_token}"
