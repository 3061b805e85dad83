//! What the session of a task did before, and who is in its chain: recalled for a decision, and added to by its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decision::{Principal, Request, Time};
use authz_kernel::history::{
    HistoryChanges, HistoryView, Holder, Object, ObjectView, Origin, PARTY_MS, Reported,
    SessionHistory, Written,
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
    object: Option<Found>,
}

/// What was written before into what an operation acts on.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    /// None: it is the collection as a whole.
    object: Option<Arc<Object>>,
    collection: Arc<Object>,
}

impl Found {
    fn view(&self) -> ObjectView<'_> {
        ObjectView { object: self.object.as_deref(), collection: &self.collection }
    }

    fn keys(&self) -> impl Iterator<Item = RecordKey> {
        let all = [&self.collection].into_iter().chain(&self.object);
        all.map(|one| RecordKey::new(RecordKind::Object, &one.id))
    }
}

impl Recalled {
    /// Of a session that begins with the decision.
    pub(crate) fn with(self, task: &Task, now: Time, retention_ms: u64) -> Self {
        Self { session: Some(Arc::new(begun(task, now, retention_ms))), ..self }
    }

    /// The id of the session, and whether it is of what somebody does without a task.
    pub(crate) fn of_session(&self) -> Option<(&str, bool)> {
        self.session.as_deref().map(|session| (session.id.as_str(), session.is_taskless()))
    }

    /// Nothing is known of the session: it may begin with the decision.
    pub(crate) fn is_new(&self) -> bool {
        self.history().is_some_and(SessionHistory::is_empty)
    }

    /// As the kernel reads it; none where it was not recalled.
    pub(crate) fn view(&self) -> Option<HistoryView<'_>> {
        self.history().map(|session| HistoryView {
            session,
            agent: self.agent.as_deref().map(|party| &party.history),
            subject: self.subject.as_deref().map(|party| &party.history),
            others: self.others.as_deref(),
            object: self.object.as_ref().map(Found::view),
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

    /// The labels that what is acted on keeps of those that wrote it.
    pub(crate) fn written(&self, now: Time) -> impl Iterator<Item = (&str, &Origin)> {
        self.object.iter().flat_map(move |found| found.view().labels(now))
    }

    /// The records of what is acted on.
    pub(crate) fn object_keys(&self) -> impl Iterator<Item = RecordKey> {
        self.object.iter().flat_map(Found::keys)
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
            id: key.id.to_string(),
            history: SessionHistory::new(),
            expires_at: now,
            rest: Default::default(),
        }),
    }
}

/// What is known of something that was written: nothing, where its record is not there, or its time is up.
fn written(record: Option<Record>, key: &RecordKey, now: Time) -> Arc<Object> {
    match record {
        Some(Record::Object(object)) if object.expires_at > now => object,
        _ => Arc::new(Object::new(key.id.to_string())),
    }
}

/// What was written into what a request would act on; none where that makes no difference.
///
/// Args: `read`: gives records.
fn found<E>(
    plan: &Plan,
    request: &Request<'_>,
    now: Time,
    mut read: impl FnMut(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<Option<Found>, E> {
    let Some(keys) = plan.objects_of(request) else { return Ok(None) };
    let mut one = |key: &RecordKey| read(key).map(|record| written(record, key, now));
    let collection = one(&keys.collection)?;
    Ok(Some(Found { object: keys.object.as_ref().map(one).transpose()?, collection }))
}

/// The session of a root task that begins now.
pub(crate) fn begun(task: &Task, now: Time, retention_ms: u64) -> Session {
    Session {
        id: task.session.clone(),
        root: task.id.clone(),
        tasks: 1,
        started_at: now,
        expires_at: after(task.deadline, retention_ms),
        ended_at: None,
        history: SessionHistory::new(),
        rest: Default::default(),
    }
}

/// What somebody did without a task: nothing, where it is not kept, or its time is up.
fn taskless(known: Option<Arc<Session>>, task: &Task, now: Time) -> Result<Arc<Session>, Refused> {
    match known.filter(|known| known.lasts(now)) {
        Some(known) if known.ended_at.is_some() => {
            let what = "what the caller may do without a task was taken away";
            Err(Refused::new(ReasonCode::Revoked, Step::Locate, what))
        }
        Some(known) => Ok(known),
        None => Ok(Arc::new(Session::taskless(task, now))),
    }
}

/// Refuses a caller without a task, where what it may do so was taken away.
pub(crate) fn refuse_taken_away(
    keeper: &Keeper,
    task: &Task,
    now: Time,
    wait: Wait,
) -> Result<(), Refused> {
    let session = match keeper.peek(&key(&task.session), wait)? {
        Some(Record::Session(session)) => Some(session),
        _ => None,
    };
    taskless(session, task, now).map(drop)
}

/// Keeps what somebody does without a task from now on, and for longer where something is let through.
///
/// Args: `room`: refuses one record more.
pub(crate) fn hold(
    transaction: &mut dyn Transaction,
    task: &Task,
    (is_passed, now): (bool, Time),
    room: impl FnOnce(&mut dyn Transaction) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let known = session(transaction, &task.session)?.filter(|known| known.lasts(now));
    let is_new = known.is_none();
    let mut held = known.unwrap_or_else(|| Arc::new(Session::taskless(task, now)));
    if is_new {
        room(transaction)?;
    }
    let is_prolonged = is_passed && Arc::make_mut(&mut held).prolong(now);
    if is_new || is_prolonged {
        transaction.put(Record::Session(held));
    }
    Ok(())
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
    recalled.object = found(plan, request, now, |key| keeper.peek(key, wait))?;
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
    let session = match keeper.peek(&key(&located.task.session), wait)? {
        Some(Record::Session(session)) => Some(session),
        _ => None,
    };
    let session = match located.is_taskless() {
        true => taskless(session, &located.task, now)?,
        false => session.ok_or_else(lost)?,
    };
    Ok(Recalled { session: Some(session), ..recalled })
}

/// Recalls what a session did, as it is now, where the operation has to do with that.
pub(crate) fn current(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    request: &Request<'_>,
    located: &Located,
    now: Time,
) -> Result<Recalled, Stop> {
    let mut recalled = Recalled::default();
    let operation = request.operation;
    if !plan.recalls(operation) {
        return Ok(recalled);
    }
    let of = (operation, false);
    for (holder, key) in parties(plan, of, located.task.kind, || located.task.chain()) {
        recalled.set(holder, known(transaction.get(&key)?, &key, now));
    }
    recalled.object = found(plan, request, now, |key| transaction.get(key))?;
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
    let mut current = session(transaction, &located.task.session)?;
    if located.is_taskless() {
        current = Some(taskless(current, &located.task, Time(judgement.now_ms))?);
    }
    let session = match current {
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
    has_changed |= written_again(transaction, judgement)?;
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

/// Recalls what was written into what is acted on, as it is now; true where that is not what the decision was made on.
fn written_again(
    transaction: &mut dyn Transaction,
    judgement: &mut Judgement,
) -> Result<bool, StoreError> {
    let Some(before) = judgement.recalled.object.take() else { return Ok(false) };
    let now = Time(judgement.now_ms);
    let mut again = |object: &Object| {
        let key = RecordKey::new(RecordKind::Object, &object.id);
        transaction.get(&key).map(|record| written(record, &key, now))
    };
    let collection = again(&before.collection)?;
    let object = before.object.as_deref().map(again).transpose()?;
    let current = Found { object, collection };
    let has_changed = current != before;
    judgement.recalled.object = Some(current);
    Ok(has_changed)
}

/// Lets what is written keep labels.
fn write(
    transaction: &mut dyn Transaction,
    judgement: &Judgement,
    written: &Written,
    now: Time,
) -> Result<(), Stop> {
    let found = judgement.recalled.object.as_ref().ok_or_else(lost)?;
    let mut object = found.object.as_deref().cloned();
    let mut collection = Object::clone(&found.collection);
    let by = (judgement.id.as_str(), judgement.operation.as_str(), now);
    written.apply(object.as_mut(), &mut collection, by);
    for one in object.filter(|_| !written.is_any).into_iter().chain([collection]) {
        transaction.put(Record::Object(Arc::new(one)));
    }
    Ok(())
}

/// Adds what an answer changes to the session, and to the records of who is in its chain and of what is
/// written.
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
    if let Some(written) = &changes.written {
        write(transaction, judgement, written, now)?;
    }
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
