//! The kill switch of the administration listener: its caller owns the socket, and so may always revoke.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Record, RecordKey, RecordKind, Revocation, RevocationTarget, Task, TaskStatus,
};
use authz_state::store::{Page, Query, Survives};
use authz_token::SpiffeId;
use prost::Message;

use crate::ask::{Refused, Step};
use crate::ending;
use crate::engine::{ApiError, Changing, Engine, Kept, Recorded, Transport};
use crate::judgement::Judgement;
use crate::keeper::Wait;
use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::proto::authz::v1::admin_revoke_request::Target;
use crate::settings::Surface;

/// Revocations that are kept. Each is a decision of a person, so there are few.
const MOST: usize = 100_000;
/// Tasks that are found at once.
const PAGE: usize = 256;
/// Who revokes by the administration socket.
const OWNER: &str = "owner of the administration socket";

impl Engine {
    /// Revokes: an `authz.v1.AdminRevokeRequest`, answered by an `authz.v1.AdminRevokeResponse`.
    ///
    /// From then on whatever the target names is refused, on this node at once. Live tasks of an agent, a session, a task
    /// end with all below them.
    ///
    /// # Errors
    /// The listener is no administration listener, the request names nothing, or the store fails.
    pub(crate) fn revoke(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let mut judgement = self.judgement(Surface::Revoke, self.world(), transport);
        "authz.revoke".clone_into(&mut judgement.operation);
        let line = self.recorded(transport);
        let (ended, kept) = match self.revoked(&mut judgement, request, transport, &line) {
            Ok((ended, kept)) => (ended, kept),
            Err(refused) => {
                judgement.refuse(refused);
                (0, None)
            }
        };
        let judgement = self.conclude(judgement, &[], transport, line, kept);
        judgement.granted()?;
        Ok(wire::AdminRevokeResponse { tasks_ended: ended }.encode_to_vec())
    }

    fn revoked(
        &self,
        judgement: &mut Judgement,
        request: &[u8],
        transport: &Transport<'_>,
        line: &Recorded,
    ) -> Result<(u32, Option<Kept>), Refused> {
        let world = self.admit(judgement, transport)?;
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
        if message.reason.len() > limits::REASON {
            return Err(Refused::input(format!(
                "`reason` is longer than {} bytes",
                limits::REASON
            )));
        }
        judgement.revoked = Some((target, value.clone()));
        let wait = Wait { until: self.keeper.until(transport.deadline()), lane: transport.lane };
        let call = Changing { evidence: &[], recorded: line, wait };
        match target {
            RevocationTarget::Task | RevocationTarget::Session => {
                self.revoke_tree(judgement, &call, target, &value)
            }
            _ => self.revoke_name(judgement, &call, target, value, message.reason),
        }
    }

    /// Ends a tree, or the part of it from a task down. An ended task stays ended, so nothing else is noted.
    fn revoke_tree(
        &self,
        judgement: &mut Judgement,
        call: &Changing<'_>,
        target: RevocationTarget,
        value: &str,
    ) -> Result<(u32, Option<Kept>), Refused> {
        let unknown = |what: &str| {
            Refused::new(ReasonCode::UnknownTask, Step::Locate, format!("there is no such {what}"))
        };
        let (session, top) = if target == RevocationTarget::Task {
            let task = self.keeper.task(value, call.wait)?.ok_or_else(|| unknown("task"))?;
            let session = task.session.clone();
            judgement.task = Some(task);
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
        call: &Changing<'_>,
        session: &str,
        top: Option<&str>,
        status: TaskStatus,
        ended: &mut u32,
    ) -> Result<Option<Kept>, Refused> {
        let now = Time(judgement.now_ms);
        let retention = self.keeper.settings().retention_ms;
        let locks = [RecordKey::new(RecordKind::Session, session)];
        let mut count = ending::Ended::default();
        let kept = self.change(
            judgement,
            call,
            &locks,
            Survives::PowerLoss,
            &mut |transaction, judgement| {
                count = ending::end(transaction, session, top, status, now, retention)?;
                *ended = count.ended;
                judgement.grant(format!("{ended} tasks ended"));
                Ok(())
            },
        )?;
        self.metrics.tasks_ended(status, u64::from(*ended));
        self.metrics.tasks_ended(TaskStatus::Expired, u64::from(count.expired));
        Ok(kept)
    }

    /// Notes that something is revoked; then nothing that it names is permitted, and its live tasks end.
    fn revoke_name(
        &self,
        judgement: &mut Judgement,
        call: &Changing<'_>,
        target: RevocationTarget,
        value: String,
        reason: String,
    ) -> Result<(u32, Option<Kept>), Refused> {
        let revoked = self.keeper.store().revocations();
        if revoked.len() >= MOST && revoked.find(target, &value).is_none() {
            return Err(Refused::new(
                ReasonCode::Overloaded,
                Step::Record,
                format!("there are {MOST} revocations already"),
            ));
        }
        let at = Time(judgement.now_ms);
        let record = Record::Revocation(Arc::new(Revocation {
            target,
            value: value.clone(),
            reason,
            by: OWNER.to_owned(),
            at,
        }));
        let locks = [record.key()];
        let kept = self.change(
            judgement,
            call,
            &locks,
            Survives::PowerLoss,
            &mut |transaction, judgement| {
                transaction.put(record.clone());
                judgement.grant(format!("the {} is revoked", target.as_str()));
                Ok(())
            },
        )?;
        let ended = match target {
            RevocationTarget::Agent => self.end_tasks_of(&value, call, at)?,
            _ => 0,
        };
        Ok((ended, kept))
    }

    /// Ends the live tasks of an agent, which is revoked already: nothing is permitted in them meanwhile.
    fn end_tasks_of(&self, agent: &str, call: &Changing<'_>, now: Time) -> Result<u32, Refused> {
        let query = Query::LiveOf(agent.to_owned());
        let retention = self.keeper.settings().retention_ms;
        let mut ended = 0_u32;
        let mut after = String::new();
        loop {
            let found = self.keeper.find(&query, &Page { after, most: PAGE }, call.wait)?;
            let tasks: Vec<Arc<Task>> = found
                .into_iter()
                .filter_map(|record| match record {
                    Record::Task(task) => Some(task),
                    _ => None,
                })
                .collect();
            let Some(last) = tasks.last() else { return Ok(ended) };
            after = last.id.clone();
            for task in &tasks {
                let locks = [RecordKey::new(RecordKind::Session, &task.session)];
                let mut count = ending::Ended::default();
                let mut work = |transaction: &mut dyn authz_state::store::Transaction| {
                    let status = TaskStatus::Revoked;
                    let top = Some(task.id.as_str());
                    count = ending::end(transaction, &task.session, top, status, now, retention)?;
                    Ok(true)
                };
                let survives = Survives::PowerLoss;
                let commit = self.keeper.transact(&locks, survives, call.wait, &mut work)?;
                self.keeper.kept(commit, call.wait)?;
                self.metrics.tasks_ended(TaskStatus::Revoked, u64::from(count.ended));
                self.metrics.tasks_ended(TaskStatus::Expired, u64::from(count.expired));
                ended = ended.saturating_add(count.ended);
            }
        }
    }
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
        _ => true,
    };
    if !fits {
        let form = match target {
            T::Agent => "no SPIFFE id of a workload",
            T::Operation => "no operation id, `<system>.<name>`",
            _ => "no system id",
        };
        return Err(Refused::input(format!("`{what}` is {form}")));
    }
    Ok((target, value))
}
