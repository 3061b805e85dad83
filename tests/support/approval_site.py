"""A gRPC server with the approvals of both kinds of listener, over a store in memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import grpc

from authz.approvals import ApprovalHub, PeopleByUid
from authz.config import ApprovalPerson, Limits
from authz.errors import ApiError, GrpcCode
from authz.server.grpc.approvals import APPROVALS, AdminApprovals, AgentApprovals
from authz.server.grpc.decisions import AUTHORIZER, facts_of
from authz.server.grpc.executor import BoundedExecutor
from authz.server.grpc.listener import options
from authz.server.grpc.receiving import Bounds, Receiver
from authz.server.grpc.unary import CallContext
from authz.server.grpc.watching import WatchStreams
from authz.server.socket_users import users_of_socket
from authz.telemetry import Metrics
from authz_client.v1 import approvals_pb2, decision_pb2
from tests.support.approvals import FakeApprovals, open_approval
from tests.support.node import decision

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent import futures
    from pathlib import Path

    from authz.model import CallFacts

__all__ = ["GOOD", "Site", "Stub"]

GOOD = decision_pb2.Evidence(
    role=decision_pb2.EVIDENCE_ROLE_AGENT, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token="agent"
)
"""Evidence of the agent of every call."""


class Site:
    """A server of approvals, whose `Check` permits a call once after its approval was approved.

    Args:
        timeout: Seconds from a call's arrival until its message must be complete, and until an answer must be taken.

    Attributes:
        asked: Each request of `Check`.
        gets: Number of times that an agent's evidence was verified for its approval.
    """

    def __init__(
        self,
        folder: Path,
        *,
        most: int = 4096,
        most_of_task: int = 64,
        watches: bool = True,
        timeout: float = 0.5,
    ) -> None:
        self.store = FakeApprovals()
        self.asked: list[decision_pb2.CheckRequest] = []
        self.gets = 0
        self.errors: list[BaseException] = []
        self.hub = ApprovalHub(self.store, self.errors.append, most=most, most_of_task=most_of_task)
        self.streams = WatchStreams(self.hub, self.store, self.errors.append)
        self.users: Callable[[], frozenset[int]] = lambda: users_of_socket(self.path)
        self.people = [ApprovalPerson(uid=os.geteuid(), issuer="corp", sub="alice")]
        self.path = f"{folder}/admin.sock"
        self.hub.start()
        self.streams.start()
        self.executor = BoundedExecutor(2, 4096, failed=self.errors.append)
        # A call that is answered and not taken is cancelled after this time; a stream that waits is not answered.
        self.receiver = Receiver(self.executor, Bounds(64, timeout), failed=self.errors.append)
        context = CallContext("main", None, 2.0, facts_of, Metrics(), self.errors.append)
        agents = AgentApprovals(self._status, self.store, self.streams, context)
        served = agents.handlers()
        if not watches:
            del served["Watch"]
        check: Any = grpc.unary_unary_rpc_method_handler(self._check)
        services = {APPROVALS: served, AUTHORIZER: {"Check": check}}
        self.port, self.server = self._serve(services, "127.0.0.1:0")
        admin = AdminApprovals(
            self.store, self.streams, PeopleByUid(self.people), self._users, context
        )
        _, self.admin_server = self._serve({APPROVALS: admin.handlers()}, f"unix:{self.path}")

    def _serve(self, services: Any, address: str) -> tuple[int, grpc.Server]:
        server = grpc.server(
            cast("futures.ThreadPoolExecutor", self.receiver), options=options(Limits())
        )
        for name, handlers in services.items():
            generic = grpc.method_handlers_generic_handler(name, handlers)
            server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port(address)
        server.start()
        return port, server

    def _check(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        asked = decision_pb2.CheckRequest.FromString(request)
        self.asked.append(asked)
        status = self.store.status("a-1")
        if status == approvals_pb2.APPROVAL_STATUS_UNSPECIFIED:
            self.store.put(open_approval("a-1"))
        if status == approvals_pb2.APPROVAL_STATUS_APPROVED:
            self.store.set_status("a-1", approvals_pb2.APPROVAL_STATUS_CONSUMED)
            return decision("PERMITTED").SerializeToString()
        if status == approvals_pb2.APPROVAL_STATUS_REJECTED:
            return decision("APPROVAL_REJECTED").SerializeToString()
        challenge = decision_pb2.Challenge(
            approval_id="a-1",
            url="https://authz.example/a/a-1",
            expires_at=self.store.find("a-1").expires_at,
        )
        answer = decision("APPROVAL_REQUIRED", step_up_kinds=["approve"], challenge=challenge)
        return answer.SerializeToString()

    def _users(self) -> frozenset[int]:
        return self.users()

    def _status(self, request: bytes, _: CallFacts) -> bytes:
        self.gets += 1
        asked = approvals_pb2.ApprovalsGetRequest.FromString(request)
        if asked.evidence != [GOOD]:
            raise ApiError(
                "BAD_CREDENTIAL", GrpcCode.PERMISSION_DENIED, "not the agent of the call"
            )
        return self.store.approval_show(None, asked).SerializeToString()

    def close(self) -> None:
        """Take it down."""
        self.streams.drain()
        for server in (self.server, self.admin_server):
            server.stop(None).wait(5)
        self.streams.close()
        self.hub.close()
        self.receiver.shutdown()
        self.executor.shutdown()


class Stub:
    """The methods of the service."""

    def __init__(self, channel: Any) -> None:
        for name, answer in (
            ("List", approvals_pb2.ApprovalsListResponse),
            ("Get", approvals_pb2.ApprovalsGetResponse),
            ("Resolve", approvals_pb2.ResolveResponse),
            ("Watch", approvals_pb2.WatchResponse),
        ):
            kind = channel.unary_stream if name == "Watch" else channel.unary_unary
            method = kind(
                f"/{APPROVALS}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            setattr(self, name, method)
