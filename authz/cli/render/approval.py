"""Renders approvals: the table of open approvals, the card of an approval, and JSON."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf import json_format

from authz.approvals.card import Card, CardReferences, MissingReference, build_card
from authz.approvals.inert import visible
from authz.approvals.terminal import TerminalCard
from authz.cli.render.terminal import Terminal
from authz_client.v1 import approvals_pb2

__all__ = ["approval_json", "approval_rows", "card_of", "print_card", "status_word"]

_WORDS: Final[Mapping[int, str]] = {
    approvals_pb2.APPROVAL_STATUS_PENDING: "open",
    approvals_pb2.APPROVAL_STATUS_APPROVED: "approved",
    approvals_pb2.APPROVAL_STATUS_REJECTED: "rejected",
    approvals_pb2.APPROVAL_STATUS_EXPIRED: "expired",
    approvals_pb2.APPROVAL_STATUS_CONSUMED: "used",
}
_NO_LISTS: Final = MissingReference(
    "Recipient lists",
    "this command has none. Only the approvals page warns of values that resemble an entry",
)
_NO_UNITS: Final = MissingReference(
    "Units of amounts",
    "this command has none. The approvals page has those that the bundle declares",
)
_MINUTE: Final = 60
_HOUR: Final = 3600


def status_word(status: int) -> str:
    """Return the word for a status."""
    return _WORDS.get(status, "unknown")


def approval_rows(approvals: Iterable[approvals_pb2.Approval]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table: id, operation, subject, agent, queues, age, and the way in which the user may answer."""
    now = time.time()
    for one in approvals:
        yield (
            one.id,
            visible(one.operation),
            visible(one.subject) or "itself",
            visible(one.agents[-1] if one.agents else ""),
            visible(", ".join(one.waits_for)),
            _age(now - one.created_at.ToNanoseconds() / 1e9),
            _way(one),
        )


def _way(approval: approvals_pb2.Approval) -> str:
    """Return the way in which the user may answer, or an empty text."""
    if not approval.answerable:
        return ""
    return "by passkey" if approval.needs_passkey else "may answer"


def card_of(approval: approvals_pb2.Approval, *, whole: bool = False) -> Card:
    """Build the card of an approval. The command has no bundle, so the card names what it was not compared with."""
    has_amount = any(one.role == "amount" for one in approval.objects)
    missing = (_NO_LISTS, _NO_UNITS) if has_amount else (_NO_LISTS,)
    return build_card(approval, CardReferences(missing=missing), time.time(), whole=whole)


def print_card(terminal: Terminal, card: Card) -> None:
    """Print a card."""
    terminal.out.print(TerminalCard(card))


def approval_json(approval: approvals_pb2.Approval) -> dict[str, Any]:
    """Return an approval as JSON: its arguments as a value, and digests in hex."""
    shown: dict[str, Any] = json_format.MessageToDict(approval, preserving_proto_field_name=True)
    shown["status"] = status_word(approval.status)
    shown["digest"] = approval.digest.hex()
    _show_arguments(shown, approval.arguments_json)
    if approval.HasField("last_approved"):
        _show_arguments(shown["last_approved"], approval.last_approved.arguments_json)
    for answer, given in zip(approval.answers, shown.get("answers", ()), strict=False):
        given["card_digest"] = answer.card_digest.hex()
        given["status"] = status_word(answer.status)
    return shown


def _show_arguments(shown: dict[str, Any], arguments: bytes) -> None:
    shown.pop("arguments_json", None)
    try:
        shown["arguments"] = json.loads(arguments) if arguments else None
    except ValueError:
        shown["arguments"] = None


def _age(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{max(seconds, 0):.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
