//! Ways to fail open that were measured. Each test keeps the naive way and shows that it would permit or load; then
//! that ours does not.

use std::str::FromStr as _;

use authz_kernel::decision::{Outcome, ReasonCode};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, Schema, ValidationMode,
    Validator,
};

use crate::common::{BOT, PERMIT_ALL, ask, plan, refusals};

fn naive(policies: &str, action: &str) -> cedar_policy::Response {
    let uid = |text: &str| EntityUid::from_str(text).unwrap();
    let request = Request::new(
        uid(&format!("Agent::\"{BOT}\"")),
        uid(&format!("Action::\"{action}\"")),
        uid("System::\"mail\""),
        Context::empty(),
        None,
    )
    .unwrap();
    let policies = PolicySet::from_str(policies).unwrap();
    Authorizer::new().is_authorized(&request, &policies, &Entities::empty())
}

fn loads(schema: &str, policy: &str) -> cedar_policy::ValidationResult {
    let policies = PolicySet::from_str(policy).unwrap();
    Validator::new(Schema::from_str(schema).unwrap()).validate(&policies, ValidationMode::Strict)
}

#[test]
fn a_forbid_on_an_action_group_fires_without_a_store_of_all_actions() {
    let policies = format!(
        "{PERMIT_ALL} @id(\"no\") forbid(principal, action in Action::\"effect:export\", resource);"
    );
    assert_eq!(Decision::Allow, naive(&policies, "mail.send").decision());
    assert_eq!(ReasonCode::Forbidden, ask(&plan(&policies), "mail.send", "{}").reason);
    // Also where the group stands in the body, where no slice proves it.
    let body = format!(
        "{PERMIT_ALL} @id(\"no\") forbid(principal, action, resource) when {{ action in Action::\"effect:export\" }};"
    );
    assert_eq!(Decision::Allow, naive(&body, "mail.send").decision());
    assert_eq!(ReasonCode::Forbidden, ask(&plan(&body), "mail.send", "{}").reason);
}

#[test]
fn a_forbid_that_fails_denies() {
    let policies = format!(
        "{PERMIT_ALL} @id(\"no\") forbid(principal, action, resource) when {{ principal.spiffe_id like \"*\" }};"
    );
    assert_eq!(Decision::Allow, naive(&policies, "mail.status").decision());
    let policies = format!(
        "{PERMIT_ALL} @id(\"no\") forbid(principal, action, resource) when {{ context.chain.depth * 9223372036854775807 > 0 }};"
    );
    assert_eq!(Decision::Allow, naive(&policies, "mail.status").decision());
    assert_eq!(ReasonCode::PolicyError, ask(&plan(&policies), "mail.status", "").reason);
}

#[test]
fn a_denial_tells_whether_a_permit_fired() {
    let forbid = "@id(\"ask\") @stepup(\"confirm\") forbid(principal, action, resource) unless { context.satisfied.contains(Kind::\"confirm\") };";
    let naive_forbid = "@id(\"ask\") forbid(principal, action, resource);";
    let both = naive(&format!("{PERMIT_ALL}{naive_forbid}"), "mail.status");
    let alone = naive(naive_forbid, "mail.status");
    let reasons = |response: &cedar_policy::Response| response.diagnostics().reason().count();
    assert_eq!((both.decision(), reasons(&both)), (alone.decision(), reasons(&alone)));
    assert_eq!(
        Outcome::StepUp,
        ask(&plan(&format!("{PERMIT_ALL}{forbid}")), "mail.status", "").outcome
    );
    assert_eq!(Outcome::Deny, ask(&plan(forbid), "mail.status", "").outcome);
}

/// A schema as one would write it by hand: names are plain entities and texts.
const PLAIN: &str = r#"entity Role; entity Agent in [Role]; entity System;
    action "effect:export"; action "effect:grant";
    action "mail.send" in ["effect:export"] appliesTo { principal: [Agent], resource: [System],
        context: { sequences: Set<String>, input: { "amount"?: Long } } };"#;

#[test]
fn a_name_that_nothing_declares_is_refused() {
    for (loose, ours) in [
        (
            "forbid(principal in Role::\"typo\", action, resource);",
            "@id(\"a\") forbid(principal in Role::\"typo\", action, resource);",
        ),
        (
            "forbid(principal == Agent::\"typo\", action, resource);",
            "@id(\"a\") forbid(principal == Agent::\"typo\", action, resource);",
        ),
        (
            "forbid(principal, action, resource) when { context.sequences.contains(\"typo\") };",
            "@id(\"a\") forbid(principal, action, resource) when { context.sequences.contains(Sequence::\"typo\") };",
        ),
    ] {
        let result = loads(PLAIN, loose);
        assert!(
            result.validation_passed() && result.validation_passed_without_warnings(),
            "{result}"
        );
        assert!(!refusals(ours).is_empty(), "{ours}");
    }
}

#[test]
fn a_policy_that_could_never_match_is_refused() {
    let misspelt = "forbid(principal, action, resource) when { context.input has amuont && context.input.amuont > 10 };";
    let empty = "forbid(principal, action in Action::\"effect:grant\", resource);";
    for policy in [misspelt, empty] {
        assert!(loads(PLAIN, policy).validation_passed(), "a warning only");
        assert!(!refusals(&format!("@id(\"a\") {policy}")).is_empty(), "{policy}");
    }
    let template = "forbid(principal == ?principal, action, resource);";
    let result = loads(PLAIN, template);
    assert!(result.validation_passed() && result.validation_passed_without_warnings());
    assert!(!refusals(&format!("@id(\"a\") {template}")).is_empty());
}

#[test]
fn an_argument_is_never_taken_for_an_entity() {
    let text = r#"{"extra": {"__entity": {"type": "Role", "id": "admin"}}}"#;
    let context = Context::from_json_str(text, None).unwrap();
    let admin = "permit(principal, action, resource) when { context.extra == Role::\"admin\" };";
    let request = Request::new(
        EntityUid::from_str("Agent::\"x\"").unwrap(),
        EntityUid::from_str("Action::\"crm.refund\"").unwrap(),
        EntityUid::from_str("System::\"crm\"").unwrap(),
        context,
        None,
    )
    .unwrap();
    let response = Authorizer::new().is_authorized(
        &request,
        &PolicySet::from_str(admin).unwrap(),
        &Entities::empty(),
    );
    assert_eq!(Decision::Allow, response.decision(), "the naive reader made an entity");
    // Ours keeps it an opaque argument: present, and equal to no entity.
    let plan = plan(&format!(
        "{PERMIT_ALL} @id(\"opaque\") forbid(principal, action == Action::\"crm.refund\", resource) when {{ context.input has extra && context.input.extra != {{}} }};"
    ));
    let arguments =
        r#"{"id": "1", "amount": 1, "extra": {"__entity": {"type": "Role", "id": "admin"}}}"#;
    assert_eq!(Outcome::Permit, ask(&plan, "crm.refund", arguments).outcome);
    // And where a text is declared, an object is no text.
    let arguments = r#"{"id": {"__entity": {"type": "Role", "id": "admin"}}, "amount": 1}"#;
    assert_eq!(ReasonCode::BadInput, ask(&plan, "crm.refund", arguments).reason);
}

#[test]
fn a_member_named_twice_is_refused() {
    let twice = r#"{"id": "1", "amount": 1, "amount": 1000000}"#;
    let naive: serde_json::Value = serde_json::from_str(twice).unwrap();
    assert_eq!(1_000_000, naive["amount"], "the naive reader keeps the last");
    assert_eq!(ReasonCode::BadInput, ask(&plan(PERMIT_ALL), "crm.refund", twice).reason);
}

#[test]
fn a_step_up_that_nothing_lifts_is_refused() {
    let forbid = "@id(\"a\") @stepup(\"approve\") forbid(principal, action, resource);";
    assert!(loads(PLAIN, forbid).validation_passed_without_warnings());
    assert_eq!(1, refusals(forbid).len());
}
