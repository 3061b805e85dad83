//! Header credential of a system without tokens: requests receive the secret when they are let through, agents never do.

use crate::header_name::spellings;
use crate::settings::{Secret, StaticSecret};

/// The header that carries it.
#[derive(Debug)]
pub(crate) struct SecretHeader {
    header: String,
    /// The name as a server spells it that takes `_` for `-`: what an agent sends under one would be the same header there.
    twins: Vec<String>,
    value: Option<Secret>,
}

impl SecretHeader {
    pub(crate) fn new(static_secret: &StaticSecret) -> Self {
        let mut twins = spellings(&static_secret.header.replace('_', "-"));
        twins.retain(|name| *name != static_secret.header);
        Self { header: static_secret.header.clone(), twins, value: static_secret.value.clone() }
    }

    /// The header's name.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// Other spellings of its name.
    pub(crate) fn twins(&self) -> &[String] {
        &self.twins
    }

    /// Value of the header. `None`: the secret cannot be read.
    pub(crate) fn value(&self) -> Option<&str> {
        self.value.as_ref().map(|secret| secret.0.as_str())
    }
}
