"""The principals of the bundle `work`, and what they ask of tasks."""

from dataclasses import dataclass
from typing import Any, Final

import grpc

from authz_client.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    authorizer_pb2_grpc,
    decision_pb2,
    reason_pb2,
    tasks_pb2,
    tasks_pb2_grpc,
)
from tests.support.cases import BUNDLES
from tests.support.minting import Authority
from tests.support.server import Server

BUNDLE: Final = BUNDLES / "work"
PLANNER: Final = "spiffe://a.example/ns/work/sa/planner"
WORKERS: Final = tuple(f"spiffe://a.example/ns/work/worker/{number}" for number in range(4))
#: How often each counted operation may be used in one task; the bundle says so.
LIMITS: Final = {"desk.note": 40, "desk.wipe": 10}
#: The operation that workers do without a task, and how often each may; the bundle says so.
TALLY: Final = "desk.tally"
TALLIES: Final = 400


def evidence(token: str, *, of_subject: bool = False) -> decision_pb2.Evidence:
    """Returns a bearer credential."""
    role = decision_pb2.EVIDENCE_ROLE_SUBJECT if of_subject else decision_pb2.EVIDENCE_ROLE_AGENT
    return decision_pb2.Evidence(role=role, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token=token)


@dataclass(frozen=True)
class Crew:
    """The planner, its workers and the user on whose behalf they work, with good credentials."""

    tokens: dict[str, str]
    subject: str

    @classmethod
    def of(cls, authority: Authority) -> "Crew":
        """Mints their credentials."""
        tokens = {name: authority.agent(name) for name in (PLANNER, *WORKERS)}
        return cls(tokens, authority.subject("alice"))

    def start(self, server: Server, listener: str = "main") -> str:
        """Starts a root task of the planner; returns its id."""
        request = tasks_pb2.StartRequest(
            evidence=[
                evidence(self.tokens[PLANNER]),
                evidence(self.subject, of_subject=True),
            ],
            template="work",
        )
        stub: Any = tasks_pb2_grpc.TasksStub(server.channel(listener))
        task: str = stub.Start(request, timeout=5, wait_for_ready=True).task.id
        return task

    def delegate(self, server: Server, parent: str, holder: str, assignee: str) -> str:
        """Delegates a task; returns the child's id."""
        request = tasks_pb2.DelegateRequest(
            evidence=[evidence(self.tokens[holder])], parent=parent, assignee=assignee
        )
        stub: Any = tasks_pb2_grpc.TasksStub(server.channel("main"))
        task: str = stub.Delegate(request, timeout=5).task.id
        return task

    def end(self, server: Server, task: str, holder: str = PLANNER) -> int:
        """Ends a task; returns how many ended."""
        request = tasks_pb2.EndRequest(
            evidence=[evidence(self.tokens[holder])],
            task=task,
            status=tasks_pb2.TASK_STATUS_COMPLETED,
        )
        stub: Any = tasks_pb2_grpc.TasksStub(server.channel("main"))
        ended: int = stub.End(request, timeout=5).ended
        return ended

    def status(self, server: Server, task: str) -> str | None:
        """Returns how a task stands, as the planner sees it; None where there is none."""
        stub: Any = tasks_pb2_grpc.TasksStub(server.channel("main"))
        request = tasks_pb2.GetRequest(evidence=[evidence(self.tokens[PLANNER])], task=task)
        try:
            answer = stub.Get(request, timeout=5)
        except grpc.RpcError as error:
            failed: Any = error
            if failed.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return tasks_pb2.TaskStatus.Name(answer.task.status).removeprefix("TASK_STATUS_")

    def check(
        self,
        server: Server,
        task: str,
        operation: str,
        holder: str = PLANNER,
        *,
        listener: str = "main",
        timeout: float = 5.0,
    ) -> str:
        """Asks for an operation in a task; returns the reason code, `PERMITTED` for a permit."""
        request = decision_pb2.CheckRequest(
            evidence=[evidence(self.tokens[holder])],
            task=task,
            operation=operation,
            arguments_json=b'{"id": "n-1"}',
        )
        stub: Any = authorizer_pb2_grpc.AuthorizerStub(server.channel(listener))
        decision = stub.Check(request, timeout=timeout, wait_for_ready=True).decision
        code = reason_pb2.ReasonCode.Name(decision.reason_code).removeprefix("REASON_CODE_")
        permitted = decision.outcome == decision_pb2.OUTCOME_PERMIT
        assert permitted == (code == "PERMITTED"), decision
        return code

    def left(self, server: Server, task: str, operation: str) -> int:
        """Uses up what is left of an operation in a root task; returns how much that was."""
        used = 0
        while (code := self.check(server, task, operation)) == "PERMITTED":
            used += 1
            assert used <= LIMITS[operation]
        assert code == "USES_EXHAUSTED", code
        return used

    def tallies_left(self, server: Server, worker: str) -> int:
        """Uses up what a worker may still do without a task; returns how much that was."""
        used = 0
        while (code := self.check(server, "", TALLY, worker)) == "PERMITTED":
            used += 1
            assert used <= TALLIES
        assert code == "BUDGET_EXCEEDED", code
        return used

    @staticmethod
    def revoke(server: Server, **target: str) -> int:
        """Revokes something, by the administration socket; returns how many tasks ended."""
        stub: Any = admin_pb2_grpc.AdminStub(server.channel("admin"))
        request = admin_pb2.AdminRevokeRequest(reason="a test")
        for name, value in target.items():
            setattr(request, name, value)
        ended: int = stub.Revoke(request, timeout=5, wait_for_ready=True).tasks_ended
        return ended
