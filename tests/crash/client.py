"""The load: starts, delegates, checks and ends tasks, asks for credentials in them, whatever happens to the server.

    python -m tests.crash.client PLAN JOURNAL

`PLAN` is a JSON file: `{address, planner: {id, token}, workers: [{id, token}], subject, threads, stop, issued}`; it ends once the
file `stop` is there. `issued` lists the operations that credentials are asked for. It runs in a process of its own, so that nothing that happens to the server happens to its journal.
"""

import json
import random
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from authz_client.v1 import (
    authorizer_pb2_grpc,
    credentials_pb2,
    credentials_pb2_grpc,
    decision_pb2,
    reason_pb2,
    tasks_pb2,
    tasks_pb2_grpc,
)
from tests.crash.journal import Journal
from tests.support.working import TALLY, evidence

SECONDS = 3.0


@dataclass(frozen=True)
class Given:
    """A task that was answered, as its holder knows it."""

    task: str
    holder: dict[str, str]
    parent: str


@dataclass
class Client:
    """Everything that the threads share."""

    plan: dict[str, Any]
    journal: Journal
    tasks: list[Given] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Works until told to stop."""
        options = [
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        stop = Path(self.plan["stop"])
        with grpc.insecure_channel(self.plan["address"], options) as channel:
            tasks = tasks_pb2_grpc.TasksStub(channel)
            authorizer = authorizer_pb2_grpc.AuthorizerStub(channel)
            credentials = credentials_pb2_grpc.CredentialsStub(channel)
            steps = (
                [self.start] * 2
                + [self.delegate] * 2
                + [self.check] * 10
                + [self.end]
                + [self.tally] * 2
            )
            if self.plan["issued"]:
                steps += [lambda _, ask: self.issue(ask, credentials)] * 3
            while not stop.exists():
                random.choice(steps)(tasks, authorizer)

    def call(
        self, asked: dict[str, Any], do: Callable[[], dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Writes down what is asked, asks, and writes down the answer."""
        name = uuid.uuid4().hex
        self.journal.write(name, "asked", **asked)
        try:
            answer = do()
        except grpc.RpcError as error:
            failed: Any = error
            self.journal.write(name, "unknown", code=failed.code().name)
            threading.Event().wait(0.02)
            return None
        self.journal.write(name, "answered", **answer)
        return answer

    def some(self) -> Given | None:
        """Picks a task, rather a young one."""
        with self.lock:
            return random.choice(self.tasks[-30:]) if self.tasks else None

    def add(self, given: Given) -> None:
        """Keeps a task to work on."""
        with self.lock:
            self.tasks.append(given)
            del self.tasks[:-200]

    def start(self, tasks: Any, _: Any) -> None:
        """Starts a root task."""
        planner = self.plan["planner"]
        request = tasks_pb2.StartRequest(
            evidence=[
                evidence(planner["token"]),
                evidence(self.plan["subject"], of_subject=True),
            ],
            template="work",
        )

        def do() -> dict[str, Any]:
            answer = tasks.Start(request, timeout=SECONDS)
            return {"task": answer.task.id}

        answer = self.call({"kind": "start"}, do)
        if answer:
            self.add(Given(answer["task"], planner, ""))

    def delegate(self, tasks: Any, _: Any) -> None:
        """Delegates one to a worker; refused where it has ended, or is too deep."""
        given = self.some()
        if given is None:
            return
        worker = random.choice(self.plan["workers"])
        request = tasks_pb2.DelegateRequest(
            evidence=[evidence(given.holder["token"])], parent=given.task, assignee=worker["id"]
        )

        def do() -> dict[str, Any]:
            try:
                answer = tasks.Delegate(request, timeout=SECONDS)
            except grpc.RpcError as error:
                return refused(error)
            return {"task": answer.task.id}

        answer = self.call({"kind": "delegate", "parent": given.task}, do)
        if answer and "task" in answer:
            self.add(Given(answer["task"], worker, given.task))

    def check(self, _: Any, authorizer: Any) -> None:
        """Asks for an operation in a task."""
        given = self.some()
        if given is None:
            return
        operation = random.choice(["desk.look", "desk.note", "desk.note", "desk.note", "desk.wipe"])
        asked = {"kind": "check", "task": given.task, "operation": operation}
        self.checked(authorizer, asked, given.holder)

    def tally(self, _: Any, authorizer: Any) -> None:
        """Asks for an operation without a task, as some worker."""
        worker = random.choice(self.plan["workers"])
        asked = {"kind": "tally", "task": "", "operation": TALLY, "agent": worker["id"]}
        self.checked(authorizer, asked, worker)

    def checked(self, authorizer: Any, asked: dict[str, Any], holder: dict[str, str]) -> None:
        """Asks for an operation, as the holder of a task or without one."""
        request = decision_pb2.CheckRequest(
            evidence=[evidence(holder["token"])],
            task=asked["task"],
            operation=asked["operation"],
            arguments_json=b'{"id": "n-1"}',
        )

        def do() -> dict[str, Any]:
            decision = authorizer.Check(request, timeout=SECONDS).decision
            return {
                "decision": decision.decision_id,
                "permit": decision.outcome == decision_pb2.OUTCOME_PERMIT,
                "code": reason_pb2.ReasonCode.Name(decision.reason_code),
            }

        self.call(asked, do)

    def issue(self, authorizer: Any, credentials: Any) -> None:
        """Asks for a permit that is kept, and for its credential: a token, or a leased secret."""
        given = self.some()
        if given is None:
            return
        operation = random.choice(self.plan["issued"])
        who = [evidence(given.holder["token"])]
        request = decision_pb2.CheckRequest(
            evidence=who,
            task=given.task,
            operation=operation,
            arguments_json=b'{"id": "n-1"}',
            wants_credential=True,
        )

        def do() -> dict[str, Any]:
            decision = authorizer.Check(request, timeout=SECONDS).decision
            if decision.outcome != decision_pb2.OUTCOME_PERMIT:
                return {"refused": reason_pb2.ReasonCode.Name(decision.reason_code)}
            asked = credentials_pb2.IssueRequest(evidence=who, decision_id=decision.decision_id)
            try:
                issued = credentials.Issue(asked, timeout=SECONDS)
            except grpc.RpcError as error:
                return refused(error)
            given = {"token": issued.token, "parts": dict(issued.lease.parts)}
            return {**given, "expires_at": issued.expires_at.seconds}

        self.call({"kind": "issue", "task": given.task, "operation": operation}, do)

    def end(self, tasks: Any, _: Any) -> None:
        """Ends a task and all below it."""
        given = self.some()
        if given is None:
            return
        request = tasks_pb2.EndRequest(
            evidence=[evidence(given.holder["token"])],
            task=given.task,
            status=tasks_pb2.TASK_STATUS_COMPLETED,
        )

        def do() -> dict[str, Any]:
            try:
                return {"ended": tasks.End(request, timeout=SECONDS).ended}
            except grpc.RpcError as error:
                return refused(error)

        self.call({"kind": "end", "task": given.task}, do)


def refused(error: grpc.RpcError) -> dict[str, Any]:
    """Tells a refusal, which is an answer, from a failure, which is none."""
    failed: Any = error
    answers = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION)
    if failed.code() in answers:
        return {"refused": failed.code().name}
    raise error


def main() -> None:
    """Runs the threads."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    client = Client(plan, Journal(Path(sys.argv[2])))
    threads = [threading.Thread(target=client.run) for _ in range(plan["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
