//! `authz.v1.Admin/Revoke`: the kill switch of the administration listener. Its caller owns the socket, and so may always
//! revoke, and lift a revocation.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Record, RecordKey, RecordKind, Revocation, RevocationTarget, Task, TaskKind, TaskStatus,
    TaskSubject,
};
use authz_state::store::{Page, Query, Survives, Transaction};
use authz_token::SpiffeId;
use prost::Message;

use crate::api_call::{
    ApiCaller, ApiMessage, ApiOutcome, CallerEvidence, GrantedChange, WithRecord as _, check_admin,
};
use crate::ending;
use crate::engine::Engine;
use crate::judgement::{ApiNotes, ApiRecord, RevocationNote};
use crate::keeper::Wait;
use crate::limits;
use crate::metrics::RevocationChange;
use crate::proto::authz::v1 as wire;
use crate::proto::authz::v1::admin_revoke_request::Target;
use crate::refusal::{CallRefusal, Step};
use crate::request::check_length;
use crate::settings::Surface;
use crate::transport::{ApiError, Transport};
use crate::world::{Loaded, Way};

/// Revocations that are kept. Each is a decision of a person, so there are few.
const MAX_REVOCATIONS: usize = 100_000;
/// Tasks that are found at once.
const PAGE: usize = 256;
/// Tasks that are read at once where all of them are read.
const SCAN: usize = 1_000;
/// Revoker of a call that names none.
const OWNER: &str = "owner of the administration socket";

/// A revocation that was written or lifted.
struct RevocationResult {
    target: RevocationTarget,
    /// The revocation was lifted.
    undone: bool,
    tasks_ended: u32,
}

impl ApiMessage for wire::AdminRevokeRequest {
    const OPERATION: &'static str = "authz.revoke";
    const UNREADABLE: &'static str = "the bytes are no AdminRevokeRequest";

    fn evidence(&self) -> CallerEvidence<'_> {
        CallerEvidence::Socket
    }

    fn check_listener(way: Option<&Way>) -> Result<(), CallRefusal> {
        check_admin(way, "only an administration listener revokes")
    }
}

impl Engine {
    /// Revokes, or lifts a revocation: an `authz.v1.AdminRevokeRequest`, answered by an `authz.v1.AdminRevokeResponse`.
    ///
    /// From then on every request that the target names is refused, on this node at once. Live tasks of a revoked agent, subject,
    /// session or task end, with all tasks below them. They stay ended when the revocation is lifted.
    ///
    /// # Errors
    /// The listener is not an administration listener, the request names no target, a target that is not revoked, or one whose
    /// revocation is final; or the store fails.
    pub(crate) fn revoke(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let decode = || self.decode_message::<wire::AdminRevokeRequest>(request);
        let run = |message: &wire::AdminRevokeRequest, caller: &ApiCaller<'_>| {
            self.revoke_target(message, caller)
        };
        let RevocationResult { target, undone, tasks_ended } =
            self.api_call(Surface::Revoke, transport, decode, run)?;
        let change = if undone { RevocationChange::Undone } else { RevocationChange::Revoked };
        self.metrics.revocation(target, change);
        Ok(wire::AdminRevokeResponse { tasks_ended, undone }.encode_to_vec())
    }

    fn revoke_target(
        &self,
        message: &wire::AdminRevokeRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<RevocationResult> {
        let note = read_note(message)?;
        let notes = ApiNotes { revoked: Some(note.clone()), ..ApiNotes::default() };
        let record = ApiRecord { notes, ..ApiRecord::default() };
        let (target, undone) = (note.target, note.undo);
        let outcome = match target {
            _ if undone => self.undo(&note, caller, &record),
            RevocationTarget::Task | RevocationTarget::Session => {
                self.revoke_tree(&note, caller, &record)
            }
            _ => self.revoke_name(&note, caller, &record),
        };
        let revoked = |tasks_ended| RevocationResult { target, undone, tasks_ended };
        outcome.map(|grant| grant.map(revoked)).with_record(&record)
    }

    /// Ends a tree, or the part of it from a task down. An ended task stays ended, so no revocation is written.
    fn revoke_tree(
        &self,
        note: &RevocationNote,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<u32> {
        let unknown = |what: &str| {
            CallRefusal::new(
                ReasonCode::UnknownTask,
                Step::Locate,
                format!("there is no such {what}"),
            )
        };
        let (value, status) = (note.value.as_str(), TaskStatus::Revoked);
        if note.target == RevocationTarget::Task {
            let task = self.keeper.task(value, caller.wait)?.ok_or_else(|| unknown("task"))?;
            let record = ApiRecord::of_task(&task).or(record);
            let outcome = self.end_tree(&task.session, Some(value), status, caller, &record);
            return outcome.with_record(&record);
        }
        let key = RecordKey::new(RecordKind::Session, value);
        self.keeper.peek(&key, caller.wait)?.ok_or_else(|| unknown("session"))?;
        self.end_tree(value, None, status, caller, record)
    }

    /// Writes a revocation; then nothing that it names is permitted, and its live tasks end.
    fn revoke_name(
        &self,
        note: &RevocationNote,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<u32> {
        check_subject(note, &caller.world)?;
        let target = note.target;
        let revoked = self.keeper.store().revocations();
        if revoked.len() >= MAX_REVOCATIONS && revoked.find(target, &note.value).is_none() {
            return Err(CallRefusal::new(
                ReasonCode::Overloaded,
                Step::Record,
                format!("there are {MAX_REVOCATIONS} revocations already"),
            )
            .into());
        }
        let by = match note.by.as_str() {
            "" => OWNER.to_owned(),
            by => format!("{by}, by the administration socket"),
        };
        let revocation = Record::Revocation(Arc::new(Revocation {
            target,
            value: note.value.clone(),
            reason: note.reason.clone(),
            by,
            at: caller.now(),
        }));
        let (locks, survives) = ([revocation.key()], Survives::PowerLoss);
        let grant = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            transaction.put(revocation.clone());
            Ok(GrantedChange::new((), format!("the {} is revoked", target.as_str())))
        })?;
        let ended = self.end_tasks_of(note, caller)?;
        Ok(grant.map(|()| ended))
    }

    /// Lifts a revocation. Ended tasks stay ended.
    fn undo(
        &self,
        note: &RevocationNote,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<u32> {
        check_undo(note)?;
        let what = note.target.as_str();
        let unknown = || CallRefusal::input(format!("the {what} is not revoked"));
        let revoked = self.keeper.revocations()?;
        let revocation = revoked.find(note.target, &note.value).ok_or_else(unknown)?;
        let key = Record::Revocation(Arc::clone(revocation)).key();
        // INVARIANT (ended stays ended): a crash may have come between the revocation and the end of its tasks, and a task may
        // have been started on another node meanwhile. They end while the revocation still stands.
        let ended = self.end_tasks_of(note, caller)?;
        let (locks, survives) = ([key.clone()], Survives::PowerLoss);
        self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            if transaction.get(&key)?.is_none() {
                return Err(unknown().into());
            }
            transaction.delete(key.clone());
            Ok(GrantedChange::new(ended, format!("the {what} is no longer revoked")))
        })
    }

    /// Ends the live tasks of an agent or a subject that is revoked already: nothing is permitted in them meanwhile.
    fn end_tasks_of(
        &self,
        note: &RevocationNote,
        caller: &ApiCaller<'_>,
    ) -> Result<u32, CallRefusal> {
        let (query, most) = match note.target {
            RevocationTarget::Agent => (Query::LiveOf(note.value.clone()), PAGE),
            RevocationTarget::Subject => (Query::Tasks, SCAN),
            _ => return Ok(0),
        };
        // Each step has a wait of its own, within the call's deadline: there may be many tasks.
        let wait = || self.wait_of(caller.transport);
        let mut ended = 0_u32;
        let mut after = String::new();
        loop {
            let records = self.keeper.find(&query, &Page { after, most }, wait())?;
            let Some(last) = records.last() else { return Ok(ended) };
            after = last.key().id.to_string();
            for record in records {
                if let Record::Task(task) = record
                    && names_task(note, &task)
                {
                    ended = ended.saturating_add(self.end_revoked(&task, wait(), caller.now())?);
                }
            }
        }
    }

    /// Ends one task, with all below it, as revoked.
    pub(crate) fn end_revoked(
        &self,
        task: &Task,
        wait: Wait,
        now: Time,
    ) -> Result<u32, CallRefusal> {
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
        self.count_ended(TaskStatus::Revoked, count);
        Ok(count.ended)
    }
}

/// Reads the revocation that a message asks for.
fn read_note(message: &wire::AdminRevokeRequest) -> Result<RevocationNote, CallRefusal> {
    let (target, value) = read_target(message.target.as_ref())?;
    check_length("reason", &message.reason, limits::REASON)?;
    check_length("by", &message.by, limits::REVOKED_BY)?;
    Ok(RevocationNote {
        target,
        value: value.to_owned(),
        reason: message.reason.clone(),
        by: message.by.clone(),
        undo: message.undo,
    })
}

/// Refuses to lift a revocation that is final, or without reason and name.
fn check_undo(note: &RevocationNote) -> Result<(), CallRefusal> {
    let what = note.target.as_str();
    let instead = match note.target {
        RevocationTarget::Task | RevocationTarget::Session => "start a new task",
        _ => "use a new token",
    };
    if !note.target.is_undoable() {
        return Err(CallRefusal::input(format!(
            "a {what} that ended stays ended, so its revocation cannot be undone; {instead}"
        )));
    }
    for (name, text) in [("reason", &note.reason), ("by", &note.by)] {
        if text.trim().is_empty() {
            return Err(CallRefusal::input(format!("`{name}` is required where `undo` is true")));
        }
    }
    Ok(())
}

/// Whether the revocation of an agent or a subject ends a task.
///
/// The session of an agent that works without tasks does not end: it is refused for as long as its agent or subject is revoked.
/// The tasks below a root have its subject, and end with it.
fn names_task(note: &RevocationNote, task: &Task) -> bool {
    if task.kind == TaskKind::Implicit {
        return false;
    }
    let is_of_subject = || {
        task.ancestors.is_empty()
            && task.subject.as_ref().is_some_and(|subject| {
                TaskSubject::revocation_name(&subject.issuer, &subject.sub) == note.value
            })
    };
    note.target == RevocationTarget::Agent || is_of_subject()
}

/// Refuses a subject of an issuer that is not configured: the revocation would refuse nobody.
fn check_subject(note: &RevocationNote, world: &Loaded) -> Result<(), CallRefusal> {
    let (issuer, _) = note.value.split_once('/').unwrap_or_default();
    let is_known = || world.trust.issuers().iter().any(|known| known.alias == issuer);
    if note.target == RevocationTarget::Subject && !is_known() {
        return Err(CallRefusal::input(format!(
            "`subject` begins with `{issuer}`, and no issuer is configured under that alias"
        )));
    }
    Ok(())
}

/// Reads the target of a revocation.
fn read_target(target: Option<&Target>) -> Result<(RevocationTarget, &str), CallRefusal> {
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
        None => return Err(CallRefusal::input("name what to revoke")),
    };
    let what = target.as_str();
    if value.is_empty() || value.len() > limits::REVOKED {
        let most = limits::REVOKED;
        return Err(CallRefusal::input(format!("`{what}` is empty or longer than {most} bytes")));
    }
    let fits = match target {
        T::Agent => SpiffeId::parse(value).is_ok_and(|id| !id.path().is_empty()),
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
        return Err(CallRefusal::input(format!("`{what}` is {form}")));
    }
    Ok((target, value))
}
