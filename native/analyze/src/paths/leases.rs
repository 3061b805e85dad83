//! Leased secrets that permit more than their operation.
//!
//! An agent that is permitted an operation with a lease holds a login of its own, and Authz is not asked about what the login does.
//! The lease is compared with its operation, and with the leases of the other operations of its broker.

use std::collections::BTreeSet;

use authz_kernel::decision::Outcome;
use authz_kernel::model::{Effect, Operation};

use super::guard::Conditions;
use super::runner::{Circumstances, Event, Trace};
use super::taint::{Flow, Goal};
use super::{Analysis, Finality, Finding, PathResults, PathsInput, Place, Proof, Severity, Step};
use crate::input::{Lease, Right};

/// Rule about leases.
const CREDENTIAL: &str = "credential-too-wide";
/// Ways of one operation in which a permit is tried.
const MOST_TRIED: usize = 16;

/// Facts that the proofs about leases take for true.
const ASSUMPTIONS: [&str; 2] = [
    "The broker grants what the configuration says.",
    "Tables, views and schemas of different names hold different data.",
];

/// Whether rights cover others.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Coverage {
    Yes,
    /// They may, for this reason.
    Perhaps(String),
    No,
}

/// How agents get the lease of an operation.
enum Obtained {
    /// By the last call of this trace.
    By(Box<Trace>),
    /// Not decided, for this reason.
    Open(String),
    /// No agent can be permitted the operation.
    Never,
}

/// Cause of a finding about a lease.
struct Excess<'l> {
    subject: String,
    message: String,
    /// Operation that the login reaches, and rights for it.
    reached: &'l str,
    rights: Vec<&'l Right>,
    /// Reason for which the rights are not known.
    open: Option<String>,
}

impl PathsInput {
    /// Compares each lease of the configuration with the bundle.
    pub(super) fn leases(&self, analysis: &mut Analysis<'_, '_>, results: &mut PathResults) {
        for lease in &self.leases {
            let Some(operation) = self.plan.model().operation(&lease.operation) else {
                let message = format!(
                    "the configuration has a lease for `{}` ({}), which the bundle does not have",
                    lease.operation, lease.place
                );
                let of = (Severity::Warning, Finality::Proved);
                results.findings.push(Finding::new(CREDENTIAL, &lease.operation, of, message));
                continue;
            };
            let mut all = excess_effects(lease, operation);
            all.extend(self.reached(lease, operation, analysis));
            if all.is_empty() {
                results.proved.push(Proof {
                    rule: CREDENTIAL.to_owned(),
                    subject: lease.operation.clone(),
                    assumptions: ASSUMPTIONS.map(str::to_owned).to_vec(),
                });
                continue;
            }
            let obtained = analysis.obtains(&lease.operation);
            for excess in all {
                if let Some(finding) = finding(excess, (lease, operation), &obtained, analysis) {
                    results.not_decided += usize::from(finding.verdict == Finality::NotDecided);
                    results.findings.push(finding);
                }
            }
        }
    }

    /// Other operations of the broker whose rights a lease covers, and that are guarded otherwise.
    fn reached<'l>(
        &'l self,
        lease: &'l Lease,
        operation: &Operation,
        analysis: &Analysis<'_, '_>,
    ) -> Vec<Excess<'l>> {
        let others = self
            .leases
            .iter()
            .filter(|other| other.broker == lease.broker && other.operation != lease.operation);
        let mut all = Vec::new();
        for other in others {
            let Some(target) = self.plan.model().operation(&other.operation) else { continue };
            let rights = essential(&other.rights);
            let open = match covers_all(&lease.rights, &rights) {
                Coverage::No => continue,
                Coverage::Perhaps(reason) => Some(reason),
                Coverage::Yes => None,
            };
            let differences = analysis.differences(operation, target);
            if differences.is_empty() {
                continue;
            }
            let may = if open.is_some() { "may let" } else { "lets" };
            all.push(Excess {
                subject: format!("{} reaches {}", lease.operation, other.operation),
                message: format!(
                    "the lease of `{}` {may} its holder do `{}` without a question to Authz ({}): {}",
                    lease.operation,
                    other.operation,
                    texts(&rights),
                    differences.join(", ")
                ),
                reached: &other.operation,
                rights,
                open,
            });
        }
        all
    }
}

/// Rights of a lease whose effect its operation does not have, by effect.
fn excess_effects<'l>(lease: &'l Lease, operation: &Operation) -> Vec<Excess<'l>> {
    let is_excess = |right: &&Right| {
        !right.effects.is_empty()
            && !right.effects.iter().any(|effect| has_effect(operation, effect))
    };
    let excess: Vec<&Right> = lease.rights.iter().filter(is_excess).collect();
    let effects: BTreeSet<&str> =
        excess.iter().filter_map(|right| right.effects.first()).map(String::as_str).collect();
    let of_effect = |effect: &str| {
        let rights: Vec<&Right> = excess
            .iter()
            .copied()
            .filter(|right| right.effects.first().is_some_and(|first| first == effect))
            .collect();
        Excess {
            subject: format!("{} {effect}", lease.operation),
            message: format!(
                "the lease of `{}` permits {}, and the operation does not have the effect `{effect}`",
                lease.operation,
                texts(&rights)
            ),
            reached: &lease.operation,
            rights,
            open: None,
        }
    };
    effects.into_iter().map(of_effect).collect()
}

fn has_effect(operation: &Operation, name: &str) -> bool {
    let effect = Effect::ALL.into_iter().find(|effect| effect.as_str() == name);
    effect.is_some_and(|effect| operation.effects.contains(&effect))
}

/// The rights that matter: those on tables, or all if there are none. Sequences and schemas only serve tables.
fn essential(rights: &[Right]) -> Vec<&Right> {
    let on_tables: Vec<&Right> = rights.iter().filter(|right| right.kind == "table").collect();
    if on_tables.is_empty() { rights.iter().collect() } else { on_tables }
}

fn covers_all(held: &[Right], needed: &[&Right]) -> Coverage {
    let mut all = Coverage::Yes;
    for right in needed {
        match covers(held, right) {
            Coverage::No => return Coverage::No,
            Coverage::Perhaps(reason) => all = Coverage::Perhaps(reason),
            Coverage::Yes => {}
        }
    }
    all
}

/// Whether held rights cover one that is needed. The columns of several rights on one table add up.
fn covers(held: &[Right], needed: &Right) -> Coverage {
    let mut columns: BTreeSet<&str> = BTreeSet::new();
    let mut perhaps = None;
    for right in held {
        if right.privilege != needed.privilege || right.kind != needed.kind {
            continue;
        }
        let schema = |name: &str| name.split_once('.').map(|(schema, _)| schema.to_owned());
        let is_same_schema = schema(&right.name) == schema(&needed.name);
        let is_named = right.name == needed.name || (right.name.ends_with(".*") && is_same_schema);
        if right.database != needed.database {
            let is_unknown = right.database.is_none() || needed.database.is_none();
            if is_named && is_unknown {
                perhaps = Some("the name of the database in `dsn_file` is not read".to_owned());
            }
            continue;
        }
        if !is_named {
            if needed.name.ends_with(".*") && is_same_schema {
                perhaps = Some(format!("the tables of `{}` are not known", needed.name));
            }
            continue;
        }
        if right.columns.is_empty() {
            return Coverage::Yes;
        }
        columns.extend(right.columns.iter().map(String::as_str));
    }
    let covers_columns = !needed.columns.is_empty()
        && needed.columns.iter().all(|column| columns.contains(column.as_str()));
    match perhaps {
        _ if covers_columns => Coverage::Yes,
        Some(reason) => Coverage::Perhaps(reason),
        None if needed.columns.is_empty() && !columns.is_empty() => {
            Coverage::Perhaps(format!("the columns of `{}` are not known", needed.name))
        }
        None => Coverage::No,
    }
}

/// Rights for messages: `SELECT, INSERT on sales.orders`.
fn texts(rights: &[&Right]) -> String {
    let mut objects: Vec<(&str, Vec<&str>)> = Vec::new();
    for right in rights {
        let name = right.name.as_str();
        match objects.iter_mut().find(|(known, _)| *known == name) {
            Some((_, privileges)) if !privileges.contains(&right.privilege.as_str()) => {
                privileges.push(&right.privilege);
            }
            Some(_) => {}
            None => objects.push((name, vec![&right.privilege])),
        }
    }
    let texts = objects.iter().map(|(name, all)| format!("{} on `{name}`", all.join(", ")));
    texts.collect::<Vec<_>>().join("; ")
}

fn finding(
    excess: Excess<'_>,
    (lease, operation): (&Lease, &Operation),
    obtained: &Obtained,
    analysis: &Analysis<'_, '_>,
) -> Option<Finding> {
    let (verdict, reason) = match (obtained, excess.open) {
        (Obtained::Never, _) => return None,
        (Obtained::Open(reason), _) => (Finality::NotDecided, reason.clone()),
        (Obtained::By(_), Some(reason)) => (Finality::NotDecided, reason),
        (Obtained::By(_), None) => (Finality::PathFound, String::new()),
    };
    let mut path = Vec::new();
    let mut policies = Vec::new();
    if let (Obtained::By(trace), Finality::PathFound) = (obtained, verdict) {
        path = PathsInput::steps(trace, analysis);
        if let Some(last) = path.last_mut() {
            policies.clone_from(&last.rules);
            last.note = format!("the agent gets the lease of {}", lease.place);
        }
        let last = path.last().cloned().unwrap_or_default();
        path.push(Step {
            step: path.len() + 1,
            agent: last.agent,
            subject: last.subject,
            template: last.template,
            operation: excess.reached.to_owned(),
            labels_before: last.labels_after.clone(),
            labels_after: last.labels_after,
            outcome: "permit".to_owned(),
            note: format!(
                "by the leased login, without a question to Authz: {}",
                texts(&excess.rights)
            ),
            ..Step::default()
        });
    }
    let of = (Severity::Warning, verdict);
    let message = format!("{} ({})", excess.message, lease.place);
    Some(Finding {
        reason,
        policies,
        path,
        location: Place::of(&operation.at),
        ..Finding::new(CREDENTIAL, &excess.subject, of, message)
    })
}

impl Analysis<'_, '_> {
    fn flow(&self, id: &str) -> Option<(usize, &Flow)> {
        let is_of = |flow: &&Flow| self.taints.operation(flow).is_some_and(|one| one.id == id);
        let at = self.taints.flows.iter().position(|flow| is_of(&flow))?;
        Some((at, self.taints.flows.get(at)?))
    }

    /// A trace in which an agent is permitted an operation, so that it gets the lease.
    fn obtains(&mut self, id: &str) -> Obtained {
        let taints = self.taints;
        let Some(index) = self.flow(id).map(|(at, _)| at) else { return Obtained::Never };
        let Some(flow) = taints.flows.get(index) else { return Obtained::Never };
        let conditions: &Conditions<'_> = self.searcher.conditions;
        let classes: Vec<Option<String>> = match flow.classes.is_empty() {
            true => vec![None],
            false => flow.classes.iter().cloned().map(Some).collect(),
        };
        let mut open = None;
        let mut tried = 0_usize;
        for (at, way) in taints.ways.all.iter().enumerate() {
            let is_open = taints.open(at).any(|one| one.operation == flow.operation);
            // A lease ends with its task, so that a call without one gets none.
            if !is_open || way.task.is_none() || !taints.could(way, flow, &Goal::default()) {
                continue;
            }
            for class in &classes {
                if tried >= MOST_TRIED {
                    return Obtained::Open(
                        open.unwrap_or_else(|| "no tried call is permitted".to_owned()),
                    );
                }
                tried = tried.saturating_add(1);
                let event = Event { way: at, flow: index, class: class.clone(), repeats: 1 };
                match self.searcher.runner.run(
                    conditions,
                    &[event],
                    &Circumstances::default(),
                    &|_| false,
                ) {
                    Ok(trace) => {
                        let last = trace.calls.last();
                        if last.is_some_and(|call| call.decision.outcome == Outcome::Permit) {
                            return Obtained::By(Box::new(trace));
                        }
                    }
                    Err(stopped) => {
                        open.get_or_insert(format!(
                            "no tried call is permitted: {}",
                            stopped.reason
                        ));
                    }
                }
            }
        }
        match open {
            Some(reason) => Obtained::Open(reason),
            None if taints.ways.is_cut => Obtained::Open(super::cut_ways()),
            None => Obtained::Never,
        }
    }

    /// Guards of an operation that another one lacks, one text each.
    fn differences(&self, from: &Operation, to: &Operation) -> Vec<String> {
        let mut all = Vec::new();
        if to.tier > from.tier {
            all.push(format!(
                "its tier is `{}` instead of `{}`",
                to.tier.as_str(),
                from.tier.as_str()
            ));
        }
        let (Some((from_at, from_flow)), Some((to_at, to_flow))) =
            (self.flow(&from.id), self.flow(&to.id))
        else {
            return all;
        };
        for label in to_flow.gives.difference(&from_flow.gives) {
            all.push(format!("Authz does not know that the data has the label `{label}`"));
        }
        let conditions = self.searcher.conditions;
        let kinds = |id: &str| -> BTreeSet<String> {
            let policies =
                conditions.slice(id).iter().filter_map(|at| conditions.policies().get(*at));
            policies.filter_map(|policy| policy.stepup).map(str::to_owned).collect()
        };
        for kind in kinds(&to.id).difference(&kinds(&from.id)) {
            all.push(format!("the step-up `{kind}` can hold it"));
        }
        let agents = self.taints.parties.agents.iter().zip(&self.direct);
        let mut barred = agents.filter(|(_, operations)| {
            operations.contains(&from_at) && !operations.contains(&to_at)
        });
        if !self.taints.ways.is_cut
            && let Some((agent, _)) = barred.next()
        {
            all.push(format!("the agent `{}` is never permitted it", agent.name()));
        }
        all
    }
}
