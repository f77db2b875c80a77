"""The scratch folder of an attempt, `<job>/attempt-<n>`: all of it goes but what the child said."""

import shutil
from pathlib import Path

from jobs.attempts import Claim

LOG = "log"
PULSE = "pulse"


def begin(scratch_dir: Path, claim: Claim) -> Path:
    """The folder of a new attempt, made here.

    What earlier attempts at the job have left goes: a worker that was killed could not see to it,
    and the statistics of a wide model are larger than the model.
    """
    folder = (scratch_dir / str(claim.job_id)).resolve()
    for earlier in folder.glob("attempt-*"):
        clear(earlier)
    attempt = folder / f"attempt-{claim.attempt}"
    attempt.mkdir(parents=True, exist_ok=True)
    return attempt


def clear(folder: Path) -> None:
    """Remove everything but the log."""
    for path in folder.iterdir():
        if path.is_dir():
            # A child that has lost its lease, and not yet seen it, may still write here.
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOG:
            path.unlink(missing_ok=True)
