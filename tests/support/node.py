"""A node in memory that answers as it is told, for tests of the client; it can be served over gRPC too."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from authz_client import TransportError
from authz_client.v1 import (
    approvals_pb2,
    authorizer_pb2,
    credentials_pb2,
    decision_pb2,
    options_pb2,
    reason_pb2,
    tasks_pb2,
)

Check = Callable[[decision_pb2.CheckRequest], decision_pb2.CheckResponse]


def decision(reason: str, **more: Any) -> decision_pb2.CheckResponse:
    """Makes the answer of a reason code's row."""
    value = reason_pb2.ReasonCode.DESCRIPTOR.values_by_name[f"REASON_CODE_{reason}"]
    row = value.GetOptions().Extensions[options_pb2.reason]
    outcome = {
        options_pb2.PUBLIC_CODE_PERMIT: decision_pb2.OUTCOME_PERMIT,
        options_pb2.PUBLIC_CODE_STEP_UP: decision_pb2.OUTCOME_STEP_UP,
    }.get(row.public_code, decision_pb2.OUTCOME_DENY)
    made = decision_pb2.Decision(
        decision_id=str(uuid.uuid4()),
        outcome=outcome,
        public_code=row.public_code,
        next_action=row.next_action,
        retry=row.retry,
        reason_code=reason_pb2.ReasonCode.Value(value.name),
        enforced=True,
    )
    made.MergeFrom(decision_pb2.Decision(**more))
    return decision_pb2.CheckResponse(decision=made)


class NoAnswer(Exception):  # noqa: N818 - it is an answer
    """What the node answers instead of a message: an RPC status."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str = "",
        details: str = "told to",
        dpop_nonce: str = "",
    ) -> None:
        super().__init__(details)
        self.dpop_nonce = dpop_nonce
        self.code = code
        self.reason = reason
        self.details = details

    def status(self) -> bytes:
        """Encodes `google.rpc.Status`; empty without a reason."""
        if not self.reason:
            return b""
        info = any_pb2.Any()
        said = error_details_pb2.ErrorInfo(reason=self.reason, domain="authz.dev")
        if self.dpop_nonce:
            said.metadata["dpop_nonce"] = self.dpop_nonce
        info.Pack(said)
        number = self.code.value[0]
        return bytes(status_pb2.Status(code=number, details=[info]).SerializeToString())


@dataclass
class Node:
    """Answers each method by the next of its answers, the last for ever; keeps what it was asked.

    An answer is a message, bytes, an exception, or a function of the request.
    """

    answers: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    delay: float = 0.0
    started: dict[str, tasks_pb2.Task] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    _KINDS: ClassVar[dict[str, Any]] = {
        "authz.v1.Authorizer/Check": decision_pb2.CheckRequest,
        "authz.v1.Authorizer/List": authorizer_pb2.ListRequest,
        "authz.v1.Authorizer/Report": authorizer_pb2.ReportRequest,
        "authz.v1.Tasks/Start": tasks_pb2.StartRequest,
        "authz.v1.Tasks/Delegate": tasks_pb2.DelegateRequest,
        "authz.v1.Tasks/Extend": tasks_pb2.ExtendRequest,
        "authz.v1.Tasks/End": tasks_pb2.EndRequest,
        "authz.v1.Approvals/Get": approvals_pb2.ApprovalsGetRequest,
        "authz.v1.Credentials/Issue": credentials_pb2.IssueRequest,
        "authz.v1.Credentials/Revoke": credentials_pb2.CredentialsRevokeRequest,
    }

    def says(self, method: str, *answers: Any) -> "Node":
        """Sets the answers of a method."""
        self.answers[method] = list(answers)
        return self

    def requests(self, method: str) -> Sequence[Any]:
        """Returns what a method was asked."""
        return [request for name, request in self.asked if name.endswith(f"/{method}")]

    def answer(self, method: str, request: bytes) -> bytes:
        """Answers one call."""
        time.sleep(self.delay)
        message = self._KINDS[method].FromString(request)
        with self._lock:
            self.asked.append((method, message))
            planned = self.answers.get(method.rpartition("/")[2])
            said = self._own(method, message)
            if planned:
                said = planned.pop(0) if len(planned) > 1 else planned[0]
        if callable(said):
            said = said(message)
        if isinstance(said, BaseException):
            raise said
        return said if isinstance(said, bytes) else bytes(said.SerializeToString())

    def _own(self, method: str, request: Any) -> Any:
        name = method.rpartition("/")[2]
        if name == "Check":
            return decision("PERMITTED")
        if name in {"List", "Report"}:
            kind = authorizer_pb2.ListResponse if name == "List" else authorizer_pb2.ReportResponse
            return kind()
        if name in {"Start", "Delegate"}:
            return lambda one: self._start(name, one)
        if name in {"Issue", "Revoke"}:
            return self._credential(name, request)
        if name == "Extend":
            return tasks_pb2.ExtendResponse(task=tasks_pb2.Task(id=request.task))
        return self._end

    @staticmethod
    def _credential(name: str, request: Any) -> Any:
        if name == "Revoke":
            return credentials_pb2.CredentialsRevokeResponse()
        kind = "DPoP" if request.proof else "Bearer"
        issued = credentials_pb2.IssueResponse(token="a.b.c", token_type=kind)
        issued.expires_at.FromSeconds(int(time.time()) + 60)
        return issued

    def _start(self, name: str, request: Any) -> Any:
        known = self.keys.setdefault(request.idempotency_key, f"task-{len(self.keys) + 1}")
        task = tasks_pb2.Task(id=known, template=request.template, assignee=request.assignee)
        task.status = tasks_pb2.TASK_STATUS_ACTIVE
        task.scope.extend(request.scope)
        if name == "Delegate":
            task.parent = request.parent
        self.started[known] = task
        kind = tasks_pb2.StartResponse if name == "Start" else tasks_pb2.DelegateResponse
        return kind(task=task)

    def _end(self, request: tasks_pb2.EndRequest) -> Any:
        task = self.started.get(request.task)
        if task is None or task.status != tasks_pb2.TASK_STATUS_ACTIVE:
            return NoAnswer(grpc.StatusCode.FAILED_PRECONDITION, "TASK_ENDED")
        task.status = request.status
        return tasks_pb2.EndResponse(ended=1)

    def status(self, task: str) -> str:
        """Returns how a task stands."""
        return tasks_pb2.TaskStatus.Name(self.started[task].status).removeprefix("TASK_STATUS_")

    # --- as a transport

    def call(self, method: str, request: bytes, timeout: float) -> bytes:
        """Answers as `authz_client.Transport`."""
        assert timeout > 0
        try:
            return self.answer(method, request)
        except NoAnswer as error:
            raise TransportError(error.code.value[0], error.details, error.status()) from error

    async def acall(self, method: str, request: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - part of the protocol
        """Answers as `authz_client.Transport`."""
        return self.call(method, request, timeout)

    def close(self) -> None:
        """Nothing."""

    async def aclose(self) -> None:
        """Nothing."""

    # --- over gRPC

    @contextmanager
    def served(self, address: str = "127.0.0.1:0") -> Iterator[str]:
        """Serves it; yields the address."""
        with futures.ThreadPoolExecutor(4) as executor:
            server = grpc.server(executor, options=[("grpc.so_reuseport", 0)])
            services: dict[str, dict[str, Any]] = {}
            for method in self._KINDS:
                service, _, name = method.partition("/")
                services.setdefault(service, {})[name] = grpc.unary_unary_rpc_method_handler(
                    self._handler(method)
                )
            for service, methods in services.items():
                generic = grpc.method_handlers_generic_handler(service, methods)
                server.add_generic_rpc_handlers((generic,))
            port = server.add_insecure_port(address)
            server.start()
            try:
                yield address if address.startswith("unix:") else f"127.0.0.1:{port}"
            finally:
                server.stop(None).wait()

    def _handler(self, method: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return self.answer(method, request)
            except NoAnswer as error:
                if error.reason:
                    pairs = (("grpc-status-details-bin", error.status()),)
                    context.set_trailing_metadata(pairs)
                context.abort(error.code, error.details)
                raise

        return handle
