//! What the session of a task did before, and who is in its chain: recalled for a decision, and added to by its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decision::{Principal, Request, Time};
use authz_kernel::history::{
    HistoryChanges, HistoryView, Holder, Origin, PARTY_MS, Reported, SessionHistory,
};
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Party, Record, RecordKey, RecordKind, Session, Task, TaskKind, TaskStatus,
};
use authz_state::store::{Page, Query, StoreError, Transaction};

use crate::ask::{Refused, Step};
use crate::ending::after;
use crate::engine::Stop;
use crate::judgement::Judgement;
use crate::keeper::{Keeper, Wait};
use crate::locate::Located;

/// Live tasks of one agent that are looked at for what it carries; one that has more must say that they are isolated.
const MOST_TASKS: usize = 256;

/// What a decision knows of the session that it is made in, and of who is in its chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recalled {
    session: Option<Arc<Session>>,
    agent: Option<Arc<Party>>,
    subject: Option<Arc<Party>>,
    others: Option<Arc<BTreeMap<String, Origin>>>,
}

impl Recalled {
    /// Of a session that begins with the decision.
    pub(crate) fn with(self, task: &Task, now: Time, retention_ms: u64) -> Self {
        Self { session: Some(Arc::new(begun(task, now, retention_ms))), ..self }
    }

    /// As the kernel reads it; none where it was not recalled.
    pub(crate) fn view(&self) -> Option<HistoryView<'_>> {
        self.history().map(|session| HistoryView {
            session,
            agent: self.agent.as_deref().map(|party| &party.history),
            subject: self.subject.as_deref().map(|party| &party.history),
            others: self.others.as_deref(),
        })
    }

    /// What the session did; none where it was not recalled.
    pub(crate) fn history(&self) -> Option<&SessionHistory> {
        self.session.as_deref().map(|session| &session.history)
    }

    /// The labels that the agent brings along from elsewhere.
    pub(crate) fn brought_along(&self, now: Time) -> impl Iterator<Item = (&String, &Origin)> {
        let view = self.view().filter(|view| view.others.is_some());
        view.into_iter().flat_map(move |view| view.brought_along(now))
    }

    fn party(&self, holder: Holder) -> Option<&Arc<Party>> {
        match holder {
            Holder::Session => None,
            Holder::Agent => self.agent.as_ref(),
            Holder::Subject => self.subject.as_ref(),
        }
    }

    fn set(&mut self, holder: Holder, party: Arc<Party>) {
        match holder {
            Holder::Session => {}
            Holder::Agent => self.agent = Some(party),
            Holder::Subject => self.subject = Some(party),
        }
    }
}

/// The records besides the session's that an operation has to do with: whoever decides about it locks them, too.
///
/// Args: `carries`: labels are told of the call.
pub(crate) fn parties(
    plan: &Plan,
    (operation, carries): (&str, bool),
    kind: TaskKind,
    chain: impl FnOnce() -> Vec<Principal>,
) -> Vec<(Holder, RecordKey)> {
    let concerned = Holder::PARTIES.map(|holder| {
        (carries && plan.keeps_labels(holder, kind)) || plan.recalls_of(operation, holder, kind)
    });
    if concerned == [false, false] {
        return Vec::new();
    }
    let chain = chain();
    let all = Holder::PARTIES.into_iter().zip(concerned).filter(|(_, concerned)| *concerned);
    all.filter_map(|(holder, _)| Some((holder, holder.key(&chain)?))).collect()
}

/// The live tasks of the agent of a task.
fn live_of(task: &Task) -> (Query, Page) {
    let page = Page { after: String::new(), most: MOST_TASKS.saturating_add(1) };
    (Query::LiveOf(task.assignee().to_owned()), page)
}

/// The other sessions that those tasks are of. They are not locked: what is permitted in one of them meanwhile, the agent
/// has not got yet.
fn other_sessions(tasks: &[Record], own: &Task, now: Time) -> Result<BTreeSet<String>, Refused> {
    if tasks.len() > MOST_TASKS {
        return Err(Refused::new(
            ReasonCode::WindowFull,
            Step::Locate,
            format!(
                "the agent has more than {MOST_TASKS} live tasks, and is not registered as `isolated: per_task`"
            ),
        ));
    }
    let mut sessions = BTreeSet::new();
    for record in tasks {
        if let Record::Task(task) = record
            && task.session != own.session
            && task.status_at(now) == TaskStatus::Active
        {
            sessions.insert(task.session.clone());
        }
    }
    Ok(sessions)
}

/// Adds what a session carries in which the agent has a live task. One that is not kept is not one without labels.
fn add_labels(
    labels: &mut BTreeMap<String, Origin>,
    session: Option<Record>,
) -> Result<(), Refused> {
    let Some(Record::Session(session)) = session else { return Err(lost()) };
    let carried = session.history.carried();
    labels.extend(carried.map(|(label, from)| (label.to_owned(), from.origin())));
    Ok(())
}

/// What is known of a party: nothing, where its record is not there, or its time is up.
fn known(record: Option<Record>, key: &RecordKey, now: Time) -> Arc<Party> {
    match record {
        Some(Record::Agent(party) | Record::Subject(party)) if party.expires_at > now => party,
        _ => Arc::new(Party {
            id: key.id.clone(),
            history: SessionHistory::new(),
            expires_at: now,
            rest: Default::default(),
        }),
    }
}

/// The session of a root task that begins now.
pub(crate) fn begun(task: &Task, now: Time, retention_ms: u64) -> Session {
    Session {
        id: task.session.clone(),
        root: task.id.clone(),
        tasks: 1,
        started_at: now,
        expires_at: after(task.deadline, retention_ms),
        history: SessionHistory::new(),
        rest: Default::default(),
    }
}

/// Recalls what a session did, as this node knows it, where the request has to do with that.
///
/// Args: `begins`: with the decision.
pub(crate) fn recall(
    keeper: &Keeper,
    plan: &Plan,
    request: &Request<'_>,
    located: &Located,
    begins: bool,
    (now, wait): (Time, Wait),
) -> Result<Recalled, Refused> {
    let mut recalled = Recalled::default();
    let (operation, carries) = (request.operation, !request.labels.is_empty());
    if !carries && !plan.recalls(operation) {
        return Ok(recalled);
    }
    let of = (operation, carries);
    for (holder, key) in parties(plan, of, located.task.kind, || located.task.chain()) {
        recalled.set(holder, known(keeper.peek(&key, wait)?, &key, now));
    }
    if plan.joins(operation, located.task.assignee()) {
        let (query, page) = live_of(&located.task);
        let mut labels = BTreeMap::new();
        for id in other_sessions(&keeper.find(&query, &page, wait)?, &located.task, now)? {
            add_labels(&mut labels, keeper.peek(&key(&id), wait)?)?;
        }
        recalled.others = Some(Arc::new(labels));
    }
    if begins {
        return Ok(recalled.with(&located.task, now, keeper.settings().retention_ms));
    }
    match keeper.peek(&key(&located.task.session), wait)? {
        Some(Record::Session(session)) => Ok(Recalled { session: Some(session), ..recalled }),
        _ => Err(lost()),
    }
}

/// Recalls what a session did, as it is now, where the operation has to do with that.
pub(crate) fn current(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    operation: &str,
    located: &Located,
    now: Time,
) -> Result<Recalled, Stop> {
    let mut recalled = Recalled::default();
    if !plan.recalls(operation) {
        return Ok(recalled);
    }
    let of = (operation, false);
    for (holder, key) in parties(plan, of, located.task.kind, || located.task.chain()) {
        recalled.set(holder, known(transaction.get(&key)?, &key, now));
    }
    let session = session(transaction, &located.task.session)?.ok_or_else(lost)?;
    if plan.joins(operation, located.task.assignee()) {
        let (query, page) = live_of(&located.task);
        let mut labels = BTreeMap::new();
        for id in other_sessions(&transaction.find(&query, &page)?, &located.task, now)? {
            add_labels(&mut labels, transaction.get(&key(&id))?)?;
        }
        recalled.others = Some(Arc::new(labels));
    }
    Ok(Recalled { session: Some(session), ..recalled })
}

/// Recalls what a session did, as it is now; true where that is not what the decision was made on.
pub(crate) fn recall_in(
    transaction: &mut dyn Transaction,
    judgement: &mut Judgement,
    located: &Located,
) -> Result<bool, Stop> {
    let Some(before) = judgement.recalled.history() else { return Ok(false) };
    let mut has_changed = false;
    let session = match session(transaction, &located.task.session)? {
        Some(session) => {
            let known = judgement.recalled.session.as_ref();
            let is_same = known.is_some_and(|known| Arc::ptr_eq(known, &session));
            has_changed |= !is_same && session.history != *before;
            Some(session)
        }
        // It begins with this decision.
        None if before.is_empty() => judgement.recalled.session.take(),
        None => return Err(lost().into()),
    };
    judgement.recalled.session = session;
    let known_of = |holder: &Holder| judgement.recalled.party(*holder).is_some();
    let parties: Vec<Holder> = Holder::PARTIES.into_iter().filter(known_of).collect();
    if parties.is_empty() {
        return Ok(has_changed);
    }
    let (now, chain) = (Time(judgement.now_ms), located.task.chain());
    for holder in parties {
        let Some(before) = judgement.recalled.party(holder) else { continue };
        let Some(key) = holder.key(&chain) else { continue };
        let party = known(transaction.get(&key)?, &key, now);
        has_changed |= party.history != before.history;
        judgement.recalled.set(holder, party);
    }
    Ok(has_changed)
}

/// Adds what an answer changes to the session, and to the records of who is in its chain.
///
/// Args:
/// * `wants_credential`: nothing is performed by the permit itself, so what comes of it is open, whoever reports.
/// * `redeemed`: the decision whose permit is performed by this one.
pub(crate) fn remember(
    transaction: &mut dyn Transaction,
    judgement: &Judgement,
    located: &Located,
    wants_credential: bool,
    redeemed: Option<&str>,
) -> Result<(), Stop> {
    let changes = changes(judgement);
    let (id, operation) = (&judgement.id, &judgement.operation);
    let now = Time(judgement.now_ms);
    // What it was judged by is what it is remembered by.
    let now = judgement.recalled.view().map_or(now, |view| view.now(now));
    let of_session = changes.filter(|changes| changes.concern(Holder::Session));
    // Only of what has to do with history is anything open, and that was recalled.
    let recalled = judgement.recalled.history();
    let is_open = |id: &str| recalled.is_some_and(|history| history.pending.contains_key(id));
    let redeemed = redeemed.filter(|id| is_open(id));
    if of_session.is_some() || redeemed.is_some() {
        let session = session(transaction, &located.task.session)?.ok_or_else(lost)?;
        let mut session = Session::clone(&session);
        let history = &mut session.history;
        match of_session {
            Some(changes) if wants_credential && !changes.is_reported => {
                let changes = HistoryChanges { is_reported: true, ..changes.clone() };
                history.apply(&changes, id, operation, now);
            }
            Some(changes) => history.apply(changes, id, operation, now),
            None => {}
        }
        if let Some(before) = redeemed {
            history.hand_over(before, id);
            if !judgement.is_reported() {
                history.settle(id, &Reported::UNREPORTED, now);
            }
        }
        transaction.put(Record::Session(Arc::new(session)));
    }
    let Some(changes) = changes else { return Ok(()) };
    for holder in Holder::PARTIES.into_iter().filter(|holder| changes.concern(*holder)) {
        let party = judgement.recalled.party(holder).ok_or_else(lost)?;
        let mut party = Party::clone(party);
        party.history.apply_as(holder, changes, id, operation, now);
        party.expires_at = Time(now.0.saturating_add(PARTY_MS)).max(party.expires_at);
        let party = Arc::new(party);
        transaction.put(match holder {
            Holder::Subject => Record::Subject(party),
            Holder::Session | Holder::Agent => Record::Agent(party),
        });
    }
    Ok(())
}

/// What the answer changes in the session; none where that is nothing.
pub(crate) fn changes(judgement: &Judgement) -> Option<&HistoryChanges> {
    let decision = judgement.standing()?;
    let changes = decision.changes(judgement.softened().is_some());
    (!changes.is_empty()).then_some(changes)
}

/// Whether the task ends with the answer, as it was denied too much.
pub(crate) fn ends_task(judgement: &Judgement) -> bool {
    changes(judgement).is_some_and(HistoryChanges::ends_task)
}

/// The session of that id.
pub(crate) fn session(
    transaction: &mut dyn Transaction,
    id: &str,
) -> Result<Option<Arc<Session>>, StoreError> {
    match transaction.get(&key(id))? {
        Some(Record::Session(session)) => Ok(Some(session)),
        _ => Ok(None),
    }
}

fn key(session: &str) -> RecordKey {
    RecordKey::new(RecordKind::Session, session)
}

/// The session of a task is gone.
pub(crate) fn lost() -> Refused {
    Refused::new(
        ReasonCode::StateUnavailable,
        Step::Locate,
        "what the task's session did before is not kept any more",
    )
}
