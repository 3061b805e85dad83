//! Content of a plan for tools that explain, compare and extend bundles.
//!
//! Tools read this description instead of the bundle's files, so that they cannot read them differently.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use authz_base::digest::sha256;
use authz_base::hex::hex;
use cedar_policy::{ActionConstraint, EntityUid, Policy, PrincipalConstraint, ResourceConstraint};
use serde::Serialize;

use crate::decision::PolicyEffect;
use crate::model::{Location, Operation, ValueRole};
use crate::plan::{Plan, groups_of};
use crate::policy::Placed;

/// Content of a plan. Serialises to one JSON object.
#[derive(Debug, Serialize)]
pub struct Description<'a> {
    policies: Vec<DescribedPolicy<'a>>,
    operations: Vec<DescribedOperation<'a>>,
    systems: Vec<DescribedSystem<'a>>,
    roles: Vec<DescribedRole<'a>>,
    routes: Vec<DescribedRoute<'a>>,
    /// Ids and globs that rules of `classify` match, of proposed rules too.
    classify: &'a BTreeSet<String>,
    collections: Vec<DeclaredName<'a>>,
    destinations: Vec<DeclaredName<'a>>,
    /// Values of `${…}` by name.
    variables: &'a BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct DescribedPolicy<'a> {
    id: &'a str,
    file: &'a str,
    line: u32,
    effect: &'static str,
    /// `@reason`; empty without one.
    reason: &'a str,
    /// Text as written, with annotations, without comments before it, variables filled in.
    text: &'a str,
    principal: PolicyScope,
    action: PolicyScope,
    resource: PolicyScope,
    /// It has a `when` or `unless`.
    conditional: bool,
    /// Digest of its meaning and annotations: layout and comments do not change it.
    digest: String,
    /// Ids of `@control`, in the order of the file.
    controls: &'a [String],
}

/// One part of a policy's head.
#[derive(Debug, Serialize)]
struct PolicyScope {
    /// Cedar's text of it, for example `principal in Role::"staff"`.
    text: String,
    /// Entities that it names.
    entities: Vec<NamedEntity>,
}

#[derive(Debug, Serialize)]
struct NamedEntity {
    r#type: String,
    id: String,
}

#[derive(Debug, Serialize)]
struct DescribedOperation<'a> {
    id: &'a str,
    system: &'a str,
    effects: Vec<&'static str>,
    tier: &'static str,
    /// Action groups that it is in, for example `effect:read`.
    groups: Vec<String>,
    /// It is a tool of an imported catalog, or one of the operations that every MCP system has.
    imported: bool,
    /// Operation of each value of the argument that divides it; none where none does.
    cases: Option<&'a BTreeMap<String, String>>,
    /// It is a case of an operation that is divided.
    is_case: bool,
    /// Divisors of its amounts, by JSON pointer: 100 where the argument is in hundredths of the currency.
    amounts: BTreeMap<&'a str, u32>,
    file: &'a str,
    line: u32,
}

#[derive(Debug, Serialize)]
struct DescribedSystem<'a> {
    name: &'a str,
    /// `https://host[:port]`; may be empty.
    origin: &'a str,
    /// Its tools were imported from an MCP server.
    imported: bool,
}

#[derive(Debug, Serialize)]
struct DescribedRole<'a> {
    name: &'a str,
    /// SPIFFE ids and patterns of its agents.
    agents: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct DescribedRoute<'a> {
    method: &'a str,
    /// None: every host.
    host: Option<&'a str>,
    path: &'a str,
    operation: Cow<'a, str>,
}

#[derive(Debug, Serialize)]
struct DeclaredName<'a> {
    name: &'a str,
    file: &'a str,
}

impl Plan {
    /// Describes the plan.
    #[must_use]
    pub fn describe(&self) -> Description<'_> {
        let model = self.model();
        let roles = model.roles.iter().map(|(name, role)| DescribedRole {
            name,
            agents: role.agents.iter().map(|agent| agent.value.as_str()).collect(),
        });
        let systems = model.systems.iter().map(|(name, system)| DescribedSystem {
            name,
            origin: &system.origin,
            imported: model.tools.contains_key(name),
        });
        let routes = model.routes.iter().map(|route| DescribedRoute {
            method: route.method(),
            host: route.host.as_ref().map(|host| host.value.as_str()),
            path: &route.path.value,
            operation: route.operation_id(),
        });
        Description {
            policies: self.policies.iter().map(describe_policy).collect(),
            operations: self.describe_operations(),
            systems: systems.collect(),
            roles: roles.collect(),
            routes: routes.collect(),
            classify: &model.classified,
            collections: model.collections.iter().map(|(name, of)| declare(name, &of.at)).collect(),
            destinations: model
                .destinations
                .iter()
                .map(|(name, of)| declare(name, &of.at))
                .collect(),
            variables: &model.vars,
        }
    }

    fn describe_operations(&self) -> Vec<DescribedOperation<'_>> {
        let model = self.model();
        let cases: BTreeSet<&str> = model
            .splits
            .values()
            .flat_map(|split| split.cases.values())
            .map(String::as_str)
            .collect();
        let plain = model.operations.iter().map(|operation| (operation, None));
        let divided = model.splits.values().map(|split| (&split.operation, Some(&split.cases)));
        plain
            .chain(divided)
            .map(|(operation, divided)| DescribedOperation {
                id: &operation.id,
                system: &operation.system,
                effects: operation.effects.iter().map(|effect| effect.as_str()).collect(),
                tier: operation.tier.as_str(),
                groups: groups_of(operation),
                imported: model.tools.contains_key(&operation.system)
                    || model.is_built_in(operation),
                cases: divided,
                is_case: cases.contains(operation.id.as_str()),
                amounts: amounts_of(operation),
                file: &operation.at.file,
                line: operation.at.line,
            })
            .collect()
    }
}

fn amounts_of(operation: &Operation) -> BTreeMap<&str, u32> {
    let amounts = operation.origins.objects.iter().filter(|rule| rule.role == ValueRole::Amount);
    amounts.flat_map(|rule| rule.from.iter().map(|from| (from.as_str(), rule.scale))).collect()
}

fn declare<'a>(name: &'a str, at: &'a Location) -> DeclaredName<'a> {
    DeclaredName { name, file: &at.file }
}

fn describe_policy(placed: &Placed) -> DescribedPolicy<'_> {
    let policy = &placed.policy;
    DescribedPolicy {
        id: &policy.id,
        file: &placed.at.file,
        line: placed.at.line,
        effect: match policy.effect {
            PolicyEffect::Permit => "permit",
            PolicyEffect::Forbid => "forbid",
        },
        reason: &policy.reason,
        text: &policy.text,
        principal: principal_scope(&policy.parsed),
        action: action_scope(&policy.parsed),
        resource: resource_scope(&policy.parsed),
        conditional: policy.parsed.has_non_scope_constraint(),
        digest: digest_of(policy.parsed.clone(), &policy.text),
        controls: &policy.controls,
    }
}

/// Digest of Cedar's JSON form, which has no layout and no comments. A policy without such a form is digested as text.
fn digest_of(policy: Policy, text: &str) -> String {
    let canonical = policy.to_json().map_or_else(|_| text.to_owned(), |json| json.to_string());
    hex(&sha256(canonical.as_bytes()))
}

fn principal_scope(policy: &Policy) -> PolicyScope {
    match policy.principal_constraint() {
        PrincipalConstraint::Any => PolicyScope::any("principal"),
        PrincipalConstraint::Eq(uid) => PolicyScope::of("principal ==", &[uid]),
        PrincipalConstraint::In(uid) => PolicyScope::of("principal in", &[uid]),
        PrincipalConstraint::Is(kind) => PolicyScope::of(&format!("principal is {kind}"), &[]),
        PrincipalConstraint::IsIn(kind, uid) => {
            PolicyScope::of(&format!("principal is {kind} in"), &[uid])
        }
    }
}

fn action_scope(policy: &Policy) -> PolicyScope {
    match policy.action_constraint() {
        ActionConstraint::Any => PolicyScope::any("action"),
        ActionConstraint::Eq(uid) => PolicyScope::of("action ==", &[uid]),
        ActionConstraint::In(uids) => PolicyScope::of("action in", &uids),
    }
}

fn resource_scope(policy: &Policy) -> PolicyScope {
    match policy.resource_constraint() {
        ResourceConstraint::Any => PolicyScope::any("resource"),
        ResourceConstraint::Eq(uid) => PolicyScope::of("resource ==", &[uid]),
        ResourceConstraint::In(uid) => PolicyScope::of("resource in", &[uid]),
        ResourceConstraint::Is(kind) => PolicyScope::of(&format!("resource is {kind}"), &[]),
        ResourceConstraint::IsIn(kind, uid) => {
            PolicyScope::of(&format!("resource is {kind} in"), &[uid])
        }
    }
}

impl PolicyScope {
    fn any(text: &str) -> Self {
        Self { text: text.to_owned(), entities: Vec::new() }
    }

    fn of(text: &str, uids: &[EntityUid]) -> Self {
        let listed: Vec<String> = uids.iter().map(ToString::to_string).collect();
        let text = match listed.as_slice() {
            [] => text.to_owned(),
            [one] => format!("{text} {one}"),
            many => format!("{text} [{}]", many.join(", ")),
        };
        let entities = uids.iter().map(|uid| NamedEntity {
            r#type: uid.type_name().to_string(),
            id: uid.id().unescaped().to_owned(),
        });
        Self { text, entities: entities.collect() }
    }
}
