//! Escalation paths: calls that a set of agents could reach together.
//!
//! Parts, in the order of the analysis:
//!
//! 1. [`guard`]: conditions of policies, with facts that are known and others that are not.
//! 2. [`ways`]: how each agent can come to act: its chain of principals and its task.
//! 3. [`taint`]: labels of the data that each way can have read, by a fixpoint that never leaves a possible call out.
//! 4. [`inputs`], [`prompts`], [`runner`], [`search`]: traces of concrete calls, which the engine of `authz test` permits call by call.
//! 5. [`findings`]: rules over paths; [`cut`]: the smallest set of changes that removes a path.
//! 6. [`leases`]: secrets of brokers that permit more than their operation.
//! 7. [`breakglass`]: the rules again, with break-glass in force.
//!
//! A rule that the fixpoint does not reach is *proved*, under [`ASSUMPTIONS`]. A rule that a trace reaches is a *path*. All other
//! rules are *not decided*.

pub mod breakglass;
pub mod cut;
pub mod findings;
pub mod guard;
pub mod inputs;
pub mod leases;
pub mod prompts;
pub mod runner;
pub mod search;
pub mod taint;
pub mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use authz_kernel::decision::{Outcome, Time};
use authz_kernel::lint::LintFacts;
use authz_kernel::model::{Location, PERSON, Tier, TierApproval};
use authz_kernel::plan::{Plan, PlanCompiler};
use authz_kernel::schema::{GIVE, OWN_SYSTEM, quote};
use serde_json::Value;

use crate::guards::{GuardAnswer, Guards};
use crate::input::{AnalyzeRequest, InputError, Lease};
use crate::report::{
    ASSERTION, Change, Cut, Finality, Finding, Place, Proof, Report, Severity, Step,
};
use findings::{PathRule, RuleResult};
use guard::{CallFacts, Conditions};
use inputs::ListedRecipients;
use runner::{CallResult, Runner, Trace};
use search::{SearchBudget, Searcher, Target};
use taint::Taints;
use ways::{Beginning, Parties, Way, Ways};

/// Traces that an analysis runs.
const MOST_RUNS: usize = 40_000;
/// Time for which an analysis searches.
const SEARCH_TIME: Duration = Duration::from_secs(60);
/// Rounds in which a cut is refined.
const MOST_ROUNDS: usize = 16;

/// Facts that the proofs about paths take for true.
pub const ASSUMPTIONS: [&str; 10] = [
    "Agents with the same roles act alike, and so do people with the same roles; an agent holds the roles of one or two patterns \
     and of those that match the same ids, and a person holds the roles of one claim, or all roles of an issuer.",
    "An operation reads, writes and sends what its `classify` rule says, and the labels of the bundle are right.",
    "Agents are isolated as their role says, and forget what they read when the `memory` of their role ends.",
    "People make no calls themselves: only calls of agents are looked at.",
    "A call sends the data that was read before it, the data of its resource and, with the effect `export`, the data that it yields.",
    "Data leaves a system only through operations of the catalog. What people see on a screen and type elsewhere is not followed.",
    "Enforcers ask about every call, and report no labels beside those of the bundle.",
    "No subject is asserted: each is proved by its token.",
    "No task credential, and no certificate key, is in other hands.",
    "`mode` is as at the time of the analysis.",
];

/// Further assumption of a bundle with policies that depend on break-glass.
pub const WITHOUT_BREAKGLASS: &str =
    "No break-glass is in force. The rule `exception-on-path` looks at calls with break-glass.";

/// Answer of an oracle about one operation and one type of principal.
#[derive(Clone, Debug, PartialEq)]
pub enum OracleAnswer {
    /// Such a request exists: arguments with which it does.
    Yes(Vec<Value>),
    /// Proved: no such request is permitted.
    No,
    /// Not decided. The analysis takes it for possible.
    Unknown,
}

/// Decides whether policies can permit a request.
pub trait GuardOracle {
    /// Whether a request of a principal of the type, for which the constraint holds, can be permitted.
    ///
    /// Args: `constraint`: a Cedar expression over `principal`, `resource` and `context`.
    fn can_be_permitted(
        &self,
        operation: &str,
        principal_type: &str,
        constraint: &str,
    ) -> OracleAnswer;
}

/// An oracle that decides nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOracle;

impl GuardOracle for NoOracle {
    fn can_be_permitted(&self, _: &str, _: &str, _: &str) -> OracleAnswer {
        OracleAnswer::Unknown
    }
}

impl GuardOracle for Guards<'_> {
    fn can_be_permitted(
        &self,
        operation: &str,
        principal_type: &str,
        constraint: &str,
    ) -> OracleAnswer {
        match Guards::can_be_permitted(self, operation, principal_type, constraint) {
            GuardAnswer::Unsatisfiable => OracleAnswer::No,
            GuardAnswer::Unknown(_) => OracleAnswer::Unknown,
            GuardAnswer::Satisfiable(example) => {
                let input = example.document.pointer("/context/input").cloned();
                OracleAnswer::Yes(input.into_iter().filter(Value::is_object).collect())
            }
        }
    }
}

/// A bundle to be analyzed.
#[derive(Clone, Debug)]
pub struct PathsInput {
    /// The compiled bundle.
    pub plan: Arc<Plan>,
    /// Files of the bundle, by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Values of its variables.
    pub vars: BTreeMap<String, String>,
    /// Leases of the configuration.
    pub leases: Vec<Lease>,
    /// The time.
    pub now: Time,
}

/// Findings and proofs about paths.
#[derive(Clone, Debug, Default)]
pub struct PathResults {
    /// Findings.
    pub findings: Vec<Finding>,
    /// Rules that hold.
    pub proved: Vec<Proof>,
    /// Principals that were looked at.
    pub principals: usize,
    /// Assertions of the bundle.
    pub assertions: usize,
    /// Rules that are not decided for some operation.
    pub not_decided: usize,
}

/// An analysis while it runs.
pub struct Analysis<'r, 'a> {
    /// The fixpoint.
    pub taints: &'a Taints<'a>,
    /// Searches traces.
    pub searcher: Searcher<'r, 'a>,
    /// Decides about guards.
    pub oracle: &'r dyn GuardOracle,
    /// Ids of Authz's own operations.
    pub own: Vec<String>,
    /// Operations that each agent could be permitted when it acts itself.
    pub direct: Vec<BTreeSet<usize>>,
    /// Systems at which break-glass makes a difference.
    pub accepting: BTreeSet<String>,
    /// Traces are searched. False: a call that the fixpoint reaches is open.
    pub is_searching: bool,
}

impl PathResults {
    /// Adds the results to a report.
    pub fn join(self, report: &mut Report) {
        report.findings.extend(self.findings);
        report.proved.extend(self.proved);
        report.counts.principals = self.principals;
        report.counts.assertions = self.assertions;
        report.counts.not_decided += self.not_decided;
        report.sort();
    }
}

impl PathsInput {
    /// The bundle of a request.
    ///
    /// # Errors
    /// A file is not Base64.
    pub fn new(request: &AnalyzeRequest, plan: &Arc<Plan>) -> Result<Self, InputError> {
        Ok(Self {
            plan: Arc::clone(plan),
            files: request.bundle.contents()?,
            vars: request.bundle.vars.clone(),
            leases: request.leases.clone(),
            now: Time(request.options.now_ms),
        })
    }

    /// Looks for paths.
    #[must_use]
    pub fn analyze(&self, oracle: &dyn GuardOracle) -> PathResults {
        let without = BTreeSet::new();
        let mut results = PathResults::default();
        let (answers, systems) = self.with_analysis(oracle, &without, |analysis| {
            let answers = self.rules(analysis, &mut results);
            if analysis.accepting.is_empty() {
                Self::unused(analysis, &mut results);
            }
            for finding in &mut results.findings {
                if finding.verdict == Finality::Proved {
                    finding.assumptions = analysis.assumptions();
                }
            }
            self.leases(analysis, &mut results);
            (answers, analysis.accepting.clone())
        });
        if !systems.is_empty() {
            self.with_breakglass(&systems, &answers, oracle, &mut results);
        }
        results
    }

    /// Runs an analysis with its fixpoint.
    ///
    /// Args: `breakglass`: systems at which break-glass is in force.
    fn with_analysis<T>(
        &self,
        oracle: &dyn GuardOracle,
        breakglass: &BTreeSet<String>,
        run: impl FnOnce(&mut Analysis<'_, '_>) -> T,
    ) -> T {
        let plan = &*self.plan;
        let conditions = Conditions::new(plan);
        let parties = Parties::new(plan, &conditions);
        let ways = Ways::new(plan, &conditions, &parties, self.now);
        let taints = Taints::new(plan, &conditions, (&parties, &ways), breakglass, self.now);
        let listed = ListedRecipients::read(plan.model(), plan.operations(), &self.files);
        let runner = Runner::new(&self.plan, &conditions, &taints, listed, self.now);
        let searcher = Searcher {
            conditions: &conditions,
            taints: &taints,
            model: plan.model(),
            runner,
            budget: SearchBudget::new(MOST_RUNS, SEARCH_TIME),
        };
        let guards = plan.operation_guards();
        let own = guards.iter().filter(|guard| guard.operation.system == OWN_SYSTEM);
        let own = own.map(|guard| guard.operation.id.clone()).collect();
        let direct = findings::direct(&taints);
        let accepting = breakglass::systems(plan, &conditions);
        let mut analysis = Analysis {
            taints: &taints,
            searcher,
            oracle,
            own,
            direct,
            accepting,
            is_searching: true,
        };
        run(&mut analysis)
    }

    /// Checks every rule without break-glass, except for authority that nobody uses.
    fn rules(&self, analysis: &mut Analysis<'_, '_>, results: &mut PathResults) -> RuleAnswers {
        let model = self.plan.model();
        let parties = analysis.taints.parties;
        results.principals = parties.agents.len() + parties.subjects.len();
        results.assertions = model.analysis.assertions.len();
        let assertions = model.analysis.assertions.iter().map(PathRule::of);
        let rules: Vec<PathRule> = assertions.chain(findings::built_in(model)).collect();
        let of_rule = |rule| {
            let answers = self.rule(&rule, analysis, results);
            (rule, answers)
        };
        let rules = rules.into_iter().map(of_rule).collect();
        contradictions(analysis, results);
        self.step_ups(results);
        let approvals = self.approvals(analysis, results);
        self.exceptions(analysis, results);
        RuleAnswers { rules, approvals }
    }

    /// One rule, for all operations.
    fn rule(
        &self,
        rule: &PathRule,
        analysis: &mut Analysis<'_, '_>,
        results: &mut PathResults,
    ) -> NotClosed {
        let mut answers = NotClosed::new();
        for (id, index) in findings::ids(analysis) {
            match analysis.judge(rule, index) {
                RuleResult::Closed => {}
                RuleResult::Path(found) => {
                    answers.insert(id.clone(), Finality::PathFound);
                    let (target, trace) = *found;
                    let finding = self.path(rule, &id, (&target, &trace), analysis);
                    results.findings.push(finding);
                }
                RuleResult::Open(reason) => {
                    answers.insert(id.clone(), Finality::NotDecided);
                    results.not_decided += 1;
                    let of = (Severity::of_open(&rule.name), Finality::NotDecided);
                    let message = format!(
                        "it is not decided whether `{id}` can be called so that {}",
                        text(rule)
                    );
                    results.findings.push(Finding {
                        reason,
                        location: Place::of(&rule.at),
                        ..Finding::new(&rule.name, &subject(rule, &id), of, message)
                    });
                }
            }
        }
        if answers.is_empty() {
            results.proved.push(Proof {
                rule: rule.name.clone(),
                subject: subject(rule, ""),
                assumptions: analysis.assumptions(),
            });
        }
        answers
    }

    /// A finding with its trace, its case and its cut.
    fn path(
        &self,
        rule: &PathRule,
        id: &str,
        (target, trace): (&Target, &Trace),
        analysis: &Analysis<'_, '_>,
    ) -> Finding {
        let severity = match rule.name.as_str() {
            "label-lost" | "confused-deputy" => Severity::Warning,
            _ => Severity::Error,
        };
        let message = format!("`{id}` can be called so that {}", text(rule));
        let path = Self::steps(trace, analysis);
        let mut policies: Vec<String> = Vec::new();
        for policy in trace.calls.iter().flat_map(|call| &call.decision.policies) {
            if !policies.contains(policy) {
                policies.push(policy.clone());
            }
        }
        let expected = if lifting_kind(rule).is_none() { "DENY" } else { "STEP_UP" };
        let name = format!("{}: {message}", rule.name);
        // A test compares outcomes, and that of a call which `mode` lets through is a refusal.
        let is_testable = trace.calls.iter().all(|call| call.decision.outcome == Outcome::Permit);
        let acr = analysis.searcher.runner.acr();
        let case = match is_testable {
            true => runner::case(analysis.taints, &self.plan, &name, trace, expected, acr),
            false => String::new(),
        };
        Finding {
            policies,
            location: Place::of(&rule.at).or_else(|| Self::last_place(trace)),
            path,
            cut: self.cut(rule, id, (target, trace), analysis),
            case,
            ..Finding::new(&rule.name, &subject(rule, id), (severity, Finality::PathFound), message)
        }
    }

    fn last_place(trace: &Trace) -> Option<Place> {
        let last = trace.calls.last()?;
        last.decision.places.first().and_then(Place::of)
    }

    fn steps(trace: &Trace, analysis: &Analysis<'_, '_>) -> Vec<Step> {
        let taints = analysis.taints;
        let mut steps: Vec<Step> = breakglass::steps(trace, taints);
        let mut has_pivot = false;
        for at in 0..=trace.calls.len() {
            for begun in trace.begun.iter().filter(|begun| begun.before == at) {
                let Some(way) = taints.ways.all.get(begun.way) else { continue };
                let mut step = begun_step(taints, way);
                if !trace.circumstances.prompt.is_empty()
                    && !matches!(way.beginning, Beginning::Delegated(_))
                {
                    let _ = write!(step.note, "; {}", named_in_prompt(trace, way));
                }
                step.step = steps.len() + 1;
                // Authority changes hands where one agent gives a task to another.
                let is_given = match way.beginning {
                    Beginning::Delegated(_) => true,
                    Beginning::ByAgent(starter) => starter != way.agent(),
                    _ => false,
                };
                step.is_pivot = is_given && !has_pivot;
                has_pivot |= step.is_pivot;
                steps.push(step);
            }
            let Some(call) = trace.calls.get(at) else { break };
            let Some(way) = taints.ways.all.get(call.event.way) else { break };
            // The calls of one event, each with another resource, are one step.
            if trace.is_repeated(at) {
                if let Some(step) = steps.last_mut() {
                    step.labels_after = call.labels_after.iter().cloned().collect();
                }
                continue;
            }
            let decision = &call.decision;
            let is_last = at + 1 == trace.calls.len();
            let wait = if is_last { trace.circumstances.wait_seconds } else { 0 };
            let note = note_of(call, wait);
            steps.push(Step {
                step: steps.len() + 1,
                agent: name_of_agent(taints, way.agent()),
                subject: name_of_subject(taints, way),
                template: way.template.clone(),
                operation: decision.operation.clone(),
                input: call.input.clone(),
                resource: decision.resource.clone(),
                destination: decision.destination_class.clone(),
                labels_before: call.labels_before.iter().cloned().collect(),
                labels_after: call.labels_after.iter().cloned().collect(),
                outcome: "permit".to_owned(),
                reason_code: decision.reason.as_str().to_owned(),
                rules: decision.policies.clone(),
                note,
                ..Step::default()
            });
        }
        // The search is breadth first, so that no call of the trace can be left out: the first one changes the session's data.
        if !has_pivot {
            let first = steps.iter_mut().find(|step| !step.operation.starts_with("authz."));
            if let Some(first) = first {
                first.is_pivot = true;
            }
        }
        steps
    }

    /// The smallest set of changes after which no trace of the rule is found for the operation.
    fn cut(
        &self,
        rule: &PathRule,
        id: &str,
        (target, trace): (&Target, &Trace),
        analysis: &Analysis<'_, '_>,
    ) -> Option<Cut> {
        if rule.name == EXCEPTION {
            return None;
        }
        if rule.lost.is_some() {
            return lost_label_cut(rule, id, trace, analysis);
        }
        let mut sets = vec![Self::elements(rule, id, target, trace, analysis)];
        for _ in 0..MOST_ROUNDS {
            let chosen = cut::hitting_set(&sets)?;
            let Some(changed) = self.changed(&chosen) else {
                // The bundle does not compile without it: another change must do.
                let broken = chosen.into_iter().next()?;
                for set in &mut sets {
                    set.remove(&broken);
                }
                continue;
            };
            let again = changed.with_analysis(&NoOracle, &BTreeSet::new(), |analysis| {
                let index = findings::ids(analysis).get(id).copied();
                let result = index.map(|index| analysis.judge(rule, index));
                match result {
                    Some(RuleResult::Path(found)) => {
                        let (target, trace) = *found;
                        Again::Path(Self::elements(rule, id, &target, &trace, analysis))
                    }
                    Some(RuleResult::Open(_)) => Again::Open,
                    Some(RuleResult::Closed) | None => Again::Closed,
                }
            });
            let exact = match again {
                Again::Path(more) if sets.contains(&more) || !more.is_disjoint(&chosen) => {
                    return None;
                }
                Again::Path(more) => {
                    sets.push(more);
                    continue;
                }
                Again::Open => false,
                Again::Closed => true,
            };
            let changes = chosen.iter().map(Element::change).collect();
            return Some(Cut { exact, changes });
        }
        None
    }

    /// Changes of which each one removes a trace.
    fn elements(
        rule: &PathRule,
        id: &str,
        target: &Target,
        trace: &Trace,
        analysis: &Analysis<'_, '_>,
    ) -> BTreeSet<Element> {
        let taints = analysis.taints;
        let conditions = analysis.searcher.conditions;
        let mut all = BTreeSet::new();
        if !rule.is_deputy {
            all.insert(Element::Forbid(forbid(rule, id, target)));
        }
        for begun in &trace.begun {
            let Some(way) = taints.ways.all.get(begun.way) else { continue };
            let giver = match way.beginning {
                Beginning::Delegated(parent) => {
                    taints.ways.all.get(parent).map(|way| way.chain.clone())
                }
                Beginning::ByAgent(starter) if starter != way.agent() => {
                    taints.parties.agents.get(starter).map(|party| vec![party.facts.clone()])
                }
                _ => None,
            };
            let Some(giver) = giver else { continue };
            let operation = format!("{GIVE}{}", way.template);
            let roles =
                taints.parties.agents.get(way.agent()).map(|party| party.facts.roles.clone());
            let facts = CallFacts {
                resource: guard::ResourceFacts::Agent(roles.unwrap_or_default()),
                tiers: (0, 3),
                ..CallFacts::default()
            };
            let permits: Vec<usize> = conditions.permits(&operation, &giver, &facts).collect();
            if let [only] = permits.as_slice()
                && let Some(policy) = conditions.policies().get(*only)
            {
                all.insert(Element::Removed {
                    kind: "remove_delegation",
                    id: policy.id.to_owned(),
                    file: policy.at.file.clone(),
                    line: policy.at.line,
                    text: policy.text.to_owned(),
                });
            }
        }
        for call in &trace.calls {
            for (policy, at) in call.decision.policies.iter().zip(&call.decision.places) {
                let guard = conditions.policies().iter().find(|one| one.id == policy);
                let Some(guard) = guard else { continue };
                let kind = if call.decision.exceptions.is_empty() {
                    "remove_permit"
                } else {
                    "remove_exception"
                };
                all.insert(Element::Removed {
                    kind,
                    id: policy.clone(),
                    file: at.file.clone(),
                    line: at.line,
                    text: guard.text.to_owned(),
                });
            }
        }
        all
    }

    /// The bundle after changes; none where it does not compile.
    fn changed(&self, chosen: &BTreeSet<Element>) -> Option<Self> {
        let mut files = self.files.clone();
        for policy in &self.plan.model().policies {
            files.insert(policy.file.clone(), policy.text.as_bytes().to_vec());
        }
        let mut removed = Vec::new();
        let mut added = Vec::new();
        for element in chosen {
            match element {
                Element::Forbid(text) => added.push(text.clone()),
                Element::Removed { file, text, .. } => removed.push((file.clone(), text.clone())),
            }
        }
        let files = cut::changed_files(&files, &removed, &added)?;
        let reader = authz_cases::source::reader(&files, &self.vars).at(self.now);
        let plan = PlanCompiler::new().compile(reader.read().ok()?).ok()?;
        Some(Self { plan: Arc::new(plan), files, ..self.clone() })
    }

    /// Permits that no agent can use.
    fn unused(analysis: &Analysis<'_, '_>, results: &mut PathResults) {
        if analysis.taints.ways.is_cut {
            return;
        }
        for at in analysis.unused() {
            let Some(policy) = analysis.searcher.conditions.policies().get(at) else { continue };
            let message = format!(
                "no agent can use the permit `{}`: in no task and on nobody's behalf is a call that it covers permitted",
                policy.id
            );
            let of = (Severity::Warning, Finality::Proved);
            results.findings.push(Finding {
                policies: vec![policy.id.to_owned()],
                location: Place::of(policy.at),
                ..Finding::new("unused-authority", policy.id, of, message)
            });
        }
    }

    /// Step-up kinds that nobody can answer: the kernel's own check of the bundle.
    fn step_ups(&self, results: &mut PathResults) {
        for warning in self.plan.lint(&LintFacts::default()).iter() {
            if warning.code != UNANSWERABLE {
                continue;
            }
            let at =
                Location { file: warning.file.clone(), line: warning.line, column: warning.column };
            let of = (Severity::Warning, Finality::Proved);
            results.findings.push(Finding {
                location: Place::of(&at),
                ..Finding::new(UNANSWERABLE, &warning.what, of, warning.what.clone())
            });
        }
    }

    /// Calls whose asker can answer their approval.
    fn approvals(&self, analysis: &mut Analysis<'_, '_>, results: &mut PathResults) -> NotClosed {
        let mut answers = NotClosed::new();
        for (id, index) in findings::ids(analysis) {
            match analysis.approves_itself(&id, index) {
                SelfApproval::Closed => {}
                SelfApproval::Path { message, path } => {
                    answers.insert(id.clone(), Finality::PathFound);
                    let of = (Severity::Error, Finality::PathFound);
                    let finding = Finding::new(SELF_APPROVAL, &id, of, message);
                    results.findings.push(Finding { path, ..finding });
                }
                SelfApproval::Open(reason) => {
                    answers.insert(id.clone(), Finality::NotDecided);
                    results.not_decided += 1;
                    let of = (Severity::of_open(SELF_APPROVAL), Finality::NotDecided);
                    let message = format!(
                        "it is not decided whether the subject of a call of `{id}` can answer its step-up"
                    );
                    let finding = Finding::new(SELF_APPROVAL, &id, of, message);
                    results.findings.push(Finding { reason, ..finding });
                }
            }
        }
        if answers.is_empty() {
            results.proved.push(Proof {
                rule: SELF_APPROVAL.to_owned(),
                subject: "bundle".to_owned(),
                assumptions: analysis.assumptions(),
            });
        }
        answers
    }

    /// Grave calls that only an exception permits.
    fn exceptions(&self, analysis: &mut Analysis<'_, '_>, results: &mut PathResults) {
        let model = self.plan.model();
        for (name, exception) in &model.exceptions {
            let mut is_found = false;
            for (id, index) in findings::ids(analysis) {
                let operation = model.operation(&id);
                let is_covered = exception.operations.iter().any(|glob| glob.0.matches(&id));
                if is_found || !is_covered || !operation.is_some_and(findings::is_grave) {
                    continue;
                }
                if let Some((target, trace)) = analysis.by_exception(name, index) {
                    is_found = true;
                    let rule = PathRule {
                        name: EXCEPTION.to_owned(),
                        at: exception.at.clone(),
                        ..exception_rule()
                    };
                    let finding = self.path(&rule, &id, (&target, &trace), analysis);
                    let message = format!(
                        "the exception `{name}` opens `{id}`, which would not be permitted without it"
                    );
                    results.findings.push(Finding {
                        message: message.clone(),
                        severity: Severity::Warning,
                        cut: None,
                        ..Finding { id: crate::report::finding_id(EXCEPTION, name), ..finding }
                    });
                }
            }
        }
    }
}

enum Again {
    Path(BTreeSet<Element>),
    Open,
    Closed,
}

/// Operations of a rule that are not closed, by id: for some there is a path, the others are not decided.
type NotClosed = BTreeMap<String, Finality>;

/// Answers of the rules without break-glass.
struct RuleAnswers {
    /// Rules that [`Analysis::judge`] judges.
    rules: Vec<(PathRule, NotClosed)>,
    /// The rule `self-approval`.
    approvals: NotClosed,
}

/// Whether the subject of a call can answer the step-up of the call.
enum SelfApproval {
    /// No subject can.
    Closed,
    /// The subject of this trace can.
    Path { message: String, path: Vec<Step> },
    /// Not decided, for this reason.
    Open(String),
}

/// Reason of an analysis that does not have all ways.
fn cut_ways() -> String {
    format!("the bundle has more than {} ways to act, or longer chains", ways::MOST_WAYS)
}

/// Rule about step-ups that nobody can answer, and the code of the kernel's warning about them.
const UNANSWERABLE: &str = "unanswerable-step-up";

/// Rule about exceptions that open grave operations.
const EXCEPTION: &str = "exception-on-path";
/// Ways of one operation in which a self-approval is tried.
const MOST_APPROVALS: usize = 4;
/// Rule about people who answer the approval of their own call.
const SELF_APPROVAL: &str = "self-approval";

fn exception_rule() -> PathRule {
    PathRule {
        name: String::new(),
        pattern: authz_kernel::model::CallPattern::default(),
        also: BTreeSet::new(),
        lost: None,
        is_deputy: true,
        at: Location::default(),
    }
}

/// One change of a cut. The order is that of preference among cuts of equal size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Element {
    /// A policy that is added.
    Forbid(String),
    /// A policy that is removed.
    Removed { kind: &'static str, id: String, file: String, line: u32, text: String },
}

impl Element {
    fn change(&self) -> Change {
        match self {
            Self::Forbid(text) => {
                Change { kind: "add_forbid", text: text.clone(), file: String::new(), line: 0 }
            }
            Self::Removed { kind, id, file, line, .. } => Change {
                kind,
                text: format!("remove or narrow the policy `{id}`"),
                file: file.clone(),
                line: *line,
            },
        }
    }
}

/// Kind of a step-up that makes the calls of a rule fine. `None`: none does.
fn lifting_kind(rule: &PathRule) -> Option<&str> {
    let general = ["approve", "confirm", "two_person"].into_iter();
    let named = rule.pattern.without.iter().map(String::as_str);
    general.chain(named).find(|kind| rule.pattern.is_lifted_by(kind) && *kind != PERSON)
}

/// A forbid that removes a rule's calls of an operation.
fn forbid(rule: &PathRule, id: &str, target: &Target) -> String {
    let mut conditions: Vec<String> = Vec::new();
    if let Some(class) = &target.event.class
        && rule.pattern.destination.is_some()
    {
        conditions.push(format!("context.destination.class == DestinationClass::{}", quote(class)));
    }
    for label in rule.data() {
        let named = quote(&label);
        conditions.push(format!(
            "(context.session.labels.contains(Label::{named}) || context.uncleared_labels.contains(Label::{named}) || \
             context.remembered.contains(Label::{named}))"
        ));
    }
    if let Some(tier) = rule.pattern.tier {
        conditions.push(format!("context.tier >= {}", tier as u8));
    }
    let principal = match (&rule.pattern.agent, &rule.pattern.subject) {
        (Some(role), _) | (None, Some(role)) => format!("principal in Role::{}", quote(role)),
        (None, None) => "principal".to_owned(),
    };
    let when = match conditions.is_empty() {
        true => String::new(),
        false => format!("\nwhen {{ {} }}", conditions.join(" && ")),
    };
    let (stepup, unless) = match lifting_kind(rule) {
        Some(kind) => (
            format!("\n@stepup(\"{kind}\")"),
            format!("\nunless {{ context.satisfied.contains(Kind::\"{kind}\") }}"),
        ),
        None => Default::default(),
    };
    let name = format!("{}-{id}", rule.name.replace(':', "-")).replace(['/', '.'], "-");
    format!(
        "@id({})\n@reason(\"a path that authz analyze found\"){stepup}\nforbid ({principal}, action == Action::{}, resource){when}{unless};",
        quote(&name),
        quote(id)
    )
}

/// Where a label is lost, its place must get one: no policy of today can see the data.
fn lost_label_cut(
    rule: &PathRule,
    id: &str,
    trace: &Trace,
    analysis: &Analysis<'_, '_>,
) -> Option<Cut> {
    let label = rule.lost.as_ref()?;
    let taints = analysis.taints;
    let reader = trace.calls.iter().rev().skip(1).find_map(|call| {
        let flow = taints.flows.get(call.event.flow)?;
        flow.reads.then(|| taints.operation(flow)).flatten()
    })?;
    let file = reader.at.file.clone();
    let text = format!(
        "let `{}` yield `{label}`, or give it and the operation that writes there one collection with `keeps_labels`, so that `{id}` sees the label",
        reader.id
    );
    let change = Change { kind: "add_label", text, file, line: reader.at.line };
    Some(Cut { exact: false, changes: vec![change] })
}

fn begun_step(taints: &Taints<'_>, way: &Way) -> Step {
    let (operation, note) = match way.beginning {
        Beginning::Delegated(parent) => {
            let giver = taints.ways.all.get(parent).map(|way| name_of_agent(taints, way.agent()));
            (
                format!("authz.{GIVE}{}", way.template),
                format!("{} gives the task", giver.unwrap_or_default()),
            )
        }
        Beginning::ByAgent(starter) => {
            let text = format!("{} starts the task", name_of_agent(taints, starter));
            (format!("authz.task:{}", way.template), text)
        }
        _ => (format!("authz.task:{}", way.template), "the subject starts the task".to_owned()),
    };
    Step {
        agent: name_of_agent(taints, way.agent()),
        subject: name_of_subject(taints, way),
        template: way.template.clone(),
        operation,
        outcome: "permit".to_owned(),
        note,
        ..Step::default()
    }
}

/// Args: `wait`: seconds that pass before the call.
fn note_of(call: &CallResult, wait: u32) -> String {
    let decision = &call.decision;
    if decision.outcome != Outcome::Permit {
        return "`mode` lets the refused call through".to_owned();
    }
    let mut notes = Vec::new();
    if wait > 0 {
        notes.push(format!("{wait} seconds after the call before it"));
    }
    if call.event.repeats > 1 {
        notes.push(format!("{} calls, each with another resource", call.event.repeats));
    }
    if breakglass::decides(call) {
        notes.push("by break-glass".to_owned());
    }
    if !call.satisfied.is_empty() {
        notes.push(format!("after the step-up {}", call.satisfied.join(", ")));
    } else if !breakglass::decides(call) && !decision.exceptions.is_empty() {
        notes.push(format!("by the exception {}", decision.exceptions.join(", ")));
    }
    if call.is_reported {
        notes.push("its result is reported".to_owned());
    }
    notes.join("; ")
}

/// Values that a person names in the prompt of a task.
fn named_in_prompt(trace: &Trace, way: &Way) -> String {
    let values: Vec<&str> =
        trace.circumstances.prompt.iter().map(|value| value.trim_matches('`')).collect();
    let whose = if way.subject.is_some() { "the subject's prompt" } else { "the agent's prompt" };
    format!("{whose} names {}", values.join(", "))
}

fn name_of_agent(taints: &Taints<'_>, at: usize) -> String {
    taints.parties.agents.get(at).map(ways::Party::name).unwrap_or_default()
}

fn name_of_subject(taints: &Taints<'_>, way: &Way) -> String {
    let party = way.subject.and_then(|at| taints.parties.subjects.get(at));
    party.map(ways::Party::name).unwrap_or_default()
}

fn contradictions(analysis: &Analysis<'_, '_>, results: &mut PathResults) {
    for (id, required, forbidden) in analysis.contradictions() {
        let message = format!(
            "`{id}` can never be called: the sequence `{required}` requires a call that `{forbidden}` forbids before it"
        );
        let of = (Severity::Warning, Finality::Proved);
        let at = analysis.searcher.model.sequences.get(&required).map(|rule| rule.at.clone());
        results.findings.push(Finding {
            location: at.as_ref().and_then(Place::of),
            ..Finding::new(
                "contradicting-sequences",
                &format!("{id} {required} {forbidden}"),
                of,
                message,
            )
        });
    }
}

/// Stable name of a finding's subject.
fn subject(rule: &PathRule, id: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    if !rule.name.starts_with(ASSERTION) {
        parts.extend(rule.pattern.after.clone());
        parts.extend(rule.pattern.label.clone());
        if let Some(authz_kernel::model::DestinationPattern::Class(class)) =
            &rule.pattern.destination
        {
            parts.push(class.clone());
        }
    }
    parts.extend((!id.is_empty()).then(|| id.to_owned()));
    if parts.is_empty() { "bundle".to_owned() } else { parts.join(" ") }
}

/// Calls of a rule, for messages.
fn text(rule: &PathRule) -> String {
    let pattern = &rule.pattern;
    if rule.is_deputy {
        return "an agent lets another one do what it may not do itself".to_owned();
    }
    let mut parts: Vec<String> = Vec::new();
    if let Some(role) = &pattern.agent {
        parts.push(format!("an agent `{role}` makes the call"));
    }
    if let Some(role) = &pattern.subject {
        parts.push(format!("it is on behalf of `{role}`"));
    }
    match (&pattern.label, &pattern.destination) {
        (Some(label), Some(authz_kernel::model::DestinationPattern::Class(class))) => {
            parts.push(format!(
                "data with the label `{label}` reaches a destination of the class `{class}`"
            ));
        }
        (Some(label), _) => parts.push(format!("data with the label `{label}` goes out")),
        (None, Some(authz_kernel::model::DestinationPattern::Class(class))) => {
            parts.push(format!("data reaches a destination of the class `{class}`"));
        }
        (None, _) => {}
    }
    if let Some(label) = &pattern.after {
        parts.push(format!("data with the label `{label}` was read before"));
    }
    if let Some(effect) = pattern.effect {
        parts.push(format!("it has the effect `{}`", effect.as_str()));
    }
    if let Some(tier) = pattern.tier {
        parts.push(format!("its tier is at least `{}`", tier.as_str()));
    }
    if rule.lost.is_some() {
        parts.push("Authz does not have the label".to_owned());
    }
    if !pattern.without.is_empty() {
        parts.push("nobody is asked".to_owned());
    }
    if parts.is_empty() {
        parts.push("it is permitted".to_owned());
    }
    parts.join(", and ")
}

impl Analysis<'_, '_> {
    /// Facts that the proofs about calls without break-glass take for true.
    fn assumptions(&self) -> Vec<String> {
        let breakglass = (!self.accepting.is_empty()).then_some(WITHOUT_BREAKGLASS);
        ASSUMPTIONS.into_iter().chain(breakglass).map(str::to_owned).collect()
    }

    /// A trace in which an exception decides.
    fn by_exception(&mut self, name: &str, index: usize) -> Option<(Target, Trace)> {
        let taints = self.taints;
        let flow = taints.flows.get(index)?;
        let classes = match flow.classes.is_empty() {
            true => vec![None],
            false => flow.classes.iter().cloned().map(Some).collect(),
        };
        for (at, way) in taints.ways.all.iter().enumerate() {
            let is_open = taints.open(at).any(|one| one.operation == flow.operation);
            if !is_open || !taints.could(way, flow, &taint::Goal::default()) {
                continue;
            }
            for class in &classes {
                let event =
                    runner::Event { way: at, flow: index, class: class.clone(), repeats: 1 };
                let target = Target {
                    event: event.clone(),
                    data: BTreeSet::new(),
                    lost: None,
                    tier: None,
                    pattern: authz_kernel::model::CallPattern::default(),
                };
                let unmet = |_: &str| false;
                let traced = self.searcher.run(&[event], &unmet);
                if let Some(trace) = traced {
                    let depends = |call: &runner::CallResult| {
                        call.decision.exceptions.iter().any(|one| one == name)
                    };
                    if trace.calls.last().is_some_and(depends) {
                        return Some((target, trace));
                    }
                }
            }
        }
        None
    }

    /// Whether the subject of a call of an operation can answer its approval.
    ///
    /// The engine refuses every answer of the asker itself, so that tries of a few ways are enough for a subject without an
    /// account at another issuer.
    fn approves_itself(&mut self, id: &str, index: usize) -> SelfApproval {
        let taints = self.taints;
        let Some(flow) = taints.flows.get(index) else { return SelfApproval::Closed };
        let Some(operation) = taints.operation(flow) else { return SelfApproval::Closed };
        let conditions = self.searcher.conditions;
        let asks = conditions
            .slice(id)
            .iter()
            .any(|at| conditions.policies().get(*at).is_some_and(|policy| policy.stepup.is_some()));
        let rules = &self.searcher.model.tiers;
        let needs_approval = |tier: Tier| {
            rules.get(tier as usize).is_some_and(|rule| rule.approval != TierApproval::None)
        };
        if !asks && !taints.tiers(operation).any(needs_approval) {
            return SelfApproval::Closed;
        }
        if taints.ways.is_cut {
            return SelfApproval::Open(cut_ways());
        }
        let mut open = None;
        let (mut tried, mut tried_alone) = (0_usize, 0_usize);
        for (at, way) in taints.ways.all.iter().enumerate() {
            let is_open = taints.open(at).any(|one| one.operation == flow.operation);
            let Some(subject) = way.subject.filter(|_| is_open) else { continue };
            let has_other_account = taints.parties.has_other_account(subject);
            let count = if has_other_account { &mut tried } else { &mut tried_alone };
            if !has_other_account && *count >= MOST_APPROVALS {
                continue;
            }
            if !taints.could(way, flow, &taint::Goal::default()) {
                continue;
            }
            let classes: Vec<Option<String>> = match flow.classes.is_empty() {
                true => vec![None],
                false => flow.classes.iter().cloned().map(Some).collect(),
            };
            for class in classes {
                if *count >= MOST_APPROVALS {
                    if has_other_account {
                        open.get_or_insert_with(|| {
                            "more ways reach the operation than are tried".to_owned()
                        });
                    }
                    break;
                }
                *count = count.saturating_add(1);
                let event = runner::Event { way: at, flow: index, class, repeats: 1 };
                let answered = self.searcher.runner.answered_by(conditions, &event, subject);
                let answered = answered.unwrap_or_else(|reason| {
                    if has_other_account {
                        open.get_or_insert(reason);
                    }
                    None
                });
                if let Some((kinds, approver)) = answered {
                    let message = format!(
                        "the subject of a call of `{id}` can answer its step-up {kinds} as {approver}: the approval asks nobody else"
                    );
                    let step = Step {
                        step: 1,
                        agent: name_of_agent(taints, way.agent()),
                        subject: name_of_subject(taints, way),
                        template: way.template.clone(),
                        operation: id.to_owned(),
                        outcome: "step_up".to_owned(),
                        is_pivot: true,
                        note: format!("{approver} approves it"),
                        ..Step::default()
                    };
                    return SelfApproval::Path { message, path: vec![step] };
                }
            }
        }
        open.map_or(SelfApproval::Closed, SelfApproval::Open)
    }
}
