//! Passkeys of people, as the host of the engine keeps them for all nodes.

use std::sync::Arc;

use authz_kernel::digest::short;
use authz_kernel::task::approval::Passkey;
use authz_kernel::task::{Record, RecordKey, RecordKind};
use authz_state::store::{Page, Query};
use serde_json::{Map, Value};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::host::{read_json, store_error, to_json};

/// Maximum number of passkeys of one person.
const MAX_PASSKEYS: usize = 32;
/// Largest size of the id of a credential in base64url, in bytes: 1,023 bytes before encoding.
const MAX_ID: usize = 1_364;
/// Largest size of the record with further members of the host, in bytes.
const MAX_RECORD: usize = 16_384;

/// Returns the key of the record of a passkey.
pub(super) fn passkey_key(issuer: &str, sub: &str, credential_id: &str) -> RecordKey {
    // The id of a credential may be longer than the id of a record.
    let id = format!("{}{}", prefix(issuer, sub), short(credential_id));
    RecordKey::new(RecordKind::Passkey, id)
}

fn prefix(issuer: &str, sub: &str) -> String {
    format!("{}/", short(&format!("{issuer}\n{sub}")))
}

impl Engine {
    /// Lists the passkeys of a person, as JSON.
    ///
    /// # Errors
    /// The store failed.
    pub fn passkeys(&self, issuer: &str, sub: &str) -> Result<String, EngineError> {
        let query = Query::Prefix(RecordKind::Passkey, prefix(issuer, sub));
        let page = Page { after: String::new(), most: MAX_PASSKEYS };
        let records = self.keeper.find(&query, &page, self.host_wait()).map_err(store_error)?;
        let passkeys: Vec<&Passkey> = records
            .iter()
            .filter_map(|record| match record {
                Record::Passkey(passkey) => Some(passkey.as_ref()),
                _ => None,
            })
            .collect();
        to_json(&passkeys)
    }

    /// Writes a passkey, given as JSON. An existing passkey is replaced, for example to store its counter and last use.
    ///
    /// # Errors
    /// The JSON is not a passkey, the person has 32 others, or the store failed.
    pub fn put_passkey(&self, record: &[u8]) -> Result<(), EngineError> {
        let refuse = |what: String| Err(EngineError::Invalid(format!("passkey: {what}")));
        if record.len() > MAX_RECORD {
            return refuse(format!("it is longer than {MAX_RECORD} bytes"));
        }
        let members: Map<String, Value> = read_json("passkey", record)?;
        let mut passkey: Passkey =
            serde_json::from_value(Value::Object(members)).map_err(EngineError::json("passkey"))?;
        for (name, text) in [
            ("issuer", &passkey.issuer),
            ("sub", &passkey.sub),
            ("credential_id", &passkey.credential_id),
            ("public_key", &passkey.public_key),
        ] {
            if text.is_empty() {
                return refuse(format!("`{name}` is empty"));
            }
        }
        if passkey.credential_id.len() > MAX_ID {
            return refuse(format!("`credential_id` is longer than {MAX_ID} bytes"));
        }
        let key = passkey_key(&passkey.issuer, &passkey.sub, &passkey.credential_id);
        passkey.id = key.id.to_string();
        let query = Query::Prefix(RecordKind::Passkey, prefix(&passkey.issuer, &passkey.sub));
        let page = Page { after: String::new(), most: MAX_PASSKEYS.saturating_add(1) };
        let mut is_full = false;
        let record = Record::Passkey(Arc::new(passkey));
        self.write_for_host(std::slice::from_ref(&key), &mut |transaction| {
            let known = transaction.find(&query, &page)?;
            let others = known.iter().filter(|one| one.key() != key).count();
            is_full = others >= MAX_PASSKEYS;
            if !is_full {
                transaction.put(record.clone());
            }
            Ok(!is_full)
        })?;
        if is_full {
            return refuse(format!("the person has {MAX_PASSKEYS} others; remove one"));
        }
        Ok(())
    }

    /// Removes a passkey of a person. Does nothing if it does not exist.
    ///
    /// # Errors
    /// The store failed.
    pub fn remove_passkey(
        &self,
        issuer: &str,
        sub: &str,
        credential_id: &str,
    ) -> Result<(), EngineError> {
        let key = passkey_key(issuer, sub, credential_id);
        self.write_for_host(std::slice::from_ref(&key), &mut |transaction| {
            transaction.delete(key.clone());
            Ok(true)
        })
    }
}
