"""One stack for one data folder."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from client.embedded.errors import EmbeddedStackError


class FolderLock:
    """Held by whoever runs the servers of a folder; the kernel frees it however that one ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: TextIO | None = None

    def acquire(self) -> None:
        path = self.folder / "stack.lock"
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise EmbeddedStackError(
                f"Cannot write in the data folder {self.folder} ({error.strerror}) as user id "
                f"{os.geteuid()}. Start as the user who owns it, or choose another folder."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            if not isinstance(error, BlockingIOError):
                raise EmbeddedStackError(
                    f"The data folder {self.folder} cannot be locked ({error.strerror}). "
                    "Choose a folder on a local disk."
                ) from error
            raise EmbeddedStackError(
                f"The data folder {self.folder} is in use by process {holder}. "
                f"Stop that process (kill {holder}), or choose another data folder."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        # The file stays: removing it would let two processes hold two locks of the same name.
        if self._file is not None:
            self._file.close()
            self._file = None
