//! Chain of the audit log as the settings describe it, and the key that signs its heads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use authz_state::{ChainSettings, HeadSigner};
use authz_token::PrivateKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::error::EngineError;
use crate::settings::{HeadKeySettings, Settings};

/// Type of a signed head, in the header of its signature (RFC 7515 §4.1.9).
const HEAD_TYPE: &str = "authz-audit-head";

/// Chain of the audit log. `None`: lines are not chained.
///
/// # Errors
/// The key of heads cannot be used.
pub(crate) fn audit_chain(settings: &Settings) -> Result<Option<ChainSettings>, EngineError> {
    let Some(chain) = &settings.audit_chain else { return Ok(None) };
    let signer = chain.head_key.as_ref().map(HeadKey::read).transpose()?;
    let node = node_name(settings);
    Ok(Some(ChainSettings {
        signer: signer.map(|key| Arc::new(key) as Arc<dyn HeadSigner + Sync>),
        max_segment_bytes: chain.max_segment_bytes,
        max_segment_age: Duration::from_millis(chain.max_segment_age_ms),
        head_interval: Duration::from_millis(chain.head_interval_ms),
        keep_segments: chain.keep_segments,
        ..ChainSettings::new(node)
    }))
}

/// Name of this node in heads.
pub(crate) fn node_name(settings: &Settings) -> String {
    match settings.node_id.as_str() {
        "" => settings.state.node.clone(),
        name => name.to_owned(),
    }
}

/// Private key that signs heads.
struct HeadKey {
    header: String,
    key: PrivateKey,
}

impl HeadKey {
    fn read(settings: &HeadKeySettings) -> Result<Self, EngineError> {
        let invalid = |why: &str| EngineError::Invalid(format!("key of audit heads: {why}"));
        let der = STANDARD.decode(&settings.pkcs8.0).map_err(|_| invalid("it is not base64"))?;
        let key = PrivateKey::from_pkcs8(&der).map_err(|error| invalid(&error.to_string()))?;
        let header = json!({"alg": settings.algorithm, "kid": settings.kid, "typ": HEAD_TYPE});
        Ok(Self { header: header.to_string(), key })
    }
}

// Written by hand so that no log can hold the key.
impl fmt::Debug for HeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadKey").field("header", &self.header).finish_non_exhaustive()
    }
}

impl HeadSigner for HeadKey {
    fn header(&self) -> String {
        self.header.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        self.key.sign(message).map_err(|error| error.to_string())
    }
}
