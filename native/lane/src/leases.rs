//! Records that whoever signs tokens and leases secrets looks after: read and written by name, on a side thread.

use std::sync::Arc;
use std::time::Duration;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Lease, LeaseState, Record, RecordKey, RecordKind, RevocationTarget, Revocations, SigningKey,
};
use authz_state::store::{Page, Query, Survives};
use serde::{Deserialize, Serialize};

use crate::ask::Refused;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::keeper::Wait;
use crate::locate::{self, Located};
use crate::permits;
use crate::revoke;
use crate::settings::Lane;

/// How long one call may wait for the store.
const PATIENCE: Duration = Duration::from_secs(5);
/// Leases that are read at once, and that one call gives.
const PAGE: usize = 1_000;
const MOST: usize = 10_000;

/// Members of a signing key's record.
const KEY_MEMBERS: [&str; 6] = ["kid", "node", "jwk", "published_at", "active_from", "expires_at"];
/// Members of a JWK that only its owner may have (RFC 7518 §6).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// Which leases are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    broker: Option<String>,
    session: Option<String>,
}

/// A lease, and what is known of its task now.
#[derive(Serialize)]
struct Known<'a> {
    #[serde(flatten)]
    lease: &'a Lease,
    /// Its task and all above it are live, nothing of it is revoked, and its time is not over.
    live: bool,
}

/// A lease as it shall be: in one of its states, or gone.
#[derive(Deserialize)]
struct After {
    state: String,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// What a lease must still be.
#[derive(Debug, Deserialize)]
struct Before {
    state: LeaseState,
    #[serde(default)]
    attempts: u32,
}

impl Engine {
    /// Lists the signing keys of all nodes, as JSON.
    ///
    /// # Errors
    /// The store failed.
    pub fn signing_keys(&self) -> Result<String, EngineError> {
        let page = Page { after: String::new(), most: MOST };
        let query = Query::Kind(RecordKind::SigningKey);
        let found = self.keeper.find(&query, &page, self.soon()).map_err(failed)?;
        let keys = found.iter().filter_map(|record| match record {
            Record::SigningKey(key) => Some(key.as_ref()),
            _ => None,
        });
        text(&keys.collect::<Vec<&SigningKey>>())
    }

    /// Writes a signing key, given as JSON.
    ///
    /// # Errors
    /// It is no signing key, or the store failed, or has too many.
    pub fn put_signing_key(&self, record: &[u8]) -> Result<(), EngineError> {
        let key = public(read("signing key", record)?)?;
        let lock = [RecordKey::new(RecordKind::SigningKey, &key.kid)];
        let record = Record::SigningKey(Arc::new(key));
        self.written(&lock, &mut |transaction| {
            transaction.put(record.clone());
            Ok(true)
        })
    }

    /// Removes a signing key; one that is unknown is none.
    ///
    /// # Errors
    /// The store failed.
    pub fn remove_signing_key(&self, kid: &str) -> Result<(), EngineError> {
        let lock = [RecordKey::new(RecordKind::SigningKey, kid)];
        self.written(&lock, &mut |transaction| {
            transaction.delete(RecordKey::new(RecordKind::SigningKey, kid));
            Ok(true)
        })
    }

    /// Whether a signing key is revoked, as this node knows it now. Never waits.
    #[must_use]
    pub fn is_key_revoked(&self, kid: &str) -> bool {
        self.keeper.store().revocations().find(RevocationTarget::Key, kid).is_some()
    }

    /// Lists leases as JSON, at most 10,000, each with `live`.
    ///
    /// Args:
    /// * `filter`: JSON object: `broker`, `session`, or neither.
    ///
    /// # Errors
    /// The filter is none, or the store failed.
    pub fn leases(&self, filter: &[u8]) -> Result<String, EngineError> {
        let Filter { broker, session } = read("filter of leases", filter)?;
        let query = match session {
            Some(session) => Query::Prefix(RecordKind::Lease, format!("{session}/")),
            None => Query::Kind(RecordKind::Lease),
        };
        let (wait, now) = (self.soon(), Time(self.clock.now_ms()));
        let revoked = self.keeper.revocations().map_err(failed)?;
        let mut all: Vec<Arc<Lease>> = Vec::new();
        let mut after = String::new();
        while all.len() < MOST {
            let page = Page { after, most: PAGE };
            let found = self.keeper.find(&query, &page, wait).map_err(failed)?;
            let is_last = found.len() < PAGE;
            after = found.last().map_or_else(String::new, |record| record.key().id.to_string());
            all.extend(found.into_iter().filter_map(|record| match record {
                Record::Lease(lease) if broker.as_ref().is_none_or(|one| *one == lease.broker) => {
                    Some(lease)
                }
                _ => None,
            }));
            if is_last {
                break;
            }
        }
        all.truncate(MOST);
        let known = all.iter().map(|lease| {
            let live = self.is_live(lease, &revoked, now, wait)?;
            Ok(Known { lease, live })
        });
        text(&known.collect::<Result<Vec<_>, Refused>>().map_err(failed)?)
    }

    fn is_live(
        &self,
        lease: &Lease,
        revoked: &Revocations,
        now: Time,
        wait: Wait,
    ) -> Result<bool, Refused> {
        if lease.expires_at <= now {
            return Ok(false);
        }
        Ok(match locate::find(&self.keeper, &lease.task, wait) {
            Ok(located) => lives(lease, &located, revoked, now),
            Err(refused) if is_gone(&refused) => false,
            // What cannot be told is no reason to take a secret of a live task away.
            Err(refused) => return Err(refused),
        })
    }

    /// Changes a lease, given as JSON, if it still is what it was; with `state` `ended` it is removed.
    ///
    /// Args:
    /// * `before`: JSON object with the `state` and the `attempts` that it must still have.
    ///
    /// Returns: whether it was changed. A lease becomes `live` only while its task is; where it ends without having been,
    /// nobody got its secret, and what its permit counted is given back.
    ///
    /// # Errors
    /// One of the two cannot be read, or the store failed.
    pub fn put_lease(&self, record: &[u8], before: &[u8]) -> Result<bool, EngineError> {
        let After { state, mut rest } = read("lease", record)?;
        rest.remove("live");
        let before: Before = read("lease as it was", before)?;
        let ends = state == "ended";
        let state = if ends { "ending".to_owned() } else { state };
        rest.insert("state".to_owned(), serde_json::Value::String(state));
        let lease: Lease = serde_json::from_value(serde_json::Value::Object(rest))
            .map_err(EngineError::json("lease"))?;
        let key = RecordKey::new(RecordKind::Lease, &lease.id);
        let lock = [RecordKey::new(RecordKind::Session, &lease.session)];
        let (mut done, mut unknown) = (false, None);
        self.written(&lock, &mut |transaction| {
            let now = Time(self.clock.now_ms());
            let Some(Record::Lease(known)) = transaction.get(&key)? else { return Ok(false) };
            let is_same = known.state == before.state
                && known.attempts == before.attempts
                && known.session == lease.session
                && known.task == lease.task;
            if !is_same {
                return Ok(false);
            }
            if lease.state == LeaseState::Live {
                let revoked = self.keeper.store().revocations();
                let is_live = match locate::find_in(transaction, &known.task) {
                    Ok(located) => lives(&known, &located, &revoked, now),
                    Err(refused) if is_gone(&refused) => false,
                    Err(refused) => {
                        unknown = Some(refused);
                        return Ok(false);
                    }
                };
                if known.expires_at <= now || !is_live {
                    return Ok(false);
                }
            } else if known.state == LeaseState::Wanted {
                let permit = RecordKey::new(RecordKind::Reservation, &known.decision_id);
                if let Some(Record::Reservation(permit)) = transaction.get(&permit)?
                    && permit.credential.as_deref() == Some(known.id.as_str())
                {
                    permits::release(transaction, &permit, now)?;
                }
            }
            if ends {
                transaction.delete(key.clone());
            } else {
                transaction.put(Record::Lease(Arc::new(lease.clone())));
            }
            done = true;
            Ok(true)
        })?;
        unknown.map_or(Ok(done), |refused| Err(failed(refused)))
    }

    pub(crate) fn written(
        &self,
        locks: &[RecordKey],
        work: &mut authz_state::store::Work<'_>,
    ) -> Result<(), EngineError> {
        let wait = self.soon();
        let commit =
            self.keeper.transact(locks, Survives::PowerLoss, wait, work).map_err(failed)?;
        self.keeper.kept(commit, wait).map_err(failed)
    }
}

fn lives(lease: &Lease, located: &Located, revoked: &Revocations, now: Time) -> bool {
    locate::live(located, revoked, now).is_ok()
        && revoke::of_operation(revoked, &lease.operation).is_ok()
}

/// The task is known no more.
fn is_gone(refused: &Refused) -> bool {
    matches!(refused.reason, ReasonCode::UnknownTask | ReasonCode::TaskEnded)
}

/// A key of which nothing but the public half is given.
fn public(given: serde_json::Map<String, serde_json::Value>) -> Result<SigningKey, EngineError> {
    let refuse = |what: &str| Err(EngineError::Invalid(format!("signing key: {what}")));
    if let Some(name) = given.keys().find(|name| !KEY_MEMBERS.contains(&name.as_str())) {
        return refuse(&format!("`{name}` is none of its members"));
    }
    let key: SigningKey = serde_json::from_value(serde_json::Value::Object(given))
        .map_err(EngineError::json("signing key"))?;
    let jwk: serde_json::Map<String, serde_json::Value> =
        read("signing key: `jwk`", key.jwk.as_bytes())?;
    if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
        return refuse("`jwk` holds the private half, which is the node's alone");
    }
    Ok(key)
}

impl Engine {
    /// How long the host of the engine waits for the store.
    pub(crate) fn soon(&self) -> Wait {
        let now = self.clock.monotonic();
        Wait { until: now.checked_add(PATIENCE).unwrap_or(now), lane: Lane::Python }
    }
}

pub(crate) fn failed(refused: Refused) -> EngineError {
    EngineError::Refused(refused.message)
}

pub(crate) fn read<'a, T: Deserialize<'a>>(what: &str, json: &'a [u8]) -> Result<T, EngineError> {
    serde_json::from_slice(json).map_err(EngineError::json(what))
}

pub(crate) fn text<T: Serialize>(value: &T) -> Result<String, EngineError> {
    serde_json::to_string(value).map_err(EngineError::Encode)
}
