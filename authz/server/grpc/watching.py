"""Streams of approvals that wait for people: they hold no thread while nothing happens.

grpcio's usual way gives each stream a thread until it ends. Here the handler returns at once (`experimental_non_blocking`), and a
few threads send to the streams that have news. A send waits until the transport took the message, so a reader that reads nothing
would hold a sender: after some seconds its stream is cancelled. A stream keeps the ids of the approvals that changed, never their
states, so a slow reader gets the newest state.
"""

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from typing import Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from authz.approvals import ApprovalChange, ApprovalHub, ApprovalStore, Subscription
from authz.errors import ApiError, AuthzError, GrpcCode, UnavailableError
from authz.periodic import PeriodicThread
from authz.server.grpc.errors import details_of, status_code
from authz_client.v1 import approvals_pb2

__all__ = ["Send", "StreamScope", "WatchStreams"]

Send = Callable[[bytes | None], object]
"""Sends an encoded response, and waits until the transport has it; `None` ends the stream."""

_SENDERS: Final = 4
_SEND_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.5
# Of a stream over many approvals.
_MOST_PENDING: Final = 1024
_FINAL: Final = frozenset(
    {
        approvals_pb2.APPROVAL_STATUS_REJECTED,
        approvals_pb2.APPROVAL_STATUS_EXPIRED,
        approvals_pb2.APPROVAL_STATUS_CONSUMED,
    }
)


@dataclass(frozen=True, slots=True)
class StreamScope:
    """What a stream shows."""

    view: Callable[[approvals_pb2.Approval], approvals_pb2.Approval]
    """Makes the caller's view of an approval."""
    approval_id: str = ""
    """Only this approval; the stream ends with it. Empty: all, or those of `task`."""
    task: str = ""
    """Task of the caller, or of the approvals."""
    first: Sequence[str] = ()
    """Approvals whose state is sent at the start."""


@dataclass(slots=True, eq=False)
class _Stream:
    """One open stream. Its fields are read and written under the lock of `WatchStreams`."""

    context: grpc.ServicerContext
    send: Send
    scope: StreamScope
    pending: dict[str, None] = field(default_factory=dict)
    """Ids of approvals that changed since they were sent, in the order of their changes."""
    is_queued: bool = False
    """A sender has the stream, or will take it."""
    is_over: bool = False
    """Nothing more is sent."""
    refusal: AuthzError | None = None
    """Sent instead of `pending`; ends the stream."""
    sent: bytes = b""
    """The last response. It is not sent a second time."""
    busy_since: float = 0.0
    """Begin of a send that is under way; 0: none."""
    subscription: Subscription | None = None


class WatchStreams:
    """All streams of approvals of a node.

    Args:
        hub: Tells of changes.
        store: Gives approvals.
        failed: Receives every unexpected exception.
        senders: Threads that send.
        send_seconds: Longest time of one send.
    """

    def __init__(
        self,
        hub: ApprovalHub,
        store: ApprovalStore,
        failed: Callable[[BaseException], object],
        *,
        senders: int = _SENDERS,
        send_seconds: float = _SEND_SECONDS,
    ) -> None:
        self._hub = hub
        self._store = store
        self._failed = failed
        self._send_seconds = send_seconds
        self._lock = threading.Lock()
        self._streams: dict[_Stream, None] = {}
        self._queue: SimpleQueue[_Stream | None] = SimpleQueue()
        self._ends: list[tuple[float, int, str, _Stream]] = []
        self._numbers = count()
        self._stopping = False
        self._senders = [
            threading.Thread(target=self._work, name=f"authz-watch-{number}", daemon=True)
            for number in range(senders)
        ]
        self._look = PeriodicThread("watch", self._look_again, _LOOK_SECONDS, failed)

    def __len__(self) -> int:
        """Return the number of open streams."""
        return len(self._streams)

    def start(self) -> None:
        """Start the threads."""
        for sender in self._senders:
            sender.start()
        self._look.start()

    def drain(self) -> None:
        """End every stream, so that the shutdown waits for none. A client opens a new one elsewhere."""
        with self._lock:
            self._stopping = True
            for stream in self._streams:
                self._refuse(stream, UnavailableError("the server stops"))

    def close(self) -> None:
        """End the threads."""
        self.drain()
        self._look.close()
        for _ in self._senders:
            self._queue.put(None)
        for sender in self._senders:
            if sender.is_alive():
                sender.join(1.0)

    def open(self, context: grpc.ServicerContext, send: Send, scope: StreamScope) -> None:
        """Open a stream; returns at once.

        Args:
            context: The call.
            send: grpcio's callback of a response.
            scope: What the stream shows.

        Raises:
            ApiError: The node, or the task, has too many streams.
            UnavailableError: The server stops.
        """
        stream = _Stream(context, send, scope)
        stream.subscription = Subscription(
            lambda change: self._told(stream, change), scope.approval_id, scope.task
        )
        with self._lock:
            if self._stopping:
                raise UnavailableError("the server stops")
            self._streams[stream] = None
        try:
            self._hub.subscribe(stream.subscription)
        except ApiError:
            self._forget(stream)
            raise
        if not context.add_callback(lambda: self._forget(stream)):
            self._forget(stream)
            return
        with self._lock:
            stream.pending.update(dict.fromkeys(scope.first))
            self._enqueue(stream)

    # --- news

    def _told(self, stream: _Stream, change: ApprovalChange | None) -> None:
        with self._lock:
            if change is None:
                # Changes were lost. A stream over many approvals cannot know which ones.
                if not stream.scope.approval_id:
                    self._refuse(stream, _lost())
                    return
                stream.pending[stream.scope.approval_id] = None
            elif len(stream.pending) >= _MOST_PENDING:
                self._refuse(stream, _lost())
                return
            else:
                stream.pending[change.approval_id] = None
            self._enqueue(stream)

    def _refuse(self, stream: _Stream, error: AuthzError) -> None:
        """End a stream with an error, under the lock."""
        stream.refusal = error
        self._enqueue(stream)

    def _enqueue(self, stream: _Stream) -> None:
        """Give a stream to a sender, under the lock."""
        has_news = bool(stream.pending) or stream.refusal is not None
        if has_news and not stream.is_queued and not stream.is_over:
            stream.is_queued = True
            self._queue.put(stream)

    def _forget(self, stream: _Stream) -> None:
        """Remove a stream that is over."""
        with self._lock:
            stream.is_over = True
            self._streams.pop(stream, None)
        if stream.subscription is not None:
            self._hub.unsubscribe(stream.subscription)

    # --- senders

    def _work(self) -> None:
        while (stream := self._queue.get()) is not None:
            try:
                self._send_next(stream)
            except BaseException as error:  # noqa: BLE001 - the other streams need this thread
                self._failed(error)
                with self._lock:
                    stream.is_queued = False
                self._end(stream, UnavailableError("internal error; see the server's log"))
            with self._lock:
                stream.busy_since = 0.0
                stream.is_queued = False
                self._enqueue(stream)

    def _send_next(self, stream: _Stream) -> None:
        with self._lock:
            if stream.is_over:
                return
            refusal, approval_id = stream.refusal, next(iter(stream.pending), "")
            stream.pending.pop(approval_id, None)
        if refusal is not None:
            self._end(stream, refusal)
        elif approval_id:
            self._send_state(stream, approval_id)

    def _send_state(self, stream: _Stream, approval_id: str) -> None:
        request = approvals_pb2.ApprovalsGetRequest(approval_id=approval_id)
        try:
            approval = self._store.approval_show(None, request).approval
        except AuthzError as error:
            # An approval that is no more is no news to a stream over many.
            if stream.scope.approval_id or error.grpc_code != GrpcCode.NOT_FOUND:
                self._end(stream, error)
            return
        response = approvals_pb2.WatchResponse(approval=stream.scope.view(approval))
        encoded = response.SerializeToString(deterministic=True)
        if encoded != stream.sent:
            stream.sent = encoded
            with self._lock:
                stream.busy_since = time.monotonic()
            stream.send(encoded)
        if approval.status in _FINAL:
            if stream.scope.approval_id:
                self._end(stream, None)
        else:
            self._note_end(stream, approval_id, approval.expires_at)

    def _end(self, stream: _Stream, error: AuthzError | None) -> None:
        """Send the status of a stream: OK, or an error."""
        with self._lock:
            if stream.is_over:
                return
            stream.is_over = True
        if error is not None:
            stream.context.set_trailing_metadata(details_of(error))
            stream.context.set_code(status_code(error.grpc_code))
            stream.context.set_details(str(error))
        stream.send(None)
        # Where the caller does not take the status, the call would stay.
        with self._lock:
            self._note(time.monotonic() + self._send_seconds, "", stream)

    # --- time

    def _note_end(self, stream: _Stream, approval_id: str, end: Timestamp) -> None:
        """Read the approval again once it has ended, since time alone tells nobody."""
        if end.seconds:
            left = end.seconds + end.nanos / 1e9 - time.time()
            with self._lock:
                self._note(time.monotonic() + max(left, 0.0) + _LOOK_SECONDS, approval_id, stream)

    def _note(self, at: float, approval_id: str, stream: _Stream) -> None:
        heapq.heappush(self._ends, (at, next(self._numbers), approval_id, stream))

    def _look_again(self) -> None:
        now = time.monotonic()
        with self._lock:
            stuck = [
                stream
                for stream in self._streams
                if 0.0 < stream.busy_since < now - self._send_seconds
            ]
            stuck += self._due(now)
            self._drop_closed()
        for stream in stuck:
            stream.context.cancel()

    def _due(self, now: float) -> list[_Stream]:
        """Queue streams whose approval has ended; return those whose status was not taken. Under the lock."""
        untaken = []
        while self._ends and self._ends[0][0] <= now:
            _, _, approval_id, stream = heapq.heappop(self._ends)
            if stream not in self._streams:
                continue
            if not approval_id:
                untaken.append(stream)
            elif not stream.is_over:
                stream.pending[approval_id] = None
                self._enqueue(stream)
        return untaken

    def _drop_closed(self) -> None:
        """Forget the times of streams that are gone, once they are most of all. Under the lock."""
        if len(self._ends) > 2 * len(self._streams) + _MOST_PENDING:
            self._ends = [end for end in self._ends if end[3] in self._streams]
            heapq.heapify(self._ends)


def _lost() -> ApiError:
    what = "the stream was read too slowly, and changes were lost; open it again"
    return ApiError("OVERLOADED", GrpcCode.RESOURCE_EXHAUSTED, what)
