"""Makes the receipt of a decision from an audit log and its heads."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from authz.audit.chain import MerkleTree, inclusion_path, leaf_hash, read_link
from authz.audit.decision import is_node_record
from authz.audit.erasable import covered
from authz.audit.heads import Head, HeadError, StoredHead, read_head
from authz.audit.reader import open_log
from authz.audit.receipt import ProvedRecord, Receipt, ReceiptError
from authz.audit.receipt_verification import check_receipt, used_approval
from authz.errors import UsageError

__all__ = ["LogLine", "find_decision", "make_receipt"]

_MAX_LINE: Final = 16 * 1024 * 1024
_ID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A record with its line."""

    line: bytes
    """The line, without its line feed."""
    fields: Mapping[str, Any]
    """Its members."""
    segment: int
    """Segment of the line; 0 if it is not in a chain."""
    index: int
    """Place in the segment, from 0."""


def find_decision(files: Sequence[Path], decision_id: str) -> LogLine:
    """Find the record of a decision. Of several records, it is the record whose outcome was answered.

    Args:
        files: Files of the log, in any order; `.gz` is unpacked on the way.
        decision_id: Id of the decision.

    Raises:
        UnavailableError: A file cannot be read.
        UsageError: The log has no such record, or the record is not a decision.
    """
    if not _ID.fullmatch(decision_id):
        raise UsageError(f"{decision_id[:80]!r} is not the id of a decision")
    lines = _search(files, decision_id, lambda fields: fields.get("decision_id") == decision_id)
    if not lines:
        raise UsageError(f"the log has no record of decision {decision_id}")
    answered = [one for one in lines if "instead_of" in _result(one.fields)]
    line = (answered or lines[:1])[-1]
    if "sum" in line.fields:
        raise UsageError(f"{decision_id} is a sum of refusals, not a decision")
    if is_node_record(line.fields):
        raise UsageError(f"{decision_id} is a record of the node itself, not a decision")
    return line


def make_receipt(
    files: Sequence[Path],
    heads: Iterable[str],
    line: LogLine,
    policies: Mapping[str, str],
) -> Receipt:
    """Make the receipt of a decision.

    Args:
        files: Files of the log, in any order.
        heads: Heads of the log, each in its stored form.
        line: Record of the decision.
        policies: Text of each policy of the bundle that judged, by id; empty without a bundle.

    Raises:
        UnavailableError: A file cannot be read.
        UsageError: The log lacks a part of the proof, for example a signed head after the record.
    """
    stored = _read_heads(heads)
    answers = _answers(files, line)
    lines = [line, *answers]
    above = [_heads_above(one, stored) for one in lines]
    leaves = _leaves(files, [head.head for heads_of in above for head in heads_of])
    proved = [
        _prove(one, heads_of, leaves[one.segment])
        for one, heads_of in zip(lines, above, strict=True)
    ]
    receipt = Receipt(proved[0], _named_texts(line, policies), tuple(proved[1:]))
    try:
        check_receipt(receipt, None)
    except ReceiptError as error:
        raise UsageError(f"the log does not prove the decision: {error}") from error
    return receipt


def _search(
    files: Sequence[Path], needle: str, accepts: Callable[[Mapping[str, Any]], bool]
) -> list[LogLine]:
    """Find records that have a text somewhere, each place of the chain once, in the order of the chain."""
    found: dict[tuple[int, int, bytes], LogLine] = {}
    text = needle.encode()
    for whole in _lines(files):
        # Texts that can be erased are not part of the record's proof.
        line = covered(whole)
        if text not in line:
            continue
        try:
            fields = json.loads(line.decode())
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict) and accepts(fields):
            link = read_link(line)
            place = (link.segment, link.index) if link is not None else (0, 0)
            found[(*place, line)] = LogLine(line, fields, *place)
    return [found[place] for place in sorted(found)]


def _answers(files: Sequence[Path], line: LogLine) -> list[LogLine]:
    """Find the records of the answers that a call needed, oldest first."""
    approval = used_approval(line.fields)
    if approval is None:
        return []

    def accepts(fields: Mapping[str, Any]) -> bool:
        note = _result(fields).get("approval")
        return (
            isinstance(note, dict)
            and note.get("id") == approval.id
            and note.get("event") in {"answered", "approved"}
        )

    answers = _search(files, approval.id, accepts)
    if not answers:
        raise UsageError(
            f"the log has no answer of approval {approval.id}: another node of a shared store recorded it"
        )
    return answers


def _read_heads(texts: Iterable[str]) -> list[StoredHead]:
    try:
        return [read_head(text) for text in texts]
    except HeadError as error:
        raise UsageError(f"a head of the log cannot be read: {error}") from error


def _heads_above(line: LogLine, heads: Sequence[StoredHead]) -> list[StoredHead]:
    """Return the signed heads above a record, the last of its segment first."""
    if line.segment == 0:
        raise UsageError("the record is not in a chain: it was written without `audit.chain`")
    above = [
        stored
        for stored in heads
        if stored.head.segment == line.segment and stored.head.count > line.index
    ]
    if not above:
        raise UsageError(
            "no head stands above the record yet; the node signs the next one after `audit.head_interval`"
        )
    signed = [stored for stored in above if stored.signature]
    if not signed:
        raise UsageError("the head above the record is not signed: set `audit.head_key`")
    return sorted(signed, key=lambda stored: (not stored.head.sealed, -stored.head.count))


def _leaves(files: Sequence[Path], heads: Iterable[Head]) -> dict[int, dict[int, bytes]]:
    """Return the hashes of the lines below heads, by segment and index."""
    counts: dict[int, int] = {}
    for head in heads:
        counts[head.segment] = max(counts.get(head.segment, 0), head.count)
    leaves: dict[int, dict[int, bytes]] = {segment: {} for segment in counts}
    for line in _lines(files):
        link = read_link(line)
        if link is not None and link.index < counts.get(link.segment, 0):
            leaves[link.segment].setdefault(link.index, leaf_hash(line))
    return leaves


def _prove(line: LogLine, heads: Sequence[StoredHead], leaves: Mapping[int, bytes]) -> ProvedRecord:
    """Prove a record below the first head to which the lines of the log fit."""
    for stored in heads:
        head = stored.head
        ordered = [leaves[index] for index in range(head.count) if index in leaves]
        tree = MerkleTree()
        for leaf in ordered:
            tree.push(leaf)
        if len(ordered) == head.count and tree.root().hex() == head.root:
            path = tuple(inclusion_path(ordered, line.index))
            record = covered(line.line).decode()
            return ProvedRecord(record, line.index, head.count, path, stored.text)
    raise UsageError(
        f"the lines of segment {line.segment} are not those of its head: see `authz audit verify`"
    )


def _named_texts(line: LogLine, policies: Mapping[str, str]) -> dict[str, str]:
    names = _result(line.fields).get("policies")
    if not policies or not isinstance(names, list):
        return {}
    if missing := [name for name in names if name not in policies]:
        raise UsageError(f"the bundle has no policy `{missing[0]}`, which the record names")
    return {name: policies[name] for name in names}


def _result(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    result = fields.get("result")
    return result if isinstance(result, dict) else {}


def _lines(files: Sequence[Path]) -> Iterator[bytes]:
    for file in files:
        with open_log(file) as stream:
            while line := stream.readline(_MAX_LINE):
                if line.endswith(b"\n"):
                    yield line[:-1]
