"""Puts the parts of the receiver together: one endpoint for each transmitter, their keys and their counts."""

import hmac
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from anyio import CapacityLimiter

from authz.config import Config, Transmitter
from authz.errors import AuthzError
from authz.files import PrivateFileError, read_secret
from authz.model import CallFacts, MetricFamily, Surface
from authz.server.http.endpoints import Endpoint
from authz.server.http.shared_signals.claims import are_unread
from authz.server.http.shared_signals.counts import UNREAD, EventResult, SignalCounts
from authz.server.http.shared_signals.endpoint import (
    Arrival,
    EndpointLimits,
    PushEndpoint,
    TokenBucket,
)
from authz.server.http.shared_signals.events import EventKind, ReadEvent, read_event
from authz.server.http.shared_signals.keys import TransmitterKeys
from authz.server.http.shared_signals.refusals import SetError, SetErrorCode
from authz.server.http.shared_signals.subjects import (
    EventSubject,
    SubjectRules,
    find_subjects,
)
from authz.server.http.shared_signals.tokens import (
    SecurityEventToken,
    SetRules,
    UnknownKeyError,
    verify_set,
)
from authz.telemetry import Logger
from authz.trust import FetchDocument

__all__ = ["EventEngine", "SignalReceiver"]

_PATH: Final = "/shared-signals/"
_THREADS: Final = 4
# Longer than a call of an agent may take: an event looks at all live tasks.
_DEADLINE: Final = 10.0
_MAX_TYPE: Final = 200
_MAX_MS: Final = 1 << 52
_RESULTS: Final = {
    "end": EventResult.ENDED,
    "record": EventResult.RECORDED,
    "ignore": EventResult.IGNORED,
}


class EventEngine(Protocol):
    """Carries out events."""

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer a call; raises `ApiError` where it is refused."""


@dataclass(frozen=True, slots=True)
class _Verified:
    """A verified token with its claims."""

    token: SecurityEventToken
    event: ReadEvent
    subjects: tuple[EventSubject, ...]


class SignalReceiver:
    """Takes security events of the configured transmitters.

    Args:
        config: The configuration. It has the listener `http`.
        engine: Carries out events.
        get: Fetches keys.
        log: Receives failed fetches, and secrets that cannot be read.
        task_ended: Called after tasks ended, with the seconds that the transmitter still waits. `None`: nothing depends on it.
        clock: Unix time.
    """

    def __init__(
        self,
        config: Config,
        engine: EventEngine,
        get: FetchDocument,
        log: Logger,
        *,
        task_ended: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        signals = config.shared_signals
        self._config = config
        self._engine = engine
        self._log = log
        self._task_ended = task_ended
        self._clock = clock
        self._transmitters = signals.transmitters
        self._kept_ms = round(signals.kept(config.trust) * 1000)
        self._keys = TransmitterKeys(signals.transmitters, config.trust.refresh, get, log)
        self._counts = SignalCounts(signals.transmitters, clock)
        self._limiter: CapacityLimiter | None = None

    def start(self) -> None:
        """Start to fetch keys."""
        self._keys.start()

    def close(self) -> None:
        """Stop the fetches."""
        self._keys.close()

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric."""
        return self._counts.families()

    def problems(self) -> Iterator[str]:
        """Yield one line for each problem."""
        return self._counts.problems()

    def detail(self) -> dict[str, Any]:
        """Return the status of each transmitter as JSON values."""
        return self._counts.detail()

    def endpoints(
        self, counted: Callable[[str, int], None], failed: Callable[[BaseException], None]
    ) -> Sequence[Endpoint]:
        """Return the endpoint of each transmitter.

        Args:
            counted: Called with endpoint and status of each answer.
            failed: Receives every unexpected exception.
        """
        listener = self._config.listeners.http
        assert listener is not None  # noqa: S101 - the configuration needs it with transmitters
        limits = EndpointLimits(listener.max_body_bytes, listener.timeout)
        return [
            Endpoint(
                _PATH + name,
                PushEndpoint(
                    authenticate=partial(self._is_transmitter, name, transmitter),
                    take=partial(self.take, name),
                    refused=partial(self._refuse_unread, name),
                    bucket=TokenBucket(transmitter.rate, transmitter.burst),
                    limits=limits,
                    limiter=self._get_limiter,
                    counted=partial(counted, "shared_signals"),
                    failed=failed,
                ).handle,
                "POST",
            )
            for name, transmitter in self._transmitters.items()
        ]

    def take(self, name: str, arrival: Arrival) -> None:
        """Verify a token of a transmitter, and carry its event out.

        Raises:
            SetError: The token is refused.
            AuthzError: The event is not carried out, for example because the store failed.
        """
        try:
            verified = self._verify(name, arrival.token)
        except SetError:
            self._counts.count(name, UNREAD, EventResult.REFUSED)
            raise
        event = verified.event
        action, reason = event.action, event.reason
        if action == "end" and not verified.subjects:
            action, reason = "ignore", "the event names no subject of an issuer of the transmitter"
        elif action == "end" and self._has_unread_claims(name, verified):
            action, reason = "record", "Authz reads none of the claims that changed"
        try:
            self._carry_out(name, verified, action, reason, arrival)
        except AuthzError:
            self._counts.count(name, event.name, EventResult.FAILED)
            raise
        self._note_stream(name, event)
        self._counts.count(name, event.name, _RESULTS[action])

    def _verify(self, name: str, text: str) -> _Verified:
        transmitter = self._transmitters[name]
        rules = SetRules(
            transmitter.issuer,
            transmitter.audience,
            transmitter.algorithms,
            transmitter.max_age,
            self._config.trust.leeway,
        )
        try:
            keys = self._keys.of(name)
        except (OSError, ValueError) as error:
            self._log.error(
                "keys of a transmitter cannot be read", transmitter=name, error=str(error)
            )
            keys = ""
        try:
            token = verify_set(text, keys, rules, self._clock())
        except UnknownKeyError:
            self._keys.ask_for(name)
            raise
        event = read_event(token.event_type, token.event, transmitter.on)
        if token.subject is None:
            if event.name not in {EventKind.VERIFICATION, EventKind.STREAM_UPDATED}:
                description = "`sub_id` is missing (SSF 1.0 §4.1)"
                raise SetError(SetErrorCode.INVALID_REQUEST, description)
            return _Verified(token, event, ())
        return _Verified(token, event, find_subjects(token.subject, self._subjects(transmitter)))

    def _has_unread_claims(self, name: str, verified: _Verified) -> bool:
        """Return whether an event about claims names only claims that no role and no policy can read.

        A transmitter that is not the issuer of the subject's tokens may mean claims of other tokens, whose names say nothing here.
        """
        issuers = self._config.trust.issuers
        own = self._transmitters[name].issuer
        return all(
            issuers[subject.issuer].issuer == own
            and are_unread(verified.event.claims, issuers[subject.issuer].claims)
            for subject in verified.subjects
        )

    def _subjects(self, transmitter: Transmitter) -> SubjectRules:
        issuers = self._config.trust.issuers
        return SubjectRules(
            {issuers[alias].issuer: alias for alias in transmitter.subjects},
            transmitter.email_claim,
        )

    def _carry_out(
        self, name: str, verified: _Verified, action: str, reason: str, arrival: Arrival
    ) -> None:
        token, event = verified.token, verified.event
        at = token.issued_at if event.at is None else event.at
        facts = CallFacts("http", _DEADLINE, traceparent=arrival.traceparent, peer=arrival.peer)
        until = time.monotonic() + _DEADLINE
        ended = 0
        for subject in verified.subjects or (None,):
            request = {
                "transmitter": name,
                "jti": token.jti,
                "event": token.event_type[:_MAX_TYPE],
                "action": action,
                "reason": reason,
                "subject": _subject(subject),
                # An event in a later time counts as one of now; the engine knows the time.
                "at_ms": min(round(at * 1000), _MAX_MS),
                "keep_ms": self._kept_ms,
            }
            answer = self._engine.call(Surface.SECURITY_EVENT, json.dumps(request).encode(), facts)
            ended += int(json.loads(answer)["tasks_ended"])
        if ended and self._task_ended is not None:
            self._task_ended(max(0.0, until - time.monotonic()))

    def _note_stream(self, name: str, event: ReadEvent) -> None:
        if event.name == EventKind.VERIFICATION:
            self._counts.verified(name, event.state)
        elif event.status is not None:
            self._counts.updated(name, event.status)
        else:
            # A stream that is paused sends nothing, and another node may have heard that this one goes on.
            self._counts.updated(name, "enabled")

    def _is_transmitter(self, name: str, transmitter: Transmitter, value: str | None) -> bool:
        try:
            secret = read_secret(transmitter.authorization_file or "")
        except (OSError, PrivateFileError) as error:
            self._log.error(
                "the secret of a transmitter cannot be read", transmitter=name, error=str(error)
            )
            return False
        return value is not None and hmac.compare_digest(value.encode(), secret.encode())

    def _refuse_unread(self, name: str) -> None:
        self._counts.count(name, UNREAD, EventResult.REFUSED)

    def _get_limiter(self) -> CapacityLimiter:
        if self._limiter is None:
            self._limiter = CapacityLimiter(_THREADS)
        return self._limiter


def _subject(subject: EventSubject | None) -> dict[str, str | None] | None:
    if subject is None:
        return None
    return {"issuer": subject.issuer, "claim": subject.claim, "value": subject.value}
