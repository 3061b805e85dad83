"""Sends requests through Envoy, and gathers what came of each."""

import contextlib
import http.client
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.support.envoy import Envoy
from tests.support.received import http2
from tests.support.received.fanout import TAG, Arrival, Fanout
from tests.support.received.request import Request

_TIMEOUT = 30


@dataclass(frozen=True)
class Exchange:
    """One request through one lane.

    Args:
        request: What was sent.
        lane: Listener of the authorizer that judged it.
        status: Of the first answer; 0 where the connection ended without one.
        arrivals: What reached the frameworks under its tag.
    """

    request: Request
    lane: str
    status: int
    arrivals: tuple[Arrival, ...]

    @property
    def was_received(self) -> bool:
        """True where the frameworks got it."""
        return bool(self.arrivals)

    def record(self, records: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        """Returns the audit's record of the decision that let it through."""
        identifiers = self.arrivals[0].header("x-authz-decision-id")
        return records.get(identifiers[0]) if identifiers else None


def exchange(
    envoys: dict[str, Envoy],
    fanout: Fanout,
    requests: Sequence[Request],
    evidence: Iterable[tuple[str, str]],
) -> list[Exchange]:
    """Sends each request through each lane.

    Args:
        envoys: By lane.
        fanout: Their upstream.
        requests: What to send.
        evidence: Headers with the caller's credentials.

    Returns:
        One exchange for each request and lane.
    """
    shown = tuple(evidence)
    pairs = [(index, lane) for index in range(len(requests)) for lane in envoys]

    def send(pair: tuple[int, str]) -> int:
        index, lane = pair
        request, port = requests[index], envoys[lane].port
        more = (*shown, (TAG, f"{index}-{lane}"))
        if request.is_http2:
            return http2.send(port, request.fields(*more), request.body, _TIMEOUT)
        return _send(port, request, request.write(*more))

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(send, pairs))
    return [
        Exchange(requests[index], lane, status, tuple(fanout.arrivals(f"{index}-{lane}")))
        for (index, lane), status in zip(pairs, statuses, strict=True)
    ]


def _send(port: int, request: Request, raw: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(raw)
        if request.is_cut:
            connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection, method=request.method.strip())
        try:
            answer.begin()
            answer.read()
            while request.is_kept and connection.recv(65536):
                pass
        except (http.client.HTTPException, ConnectionError):
            return 0
        finally:
            answer.close()
        return answer.status
