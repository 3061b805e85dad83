//! `authz.v1.Authorizer/Report`: what came of a permitted operation, told once, by whoever may tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{Event, Remembering, Reported, effects};
use authz_kernel::model::Reports;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Record, RecordKey, RecordKind, RecordName, Reservation, Session};
use authz_state::store::{StoreError, Transaction};
use prost::Message;

use crate::ask::{Refused, Step};
use crate::credentials::give_back;
use crate::engine::Engine;
use crate::history;
use crate::judgement::{Judgement, ReportNote};
use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::settings::ReportWay;
use crate::steps::record::{ChangeError, GrantedChange};
use crate::steps::settle::{forget_answer, survives_of};
use crate::tasks::{Caller, Done, bounded};
use crate::world::{Enforcer, Loaded};

/// What is told of a permit, once it is read.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) decision_id: String,
    pub(crate) event: Event,
    /// None: whoever tells cannot see them.
    pub(crate) labels: Option<BTreeSet<String>>,
    pub(crate) actuals: BTreeMap<String, i64>,
}

impl Told {
    fn of(message: &wire::ReportRequest) -> Result<Self, Refused> {
        bounded("decision_id", &message.decision_id)?;
        let event = match wire::ReportResult::try_from(message.result) {
            Ok(wire::ReportResult::Ok) => Event::Done,
            Ok(wire::ReportResult::Failed) => Event::Failed,
            Ok(wire::ReportResult::Aborted) => Event::Aborted,
            Ok(wire::ReportResult::Unspecified) | Err(_) => {
                return Err(Refused::input("`result` is not OK, FAILED or ABORTED"));
            }
        };
        if message.rows != 0 {
            return Err(Refused::input("`rows` is not in this version"));
        }
        if message.labels.len() > limits::LIST || message.actuals.len() > limits::LIST {
            let most = limits::LIST;
            return Err(Refused::input(format!(
                "`labels` or `actuals` has more than {most} items"
            )));
        }
        for name in message.labels.iter().chain(message.actuals.keys()) {
            bounded("labels", name)?;
        }
        Ok(Self {
            decision_id: message.decision_id.clone(),
            event,
            labels: Some(message.labels.iter().cloned().collect()),
            actuals: message.actuals.iter().map(|(name, n)| (name.clone(), *n)).collect(),
        })
    }

    fn note(&self) -> ReportNote {
        ReportNote {
            decision_id: self.decision_id.clone(),
            result: match self.event {
                Event::Done => "OK",
                Event::Failed => "FAILED",
                Event::Aborted => "ABORTED",
                _ => "UNREPORTED",
            },
            labels: self.labels.clone().unwrap_or_default(),
            actuals: self.actuals.clone(),
        }
    }
}

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reporter {
    /// The enforcer that asked, by `Report`.
    Sdk,
    /// The enforcer that asked, by its access log.
    AccessLog,
    /// The agent that acts: it only adds labels, or lets what it was permitted count as done.
    Agent,
}

impl Engine {
    /// Takes what came of a permitted operation.
    pub(crate) fn report(
        &self,
        message: &wire::ReportRequest,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        let told = Told::of(message)?;
        let by = if judgement.arrival.asker.enforcer.is_some() {
            Reporter::Sdk
        } else {
            Reporter::Agent
        };
        self.told(&told, by, judgement, caller)
    }

    /// Settles what is told of a permit, if it is whoever tells whose word counts.
    pub(crate) fn told(
        &self,
        told: &Told,
        by: Reporter,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        let world = &caller.world;
        judgement.notes.reported = Some(told.note());
        let key = RecordKey::new(RecordKind::Reservation, &told.decision_id);
        let Some(Record::Reservation(permit)) = self.keeper.peek(&key, caller.call.wait)? else {
            return Err(no_permit());
        };
        judgement.resolved.operation.clone_from(&permit.operation);
        judgement.resolved.system = world.system(&permit.operation);
        judgement.resolved.tier = Some(permit.tier);
        may_tell(by, judgement, world, &permit)?;
        if by == Reporter::Agent && told.event != Event::Done {
            return Err(refused_reporter("of what it does itself an agent only adds labels"));
        }
        if let Some(labels) = &told.labels {
            world.plan.may_carry(&permit.operation, labels).map_err(Refused::input)?;
        }
        let mut locks = vec![RecordKey::new(RecordKind::Session, &permit.session)];
        locks.extend(permit.remembered_in.iter().map(RecordName::key));
        let answer = permit.idempotency.as_ref();
        locks.extend(answer.map(|id| RecordKey::new(RecordKind::Idempotency, id)));
        let survives = survives_of(permit.tier);
        let mut settled = None;
        let kept = self.change_granted(
            judgement,
            &caller.call,
            &locks,
            survives,
            &mut |transaction, judgement| {
                let now = judgement.arrival.now();
                let Some(Record::Reservation(permit)) = transaction.get(&key)? else {
                    return Err(no_permit().into());
                };
                may_tell(by, judgement, world, &permit)?;
                if permit.due <= now {
                    return Err(no_permit().into());
                }
                if permit.wants_credential && !permit.redeemed {
                    let what = "a credential was asked for, and nobody has redeemed one";
                    return Err(Refused::new(ReasonCode::NotPermitted, Step::Judge, what).into());
                }
                settle(transaction, world, told, by, &permit, now)?;
                let is_over = transaction.get(&key)?.is_none();
                settled = is_over.then_some(permit);
                Ok(GrantedChange::new("what came of the permit is noted"))
            },
        )?;
        if kept.is_some() {
            if let Some(permit) = settled {
                self.open_permits.remove(&permit);
            }
            self.metrics.reported();
        }
        Ok((wire::ReportResponse {}.encode_to_vec(), kept))
    }
}

/// Who may tell what came of a permit.
fn may_tell(
    by: Reporter,
    judgement: &Judgement,
    world: &Loaded,
    permit: &Reservation,
) -> Result<(), Refused> {
    let (way, reporter) = match by {
        Reporter::Agent => {
            let agent = judgement.caller.facts.agent.as_ref().map(|agent| agent.spiffe_id.as_str());
            if agent.is_some_and(|agent| agent == permit.agent) {
                return Ok(());
            }
            let what = "neither the enforcer that asked nor the agent that acts tells";
            return Err(refused_reporter(what));
        }
        Reporter::Sdk => (ReportWay::Sdk, Reports::Sdk),
        Reporter::AccessLog => (ReportWay::AccessLog, Reports::AccessLog),
    };
    if world.plan.model().reports(&permit.operation) != reporter {
        return Err(refused_reporter("the catalog names another reporter for the system, or none"));
    }
    let enforcer = may_report(judgement, way)?;
    if enforcer.name != permit.enforcer {
        return Err(refused_reporter("another enforcer asked"));
    }
    Ok(())
}

/// The enforcer that tells, if it may tell in this way.
pub(crate) fn may_report(judgement: &Judgement, way: ReportWay) -> Result<&Enforcer, Refused> {
    let enforcer = judgement.arrival.asker.enforcer.as_deref();
    enforcer
        .filter(|enforcer| enforcer.may_report(way))
        .ok_or_else(|| refused_reporter("whoever tells is no enforcer whose `reports` says so"))
}

/// Takes over what is told.
fn settle(
    transaction: &mut dyn Transaction,
    world: &Loaded,
    told: &Told,
    by: Reporter,
    permit: &Reservation,
    now: Time,
) -> Result<(), ChangeError> {
    let Some(session) = history::session(transaction, &permit.session)? else {
        return Err(history::lost().into());
    };
    let mut session = Session::clone(&session);
    // An agent's word opens nothing: of what an enforcer performs it only adds labels.
    let event = if by == Reporter::Agent { Event::Unreported } else { told.event };
    let is_over = by != Reporter::Agent || permit.enforcer.is_empty();
    let reported = Reported {
        event,
        operation: &permit.operation,
        labels: told.labels.as_ref(),
        actuals: if by == Reporter::Agent { &NO_AMOUNTS } else { &told.actuals },
        is_abortable: world.plan.is_abortable(&permit.operation),
    };
    if is_over {
        session
            .history
            .check_report(&told.decision_id, &reported)
            .map_err(|what| ChangeError::Refused(Refused::input(what)))?;
        session.history.settle(&told.decision_id, &reported, now);
        if effects(event).spends.releases(reported.is_abortable) {
            give_back(transaction, permit)?;
        }
        if matches!(event, Event::Failed | Event::Aborted) {
            forget_answer(transaction, permit)?;
        }
        transaction.delete(RecordKey::new(RecordKind::Reservation, &permit.decision_id));
    } else {
        let labels = told.labels.as_ref().unwrap_or(&NO_LABELS);
        session.history.raise(&told.decision_id, &permit.operation, labels, now);
    }
    let remembering = world.plan.model().memory_of(&permit.agent).ms;
    let remembering = Remembering { ms: remembering, ..Remembering::default() };
    history::settle_remembered(transaction, permit, &reported, &session.history, remembering)?;
    transaction.put(Record::Session(Arc::new(session)));
    Ok(())
}

/// What counts as done, or as never done, without anybody's word.
///
/// Args: `event`: [`Event::Unreported`], or [`Event::Aborted`] where nothing can come of it any more.
pub(crate) fn settle_unreported(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
    event: Event,
    now: Time,
) -> Result<(), StoreError> {
    let Some(session) = history::session(transaction, &permit.session)? else { return Ok(()) };
    if !session.history.pending.contains_key(&permit.decision_id) {
        return Ok(());
    }
    let mut session = Session::clone(&session);
    session.history.settle(&permit.decision_id, &Reported::plain(event), now);
    transaction.put(Record::Session(Arc::new(session)));
    Ok(())
}

static NO_LABELS: BTreeSet<String> = BTreeSet::new();
static NO_AMOUNTS: BTreeMap<String, i64> = BTreeMap::new();

fn no_permit() -> Refused {
    Refused::new(
        ReasonCode::NotPermitted,
        Step::Judge,
        "there is no permit of that decision, or it counts as done",
    )
}

fn refused_reporter(what: &str) -> Refused {
    Refused::new(ReasonCode::EnforcerRefused, Step::Identify, what)
}
