"""Callers that run into each other.

    python -m tests.race.client PLAN ANSWERS

`PLAN` is a JSON file: `{addresses, callers}`, a caller `{address, calls}`, and a call `[task, token, operation, arguments]`.
Each caller is a thread that asks one call after the other, of one of the addresses. Once all have asked, the answers are
written as JSON lines: `[caller, operation, task, begun, ended, code]`, times by the machine's own clock that never goes back,
and no code where nobody answered.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc

from authz.v1 import authorizer_pb2_grpc, decision_pb2, reason_pb2
from tests.support.working import evidence

SECONDS = 10.0
#: How often a call is tried again that nobody answered: a server may be starting again.
TRIES = 200


class Caller(threading.Thread):
    """Asks its calls, one after the other.

    Args:
        name: Its number.
        stub: Of the server that it asks.
        calls: What it asks.
        gate: Where all wait for each other.
        stop: Nothing more is asked once it is set.
    """

    def __init__(
        self, name: int, stub: Any, calls: list[list[str]], gate: threading.Barrier
    ) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[int, str, str, float, float, str]] = []
        self._number = name
        self._stub = stub
        self._calls = calls
        self._gate = gate

    def run(self) -> None:
        """Asks."""
        self._gate.wait()
        for task, token, operation, arguments in self._calls:
            request = decision_pb2.CheckRequest(
                evidence=[evidence(token)],
                task=task,
                operation=operation,
                arguments_json=arguments.encode(),
            )
            for _ in range(TRIES):
                begun = time.monotonic()
                code = self._ask(request)
                ended = time.monotonic()
                self.answers.append((self._number, operation, task, begun, ended, code))
                if code:
                    break
                time.sleep(0.05)

    def _ask(self, request: decision_pb2.CheckRequest) -> str:
        try:
            decision = self._stub.Check(request, timeout=SECONDS).decision
        except grpc.RpcError:
            return ""
        return reason_pb2.ReasonCode.Name(decision.reason_code).removeprefix("REASON_CODE_")


def main() -> None:
    """Runs the callers."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
    channels = [grpc.insecure_channel(address, options) for address in plan["addresses"]]
    stubs = [authorizer_pb2_grpc.AuthorizerStub(channel) for channel in channels]
    gate = threading.Barrier(len(plan["callers"]))
    callers = [
        Caller(number, stubs[one["address"]], one["calls"], gate)
        for number, one in enumerate(plan["callers"])
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    lines = [json.dumps(answer) for caller in callers for answer in caller.answers]
    Path(sys.argv[2]).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
