"""`authz.v1.Approvals`: agents watch their own approval, and people answer over the administration socket.

On listeners of decisions, a caller shows the evidence of the call that stepped up, and sees id, kinds, status and end of its approval.
The administration socket lists and shows every approval. A user that `approvals.people` maps to a person answers in the name of that
person. A token never answers an approval, because agents hold tokens.

INVARIANT (who answers): only the node's own user and root can open the administration socket, and both control this process
anyway. So the user of a call is the user of the only open connections to the socket. While both users are connected, Authz accepts
no answer.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from authz.approvals import ApprovalStore, PeopleByUid, Person
from authz.errors import ApiError, GrpcCode
from authz.model import CallFacts
from authz.server.grpc.decisions import RawHandler
from authz.server.grpc.errors import answered, unimplemented
from authz.server.grpc.passkeys import PasskeyServices
from authz.server.grpc.receipts import STAYS_OPEN
from authz.server.grpc.unary import CallContext, unary_handler
from authz.server.grpc.watching import Send, StreamScope, WatchStreams
from authz_client.v1 import approvals_pb2

__all__ = ["APPROVALS", "AdminApprovals", "AgentApprovals", "ApprovalServices"]

APPROVALS: Final = "authz.v1.Approvals"
"""Full name of the service."""

M = TypeVar("M", bound=Message)
_Open = Callable[[bytes, grpc.ServicerContext, Send], None]
# Number of open approvals that a stream over all approvals sends at its start, and number of approvals of one page.
_MOST_FIRST: Final = 1000
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class ApprovalServices:
    """The parts of a node that serve approvals on all its listeners."""

    store: ApprovalStore
    """Keeps the approvals."""
    streams: WatchStreams
    """Open streams of the node."""
    people: PeopleByUid
    """People who answer over the administration socket."""
    passkeys: PasskeyServices
    """Serve passkeys."""

    def agents(
        self, status: Callable[[bytes, CallFacts], bytes], context: CallContext
    ) -> dict[str, RawHandler]:
        """Return the handlers of a listener of decisions. `status` answers `Get` for the agent of the call."""
        return AgentApprovals(status, self.store, self.streams, context).handlers()

    def admin(
        self, users: Callable[[], frozenset[int]], context: CallContext
    ) -> dict[str, RawHandler]:
        """Return the handlers of the administration socket. `users` returns the users that are connected to it."""
        return AdminApprovals(self.store, self.streams, self.people, users, context).handlers()


@dataclass(frozen=True, slots=True)
class AgentApprovals:
    """Handlers of a listener of decisions."""

    status: Callable[[bytes, CallFacts], bytes]
    """Answers `Get` for the agent of the call. Raises an error if the evidence does not suffice."""
    store: ApprovalStore
    """Keeps the approvals."""
    streams: WatchStreams
    """Open streams of the node."""
    context: CallContext
    """Shared by the handlers of the listener."""

    def handlers(self) -> dict[str, RawHandler]:
        """Return the handler of each method."""
        why = "people answer at the approvals page, or over the administration socket"
        refused: dict[str, RawHandler] = {
            method: grpc.unary_unary_rpc_method_handler(
                unimplemented(f"Approvals.{method} is not on this listener: {why}")
            )
            for method in ("List", "Resolve")
        }
        return {
            **refused,
            "Get": unary_handler(APPROVALS, "Get", self._get, self.context),
            "Watch": _watch_handler(self._watch, self.context),
        }

    def _get(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return self.status(request, self.context.facts(context))

    def _watch(self, request: bytes, context: grpc.ServicerContext, send: Send) -> None:
        asked = _parse(approvals_pb2.WatchRequest, request)
        if not asked.approval_id:
            what = "`approval_id` is missing; on this listener a caller watches one approval"
            raise _bad_input(what)
        wanted = approvals_pb2.ApprovalsGetRequest(
            evidence=asked.evidence, approval_id=asked.approval_id
        )
        # Refuses a caller that is not the agent of the call.
        self.status(wanted.SerializeToString(), self.context.facts(context))
        approval = self.store.approval_show(None, wanted).approval
        if asked.task and asked.task != approval.task:
            raise _bad_input("`task` is not the task of the approval; leave it out")
        scope = StreamScope(
            _agent_view, approval.id, approval.task or f"-{approval.id}", (approval.id,)
        )
        self.streams.open(context, send, scope)


@dataclass(frozen=True, slots=True)
class AdminApprovals:
    """Handlers of the administration socket."""

    store: ApprovalStore
    """Keeps the approvals."""
    streams: WatchStreams
    """Open streams of the node."""
    people: PeopleByUid
    """People who answer over the socket."""
    users: Callable[[], frozenset[int]]
    """Returns the users that are connected to the socket."""
    context: CallContext
    """Shared by the handlers of the listener."""

    def handlers(self) -> dict[str, RawHandler]:
        """Return the handler of each method."""
        return {
            "List": unary_handler(APPROVALS, "List", self._list, self.context),
            "Get": unary_handler(APPROVALS, "Get", self._get, self.context),
            "Resolve": unary_handler(APPROVALS, "Resolve", self._resolve, self.context),
            "Watch": _watch_handler(self._watch, self.context),
        }

    def _list(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked = _parse(approvals_pb2.ApprovalsListRequest, request)
        answer = self.store.approvals_list(None, asked)
        person = self._person_of(self.users())
        if person is not None:
            self._mark_answerable(answer, person, asked.queue)
        return answer.SerializeToString()

    def _mark_answerable(
        self, answer: approvals_pb2.ApprovalsListResponse, person: Person, queue: str
    ) -> None:
        """Mark the approvals that the connected person may answer."""
        own = approvals_pb2.ApprovalsListRequest(queue=queue, page_size=_MOST_FIRST)
        answerable = {
            one.id: one
            for one in self.store.approvals_list(person, own).approvals
            if one.answerable
        }
        for approval in answer.approvals:
            if approval.id in answerable:
                approval.answerable = True
                approval.needs_passkey = answerable[approval.id].needs_passkey

    def _get(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked = _parse(approvals_pb2.ApprovalsGetRequest, request)
        person = self._person_of(self.users())
        if person is not None:
            # A person who may not answer the approval sees it like any other user of the socket.
            with suppress(ApiError):
                return self.store.approval_show(person, asked).SerializeToString()
        return self.store.approval_show(None, asked).SerializeToString()

    def _resolve(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        asked = _parse(approvals_pb2.ResolveRequest, request)
        users = self.users()
        person = self._person_of(users)
        if person is None:
            raise ApiError("NOT_PERMITTED", GrpcCode.PERMISSION_DENIED, _nobody(users))
        return self.store.approval_resolve(person, asked).SerializeToString()

    def _person_of(self, users: frozenset[int]) -> Person | None:
        """Return the connected person, or `None` if the user is not configured or two users are connected."""
        return self.people.find(next(iter(users))) if len(users) == 1 else None

    def _watch(self, request: bytes, context: grpc.ServicerContext, send: Send) -> None:
        asked = _parse(approvals_pb2.WatchRequest, request)
        if asked.approval_id:
            wanted = approvals_pb2.ApprovalsGetRequest(approval_id=asked.approval_id)
            # An unknown id is refused before a stream is open.
            self.store.approval_show(None, wanted)
            first: tuple[str, ...] = (asked.approval_id,)
        else:
            first = self._open_approvals(asked.task)
        scope = StreamScope(_whole_view, asked.approval_id, asked.task, first)
        self.streams.open(context, send, scope)

    def _open_approvals(self, task: str) -> tuple[str, ...]:
        ids: list[str] = []
        page = approvals_pb2.ApprovalsListRequest(page_size=_PAGE)
        for _ in range(_MOST_FIRST // _PAGE):
            answer = self.store.approvals_list(None, page)
            ids += [one.id for one in answer.approvals if task in {"", one.task}]
            page.page_token = answer.next_page_token
            if not page.page_token:
                break
        return tuple(ids)


class _Watch:
    """Handler of Watch. Its attributes make grpcio and the receiver leave the call open after the handler returned."""

    experimental_non_blocking = True

    def __init__(self, open_stream: _Open, shared: CallContext) -> None:
        self._open = open_stream
        self._shared = shared
        setattr(self, STAYS_OPEN, True)

    def __call__(
        self, request: bytes, context: grpc.ServicerContext, send_response_callback: Send
    ) -> None:
        def opened() -> bytes:
            self._open(request, context, send_response_callback)
            return b""

        answered(
            opened,
            context,
            counted=lambda code: self._shared.metrics.handled(APPROVALS, "Watch", code),
            failed=self._shared.failed,
        )


def _watch_handler(open_stream: _Open, shared: CallContext) -> RawHandler:
    return grpc.unary_stream_rpc_method_handler(_Watch(open_stream, shared))


def _agent_view(approval: approvals_pb2.Approval) -> approvals_pb2.Approval:
    """Return the part that the agent of the call may see."""
    view = approvals_pb2.Approval(
        id=approval.id,
        kinds=approval.kinds,
        status=approval.status,
        reject_reason=approval.reject_reason,
    )
    if approval.HasField("expires_at"):
        view.expires_at.CopyFrom(approval.expires_at)
    return view


def _whole_view(approval: approvals_pb2.Approval) -> approvals_pb2.Approval:
    return approval


def _nobody(users: frozenset[int]) -> str:
    if len(users) > 1:
        return "several users are connected to the administration socket, so Authz cannot tell who answers. Try again"
    who = f"user {next(iter(users))}" if users else "the user of this connection"
    return (
        f"{who} is not a person of `approvals.people`. Add `{{uid: …, issuer: …, sub: …}}` to the configuration, or answer at the "
        "approvals page"
    )


def _parse(message: type[M], request: bytes) -> M:
    try:
        return message.FromString(request)
    except DecodeError as error:
        raise _bad_input("the request is not the message that this method takes") from error


def _bad_input(what: str) -> ApiError:
    return ApiError("BAD_INPUT", GrpcCode.INVALID_ARGUMENT, what)
