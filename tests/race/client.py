"""Callers that run into each other.

    python -m tests.race.client PLAN ANSWERS

`PLAN` is a JSON file: `{addresses, reports_to, callers}`, a caller `{address, calls}`, and a call
`[task, token, operation, arguments, result]`. Each caller is a thread that asks one call after the other, of one of the
addresses; where there is a result, it tells `reports_to` that this came of a permit. Once all have asked, the answers are
written as JSON lines: `[caller, operation, task, begun, ended, code]`, of a report with `report RESULT` in the place of the
operation; times by the machine's own clock that never goes back, and no code where nobody answered.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc

from authz_client.v1 import authorizer_pb2, authorizer_pb2_grpc, decision_pb2, reason_pb2
from tests.race.oracle import REPORT, TOLD
from tests.support.working import evidence

SECONDS = 10.0
#: How often a call is tried again that nobody answered: a server may be starting again.
TRIES = 200
UNANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Caller(threading.Thread):
    """Asks its calls, one after the other.

    Args:
        name: Its number.
        stub: Of the server that it asks.
        reports_to: Of the server that it reports to.
        calls: What it asks.
        gate: Where all wait for each other.
    """

    def __init__(
        self, name: int, stub: Any, reports_to: Any, calls: list[list[str]], gate: threading.Barrier
    ) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[int, str, str, float, float, str]] = []
        self._number = name
        self._stub = stub
        self._reports_to = reports_to
        self._calls = calls
        self._gate = gate

    def run(self) -> None:
        """Asks."""
        self._gate.wait()
        for task, token, operation, arguments, result in self._calls:
            request = decision_pb2.CheckRequest(
                evidence=[evidence(token)],
                task=task,
                operation=operation,
                arguments_json=arguments.encode(),
            )
            decision_id = self._until_answered(request)
            if result and decision_id:
                self._report(task, decision_id, result)

    def _until_answered(self, request: decision_pb2.CheckRequest) -> str:
        """Asks until somebody answers; returns the id of what was permitted."""
        for _ in range(TRIES):
            begun = time.monotonic()
            code, decision_id = self._ask(request)
            ended = time.monotonic()
            one = (self._number, request.operation, request.task, begun, ended, code)
            self.answers.append(one)
            if code:
                return decision_id
            time.sleep(0.05)
        return ""

    def _ask(self, request: decision_pb2.CheckRequest) -> tuple[str, str]:
        try:
            decision = self._stub.Check(request, timeout=SECONDS).decision
        except grpc.RpcError:
            return "", ""
        code = reason_pb2.ReasonCode.Name(decision.reason_code).removeprefix("REASON_CODE_")
        permitted = decision.outcome == decision_pb2.OUTCOME_PERMIT
        if permitted is not (code == "PERMITTED"):
            # No rule expects such a code, so the oracle tells of it.
            code = f"{code} with {decision_pb2.Outcome.Name(decision.outcome)}"
        return code, decision.decision_id if permitted else ""

    def _report(self, task: str, decision_id: str, result: str) -> None:
        """Tells what came of a permit until somebody takes it; all tries are one answer."""
        value = authorizer_pb2.ReportResult.Value(f"REPORT_RESULT_{result}")
        request = authorizer_pb2.ReportRequest(decision_id=decision_id, result=value)
        begun, code = time.monotonic(), ""
        for number in range(TRIES):
            try:
                self._reports_to.Report(request, timeout=SECONDS)
                code = TOLD
            except grpc.RpcError as error:
                failed: Any = error
                if failed.code() not in UNANSWERED:
                    # One that was taken before, and nobody said so, is not taken again.
                    again = number > 0 and failed.code() is grpc.StatusCode.PERMISSION_DENIED
                    code = TOLD if again else failed.code().name
            if code:
                break
            time.sleep(0.05)
        ended = time.monotonic()
        self.answers.append((self._number, f"{REPORT} {result}", task, begun, ended, code))


def main() -> None:
    """Runs the callers."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
    channels = [grpc.insecure_channel(address, options) for address in plan["addresses"]]
    stubs = [authorizer_pb2_grpc.AuthorizerStub(channel) for channel in channels]
    reports_to = authorizer_pb2_grpc.AuthorizerStub(
        grpc.insecure_channel(plan["reports_to"], options)
    )
    gate = threading.Barrier(len(plan["callers"]))
    callers = [
        Caller(number, stubs[one["address"]], reports_to, one["calls"], gate)
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
