"""Where the servers' Unix sockets lie."""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from client.embedded.errors import EmbeddedStackError
from client.embedded.identity import NOBODY

# Usable bytes of sockaddr_un.sun_path: 108 on Linux, 104 on macOS, with a zero at the end.
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
LONGEST_SOCKET_NAME = ".s.PGSQL.5432"
# PostgreSQL and libpq read a list where these stand, or strip quotes.
UNFIT_CHARACTERS = frozenset(",\"'\\\n")


def socket_folder(data: Path) -> Path:
    """`run` in the data folder, or where that is too long one named by user and data elsewhere."""
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    name = f"bonsai-{os.geteuid()}-{digest}"
    for folder in (data / "run", Path(tempfile.gettempdir()) / name, Path("/tmp") / name):  # noqa: S108
        if _fits(folder):
            return _private(folder)
    raise EmbeddedStackError(
        f"No folder for sockets: the paths of {data} and of {tempfile.gettempdir()} are too long, "
        "or hold a comma, a quote or a backslash. Choose another data folder."
    )


def _fits(folder: Path) -> bool:
    path = str(folder / LONGEST_SOCKET_NAME)
    return len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and not UNFIT_CHARACTERS & set(path)


def _private(folder: Path) -> Path:
    """Whoever can enter this folder is master of the databases, so it must be ours alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    owners = {os.geteuid()} | ({NOBODY} if os.geteuid() == 0 else set())
    if folder.is_symlink() or not folder.is_dir() or status.st_uid not in owners:
        raise EmbeddedStackError(
            f"{folder} should be a folder of user id {os.geteuid()} "
            f"and is not (owner {status.st_uid}). Remove it, or choose another data folder."
        )
    folder.chmod(0o700)
    return folder
