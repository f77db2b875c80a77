"""The user that PostgreSQL believes to be.

PostgreSQL refuses to run as root, and initdb refuses a user id without an entry in the password
file (a container started with `--user 12345`). Creating an account, or opening up root's
folders, would change the machine for good. A user namespace of one id changes nothing: inside it
the process is nobody, outside it still owns the caller's files.
"""

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from client.embedded.errors import EmbeddedStackError

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Identity:
    """How to start a program so that it accepts its user."""

    prefix: tuple[str, ...] = ()
    # Set only where namespaces are forbidden: the process really changes its user.
    user: int | None = None

    @property
    def file_owner(self) -> int:
        """Who must own the files that the process uses."""
        return os.geteuid() if self.user is None else self.user

    def hand_over(self, folder: Path) -> None:
        """Give a folder and all in it to the process, where it has another user than we."""
        owner = folder.lstat().st_uid
        if owner == self.file_owner:
            return
        if os.geteuid() != 0 or owner not in (0, NOBODY):
            raise EmbeddedStackError(
                f"{folder} belongs to user id {owner}, and this process is user id {os.geteuid()}. "
                f"Start it as user id {owner}, or choose another data folder."
            )
        for place, folders, files in os.walk(folder):
            for name in (".", *folders, *files):
                os.chown(
                    Path(place) / name, self.file_owner, self.file_owner, follow_symlinks=False
                )

    def require_way_to(self, *paths: Path) -> None:
        """A process that is really nobody must be able to walk to its files."""
        if self.user is None:
            return
        for path in paths:
            for folder in path.resolve().parents:
                status = folder.stat()
                needed = stat.S_IXUSR if status.st_uid == self.user else stat.S_IXOTH
                if not status.st_mode & needed:
                    raise EmbeddedStackError(
                        "PostgreSQL does not run as root, user namespaces are not allowed here, "
                        f"and user id {self.user} cannot enter {folder} on the way to {path}. "
                        "Start as an ordinary user, or use folders that everybody may enter."
                    )


def server_identity() -> Identity:
    """The identity that PostgreSQL needs under the present user."""
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return Identity()
    unshare = shutil.which("unshare")
    if unshare is not None:
        prefix = (unshare, "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
        attempt = subprocess.run([*prefix, "true"], capture_output=True, check=False)
        if attempt.returncode == 0:
            return Identity(prefix=prefix)
    # Containers whose seccomp profile forbids CLONE_NEWUSER, and macOS.
    return Identity(user=NOBODY) if os.geteuid() == 0 else Identity()


def _has_name(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True
