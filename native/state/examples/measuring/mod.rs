//! What programs that measure a store share.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_state::store::{AuditSink, audit_sink};
use authz_state::{AuditSettings, AuditWriter};

/// A name as long as a UUID; those of one prefix differ at their end.
pub(crate) fn id(prefix: &str, number: usize) -> String {
    format!("{prefix}-7c4d-7e5f-8a9b-{number:012x}")
}

pub(crate) fn soon() -> Instant {
    Instant::now().checked_add(Duration::from_secs(60)).unwrap()
}

/// Resident memory, in bytes.
pub(crate) fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    kib * 1024
}

/// The audit file of the benchmark as the store's sink.
pub(crate) fn sink(folder: &Path) -> (Arc<AuditWriter>, AuditSink) {
    let audit = AuditWriter::open(AuditSettings::new(folder.join("audit.jsonl"))).unwrap();
    let audit = Arc::new(audit);
    let sink = audit_sink(&audit);
    (audit, sink)
}
