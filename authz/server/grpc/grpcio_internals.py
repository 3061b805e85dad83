"""The only module that uses private names of grpcio: it receives the message of a call before a thread is given to the call.

grpcio has no public way for that. `tests/unit/test_grpcio_internals.py` compares the source of each function that is used here with
the source that was reviewed, and fails with every grpcio that changed one of them. At import, a grpcio that hands calls over in
another form raises ImportError, so that nothing starts.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]

__all__ = ["PRIVATE_NAMES", "UnaryCall"]

PRIVATE_NAMES: Final = (
    "_abort",
    "_handle_unary_stream",
    "_handle_unary_unary",
    "_is_rpc_state_active",
    "_receive_message",
    "_status",
    "_stream_response_in_pool",
    "_unary_request",
    "_unary_response_in_pool",
)
"""Functions of grpcio's server that this module calls, replaces or is called by."""

_UNIMPLEMENTED: Final = 12
# The arguments of `submit`: `in_pool(rpc_event, state, behavior, argument_thunk, request_deserializer, …)`.
_IN_POOL: Final = (_server._unary_response_in_pool, _server._stream_response_in_pool)  # noqa: SLF001
_EXPECTED: Final = ("rpc_event", "state", "behavior", "argument_thunk", "request_deserializer")
for _function in _IN_POOL:
    if tuple(inspect.signature(_function).parameters)[: len(_EXPECTED)] != _EXPECTED:
        raise ImportError("this version of grpcio hands calls over in another way")


class UnaryCall:
    """A call with one request message, as grpcio hands it to its executor before the message has arrived.

    INVARIANT (locks): a method may take the call's own condition. No caller holds a lock that a callback of the call takes.
    """

    __slots__ = ("_args", "_event", "_state", "behavior")

    def __init__(self, args: tuple[Any, ...]) -> None:
        self._args = args
        _, self._event, self._state, self.behavior, *_ = args

    @staticmethod
    def of(args: tuple[Any, ...]) -> "UnaryCall | None":
        """Return the call in the arguments of `submit`; `None` for one whose requests are a stream."""
        is_unary = args[0] in _IN_POOL and getattr(args[4], "__name__", "") == "unary_request"
        return UnaryCall(args) if is_unary else None

    @property
    def is_active(self) -> bool:
        """Whether the caller still waits, and no status was sent."""
        return bool(_server._is_rpc_state_active(self._state))  # noqa: SLF001

    def on_close(self, callback: Callable[[], object]) -> None:
        """Run a function once the call is over for any reason."""
        self._state.callbacks.append(callback)

    def receive(self, done: Callable[[], object]) -> bool:
        """Begin to receive the message.

        Args:
            done: Runs on grpcio's polling thread when the message is complete or cannot come. It must not raise.

        Returns:
            False where the caller has gone; `done` never runs then.
        """
        with self._state.condition:
            if not self.is_active:
                return False
            received = _server._receive_message(self._state, self._event.call, self._args[5])  # noqa: SLF001
            self._event.call.start_server_batch(
                (cygrpc.ReceiveMessageOperation(0),), partial(_received, received, done)
            )
            self._state.due.add(_server._RECEIVE_MESSAGE_TOKEN)  # noqa: SLF001
            return True

    def take_message(self) -> Any:
        """Return the received message, once; None where the caller sent none, or has gone."""
        message, self._state.request = self._state.request, None
        return message

    def arguments(self, message: Any) -> tuple[Any, ...]:
        """Return the arguments of `submit` for a call whose message is here."""

        def received() -> Any:
            # A caller that has gone meanwhile needs no answer.
            return message if self.is_active else None

        return (*self._args[:4], received, *self._args[5:])

    def after_events(self, callback: Callable[[], object]) -> None:
        """Run a function on grpcio's polling thread, after all events that have come until now. It must not raise.

        Raises:
            Exception: The call has just ended.
        """
        self._event.call.start_server_batch((), partial(_passed, callback))

    def answer(self, response: bytes) -> None:
        """Send a response with status OK, unless the call is over."""
        with self._state.condition:
            if self.is_active:
                _server._status(self._event, self._state, response)  # noqa: SLF001

    def abort(self, code: int, message: str, metadata: tuple[tuple[str, bytes], ...]) -> None:
        """End the call with an error, unless it is over.

        Args:
            code: `google.rpc.Code`.
            message: Text for the caller.
            metadata: Trailing metadata.
        """
        with self._state.condition:
            if self.is_active:
                self._state.trailing_metadata = metadata
                _server._abort(self._state, self._event.call, code, message.encode())  # noqa: SLF001

    def abort_without_message(self) -> None:
        """End a call whose caller ended its requests before it sent a message."""
        with self._state.condition:
            if self.is_active and self._state.client is _server._CLOSED:  # noqa: SLF001
                what = b"the method takes exactly one message"
                _server._abort(self._state, self._event.call, _UNIMPLEMENTED, what)  # noqa: SLF001

    def cancel(self) -> None:
        """Cancel the call."""
        self._event.call.cancel()

    def peer(self) -> str:
        """Return the caller's address, as grpcio writes it."""
        address: bytes = self._event.call.peer()
        return address.decode("utf-8", "replace")

    def certificate_name(self) -> str:
        """Return the names in the caller's certificate, as one text; empty without a certificate."""
        shown = cygrpc.auth_context(self._event.call) or {}
        names = shown.get(b"x509_subject_alternative_name") or shown.get(b"x509_common_name") or ()
        return b",".join(names).decode("utf-8", "replace")


def _received(received: Callable[[Any], Any], done: Callable[[], object], event: Any) -> Any:
    outcome = received(event)
    done()
    return outcome


def _passed(callback: Callable[[], object], _event: object) -> tuple[None, tuple[()]]:
    callback()
    return None, ()
