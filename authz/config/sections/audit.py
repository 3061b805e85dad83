"""`audit`: the record of every decision."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from authz.config.findings import Finding
from authz.config.sections.audit_sinks import AuditSink, sink_findings
from authz.config.types import Duration, FilePath, Strict

__all__ = ["Audit", "AuditOnFull", "audit_findings"]


class AuditOnFull(StrEnum):
    """Treatment of a call whose record finds the queue full."""

    DENY = "deny"
    BLOCK = "block"
    DROP = "drop"


class Audit(Strict):
    """The record of every decision: JSON lines."""

    path: FilePath | None = None
    """File that records are appended to; required to serve."""
    queue: int = Field(default=65_536, ge=16, le=10_000_000)
    """Records that may wait to be written. `on_full` says what happens if there are more."""
    queue_bytes: int = Field(default=67_108_864, ge=65_536, le=17_179_869_184)
    """Bytes of records that may wait to be written. `on_full` says what happens if there are more."""
    on_full: AuditOnFull = AuditOnFull.DENY
    """Treatment of a call whose record finds the queue full. `deny`: the call is denied. `block`: the call waits for room for at most
    `max_wait`, then it is denied. `drop`: a decision of tier low or standard that changes nothing is answered without a record, and
    every other call is denied.
    """
    sync_interval: Annotated[Duration, Field(ge=0.001, le=60)] = 1.0
    """Records of tiers low and standard reach the disk at least this often; those of higher tiers at once."""
    max_wait: Annotated[Duration, Field(ge=0.001, le=60)] = 2.0
    """Longest wait for the disk, or for room in the queue, where the caller's deadline is later; then: deny."""
    unverified_refusals: int = Field(default=10, ge=1, le=1_000_000_000)
    """Records a minute of refusals of unverified callers, for each peer and reason code. Further refusals are counted in one record
    of their sum, so that nobody fills the disk without a credential.
    """

    chain: bool = False
    """Chains the records: each names its place and the hash of the record before it, so that a changed, moved or removed record is
    found. The other keys of the chain have no effect without it.
    """
    head_key: FilePath | None = None
    """Private key that signs the heads of the chain: PKCS#8 in PEM, Ed25519 or P-256. Default: heads are not signed."""
    head_interval: Annotated[Duration, Field(ge=0.1, le=3_600)] = 10.0
    """Interval at which the head of the segment that is being written is renewed."""
    segment_bytes: int = Field(default=268_435_456, ge=65_536, le=68_719_476_736)
    """Size at which a segment ends, in bytes. The node then moves the file to `<path>.<number of the segment>`."""
    segment_age: Annotated[Duration, Field(ge=60, le=2_678_400)] = 86_400.0
    """Age at which a segment ends."""
    keep_segments: int | None = Field(default=None, ge=1, le=1_000_000)
    """Number of ended segments that are kept. Older ones are removed once every sink has them; their heads stay. Default: all."""
    keep_undelivered_segments: int | None = Field(default=None, ge=1, le=1_000_000)
    """Number of ended segments that are kept although a sink lacks them. Older ones are removed all the same, which is told as a gap. It
    is not smaller than `keep_segments`. Default: all, until the disk is full.
    """
    sinks: dict[str, AuditSink] = Field(default_factory=dict, max_length=8)
    """Places away from this machine to which records and heads are delivered."""

    def engine_settings(self) -> dict[str, Any]:
        """Return the engine's settings of the audit, but for its path."""
        return {
            "audit_queue_lines": self.queue,
            "audit_queue_bytes": self.queue_bytes,
            "audit_on_full": self.on_full.value,
            "audit_sync_interval_ms": round(self.sync_interval * 1000),
            "audit_max_wait_ms": round(self.max_wait * 1000),
            "audit_unverified_refusals": self.unverified_refusals,
        }


def audit_findings(audit: Audit) -> Iterator[Finding]:
    """Yield errors of `audit` that the types cannot express."""
    yield from sink_findings(audit.sinks)
    most, keep = audit.keep_undelivered_segments, audit.keep_segments
    if most is not None and (keep is None or most < keep):
        yield Finding(
            ("audit", "keep_undelivered_segments"),
            "`audit.keep_undelivered_segments` is given, but `audit.keep_segments` is not, so all segments are kept."
            if keep is None
            else f"`audit.keep_undelivered_segments` is smaller than `audit.keep_segments: {keep}`, so it would have no effect.",
            "Give `keep_segments`, and at least as many `keep_undelivered_segments`; or remove it.",
        )
