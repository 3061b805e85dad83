//! Bounds of request fields that no setting changes.

/// Credentials of one request.
pub(crate) const EVIDENCE: usize = 4;
/// Items of a list.
pub(crate) const LIST: usize = 64;
/// Bytes of an id: operation, resource, task, approval.
pub(crate) const ID: usize = 512;
/// Bytes of a destination.
pub(crate) const DESTINATION: usize = 2_048;
/// Bytes of a guard's statement.
pub(crate) const CONFIDENCE: usize = 8_192;
/// Bytes of an obligation's name.
pub(crate) const OBLIGATION: usize = 256;
/// Values of one report.
pub(crate) const VALUES: usize = 1_024;
/// Bytes of the pointers and texts of all values of one report.
pub(crate) const VALUE_BYTES: usize = 65_536;
/// Bytes of one reported value.
pub(crate) const VALUE: usize = 1_024;
/// Items of a batch.
pub(crate) const BATCH: usize = 100;
/// Operations on one page of a list.
pub(crate) const PAGE: usize = 1_000;
/// Entries of one message of an access log.
pub(crate) const LOG_ENTRIES: usize = 4_096;
/// Headers of an HTTP request.
pub(crate) const HEADERS: usize = 256;
/// Bytes of a header name.
pub(crate) const HEADER_NAME: usize = 256;
/// Bytes of an HTTP target.
pub(crate) const PATH: usize = 16_384;
/// Bytes of an HTTP method.
pub(crate) const METHOD: usize = 32;
/// Bytes of an HTTP host.
pub(crate) const HOST: usize = 512;
/// Bytes of a peer address in a record.
pub(crate) const PEER: usize = 256;
/// Entries of Envoy's `context_extensions`.
pub(crate) const EXTENSIONS: usize = 256;
/// Bytes of the words that say why something is revoked.
pub(crate) const REASON: usize = 1_024;
/// Bytes of the name of the person who revokes.
pub(crate) const REVOKED_BY: usize = 256;
/// Bytes of the selection of an erasure.
pub(crate) const SELECTION: usize = 4_096;
/// Bytes of the id of a cut-off: less than those of the id of a record.
pub(crate) const CUTOFF: usize = 1_000;
/// Bytes of the name that a revocation is of.
pub(crate) const REVOKED: usize = 2_048;
