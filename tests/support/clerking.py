"""A clerk, who works on a user's behalf in a task of whatever bundle names it."""

import json
from dataclasses import dataclass
from typing import Any, Final

from authz_client.v1 import decision_pb2, tasks_pb2
from tests.support.minting import Authority
from tests.support.server import Server
from tests.support.surfaces import CHECK, decision_of
from tests.support.working import evidence

CLERK: Final = "spiffe://a.example/ns/support/sa/clerk"


@dataclass(frozen=True)
class Clerk:
    """The clerk and Alice, with good credentials."""

    token: str
    alice: str

    @classmethod
    def of(cls, authority: Authority, user: str = "alice") -> "Clerk":
        """Mints their credentials; of another user's in Alice's place where one is named."""
        alice = authority.subject(user, "corp", groups=["employees"])
        return cls(authority.agent(CLERK), alice)

    def start(self, server: Server, template: str) -> str:
        """Starts a task of Alice's that the clerk has; returns its id."""
        request = tasks_pb2.StartRequest(
            evidence=[evidence(self.alice, of_subject=True)], template=template, assignee=CLERK
        )
        data = server.call("main", "authz.v1.Tasks/Start", request.SerializeToString())
        task: str = tasks_pb2.StartResponse.FromString(data).task.id
        return task

    def check(
        self,
        server: Server,
        task: str,
        operation: str,
        arguments: dict[str, Any],
        listener: str = "main",
    ) -> decision_pb2.Decision:
        """Asks for one call."""
        request = decision_pb2.CheckRequest(
            evidence=[evidence(self.token)],
            task=task,
            operation=operation,
            arguments_json=json.dumps(arguments).encode(),
        )
        return decision_of(server.call(listener, CHECK, request.SerializeToString()))
