//! Settle: which stored records does the verdict change?

/// Effects of a verdict on what is stored.
#[derive(Debug, Default)]
pub(crate) struct Settlement {
    /// The encoded answer to the same request under the same idempotency key, which this answer repeats.
    pub(crate) repeats: Option<Vec<u8>>,
    /// The permit is open until its outcome is reported.
    pub(crate) is_open: bool,
}
