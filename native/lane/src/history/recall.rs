//! Recalls the history of a call: as this node knows it, and again inside a transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Principal, Request, Time};
use authz_kernel::history::{
    HistoryChanges, Holder, LabelOrigin, Object, Remembering, SessionContext, SessionHistory,
};
use authz_kernel::plan::Plan;
use authz_kernel::task::{Record, RecordKey, RecordKind, Session, TaskKind, is_alone};
use authz_state::store::{StoreError, Transaction};

use super::alone::{take_carried_over, with_carried_over};
use super::begin::{begun, with_carried};
use super::denials::not_barred;
use super::records::{key, known_party, lost, pair_of, session, written};
use super::shared::{merge_labels, shared_labels, told_of};
use super::taskless::taskless;
use crate::keeper::ChangeError;
use crate::keeper::{Keeper, Wait};
use crate::locate::Located;
use crate::origin_records::OriginRecords;
use crate::recalled::{Recalled, RecalledObject};
use crate::refusal::CallRefusal;

/// Records besides the session's that a call concerns. `operation` is its id, and `carries` is true if the call carries labels.
pub(crate) fn parties(
    plan: &Plan,
    operation: &str,
    carries: bool,
    remembering: Remembering,
    chain: impl FnOnce() -> Vec<Principal>,
) -> Vec<(Holder, RecordKey)> {
    let concerned = Holder::PARTIES.map(|holder| {
        (carries && remembering.holder == Some(holder))
            || plan.recalls_of(operation, holder, remembering)
    });
    keys_of(concerned, chain)
}

/// Records besides the session's that a call changes: the call is decided under their locks. `changes` are those of the decision
/// that was made without the locks.
pub(crate) fn changed_parties(
    plan: &Plan,
    operation: &str,
    changes: Option<&HistoryChanges>,
    chain: impl FnOnce() -> Vec<Principal>,
) -> Vec<(Holder, RecordKey)> {
    let concerned = Holder::PARTIES.map(|holder| {
        plan.counts_in(operation, holder) || changes.is_some_and(|changes| changes.concern(holder))
    });
    keys_of(concerned, chain)
}

fn keys_of(
    concerned: [bool; Holder::PARTIES.len()],
    chain: impl FnOnce() -> Vec<Principal>,
) -> Vec<(Holder, RecordKey)> {
    if !concerned.contains(&true) {
        return Vec::new();
    }
    let chain = chain();
    let all = Holder::PARTIES.into_iter().zip(concerned).filter(|(_, concerned)| *concerned);
    all.filter_map(|(holder, _)| Some((holder, holder.key(&chain)?))).collect()
}

/// Records of the object that a request acts on. `None`: they make no difference. `read` gives records.
pub(super) fn found<E>(
    plan: &Plan,
    request: &Request<'_>,
    now: Time,
    mut read: impl FnMut(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<Option<RecalledObject>, E> {
    let Some(keys) = plan.objects_of(request) else { return Ok(None) };
    let mut one = |key: &RecordKey| read(key).map(|record| written(record, key, now));
    let collection = one(&keys.collection)?;
    let object = keys.object.as_ref().map(&mut one).transpose()?;
    let older = keys.older.iter().map(one).collect::<Result<_, E>>()?;
    Ok(Some(RecalledObject { object, older, collection }))
}

/// Labels of sessions that the agent of a task shares with others, and labels that the givers of the task and of tasks above it
/// remembered. The sessions are not locked: nobody has told the agent yet what is read in one of them meanwhile.
pub(super) fn shared<E>(
    plan: &Plan,
    recalled: &Recalled,
    located: &Located,
    now: Time,
    read: impl FnMut(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<Option<Arc<BTreeMap<String, LabelOrigin>>>, E> {
    let Some(agent) = &recalled.agent else { return Ok(None) };
    let task = &located.task;
    let memory = plan.roles().memory_of(task.assignee());
    let mut labels = shared_labels(agent, &task.chain(), &task.session, memory, now, read)?;
    for task in located.path() {
        merge_labels(&mut labels, told_of(task));
    }
    Ok(Some(Arc::new(labels)))
}

/// Session of a call, besides its task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionUse<'a> {
    /// The session begins with the decision.
    pub(crate) begins: bool,
    /// Context that a front end names. Empty: no context.
    pub(crate) context: &'a str,
}

/// Recalls the history of a request, as this node knows it, if the request depends on it.
pub(crate) fn recall(
    keeper: &Keeper,
    plan: &Plan,
    request: &Request<'_>,
    located: &Located,
    use_of_session: SessionUse<'_>,
    now: Time,
    wait: Wait,
) -> Result<Recalled, CallRefusal> {
    let SessionUse { begins, context } = use_of_session;
    let has_contexts = located.is_taskless() || located.task.kind == TaskKind::Implicit;
    let context = Some(context).filter(|name| has_contexts && !name.is_empty());
    let context = context.map(|name| SessionContext::new(&located.task.session, name));
    let mut recalled = Recalled { context, ..Recalled::default() };
    let (operation, carries) = (request.operation, !request.labels.is_empty());
    if plan.reads_origins(operation) {
        let read = |key: &RecordKey| keeper.peek(key, wait);
        recalled.origins = Some(OriginRecords::of_task(located.view(), read)?);
    }
    if !carries && !plan.recalls(operation) {
        return Ok(recalled);
    }
    recalled.remembering = plan.roles().remembering(&located.task);
    for (holder, key) in
        parties(plan, operation, carries, recalled.remembering, || located.task.chain())
    {
        recalled.set(holder, known_party(keeper.peek(&key, wait)?, &key, now));
    }
    let counts_denials = plan.model().denials.is_some();
    if counts_denials {
        not_barred(recalled.pair.as_deref(), located.view())?;
    }
    recalled.object = found(plan, request, now, |key| keeper.peek(key, wait))?;
    if plan.remembers(operation) {
        let read = |key: &RecordKey| keeper.peek(key, wait);
        recalled.shared = shared(plan, &recalled, located, now, read)?;
    }
    if begins {
        let pair = pair_of(&located.task, now, |key| keeper.peek(key, wait))?;
        let known = match is_alone(plan, &located.task) {
            true => keeper.peek(&key(&located.task.session), wait)?,
            false => None,
        };
        let retention_ms = keeper.settings().retention_ms;
        let begun = begun(&located.task, pair.as_deref(), now, retention_ms);
        return Ok(recalled.beginning(with_carried(plan, begun, known, &located.task, now)));
    }
    let session = match keeper.peek(&key(&located.task.session), wait)? {
        Some(Record::Session(session)) => Some(session),
        _ => None,
    };
    let session = match located.is_taskless() {
        true => taskless(session, &located.task, now)?,
        false => {
            let read = |key: &RecordKey| keeper.peek(key, wait);
            with_carried_over(plan, located, session.ok_or_else(lost)?, now, read)?
        }
    };
    recalled.set_session(Some(session));
    recalled.recall_values(|key| keeper.peek(key, wait))?;
    if counts_denials {
        recalled.count_denials(located.view());
    }
    Ok(recalled)
}

/// Recalls the history of a request inside a transaction, if the operation depends on it.
pub(crate) fn current(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    request: &Request<'_>,
    located: &Located,
    now: Time,
) -> Result<Recalled, ChangeError> {
    let mut recalled = Recalled::default();
    let operation = request.operation;
    if plan.reads_origins(operation) {
        recalled.origins =
            Some(OriginRecords::of_task(located.view(), |key| transaction.get(key))?);
    }
    if !plan.recalls(operation) {
        return Ok(recalled);
    }
    recalled.remembering = plan.roles().remembering(&located.task);
    for (holder, key) in
        parties(plan, operation, false, recalled.remembering, || located.task.chain())
    {
        recalled.set(holder, known_party(transaction.get(&key)?, &key, now));
    }
    if plan.model().denials.is_some() {
        not_barred(recalled.pair.as_deref(), located.view())?;
    }
    recalled.object = found(plan, request, now, |key| transaction.get(key))?;
    if plan.remembers(operation) {
        let read = |key: &RecordKey| transaction.get(key);
        recalled.shared = shared(plan, &recalled, located, now, read)?;
    }
    let session = session(transaction, &located.task.session)?.ok_or_else(lost)?;
    let session = take_carried_over(transaction, plan, located, session, now)?;
    recalled.session = Some(session);
    recalled.recall_values(|key| transaction.get(key))?;
    Ok(recalled)
}

/// Recalls again, inside a transaction, what a decision was made on (`before`). The result is true if it has changed.
///
/// `begins` is the session as it begins with the decision. What the same pair did in a forgotten session does not count.
pub(crate) fn recall_in(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    before: &Recalled,
    now: Time,
    located: &Located,
    begins: Option<Arc<Session>>,
) -> Result<(Recalled, bool), ChangeError> {
    let mut recalled = before.clone();
    if before.origins.is_some() {
        recalled.origins =
            Some(OriginRecords::of_task(located.view(), |key| transaction.get(key))?);
    }
    if before.session.is_none() {
        let has_changed = recalled.origins != before.origins;
        return Ok((recalled, has_changed));
    }
    let counts_denials = plan.model().denials.is_some();
    let (session, mut has_changed) = session_in(transaction, plan, before, now, located, begins)?;
    recalled.set_session(session);
    recalled.recall_values(|key| transaction.get(key))?;
    has_changed |= recalled.origins != before.origins;
    if let Some(known) = &before.object {
        let object = written_again(transaction, known, now)?;
        has_changed |= object != *known;
        recalled.object = Some(object);
    }
    let known_of = |holder: &Holder| before.party(*holder).is_some();
    let parties: Vec<Holder> = Holder::PARTIES.into_iter().filter(known_of).collect();
    if parties.is_empty() {
        return Ok((recalled, has_changed));
    }
    let chain = located.task.chain();
    for holder in parties {
        let Some(known) = before.party(holder) else { continue };
        let Some(key) = holder.key(&chain) else { continue };
        let party = known_party(transaction.get(&key)?, &key, now);
        has_changed |= !Arc::ptr_eq(&party, known) && party.history != known.history;
        if holder == Holder::Pair && counts_denials {
            not_barred(Some(&party), located.view())?;
        }
        recalled.set(holder, party);
    }
    if counts_denials {
        recalled.count_denials(located.view());
    }
    Ok((recalled, has_changed))
}

/// Session of a call inside a transaction. The result is true if its history has changed since the decision.
fn session_in(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    before: &Recalled,
    now: Time,
    located: &Located,
    begins: Option<Arc<Session>>,
) -> Result<(Option<Arc<Session>>, bool), ChangeError> {
    let Some(known) = &before.session else { return Ok((None, false)) };
    let mut current = match begins {
        Some(session) => Some(session),
        None => session(transaction, &located.task.session)?,
    };
    if located.is_taskless() {
        current = Some(taskless(current, &located.task, now)?);
    } else if let Some(session) = current {
        current = Some(take_carried_over(transaction, plan, located, session, now)?);
    }
    match current {
        Some(session) => {
            let is_same = Arc::ptr_eq(known, &session) || session.history == known.history;
            Ok((Some(session), !is_same))
        }
        // The session begins with this decision.
        None if before.begins => {
            let pair = pair_of(&located.task, now, |key| transaction.get(key))?;
            let inherits = pair.as_deref().filter(|_| located.task.inherits());
            let history = inherits
                .map(|pair| SessionHistory::inherited(&pair.history, &located.task.id, now));
            match history.filter(|history| *history != known.history) {
                Some(history) => {
                    let session = Session { history, ..Session::clone(known) };
                    Ok((Some(Arc::new(session)), true))
                }
                None => Ok((Some(Arc::clone(known)), false)),
            }
        }
        None if known.history.is_empty() => Ok((Some(Arc::clone(known)), false)),
        None => Err(lost().into()),
    }
}

/// Records of the object inside a transaction.
fn written_again(
    transaction: &mut dyn Transaction,
    before: &RecalledObject,
    now: Time,
) -> Result<RecalledObject, StoreError> {
    let mut again = |object: &Object| {
        let key = RecordKey::new(RecordKind::Object, &object.id);
        transaction.get(&key).map(|record| written(record, &key, now))
    };
    let collection = again(&before.collection)?;
    let object = before.object.as_deref().map(&mut again).transpose()?;
    let older = before.older.iter().map(|one| again(one)).collect::<Result<_, StoreError>>()?;
    Ok(RecalledObject { object, older, collection })
}
