//! How the enforcer of a call was recognized.

/// Proof that the caller is an enforcer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EnforcerProof {
    /// The caller is not an enforcer.
    #[default]
    No,
    /// The listener is the enforcer's.
    Listener,
    /// The TLS certificate is the enforcer's.
    Certificate,
    /// None: each caller of an `insecure_dev` listener is an enforcer.
    InsecureDev,
}

impl EnforcerProof {
    /// All values, in order.
    pub(crate) const ALL: [Self; 4] =
        [Self::No, Self::Listener, Self::Certificate, Self::InsecureDev];

    /// Name in records and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::No => "none",
            Self::Listener => "listener",
            Self::Certificate => "certificate",
            Self::InsecureDev => "insecure_dev",
        }
    }
}
