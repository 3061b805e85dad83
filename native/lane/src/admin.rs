//! The kill switch of the administration listener: its caller owns the socket, and so may always revoke, and lift a
//! revocation.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    AgentName, Record, RecordKey, RecordKind, Revocation, RevocationTarget, Subject, Task,
    TaskKind, TaskStatus, alone_without_task, alones_of, is_implicit_id,
};
use authz_state::store::{Page, Query, Survives, Transaction};
use authz_token::SpiffeId;
use prost::Message;

use crate::ask::{Refused, Step};
use crate::ending;
use crate::engine::Engine;
use crate::history;
use crate::judgement::{Judgement, RevocationNote};
use crate::keeper::Wait;
use crate::limits;
use crate::metrics::RevocationChange;
use crate::proto::authz::v1 as wire;
use crate::proto::authz::v1::admin_revoke_request::Target;
use crate::settings::Surface;
use crate::steps::record::{ChangeContext, ChangeError, GrantedChange, KeptRecord, RecordOrigin};
use crate::transport::{ApiError, Transport};
use crate::world::Loaded;

/// Revocations that are kept. Each is a decision of a person, so there are few.
const MOST: usize = 100_000;
/// Tasks that are found at once.
const PAGE: usize = 256;
/// Tasks that are read at once where all of them are read.
const SCAN: usize = 1_000;
/// Who revokes by the administration socket.
const OWNER: &str = "owner of the administration socket";

impl Engine {
    /// Revokes, or lifts a revocation: an `authz.v1.AdminRevokeRequest`, answered by an `authz.v1.AdminRevokeResponse`.
    ///
    /// From then on everything that the target names is refused, on this node at once. Live tasks of an agent, a subject, a
    /// session, a task end with all below them. They stay ended when the revocation is lifted.
    ///
    /// # Errors
    /// The listener is no administration listener, the request names nothing, nothing that is revoked, or a target whose
    /// revocation is final; or the store fails.
    pub(crate) fn revoke(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let decode = || Ok(());
        let (record, ended) =
            self.api_call(Surface::Revoke, transport, decode, |(), transport, record, _, line| {
                "authz.revoke".clone_into(&mut record.resolved.operation);
                self.revoked(record, request, transport, line)
            });
        record.granted()?;
        let note = record.notes.revoked.as_ref();
        if let Some(note) = note {
            let change =
                if note.undo { RevocationChange::Undone } else { RevocationChange::Revoked };
            self.metrics.revocation(note.target, change);
        }
        let undone = note.is_some_and(|note| note.undo);
        Ok(wire::AdminRevokeResponse { tasks_ended: ended.unwrap_or_default(), undone }
            .encode_to_vec())
    }

    fn revoked(
        &self,
        judgement: &mut Judgement,
        request: &[u8],
        transport: &Transport<'_>,
        line: &RecordOrigin,
    ) -> Result<(u32, Option<KeptRecord>), Refused> {
        let world = self.admit(&judgement.arrival, transport)?;
        if !world.way(transport.listener).is_some_and(|way| way.admin) {
            return Err(Refused::new(
                ReasonCode::EnforcerRefused,
                Step::Identify,
                "only an administration listener revokes",
            ));
        }
        self.check_size(request)?;
        let message = wire::AdminRevokeRequest::decode(request)
            .map_err(|_| Refused::input("the bytes are no AdminRevokeRequest"))?;
        let (target, value) = target(message.target)?;
        let note = RevocationNote {
            target,
            value,
            reason: text("reason", message.reason, limits::REASON)?,
            by: text("by", message.by, limits::REVOKED_BY)?,
            undo: message.undo,
        };
        judgement.notes.revoked = Some(note.clone());
        let wait = self.wait_of(transport);
        let call = ChangeContext { evidence: &[], recorded: line, wait };
        if note.undo {
            return self.undo(judgement, &call, &note, transport);
        }
        match target {
            RevocationTarget::Task | RevocationTarget::Session => {
                self.revoke_tree(judgement, &call, target, &note.value)
            }
            _ => {
                check_subject(&note, &world)?;
                self.revoke_name(judgement, &call, &note, transport)
            }
        }
    }

    /// Ends a tree, or the part of it from a task down. An ended task stays ended, so nothing else is noted.
    fn revoke_tree(
        &self,
        judgement: &mut Judgement,
        call: &ChangeContext<'_>,
        target: RevocationTarget,
        value: &str,
    ) -> Result<(u32, Option<KeptRecord>), Refused> {
        let unknown = |what: &str| {
            Refused::new(ReasonCode::UnknownTask, Step::Locate, format!("there is no such {what}"))
        };
        let (session, top) = if target == RevocationTarget::Task {
            let task = self.keeper.task(value, call.wait)?.ok_or_else(|| unknown("task"))?;
            let session = task.session.clone();
            judgement.context.task = Some(task);
            (session, Some(value))
        } else {
            let key = RecordKey::new(RecordKind::Session, value);
            self.keeper.peek(&key, call.wait)?.ok_or_else(|| unknown("session"))?;
            (value.to_owned(), None)
        };
        let mut ended = 0;
        let kept =
            self.end_tree(judgement, call, &session, top, TaskStatus::Revoked, &mut ended)?;
        Ok((ended, kept))
    }

    /// Ends live tasks in one transaction with the record of it.
    pub(crate) fn end_tree(
        &self,
        judgement: &mut Judgement,
        call: &ChangeContext<'_>,
        session: &str,
        top: Option<&str>,
        status: TaskStatus,
        ended: &mut u32,
    ) -> Result<Option<KeptRecord>, Refused> {
        let now = judgement.arrival.now();
        let retention = self.keeper.settings().retention_ms;
        let mut locks = vec![RecordKey::new(RecordKind::Session, session)];
        // What is taken away from a pair is taken away from the agent that leaves the subject out.
        let world = judgement.arrival.world.clone();
        let is_session = top.is_none() || is_implicit_id(session);
        let alones = match &world {
            Some(world) if is_session && status == TaskStatus::Revoked => {
                self.alones_in(&world.plan, session, call.wait)?
            }
            _ => BTreeMap::new(),
        };
        locks.extend(alones.keys().map(|id| RecordKey::new(RecordKind::Session, id)));
        let mut count = ending::Ended::default();
        let kept = self.change_granted(
            judgement,
            call,
            &locks,
            Survives::PowerLoss,
            &mut |transaction, _| {
                count = ending::end(transaction, session, top, status, now, retention)?;
                *ended = count.ended;
                if let Some(world) = &world {
                    for (alone, task) in &alones {
                        history::bar_alone(transaction, &world.plan, task, alone, (false, now))?;
                    }
                }
                Ok(GrantedChange::new(format!("{ended} tasks ended")))
            },
        )?;
        self.metrics.tasks_ended(status, u64::from(*ended));
        self.metrics.tasks_ended(TaskStatus::Expired, u64::from(count.expired));
        Ok(kept)
    }

    /// The sessions of agents alone that are taken away with a session, each with a task that says whose it is.
    fn alones_in(
        &self,
        plan: &Plan,
        session: &str,
        wait: Wait,
    ) -> Result<BTreeMap<String, Arc<Task>>, Refused> {
        let mut all = BTreeMap::new();
        let mut add = |task: Arc<Task>| {
            let alones = alones_of(plan, &task).into_iter();
            all.extend(alones.map(|alone| (alone.id, Arc::clone(&task))));
        };
        if is_implicit_id(session) {
            self.keeper.task(session, wait)?.into_iter().for_each(add);
            return Ok(all);
        }
        let key = RecordKey::new(RecordKind::Session, session);
        if let Some(Record::Session(known)) = self.keeper.peek(&key, wait)?
            && known.is_taskless()
        {
            let agent = known.agent.as_deref().and_then(|agent| AgentName::parse(agent).ok());
            all.extend(agent.and_then(|agent| alone_without_task(plan, agent)));
            return Ok(all);
        }
        let query = Query::Session(session.to_owned());
        let mut after = String::new();
        loop {
            let found = self.keeper.find(&query, &Page { after, most: PAGE }, wait)?;
            // A tree is bounded when its tasks are started.
            let Some(last) = found.last() else { return Ok(all) };
            after = last.key().id.to_string();
            found.into_iter().for_each(|record| {
                if let Record::Task(task) = record {
                    add(task);
                }
            });
        }
    }

    /// Notes that something is revoked; then nothing that it names is permitted, and its live tasks end.
    fn revoke_name(
        &self,
        judgement: &mut Judgement,
        call: &ChangeContext<'_>,
        note: &RevocationNote,
        transport: &Transport<'_>,
    ) -> Result<(u32, Option<KeptRecord>), Refused> {
        let target = note.target;
        let revoked = self.keeper.store().revocations();
        if revoked.len() >= MOST && revoked.find(target, &note.value).is_none() {
            return Err(Refused::new(
                ReasonCode::Overloaded,
                Step::Record,
                format!("there are {MOST} revocations already"),
            ));
        }
        let at = judgement.arrival.now();
        let by = match note.by.as_str() {
            "" => OWNER.to_owned(),
            by => format!("{by}, by the administration socket"),
        };
        let record = Record::Revocation(Arc::new(Revocation {
            target,
            value: note.value.clone(),
            reason: note.reason.clone(),
            by,
            at,
        }));
        let locks = [record.key()];
        let kept = self.change_granted(
            judgement,
            call,
            &locks,
            Survives::PowerLoss,
            &mut |transaction, _| {
                transaction.put(record.clone());
                Ok(GrantedChange::new(format!("the {} is revoked", target.as_str())))
            },
        )?;
        let ended = self.end_tasks_of(note, transport, at)?;
        Ok((ended, kept))
    }

    /// Lifts a revocation. What ended stays ended.
    fn undo(
        &self,
        judgement: &mut Judgement,
        call: &ChangeContext<'_>,
        note: &RevocationNote,
        transport: &Transport<'_>,
    ) -> Result<(u32, Option<KeptRecord>), Refused> {
        let what = note.target.as_str();
        let instead = match note.target {
            RevocationTarget::Task | RevocationTarget::Session => "start a new task",
            _ => "use a new token",
        };
        if !note.target.is_undoable() {
            return Err(Refused::input(format!(
                "a {what} that ended stays ended, so its revocation cannot be undone; {instead}"
            )));
        }
        for (name, text) in [("reason", &note.reason), ("by", &note.by)] {
            if text.trim().is_empty() {
                return Err(Refused::input(format!("`{name}` is required where `undo` is true")));
            }
        }
        let unknown = || Refused::input(format!("the {what} is not revoked"));
        let revoked = self.keeper.revocations()?;
        let key = revoked.find(note.target, &note.value).ok_or_else(unknown)?;
        let key = Record::Revocation(Arc::clone(key)).key();
        // INVARIANT (ended stays ended): a crash may have come between the revocation and the end of its tasks, and a task may
        // have been started on another node meanwhile. They end while the revocation still stands.
        let ended = self.end_tasks_of(note, transport, judgement.arrival.now())?;
        let locks = [key.clone()];
        let kept = self.change_granted(
            judgement,
            call,
            &locks,
            Survives::PowerLoss,
            &mut |transaction, _| {
                if transaction.get(&key)?.is_none() {
                    return Err(ChangeError::Refused(unknown()));
                }
                transaction.delete(key.clone());
                Ok(GrantedChange::new(format!("the {what} is no longer revoked")))
            },
        )?;
        Ok((ended, kept))
    }

    /// Ends the live tasks of an agent or a subject that is revoked already: nothing is permitted in them meanwhile.
    fn end_tasks_of(
        &self,
        note: &RevocationNote,
        transport: &Transport<'_>,
        now: Time,
    ) -> Result<u32, Refused> {
        let (query, most) = match note.target {
            RevocationTarget::Agent => (Query::LiveOf(note.value.clone()), PAGE),
            RevocationTarget::Subject => (Query::Tasks, SCAN),
            _ => return Ok(0),
        };
        // The session of an agent that works without tasks is no task: it is refused for as long as its agent or subject is. The
        // tasks below a root have its subject, and end with it.
        let is_of = |task: &Task| {
            if task.kind == TaskKind::Implicit {
                return false;
            }
            note.target == RevocationTarget::Agent
                || (task.ancestors.is_empty()
                    && task.subject.as_ref().is_some_and(|subject| {
                        Subject::revocation_name(&subject.issuer, &subject.sub) == note.value
                    }))
        };
        // Each step has a wait of its own, within the call's deadline: there may be many tasks.
        let wait = || self.wait_of(transport);
        let mut ended = 0_u32;
        let mut after = String::new();
        loop {
            let found = self.keeper.find(&query, &Page { after, most }, wait())?;
            let Some(last) = found.last() else { return Ok(ended) };
            after = last.key().id.to_string();
            let tasks = found.into_iter().filter_map(|record| match record {
                Record::Task(task) if is_of(&task) => Some(task),
                _ => None,
            });
            for task in tasks {
                ended = ended.saturating_add(self.end_revoked(&task, wait(), now)?);
            }
        }
    }

    /// Ends one task, with all below it, as revoked.
    fn end_revoked(&self, task: &Task, wait: Wait, now: Time) -> Result<u32, Refused> {
        let locks = [RecordKey::new(RecordKind::Session, &task.session)];
        let retention = self.keeper.settings().retention_ms;
        let mut count = ending::Ended::default();
        let mut work = |transaction: &mut dyn Transaction| {
            // The agent or the subject is revoked itself. An implicit task that was revoked would not begin anew for a while
            // after that is lifted.
            let status = match task.kind {
                TaskKind::Implicit => TaskStatus::Aborted,
                _ => TaskStatus::Revoked,
            };
            let top = Some(task.id.as_str());
            count = ending::end(transaction, &task.session, top, status, now, retention)?;
            Ok(count != ending::Ended::default())
        };
        let commit = self.keeper.transact(&locks, Survives::PowerLoss, wait, &mut work)?;
        self.keeper.kept(commit, wait)?;
        self.metrics.tasks_ended(TaskStatus::Revoked, u64::from(count.ended));
        self.metrics.tasks_ended(TaskStatus::Expired, u64::from(count.expired));
        Ok(count.ended)
    }
}

/// A text of the request, within its bound.
fn text(name: &str, text: String, most: usize) -> Result<String, Refused> {
    if text.len() > most {
        return Err(Refused::input(format!("`{name}` is longer than {most} bytes")));
    }
    Ok(text)
}

/// Refuses a subject of an issuer that is not configured: the revocation would refuse nobody.
fn check_subject(note: &RevocationNote, world: &Loaded) -> Result<(), Refused> {
    let (issuer, _) = note.value.split_once('/').unwrap_or_default();
    let is_known = || world.trust.issuers().iter().any(|known| known.alias == issuer);
    if note.target == RevocationTarget::Subject && !is_known() {
        return Err(Refused::input(format!(
            "`subject` begins with `{issuer}`, and no issuer is configured under that alias"
        )));
    }
    Ok(())
}

/// What is to be revoked.
fn target(target: Option<Target>) -> Result<(RevocationTarget, String), Refused> {
    use RevocationTarget as T;
    let (target, value) = match target {
        Some(Target::Agent(id)) => (T::Agent, id),
        Some(Target::Session(id)) => (T::Session, id),
        Some(Target::Task(id)) => (T::Task, id),
        Some(Target::Jti(id)) => (T::Jti, id),
        Some(Target::Key(id)) => (T::Key, id),
        Some(Target::Operation(id)) => (T::Operation, id),
        Some(Target::System(id)) => (T::System, id),
        Some(Target::Issuer(name)) => (T::Issuer, name),
        Some(Target::Subject(name)) => (T::Subject, name),
        None => return Err(Refused::input("name what to revoke")),
    };
    let what = target.as_str();
    if value.is_empty() || value.len() > limits::REVOKED {
        let most = limits::REVOKED;
        return Err(Refused::input(format!("`{what}` is empty or longer than {most} bytes")));
    }
    let fits = match target {
        T::Agent => SpiffeId::parse(&value).is_ok_and(|id| !id.path().is_empty()),
        T::Operation => value.contains('.'),
        T::System => !value.contains('.'),
        T::Subject => value.split_once('/').is_some_and(|(alias, sub)| {
            !alias.is_empty() && !sub.is_empty() && !value.contains(char::is_control)
        }),
        _ => true,
    };
    if !fits {
        let form = match target {
            T::Agent => "no SPIFFE id of a workload",
            T::Operation => "no operation id, `<system>.<name>`",
            T::Subject => "not the alias of an issuer, `/`, and a `sub`",
            _ => "no system id",
        };
        return Err(Refused::input(format!("`{what}` is {form}")));
    }
    Ok((target, value))
}
