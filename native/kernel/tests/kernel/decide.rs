//! What a decision says.

use authz_kernel::decide::{decide, decide_traced};
use authz_kernel::decision::{Decision, Outcome, Principal, ReasonCode, Request, Verdict};
use authz_kernel::model::{Model, TierApproval};
use authz_kernel::plan::Plan;
use std::time::Duration;

use crate::common::{NOW, PERMIT_ALL, alice, ask, bot, compile, facts, model, plan, request};

fn answer(decision: &Decision) -> (Outcome, ReasonCode) {
    (decision.outcome, decision.reason)
}

fn with(policies: &str, change: impl FnOnce(&mut Model)) -> Plan {
    let mut model = model(policies);
    change(&mut model);
    compile(model, None).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn without_a_permit_nothing_is_permitted() {
    let decision = ask(&plan(""), "crm.get", r#"{"id": "42"}"#);
    assert_eq!((Outcome::Deny, ReasonCode::ChainNotPermitted), answer(&decision));
    assert!(decision.message.contains("User::\"corp/alice\""), "{}", decision.message);
}

#[test]
fn a_permit_for_all_permits_and_says_what_was_decided() {
    let decision = ask(&plan(PERMIT_ALL), "crm.get", r#"{"id": "42"}"#);
    assert_eq!((Outcome::Permit, ReasonCode::Permitted), answer(&decision));
    assert_eq!(vec!["all"], decision.policies);
    assert_eq!("Resource::\"customers/42\"", decision.resource);
    assert_eq!(2, decision.trace.len());
}

#[test]
fn every_principal_of_the_chain_needs_a_permit() {
    let staff = r#"@id("staff") permit(principal in Role::"staff", action, resource);"#;
    let agents = r#"@id("agents") permit(principal in Role::"support-agent", action, resource);"#;
    let get = r#"{"id": "42"}"#;
    assert_eq!(
        (Outcome::Deny, ReasonCode::NotPermitted),
        answer(&ask(&plan(staff), "crm.get", get))
    );
    assert_eq!(
        (Outcome::Deny, ReasonCode::ChainNotPermitted),
        answer(&ask(&plan(agents), "crm.get", get))
    );
    let both = ask(&plan(&format!("{staff}\n{agents}")), "crm.get", get);
    assert_eq!((Outcome::Permit, ReasonCode::Permitted), answer(&both));
    assert_eq!(vec!["agents", "staff"], both.policies);
}

#[test]
fn a_forbid_wins_over_permits_and_names_itself() {
    let plan = plan(
        &format!(
        "{PERMIT_ALL} @id(\"no-gold\") @control(\"ASI03,NHI5\") @reason(\"ask the account manager\")
         forbid(principal, action, resource in Collection::\"customers\")
         when {{ resource.labels.contains(Label::\"vip\") }};",
        // crm.* alone acts on a collection
    )
        .replace("forbid(principal, action,", "forbid(principal, action == Action::\"crm.get\","),
    );
    let decision = ask(&plan, "crm.get", r#"{"id": "gold/7"}"#);
    assert_eq!((Outcome::Deny, ReasonCode::Forbidden), answer(&decision));
    assert_eq!(
        (vec!["no-gold".to_owned()], vec!["ASI03".to_owned(), "NHI5".to_owned()]),
        (decision.policies, decision.controls)
    );
    assert_eq!(None, decision.shown_reason);
    assert_eq!(Outcome::Permit, ask(&plan, "crm.get", r#"{"id": "tin/7"}"#).outcome);
}

#[test]
fn other_spellings_of_an_id_do_not_escape_a_pattern() {
    let plan = plan(PERMIT_ALL);
    let of = |id: &str| ask(&plan, "crm.get", &format!("{{\"id\": \"{id}\"}}"));
    assert_eq!("Resource::\"customers//gold/7\"", of("/gold/7").resource);
    for id in ["", "/", "gold//7", "x/../gold/7", "./gold/7", "gold/7/", "gold/7\\u0000"] {
        assert_eq!((Outcome::Deny, ReasonCode::BadInput), answer(&of(id)), "{id}");
    }
}

#[test]
fn a_reason_is_shown_only_where_the_bundle_says_so() {
    let forbid = r#"@id("no") @reason("closed on Sundays") forbid(principal, action, resource);"#;
    let shown = with(forbid, |model| {
        model.show_reason.insert("crm".to_owned());
    });
    let decision = ask(&shown, "crm.get", r#"{"id": "1"}"#);
    assert_eq!(Some("closed on Sundays"), decision.shown_reason.as_deref());
    assert_eq!(None, ask(&shown, "mail.status", "").shown_reason);
}

#[test]
fn an_erroring_forbid_denies_and_an_erroring_permit_has_not_fired() {
    let overflow = "when { context.chain.depth + 9223372036854775807 > 0 }";
    let forbid = plan(&format!(
        "{PERMIT_ALL} @id(\"broken\") forbid(principal, action, resource) {overflow};"
    ));
    let decision = ask(&forbid, "mail.status", "");
    assert_eq!((Outcome::Deny, ReasonCode::PolicyError), answer(&decision));
    assert_eq!(vec!["broken"], decision.policies);
    let permit = plan(&format!("@id(\"broken\") permit(principal, action, resource) {overflow};"));
    let decision = ask(&permit, "mail.status", "");
    assert_eq!((Outcome::Deny, ReasonCode::ChainNotPermitted), answer(&decision));
    assert!(matches!(decision.trace[0].result, Verdict::Failed(_)));
}

const APPROVE: &str = r#"@id("ask") @stepup("approve") forbid(principal, action == Action::"crm.refund", resource)
    unless { context.satisfied.contains(Kind::"approve") };
    @id("ask-who") @stepup("confirm") forbid(principal is User, action == Action::"crm.refund", resource)
    unless { context.satisfied.contains(Kind::"confirm") };"#;
const REFUND: &str = r#"{"id": "1", "amount": 5}"#;

#[test]
fn forbids_that_a_step_up_lifts_give_the_union_of_their_kinds() {
    let decision = ask(&plan(&format!("{PERMIT_ALL}{APPROVE}")), "crm.refund", REFUND);
    assert_eq!((Outcome::StepUp, ReasonCode::ConfirmRequired), answer(&decision));
    assert_eq!(vec!["approve", "confirm"], decision.kinds);
    assert_eq!(vec!["ask", "ask-who"], decision.policies);
}

#[test]
fn a_step_up_needs_a_permit_for_every_principal_and_no_other_forbid() {
    let bot_only = format!("@id(\"all\") permit(principal is Agent, action, resource);{APPROVE}");
    assert_eq!(
        (Outcome::Deny, ReasonCode::ChainNotPermitted),
        answer(&ask(&plan(&bot_only), "crm.refund", REFUND))
    );
    let plain =
        format!("{PERMIT_ALL}{APPROVE} @id(\"no\") forbid(principal is Agent, action, resource);");
    let decision = ask(&plan(&plain), "crm.refund", REFUND);
    assert_eq!((Outcome::Deny, ReasonCode::Forbidden), answer(&decision));
    assert_eq!(vec!["no"], decision.policies);
}

#[test]
fn unmet_requirements_of_the_tier_step_up_by_their_kinds() {
    let high = ask(&plan(PERMIT_ALL), "crm.delete", r#"{"id": "1"}"#);
    assert_eq!((Outcome::StepUp, ReasonCode::ProofRequired), answer(&high));
    assert_eq!(vec!["bound_token"], high.kinds);
    let strict = with(PERMIT_ALL, |model| {
        model.tiers[2].max_age = Some(Duration::from_secs(59));
        model.tiers[2].confidence = 50;
        model.tiers[2].approval = TierApproval::TwoPerson;
    });
    let decision = ask(&strict, "crm.delete", r#"{"id": "1"}"#);
    assert_eq!((Outcome::StepUp, ReasonCode::ApprovalRequired), answer(&decision));
    assert_eq!(vec!["bound_token", "confidence", "fresh_credential", "two_person"], decision.kinds);
}

#[test]
fn a_requirement_that_no_step_up_can_supply_denies() {
    let plan = with(PERMIT_ALL, |model| model.tiers[0].subject = true);
    let alone = [bot()];
    let decision = decide(&plan, &facts(&alone), &request("mail.status", ""), NOW);
    assert_eq!((Outcome::Deny, ReasonCode::TierRequirement), answer(&decision));
    assert_eq!(Outcome::Permit, ask(&plan, "mail.status", "").outcome);
}

#[test]
fn satisfied_holds_only_what_a_proof_shows() {
    let stepup = r#"@id("again") @stepup("reauth:strong") forbid(principal, action, resource)
        unless { context.satisfied.contains(Kind::"reauth:strong") };
        @id("bound") @stepup("bound_token") forbid(principal, action, resource)
        unless { context.satisfied.contains(Kind::"bound_token") };
        @id("fresh") @stepup("fresh_credential") forbid(principal, action, resource)
        unless { context.satisfied.contains(Kind::"fresh_credential") };
        @id("sure") @stepup("confidence") forbid(principal, action, resource)
        unless { context.satisfied.contains(Kind::"confidence") };"#;
    let chain = [alice(), bot()];
    let mut shown = facts(&chain);
    shown.proof.acr = "strong";
    shown.proof.bound = true;
    shown.confidence = 100;
    // No tier asks for a fresh credential or for confidence, so nothing says that they are met.
    let decision =
        decide(&plan(&format!("{PERMIT_ALL}{stepup}")), &shown, &request("mail.status", ""), NOW);
    assert_eq!(vec!["confidence", "fresh_credential"], decision.kinds);
    let asking = with(&format!("{PERMIT_ALL}{stepup}"), |model| {
        model.tiers[0].max_age = Some(Duration::from_secs(60));
        model.tiers[0].confidence = 90;
    });
    assert_eq!(Outcome::Permit, decide(&asking, &shown, &request("mail.status", ""), NOW).outcome);
    shown.proof.age = None;
    let decision = decide(&asking, &shown, &request("mail.status", ""), NOW);
    assert_eq!(vec!["fresh_credential"], decision.kinds);
}

#[test]
fn obligations_are_the_union_over_all_principals_and_the_enforcer_must_support_them() {
    let plan = plan(
        r#"@id("people") @obligation("custom:log") permit(principal is User, action, resource);
           @id("agents") @obligation("redact:pii,custom:log") permit(principal is Agent, action, resource);"#,
    );
    let decision = ask(&plan, "mail.status", "");
    assert_eq!((Outcome::Deny, ReasonCode::EnforcerRefused), answer(&decision));
    assert!(decision.obligations.is_empty());
    let chain = [alice(), bot()];
    let able = Request {
        supported_obligations: &["custom:log", "redact:pii"],
        ..request("mail.status", "")
    };
    let decision = decide(&plan, &facts(&chain), &able, NOW);
    assert_eq!(
        (Outcome::Permit, vec!["custom:log".to_owned(), "redact:pii".to_owned()]),
        (decision.outcome, decision.obligations)
    );
}

/// What Authz does itself is asked of no enforcer; an enforcer that redacts any pointer lists `redact:/`.
#[test]
fn some_obligations_are_carried_out_here() {
    let plan = plan(
        r#"@id("a") @obligation("log_full,mask_arguments:/amount,redact:/note") permit(principal, action == Action::"crm.refund", resource);
           @id("b") permit(principal, action == Action::"crm.get", resource);"#,
    );
    let arguments = r#"{"id": "1", "amount": 2}"#;
    let refused = ask(&plan, "crm.refund", arguments);
    assert_eq!((Outcome::Deny, ReasonCode::EnforcerRefused), answer(&refused));
    assert!(refused.message.contains("`redact:/note`"), "{}", refused.message);
    let chain = [bot()];
    let able = Request { supported_obligations: &["redact:/"], ..request("crm.refund", arguments) };
    let decision = decide(&plan, &facts(&chain), &able, NOW);
    assert_eq!(Outcome::Permit, decision.outcome, "{}", decision.message);
    assert_eq!(vec!["redact:/note"], decision.obligations);
    assert_eq!(vec!["log_full", "mask_arguments:/amount"], decision.own_obligations);
    assert_eq!(vec!["/amount"], plan.masked_arguments("crm.refund"));
    assert_eq!(Vec::<&str>::new(), plan.masked_arguments("crm.get"));
}

#[test]
fn what_cannot_be_resolved_is_refused_by_its_own_reason() {
    let plan = plan(PERMIT_ALL);
    for (operation, arguments, reason) in [
        ("crm.nothing", "", ReasonCode::UnknownOperation),
        ("mail.drop", "", ReasonCode::UnreviewedOperation),
        ("crm.get", "", ReasonCode::BadInput),
        ("crm.get", "[]", ReasonCode::BadInput),
        ("crm.get", r#"{"id": 1}"#, ReasonCode::BadInput),
        ("mail.send", r#"{"to": ["nobody"]}"#, ReasonCode::BadInput),
    ] {
        let decision = ask(&plan, operation, arguments);
        assert_eq!((Outcome::Deny, reason), answer(&decision), "{operation} {arguments}");
        assert!(decision.trace.is_empty());
    }
    let named = Request { resource: Some("1"), ..request("mail.status", "") };
    let chain = [bot()];
    assert_eq!(ReasonCode::BadInput, decide(&plan, &facts(&chain), &named, NOW).reason);
    let sent = Request { destinations: &["a@b.example"], ..request("mail.status", "") };
    assert_eq!(ReasonCode::BadInput, decide(&plan, &facts(&chain), &sent, NOW).reason);
}

#[test]
fn nobody_and_a_chain_that_is_too_long_are_refused() {
    let plan = plan(PERMIT_ALL);
    let ask =
        |chain: &[Principal]| decide(&plan, &facts(chain), &request("mail.status", ""), NOW).reason;
    assert_eq!(ReasonCode::NoCredential, ask(&[]));
    assert_eq!(ReasonCode::Permitted, ask(&vec![bot(); 8]));
    assert_eq!(ReasonCode::TooDeep, ask(&vec![bot(); 9]));
}

#[test]
fn the_worst_of_several_destinations_counts_and_an_absent_one_is_the_declared_class() {
    let plan = plan(&format!(
        "{PERMIT_ALL} @id(\"inside\") forbid(principal, action == Action::\"mail.send\", resource)
         when {{ context.destination.class == DestinationClass::\"external\" }};"
    ));
    let of = |arguments: &str| {
        let decision = ask(&plan, "mail.send", arguments);
        (decision.outcome, decision.destination_class)
    };
    assert_eq!((Outcome::Permit, "internal".to_owned()), of(r#"{"to": ["a@corp.example"]}"#));
    assert_eq!(
        (Outcome::Deny, "external".to_owned()),
        of(r#"{"to": ["a@corp.example", "b@x.example"]}"#)
    );
    assert_eq!(
        (Outcome::Deny, "external".to_owned()),
        of(r#"{"to": ["a@corp.example"], "cc": "b@x.example"}"#)
    );
    assert_eq!((Outcome::Deny, "external".to_owned()), of("{}"));
}

#[test]
fn context_is_total_and_says_what_was_proved() {
    let conditions = [
        "context.tier == 0",
        "context.task.kind == TaskKind::\"none\"",
        "context.task.template == Template::\"none\"",
        "context.subject_proof == SubjectProof::\"verified\"",
        "context.chain.depth == 2",
        "context.chain.agents.contains(Agent::\"spiffe://a.example/ns/support/sa/bot\")",
        "context.chain.subject",
        "context.enforcer == \"envoy\"",
        "context.confidence == 0",
        "!context.destination.present",
        "context.destination.class == DestinationClass::\"none\"",
        "context.proof.method == ProofMethod::\"jwt-svid\"",
        "!context.proof.bound",
        "context.proof.age == 60",
        "context.proof.acr == \"\"",
        "context.satisfied.isEmpty()",
        "context.time == datetime(\"2026-11-25T00:00:00Z\")",
    ];
    for condition in conditions {
        let plan = plan(&format!(
            "@id(\"p\") permit(principal, action, resource) when {{ {condition} }};"
        ));
        assert_eq!(Outcome::Permit, ask(&plan, "mail.status", "").outcome, "{condition}");
    }
}

#[test]
fn our_own_operations_are_judged_like_any_other_but_are_in_no_effect_group() {
    let reads =
        plan("@id(\"reads\") permit(principal, action in Action::\"effect:read\", resource);");
    assert_eq!(ReasonCode::ChainNotPermitted, ask(&reads, "authz.status", "").reason);
    let own = plan(
        "@id(\"own\") permit(principal, action in Action::\"system:authz\", resource == System::\"authz\");",
    );
    assert_eq!(ReasonCode::Permitted, ask(&own, "authz.probe", "").reason);
    assert_eq!("System::\"authz\"", ask(&own, "authz.probe", "").resource);
}

#[test]
fn the_same_request_gets_the_same_decision() {
    let plan = plan(&format!("{PERMIT_ALL}{APPROVE}"));
    let chain = [alice(), bot()];
    let once = || {
        format!("{:?}", decide_traced(&plan, &facts(&chain), &request("crm.refund", REFUND), NOW))
    };
    let first = once();
    assert!((0..50).all(|_| once() == first));
}
