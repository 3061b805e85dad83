//! Step-up kinds that nobody can answer, and permits that let people approve without naming it.

use std::collections::BTreeMap;

use authz_base::record::approval::{APPROVE, APPROVE_ROLE, CONFIRM, TWO_PERSON, is_person_kind};
use smol_str::SmolStr;

use super::access::Access;
use super::warn;
use crate::arguments::ArgumentValue;
use crate::decide::Weighed;
use crate::decision::{PolicyEffect, Principal, Subject};
use crate::diagnostic::Diagnostics;
use crate::evaluate::syntax::ActionScope;
use crate::examples::{ExamplePrincipal, example_subjects, versatile_subjects};
use crate::model::{Location, Model, Operation, Tier, TierApproval};
use crate::plan::Plan;
use crate::policy::Placed;

/// Operation that policies judge for a person who answers.
const APPROVE_OPERATION: &str = "authz.approve";

pub(super) fn check(plan: &Plan, found: &mut Diagnostics) {
    let uses = kind_uses(plan);
    if uses.is_empty() {
        return;
    }
    let mut approvers = Approvers::new(plan);
    for one in &uses {
        approvers.check_use(one, found);
    }
    approvers.check_wide_permits(found);
}

/// A rule that asks people, and the operations that it may hold.
struct KindUse<'a> {
    kind: &'a str,
    /// The rule, as a message names it.
    rule: String,
    at: Location,
    operations: Vec<&'a Operation>,
}

/// The rules of a bundle that ask people.
fn kind_uses(plan: &Plan) -> Vec<KindUse<'_>> {
    let model = plan.model();
    let judged: Vec<&Operation> = plan
        .operations()
        .iter()
        .filter(|one| one.reviewed && !one.drifted && !plan.is_protocol(one))
        .collect();
    let mut held: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for operation in &judged {
        let Some((_, prepared)) = plan.prepared(&operation.id) else { continue };
        for (index, _) in prepared.slice.policies() {
            held.entry(index).or_default().push(operation);
        }
    }
    let of_policies = held.into_iter().filter_map(|(index, operations)| {
        let placed = plan.policies.get(index)?;
        let kind = placed.policy.stepup.as_deref()?;
        let rule = format!("the forbid `{}`", placed.policy.id);
        Some(KindUse { kind, rule, at: placed.at.clone(), operations })
    });
    let of_tiers = Tier::ALL.into_iter().zip(&model.tiers).filter_map(|(tier, requirements)| {
        let kind = match requirements.approval {
            TierApproval::None => return None,
            TierApproval::Confirm => CONFIRM,
            TierApproval::Approve => APPROVE,
            TierApproval::TwoPerson => TWO_PERSON,
        };
        let operations: Vec<&Operation> =
            judged.iter().copied().filter(|one| one.tier == tier).collect();
        let first = operations.first()?;
        let place = model.places.tiers.get(&tier).or_else(|| model.places.meanings.get(&first.id));
        let at = place.unwrap_or(&first.at).clone();
        Some(KindUse { kind, rule: format!("the tier `{}`", tier.as_str()), at, operations })
    });
    let of_templates = model.templates.iter().filter_map(|(name, template)| {
        let kind = template.beyond.as_deref()?;
        let rule = format!("`scope: beyond` of the template `{name}`");
        Some(KindUse { kind, rule, at: template.at.clone(), operations: judged.clone() })
    });
    let uses = of_policies.chain(of_tiers).chain(of_templates);
    uses.filter(|one| is_person_kind(one.kind)).collect()
}

/// People who could answer.
struct Approvers<'a> {
    plan: &'a Plan,
    model: &'a Model,
    access: Access<'a>,
    /// People with the roles that they have by their claims.
    people: Vec<Principal>,
    /// Permits without an action that let a person approve.
    wide: BTreeMap<(&'a str, u32), &'a Placed>,
    /// Whether somebody could answer a queue about an operation and a tier, of those that were judged.
    known: BTreeMap<(String, &'a str, Tier), bool>,
}

impl<'a> Approvers<'a> {
    fn new(plan: &'a Plan) -> Self {
        let model = plan.model();
        let of_roles = example_subjects(model).into_iter().map(|one| one.principal);
        let mut people: Vec<Principal> = of_roles.chain(versatile_subjects(model)).collect();
        if people.is_empty() {
            people.push(Principal::User(std::sync::Arc::new(Subject::default())));
        }
        Self {
            plan,
            model,
            access: Access::new(plan),
            people,
            wide: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    fn check_use(&mut self, one: &KindUse<'a>, found: &mut Diagnostics) {
        let (queue, when) = match one.kind {
            CONFIRM if !self.is_called_without_person(&one.operations) => return,
            CONFIRM => (
                self.model.approvals.confirm_without_person.as_str(),
                " where an agent acts without a user",
            ),
            kind => (kind, ""),
        };
        let role = queue.strip_prefix(APPROVE_ROLE);
        let candidates = self.candidates(queue);
        let step_up = match one.kind == queue {
            true => format!("the step-up `{queue}` of {}", one.rule),
            false => format!(
                "the step-up `{}` of {}{when}: `confirm_without_person` is `{queue}`",
                one.kind, one.rule
            ),
        };
        if candidates.is_empty() {
            let role = role.unwrap_or_default();
            let what = format!("nobody can answer {step_up}, and no person has the role `{role}`");
            let fix = format!(
                "Declare the people of the role under `subjects`, for example `{role}: {{issuer: corp, claim: groups, contains: {role}}}`."
            );
            return warn(found, "unanswerable-step-up", &one.at, what, fix);
        }
        if self.is_answerable(queue, &candidates, &one.operations) {
            return;
        }
        let whom = role.map_or_else(|| "anybody".to_owned(), |role| format!("the role `{role}`"));
        let what = format!(
            "nobody can answer {step_up}, and no policy permits `{APPROVE_OPERATION}` to {whom} for that queue"
        );
        let role = role.or_else(|| self.some_role()).unwrap_or("ROLE");
        let fix = format!(
            "Write, for example: @id(\"approvers\") permit (principal in Role::\"{role}\", action == Action::\"{APPROVE_OPERATION}\", \
             resource); with the role of the people who may answer."
        );
        warn(found, "unanswerable-step-up", &one.at, what, fix);
    }

    /// People of a queue, before any policy.
    fn candidates(&self, queue: &str) -> Vec<Principal> {
        let Some(role) = queue.strip_prefix(APPROVE_ROLE) else { return self.people.clone() };
        let deputies = self.model.approvals.queue(queue).deputies;
        let holds = |principal: &&Principal| {
            let roles = self.plan.roles().roles_of(principal);
            roles.iter().any(|held| *held == role || Some(*held) == deputies.as_deref())
        };
        self.people.iter().filter(holds).cloned().collect()
    }

    /// Whether policies could permit one of these people to answer some call of these operations.
    fn is_answerable(
        &mut self,
        queue: &str,
        candidates: &[Principal],
        operations: &[&'a Operation],
    ) -> bool {
        let mut is_answerable = false;
        for operation in operations {
            // Labels and destinations may raise the tier.
            for tier in Tier::ALL.into_iter().filter(|tier| *tier >= operation.tier) {
                let key = (queue.to_owned(), operation.id.as_str(), tier);
                let could_before = self.known.get(&key).copied();
                let could = could_before.unwrap_or_else(|| {
                    let input = approve_input(operation, queue, tier);
                    // Each is weighed, since each notes the wide permits that apply.
                    let able = candidates.iter().filter(|one| self.could_answer(one, &input));
                    able.count() > 0
                });
                self.known.insert(key, could);
                is_answerable |= could;
            }
        }
        is_answerable
    }

    /// Whether policies could permit a person an answer, and notes permits that do so without naming it.
    fn could_answer(&mut self, person: &Principal, input: &[(SmolStr, ArgumentValue)]) -> bool {
        let Some(weighed) = self.access.weigh_with(person, APPROVE_OPERATION, input) else {
            return true;
        };
        self.note_wide(&weighed);
        weighed.is_open()
    }

    fn note_wide(&mut self, weighed: &Weighed<'a>) {
        for (placed, _) in &weighed.permits {
            if matches!(placed.policy.reading.actions, ActionScope::Any) {
                self.wide.insert((placed.at.file.as_str(), placed.at.line), placed);
            }
        }
    }

    /// Whether an agent that acts for nobody could call one of these operations.
    fn is_called_without_person(&mut self, operations: &[&'a Operation]) -> bool {
        let agents: Vec<ExamplePrincipal> = self.access.agents_alone();
        operations.iter().any(|operation| {
            agents.iter().any(|agent| {
                self.access.is_open(std::slice::from_ref(&agent.principal), &operation.id)
            })
        })
    }

    /// Warns about permits that let people approve without naming `authz.approve`.
    fn check_wide_permits(&self, found: &mut Diagnostics) {
        for placed in self.wide.values() {
            debug_assert_eq!(PolicyEffect::Permit, placed.policy.effect);
            let id = &placed.policy.id;
            let what = format!(
                "the permit `{id}` names no action, so it permits `{APPROVE_OPERATION}`, too: its people may answer step-ups of others"
            );
            let fix = format!(
                "Name the actions, for example `action in Action::\"system:{}\"`, and permit `{APPROVE_OPERATION}` in a policy of its own.",
                self.model.systems.keys().next().map_or("SYSTEM", String::as_str)
            );
            warn(found, "wide-approver", &placed.at, what, fix);
        }
    }

    /// A role of people.
    fn some_role(&self) -> Option<&'a str> {
        let roles = self.model.roles.iter();
        let mut of_people = roles.filter(|(_, members)| !members.subjects.is_empty());
        of_people.next().map(|(role, _)| role.as_str())
    }
}

/// Arguments of `authz.approve` for a call, sorted by name.
fn approve_input(operation: &Operation, queue: &str, tier: Tier) -> [(SmolStr, ArgumentValue); 4] {
    [
        ("operation", operation.id.as_str()),
        ("queue", queue),
        ("system", operation.system.as_str()),
        ("tier", tier.as_str()),
    ]
    .map(|(name, text)| (name.into(), ArgumentValue::Text(text.into())))
}
