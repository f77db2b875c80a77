"""Processes as the operating system knows them: ending with a parent, and finding who works in a
folder.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from client.embedded.errors import EmbeddedStackError

ON_LINUX = sys.platform == "linux"
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in <sys/prctl.h>

# Loaded here and not in the child: between fork and exec nothing may be imported or allocated at
# length.
_C_LIBRARY = ctypes.CDLL(None) if ON_LINUX else None


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends the signal when the thread that forked ends.

    Also when it ends by kill -9. Linux only: elsewhere orphans stay until the next start, which
    ends them.
    """
    parent = os.getpid()

    def arrange() -> None:
        if _C_LIBRARY is None:
            return
        _C_LIBRARY.prctl(SET_PARENT_DEATH_SIGNAL, int(death_signal), 0, 0, 0)
        # The parent may have ended before the call above; then nobody would ever send the signal.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return arrange


def processes_in(folder: Path, program_names: Sequence[str]) -> list[int]:
    """Living processes of these programs whose working folder is this one.

    Both servers enter their data folder, so this finds ours and never a stranger's who got a
    remembered process id after a reboot, and it follows a folder that was moved. A zombie has no
    working folder.
    """
    if not folder.exists():
        return []
    return _scan_proc(folder, program_names) if ON_LINUX else _ask_lsof(folder, program_names)


def end_processes(
    folder: Path,
    program_names: Sequence[str],
    polite: signal.Signals,
    *,
    grace: float = 20.0,
    leader: int | None = None,
) -> None:
    """End what an earlier start left in a folder: politely, and after the grace for good.

    With a leader only it is asked politely: its helpers give the same signal another meaning,
    and follow it anyway.
    """
    for wanted, seconds in ((polite, grace), (signal.SIGKILL, 10.0)):
        signalled: set[int] = set()
        deadline = time.monotonic() + seconds
        while found := processes_in(folder, program_names):
            for process in set(found) - signalled:
                signalled.add(process)
                if leader in (None, process) or wanted is signal.SIGKILL:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, wanted)
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return
    raise EmbeddedStackError(
        f"Processes {found} still work in {folder} and do not end. "
        "End them by hand (kill -9), then start again."
    )


def _scan_proc(folder: Path, program_names: Sequence[str]) -> list[int]:
    wanted = folder.stat()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # Processes end while we look, and other users' folders may not be read.
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text().strip() not in program_names:
                continue
            place = (entry / "cwd").stat()
            if (place.st_dev, place.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append(int(entry.name))
    return found


def _ask_lsof(folder: Path, program_names: Sequence[str]) -> list[int]:
    """macOS has no /proc, and always has lsof; each field stands on a line, after its letter.

    A folder is known by device and inode: lsof writes names in a spelling of its own.
    """
    choice = [part for name in program_names for part in ("-c", name)]
    answer = subprocess.run(
        ["lsof", "-a", "-d", "cwd", "-F", "pDi", *choice],
        capture_output=True,
        text=True,
        check=False,
    )
    wanted = folder.stat()
    found: list[int] = []
    process = device = 0
    for line in answer.stdout.splitlines():
        letter, value = line[:1], line[1:]
        if letter == "p":
            process = int(value)
        elif letter == "D":
            device = int(value, 16)
        elif letter == "i" and (device, int(value)) == (wanted.st_dev, wanted.st_ino):
            found.append(process)
    return found
