"""A broker that is killed with SIGKILL before one of its statements. Run as a process of its own, which forks for each try.

Each line of standard input is a JSON object: what to do (`make` or `end`), the settings of the broker, and before which
statement it dies. Each line of standard output tells whether it died.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import asyncpg

from authz.config import Broker
from authz.leases import LeaseOrder, PostgresqlBroker

_STATEMENTS: Final = ("execute", "fetch", "fetchrow", "fetchval")


class KilledBroker:
    """The process that forks.

    Args:
        settings: Settings of the broker.
        owner: Issuer of the deployment.
        lease: The lease that it makes or ends.
    """

    def __init__(self, settings: Mapping[str, Any], owner: str, lease: str) -> None:
        self._asked = {"settings": settings, "owner": owner, "lease": lease}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, action: str, operation: str, statement: int) -> bool:
        """Makes or ends a lease with a broker that dies before its n-th statement; tells whether it got so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {**self._asked, "action": action, "operation": operation, "statement": statement}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return bool(answer["killed"])

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=10)


@contextmanager
def killed_broker(settings: Mapping[str, Any], owner: str, lease: str) -> Iterator[KilledBroker]:
    """Starts the process, and ends it."""
    started = KilledBroker(settings, owner, lease)
    try:
        yield started
    finally:
        started.close()


def _die_before(statement: int) -> None:
    left = statement

    def counted(method: Any) -> Any:
        async def run(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return await method(*arguments, **named)

        return run

    connection: Any = asyncpg.Connection
    for name in _STATEMENTS:
        setattr(connection, name, counted(getattr(connection, name)))


def _do(asked: Mapping[str, Any]) -> None:
    _die_before(asked["statement"])
    settings = Broker.model_validate_json(json.dumps(asked["settings"]))
    broker = PostgresqlBroker("warehouse", settings, asked["owner"])
    if asked["action"] == "make":
        broker.make(LeaseOrder(asked["lease"], asked["operation"], time.time() + 60), 10)
    else:
        broker.end(asked["lease"], 10)


def _serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                _do(json.loads(line))
            except BaseException as error:  # noqa: BLE001 - told by the exit code
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        answer: dict[str, Any] = {"killed": code == -signal.SIGKILL}
        if code > 0:
            answer["error"] = code
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
