//! Leases of secrets, as the broker of the engine's host gives and ends them.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Lease, LeaseState, Record, RecordKey, RecordKind, Revocations};
use authz_state::store::{Page, Query, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::host::{read_json, store_error, to_json};
use crate::keeper::{Wait, check_set};
use crate::locate::{self, Located};
use crate::permits;
use crate::refusal::CallRefusal;
use crate::revoke;

/// Leases that are read at once.
const PAGE: usize = 1_000;
/// Most leases of one list.
const MAX_LEASES: usize = 10_000;

/// Filter of a list of leases. Default: all leases.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LeaseFilter {
    broker: Option<String>,
    session: Option<String>,
}

/// A lease in a list.
#[derive(Serialize)]
struct ListedLease<'a> {
    #[serde(flatten)]
    lease: &'a Lease,
    /// The lease has time left, its task and all tasks above it are live, and nothing of it is revoked.
    live: bool,
}

/// A lease as JSON, with the state that it is to have: one of its states, or `ended`.
#[derive(Deserialize)]
struct GivenLease {
    state: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// State that a lease must still have.
#[derive(Debug, Deserialize)]
struct ExpectedLease {
    state: LeaseState,
    #[serde(default)]
    attempts: u32,
}

/// Change of a lease.
struct LeaseChange {
    lease: Lease,
    /// The lease is removed.
    ends: bool,
    expected: ExpectedLease,
}

impl LeaseChange {
    fn read(record: &[u8], before: &[u8]) -> Result<Self, EngineError> {
        let GivenLease { state, mut rest } = read_json("lease", record)?;
        rest.remove("live");
        let expected = read_json("lease as it was", before)?;
        let ends = state == "ended";
        let state = if ends { "ending".to_owned() } else { state };
        rest.insert("state".to_owned(), Value::String(state));
        let lease =
            serde_json::from_value(Value::Object(rest)).map_err(EngineError::json("lease"))?;
        Ok(Self { lease, ends, expected })
    }

    /// Whether the change is of this record, in the state that the change expects.
    fn is_of(&self, known: &Lease) -> bool {
        known.state == self.expected.state
            && known.attempts == self.expected.attempts
            && known.session == self.lease.session
            && known.task == self.lease.task
    }
}

impl Engine {
    /// Lists leases as JSON, at most 10,000, each with `live`.
    ///
    /// `filter` is a JSON object with `broker`, `session`, or neither.
    ///
    /// # Errors
    /// The filter is not valid, or the store failed.
    pub fn leases(&self, filter: &[u8]) -> Result<String, EngineError> {
        let filter = read_json("filter of leases", filter)?;
        let (wait, now) = (self.host_wait(), Time(self.clock.now_ms()));
        let revoked = self.keeper.revocations().map_err(store_error)?;
        let leases = self.find_leases(&filter, wait).map_err(store_error)?;
        let listed = leases.iter().map(|lease| {
            let live = self.is_live(lease, &revoked, now, wait)?;
            Ok(ListedLease { lease, live })
        });
        to_json(&listed.collect::<Result<Vec<_>, CallRefusal>>().map_err(store_error)?)
    }

    fn find_leases(
        &self,
        LeaseFilter { broker, session }: &LeaseFilter,
        wait: Wait,
    ) -> Result<Vec<Arc<Lease>>, CallRefusal> {
        let query = match session {
            Some(session) => Query::Prefix(RecordKind::Lease, format!("{session}/")),
            None => Query::Kind(RecordKind::Lease),
        };
        let is_of_broker =
            |lease: &Lease| broker.as_ref().is_none_or(|broker| *broker == lease.broker);
        let mut leases: Vec<Arc<Lease>> = Vec::new();
        let mut after = String::new();
        while leases.len() < MAX_LEASES {
            let records = self.keeper.find(&query, &Page { after, most: PAGE }, wait)?;
            let is_last = records.len() < PAGE;
            after = records.last().map_or_else(String::new, |record| record.key().id.to_string());
            leases.extend(records.into_iter().filter_map(|record| match record {
                Record::Lease(lease) if is_of_broker(&lease) => Some(lease),
                _ => None,
            }));
            if is_last {
                break;
            }
        }
        leases.truncate(MAX_LEASES);
        Ok(leases)
    }

    fn is_live(
        &self,
        lease: &Lease,
        revoked: &Revocations,
        now: Time,
        wait: Wait,
    ) -> Result<bool, CallRefusal> {
        if lease.expires_at <= now {
            return Ok(false);
        }
        let located = locate::find(&self.keeper, &lease.task, wait);
        is_live_in(located, lease, revoked, now)
    }

    /// Changes a lease, given as JSON, if it still has the expected state. A lease with the `state` `ended` is removed.
    ///
    /// `before` is a JSON object with the `state` and the `attempts` that the lease must still have.
    ///
    /// Returns whether the lease was changed. A lease becomes `live` only while its task is live. Where it ends before it was
    /// ever live, nobody got its secret, so the uses that its permit counted are given back.
    ///
    /// # Errors
    /// One of the two documents cannot be read, or the store failed.
    pub fn put_lease(&self, record: &[u8], before: &[u8]) -> Result<bool, EngineError> {
        let change = LeaseChange::read(record, before)?;
        let lock = [RecordKey::new(RecordKind::Session, &change.lease.session)];
        let mut changed = Ok(false);
        self.write_for_host(&lock, &mut |transaction| {
            let now = Time(self.clock.now_ms());
            // Read once the lock is held, so that a view that grew old in the wait makes no lease live.
            let is_live = change.lease.state == LeaseState::Live;
            let is_set = if is_live { check_set(now.0) } else { Ok(()) };
            changed = match is_set.and_then(|()| self.keeper.revocations()) {
                Ok(revoked) => change_lease(transaction, &change, &revoked, now)?,
                Err(refused) => Err(refused),
            };
            Ok(matches!(changed, Ok(true)))
        })?;
        changed.map_err(store_error)
    }
}

/// Changes a lease in a transaction. Returns whether it was changed.
fn change_lease(
    transaction: &mut dyn Transaction,
    change: &LeaseChange,
    revoked: &Revocations,
    now: Time,
) -> Result<Result<bool, CallRefusal>, StoreError> {
    let key = RecordKey::new(RecordKind::Lease, &change.lease.id);
    let Some(Record::Lease(known)) = transaction.get(&key)? else { return Ok(Ok(false)) };
    if !change.is_of(&known) {
        return Ok(Ok(false));
    }
    if change.lease.state == LeaseState::Live {
        let located = locate::find_in(transaction, &known.task);
        match is_live_in(located, &known, revoked, now) {
            Ok(is_live) if is_live && known.expires_at > now => {}
            Ok(_) => return Ok(Ok(false)),
            Err(refused) => return Ok(Err(refused)),
        }
    } else if known.state == LeaseState::Wanted {
        let permit = RecordKey::new(RecordKind::Reservation, &known.decision_id);
        if let Some(Record::Reservation(permit)) = transaction.get(&permit)?
            && permit.credential.as_deref() == Some(known.id.as_str())
        {
            permits::release(transaction, &permit, now)?;
        }
    }
    match change.ends {
        true => transaction.delete(key),
        false => transaction.put(Record::Lease(Arc::new(change.lease.clone()))),
    }
    Ok(Ok(true))
}

/// Whether the task of a lease is live, and nothing of the lease is revoked.
///
/// # Errors
/// The store failed. Then the secret of a live task is not taken away.
fn is_live_in(
    located: Result<Located, CallRefusal>,
    lease: &Lease,
    revoked: &Revocations,
    now: Time,
) -> Result<bool, CallRefusal> {
    match located {
        Ok(located) => Ok(locate::live(&located, revoked, now).is_ok()
            && revoke::of_operation(revoked, &lease.operation).is_ok()),
        Err(refused)
            if matches!(refused.reason, ReasonCode::UnknownTask | ReasonCode::TaskEnded) =>
        {
            Ok(false)
        }
        Err(refused) => Err(refused),
    }
}
