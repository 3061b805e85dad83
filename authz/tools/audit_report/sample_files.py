"""Sampled records of a report, with receipts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from authz.audit import read_decision
from authz.audit.chain import read_link
from authz.audit.receipt_verification import used_approval
from authz.audit.receipt_writing import LogLine, make_receipt
from authz.errors import UsageError
from authz.tools.audit_report.documents import ReportFolder
from authz.tools.audit_report.inputs import ReportInput
from authz.tools.audit_report.samples import Sample, SampledDecision, read_lines

__all__ = ["write_samples"]


@dataclass(frozen=True, slots=True)
class _WrittenSample:
    """Files of a sampled decision."""

    sha256: str
    """SHA-256 of the line, with its line feed."""
    receipt: str = ""
    """File of the receipt; empty without one."""
    no_receipt: str = ""
    """Reason why there is no receipt."""


def write_samples(folder: ReportFolder, given: ReportInput, chosen: Sample) -> int:
    """Write `samples.csv`, and `samples/` with the record and the receipt of each decision.

    Returns:
        Number of receipts.
    """
    folder.make_folder("samples")
    written: dict[str, _WrittenSample] = {}
    files = given.files
    for decision, line in read_lines(chosen, files):
        folder.write_bytes(f"samples/{decision.name}.json", line)
        written[decision.decision_id] = _write_receipt(folder, given, decision, line)
    folder.write_csv(
        "samples.csv",
        (
            "rank",
            "decision_id",
            "outcome",
            "reason_code",
            "record",
            "record_sha256",
            "receipt",
            "no_receipt",
            "file",
            "line",
        ),
        (
            (
                one.rank,
                one.decision_id,
                one.outcome,
                one.code,
                f"samples/{one.name}.json",
                written[one.decision_id].sha256,
                written[one.decision_id].receipt,
                written[one.decision_id].no_receipt,
                str(files[one.file]),
                one.line,
            )
            for one in chosen.decisions
        ),
    )
    return sum(bool(one.receipt) for one in written.values())


def _write_receipt(
    folder: ReportFolder, given: ReportInput, decision: SampledDecision, line: bytes
) -> _WrittenSample:
    digest = hashlib.sha256(line).hexdigest()
    name = f"samples/{decision.name}.receipt.json"
    try:
        content = _receipt(given, decision.file, line)
    except UsageError as error:
        return _WrittenSample(digest, no_receipt=str(error))
    folder.write_bytes(name, content)
    return _WrittenSample(digest, receipt=name)


def _receipt(given: ReportInput, file: int, line: bytes) -> bytes:
    """Make the receipt of a sampled decision.

    Raises:
        UsageError: The log lacks a part of the proof.
    """
    text = line.rstrip(b"\n")
    link, fields = read_link(text), json.loads(text)
    if link is None:
        raise UsageError("the record is not in a chain: it was written without `audit.chain`")
    record = LogLine(text, fields, link.segment, link.index)
    # The lines of a segment stand in one file. Answers of people can stand in others.
    log = given.log_of(file)
    files = log.files if used_approval(fields) is not None else [given.files[file]]
    policies = _policies(given, fields)
    try:
        return make_receipt(files, log.heads, record, policies).content()
    except UsageError:
        if not policies:
            raise
        # Without the texts, the receipt still proves the record.
        return make_receipt(files, log.heads, record, {}).content()


def _policies(given: ReportInput, fields: Mapping[str, Any]) -> Mapping[str, str]:
    judged = read_decision(fields).digest
    bundles: Sequence[Mapping[str, str]] = [
        bundle.policies for bundle in given.bundles if bundle.digest == judged
    ]
    return bundles[0] if bundles else {}
