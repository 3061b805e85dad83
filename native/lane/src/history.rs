//! What the session of a task did before, and who is in its chain: recalled for a decision, and added to by its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Principal, Request, Time};
use authz_kernel::history::{
    Carrier, Carry, HistoryChanges, HistoryView, Holder, Object, ObjectView, Origin, Remembering,
    Reported, RunChange, SessionContext, SessionHistory, Written, pair_keys,
};
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Alone, BARRED_MS, Bar, Party, Record, RecordKey, RecordKind, RecordName, Reservation, Session,
    Task, TaskKind, TaskView, alone_pair, barred_alone, carrier_of, denied_pair, is_alone,
};
use authz_state::store::{StoreError, Transaction};

use crate::ask::{Refused, Step};
use crate::ending::after;
use crate::giving;
use crate::judgement::Judgement;
use crate::keeper::{Keeper, Wait};
use crate::locate::Located;
use crate::steps::record::ChangeError;

/// How long a pair is kept whose task was ended because of denials, in milliseconds: 30 days.
const DENIED_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// What a decision knows of the session that it is made in, and of who is in its chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recalled {
    session: Option<Arc<Session>>,
    agent: Option<Arc<Party>>,
    subject: Option<Arc<Party>>,
    pair: Option<Arc<Party>>,
    /// Labels of sessions that the agent shares with others; none where that was not looked up.
    shared: Option<Arc<BTreeMap<String, Origin>>>,
    remembering: Remembering,
    /// The session begins with the decision.
    begins: bool,
    object: Option<Found>,
    /// Denials in the run of the task.
    denials: usize,
    /// The context of the session that the call names.
    context: Option<SessionContext>,
    /// The records as a call in that context sees them, where it sees less.
    seen: Seen,
}

/// Records without the labels that count in other contexts alone; none: as they are.
#[derive(Clone, Debug, Default)]
struct Seen {
    session: Option<Box<SessionHistory>>,
    agent: Option<Box<SessionHistory>>,
    pair: Option<Box<SessionHistory>>,
}

/// What was written before into what an operation acts on.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    /// None: it is the collection as a whole.
    object: Option<Arc<Object>>,
    /// Under older spellings of the object's id.
    older: Vec<Arc<Object>>,
    collection: Arc<Object>,
}

impl Found {
    fn view(&self) -> ObjectView<'_> {
        let object = self.object.as_deref();
        ObjectView { object, older: &self.older, collection: &self.collection }
    }

    fn keys(&self) -> impl Iterator<Item = RecordKey> {
        let all = [&self.collection].into_iter().chain(&self.object).chain(&self.older);
        all.map(|one| RecordKey::new(RecordKind::Object, &one.id))
    }
}

impl Recalled {
    /// Of a session that begins with the decision.
    fn beginning(self, session: Session) -> Self {
        let mut recalled = Self { begins: true, ..self };
        recalled.set_session(Some(Arc::new(session)));
        recalled
    }

    /// The id of the session, and whether it is of what somebody does without a task.
    pub(crate) fn of_session(&self) -> Option<(&str, bool)> {
        self.session.as_deref().map(|session| (session.id.as_str(), session.is_taskless()))
    }

    /// Nothing is known of the session: it may begin with the decision.
    pub(crate) fn is_new(&self) -> bool {
        self.begins || self.history().is_some_and(SessionHistory::is_empty)
    }

    /// Denials in the run of the task, where the bundle counts them.
    pub(crate) const fn denials(&self) -> usize {
        self.denials
    }

    fn count_denials(&mut self, task: TaskView<'_>) {
        self.denials = self.view().map_or(0, |view| view.count_denials(task));
    }

    /// As the kernel reads it; none where it was not recalled.
    pub(crate) fn view<'a>(&'a self) -> Option<HistoryView<'a>> {
        let of = |party: Option<&'a Arc<Party>>, seen: &'a Option<Box<SessionHistory>>| {
            party.map(|party| seen.as_deref().unwrap_or(&party.history))
        };
        self.seen().map(|session| HistoryView {
            session,
            agent: of(self.agent.as_ref(), &self.seen.agent),
            subject: self.subject.as_deref().map(|party| &party.history),
            pair: of(self.pair.as_ref(), &self.seen.pair),
            shared: self.shared.as_deref(),
            remembering: self.remembering,
            object: self.object.as_ref().map(Found::view),
        })
    }

    /// The session's history as the call sees it; none where it was not recalled.
    pub(crate) fn seen(&self) -> Option<&SessionHistory> {
        let session = self.session.as_deref()?;
        Some(self.seen.session.as_deref().unwrap_or(&session.history))
    }

    /// Digest of the session's context that the call names; empty: none.
    pub(crate) fn context(&self) -> &str {
        self.context.as_ref().map_or("", SessionContext::as_str)
    }

    /// What the session did; none where it was not recalled.
    pub(crate) fn history(&self) -> Option<&SessionHistory> {
        self.session.as_deref().map(|session| &session.history)
    }

    /// The labels that the agent remembers of other tasks, where they count.
    pub(crate) fn remembered(&self, now: Time) -> impl Iterator<Item = (&str, Carrier<'_>)> {
        let view = self.view().filter(|view| view.agent.is_some() && view.pair.is_some());
        view.into_iter().flat_map(move |view| view.remembered(now))
    }

    /// Where the labels of the call are remembered.
    pub(crate) const fn remembering(&self) -> Remembering {
        self.remembering
    }

    /// The records that remember the labels of a call: those of the agent that makes it, and of every agent above it.
    pub(crate) fn memories_of(
        &self,
        plan: &Plan,
        located: &Located,
        changes: &HistoryChanges,
        now: Time,
    ) -> Vec<RecordName> {
        let above = above(plan, located, changes, now).into_iter().map(|one| one.key.into());
        self.memory_of(changes).into_iter().chain(above).collect()
    }

    fn memory_of(&self, changes: &HistoryChanges) -> Option<RecordName> {
        let remembered = changes.remembered.as_ref()?;
        let (kind, id) = match remembered.holder {
            Holder::Session => return None,
            Holder::Agent => (RecordKind::Agent, &self.agent.as_ref()?.id),
            Holder::Subject => (RecordKind::Subject, &self.subject.as_ref()?.id),
            Holder::Pair => (RecordKind::Pair, &self.pair.as_ref()?.id),
        };
        Some(RecordName { kind, id: id.clone() })
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
            Holder::Pair => self.pair.as_ref(),
        }
    }

    fn set(&mut self, holder: Holder, party: Arc<Party>) {
        let seen = seen_in(self.context.as_ref(), &party.history);
        match holder {
            Holder::Session => {}
            Holder::Agent => (self.agent, self.seen.agent) = (Some(party), seen),
            Holder::Subject => self.subject = Some(party),
            Holder::Pair => (self.pair, self.seen.pair) = (Some(party), seen),
        }
    }

    fn set_session(&mut self, session: Option<Arc<Session>>) {
        let known = session.as_deref();
        self.seen.session =
            known.and_then(|session| seen_in(self.context.as_ref(), &session.history));
        self.session = session;
    }
}

/// A history as a call in a context sees it; none: as it is.
fn seen_in(
    context: Option<&SessionContext>,
    history: &SessionHistory,
) -> Option<Box<SessionHistory>> {
    context.and_then(|context| history.seen_in(context)).map(Box::new)
}

/// Records besides the session's that a call has to do with.
///
/// Args:
/// * `operation`: its id; `carries`: labels are told of the call.
/// * `remembering`: where labels of the task are remembered.
pub(crate) fn parties(
    plan: &Plan,
    (operation, carries): (&str, bool),
    remembering: Remembering,
    chain: impl FnOnce() -> Vec<Principal>,
) -> Vec<(Holder, RecordKey)> {
    let concerned = Holder::PARTIES.map(|holder| {
        (carries && remembering.holder == Some(holder))
            || plan.recalls_of(operation, holder, remembering)
    });
    keys_of(concerned, chain)
}

/// Whether an agent may begin a task for its subject, as this node knows it.
pub(crate) fn may_begin(
    keeper: &Keeper,
    task: &Task,
    (now, wait): (Time, Wait),
) -> Result<(), Refused> {
    not_denied(pair_of(task, now, |key| keeper.peek(key, wait))?.as_deref())
}

/// What an agent above a task remembers of a call in it.
pub(crate) struct Above {
    pub(crate) key: RecordKey,
    holder: Holder,
    remembering: Remembering,
    changes: HistoryChanges,
}

/// What the agents above a task remember of a call: its results come up to them.
pub(crate) fn above(
    plan: &Plan,
    located: &Located,
    changes: &HistoryChanges,
    now: Time,
) -> Vec<Above> {
    let all = located.ancestors.iter().filter_map(|task| {
        let remembering = plan.model().remembering(task);
        let holder = remembering.holder?;
        let changes = changes.above(remembering, now)?;
        Some(Above { key: holder.key(&task.chain())?, holder, remembering, changes })
    });
    all.collect()
}

/// Records besides the session's that a call changes: the call is decided under their locks.
///
/// Args: `changes`: of the decision that was made without the locks.
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

/// What is known of a party: nothing, where its record is not there, or its time is up.
pub(crate) fn known_party(record: Option<Record>, key: &RecordKey, now: Time) -> Arc<Party> {
    match record {
        Some(Record::Agent(party) | Record::Subject(party) | Record::Pair(party))
            if party.expires_at > now =>
        {
            party
        }
        _ => Arc::new(Party {
            id: key.id.to_string(),
            history: SessionHistory::new(),
            denied_at: None,
            ended_before: None,
            tasks: Default::default(),
            shared: Default::default(),
            acted_at: None,
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
    let object = keys.object.as_ref().map(&mut one).transpose()?;
    let older = keys.older.iter().map(one).collect::<Result<_, E>>()?;
    Ok(Some(Found { object, older, collection }))
}

/// The record of the pair of a task's agent and subject.
fn pair_of<E>(
    task: &Task,
    now: Time,
    read: impl FnOnce(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<Option<Arc<Party>>, E> {
    let Some(key) = Holder::Pair.key(&task.chain()) else { return Ok(None) };
    Ok(Some(known_party(read(&key)?, &key, now)))
}

/// Counts a new task in the records of its agent and of its pair, which are locked.
///
/// Args:
/// * `chain`: whose share the task counts against.
/// * `kept_until`: when the task is forgotten at the latest.
/// * `free`: tasks that the store has room for; none: so many that no share can be full.
///
/// Returns: false where the share of the pair, or of the agent over all its pairs, is full. An agent has at most as many tasks
/// as are left free to others, and so has each of its pairs within what is left to the agent.
pub(crate) fn count_task(
    transaction: &mut dyn Transaction,
    chain: &[Principal],
    (now, kept_until): (Time, Time),
    free: Option<u64>,
) -> Result<bool, StoreError> {
    let mut held = Vec::with_capacity(2);
    for holder in [Holder::Agent, Holder::Pair] {
        if let Some(key) = holder.key(chain) {
            held.push((holder, Party::clone(&*known_party(transaction.get(&key)?, &key, now))));
        }
    }
    let counts = held.iter().map(|(_, party)| party.count_tasks(now));
    if let (Some(free), [agent, pair]) = (free, counts.collect::<Vec<u64>>().as_slice())
        && *pair >= free.saturating_sub(*agent)
    {
        return Ok(false);
    }
    for (holder, mut party) in held {
        party.add_task(kept_until, now);
        transaction.put(record_of(holder, party));
    }
    Ok(true)
}

/// The records that a new task is counted in.
pub(crate) fn counted_in(chain: &[Principal]) -> impl Iterator<Item = RecordKey> {
    let keys = [Holder::Agent, Holder::Pair].map(|holder| holder.key(chain));
    keys.into_iter().flatten()
}

/// Refuses a task that an agent would begin for a subject after its last one was ended because of denials.
fn not_denied(pair: Option<&Party>) -> Result<(), Refused> {
    if pair.is_some_and(|pair| pair.denied_at.is_some()) { Err(denied()) } else { Ok(()) }
}

/// Refuses a call in a task that the agent began itself, after another one for the subject was ended because of denials.
fn not_barred(pair: Option<&Party>, task: TaskView<'_>) -> Result<(), Refused> {
    if pair.is_some_and(|pair| pair.bar().holds_in(task)) { Err(denied()) } else { Ok(()) }
}

/// Refuses whatever an agent that denials bar would do in a task that it began itself, as this node knows it.
pub(crate) fn refuse_barred(
    keeper: &Keeper,
    plan: &Plan,
    located: &Located,
    (now, wait): (Time, Wait),
) -> Result<(), Refused> {
    if plan.model().denials.is_none() {
        return Ok(());
    }
    let pair = pair_of(&located.task, now, |key| keeper.peek(key, wait))?;
    not_barred(pair.as_deref(), located.view())
}

/// Lets the session of a task that an agent gives by starting it take over the restricting rules that are complete for the
/// giver.
pub(crate) fn inherit_from_giver<E>(
    session: &mut Session,
    giver: &[Principal],
    task: &Task,
    now: Time,
    read: impl FnOnce(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<(), E> {
    let Some(key) = Holder::Pair.key(giver) else { return Ok(()) };
    let pair = known_party(read(&key)?, &key, now);
    session.history.inherit_rules(&pair.history, &task.id, now);
    Ok(())
}

fn denied() -> Refused {
    let refused = denied_pair();
    Refused::new(refused.reason, Step::Locate, refused.message)
}

/// Begins a child in the session of its tree, with what earlier tasks of the agent above it for its subject left: an agent
/// that denials bar neither delegates from its own tasks, nor is anything delegated to it. The records of both pairs are
/// locked.
pub(crate) fn begin_child(
    transaction: &mut dyn Transaction,
    parent: &Located,
    child: &Task,
    now: Time,
) -> Result<(), ChangeError> {
    let above = pair_of(&parent.task, now, |key| transaction.get(key))?;
    not_barred(above.as_deref(), parent.view())?;
    if !child.is_given() {
        return Ok(());
    }
    not_denied(pair_of(child, now, |key| transaction.get(key))?.as_deref())?;
    let rules = above.filter(|pair| parent.view().inherits() && !pair.history.rules.is_empty());
    if let Some(pair) = rules
        && let Some(mut session) = session(transaction, &parent.task.session)?
    {
        Arc::make_mut(&mut session).history.inherit_rules(&pair.history, &child.id, now);
        transaction.put(Record::Session(session));
    }
    Ok(())
}

/// The records of pairs that a new child is begun under.
pub(crate) fn pairs_of_child(parent: &Task, child: &Task) -> impl Iterator<Item = RecordKey> {
    [parent, child].map(|task| Holder::Pair.key(&task.chain())).into_iter().flatten()
}

/// Begins the session of a root task, with what earlier tasks of its agent for its subject left. The pair's record is locked.
///
/// Args: `by_agent`: an agent starts it; only a subject alone or a front end begins anew after denials.
pub(crate) fn begin(
    transaction: &mut dyn Transaction,
    task: &Task,
    (by_agent, now): (bool, Time),
    retention_ms: u64,
) -> Result<Session, ChangeError> {
    let pair = pair_of(task, now, |key| transaction.get(key))?;
    if by_agent {
        not_denied(pair.as_deref())?;
    } else if let Some(pair) = &pair
        && (pair.denied_at.is_some() || !pair.history.denials.is_empty())
    {
        let mut pair = Party::clone(pair);
        pair.lift_bar();
        pair.history.forget_denials();
        transaction.put(Record::Pair(Arc::new(pair)));
    }
    Ok(begun(task, pair.as_deref(), now, retention_ms))
}

/// Keeps what the agent's next task for the subject inherits. The records of the pairs are locked.
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
        // The agent that leaves the subject out begins with what its tasks for a subject left, too.
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

/// The session of a root task that begins now.
///
/// Args: `pair`: the record of the task's agent and subject.
fn begun(task: &Task, pair: Option<&Party>, now: Time, retention_ms: u64) -> Session {
    let pair = pair.filter(|_| task.inherits());
    let history = pair.map(|pair| SessionHistory::inherited(&pair.history, &task.id, now));
    Session {
        id: task.session.clone(),
        root: task.id.clone(),
        tasks: 1,
        started_at: now,
        expires_at: after(task.deadline, retention_ms),
        ended_at: None,
        denied: false,
        agent: None,
        history: history.unwrap_or_default(),
        rest: Default::default(),
    }
}

/// A session that begins now: of an agent alone, with what was carried over to the one before.
///
/// Args: `known`: the record of the session, as it is kept.
fn with_carried(
    plan: &Plan,
    mut session: Session,
    known: Option<Record>,
    task: &Task,
    now: Time,
) -> Session {
    if let Some(Record::Session(known)) = known
        && known.lasts(now)
        && is_alone(plan, task)
    {
        session.history = plan.carried_over(&known.history, now);
        session.expires_at = session.expires_at.max(known.expires_at);
    }
    session
}

/// Begins the session of an agent that works without tasks. The records of the session and of the pair are locked.
pub(crate) fn begin_unstarted(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    task: &Task,
    now: Time,
    retention_ms: u64,
) -> Result<Session, ChangeError> {
    let session = begin(transaction, task, (true, now), retention_ms)?;
    let known = transaction.get(&key(&task.session))?;
    Ok(with_carried(plan, session, known, task, now))
}

/// Carries what restricts an agent in a session with a subject over to the sessions of agents alone, whose records are locked.
///
/// Args:
/// * `alones`: those sessions; `ends`: the session with the subject ends by the answer.
pub(crate) fn carry(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    judgement: &Judgement,
    located: &Located,
    (alones, ends): (&[Alone], bool),
) -> Result<(), ChangeError> {
    let Some(changes) = changes(judgement).filter(|_| !alones.is_empty()) else { return Ok(()) };
    let now = judgement.arrival.now();
    for Alone { id, counts_denials } in alones {
        if !changes.restricts(plan.model(), *counts_denials) {
            continue;
        }
        let mut held = carrier(transaction, &located.task, id, now)?;
        let carry = Carry {
            from: &located.task.id,
            to: id,
            decision_id: &judgement.arrival.id,
            operation: &judgement.resolved.operation,
            counts_denials: *counts_denials,
        };
        let fits = held.history.carry_over(plan.model(), changes, carry, now);
        transaction.put(Record::Session(Arc::new(held)));
        let by_denials = ends && *counts_denials;
        if by_denials || !fits {
            bar_alone(transaction, plan, &located.task, id, (by_denials, now))?;
        }
    }
    Ok(())
}

/// Ends the run of denials that was carried over, where something was let through in a task of the agent alone. The record of
/// the agent's session is locked.
pub(crate) fn end_carried_run(
    transaction: &mut dyn Transaction,
    judgement: &Judgement,
    alone: &str,
) -> Result<(), StoreError> {
    let ends = |changes: &HistoryChanges| matches!(changes.run, Some(RunChange::Ends { .. }));
    if changes(judgement).is_some_and(ends)
        && let Some(mut held) = session(transaction, alone)?
        && held.history.denials.contains_key(alone)
    {
        Arc::make_mut(&mut held).history.denials.remove(alone);
        transaction.put(Record::Session(held));
    }
    Ok(())
}

/// The session of a task as its calls see it: where the agent left the subject out, what was carried over to the agent alone
/// counts, too.
///
/// Args: `read`: gives records.
fn with_carried_over<E: From<Refused>>(
    plan: &Plan,
    located: &Located,
    session: Arc<Session>,
    now: Time,
    read: impl FnOnce(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<Arc<Session>, E> {
    let Some(alone) = carrier_of(plan, located.view()) else { return Ok(session) };
    let known = match read(&key(&alone))? {
        Some(Record::Session(known)) if known.lasts(now) => known,
        _ => return Ok(session),
    };
    if known.ended_at.is_some() {
        return Err(alone_taken_away().into());
    }
    let ids = (alone.as_str(), located.task.id.as_str());
    let history = plan.with_carried(&session.history, &known.history, ids, now);
    if history == session.history {
        return Ok(session);
    }
    Ok(Arc::new(Session { history, ..Session::clone(&session) }))
}

/// As [`with_carried_over`]; the session keeps what it takes over.
fn take_carried_over(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    located: &Located,
    session: Arc<Session>,
    now: Time,
) -> Result<Arc<Session>, ChangeError> {
    let read = |key: &RecordKey| transaction.get(key).map_err(ChangeError::from);
    let joined = with_carried_over(plan, located, Arc::clone(&session), now, read)?;
    if !Arc::ptr_eq(&joined, &session) {
        transaction.put(Record::Session(Arc::clone(&joined)));
    }
    Ok(joined)
}

/// Refuses an agent that left the subject out, where what it may do so was taken away.
///
/// Args: `alone`: id of the session of the agent alone.
pub(crate) fn refuse_alone_taken_away(
    keeper: &Keeper,
    alone: &str,
    now: Time,
    wait: Wait,
) -> Result<(), Refused> {
    match keeper.peek(&key(alone), wait)? {
        Some(Record::Session(known)) if known.lasts(now) && known.ended_at.is_some() => {
            Err(alone_taken_away())
        }
        _ => Ok(()),
    }
}

fn alone_taken_away() -> Refused {
    let what = "what the agent may do without a subject was taken away";
    Refused::new(ReasonCode::Revoked, Step::Locate, what)
}

/// The session of an agent alone, to which something is carried over now.
fn carrier(
    transaction: &mut dyn Transaction,
    task: &Task,
    alone: &str,
    now: Time,
) -> Result<Session, StoreError> {
    let known = session(transaction, alone)?.filter(|known| known.lasts(now));
    let mut held = known.map_or_else(
        || Session {
            id: alone.to_owned(),
            root: alone.to_owned(),
            tasks: u32::from(task.kind == TaskKind::Implicit),
            started_at: now,
            expires_at: now,
            ended_at: None,
            denied: false,
            agent: None,
            history: SessionHistory::new(),
            rest: Default::default(),
        },
        |known| Session::clone(&known),
    );
    held.expires_at = held.expires_at.max(after(now, BARRED_MS));
    Ok(held)
}

/// Takes the session of an agent alone away, because one of its sessions with a subject was. Its record is locked.
///
/// Args: `by_denials`: denials ended that one, so that an administrator who forgets them gives the session back.
pub(crate) fn bar_alone(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    task: &Task,
    alone: &str,
    (by_denials, now): (bool, Time),
) -> Result<(), StoreError> {
    let mut held = carrier(transaction, task, alone, now)?;
    if task.kind == TaskKind::Implicit {
        let key = RecordKey::new(RecordKind::Task, alone);
        let known = match transaction.get(&key)? {
            Some(Record::Task(known)) => Some(known),
            _ => None,
        };
        if let Some(barred) = barred_alone(plan, known.as_deref(), task, now) {
            transaction.put(Record::Task(Arc::new(barred)));
        }
    } else if by_denials {
        held.end_by_denials(now);
    } else {
        held.end(now);
    }
    transaction.put(Record::Session(Arc::new(held)));
    Ok(())
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
    room: impl FnOnce(&mut dyn Transaction) -> Result<(), ChangeError>,
) -> Result<(), ChangeError> {
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

/// The labels of sessions that the agent of a task shares with others, and those that givers of the task and of tasks above it
/// remembered. They are not locked: what is read in one of them meanwhile, nobody has told the agent yet.
fn shared<E>(
    plan: &Plan,
    recalled: &Recalled,
    located: &Located,
    now: Time,
    read: impl FnMut(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<Option<Arc<BTreeMap<String, Origin>>>, E> {
    let Some(agent) = &recalled.agent else { return Ok(None) };
    let task = &located.task;
    let memory = plan.model().memory_of(task.assignee());
    let of = (task.chain(), task.session.as_str());
    let mut labels = giving::shared_labels(agent, (&of.0, of.1), memory, now, read)?;
    for task in located.path() {
        giving::merge_labels(&mut labels, giving::told_of(task));
    }
    Ok(Some(Arc::new(labels)))
}

/// Recalls what a session did, as this node knows it, where the request has to do with that.
///
/// Args:
/// * `begins`: with the decision.
/// * `context`: as a front end names it; empty: none.
pub(crate) fn recall(
    keeper: &Keeper,
    plan: &Plan,
    request: &Request<'_>,
    located: &Located,
    (begins, context): (bool, &str),
    (now, wait): (Time, Wait),
) -> Result<Recalled, Refused> {
    let has_contexts = located.is_taskless() || located.task.kind == TaskKind::Implicit;
    let context = Some(context).filter(|name| has_contexts && !name.is_empty());
    let context = context.map(|name| SessionContext::new(&located.task.session, name));
    let mut recalled = Recalled { context, ..Recalled::default() };
    let (operation, carries) = (request.operation, !request.labels.is_empty());
    if !carries && !plan.recalls(operation) {
        return Ok(recalled);
    }
    let of = (operation, carries);
    recalled.remembering = plan.model().remembering(&located.task);
    for (holder, key) in parties(plan, of, recalled.remembering, || located.task.chain()) {
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
    if counts_denials {
        recalled.count_denials(located.view());
    }
    Ok(recalled)
}

/// Recalls what a session did, as it is now, where the operation has to do with that.
pub(crate) fn current(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    request: &Request<'_>,
    located: &Located,
    now: Time,
) -> Result<Recalled, ChangeError> {
    let mut recalled = Recalled::default();
    let operation = request.operation;
    if !plan.recalls(operation) {
        return Ok(recalled);
    }
    let of = (operation, false);
    recalled.remembering = plan.model().remembering(&located.task);
    for (holder, key) in parties(plan, of, recalled.remembering, || located.task.chain()) {
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
    Ok(Recalled { session: Some(session), ..recalled })
}

/// Recalls what a session did, as it is now; true where that is not what the decision was made on.
///
/// Args:
/// * `before`: what the decision was made on.
/// * `begins`: the session as it begins with the decision; what the same pair did in one that is forgotten does not count.
pub(crate) fn recall_in(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    before: &Recalled,
    now: Time,
    located: &Located,
    begins: Option<Arc<Session>>,
) -> Result<(Recalled, bool), ChangeError> {
    let mut recalled = before.clone();
    if before.session.is_none() {
        return Ok((recalled, false));
    }
    let counts_denials = plan.model().denials.is_some();
    let (session, mut has_changed) = session_in(transaction, plan, before, now, located, begins)?;
    recalled.set_session(session);
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

/// The session of a call as it is now; true where its history is not what the decision was made on.
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
        // It begins with this decision.
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

/// What was written into what is acted on, as it is now.
fn written_again(
    transaction: &mut dyn Transaction,
    before: &Found,
    now: Time,
) -> Result<Found, StoreError> {
    let mut again = |object: &Object| {
        let key = RecordKey::new(RecordKind::Object, &object.id);
        transaction.get(&key).map(|record| written(record, &key, now))
    };
    let collection = again(&before.collection)?;
    let object = before.object.as_deref().map(&mut again).transpose()?;
    let older = before.older.iter().map(|one| again(one)).collect::<Result<_, StoreError>>()?;
    Ok(Found { object, older, collection })
}

/// Lets what is written keep labels.
fn write(
    transaction: &mut dyn Transaction,
    judgement: &Judgement,
    written: &Written,
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

/// Adds what an answer changes to the session, and to the records of who is in its chain and of what is
/// written.
///
/// Args:
/// * `wants_credential`: nothing is performed by the permit itself, so what comes of it is open, whoever reports.
/// * `redeemed`: the decision whose permit is performed by this one.
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
        changes.zip(context).map(|(changes, context)| changes.within(plan.model(), context));
    let changes = apart.as_ref().or(changes);
    let (id, operation) = (&judgement.arrival.id, &judgement.resolved.operation);
    let now = judgement.arrival.now();
    // What it was judged by is what it is remembered by.
    let now = judgement.context.recalled.view().map_or(now, |view| view.now(now));
    let of_session = changes.filter(|changes| changes.concern(Holder::Session));
    // Only of what has to do with history is anything open, and that was recalled.
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

/// The record of a party.
fn record_of(holder: Holder, party: Party) -> Record {
    let party = Arc::new(party);
    match holder {
        Holder::Subject => Record::Subject(party),
        Holder::Pair => Record::Pair(party),
        Holder::Session | Holder::Agent => Record::Agent(party),
    }
}

/// Takes over a report in the records that remember the labels of a permit.
///
/// Args: `session`: what the session keeps after the report.
pub(crate) fn settle_remembered(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
    reported: &Reported<'_>,
    session: &SessionHistory,
    remembering: Remembering,
) -> Result<(), StoreError> {
    for name in &permit.remembered_in {
        settle_in(transaction, name, permit, reported, (session, remembering))?;
    }
    Ok(())
}

fn settle_in(
    transaction: &mut dyn Transaction,
    name: &RecordName,
    permit: &Reservation,
    reported: &Reported<'_>,
    (session, remembering): (&SessionHistory, Remembering),
) -> Result<(), StoreError> {
    let (holder, party) = match transaction.get(&name.key())? {
        Some(Record::Agent(party)) => (Holder::Agent, party),
        Some(Record::Subject(party)) => (Holder::Subject, party),
        Some(Record::Pair(party)) => (Holder::Pair, party),
        // An administrator had it forgotten.
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

/// What the answer changes in the session; none where that is nothing.
pub(crate) fn changes(judgement: &Judgement) -> Option<&HistoryChanges> {
    let decision = judgement.decision()?;
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
