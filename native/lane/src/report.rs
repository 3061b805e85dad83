//! `authz.v1.Authorizer/Report`: the outcome of a permitted operation, reported once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decide::TaskVouchers;
use authz_kernel::history::{Event, Remembering, Reported, ValueTerms, effects};
use authz_kernel::model::Reports;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Record, RecordKey, RecordKind, RecordName, Reservation, Session};
use authz_kernel::values::{LearnedValues, ReportedValue};
use authz_state::store::{StoreError, Transaction};

use crate::api_call::{ApiCaller, ApiOutcome, ApiRefusal, GrantedChange, WithRecord as _};
use crate::engine::Engine;
use crate::history;
use crate::judgement::{ApiNotes, ApiRecord, Arrival, ReportNote, ValuesNote};
use crate::keeper::ChangeError;
use crate::limits;
use crate::locate::{self, Located};
use crate::origin_records::{self, OriginRecords};
use crate::permits::give_back;
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::request::check_id;
use crate::result_values::{ResultValue, read_values};
use crate::settings::ReportWay;
use crate::steps::settle::{forget_answer, survives_of};
use crate::world::Enforcer;

/// Report of a permit's outcome.
#[derive(Clone, Debug)]
pub(crate) struct OutcomeReport {
    pub(crate) decision_id: String,
    pub(crate) event: Event,
    /// Labels of the result. Default: the reporter cannot see them.
    pub(crate) labels: Option<BTreeSet<String>>,
    pub(crate) actuals: BTreeMap<String, i64>,
    /// Values of the result.
    pub(crate) values: Vec<ResultValue>,
}

impl OutcomeReport {
    /// The report of an access log, which names no labels: a request that was never sent brought nothing, and the results of any
    /// other are not known here.
    pub(crate) fn logged(decision_id: String, event: Event) -> Self {
        Self {
            decision_id,
            event,
            labels: (event == Event::Aborted).then(BTreeSet::new),
            actuals: BTreeMap::new(),
            values: Vec::new(),
        }
    }

    pub(crate) fn read(message: &wire::ReportRequest) -> Result<Self, CallRefusal> {
        check_id("decision_id", &message.decision_id)?;
        let event = match wire::ReportResult::try_from(message.result) {
            Ok(wire::ReportResult::Ok) => Event::Done,
            Ok(wire::ReportResult::Failed) => Event::Failed,
            Ok(wire::ReportResult::Aborted) => Event::Aborted,
            Ok(wire::ReportResult::Unspecified) | Err(_) => {
                return Err(CallRefusal::input("`result` is not OK, FAILED or ABORTED"));
            }
        };
        if message.rows != 0 {
            return Err(CallRefusal::input("`rows` is not in this version"));
        }
        if message.labels.len() > limits::LIST || message.actuals.len() > limits::LIST {
            let most = limits::LIST;
            return Err(CallRefusal::input(format!(
                "`labels` or `actuals` has more than {most} items"
            )));
        }
        for name in message.labels.iter().chain(message.actuals.keys()) {
            check_id("labels", name)?;
        }
        Ok(Self {
            decision_id: message.decision_id.clone(),
            event,
            labels: Some(message.labels.iter().cloned().collect()),
            actuals: message.actuals.iter().map(|(name, n)| (name.clone(), *n)).collect(),
            values: read_values(message)?,
        })
    }

    /// Members of the audit record that tell of the report.
    fn record(&self) -> ApiRecord {
        self.record_with(None)
    }

    /// As [`Self::record`], with the numbers of values.
    fn record_with(&self, learned: Option<LearnedValues>) -> ApiRecord {
        let note = ReportNote {
            decision_id: self.decision_id.clone(),
            result: match self.event {
                Event::Done => "OK",
                Event::Failed => "FAILED",
                Event::Aborted => "ABORTED",
                _ => "UNREPORTED",
            },
            labels: self.labels.clone().unwrap_or_default(),
            actuals: self.actuals.clone(),
            values: learned.map(|learned| ValuesNote {
                kept: learned.kept,
                unlifted: learned.unlifted,
                invalid: learned.invalid,
                full: learned.full,
            }),
        };
        let notes = ApiNotes { reported: Some(note), ..ApiNotes::default() };
        ApiRecord { notes, ..ApiRecord::default() }
    }

    fn permit_key(&self) -> RecordKey {
        RecordKey::new(RecordKind::Reservation, &self.decision_id)
    }
}

/// Party that reports an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reporter {
    /// The enforcer that asked, by `Report`.
    Sdk,
    /// The enforcer that asked, by its access log.
    AccessLog,
    /// The agent that acts. It only adds labels, or lets the permitted operation count as done.
    Agent,
}

impl Engine {
    /// Takes the report of a permitted operation.
    pub(crate) fn report_outcome(
        &self,
        message: &wire::ReportRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::ReportResponse> {
        let report = OutcomeReport::read(message)?;
        let reporter = match &caller.asker().enforcer {
            Some(_) => Reporter::Sdk,
            None => Reporter::Agent,
        };
        let outcome = self.settle_report(&report, reporter, caller);
        outcome.map(|grant| grant.map(|()| wire::ReportResponse {}))
    }

    /// Settles a permit by a report, if the reporter may report it.
    pub(crate) fn settle_report(
        &self,
        report: &OutcomeReport,
        reporter: Reporter,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<()> {
        let record = report.record();
        let permit = self.keeper.peek(&report.permit_key(), caller.wait).with_record(&record)?;
        let Some(Record::Reservation(permit)) = permit else {
            return Err(ApiRefusal::from(no_permit()).with_record(&record));
        };
        let system = caller.world.system(&permit.operation);
        let record = record.or(&ApiRecord::of_operation(&permit.operation, system, permit.tier));
        check_report(report, reporter, &permit, caller).with_record(&record)?;
        self.write_report(report, reporter, &permit, caller, &record)
    }

    fn write_report(
        &self,
        report: &OutcomeReport,
        reporter: Reporter,
        permit: &Reservation,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<()> {
        let mut locks = vec![RecordKey::new(RecordKind::Session, &permit.session)];
        locks.extend(permit.remembered_in.iter().map(RecordName::key));
        let answer = permit.idempotency.as_ref();
        locks.extend(answer.map(|id| RecordKey::new(RecordKind::Idempotency, id)));
        let survives = survives_of(permit.tier);
        let grant = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            let settled = self.report_in(transaction, report, reporter, caller)?;
            let change = GrantedChange::new(settled.permit, "what came of the permit is noted");
            Ok(change.with_record(report.record_with(settled.learned)))
        })?;
        if let Some(settled) = &grant.answer {
            self.open_permits.remove(settled);
        }
        self.metrics.reported();
        Ok(grant.map(|_| ()))
    }
}

/// Refuses a report that its reporter may not make, or whose labels the operation cannot carry.
fn check_report(
    report: &OutcomeReport,
    reporter: Reporter,
    permit: &Reservation,
    caller: &ApiCaller<'_>,
) -> Result<(), CallRefusal> {
    check_reporter(reporter, permit, caller)?;
    if reporter == Reporter::Agent && report.event != Event::Done {
        return Err(refused_reporter("of what it does itself an agent only adds labels"));
    }
    // The agent chooses the values of its own results, so its report could make any value a known value of the session.
    if reporter == Reporter::Agent && !report.values.is_empty() {
        let message = "only an enforcer may report `values`; leave them out, and report the rest";
        return Err(CallRefusal::input(message));
    }
    match &report.labels {
        Some(labels) => caller
            .plan()
            .may_carry(&permit.operation, labels)
            .map_err(|error| CallRefusal::input(error.to_string())),
        None => Ok(()),
    }
}

/// Refuses a reporter that may not report the outcome of a permit.
fn check_reporter(
    reporter: Reporter,
    permit: &Reservation,
    caller: &ApiCaller<'_>,
) -> Result<(), CallRefusal> {
    let (way, reports) = match reporter {
        Reporter::Agent if caller.is_agent(&permit.agent) => return Ok(()),
        Reporter::Agent => {
            let message = "neither the enforcer that asked nor the agent that acts tells";
            return Err(refused_reporter(message));
        }
        Reporter::Sdk => (ReportWay::Sdk, Reports::Sdk),
        Reporter::AccessLog => (ReportWay::AccessLog, Reports::AccessLog),
    };
    if caller.plan().model().reports(&permit.operation) != reports {
        return Err(refused_reporter("the catalog names another reporter for the system, or none"));
    }
    let enforcer = reporting_enforcer(&caller.arrival, way)?;
    if enforcer.name != permit.enforcer {
        return Err(refused_reporter("another enforcer asked"));
    }
    Ok(())
}

/// The enforcer that reports, if it may report in this way.
pub(crate) fn reporting_enforcer(
    arrival: &Arrival,
    way: ReportWay,
) -> Result<&Enforcer, CallRefusal> {
    let enforcer = arrival.asker.enforcer.as_deref();
    enforcer
        .filter(|enforcer| enforcer.may_report(way))
        .ok_or_else(|| refused_reporter("whoever tells is no enforcer whose `reports` says so"))
}

/// Result of settling a permit.
struct SettledReport {
    /// The permit, if it is over.
    permit: Option<Arc<Reservation>>,
    /// Numbers of reported values. `None`: the report has none.
    learned: Option<LearnedValues>,
}

impl Engine {
    /// Settles a permit in a transaction.
    fn report_in(
        &self,
        transaction: &mut dyn Transaction,
        report: &OutcomeReport,
        reporter: Reporter,
        caller: &ApiCaller<'_>,
    ) -> Result<SettledReport, ChangeError> {
        let now = caller.now();
        let Some(Record::Reservation(permit)) = transaction.get(&report.permit_key())? else {
            return Err(no_permit().into());
        };
        check_reporter(reporter, &permit, caller)?;
        if permit.due <= now {
            return Err(no_permit().into());
        }
        if permit.wants_credential && !permit.redeemed {
            let message = "a credential was asked for, and nobody has redeemed one";
            return Err(CallRefusal::new(ReasonCode::NotPermitted, Step::Judge, message).into());
        }
        let learned = self.settle(transaction, report, reporter, &permit, caller)?;
        let is_over = transaction.get(&report.permit_key())?.is_none();
        Ok(SettledReport { permit: is_over.then_some(permit), learned })
    }

    /// Writes the outcome of a permit into the history of its session.
    fn settle(
        &self,
        transaction: &mut dyn Transaction,
        report: &OutcomeReport,
        reporter: Reporter,
        permit: &Reservation,
        caller: &ApiCaller<'_>,
    ) -> Result<Option<LearnedValues>, ChangeError> {
        let (plan, now) = (caller.plan(), caller.now());
        let Some(session) = history::session(transaction, &permit.session)? else {
            return Err(history::lost().into());
        };
        let mut session = Session::clone(&session);
        // Reports from the acting agent can only add labels to an operation that an enforcer performs.
        let is_agent = reporter == Reporter::Agent;
        let event = if is_agent { Event::Unreported } else { report.event };
        let is_over = !is_agent || permit.enforcer.is_empty();
        let reported = Reported {
            event,
            operation: &permit.operation,
            labels: report.labels.as_ref(),
            actuals: if is_agent { &NO_AMOUNTS } else { &report.actuals },
            is_abortable: plan.is_abortable(&permit.operation),
        };
        if is_over {
            session
                .history
                .check_report(&report.decision_id, &reported)
                .map_err(|error| ChangeError::Refused(CallRefusal::input(error.to_string())))?;
            session.history.settle(&report.decision_id, &reported, now);
            if effects(event).spends.releases(reported.is_abortable) {
                give_back(transaction, permit)?;
            }
            if matches!(event, Event::Failed | Event::Aborted) {
                forget_answer(transaction, permit)?;
            }
            transaction.delete(RecordKey::new(RecordKind::Reservation, &permit.decision_id));
        } else {
            let labels = report.labels.as_ref().unwrap_or(&NO_LABELS);
            session.history.raise(&report.decision_id, &permit.operation, labels, now);
        }
        let learned = match report.values.is_empty() {
            true => None,
            false => Some(self.learn(transaction, report, permit, &mut session, caller)?),
        };
        let memory = plan.roles().memory_of(&permit.agent);
        let remembering = Remembering { ms: memory.ms, ..Remembering::default() };
        history::settle_remembered(transaction, permit, &reported, &session.history, remembering)?;
        transaction.put(Record::Session(Arc::new(session)));
        Ok(learned)
    }

    /// Adds fingerprints of the reported values to those that the session knows.
    fn learn(
        &self,
        transaction: &mut dyn Transaction,
        report: &OutcomeReport,
        permit: &Reservation,
        session: &mut Session,
        caller: &ApiCaller<'_>,
    ) -> Result<LearnedValues, StoreError> {
        let plan = caller.plan();
        let nothing = ValueTerms::default();
        let terms = permit.values.as_ref().unwrap_or(&nothing);
        let values: Vec<ReportedValue<'_>> =
            report.values.iter().map(ResultValue::reported).collect();
        // A call without a task has no prompt, and nobody vouches by one.
        let located = locate::find_in(transaction, &permit.task).ok();
        let words = match &located {
            Some(located) => OriginRecords::of_task(located.view(), |key| transaction.get(key))?,
            None => OriginRecords::default(),
        };
        let secret = self.keeper.store().secret();
        let now = session.history.now(caller.now());
        let vouchers = TaskVouchers {
            plan,
            task: located.as_ref().map(Located::view),
            words: words.words(),
            literal_key: &secret,
            recipient_lists: &caller.world.recipient_lists,
            now,
        };
        let of = (permit.operation.as_str(), terms);
        let key = self.keeper.value_key();
        origin_records::change_values(transaction, session, now, |known| {
            plan.learn_values(of, &values, &vouchers, key, (known, now))
        })
    }
}

static NO_LABELS: BTreeSet<String> = BTreeSet::new();
static NO_AMOUNTS: BTreeMap<String, i64> = BTreeMap::new();

fn no_permit() -> CallRefusal {
    CallRefusal::new(
        ReasonCode::NotPermitted,
        Step::Judge,
        "there is no permit of that decision, or it counts as done",
    )
}

fn refused_reporter(message: &str) -> CallRefusal {
    CallRefusal::new(ReasonCode::EnforcerRefused, Step::Identify, message)
}
