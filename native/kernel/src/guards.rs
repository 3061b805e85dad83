//! Policies of a plan as an analyzer asks about them: conditions as Cedar expressions, the slice of each operation, and verdicts
//! on a stated request.
//!
//! A solver answers for a single principal and a single destination. A request that Authz permits satisfies the guards of its
//! operation for each principal of the chain and each destination, so that a proof that no request satisfies them covers chains.

use std::collections::{BTreeMap, BTreeSet};

use crate::arguments::Member;
use crate::decision::{PolicyEffect, Verdict};
use crate::evaluate::Unready;
use crate::evaluate::stated::{self, StatedJudge};
use crate::mode::Modes;
use crate::model::{Location, Operation};
use crate::plan::{Plan, groups_of, resource_type};
use crate::policy::Placed;
use crate::schema::{self, Key, SchemaNames};

/// Types of principals, in the order of the schema's declarations.
pub const PRINCIPAL_TYPES: [&str; 3] = ["Agent", "User", "Service"];

/// A policy: its condition as a Cedar expression, and its effect on a decision.
#[derive(Clone, Debug)]
pub struct PolicyGuard<'a> {
    /// `@id`.
    pub id: &'a str,
    /// Permit or forbid.
    pub effect: PolicyEffect,
    /// Place in the bundle.
    pub at: &'a Location,
    /// `@reason`; empty without one.
    pub reason: &'a str,
    /// Step-up kind that lifts a forbid.
    pub stepup: Option<&'a str>,
    /// `@obligation` values.
    pub obligations: &'a [String],
    /// `@control` values.
    pub controls: &'a [String],
    /// Value of `@covers` as text; empty without one.
    pub covers: String,
    /// Text as written, with variables filled in.
    pub text: &'a str,
    /// Scope for principal and resource as a Cedar expression; `true` for any.
    pub scope: String,
    /// Body as a Cedar expression. `None`: a policy without conditions.
    pub body: Option<String>,
    /// Names of the context keys that the body reads.
    pub keys: Vec<&'static str>,
    /// Entities named in scope and body: type and id.
    pub names: BTreeSet<(&'a str, &'a str)>,
    /// Scope or body mention the resource.
    pub reads_resource: bool,
    /// Arguments that the body reads by name. `None`: it reads `context.input` as a whole.
    pub inputs: Option<BTreeSet<&'a str>>,
    /// The body mentions `action`.
    pub reads_action: bool,
    /// End of `@mode("observe")` in milliseconds since 1970: until then a forbid denies nothing. An observed permit permits
    /// nothing, also after its end. Default: the policy is enforced.
    pub observed_until_ms: Option<i64>,
}

/// The part of the schema that one operation needs.
#[derive(Clone, Debug)]
pub struct OperationGuard<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// Its action groups.
    pub groups: Vec<String>,
    /// Cedar type of its resource.
    pub resource_type: &'static str,
    /// Its arguments.
    pub inputs: &'a BTreeMap<String, Member>,
    /// Policies that can match it, by position in [`Plan::policy_guards`], without those that are only observed.
    pub policies: Vec<usize>,
}

impl PolicyGuard<'_> {
    /// Scope for principal and resource, and body, as one Cedar expression.
    #[must_use]
    pub fn condition(&self) -> String {
        match &self.body {
            None => self.scope.clone(),
            Some(body) => format!("{} && ({body})", self.scope),
        }
    }
}

impl OperationGuard<'_> {
    /// Declaration of the action with only some arguments.
    ///
    /// Args: `name`: name of the action in the declaration; `inputs`: arguments to keep. `None`: all.
    #[must_use]
    pub fn declaration(&self, name: &str, inputs: Option<&BTreeSet<&str>>) -> String {
        let is_kept =
            |(name, _): &(&String, &Member)| inputs.is_none_or(|kept| kept.contains(name.as_str()));
        let kept = self.inputs.iter().filter(is_kept);
        let kept = kept.map(|(name, member)| (name.clone(), member.clone())).collect();
        schema::action(name, &self.groups, self.resource_type, &kept)
    }
}

impl Plan {
    /// The policies, in the order of the bundle.
    #[must_use]
    pub fn policy_guards(&self) -> Vec<PolicyGuard<'_>> {
        let modes = &self.model().modes;
        self.policies.iter().map(|placed| policy_guard(placed, modes)).collect()
    }

    /// The operations of the bundle and those of Authz itself, with the policies that can match each.
    #[must_use]
    pub fn operation_guards(&self) -> Vec<OperationGuard<'_>> {
        self.all_operations().filter_map(|operation| self.operation_guard(&operation.id)).collect()
    }

    /// One operation with the policies that can match it. `None`: no such operation, or one that is split.
    #[must_use]
    pub fn operation_guard(&self, id: &str) -> Option<OperationGuard<'_>> {
        let (operation, prepared) = self.prepared(id)?;
        // An observed forbid restricts nothing, and an observed permit permits nothing.
        let enforced = prepared.slice.policies().filter(|(_, rule)| !rule.is_observed);
        let mut policies: Vec<usize> = enforced.map(|(at, _)| at).collect();
        policies.sort_unstable();
        Some(OperationGuard {
            operation,
            groups: groups_of(operation),
            resource_type: resource_type(operation),
            inputs: prepared.arguments.members(),
            policies,
        })
    }

    /// Names of the enumerated types of the schema. [`SchemaNames::prelude`] is the schema without actions.
    #[must_use]
    pub fn schema_names(&self) -> SchemaNames {
        SchemaNames::of(self.model(), &self.reauth_kinds())
    }

    /// Judges the policies that can match an operation on a stated request, each as a decision does.
    ///
    /// Args: `request`: principal, resource and context. Its action is not read.
    ///
    /// Returns: the verdict of each policy, by position in [`Plan::policy_guards`].
    ///
    /// # Errors
    /// There is no such operation, or the request leaves a part open.
    pub fn judge_stated(
        &self,
        operation: &str,
        request: &cedar_policy::Request,
        entities: &cedar_policy::Entities,
    ) -> Result<BTreeMap<usize, Verdict>, String> {
        let (_, prepared) = self
            .prepared(operation)
            .ok_or_else(|| format!("there is no operation `{operation}`"))?;
        let judge =
            StatedJudge::new(&prepared.base, request, entities).map_err(|Unready(text)| text)?;
        let enforced = prepared.slice.policies().filter(|(_, rule)| !rule.is_observed);
        Ok(enforced.map(|(at, rule)| (at, judge.judge(rule))).collect())
    }
}

fn policy_guard<'a>(placed: &'a Placed, modes: &'a Modes) -> PolicyGuard<'a> {
    let policy = &*placed.policy;
    let reading = &policy.reading;
    let whole = reading.key_reads.iter().filter(|read| read.name == "input").count();
    let inputs = (whole == reading.inputs.len())
        .then(|| reading.inputs.iter().map(|read| read.name.as_str()).collect());
    let parsed = policy.parsed.as_ref();
    PolicyGuard {
        id: &policy.id,
        effect: policy.effect,
        at: &placed.at,
        reason: &policy.reason,
        stepup: policy.stepup.as_deref(),
        obligations: &policy.obligations,
        controls: &policy.controls,
        covers: policy.covers.as_ref().map(|covers| format!("{covers:?}")).unwrap_or_default(),
        text: &policy.text,
        scope: stated::scope(parsed),
        body: stated::body(parsed),
        keys: Key::ALL
            .into_iter()
            .filter(|key| reading.keys.contains(*key))
            .map(Key::as_str)
            .collect(),
        names: reading.names.iter().map(|name| (name.kind.as_str(), name.id.as_str())).collect(),
        reads_resource: stated::reads_resource(parsed),
        inputs,
        reads_action: stated::reads_action(parsed),
        observed_until_ms: placed.observing(modes).map(|rule| rule.until_ms),
    }
}
