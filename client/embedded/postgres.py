"""PostgreSQL in a data folder."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from client.embedded.binaries import POSTGRES_VARIABLE, postgres_folder, postgres_major_version
from client.embedded.child import Child
from client.embedded.errors import EmbeddedStackError
from client.embedded.identity import server_identity
from client.embedded.processes import die_with_parent, end_processes

DATABASE = "app"
USER = "app"
FIRST_MAJOR_WITH_BUILTIN_LOCALE = 17

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "max_connections": "100",
    # Both cost more than they gain on queries as small as ours; parallel ones also need /dev/shm,
    # which is 64 MB in a container.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}
# For tests: everything is lost when the machine goes down, nothing when a process does.
FORGETFUL_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """One cluster, one database `app`; reached through a Unix socket by its own user only."""

    def __init__(self, data: Path, sockets: Path, *, durable: bool) -> None:
        self.cluster = data / "postgres"
        self.sockets = sockets
        self.durable = durable
        self._data = data
        self._programs = postgres_folder()
        self._major = postgres_major_version(self._programs)
        self._identity = server_identity()
        # A user's PGDATA, PGHOST or PGOPTIONS must not reach our server, nor must a locale that is
        # not installed.
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))
        } | {"LC_ALL": "C", "TZ": "UTC"}
        settings = SETTINGS | {"unix_socket_directories": str(sockets)}
        if not durable:
            settings |= FORGETFUL_SETTINGS
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        self.child = Child(
            "postgres",
            [self._programs / "postgres", "-D", self.cluster, *options],
            log=data / "logs" / "postgres.log",
            environment=self._environment,
            # Not the folder of the caller, which nobody may not be able to enter.
            folder=Path("/"),
            identity=self._identity,
            # Fast shutdown: committed rows are kept, clients are dropped.
            death_signal=signal.SIGINT,
        )

    def start(self) -> None:
        if self._identity.user is not None:
            self._data.chmod(0o711)
        self._identity.require_way_to(self.cluster, self.sockets, self._programs / "postgres")
        self._identity.hand_over(self.sockets)
        if not (self.cluster / "PG_VERSION").exists():
            self._make_cluster()
        self._require_same_major()
        self._identity.hand_over(self.cluster)
        self._end_earlier_server()
        self.child.start()

    def wait_ready(self) -> None:
        # Minutes, since a server that was killed first replays its log.
        self.child.wait_until(self._ready, seconds=120)
        if self._query(f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'") != "1":  # noqa: S608
            self._query(f"CREATE DATABASE {DATABASE}")

    def url(self, database: str = DATABASE) -> str:
        """For SQLAlchemy with psycopg 3."""
        folder = quote(str(self.sockets), safe="/")
        return f"postgresql+psycopg://{USER}@/{quote(database, safe='')}?host={folder}"

    def _make_cluster(self) -> None:
        """Made under another name and renamed when complete: no half-made one is ever used."""
        if self.cluster.exists():
            raise EmbeddedStackError(
                f"{self.cluster} is not a PostgreSQL cluster (it has no PG_VERSION). Move it away, "
                "or choose another data folder."
            )
        for leftover in self._data.glob("postgres.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._data))
        self._identity.hand_over(unfinished)
        # The C collation is the same on every machine, so a data folder can be moved.
        locale = ["--locale=C.UTF-8"]
        if self._major >= FIRST_MAJOR_WITH_BUILTIN_LOCALE:
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        making = Child(
            "initdb",
            [
                self._programs / "initdb",
                f"--pgdata={unfinished}",
                f"--username={USER}",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-instructions",
                *locale,
                *([] if self.durable else ["--no-sync"]),
            ],
            log=self._data / "logs" / "initdb.log",
            environment=self._environment,
            folder=Path("/"),
            identity=self._identity,
        )
        making.start()
        try:
            finished = making.wait(300)
        finally:
            making.kill_group()
        if not finished or making.exit_code != 0:
            raise EmbeddedStackError(making.obituary())
        unfinished.rename(self.cluster)

    def _require_same_major(self) -> None:
        found = (self.cluster / "PG_VERSION").read_text().strip()
        if found != str(self._major):
            raise EmbeddedStackError(
                f"{self.cluster} was made by PostgreSQL {found}, "
                f"and the one here is {self._major} ({self._programs}). "
                f"Name the programs of {found} in {POSTGRES_VARIABLE}; to change over, "
                "write a dump with its pg_dumpall and read it into a new data folder."
            )

    def _end_earlier_server(self) -> None:
        """We hold the folder's lock, so a server that is alive here has lost its supervisor."""
        lock_file = self.cluster / "postmaster.pid"
        lines: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            lines = lock_file.read_text(errors="replace").splitlines(keepends=True)
        leader = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
        end_processes(self.cluster, ["postgres"], signal.SIGINT, leader=leader)
        for stale in self.sockets.glob(".s.PGSQL.*"):
            stale.unlink()
        if not lock_file.exists():
            return
        if leader == 0:
            lock_file.unlink()
            return
        # A process id that now is a zombie's or a stranger's would stop PostgreSQL from starting.
        # It takes its parent's for stale, and unlike after a removal it still checks the shared
        # memory named further down.
        lock_file.write_text("".join([f"{os.getpid()}\n", *lines[1:]]))

    def _ready(self) -> bool:
        """The eighth line of the lock file is the state, the first tells whose file it is."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return (
            len(lines) >= 8
            and lines[0] == str(self.child.process_id)
            and lines[7].strip() == "ready"
        )

    def _query(self, statement: str) -> str:
        answer = subprocess.run(
            [
                self._programs / "psql",
                *("-h", self.sockets, "-U", USER, "-d", "postgres", "-w", "-qAtX"),
                *("-c", statement),
            ],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        if answer.returncode != 0:
            raise EmbeddedStackError(f"PostgreSQL refused {statement!r}: {answer.stderr.strip()}")
        return answer.stdout.strip()
