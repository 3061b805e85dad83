"""The account of a receipt: which facts it proves, and which not."""

from collections.abc import Iterator
from typing import Any, Final

from authz.audit.receipt_verification import ProvedAnswer, VerifiedReceipt
from authz.cli.render.terminal import Terminal
from authz.tools.catalog.tool import plain

__all__ = ["print_receipt", "receipt_document"]

_LONGEST: Final = 10_000


def print_receipt(terminal: Terminal, verified: VerifiedReceipt) -> None:
    """Print the account of a receipt that verifies."""
    terminal.line("proved:")
    for line in _proved(verified):
        terminal.line(f"  {plain(line, _LONGEST)}")
    terminal.line("not proved:")
    for line in _not_proved(verified):
        terminal.line(f"  {plain(line, _LONGEST)}")


def receipt_document(verified: VerifiedReceipt) -> dict[str, Any]:
    """Return the account of a receipt that verifies, as JSON."""
    decision, place = verified.decision, verified.place
    return {
        "verified": True,
        "decision_id": decision.decision_id,
        "timestamp": decision.at,
        "outcome": decision.outcome,
        "reason_code": decision.code,
        "operation": decision.operation,
        "chain": [{"kind": link.kind, "id": link.id} for link in decision.chain],
        "bundle": decision.bundle,
        "revision": decision.revision,
        "bundle_digest": decision.digest,
        "policies": list(decision.policies),
        "policy_texts": verified.has_texts,
        "node": place.head.node,
        "segment": place.head.segment,
        "index": place.index,
        "count": place.head.count,
        "head_at": place.head.at,
        "kid": place.kid,
        "answers": [_answer_document(one) for one in verified.answers],
        "not_proved": list(_not_proved(verified)),
    }


def _answer_document(proved: ProvedAnswer) -> dict[str, Any]:
    answer, signed = proved.answer, proved.signed
    return {
        "approval_id": answer.approval_id,
        "by": answer.by,
        "method": answer.method,
        "timestamp": answer.timestamp,
        "digest": answer.digest,
        "card_digest": answer.card_digest,
        "endorses": answer.endorses,
        "signed_at_origin": signed.origin if signed is not None else None,
        "algorithm": signed.algorithm if signed is not None else None,
    }


def _proved(verified: VerifiedReceipt) -> Iterator[str]:
    decision, place = verified.decision, verified.place
    head = place.head
    yield (
        f"node {head.node} recorded the decision as record {place.index} of segment {head.segment}, "
        f"below a head of {head.count} records of {head.at}, signed by key {place.kid}"
    )
    yield f"decision {decision.decision_id} of {decision.at}"
    operation = f" for {decision.requested}" if decision.requested else ""
    yield f"outcome {decision.outcome} ({decision.code}){operation}"
    if not decision.enforced:
        yield "the call was let through: `mode: observe`"
    for link in decision.chain:
        yield f"{link.kind} {link.id}"
    if decision.digest:
        yield f"bundle {decision.bundle}, revision {decision.revision}, SHA-256 {decision.digest}"
    if decision.policies:
        texts = "the texts in the receipt are those that judged" if verified.has_texts else "names"
        yield f"policies ({texts}): {', '.join(decision.policies)}"
    for proved in verified.answers:
        yield _answer(proved)


def _answer(proved: ProvedAnswer) -> str:
    answer, signed = proved.answer, proved.signed
    text = f"{answer.by} approved the call (approval {answer.approval_id}, {answer.timestamp})"
    if signed is None:
        return f"{text}: the node recorded an answer by {answer.method}"
    return (
        f"{text}: a passkey signed this answer, with verification of its user, at {signed.origin} ({signed.algorithm}); "
        f"call SHA-256 {answer.digest}, card SHA-256 {answer.card_digest}"
    )


def _not_proved(verified: VerifiedReceipt) -> Iterator[str]:
    yield "that the record is true: a head shows what the node recorded"
    yield "that no later record is about this decision"
    if verified.decision.policies:
        if not verified.has_texts:
            yield "the texts of the policies: they are not in the receipt"
        yield "that these policies lead to this outcome: evaluate them"
    for proved in verified.answers:
        answer = proved.answer
        if proved.signed is None:
            yield f"that {answer.by} answered: there is no signature of a passkey"
        else:
            yield f"that the passkey is that of {answer.by}: the node recorded its public key"
    if verified.answers:
        yield "the content of the cards: the receipt has their SHA-256"
    if not verified.names_call:
        yield "that the approved call is this call: the record names the approval, not the SHA-256 of the call"
    if verified.endorsed:
        yield f"answers that endorsed values of the call: approvals {', '.join(verified.endorsed)}"
