"""Whether the host ran out of memory, and its kernel chose a process to kill."""

from pathlib import Path

_COUNTERS = Path("/proc/vmstat")


def kills() -> int:
    """How many processes the kernel has killed for their memory since it started; 0 where it does
    not say."""
    if not _COUNTERS.is_file():
        return 0
    counters = dict(line.split() for line in _COUNTERS.read_text().splitlines())
    return int(counters.get("oom_kill", 0))
