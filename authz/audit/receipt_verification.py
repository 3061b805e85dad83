"""Verification of a receipt with trusted keys of heads, and nothing else."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from authz.audit.answer_proof import RecordedAnswer, SignedAnswer, read_answer, verify_assertion
from authz.audit.chain import read_link, record_hash, root_of_path
from authz.audit.decision import RecordedDecision, read_decision
from authz.audit.heads import Head, HeadError, HeadKeys, StoredHead, read_head
from authz.audit.receipt import ProvedRecord, Receipt, ReceiptError, read_object

__all__ = [
    "ProvedAnswer",
    "ProvedPlace",
    "UsedApproval",
    "VerifiedReceipt",
    "check_receipt",
    "used_approval",
]


@dataclass(frozen=True, slots=True)
class ProvedPlace:
    """Place of a record in the log of a node."""

    head: Head
    """The head above the record."""
    index: int
    """Place in the segment, from 0."""
    kid: str
    """Key that signed the head; empty if signatures were not checked."""


@dataclass(frozen=True, slots=True)
class ProvedAnswer:
    """Answer of a person that the call relies on."""

    answer: RecordedAnswer
    place: ProvedPlace
    signed: SignedAnswer | None
    """Facts of the passkey's assertion; None if the person did not answer by passkey."""


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """Facts that a receipt proves."""

    decision: RecordedDecision
    place: ProvedPlace
    has_texts: bool
    """The receipt has the texts of the policies."""
    answers: tuple[ProvedAnswer, ...]
    names_call: bool
    """The record of the call names the digest of the call that people approved; true for a call without an approval."""
    endorsed: tuple[str, ...]
    """Approvals of other calls whose endorsed values the call relies on. Their answers are not in the receipt."""


@dataclass(frozen=True, slots=True)
class UsedApproval:
    """Approval that a call used up."""

    id: str
    """Id of the approval."""
    by: tuple[str, ...]
    """People who gave the answers."""
    digest: str | None
    """SHA-256 of the call, in hex; None if the record does not name it."""
    card_digests: tuple[str, ...] | None
    """SHA-256 of each card that was answered, in hex; None if the record does not name them."""


def check_receipt(receipt: Receipt, keys: HeadKeys | None) -> VerifiedReceipt:
    """Verify a receipt.

    Args:
        receipt: The receipt.
        keys: Keys that are trusted for heads. None: signatures of heads are not checked, as when a receipt is made.

    Raises:
        ReceiptError: A part of the receipt is not proved.
    """
    place, fields = _check_place(receipt.decision, keys)
    if not isinstance(fields.get("result"), dict) or fields.get("sum") is not None:
        raise ReceiptError("decision", "the record is not one of a decision")
    _check_policies(receipt.policies, fields)
    approval = used_approval(fields)
    answers = [_check_answer(proved, approval, keys) for proved in receipt.answers]
    if approval is not None:
        _check_people([proved.answer for proved in answers], approval)
    return VerifiedReceipt(
        decision=read_decision(fields),
        place=place,
        has_texts=bool(receipt.policies),
        answers=tuple(answers),
        names_call=approval is None or approval.digest is not None,
        endorsed=endorsing_approvals(fields),
    )


def _check_place(proved: ProvedRecord, keys: HeadKeys | None) -> tuple[ProvedPlace, dict[str, Any]]:
    stored, kid = _check_head(proved.head, keys)
    head, line = stored.head, proved.record.encode()
    link = read_link(line)
    if link is None:
        raise ReceiptError("record", "a record names no place in a chain")
    if link.segment != head.segment:
        raise ReceiptError(
            "segment", f"a record of segment {link.segment}, a head of segment {head.segment}"
        )
    if link.index != proved.index:
        raise ReceiptError("index", f"record {link.index} has the index {proved.index}")
    if proved.count != head.count:
        raise ReceiptError("count", f"a head of {head.count} records, a count of {proved.count}")
    if proved.index >= head.count:
        raise ReceiptError("beyond", f"record {proved.index} stands after a head of {head.count}")
    # A receipt has only texts that the chain covers, so erasable texts do not fit.
    root = root_of_path(record_hash(line), proved.index, proved.count, proved.path)
    if root is None:
        raise ReceiptError("path_length", "the path has another length than its place needs")
    if root.hex() != head.root:
        raise ReceiptError("path", "the path does not lead from the record to the head")
    return ProvedPlace(head, proved.index, kid), read_object(proved.record, "record", "a record")


def _check_head(text: str, keys: HeadKeys | None) -> tuple[StoredHead, str]:
    """Return a head, and the key that signed it."""
    try:
        stored = read_head(text)
        kid = keys.verify(stored) if keys is not None else ""
    except HeadError as error:
        raise ReceiptError(error.code, str(error)) from error
    if not stored.signature:
        raise ReceiptError("head_unsigned", "the head is not signed")
    return stored, kid


def _check_policies(texts: Mapping[str, str], fields: Mapping[str, Any]) -> None:
    if not texts:
        return
    names, hashes = _texts(fields, "policies"), _texts(fields, "policies_sha256")
    if len(names) != len(hashes):
        raise ReceiptError("policy_hash", "the record does not name the hash of each policy")
    if set(names) != set(texts):
        raise ReceiptError("policies", "the policies are not those of the record")
    for name, expected in zip(names, hashes, strict=True):
        if hashlib.sha256(texts[name].encode()).hexdigest() != expected:
            raise ReceiptError("policy", f"the text of policy `{name}` is not that of the record")


def used_approval(fields: Mapping[str, Any]) -> UsedApproval | None:
    """Return the approval that a call used up, as its record states it; None without one."""
    note = _note(fields)
    if note.get("event") != "consumed":
        return None
    digest, cards = note.get("digest"), note.get("card_digests")
    return UsedApproval(
        id=str(note.get("id", "")),
        by=tuple(_strings(note.get("by"))),
        digest=str(digest) if digest is not None else None,
        card_digests=tuple(_strings(cards)) if cards is not None else None,
    )


def endorsing_approvals(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the approvals that endorsed values of a call, as its record states them, each once."""
    endorsed = _note(fields).get("endorsed")
    ids = _strings([one.get("approval_id") for one in _objects(endorsed)])
    return tuple(dict.fromkeys(ids))


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _check_answer(
    proved: ProvedRecord, approval: UsedApproval | None, keys: HeadKeys | None
) -> ProvedAnswer:
    place, fields = _check_place(proved, keys)
    answer = read_answer(_note(fields), str(fields.get("timestamp", "")))
    if approval is None or answer.approval_id != approval.id:
        raise ReceiptError(
            "approval", "an answer is about an approval that the record does not name"
        )
    if approval.digest is not None and answer.digest != approval.digest:
        raise ReceiptError("call", "an answer is about another call than the record names")
    if approval.card_digests is not None and answer.card_digest not in approval.card_digests:
        raise ReceiptError("card", "an answer is about another card than the record names")
    return ProvedAnswer(answer, place, verify_assertion(answer))


def _check_people(answers: Sequence[RecordedAnswer], approval: UsedApproval) -> None:
    last = answers[-1].event if answers else ""
    if last != "approved" or sorted(answer.by for answer in answers) != sorted(approval.by):
        raise ReceiptError("answers", "an answer that the call needed is missing, or stands twice")


def _note(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    result = fields.get("result")
    note = result.get("approval") if isinstance(result, dict) else None
    return note if isinstance(note, dict) else {}


def _texts(fields: Mapping[str, Any], name: str) -> list[str]:
    result = fields.get("result")
    return list(_strings(result.get(name))) if isinstance(result, dict) else []


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))
