"""Writes the body of a notification: JSON, blocks of a Slack message, or subject and text of a mail.

A message names the operation, the people and the queue, and has a link to the card. It has no values of arguments unless the
configuration of the webhook includes them, because more people read chats and mailboxes than the page. `authz.approvals.inert` makes
each text visible, so that it cannot imitate markup or a second line.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from authz.approvals.card import CardReferences, build_card
from authz.approvals.inert import visible
from authz_client.v1 import approvals_pb2

__all__ = ["Event", "MessageFormat", "event_of", "message_id", "write_message"]

_MOST_TEXT: Final = 1_000
"""Largest number of characters of one text of a message. The card has the whole text."""
_MOST_VALUES: Final = 20
_HEADER_TEXT: Final = 150
"""Largest number of characters of a header (Slack, Block Kit)."""


class Event(StrEnum):
    """Change of an approval."""

    OPENED = "approval.opened"
    APPROVED = "approval.approved"
    REJECTED = "approval.rejected"
    EXPIRED = "approval.expired"
    USED = "approval.used"


class MessageFormat(StrEnum):
    """Form of a message."""

    JSON = "json"
    SLACK = "slack"
    MAIL = "mail"


_EVENTS: Final[Mapping[int, Event]] = {
    approvals_pb2.APPROVAL_STATUS_PENDING: Event.OPENED,
    approvals_pb2.APPROVAL_STATUS_APPROVED: Event.APPROVED,
    approvals_pb2.APPROVAL_STATUS_REJECTED: Event.REJECTED,
    approvals_pb2.APPROVAL_STATUS_EXPIRED: Event.EXPIRED,
    approvals_pb2.APPROVAL_STATUS_CONSUMED: Event.USED,
}
_HEADLINES: Final[Mapping[Event, str]] = {
    Event.OPENED: "Waits for you",
    Event.APPROVED: "Approved",
    Event.REJECTED: "Rejected",
    Event.EXPIRED: "Expired",
    Event.USED: "Done",
}


def event_of(status: "approvals_pb2.ApprovalStatus.ValueType") -> Event | None:
    """Return the event that leads to a status, or `None` for an unknown status."""
    return _EVENTS.get(status)


def message_id(approval: approvals_pb2.Approval, event: Event) -> str:
    """Return the id of a message. It is the same on every node and for every attempt, so that a receiver can drop copies."""
    queues = ",".join(sorted(approval.waits_for)) if event is Event.OPENED else ""
    text = f"{approval.id}\0{event.value}\0{queues}"
    return f"msg_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def write_message(
    approval: approvals_pb2.Approval,
    event: Event,
    form: MessageFormat,
    *,
    url: str,
    has_values: bool = False,
) -> bytes:
    """Write the body of a message.

    Args:
        approval: The approval.
        event: The change.
        form: Form of the message.
        url: Public base URL of the approvals page. Empty without a page.
        has_values: Whether the message names destinations and objects.
    """
    facts = _facts(approval, event, url, has_values=has_values)
    message: dict[str, Any]
    if form is MessageFormat.SLACK:
        message = _slack(facts, event)
    elif form is MessageFormat.MAIL:
        message = {"subject": _headline(facts, event), "text": _text(facts)}
    else:
        happened_at = _time(_happened_at(approval, event))
        message = {"type": event.value, "timestamp": happened_at, "data": facts}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _happened_at(approval: approvals_pb2.Approval, event: Event) -> Timestamp:
    if event is Event.EXPIRED:
        return approval.expires_at
    is_new = event is Event.OPENED or not approval.answers
    return approval.created_at if is_new else approval.answers[-1].answered_at


def _facts(
    approval: approvals_pb2.Approval, event: Event, url: str, *, has_values: bool
) -> dict[str, Any]:
    """Return the members of a message, without empty ones."""
    card = build_card(approval, CardReferences(), 0.0)
    facts: dict[str, Any] = {
        "approval_id": card.approval_id,
        "code": card.code,
        "title": _cut(card.title),
        "operation": _cut(visible(approval.operation)),
        "status": event.value.removeprefix("approval."),
        "url": f"{url}/a/{approval.id}" if url else "",
        "waits_for": [_cut(visible(queue)) for queue in approval.waits_for],
        "subject": _cut(visible(approval.subject)),
        "agent": _cut(visible(approval.agents[-1])) if approval.agents else "",
        "purpose": _cut(visible(approval.purpose)),
        "reasons": [_cut(visible(one.reason)) for one in approval.reasons if one.reason],
        "created_at": _time(approval.created_at),
        "expires_at": _time(approval.expires_at) if approval.HasField("expires_at") else "",
        "answered_by": [_cut(visible(person)) for person in approval.resolved_by],
    }
    if has_values:
        facts["destinations"] = [
            _cut(visible(one.value)) for one in approval.destinations[:_MOST_VALUES]
        ]
        facts["objects"] = [
            {"role": visible(one.role), "value": _cut(visible(one.value_json))}
            for one in approval.objects[:_MOST_VALUES]
        ]
    return {name: value for name, value in facts.items() if value}


def _cut(text: str) -> str:
    """Return a text. If it is too long, return its beginning and the number of characters that are left out."""
    left = len(text) - _MOST_TEXT
    return text if left <= 0 else f"{text[:_MOST_TEXT]} ({left} characters not shown)"


def _time(timestamp: Timestamp) -> str:
    moment = datetime.fromtimestamp(timestamp.ToMilliseconds() / 1000, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _headline(facts: Mapping[str, Any], event: Event) -> str:
    return f"{_HEADLINES[event]}: {facts['title']} ({facts['code']})"


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return pairs of label and text for people."""
    values = [*facts.get("destinations", ())]
    values += [f"{one['role']} {one['value']}" for one in facts.get("objects", ())]
    lines = [
        ("Operation", facts["title"]),
        ("Purpose", facts.get("purpose", "")),
        ("For", facts.get("subject", "")),
        ("Agent", facts.get("agent", "")),
        ("Needs", ", ".join(facts.get("waits_for", ()))),
        ("Why", "; ".join(facts.get("reasons", ()))),
        ("Values", "; ".join(values)),
        ("Answered by", ", ".join(facts.get("answered_by", ()))),
        ("Ends", facts.get("expires_at", "")),
        ("Code", facts["code"]),
    ]
    return [(label, text) for label, text in lines if text]


def _text(facts: Mapping[str, Any]) -> str:
    lines = [f"{label}: {text}" for label, text in _lines(facts)]
    if "url" in facts:
        lines += ["", f"Look at it: {facts['url']}"]
    return "\n".join(lines) + "\n"


def _slack(facts: Mapping[str, Any], event: Event) -> dict[str, Any]:
    """Return the blocks of a message. All texts are `plain_text`, in which Slack reads no markup, link or mention."""
    headline = _headline(facts, event)
    header = headline if len(headline) <= _HEADER_TEXT else f"{headline[: _HEADER_TEXT - 1]}…"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(header)},
        {
            "type": "section",
            "fields": [_plain(f"{label}: {text}"[:2000]) for label, text in _lines(facts)],
        },
    ]
    if "url" in facts:
        button = {"type": "button", "text": _plain("Look at it"), "url": facts["url"]}
        blocks.append({"type": "actions", "elements": [button]})
    return {"text": _escaped(headline), "blocks": blocks}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _escaped(text: str) -> str:
    """Return a text for the notification line, in which `<` begins a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
