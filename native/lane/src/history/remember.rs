//! Adds what an answer changes to the records of the session, of the chain and of the object.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{
    HistoryChanges, Holder, Object, ObjectWrite, Remembering, Reported, SessionHistory, pair_keys,
};
use authz_kernel::plan::Plan;
use authz_kernel::task::{
    Bar, Party, Record, RecordKey, RecordName, Reservation, Session, Task, alone_pair,
};
use authz_state::store::{StoreError, Transaction};

use super::denials::DENIED_MS;
use super::records::{known_party, lost, record_of, session};
use crate::judgement::Judgement;
use crate::keeper::ChangeError;
use crate::locate::Located;

/// Changes that an agent above a task remembers of a call in it.
pub(crate) struct Above {
    pub(crate) key: RecordKey,
    holder: Holder,
    remembering: Remembering,
    changes: HistoryChanges,
}

/// Changes that each agent above a task remembers of a call: its results reach those agents.
pub(crate) fn above(
    plan: &Plan,
    located: &Located,
    changes: &HistoryChanges,
    now: Time,
) -> Vec<Above> {
    let all = located.ancestors.iter().filter_map(|task| {
        let remembering = plan.roles().remembering(task);
        let holder = remembering.holder?;
        let changes = changes.above(remembering, now)?;
        Some(Above { key: holder.key(&task.chain())?, holder, remembering, changes })
    });
    all.collect()
}

/// The records that remember the labels of a call: those of the agent that makes it, and of every agent above it.
pub(crate) fn memories_of(
    judgement: &Judgement,
    plan: &Plan,
    located: &Located,
    now: Time,
) -> Vec<RecordName> {
    let Some(changes) = changes(judgement) else { return Vec::new() };
    let above = above(plan, located, changes, now).into_iter().map(|one| one.key.into());
    judgement.context.recalled.memory_of(changes).into_iter().chain(above).collect()
}

/// Stores what the agent's next task for the subject inherits. The records of the pairs are locked.
fn keep_for_next(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    changes: &HistoryChanges,
    task: &Task,
    remembering: Remembering,
    now: Time,
) -> Result<(), ChangeError> {
    let pairs = pair_keys(&task.chain());
    let alone = alone_pair(plan, task);
    for (index, key) in pairs.iter().chain(&alone).enumerate() {
        // An agent without its subject also begins with the history that its tasks for a subject left.
        let is_acting = index.saturating_add(1) >= pairs.len();
        if !is_acting && !changes.passes_rules_on() {
            continue;
        }
        let mut pair = Party::clone(&*known_party(transaction.get(key)?, key, now));
        pair.history.keep_for_next(changes, is_acting, now);
        let mut until = remembering.kept_until(now);
        if is_acting && changes.bars_agent() {
            pair.set_bar(Bar::new(now));
            until = Time(now.0.saturating_add(DENIED_MS)).max(until);
        }
        pair.expires_at = until.max(pair.expires_at);
        transaction.put(Record::Pair(Arc::new(pair)));
    }
    Ok(())
}

/// Adds labels to the object that a call writes, and to its collection.
fn write(
    transaction: &mut dyn Transaction,
    judgement: &Judgement,
    written: &ObjectWrite,
    now: Time,
) -> Result<(), ChangeError> {
    let found = judgement.context.recalled.object.as_ref().ok_or_else(lost)?;
    let mut object = found.object.as_deref().cloned();
    let mut collection = Object::clone(&found.collection);
    let by = (judgement.arrival.id.as_str(), judgement.resolved.operation.as_str(), now);
    written.apply(object.as_mut(), &mut collection, by);
    for one in object.filter(|_| !written.is_any).into_iter().chain([collection]) {
        transaction.put(Record::Object(Arc::new(one)));
    }
    Ok(())
}

/// Adds what an answer changes to the session, and to the records of the principals in its chain and of the object.
///
/// If `wants_credential`, the permit itself performs nothing, so its result is open until a report. `redeemed` is the decision whose
/// permit this call performs.
pub(crate) fn remember(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    judgement: &Judgement,
    located: &Located,
    wants_credential: bool,
    redeemed: Option<&str>,
) -> Result<(), ChangeError> {
    let reported = changes(judgement)
        .filter(|changes| wants_credential && !changes.is_reported)
        .map(|changes| HistoryChanges { is_reported: true, ..changes.clone() });
    let changes = reported.as_ref().or_else(|| changes(judgement));
    let context = judgement.context.recalled.context.as_ref();
    let apart =
        changes.zip(context).map(|(changes, context)| changes.within(plan.bundle(), context));
    let changes = apart.as_ref().or(changes);
    let (id, operation) = (&judgement.arrival.id, &judgement.resolved.operation);
    let now = judgement.arrival.now();
    // The changes are remembered at the time that the call was judged at.
    let now = judgement.context.recalled.view().map_or(now, |view| view.now(now));
    let of_session = changes.filter(|changes| changes.concern(Holder::Session));
    // A permit is open only in a history that was recalled.
    let recalled = judgement.context.recalled.history();
    let is_open = |id: &str| recalled.is_some_and(|history| history.pending.contains_key(id));
    let redeemed = redeemed.filter(|id| is_open(id));
    if of_session.is_some() || redeemed.is_some() {
        let session = session(transaction, &located.task.session)?.ok_or_else(lost)?;
        let mut session = Session::clone(&session);
        let history = &mut session.history;
        if let Some(changes) = of_session {
            history.apply(changes, id, operation, now);
        }
        if let Some(before) = redeemed {
            history.hand_over(before, id);
            if !judgement.is_reported() {
                history.settle(id, &Reported::UNREPORTED, now);
            }
        }
        transaction.put(Record::Session(Arc::new(session)));
    }
    let nothing = HistoryChanges::NONE;
    let changes = changes.unwrap_or(&nothing);
    if let Some(written) = &changes.written {
        write(transaction, judgement, written, now)?;
    }
    for holder in Holder::PARTIES {
        let party = judgement.context.recalled.party(holder);
        let is_handed = |party: &Arc<Party>| {
            redeemed.is_some_and(|before| party.history.pending.contains_key(before))
        };
        if !changes.concern(holder) && !party.is_some_and(is_handed) {
            continue;
        }
        let mut party = Party::clone(party.ok_or_else(lost)?);
        party.history.apply_as(holder, changes, id, operation, now);
        if let Some(before) = redeemed {
            party.history.hand_over(before, id);
        }
        party.expires_at =
            judgement.context.recalled.remembering.kept_until(now).max(party.expires_at);
        transaction.put(record_of(holder, party));
    }
    for Above { key, holder, remembering, changes } in above(plan, located, changes, now) {
        let mut party = Party::clone(&*known_party(transaction.get(&key)?, &key, now));
        party.history.apply_as(holder, &changes, id, operation, now);
        party.expires_at = remembering.kept_until(now).max(party.expires_at);
        transaction.put(record_of(holder, party));
    }
    if changes.pass_on() {
        let remembering = judgement.context.recalled.remembering;
        keep_for_next(transaction, plan, changes, &located.task, remembering, now)?;
    }
    Ok(())
}

/// Takes over a report in the records that remember the labels of a permit. `session` is the history of the session after the
/// report.
pub(crate) fn settle_remembered(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
    reported: &Reported<'_>,
    session: &SessionHistory,
    remembering: Remembering,
) -> Result<(), StoreError> {
    for name in &permit.remembered_in {
        settle_in(transaction, name, permit, reported, session, remembering)?;
    }
    Ok(())
}

fn settle_in(
    transaction: &mut dyn Transaction,
    name: &RecordName,
    permit: &Reservation,
    reported: &Reported<'_>,
    session: &SessionHistory,
    remembering: Remembering,
) -> Result<(), StoreError> {
    let (holder, party) = match transaction.get(&name.key())? {
        Some(Record::Agent(party)) => (Holder::Agent, party),
        Some(Record::Subject(party)) => (Holder::Subject, party),
        Some(Record::Pair(party)) => (Holder::Pair, party),
        // An administrator has deleted the record.
        _ => return Ok(()),
    };
    let mut party = Party::clone(&party);
    let at = (permit.permitted_at, remembering);
    if party.history.settle_remembered(&permit.decision_id, reported, session, at) {
        party.expires_at = remembering.kept_until(permit.permitted_at).max(party.expires_at);
        transaction.put(record_of(holder, party));
    }
    Ok(())
}

/// Changes of the history by the answer. `None`: it changes nothing.
pub(crate) fn changes(judgement: &Judgement) -> Option<&HistoryChanges> {
    let decision = judgement.decision()?;
    let changes = decision.changes(judgement.softened().is_some());
    (!changes.is_empty()).then_some(changes)
}

/// True if the task ends with the answer, because too much was denied in it.
pub(crate) fn ends_task(judgement: &Judgement) -> bool {
    changes(judgement).is_some_and(HistoryChanges::ends_task)
}
