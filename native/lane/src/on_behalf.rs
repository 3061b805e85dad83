//! Rule that an agent which acts for a subject shows that subject, and the note that it has acted for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Principal, Time};
use authz_kernel::history::{Holder, SessionHistory};
use authz_kernel::plan::Plan;
use authz_kernel::task::{self, ACTED_MS, Party, Record, RecordKey, carrier_of, subject_refused};
use authz_state::store::{Survives, Transaction};

use crate::engine::Engine;
use crate::history;
use crate::judgement::{CallerIdentity, principal_of};
use crate::keeper::Wait;
use crate::locate::Located;
use crate::refusal::{CallRefusal, Step};

/// The note is written anew no more often, in milliseconds: a day.
const GRAIN_MS: i64 = 24 * 3_600 * 1_000;

/// Time of an agent's note, if the note still counts.
fn noted_at(party: &Party, now: i64) -> Option<i64> {
    party.acted_at.map(|at| at.0).filter(|at| at.saturating_add(ACTED_MS) > now)
}

impl Engine {
    /// Refuses an agent that leaves out a subject that it must show, or shows one that it must not show.
    ///
    /// `in_task` says that the call names a task. Then [`Engine::check_left_out`] looks at the subject of that task.
    pub(crate) fn check_subject(
        &self,
        caller: &CallerIdentity,
        now: Time,
        plan: &Plan,
        in_task: bool,
        wait: Wait,
    ) -> Result<(), CallRefusal> {
        let Some(agent) = &caller.facts.agent else { return Ok(()) };
        let has_subject = has_subject(&caller.chain);
        if in_task && !has_subject {
            return Ok(());
        }
        let acting = principal_of(agent);
        self.check_acting(plan, &acting, has_subject, now.0, wait)
    }

    /// Refuses a task without a subject that its agent began itself, if the agent must show a subject by now, or its right to act
    /// without one was taken away.
    pub(crate) fn check_left_out(
        &self,
        now: Time,
        plan: &Plan,
        located: &Located,
        wait: Wait,
    ) -> Result<(), CallRefusal> {
        let view = located.view();
        let Some(agent) = view.task.agents.last().filter(|_| view.is_left_out()) else {
            return Ok(());
        };
        self.check_acting(plan, &agent.principal(), false, now.0, wait)?;
        match carrier_of(plan, view) {
            Some(alone) => history::refuse_alone_taken_away(&self.keeper, &alone, now, wait),
            None => Ok(()),
        }
    }

    /// Refuses an agent that gets a task for a subject, and may act for no subject.
    pub(crate) fn check_assignee(plan: &Plan, assignee: &str) -> Result<(), CallRefusal> {
        refuse(subject_refused(plan, assignee, true, || Ok::<_, CallRefusal>(false))?)
    }

    fn check_acting(
        &self,
        plan: &Plan,
        agent: &Principal,
        has_subject: bool,
        now: i64,
        wait: Wait,
    ) -> Result<(), CallRefusal> {
        let Principal::Agent { spiffe_id, .. } = agent else { return Ok(()) };
        let has_acted = || -> Result<bool, CallRefusal> {
            let Some(key) = Holder::Agent.key(std::slice::from_ref(agent)) else {
                return Ok(false);
            };
            let known = match self.keeper.peek(&key, wait)? {
                Some(Record::Agent(party)) => noted_at(&party, now),
                _ => None,
            };
            Ok(known.is_some())
        };
        refuse(subject_refused(plan, spiffe_id, has_subject, has_acted)?)
    }

    /// Notes that an agent acts for a subject. From then on the agent must show a subject, unless a role says otherwise.
    pub(crate) fn note_subject(
        &self,
        caller: &CallerIdentity,
        now: Time,
        plan: &Plan,
        wait: Wait,
    ) -> Result<(), CallRefusal> {
        let Some(agent) = &caller.facts.agent else { return Ok(()) };
        let (id, now) = (agent.spiffe_id.as_str(), now.0);
        let is_fresh = |at: i64| now.saturating_sub(at) < GRAIN_MS;
        if !has_subject(&caller.chain) || self.acting_agents.at(id).is_some_and(is_fresh) {
            return Ok(());
        }
        // The rule of a role does not depend on notes.
        if plan.roles().subject_rule(id).is_some() {
            return Ok(());
        }
        let acting = principal_of(agent);
        let Some(key) = Holder::Agent.key(std::slice::from_ref(&acting)) else { return Ok(()) };
        let known = match self.keeper.peek(&key, wait)? {
            Some(Record::Agent(party)) => noted_at(&party, now),
            _ => None,
        };
        if let Some(at) = known.filter(|at| is_fresh(*at)) {
            self.acting_agents.note(id, at);
            return Ok(());
        }
        match self.write_note(&key, now, wait) {
            Ok(()) => self.acting_agents.note(id, now),
            // An older note still counts.
            Err(_) if known.is_some() => {}
            Err(refused) => return Err(refused),
        }
        Ok(())
    }

    fn write_note(&self, key: &RecordKey, now: i64, wait: Wait) -> Result<(), CallRefusal> {
        let mut work = |transaction: &mut dyn Transaction| {
            let known = match transaction.get(key)? {
                Some(Record::Agent(party)) if party.expires_at.0 > now => Some(party),
                _ => None,
            };
            let mut party = known.unwrap_or_else(|| {
                Arc::new(Party {
                    id: key.id.to_string(),
                    history: SessionHistory::new(),
                    denied_at: None,
                    ended_before: None,
                    tasks: BTreeMap::new(),
                    shared: BTreeMap::new(),
                    acted_at: None,
                    expires_at: Time(now),
                    rest: BTreeMap::new(),
                })
            });
            let noted = Arc::make_mut(&mut party);
            noted.acted_at = Some(Time(now));
            noted.expires_at = noted.expires_at.max(Time(now.saturating_add(ACTED_MS)));
            transaction.put(Record::Agent(party));
            Ok(true)
        };
        let locks = std::slice::from_ref(key);
        let commit = self.keeper.transact(locks, Survives::Crash, wait, &mut work)?;
        self.keeper.kept(commit, wait)
    }
}

fn refuse(refused: Option<task::Refused>) -> Result<(), CallRefusal> {
    match refused {
        Some(refused) => Err(CallRefusal::new(refused.reason, Step::Locate, refused.message)),
        None => Ok(()),
    }
}

/// Whether a chain begins with a subject.
fn has_subject(chain: &[Principal]) -> bool {
    chain.first().is_some_and(|first| !matches!(first, Principal::Agent { .. }))
}
