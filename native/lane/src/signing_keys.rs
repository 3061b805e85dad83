//! Public halves of the keys that sign task credentials, as the host of the engine keeps them for all nodes.

use std::sync::Arc;

use authz_kernel::task::{Record, RecordKey, RecordKind, RevocationTarget, SigningKey};
use authz_state::store::{Page, Query};
use serde_json::{Map, Value};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::host::{read_json, store_error, to_json};

/// Keys that are listed.
const MAX_KEYS: usize = 10_000;
/// Members of a signing key's record.
const KEY_MEMBERS: [&str; 6] = ["kid", "node", "jwk", "published_at", "active_from", "expires_at"];
/// Members of a JWK that only its owner may have (RFC 7518 §6).
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

impl Engine {
    /// Lists the signing keys of all nodes, as JSON.
    ///
    /// # Errors
    /// The store failed.
    pub fn signing_keys(&self) -> Result<String, EngineError> {
        let page = Page { after: String::new(), most: MAX_KEYS };
        let query = Query::Kind(RecordKind::SigningKey);
        let records = self.keeper.find(&query, &page, self.host_wait()).map_err(store_error)?;
        let keys = records.iter().filter_map(|record| match record {
            Record::SigningKey(key) => Some(key.as_ref()),
            _ => None,
        });
        to_json(&keys.collect::<Vec<&SigningKey>>())
    }

    /// Writes a signing key, given as JSON.
    ///
    /// # Errors
    /// The JSON is not a signing key, the store failed, or it has too many keys.
    pub fn put_signing_key(&self, record: &[u8]) -> Result<(), EngineError> {
        let key = public_key(read_json("signing key", record)?)?;
        let lock = [RecordKey::new(RecordKind::SigningKey, &key.kid)];
        let record = Record::SigningKey(Arc::new(key));
        self.write_for_host(&lock, &mut |transaction| {
            transaction.put(record.clone());
            Ok(true)
        })
    }

    /// Removes a signing key. An unknown key is not an error.
    ///
    /// # Errors
    /// The store failed.
    pub fn remove_signing_key(&self, kid: &str) -> Result<(), EngineError> {
        let lock = [RecordKey::new(RecordKind::SigningKey, kid)];
        self.write_for_host(&lock, &mut |transaction| {
            transaction.delete(RecordKey::new(RecordKind::SigningKey, kid));
            Ok(true)
        })
    }

    /// Whether a signing key is revoked, as far as this node knows now. Never waits.
    #[must_use]
    pub fn is_key_revoked(&self, kid: &str) -> bool {
        self.keeper.store().revocations().find(RevocationTarget::Key, kid).is_some()
    }
}

/// Reads a signing key of which only the public half may be given.
fn public_key(members: Map<String, Value>) -> Result<SigningKey, EngineError> {
    let refuse = |what: &str| Err(EngineError::Invalid(format!("signing key: {what}")));
    if let Some(name) = members.keys().find(|name| !KEY_MEMBERS.contains(&name.as_str())) {
        return refuse(&format!("`{name}` is none of its members"));
    }
    let key: SigningKey =
        serde_json::from_value(Value::Object(members)).map_err(EngineError::json("signing key"))?;
    let jwk: Map<String, Value> = read_json("signing key: `jwk`", key.jwk.as_bytes())?;
    if PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name)) {
        return refuse("`jwk` holds the private half, which is the node's alone");
    }
    Ok(key)
}
