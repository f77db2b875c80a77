"""With which codes commands end: the one table of them."""

from enum import IntEnum

from client.responses import Job


class ExitCode(IntEnum):
    """What scripts may rely on."""

    DONE = 0
    """Or: the job has succeeded."""

    FAILED = 1
    """The command could not do what it was asked to, or the job has failed."""

    USAGE = 2
    """The command line is not understood; nothing was asked of the service."""

    CANCELLED = 3
    """The job was cancelled."""

    TIMEOUT = 124
    """The job had not ended when the time was over, as `timeout` has it."""

    INTERRUPTED = 130
    """By Ctrl-C: 128 and the number of SIGINT, as shells have it."""

    @classmethod
    def of(cls, job: Job) -> "ExitCode":
        """The code of the state a job is in."""
        codes = {"succeeded": cls.DONE, "failed": cls.FAILED, "cancelled": cls.CANCELLED}
        return codes.get(job.state, cls.TIMEOUT)
