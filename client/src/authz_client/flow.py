"""Flows: calls that are written once, and run on a thread or on an event loop.

A flow is a generator that yields the next step (a credential, a call, a pause) and receives its result. It does no I/O
itself, so it decides the same on a thread and on an event loop.
"""

import asyncio
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from authz_client.credentials import TokenSource
from authz_client.errors import PublicCode, Retry, TransportError, Unavailable, row_of
from authz_client.transport import StreamTransport, Transport

__all__ = [
    "Attempts",
    "Call",
    "Deadline",
    "Fetch",
    "Flow",
    "Listen",
    "Pause",
    "arun",
    "asking",
    "run",
    "undecided",
]

_UNIMPLEMENTED: Final = 12
_UNAVAILABLE: Final = 14
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Call:
    """Step: call the node."""

    method: str
    request: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class Listen:
    """Step: read a stream of the node until `is_enough` accepts a response, which is the result."""

    method: str
    request: bytes
    timeout: float
    is_enough: Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Step: get a credential from a source."""

    source: TokenSource
    timeout: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Step: wait before the next attempt."""

    seconds: float


Step: TypeAlias = Call | Listen | Fetch | Pause
Flow: TypeAlias = Generator[Step, Any, Result]


@dataclass(frozen=True, slots=True)
class Deadline:
    """Time after which an answer no longer counts."""

    at: float

    @staticmethod
    def within(seconds: float) -> "Deadline":
        """Make a deadline that is so many seconds from now."""
        return Deadline(time.monotonic() + seconds)

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            Unavailable: The deadline passed.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise Unavailable.of("the deadline passed", reason_code="DEADLINE")
        return left


@dataclass(slots=True)
class Attempts:
    """Attempts of one question: bounded in number and in time, and only while nothing was decided."""

    deadline: Deadline
    retries: int
    made: int = 0

    def pause(self) -> Pause | None:
        """Take the next attempt.

        Returns:
            The pause before the attempt. `None`: no attempt is left.
        """
        if self.made >= self.retries:
            return None
        # Spread, so that callers that failed together do not come back together.
        most = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self.made)
        seconds = most * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self.made += 1
        return Pause(seconds) if time.monotonic() + seconds < self.deadline.at else None


def undecided(error: TransportError) -> bool:
    """Tell whether a call that failed decided nothing, so that it may be made again.

    Args:
        error: How it failed.

    Returns:
        True where the node says so, or was not reached.
    """
    if not error.reason:
        return error.code == _UNAVAILABLE
    row = row_of(error.reason)
    return row.code is PublicCode.UNAVAILABLE and row.retry is Retry.LATER


def asking(method: str, request: bytes, attempts: Attempts) -> Flow[bytes]:
    """Call a method; where the call did not reach the node, again.

    Args:
        method: `<service>/<method>`.
        request: The encoded request.
        attempts: How often.

    Yields:
        The call, or the pause.

    Returns:
        The encoded answer.

    Raises:
        TransportError: The call failed.
        Unavailable: The deadline passed.
    """
    while True:
        try:
            answer = yield Call(method, request, attempts.deadline.left())
        except TransportError as error:
            pause = attempts.pause() if undecided(error) else None
            if pause is None:
                raise
        else:
            if not isinstance(answer, bytes):
                raise Unavailable.of("the transport gave no bytes")
            return answer
        yield pause


def _streams(transport: Transport) -> StreamTransport:
    if not isinstance(transport, StreamTransport):
        raise TransportError(_UNIMPLEMENTED, "the transport has no streams")
    return transport


def run(flow: Flow[Result], transport: Transport) -> Result:
    """Run a flow on this thread.

    Args:
        flow: The flow.
        transport: Carries its calls.

    Returns:
        The result of the flow.
    """

    def perform(step: Step) -> object:
        match step:
            case Call(method, request, timeout):
                return transport.call(method, request, timeout)
            case Listen(method, request, timeout, is_enough):
                return _streams(transport).listen(method, request, timeout, is_enough)
            case Fetch(source, timeout):
                return source.token(timeout)
            case Pause(seconds):
                time.sleep(seconds)
                return None

    try:
        step = next(flow)
        while True:
            try:
                done = perform(step)
            except Exception as error:  # noqa: BLE001 - the flow interprets the error
                step = flow.throw(error)
            else:
                step = flow.send(done)
    except StopIteration as end:
        result: Result = end.value
        return result


async def arun(flow: Flow[Result], transport: Transport) -> Result:
    """Run a flow on the event loop.

    Args:
        flow: The flow.
        transport: Carries its calls.

    Returns:
        The result of the flow.
    """

    async def perform(step: Step) -> object:
        match step:
            case Call(method, request, timeout):
                return await transport.acall(method, request, timeout)
            case Listen(method, request, timeout, is_enough):
                return await _streams(transport).alisten(method, request, timeout, is_enough)
            case Fetch(source, timeout):
                return await source.atoken(timeout)
            case Pause(seconds):
                await asyncio.sleep(seconds)
                return None

    try:
        step = next(flow)
        while True:
            try:
                done = await perform(step)
            except Exception as error:  # noqa: BLE001 - the flow interprets the error
                step = flow.throw(error)
            else:
                step = flow.send(done)
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        flow.close()
