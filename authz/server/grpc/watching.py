"""Streams of approvals. An idle stream holds no thread.

By default, grpcio gives each stream a thread until the stream ends. Here the handler returns at once (`experimental_non_blocking`),
and a few threads send changes to all streams. A send waits until the transport took the message, so a client that does not read
would block a sender. Such a stream is cancelled after some seconds. A stream keeps only the ids of changed approvals, not their
states, so a slow client gets the newest state.
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
"""Sends an encoded response and waits until the transport has it. `None` ends the stream."""

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
    """Approvals that a stream shows, and their view."""

    view: Callable[[approvals_pb2.Approval], approvals_pb2.Approval]
    """Returns the view of an approval for the caller."""
    approval_id: str = ""
    """Id of the only approval of the stream, which ends with it. Empty for all approvals, or those of `task`."""
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
    """True if the stream is queued or a sender has it."""
    is_over: bool = False
    """True if nothing more is sent."""
    refusal: AuthzError | None = None
    """Error that is sent instead of `pending` and ends the stream."""
    sent: bytes = b""
    """The last response. It is not sent a second time."""
    busy_since: float = 0.0
    """Start of the current send. 0 if there is none."""
    subscription: Subscription | None = None


class WatchStreams:
    """All streams of approvals of a node.

    Args:
        hub: Source of changes of approvals.
        store: Source of approvals.
        failed: Receives every unexpected exception.
        senders: Number of threads that send.
        send_seconds: Longest time of one send, in seconds.
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
        """End every stream, so that the shutdown does not wait for streams. Clients connect to another node."""
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
        """Open a stream and return at once.

        Args:
            context: The call.
            send: grpcio's callback of a response.
            scope: Approvals that the stream shows, and their view.

        Raises:
            ApiError: The node, or the task, has too many streams.
            UnavailableError: The server stops.
        """
        stream = _Stream(context, send, scope)
        stream.subscription = Subscription(
            lambda change: self._note_change(stream, change), scope.approval_id, scope.task
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

    # --- changes

    def _note_change(self, stream: _Stream, change: ApprovalChange | None) -> None:
        with self._lock:
            if change is None:
                # Changes were lost, and a stream over many approvals cannot find out which.
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
        """End a stream with an error. The caller has the lock."""
        stream.refusal = error
        self._enqueue(stream)

    def _enqueue(self, stream: _Stream) -> None:
        """Queue a stream for a sender. The caller has the lock."""
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
            # A stream over many approvals skips an approval that no longer exists.
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
        # If the client does not read the status, the call would stay open.
        with self._lock:
            self._note(time.monotonic() + self._send_seconds, "", stream)

    # --- time

    def _note_end(self, stream: _Stream, approval_id: str, end: Timestamp) -> None:
        """Read approvals again after their end, because no change announces an expiry."""
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
        """Queue streams whose approval has ended, and return streams whose status was not read. The caller has the lock."""
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
        """Forget the times of closed streams once they are the majority. The caller has the lock."""
        if len(self._ends) > 2 * len(self._streams) + _MOST_PENDING:
            self._ends = [end for end in self._ends if end[3] in self._streams]
            heapq.heapify(self._ends)


def _lost() -> ApiError:
    what = "the stream was read too slowly, and changes were lost; open it again"
    return ApiError("OVERLOADED", GrpcCode.RESOURCE_EXHAUSTED, what)
