"""Asks a running node: administration over its socket, health over gRPC or HTTP."""

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from authz.errors import ApiError, UnavailableError, UsageError
from authz_client.v1 import admin_pb2, approvals_pb2, authorizer_pb2

__all__ = ["ApprovalWatch", "Remote"]

_DETAILS: Final = "grpc-status-details-bin"
Answer = TypeVar("Answer", bound=Message)


class Remote:
    """A node, reached by one address.

    Args:
        address: `host:port` or `unix:///path`.
        timeout: Seconds for each call.

    Raises:
        UsageError: The address is a bare path, which gRPC would look up as the name of a host.
    """

    def __init__(self, address: str, timeout: float = 5.0) -> None:
        if "/" in address and ":" not in address:
            raise UsageError(f"{address}: a socket is written unix:{address}")
        self._address = address
        self._timeout = timeout
        self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()

    def status(self) -> admin_pb2.StatusResponse:
        """Ask `authz.v1.Admin/Status`.

        Returns:
            How the node stands.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(
            "/authz.v1.Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse()
        )

    def reload(self) -> admin_pb2.ReloadResponse:
        """Ask `authz.v1.Admin/Reload`.

        Returns:
            Its result.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(
            "/authz.v1.Admin/Reload", admin_pb2.ReloadRequest(), admin_pb2.ReloadResponse()
        )

    def revoke(self, request: admin_pb2.AdminRevokeRequest) -> admin_pb2.AdminRevokeResponse:
        """Ask `authz.v1.Admin/Revoke`.

        Args:
            request: Target to revoke, or to lift the revocation of, with a reason.

        Returns:
            How many tasks ended, and whether a revocation was lifted.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call("/authz.v1.Admin/Revoke", request, admin_pb2.AdminRevokeResponse())

    def forget(self, request: admin_pb2.ForgetRequest) -> admin_pb2.ForgetResponse:
        """Ask `authz.v1.Admin/Forget`.

        Args:
            request: Labels to forget, with a reason.

        Returns:
            How many records changed.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call("/authz.v1.Admin/Forget", request, admin_pb2.ForgetResponse())

    def record_erasure(
        self, request: admin_pb2.RecordErasureRequest
    ) -> admin_pb2.RecordErasureResponse:
        """Ask `authz.v1.Admin/RecordErasure`.

        Args:
            request: Selection and number of the texts, with a reason.

        Returns:
            Id of the record.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(
            "/authz.v1.Admin/RecordErasure", request, admin_pb2.RecordErasureResponse()
        )

    def open_breakglass(
        self, request: admin_pb2.OpenBreakglassRequest
    ) -> admin_pb2.OpenBreakglassResponse:
        """Ask `authz.v1.Admin/OpenBreakglass`.

        Args:
            request: System, time, reason and ticket.

        Returns:
            The request for break-glass, and the operations for which a policy accepts it.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(
            "/authz.v1.Admin/OpenBreakglass", request, admin_pb2.OpenBreakglassResponse()
        )

    def confirm_breakglass(self, breakglass_id: str) -> admin_pb2.ConfirmBreakglassResponse:
        """Ask `authz.v1.Admin/ConfirmBreakglass`.

        Args:
            breakglass_id: Id of the request.

        Returns:
            The request for break-glass, which is in force, and the operations for which a policy accepts it.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(
            "/authz.v1.Admin/ConfirmBreakglass",
            admin_pb2.ConfirmBreakglassRequest(id=breakglass_id),
            admin_pb2.ConfirmBreakglassResponse(),
        )

    def end_breakglass(self, breakglass_id: str) -> admin_pb2.EndBreakglassResponse:
        """Ask `authz.v1.Admin/EndBreakglass`.

        Args:
            breakglass_id: Id of the request.

        Returns:
            The request for break-glass, which has ended.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(
            "/authz.v1.Admin/EndBreakglass",
            admin_pb2.EndBreakglassRequest(id=breakglass_id),
            admin_pb2.EndBreakglassResponse(),
        )

    def list_breakglass(self) -> admin_pb2.ListBreakglassResponse:
        """Ask `authz.v1.Admin/ListBreakglass`.

        Returns:
            The requests for break-glass, the newest first.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(
            "/authz.v1.Admin/ListBreakglass",
            admin_pb2.ListBreakglassRequest(),
            admin_pb2.ListBreakglassResponse(),
        )

    def task_names(self, request: admin_pb2.TaskNamesRequest) -> admin_pb2.TaskNamesResponse:
        """Ask `authz.v1.Admin/TaskNames`.

        Args:
            request: Task and candidate values.

        Returns:
            What the task names, and the origin of each value.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call("/authz.v1.Admin/TaskNames", request, admin_pb2.TaskNamesResponse())

    def task(self, method: str, request: Message, answer: Answer) -> Answer:
        """Ask a method of `authz.v1.Tasks`.

        Args:
            method: Its name.
            request: Its request.
            answer: Filled.

        Returns:
            The answer.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(f"/authz.v1.Tasks/{method}", request, answer)

    def credential(self, method: str, request: Message, answer: Answer) -> Answer:
        """Ask a method of `authz.v1.Credentials`.

        Args:
            method: Its name.
            request: Its request.
            answer: Filled.

        Returns:
            The answer.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(f"/authz.v1.Credentials/{method}", request, answer)

    def approval(self, method: str, request: Message, answer: Answer) -> Answer:
        """Ask a method of `authz.v1.Approvals`.

        Args:
            method: Its name.
            request: Its request.
            answer: Filled.

        Returns:
            The answer.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(f"/authz.v1.Approvals/{method}", request, answer)

    def passkeys(self, method: str, request: Message, answer: Answer) -> Answer:
        """Ask a method of `authz.v1.Passkeys`.

        Args:
            method: Its name.
            request: Its request.
            answer: Filled.

        Returns:
            The answer.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        return self._call(f"/authz.v1.Passkeys/{method}", request, answer)

    def watch_approvals(self, request: approvals_pb2.WatchRequest) -> "ApprovalWatch":
        """Watch approvals.

        Args:
            request: Approvals to watch.

        Returns:
            The state at the start, then each change, until it is cancelled.
        """
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes]
        watch = self._channel.unary_stream("/authz.v1.Approvals/Watch")
        stream = watch(request.SerializeToString())
        return ApprovalWatch(stream, cast("grpc.Call", stream), self._address)

    def explain(
        self, request: authorizer_pb2.ExplainRequest, authorization: str | None
    ) -> authorizer_pb2.ExplainResponse:
        """Ask `authz.v1.Authorizer/Explain`.

        Args:
            request: Request to explain.
            authorization: `Bearer …` of the caller.

        Returns:
            The decision with its detail.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        metadata = (("authorization", authorization),) if authorization else ()
        path = "/authz.v1.Authorizer/Explain"
        return self._call(path, request, authorizer_pb2.ExplainResponse(), metadata)

    def healthy(self, service: str) -> bool:
        """Ask `grpc.health.v1.Health/Check`.

        Args:
            service: Its name; empty for the whole node.

        Returns:
            True where it serves.

        Raises:
            UnavailableError: It cannot be reached.
            ApiError: It refuses.
        """
        answer = self._call(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest(service=service),
            health_pb2.HealthCheckResponse(),
        )
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _call(
        self,
        path: str,
        request: Message,
        answer: Answer,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
        try:
            received = call(request.SerializeToString(), timeout=self._timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise _refused(error, self._address) from error
        answer.ParseFromString(received)
        return answer


class ApprovalWatch:
    """A stream of approvals. Iterate over it on one thread; cancel it on any.

    Args:
        responses: Encoded responses.
        call: The call that brings them.
        address: Address of the node, for errors.
    """

    def __init__(self, responses: Iterable[bytes], call: grpc.Call, address: str) -> None:
        self._responses = responses
        self._call = call
        self._address = address
        self._is_cancelled = False

    def __iter__(self) -> Iterator[approvals_pb2.WatchResponse]:
        """Yield the state at the start, then each change. A cancelled stream ends without an error.

        Raises:
            UnavailableError: The node cannot be reached, or stops.
            ApiError: It refuses.
        """
        try:
            for response in self._responses:
                yield approvals_pb2.WatchResponse.FromString(response)
        except grpc.RpcError as error:
            if not self._is_cancelled:
                raise _refused(error, self._address) from error
        finally:
            self._call.cancel()

    def cancel(self) -> None:
        """End the stream."""
        self._is_cancelled = True
        self._call.cancel()


def _refused(error: grpc.RpcError, address: str) -> ApiError | UnavailableError:
    # The error of a call is an RpcError and a Call at once, which the stubs cannot express.
    call = cast("grpc.Call", error)
    code, said = call.code(), call.details() or ""
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            info = error_details_pb2.ErrorInfo()
            if status.details and status.details[0].Unpack(info):
                return ApiError(info.reason, status.code, said)
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        return UnavailableError(f"{address} cannot be reached: {said}")
    return ApiError(code.name, code.value[0], said)
