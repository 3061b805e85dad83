"""The endpoint of one transmitter: reads a token within bounds, and answers as RFC 8935 says."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from authz.errors import ApiError, AuthzError
from authz.server.http.shared_signals.refusals import SetError, SetErrorCode

__all__ = ["Arrival", "EndpointLimits", "PushEndpoint", "TokenBucket"]

_TYPE: Final = "application/secevent+jwt"
_NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache"}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A token as it came."""

    token: str
    """The body."""
    peer: str | None
    """Address of the sender."""
    traceparent: str | None
    """W3C trace context."""


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """Limits of an endpoint."""

    max_body: int
    """Most bytes of a body."""
    timeout: float
    """Seconds that a body may take to arrive."""


class TokenBucket:
    """Lets so many requests a second pass on average, and so many at once.

    Args:
        rate: Requests a second.
        burst: Requests at once.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._left, self._at = float(burst), clock()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Return whether one more request may pass."""
        with self._lock:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


@dataclass(frozen=True, slots=True)
class PushEndpoint:
    """The endpoint of a transmitter: `handle` answers a request."""

    authenticate: Callable[[str | None], bool]
    """Returns whether the value of the `authorization` header is that of the transmitter."""
    take: Callable[[Arrival], None]
    """Verifies a token and carries it out; raises `SetError` or `AuthzError`."""
    refused: Callable[[], None]
    """Called for each request that is refused before `take`."""
    bucket: TokenBucket
    """Bounds the rate."""
    limits: EndpointLimits
    """Bounds of the body."""
    limiter: Callable[[], CapacityLimiter]
    """Returns the bound of tokens that are carried out at once."""
    counted: Callable[[int], None]
    """Called with the status of each answer."""
    failed: Callable[[BaseException], None]
    """Receives every unexpected exception."""

    async def handle(self, request: Request) -> Response:
        """Answer a request; an unexpected exception is answered without its text."""
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            response = Response(status_code=400)
        except BaseException as unexpected:
            if isinstance(unexpected, (asyncio.CancelledError, KeyboardInterrupt, SystemExit)):
                raise
            self.failed(unexpected)
            response = _busy(500)
        self.counted(response.status_code)
        return response

    async def _answer(self, request: Request) -> Response:
        try:
            await self._authenticate(request)
            if not self.bucket.take():
                self.refused()
                return _busy(429)
            token = await _body(request, self.limits)
        except SetError as error:
            self.refused()
            return _refusal(error)
        peer = request.client
        arrival = Arrival(
            token,
            f"{peer.host}:{peer.port}" if peer is not None else None,
            _one(request, "traceparent"),
        )
        return await to_thread.run_sync(self._carried_out, arrival, limiter=self.limiter())

    async def _authenticate(self, request: Request) -> None:
        header = _one(request, "authorization")
        if not await to_thread.run_sync(self.authenticate, header, limiter=self.limiter()):
            description = "the `authorization` header is not that of the transmitter"
            raise SetError(SetErrorCode.AUTHENTICATION_FAILED, description)

    def _carried_out(self, arrival: Arrival) -> Response:
        """Carry a token out on a thread: the engine waits for the disk."""
        try:
            self.take(arrival)
        except SetError as error:
            return _refusal(error)
        except AuthzError as error:
            if isinstance(error, ApiError) and error.reason == "BAD_INPUT":
                return _refusal(_invalid(str(error)))
            return _busy(503)
        return Response(status_code=202, headers=_NO_STORE)


def _busy(status: int) -> Response:
    """Return an answer after which the transmitter sends the token again."""
    return Response(status_code=status, headers={**_NO_STORE, "retry-after": "1"})


async def _body(request: Request, limits: EndpointLimits) -> str:
    kind = _one(request, "content-type") or ""
    if kind.partition(";")[0].strip().lower() != _TYPE:
        raise _invalid(f"the content type is not {_TYPE} (RFC 8935 §2.1)")
    if (_one(request, "content-encoding") or "identity").strip().lower() != "identity":
        raise _invalid("the body is compressed")
    too_large = _invalid("the body is too large")
    length = _one(request, "content-length")
    if length is not None and (not length.isdecimal() or int(length) > limits.max_body):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_body:
                    raise too_large
    except TimeoutError as error:
        raise _invalid("the body did not arrive in time") from error
    try:
        return bytes(body).decode("ascii")
    except UnicodeDecodeError as error:
        raise _invalid("the body is not a signed JWT in compact form") from error


def _invalid(description: str) -> SetError:
    return SetError(SetErrorCode.INVALID_REQUEST, description)


def _refusal(error: SetError) -> Response:
    """Return an error of RFC 8935 §2.3."""
    body = {"err": error.code.value, "description": error.description}
    headers = {**_NO_STORE, "content-language": "en"}
    return Response(
        json.dumps(body, ensure_ascii=False), 400, headers, media_type="application/json"
    )


def _one(request: Request, name: str) -> str | None:
    """Return a header. Several values are joined, so that none of them counts."""
    values: Sequence[str] = request.headers.getlist(name)
    return ",".join(values) if values else None
