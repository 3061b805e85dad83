//! The audit record: one JSON line with OPA's decision-log field names where they exist.
//!
//! A record holds what the policies could read: numbers and truth values in clear, texts as digests. It never holds a token.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::arguments::Declared;
use authz_kernel::decision::{Outcome, Principal, ProofMethod};
use authz_kernel::digest::sha256;
use authz_kernel::hex::write_hex;
use authz_kernel::history::{Advance, HistoryChanges, RunChange, SessionHistory, Spending};
use authz_kernel::json::{Value, push_token};
use authz_kernel::model::{Location, Tier};
use authz_kernel::plan::Held;
use authz_kernel::rfc3339;
use authz_kernel::task::Task;
use authz_token::{ClaimValue, Evidence, PeerFacts};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use crate::asked::Asked;
use crate::history;
use crate::judgement::{
    CredentialNote, Judgement, ReportNote, method_of, name_of, outcome_name, principal_of,
};
use crate::limits;
use crate::settings::Settings;
use crate::speaker::PromptNote;
use crate::sums::{Row, Sum};

/// Members, items and levels of arguments that a record repeats; their digest stands for the rest.
const MAX_FACTS: usize = 256;
const MAX_DEPTH: usize = 8;
/// So much of a token's start is taken for the token.
const TOKEN_START: usize = 32;
/// What most records need, so that a line seldom grows while it is written.
const LINE_BYTES: usize = 2_560;
/// What most pointers need.
const POINTER_BYTES: usize = 64;
/// Longest resource that is written in clear.
const MAX_RESOURCE: usize = 600;
/// Longest part of what was asked for that is written in clear.
const MAX_FORM: usize = 600;
/// Roles of a principal that a record repeats.
const MAX_ROLES: usize = 64;

/// What a record takes from the call itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin<'a> {
    pub(crate) peer: &'a str,
    /// W3C Trace Context §3.2.2: (trace id, parent id).
    pub(crate) trace: Option<(&'a str, &'a str)>,
    pub(crate) node_id: &'a str,
    pub(crate) version: &'a str,
}

#[derive(Serialize)]
struct Record<'a> {
    decision_id: &'a str,
    timestamp: String,
    labels: Labels<'a>,
    bundles: Bundles<'a>,
    path: &'a str,
    input: Input<'a>,
    result: Answer<'a>,
    requested_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<&'a str>,
    metrics: Times,
    erased: [&'a str; 0],
    // INVARIANT (last): what is written before it adds to it.
    masked: &'a RefCell<Vec<String>>,
}

#[derive(Serialize)]
struct Labels<'a> {
    id: &'a str,
    version: &'a str,
    listener: &'a str,
    surface: &'a str,
}

/// The bundle that serves, by its name; none where none is loaded.
struct Bundles<'a>(Option<(&'a str, Bundle<'a>)>);

impl Serialize for Bundles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(usize::from(self.0.is_some())))?;
        if let Some((name, bundle)) = &self.0 {
            map.serialize_entry(name, bundle)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Bundle<'a> {
    revision: &'a str,
    digest: &'a str,
}

#[derive(Serialize)]
struct Input<'a> {
    enforcer: &'a str,
    enforcer_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer<'a>>,
    mode: &'a str,
    chain: Chain<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskNote<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a CredentialNote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Revoked<'a>>,
    /// What an administrator has forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    forgotten: Option<Forgotten<'a>>,
    /// What is told of a permit.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a ReportNote>,
    /// Whose word the prompt of a task is.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<PromptNote>,
    operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<usize>,
    /// Where no operation was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Form<'a>>,
    arguments: Option<Facts<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments_digest: Option<Hash>,
    resource: Cow<'a, str>,
    destination_class: &'a str,
    /// Labels that the enforcer says the call carries.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    labels: &'a [String],
    /// Labels that the destination is not cleared for.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    excess: &'a [String],
    /// Rules over the order of events that the call would complete.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    sequences: &'a [String],
    /// Budgets that the call would exceed.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    budgets: &'a [String],
    /// What the task's session did before, where that was recalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionNote<'a>>,
}

/// What a session did before.
#[derive(Serialize)]
struct SessionNote<'a> {
    /// Its id, where it is of what somebody does without a task; else the task says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// The labels that it carries, and the decision that brought each.
    labels: Carried<'a>,
    sources: usize,
    calls: u64,
    /// Labels that its agent remembers of other tasks, where they count, and the decision that brought each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    remembered: BTreeMap<&'a str, &'a str>,
    /// Labels that what it acts on keeps of those that wrote it, and the decision by which each was written.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    written: BTreeMap<&'a str, &'a str>,
    /// Denials in the task's run since something was last let through.
    #[serde(skip_serializing_if = "is_zero")]
    denials: usize,
}

impl<'a> SessionNote<'a> {
    fn of(judgement: &'a Judgement) -> Option<Self> {
        let history = judgement.context.recalled.seen()?;
        let remembered = judgement.context.recalled.remembered(judgement.arrival.now());
        let (session, taskless) = judgement.context.recalled.of_session()?;
        Some(Self {
            id: taskless.then_some(session),
            labels: Carried(history),
            sources: history.count_sources(),
            calls: history.calls,
            remembered: remembered.map(|(label, from)| (label, from.decision_id)).collect(),
            written: judgement
                .context
                .recalled
                .written(judgement.arrival.now())
                .map(|(label, from)| (label, from.decision_id.as_str()))
                .collect(),
            denials: judgement.context.recalled.denials(),
        })
    }
}

/// The labels that a session carries, in order, each with the earliest decision that brought it.
struct Carried<'a>(&'a SessionHistory);

impl Serialize for Carried<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(history) = self;
        let carried = history.carried().map(|(label, from)| (label, from.decision_id));
        if history.pending.is_empty() {
            // Those that stay are in order already.
            return serializer.collect_map(carried);
        }
        let mut labels = BTreeMap::new();
        for (label, decision_id) in carried {
            labels.entry(label).or_insert(decision_id);
        }
        serializer.collect_map(labels)
    }
}

/// What the answer changes in the session.
#[derive(Serialize)]
struct ChangesNote<'a> {
    /// Labels that join.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    labels: BTreeSet<&'a String>,
    /// Labels that what is written keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<&'a BTreeSet<String>>,
    /// Rules over the order of events that the answer is a step of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sequences: Vec<&'a str>,
    /// Budgets that it spends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    budgets: Vec<&'a str>,
    /// What becomes of the task's run of denials: `grows`, `ends`, or `ends_task`.
    #[serde(skip_serializing_if = "Option::is_none")]
    denials: Option<&'static str>,
}

impl<'a> ChangesNote<'a> {
    fn of(changes: &'a HistoryChanges) -> Self {
        Self {
            labels: changes.joining().collect(),
            written: changes.written.as_ref().map(|written| &written.labels),
            sequences: changes.advances.iter().map(Advance::name).collect(),
            budgets: changes.spends.iter().map(Spending::name).collect(),
            denials: changes.run.as_ref().map(|run| match run {
                RunChange::Grows { ends_task: true, .. } => "ends_task",
                RunChange::Grows { .. } => "grows",
                RunChange::Ends { .. } => "ends",
            }),
        }
    }
}

/// The task that was asked in, or about.
#[derive(Serialize)]
struct TaskNote<'a> {
    id: &'a str,
    session: &'a str,
    template: &'a str,
    kind: &'a str,
    depth: u32,
    subject_proof: &'a str,
    assignee: &'a str,
    /// Its agent gave it up before it used it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    declined: bool,
}

impl<'a> TaskNote<'a> {
    fn of(task: &'a Task) -> Self {
        Self {
            id: &task.id,
            session: &task.session,
            template: &task.template,
            kind: task.kind.as_str(),
            depth: task.depth(),
            subject_proof: task.subject_proof.as_str(),
            assignee: task.assignee(),
            declined: task.declined,
        }
    }
}

/// A revocation, or the lifting of one.
#[derive(Serialize)]
struct Revoked<'a> {
    target: &'a str,
    value: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: Cow<'a, str>,
    /// Who, as the owner of the administration socket states it.
    #[serde(skip_serializing_if = "str::is_empty")]
    by: Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undo: bool,
}

/// What an administrator has forgotten.
#[derive(Serialize)]
struct Forgotten<'a> {
    target: &'a str,
    value: Cow<'a, str>,
    denials: bool,
    reason: Cow<'a, str>,
}

/// What was asked for: the words of it.
#[derive(Serialize)]
#[serde(untagged)]
enum Form<'a> {
    Operation {
        operation: Cow<'a, str>,
    },
    Http {
        method: &'a str,
        host: Cow<'a, str>,
        path: Cow<'a, str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        query: Vec<Cow<'a, str>>,
        #[serde(skip_serializing_if = "is_false")]
        body: bool,
    },
}

impl<'a> Form<'a> {
    fn of(asked: &'a Asked, notes: &Notes, evidence: &[Evidence<'_>]) -> Self {
        let shown = |text: &'a str, member: &str| {
            notes.shown(text, &format!("/input/asked/{member}"), MAX_FORM, evidence)
        };
        match asked {
            Asked::Operation(id) => Self::Operation { operation: shown(id, "operation") },
            Asked::Http { method, host, path, query, body } => Self::Http {
                method,
                host: shown(host, "host"),
                path: shown(path, "path"),
                query: query.iter().map(|name| shown(name, "query")).collect(),
                body: *body,
            },
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[derive(Serialize)]
struct Link<'a> {
    kind: &'a str,
    id: Cow<'a, str>,
    /// In the bundle that judged.
    roles: Roles,
    proof: &'a str,
    claims: Claims<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_sha256: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
}

#[derive(Serialize)]
struct Answer<'a> {
    outcome: &'a str,
    reason_code: &'a str,
    public_code: &'a str,
    next_action: &'a str,
    retry: &'a str,
    enforced: bool,
    step: &'a str,
    tier: &'a str,
    step_up_kinds: &'a [String],
    policies: &'a [String],
    /// `file:line` of each of those.
    policies_at: Places<'a>,
    controls: &'a [String],
    obligations: &'a [String],
    message: &'a str,
    /// Where it changes what the session did.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<ChangesNote<'a>>,
    /// The outcome of an earlier record of the same id, which was not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead_of: Option<&'a str>,
}

#[derive(Serialize)]
struct Times {
    #[serde(skip_serializing_if = "Option::is_none")]
    timer_verify_ns: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timer_decide_ns: Option<u128>,
}

/// The record of refusals that have none of their own.
#[derive(Serialize)]
struct SumRecord<'a> {
    decision_id: &'a str,
    timestamp: String,
    labels: SumLabels<'a>,
    sum: SumNote<'a>,
    result: SumAnswer<'a>,
    requested_by: &'a str,
}

#[derive(Serialize)]
struct SumLabels<'a> {
    id: &'a str,
    version: &'a str,
    listener: &'a str,
}

#[derive(Serialize)]
struct SumNote<'a> {
    /// How many refusals.
    count: u64,
    /// Their peer; empty: those of peers beyond the bounds of the table, or of calls that were not read.
    peer: &'a str,
    first: String,
    last: String,
}

#[derive(Serialize)]
struct SumAnswer<'a> {
    outcome: &'a str,
    reason_code: &'a str,
    public_code: &'a str,
    message: String,
}

/// The record of a sum, without a line feed.
pub(crate) fn sum_line(id: &str, now_ms: i64, row: &Row, sum: Sum, settings: &Settings) -> Vec<u8> {
    let record = SumRecord {
        decision_id: id,
        timestamp: rfc3339::millis(now_ms),
        labels: SumLabels {
            id: &settings.node_id,
            version: &settings.version,
            listener: &row.listener,
        },
        sum: SumNote {
            count: sum.count,
            peer: &row.peer,
            first: rfc3339::millis(sum.first_ms),
            last: rfc3339::millis(sum.last_ms),
        },
        // INVARIANT (no permit): only refusals are summed up.
        result: SumAnswer {
            outcome: outcome_name(Outcome::Deny),
            reason_code: row.reason.as_str(),
            public_code: row.reason.row().public_code.as_str(),
            message: format!(
                "a sum of {} refusals of callers of whom nothing was verified",
                sum.count
            ),
        },
        requested_by: &row.peer,
    };
    serde_json::to_vec(&record).unwrap_or_default()
}

/// The record of a decision, without a line feed.
///
/// Args: `evidence`: what was presented, so that no token gets into a record by way of another field. `instead_of`: the
/// outcome of a record of the same decision that this one replaces.
pub(crate) fn line(
    judgement: &Judgement,
    evidence: &[Evidence<'_>],
    origin: Origin<'_>,
    instead_of: Option<Outcome>,
) -> Vec<u8> {
    let decision = judgement.evaluated();
    let notes = Notes::new();
    let resource = decision.map_or("", |decision| decision.resource.as_str());
    let resource = notes.shown(resource, "/input/resource", MAX_RESOURCE, evidence);
    // The kernel's messages hold no values, but they may name an argument that the caller made up.
    let message = notes.shown(judgement.message(), "/result/message", usize::MAX, evidence);
    let row = judgement.reason().row();
    let standing = judgement.decision();
    let bundle = judgement.arrival.world.as_ref().map(|world| {
        (world.name.as_str(), Bundle { revision: &world.revision, digest: &world.digest })
    });
    let record = Record {
        decision_id: &judgement.arrival.id,
        timestamp: rfc3339::millis(judgement.arrival.now_ms),
        labels: Labels {
            id: origin.node_id,
            version: origin.version,
            listener: &judgement.arrival.listener,
            surface: judgement.arrival.surface.as_str(),
        },
        bundles: Bundles(bundle),
        path: judgement.arrival.surface.path(),
        input: Input {
            enforcer: judgement.arrival.asker.name(),
            enforcer_by: judgement.arrival.asker.known.as_str(),
            peer: judgement.arrival.asker.peer.as_ref().map(Peer),
            mode: if judgement.arrival.probe { "PROBE" } else { "ENFORCE" },
            chain: Chain { judgement, notes: &notes },
            task: judgement.context.task.as_deref().map(TaskNote::of),
            credential: judgement.caller.credential.as_ref(),
            revoked: judgement.notes.revoked.as_ref().map(|note| Revoked {
                target: note.target.as_str(),
                value: notes.shown(&note.value, "/input/revoked/value", MAX_RESOURCE, evidence),
                reason: notes.shown(
                    &note.reason,
                    "/input/revoked/reason",
                    limits::REASON,
                    evidence,
                ),
                by: notes.shown(&note.by, "/input/revoked/by", limits::REVOKED_BY, evidence),
                undo: note.undo,
            }),
            forgotten: judgement.notes.forgotten.as_ref().map(|note| Forgotten {
                target: note.target,
                value: notes.shown(&note.value, "/input/forgotten/value", MAX_RESOURCE, evidence),
                denials: note.denials,
                reason: notes.shown(
                    &note.reason,
                    "/input/forgotten/reason",
                    MAX_RESOURCE,
                    evidence,
                ),
            }),
            report: judgement.notes.reported.as_ref(),
            prompt: judgement.notes.prompt,
            operation: &judgement.resolved.operation,
            route: judgement.resolved.route,
            asked: judgement.resolved.asked.as_ref().map(|asked| Form::of(asked, &notes, evidence)),
            arguments: Facts::of(judgement, &notes),
            arguments_digest: decision
                .and_then(|decision| decision.arguments_digest)
                .map(|digest| Hash::from(&digest)),
            resource,
            destination_class: decision.map_or("", |decision| decision.destination_class.as_str()),
            labels: &judgement.caller.declared_labels,
            excess: decision.map_or(&[], |decision| decision.excess.as_slice()),
            sequences: decision.map_or(&[], |decision| decision.sequences.as_slice()),
            budgets: decision.map_or(&[], |decision| decision.budgets.as_slice()),
            session: SessionNote::of(judgement),
        },
        result: Answer {
            outcome: outcome_name(judgement.outcome()),
            reason_code: judgement.reason().as_str(),
            public_code: row.public_code.as_str(),
            next_action: row.next_action.as_str(),
            retry: row.retry.as_str(),
            enforced: judgement.softened().is_none(),
            step: judgement.step().as_str(),
            tier: judgement.resolved.tier.map_or("", Tier::as_str),
            step_up_kinds: standing.map_or(&[], |decision| decision.kinds.as_slice()),
            policies: standing.map_or(&[], |decision| decision.policies.as_slice()),
            policies_at: Places(standing.map_or(&[], |decision| decision.places.as_slice())),
            controls: standing.map_or(&[], |decision| decision.controls.as_slice()),
            obligations: standing.map_or(&[], |decision| decision.obligations.as_slice()),
            message: &message,
            changes: history::changes(judgement).map(ChangesNote::of),
            instead_of: instead_of.map(outcome_name),
        },
        requested_by: origin.peer,
        trace_id: origin.trace.map(|(trace, _)| trace),
        span_id: origin.trace.map(|(_, span)| span),
        metrics: Times {
            timer_verify_ns: judgement.caller.verify_time.map(|time| time.as_nanos()),
            timer_decide_ns: judgement.decide_time().map(|time| time.as_nanos()),
        },
        erased: [],
        masked: &notes.masked,
    };
    let mut line = Vec::with_capacity(LINE_BYTES);
    // Texts and numbers always serialise; were it otherwise, the id still says that something was decided.
    if serde_json::to_writer(&mut line, &record).is_err() {
        line = format!("{{\"decision_id\":\"{}\"}}", judgement.arrival.id).into_bytes();
    }
    line
}

/// What is noted while a record is written.
struct Notes {
    /// JSON pointers of what is left out, or stands as a digest.
    masked: RefCell<Vec<String>>,
    /// JSON pointer of the argument that is being written.
    at: RefCell<String>,
    /// How many more arguments are written.
    left: Cell<usize>,
}

impl Notes {
    fn new() -> Self {
        let mut at = String::with_capacity(POINTER_BYTES);
        at.push_str("/input/arguments");
        Self { masked: RefCell::new(Vec::new()), at: RefCell::new(at), left: Cell::new(MAX_FACTS) }
    }

    /// Notes a pointer.
    fn mask(&self, pointer: String) {
        self.masked.borrow_mut().push(pointer);
    }

    /// A text, or its digest where it is too long or may hold a token.
    fn shown<'a>(
        &self,
        text: &'a str,
        pointer: &str,
        longest: usize,
        evidence: &[Evidence<'_>],
    ) -> Cow<'a, str> {
        if text.len() > longest || carries_token(text, evidence) {
            self.mask(pointer.to_owned());
            return Cow::Owned(Hash::of(text).as_str().to_owned());
        }
        Cow::Borrowed(text)
    }

    fn mask_here(&self) {
        self.mask(self.at.borrow().clone());
    }

    /// Takes one of those that are left; false where none is, or `depth` is too deep.
    fn take(&self, depth: usize) -> bool {
        let left = self.left.get();
        if left == 0 || depth > MAX_DEPTH {
            return false;
        }
        self.left.set(left.saturating_sub(1));
        true
    }
}

/// What the policies could read of the arguments, for Explain; null where they could not be read.
pub(crate) fn facts_of(judgement: &Judgement) -> serde_json::Value {
    let notes = Notes::new();
    let facts = Facts::of(judgement, &notes);
    serde_json::to_value(facts).unwrap_or(serde_json::Value::Null)
}

/// A part of the arguments, written without its free texts.
struct Facts<'a> {
    value: &'a Value,
    /// Of `value`; none where the catalog declares none.
    schema: Option<&'a Declared>,
    depth: usize,
    notes: &'a Notes,
}

impl<'a> Facts<'a> {
    /// None where the arguments could not be read.
    fn of(judgement: &'a Judgement, notes: &'a Notes) -> Option<Self> {
        let arguments = judgement.evaluated()?.arguments.as_ref()?;
        let world = judgement.arrival.world.as_ref();
        let schema = world.and_then(|world| world.plan.declared(&judgement.resolved.operation));
        Some(Self { value: arguments.json(), schema, depth: 0, notes })
    }

    fn part(&self, value: &'a Value, schema: Option<&'a Declared>) -> Self {
        Self { value, schema, depth: self.depth.saturating_add(1), notes: self.notes }
    }
}

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let notes = self.notes;
        if !notes.take(self.depth) {
            notes.mask_here();
            return serializer.serialize_unit();
        }
        let length = notes.at.borrow().len();
        match self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Integer(number) => serializer.serialize_i64(*number),
            // As `serde_json` would read it; what it could not is no number for the reader of a record either.
            Value::Decimal(text) => match text.parse::<serde_json::Number>() {
                Ok(number) => number.serialize(serializer),
                Err(_) => {
                    notes.mask_here();
                    serializer.serialize_unit()
                }
            },
            Value::String(text) if self.schema.is_some_and(|schema| schema.holds(text)) => {
                serializer.serialize_str(text)
            }
            Value::String(text) => {
                notes.mask_here();
                Hash::of(text).serialize(serializer)
            }
            Value::Array(items) => {
                let schema = self.schema.and_then(Declared::items);
                let mut list = serializer.serialize_seq(None)?;
                for (index, item) in items.iter().enumerate() {
                    if notes.left.get() == 0 {
                        notes.mask(format!("{}/{index}", notes.at.borrow()));
                        break;
                    }
                    push_token(&mut notes.at.borrow_mut(), &index.to_string());
                    list.serialize_element(&self.part(item, schema))?;
                    notes.at.borrow_mut().truncate(length);
                }
                list.end()
            }
            Value::Object(members) => {
                let mut object = serializer.serialize_map(None)?;
                for (number, (name, item)) in members.iter().enumerate() {
                    if notes.left.get() == 0 {
                        notes.mask(format!("{}/{number}", notes.at.borrow()));
                        break;
                    }
                    let schema = self.schema.and_then(|schema| schema.member(name));
                    // A member that the schema does not name was written by the caller, its name too.
                    let hash = schema.is_none().then(|| Hash::of(name));
                    let shown = hash.as_ref().map_or(name.as_str(), Hash::as_str);
                    push_token(&mut notes.at.borrow_mut(), shown);
                    object.serialize_entry(shown, &self.part(item, schema))?;
                    notes.at.borrow_mut().truncate(length);
                }
                object.end()
            }
        }
    }
}

/// Who acts, the caller last.
struct Chain<'a> {
    judgement: &'a Judgement,
    notes: &'a Notes,
}

impl Serialize for Chain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { judgement, notes } = *self;
        let mut links = serializer.serialize_seq(None)?;
        let caller = &judgement.caller;
        let refused = caller.refused_agent.as_deref().filter(|_| caller.chain.is_empty());
        let refused_chain = refused.map(|agent| [principal_of(agent)]);
        let chain = refused_chain.as_ref().map_or(caller.chain.as_slice(), <[_; 1]>::as_slice);
        let agent = refused.or(caller.facts.agent.as_deref());
        for (index, principal) in chain.iter().enumerate() {
            let roles =
                judgement.arrival.world.as_ref().map(|world| world.plan.roles_of(principal));
            if roles.as_ref().is_some_and(|roles| roles.iter().len() > MAX_ROLES) {
                notes.mask(format!("/input/chain/{index}/roles"));
            }
            let kind = match principal {
                Principal::Agent { .. } => "Agent",
                Principal::User(_) => "User",
                Principal::Service(_) => "Service",
            };
            // Proved when the task was started, or delegated.
            let link = Link {
                kind,
                id: name_of(principal),
                roles: Roles(roles),
                proof: "task",
                claims: Claims { all: None, index, notes },
                token_sha256: None,
                certificate_sha256: None,
                kid: None,
                issued_at: None,
                expires_at: None,
            };
            let is_caller = index.saturating_add(1) == chain.len();
            let link = match (principal, agent, &caller.facts.subject) {
                (Principal::Agent { .. }, Some(agent), _) if is_caller => Link {
                    proof: method_of(agent.proof).as_str(),
                    token_sha256: agent.token_digest.as_ref().map(Hex::from),
                    certificate_sha256: agent.certificate_digest.as_ref().map(Hex::from),
                    kid: agent.kid.as_deref(),
                    issued_at: agent.issued_at,
                    expires_at: agent.expires_at,
                    ..link
                },
                (Principal::User(_) | Principal::Service(_), _, Some(subject)) => Link {
                    proof: ProofMethod::Jwt.as_str(),
                    claims: Claims { all: Some(&subject.claims), index, notes },
                    token_sha256: Some(Hex::from(&subject.token_digest)),
                    issued_at: subject.issued_at,
                    expires_at: Some(subject.expires_at),
                    ..link
                },
                _ => link,
            };
            links.serialize_element(&link)?;
        }
        links.end()
    }
}

/// The roles of a link, as far as they are written.
struct Roles(Option<Held>);

impl Serialize for Roles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().flat_map(Held::iter).take(MAX_ROLES))
    }
}

/// Where policies stand.
struct Places<'a>(&'a [Location]);

impl Serialize for Places<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|at| format!("{}:{}", at.file, at.line)))
    }
}

/// A verified TLS peer.
struct Peer<'a>(&'a PeerFacts);

impl Serialize for Peer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(facts) = *self;
        let mut peer = serializer.serialize_map(Some(3))?;
        peer.serialize_entry("id", &facts.spiffe_id)?;
        peer.serialize_entry("certificate_sha256", &Hex::from(&facts.certificate_digest))?;
        peer.serialize_entry("expires_at", &facts.expires_at)?;
        peer.end()
    }
}

/// Claims of a link, texts as digests.
struct Claims<'a> {
    all: Option<&'a BTreeMap<String, ClaimValue>>,
    /// Of the link in its chain.
    index: usize,
    notes: &'a Notes,
}

impl Serialize for Claims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_map(None)?;
        for (name, claim) in self.all.into_iter().flatten() {
            match claim {
                ClaimValue::Bool(value) => shown.serialize_entry(name, value)?,
                ClaimValue::Long(value) => shown.serialize_entry(name, value)?,
                ClaimValue::String(text) => shown.serialize_entry(name, &Hash::of(text))?,
                ClaimValue::Set(texts) => shown.serialize_entry(name, &Hashes(texts))?,
            }
            if matches!(claim, ClaimValue::String(_) | ClaimValue::Set(_)) {
                self.notes.mask(format!("/input/chain/{}/claims/{name}", self.index));
            }
        }
        shown.end()
    }
}

/// The digests of texts.
struct Hashes<'a>(&'a BTreeSet<String>);

impl Serialize for Hashes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|text| Hash::of(text)))
    }
}

/// Stands for a text: `sha256:` and its digest in hex.
struct Hash([u8; HASH_START.len() + 64]);

const HASH_START: &[u8; 7] = b"sha256:";

impl Hash {
    fn of(text: &str) -> Self {
        Self::from(&sha256(text.as_bytes()))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<&[u8; 32]> for Hash {
    fn from(digest: &[u8; 32]) -> Self {
        let mut text = [0; HASH_START.len() + 64];
        if let Some((start, rest)) = text.split_first_chunk_mut() {
            *start = *HASH_START;
            write_hex(digest, rest);
        }
        Self(text)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A digest in hex.
struct Hex([u8; 64]);

impl From<&[u8; 32]> for Hex {
    fn from(digest: &[u8; 32]) -> Self {
        let mut text = [0; 64];
        write_hex(digest, &mut text);
        Self(text)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// Whether a text that callers can write into may hold a token, or a good part of one.
fn carries_token(text: &str, evidence: &[Evidence<'_>]) -> bool {
    evidence.iter().any(|item| {
        let start = item.token.get(..TOKEN_START).unwrap_or(item.token);
        !start.is_empty() && text.contains(start)
    }) || looks_like_token(text)
}

/// A compact JWS begins with the Base64 of `{"`; one that was not evidence is a secret all the same, also encoded again.
fn looks_like_token(text: &str) -> bool {
    // Most texts are shorter, or lack a letter of the start, which is found out faster than the start itself.
    let may_hold = |letter| text.len() >= TOKEN_START && text.as_bytes().contains(&letter);
    [("eyJ", b'J'), ("ZXlK", b'Z')].iter().any(|(start, letter)| {
        may_hold(*letter)
            && text.match_indices(start).take(MAX_FACTS).any(|(at, _)| {
                let rest = text.get(at..).unwrap_or_default();
                rest.bytes().take_while(|byte| is_token_byte(*byte)).take(TOKEN_START).count()
                    >= TOKEN_START
            })
    })
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'/' | b'=')
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;
    use std::time::Duration;

    use authz_kernel::arguments::ArgumentSchema;
    use authz_kernel::decision::{Decision, Subject};
    use authz_kernel::reason::ReasonCode;
    use authz_token::{AgentFacts, AgentProof, Facts as Proved, Made, SubjectFacts, SubjectKind};
    use proptest::prelude::*;

    use super::*;
    use crate::judgement::{Arrival, decision_of};
    use crate::settings::Surface;

    /// A decision in which every text is one of `texts`.
    fn judgement(texts: &[String], number: i64) -> Judgement {
        let text = |at: usize| texts.get(at % texts.len()).cloned().unwrap_or_default();
        let mut judgement = Judgement::of(Arrival::new(text(0), number, Surface::Check, None));
        judgement.arrival.listener = text(1);
        judgement.caller.facts = Proved {
            agent: Some(Arc::new(AgentFacts {
                spiffe_id: text(2),
                trust_domain: text(3),
                proof: AgentProof::JwtSvid,
                kid: Some(text(4)),
                issued_at: Some(number),
                expires_at: None,
                token_digest: Some([7; 32]),
                certificate_digest: Some([0xaf; 32]),
                jti: None,
                bound: false,
                audiences: Vec::new(),
            })),
            subject: Some(Arc::new(SubjectFacts {
                issuer: text(5),
                kind: SubjectKind::User,
                sub: text(6),
                token_type: text(0),
                client: text(1),
                kid: None,
                claims: BTreeMap::from([
                    (text(7), ClaimValue::Set(texts.iter().cloned().collect())),
                    (text(8), ClaimValue::String(text(0))),
                    ("long".to_owned(), ClaimValue::Long(number)),
                    ("bool".to_owned(), ClaimValue::Bool(false)),
                ]),
                issued_at: None,
                expires_at: number,
                acr: None,
                auth_time: None,
                may_act: None,
                token_digest: [0x10; 32],
                jti: None,
                bound: false,
                audiences: Vec::new(),
                is_for_alone: false,
                is_alone: false,
                made: Made::default(),
            })),
            ..Proved::default()
        };
        let claims = BTreeMap::new();
        judgement.caller.chain = vec![
            Principal::User(Arc::new(Subject {
                issuer: text(5),
                sub: text(6),
                claims,
                narrowed: Vec::new(),
            })),
            Principal::Agent { spiffe_id: text(2), trust_domain: text(3) },
        ];
        judgement.caller.verify_time = Some(Duration::from_nanos(number.unsigned_abs()));
        judgement.caller.credential =
            Some(CredentialNote { jti: text(7), decision_id: text(8), binding: Some("jkt") });
        let schema = serde_json::json!({ "type": "object" });
        let given = serde_json::json!({
            text(1): text(2),
            text(3): [number, 1.5, null, { text(4): text(5) }],
        });
        let schema = ArgumentSchema::compile(&schema);
        let arguments =
            schema.ok().and_then(|schema| schema.read(&serde_json::to_vec(&given).unwrap()).ok());
        judgement.decided(Box::new(Decision {
            policies: texts.to_vec(),
            places: vec![Location { file: text(3), line: 10_203, column: 4 }],
            controls: texts.to_vec(),
            obligations: texts.to_vec(),
            operation: text(4),
            tier: Some(Tier::High),
            resource: text(5),
            destination_class: text(6),
            arguments_digest: arguments.as_ref().map(|arguments| arguments.digest()),
            arguments: arguments.map(Arc::new),
            message: text(7),
            ..decision_of(Outcome::Permit, ReasonCode::Permitted)
        }));
        judgement
    }

    /// Checks that a record is one strict JSON object on one line, with the id of its decision.
    fn is_one_object(judgement: &Judgement, origin: Origin<'_>) {
        let written = line(judgement, &[], origin, Some(Outcome::StepUp));
        assert!(!written.contains(&b'\n'));
        let object = authz_kernel::json::parse(&written, authz_kernel::json::Limits::default());
        let id = Value::String(judgement.arrival.id.clone());
        assert_eq!(Some(&id), object.unwrap().get("decision_id"));
    }

    proptest! {
        /// Whatever stands in the texts of a decision, no member stands twice, and nothing ends the line.
        #[test]
        fn a_line_is_one_object(
            texts in prop::collection::vec("(?s:.{0,40})|[a-z./:-]{0,90}", 1..10),
            number in any::<i64>(),
        ) {
            let text = |at: usize| texts.get(at % texts.len()).map_or("", String::as_str);
            let origin = Origin {
                peer: text(0),
                trace: Some((text(1), text(2))),
                node_id: text(3),
                version: text(4),
            };
            is_one_object(&judgement(&texts, number), origin);
            let arrival = Arrival::new(String::new(), number, Surface::ExtAuthz, None);
            is_one_object(&Judgement::of(arrival), Origin::default());
        }
    }

    /// A token is found wherever it stands in a text, and also where it is encoded again; a word is none.
    #[test]
    fn tokens_are_found() {
        let token = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJo";
        let again = "ZXlKaGJHY2lPaUpGVXpJMU5pSXNJblI1Y0NJNklrcFhWQ0o5";
        for text in [token, again] {
            assert!(looks_like_token(text));
            assert!(looks_like_token(&format!("a text with {text}, and more after it")));
            assert!(!looks_like_token(text.get(..31).unwrap()));
            assert!(looks_like_token(text.get(..32).unwrap()));
            assert!(!looks_like_token(&format!("{} is no token", text.get(..20).unwrap())));
        }
        assert!(!looks_like_token("JUST A LONG TEXT IN CAPITALS, Z AND ALL"));
    }
}
