"""Reads events of CAEP 1.0 and of the Shared Signals Framework 1.0, and says what Authz does with each."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from authz.config import SignalAction, SignalActions
from authz.server.http.shared_signals.refusals import SetError, SetErrorCode

__all__ = ["EVENTS", "OTHER", "EventKind", "ReadEvent", "read_event"]

_CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
_SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"
_MAX_TEXT: Final = 200
_MAX_STATE: Final = 1_024
OTHER: Final = "other"
"""Name of events of unknown types, in metrics."""


class EventKind:
    """Names of the events that the receiver itself reads."""

    VERIFICATION: Final = "verification"
    STREAM_UPDATED: Final = "stream-updated"


@dataclass(frozen=True, slots=True)
class ReadEvent:
    """An event, and the reaction of Authz."""

    name: str
    """Last part of its type, for example `session-revoked`; `other` for an unknown type."""
    action: str
    """`end`, `record` or `ignore`."""
    reason: str
    """Why, for the audit and for messages of refusals."""
    at: float | None = None
    """`event_timestamp`, in seconds since 1970. `None`: the event has none."""
    state: str | None = None
    """`state` of a verification event."""
    claims: frozenset[str] = frozenset()
    """Names of the claims that changed, of an event about claims."""
    status: str | None = None
    """Status of the stream of a stream-updated event."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    action: SignalAction
    reason: str
    claims: frozenset[str] = frozenset()


def read_event(event_type: str, event: Mapping[str, Any], on: SignalActions) -> ReadEvent:
    """Read an event.

    Args:
        event_type: URI of its type.
        event: Its payload.
        on: Configured reactions.

    Raises:
        SetError: The payload does not conform to the definition of the event.
    """
    at = _timestamp(event)
    if event_type == _SSF + EventKind.VERIFICATION:
        state = _optional_text(event, "state", _MAX_STATE)
        return ReadEvent(EventKind.VERIFICATION, "record", "verification", at, state=state)
    if event_type == _SSF + EventKind.STREAM_UPDATED:
        status = _one_of(event, "status", {"enabled", "paused", "disabled"})
        reason = f"the stream is {status}"
        return ReadEvent(EventKind.STREAM_UPDATED, "record", reason, at, status=status)
    name = event_type.removeprefix(_CAEP)
    reader = _READERS.get(name) if event_type.startswith(_CAEP) else None
    if reader is None:
        return ReadEvent(OTHER, "ignore", "the type of the event is unknown", at)
    verdict = reader(event, on)
    said = _admin_reason(event)
    reason = f"{verdict.reason} ({said})" if said else verdict.reason
    return ReadEvent(name, verdict.action.value, reason, at, claims=verdict.claims)


def _session_revoked(_event: Mapping[str, Any], on: SignalActions) -> _Verdict:
    return _Verdict(on.session_revoked, "the session was revoked")


def _credential_change(event: Mapping[str, Any], on: SignalActions) -> _Verdict:
    kind = _text(event, "credential_type")
    change = _one_of(event, "change_type", {"create", "revoke", "update", "delete"})
    is_lost = change in {"revoke", "delete"}
    action = on.credential_revoked if is_lost else on.credential_changed
    return _Verdict(action, f"credential change: {change} {kind}")


def _token_claims_change(event: Mapping[str, Any], on: SignalActions) -> _Verdict:
    claims = event.get("claims")
    if not isinstance(claims, dict) or not claims:
        raise _invalid("`claims` is missing or empty (CAEP 1.0 §3.2.1)")
    reason = "claims of the subject's tokens changed"
    return _Verdict(on.token_claims_changed, reason, frozenset(claims))


def _device_compliance_change(event: Mapping[str, Any], on: SignalActions) -> _Verdict:
    known = {"compliant", "not-compliant"}
    _one_of(event, "previous_status", known)
    is_compliant = _one_of(event, "current_status", known) == "compliant"
    action = SignalAction.RECORD if is_compliant else on.device_not_compliant
    return _Verdict(action, f"the device is {'' if is_compliant else 'not '}compliant")


def _assurance_level_change(event: Mapping[str, Any], on: SignalActions) -> _Verdict:
    _text(event, "namespace")
    level = _text(event, "current_level")
    _optional_text(event, "previous_level", _MAX_TEXT)
    direction = None
    if "change_direction" in event:
        direction = _one_of(event, "change_direction", {"increase", "decrease"})
    # Levels of a namespace are not ordered here, so a change without a direction may be a decrease.
    action = SignalAction.RECORD if direction == "increase" else on.assurance_decreased
    return _Verdict(action, f"the assurance level is {level} now")


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], SignalActions], _Verdict]]] = {
    "session-revoked": _session_revoked,
    "credential-change": _credential_change,
    "token-claims-change": _token_claims_change,
    "device-compliance-change": _device_compliance_change,
    "assurance-level-change": _assurance_level_change,
}
EVENTS: Final = (*_READERS, EventKind.VERIFICATION, EventKind.STREAM_UPDATED, OTHER)
"""Names of events, in metrics."""


def _timestamp(event: Mapping[str, Any]) -> float | None:
    at = event.get("event_timestamp")
    if at is None and "event_timestamp" not in event:
        return None
    if isinstance(at, bool) or not isinstance(at, (int, float)):
        raise _invalid("`event_timestamp` is not a number (CAEP 1.0 §2)")
    try:
        seconds = float(at)
    except OverflowError as error:
        raise _invalid("`event_timestamp` is too large") from error
    if not math.isfinite(seconds) or seconds < 0:
        raise _invalid("`event_timestamp` is not a time (CAEP 1.0 §2)")
    return seconds


def _admin_reason(event: Mapping[str, Any]) -> str:
    """Return `reason_admin` in one language, as printable text."""
    reasons = event.get("reason_admin")
    if reasons is None and "reason_admin" not in event:
        return ""
    if isinstance(reasons, str):
        # The interoperability profile speaks of a string, CAEP of an object.
        reasons = {"en": reasons}
    if not isinstance(reasons, dict) or not reasons:
        raise _invalid("`reason_admin` is not an object with a message (CAEP 1.0 §2)")
    if not all(isinstance(text, str) for text in reasons.values()):
        raise _invalid("a message of `reason_admin` is not a text (CAEP 1.0 §2)")
    text: str = reasons.get("en") or next(iter(reasons.values()))
    return "".join(char if char.isprintable() else " " for char in text[:_MAX_TEXT])


def _text(event: Mapping[str, Any], name: str) -> str:
    text = event.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_TEXT or not text.isprintable():
        raise _invalid(f"`{name}` is missing, or not a short text")
    return text


def _optional_text(event: Mapping[str, Any], name: str, most: int) -> str | None:
    text = event.get(name)
    if text is None and name not in event:
        return None
    if not isinstance(text, str) or len(text) > most:
        raise _invalid(f"`{name}` is not a text, or too long")
    return text


def _one_of(event: Mapping[str, Any], name: str, known: set[str]) -> str:
    text = event.get(name)
    if not isinstance(text, str) or text not in known:
        raise _invalid(f"`{name}` is not any of {', '.join(sorted(known))}")
    return text


def _invalid(description: str) -> SetError:
    return SetError(SetErrorCode.INVALID_REQUEST, description)
