"""A PostgreSQL server for one measurement, on loopback and in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.load.process import ProcessError, free_ports

#: Where Debian puts the server's programs; elsewhere they are on PATH.
_DEBIAN = Path("/usr/lib/postgresql")
_USER = "postgres"


@cache
def programs() -> Path | None:
    """Returns the folder of the server's programs, the newest; None where PostgreSQL is not installed."""
    found = list(_DEBIAN.glob("*/bin/initdb"))
    if found:
        return max(found, key=lambda path: int(path.parts[-3])).parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def started() -> Iterator["Postgres | None"]:
    """Starts a server in a temporary folder; None where PostgreSQL is not installed.

    Yields:
        The server.

    Raises:
        ProcessError: it does not start.
    """
    if programs() is None:
        yield None
        return
    # Of its own: PostgreSQL's user cannot reach the work folder.
    with (
        tempfile.TemporaryDirectory(prefix="authz-bench-pg-") as folder,
        Postgres(Path(folder)) as server,
    ):
        yield server


class Postgres:
    """A server with one database and PostgreSQL's own settings, ended by leaving the `with` block.

    Args:
        folder: of its own, empty, directly below one that PostgreSQL's user can reach.

    Raises:
        ProcessError: it is not installed, or does not start.
    """

    def __init__(self, folder: Path) -> None:
        found = programs()
        if found is None:
            raise ProcessError("PostgreSQL is not installed")
        self._programs, self._folder = found, folder
        self._port = free_ports(1)[0]

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_USER)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        data, log = self._folder / "data", self._folder / "server.log"
        self._run("initdb", "-D", data, "-U", _USER, "--auth=trust", "--no-sync")
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        # The server keeps the pipes of `pg_ctl` open unless it has a log.
        self._run("pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", options)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run("pg_ctl", "stop", "-w", "-D", self._folder / "data", "-m", "immediate")

    @property
    def dsn(self) -> str:
        """Where it is, as a connection string."""
        return f"postgresql://{_USER}@127.0.0.1:{self._port}/{_USER}"

    @property
    def version(self) -> str:
        """Its version."""
        return self._run("postgres", "--version").split()[2]

    def _run(self, program: str, *arguments: object) -> str:
        command = [str(self._programs / program), *map(str, arguments)]
        if os.geteuid() == 0:
            command = ["runuser", "-u", _USER, "--", *command]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=self._folder
        )
        if done.returncode != 0:
            raise ProcessError(f"{program} failed: {(done.stdout + done.stderr)[-500:]}")
        return done.stdout
