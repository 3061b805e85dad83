//! Task credentials, as configured.

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::model::Tier;
use serde::Deserialize;

use super::{EngineError, Secret};
use crate::header_name::is_name_byte;

/// How task credentials are issued, as configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSettings {
    /// Who issues: `iss` of the tokens, an `https` URL.
    pub issuer: String,
    /// The audience of each system whose audience is not its id.
    #[serde(default)]
    pub audiences: BTreeMap<String, String>,
    /// How long at most.
    #[serde(default)]
    pub lifetime: Lifetimes,
    /// Proofs of possession (RFC 9449).
    #[serde(default)]
    pub dpop: DpopSettings,
    /// Headers that carry the secret of a system that knows no tokens, by system.
    #[serde(default)]
    pub injections: BTreeMap<String, Injection>,
    /// Systems whose secrets are leased, each with the name of the broker that does.
    #[serde(default)]
    pub leases: BTreeMap<String, String>,
}

impl CredentialSettings {
    /// Reads settings.
    ///
    /// # Errors
    /// An unknown or missing key, or a value out of its range.
    pub fn from_json(text: &[u8]) -> Result<Self, EngineError> {
        let settings: Self = serde_json::from_slice(text)
            .map_err(|error| EngineError(format!("credentials: {error}")))?;
        settings.check()?;
        Ok(settings)
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let Lifetimes { low, standard, high, critical } = self.lifetime;
        let bounds = [
            ("lifetime.low", low, 86_400),
            ("lifetime.standard", standard, 86_400),
            ("lifetime.high", high, 86_400),
            ("lifetime.critical", critical, 86_400),
            ("dpop.window", self.dpop.window, 600),
            ("dpop.max_proofs_per_key", self.dpop.max_proofs_per_key, 10_000),
        ];
        for (name, value, most) in bounds {
            if !(1..=most).contains(&value) {
                return Err(EngineError(format!(
                    "credentials: `{name}` is {value}; give 1 to {most}"
                )));
            }
        }
        if !self.issuer.starts_with("https://") {
            return Err(EngineError("credentials: `issuer` is no https URL".to_owned()));
        }
        for (system, injection) in &self.injections {
            injection.check().map_err(|what| {
                EngineError(format!("credentials: injection of system `{system}`: {what}"))
            })?;
        }
        let both = self.leases.keys().find(|system| self.injections.contains_key(*system));
        if let Some(system) = both {
            return Err(EngineError(format!(
                "credentials: system `{system}` has both a leased and an injected secret; give one"
            )));
        }
        Ok(())
    }

    /// The systems that are named, each once.
    pub(crate) fn systems(&self) -> BTreeSet<&str> {
        let Self { audiences, injections, leases, .. } = self;
        let all = audiences.keys().chain(injections.keys()).chain(leases.keys());
        all.map(String::as_str).collect()
    }

    /// The audience of a system.
    #[must_use]
    pub fn audience<'a>(&'a self, system: &'a str) -> &'a str {
        self.audiences.get(system).map_or(system, String::as_str)
    }
}

/// How long a credential may live at most, by the tier of what it permits, in seconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Lifetimes {
    /// Of tier low.
    pub low: u32,
    /// Of tier standard.
    pub standard: u32,
    /// Of tier high.
    pub high: u32,
    /// Of tier critical.
    pub critical: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { low: 900, standard: 300, high: 120, critical: 60 }
    }
}

impl Lifetimes {
    /// How long a credential of this tier may live at most, in seconds.
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

/// How proofs of possession are taken.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct DpopSettings {
    /// How many seconds `iat` may lie before or after now.
    pub window: u32,
    /// Most proofs of one key that are remembered; one more is refused.
    pub max_proofs_per_key: u32,
    /// Every proof needs a nonce of ours.
    pub require_nonce: bool,
}

impl Default for DpopSettings {
    fn default() -> Self {
        Self { window: 60, max_proofs_per_key: 4_096, require_nonce: false }
    }
}

/// The header that carries the secret of a system that knows no tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// Its name, in lower case.
    pub header: String,
    /// Its value; none: it cannot be read, and no request is let through to the system.
    #[serde(default)]
    pub value: Option<Secret>,
}

impl Injection {
    /// Most `-` in a header's name: each doubles the spellings that some server takes for it.
    const DASHES: usize = 6;
    const LONGEST_NAME: usize = 128;
    const LONGEST_VALUE: usize = 8192;

    fn check(&self) -> Result<(), &'static str> {
        let name = self.header.as_bytes();
        if name.is_empty()
            || name.len() > Self::LONGEST_NAME
            || !name.iter().all(|b| is_name_byte(*b))
        {
            return Err("`header` is no lower-case name of a header");
        }
        if name.iter().filter(|byte| matches!(byte, b'-' | b'_')).count() > Self::DASHES {
            return Err("`header` has more than 6 `-`");
        }
        // A line's end would begin another header.
        let is_fine = |value: &Secret| {
            (1..=Self::LONGEST_VALUE).contains(&value.0.len())
                && value.0.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        };
        if !self.value.as_ref().is_none_or(is_fine) {
            return Err("`value` is no line of printable ASCII");
        }
        Ok(())
    }
}
