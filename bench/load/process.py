"""Processes under measurement: start, wait, read /proc, stop."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcessError(RuntimeError):
    """A process under measurement did not start, or ended early."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far.

    Attributes:
        cpu_seconds: user and system time of all its threads.
        rss_mb: resident memory, in 10⁶ bytes.
    """

    cpu_seconds: float
    rss_mb: float


class Process:
    """A process that listens on ports, ended by leaving the `with` block.

    Args:
        command: what to run.
        ports: on 127.0.0.1; the block begins when all accept connections.
        cwd: its working folder.
        env: variables added to ours.
        log: file for its output.
        patience: seconds until all ports must accept.
        ends_with_input: it ends once its standard input does, in place of a signal.
    """

    def __init__(
        self,
        command: Sequence[str],
        ports: Sequence[int],
        *,
        cwd: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        patience: float = 30,
        ends_with_input: bool = False,
    ) -> None:
        self._command, self._ports, self._cwd, self._log = list(command), list(ports), cwd, log
        self._env = {**os.environ, **(env or {})}
        self._patience, self._ends_with_input = patience, ends_with_input
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.PIPE if self._ends_with_input else None,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        if child.stdin is not None:
            child.stdin.close()
        else:
            child.terminate()
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(timeout=5)

    @property
    def pid(self) -> int:
        """Process id.

        Raises:
            ProcessError: not started.
        """
        if self._child is None:
            raise ProcessError("not started")
        return self._child.pid

    def alive(self) -> None:
        """Checks that it still runs.

        Raises:
            ProcessError: it has ended.
        """
        if self._child is None or self._child.poll() is not None:
            code = None if self._child is None else self._child.returncode
            raise ProcessError(f"{self._command[0]} ended with {code}; {self.tail()}")

    def tail(self) -> str:
        """Returns the last lines of its output."""
        return "its last words: " + self._log.read_bytes()[-1500:].decode(errors="replace")

    def usage(self) -> Usage:
        """Reads proc_pid_stat(5) and proc_pid_statm(5).

        Raises:
            ProcessError: it has ended.
        """
        self.alive()
        # The second field is the name in brackets, which may hold blanks: fields are counted from its end.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return Usage((int(fields[11]) + int(fields[12])) / _TICKS, resident * _PAGE / 1e6)

    def _wait(self) -> None:
        """Waits until every port accepts connections."""
        deadline = time.monotonic() + self._patience
        for port in self._ports:
            while not self._accepts(port):
                self.alive()
                if time.monotonic() > deadline:
                    patience = f"{self._patience:.0f} s"
                    raise ProcessError(f"port {port} is closed after {patience}; {self.tail()}")
                time.sleep(0.05)

    @staticmethod
    def _accepts(port: int) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Returns ports of 127.0.0.1 that were free just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
