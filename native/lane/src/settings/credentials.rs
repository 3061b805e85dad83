//! Task credentials, as configured.

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::model::Tier;
use serde::Deserialize;

use super::{Secret, required};
use crate::error::{EngineError, StaticSecretError};
use crate::header_name::is_name_byte;

/// Settings of task credentials.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSettings {
    /// Issuer: `iss` of the tokens, an `https` URL.
    pub issuer: String,
    /// Audience of each system whose audience is not its id.
    pub audiences: BTreeMap<String, String>,
    /// Longest lifetime.
    pub lifetime: Lifetimes,
    /// Proofs of possession (RFC 9449).
    pub dpop: DpopSettings,
    /// Header credential of each system that has one.
    pub static_secrets: BTreeMap<String, StaticSecret>,
    /// Broker of each system whose secrets are leased.
    pub leases: BTreeMap<String, String>,
}

impl CredentialSettings {
    /// Reads settings.
    ///
    /// # Errors
    /// A member is unknown or missing, or has a wrong type; or a header credential is not valid.
    pub fn from_json(text: &[u8]) -> Result<Self, EngineError> {
        let settings: Self =
            serde_json::from_slice(text).map_err(EngineError::json("credentials"))?;
        settings.check()?;
        Ok(settings)
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        for (system, static_secret) in &self.static_secrets {
            static_secret
                .check()
                .map_err(|source| EngineError::StaticSecret { system: system.clone(), source })?;
        }
        Ok(())
    }

    /// Systems that the settings name.
    pub(crate) fn systems(&self) -> BTreeSet<&str> {
        let Self { audiences, static_secrets, leases, .. } = self;
        let all = audiences.keys().chain(static_secrets.keys()).chain(leases.keys());
        all.map(String::as_str).collect()
    }

    /// Audience of a system.
    #[must_use]
    pub fn audience<'a>(&'a self, system: &'a str) -> &'a str {
        self.audiences.get(system).map_or(system, String::as_str)
    }
}

/// Longest lifetime of a credential, by the tier of its operation, in seconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Lifetimes {
    /// Tier low.
    pub low: u32,
    /// Tier standard.
    pub standard: u32,
    /// Tier high.
    pub high: u32,
    /// Tier critical.
    pub critical: u32,
}

/// Lifetimes of a node without settings of credentials.
impl Default for Lifetimes {
    fn default() -> Self {
        Self { low: 900, standard: 300, high: 120, critical: 60 }
    }
}

impl Lifetimes {
    /// Longest lifetime of a credential of a tier, in seconds.
    #[must_use]
    pub const fn of(&self, tier: Tier) -> u32 {
        match tier {
            Tier::Low => self.low,
            Tier::Standard => self.standard,
            Tier::High => self.high,
            Tier::Critical => self.critical,
        }
    }
}

/// Settings of proofs of possession (RFC 9449).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DpopSettings {
    /// Greatest difference between `iat` and now, in seconds.
    pub window: u32,
    /// Most proofs of one key that are remembered. A further proof is refused.
    pub max_proofs_per_key: u32,
    /// Every proof needs a nonce of this server.
    pub require_nonce: bool,
}

/// Proofs of possession at a node without settings of credentials.
impl Default for DpopSettings {
    fn default() -> Self {
        Self { window: 60, max_proofs_per_key: 4_096, require_nonce: false }
    }
}

/// Header credential: a header that carries the static secret of a system without tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticSecret {
    /// Name of the header, in lower case.
    pub header: String,
    /// Value of the header. `null`: the secret cannot be read, and no request is let through to the system.
    #[serde(deserialize_with = "required")]
    pub value: Option<Secret>,
}

impl StaticSecret {
    /// Most dashes in the name of a header.
    const DASHES: usize = 6;
    const LONGEST_NAME: usize = 128;
    const LONGEST_VALUE: usize = 8192;

    // INVARIANT (one header): a line's end in the value would begin another header, and each dash of the name doubles the
    // spellings that are removed from a request.
    fn check(&self) -> Result<(), StaticSecretError> {
        let name = self.header.as_bytes();
        if name.is_empty()
            || name.len() > Self::LONGEST_NAME
            || !name.iter().all(|byte| is_name_byte(*byte))
        {
            return Err(StaticSecretError::Name);
        }
        if name.iter().filter(|byte| matches!(byte, b'-' | b'_')).count() > Self::DASHES {
            return Err(StaticSecretError::Dashes);
        }
        let is_line = |value: &Secret| {
            (1..=Self::LONGEST_VALUE).contains(&value.0.len())
                && value.0.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        };
        if self.value.as_ref().is_none_or(is_line) { Ok(()) } else { Err(StaticSecretError::Value) }
    }
}
