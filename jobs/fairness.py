"""How the devices, the queue and the disk are shared out between owners."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fairness:
    """What the order of the queue depends on, besides the jobs.

    Attributes:
        ageing_seconds: waiting so long lifts a job by a level of priority.
        half_life_seconds: after so long, half of what an owner has used is forgotten.
        running_per_owner: jobs of one owner that may run at once; None: as many as there are
            workers.
        queued_per_owner: jobs of one owner that may wait; None: any number.
        disk_per_owner: bytes that the files of one owner's jobs may take before no more of them are
            accepted; None: any number.
    """

    ageing_seconds: float = 43_200.0
    half_life_seconds: float = 86_400.0
    running_per_owner: int | None = None
    queued_per_owner: int | None = None
    disk_per_owner: int | None = None


DEFAULT = Fairness()
