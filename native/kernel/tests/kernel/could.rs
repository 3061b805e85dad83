//! Which operations could be permitted: never fewer than a decision permits, and not simply all.

use authz_kernel::decide::Prospects;
use authz_kernel::decision::{Facts, Principal};
use authz_kernel::mode::{Mode, ModeRule};
use authz_kernel::model::{Split, TierRequirements};
use authz_kernel::plan::Plan;
use authz_kernel::task::{TaskView, taskless};

use crate::common::{NOW, PERMIT_ALL, alice, bot, compile, facts, model, plan};

fn listed(plan: &Plan, chain: &[Principal]) -> Vec<String> {
    let own = taskless(chain, "");
    let task = own.as_ref().map(|task| TaskView { task, ancestors: &[] });
    let facts = Facts { task, ..facts(chain) };
    let prospects = Prospects::new(plan, &facts, NOW);
    let ids = plan.ids_after("", "");
    ids.into_iter().filter(|id| prospects.could(id)).map(str::to_owned).collect()
}

fn of(policies: &str) -> Vec<String> {
    listed(&plan(policies), &[alice(), bot()])
}

/// A forbid on `crm.get` beside a permit for all: whether `crm.get` is still listed.
fn survives(forbid: &str) -> bool {
    of(&format!("{PERMIT_ALL}@id(\"no\") {forbid}")).contains(&"crm.get".to_owned())
}

#[test]
fn everything_reviewed_could_be_permitted_by_a_permit_for_all() {
    let all = ["crm.delete", "crm.get", "crm.refund", "crm.search", "mail.send", "mail.status"];
    assert_eq!(all.as_slice(), of(PERMIT_ALL));
}

#[test]
fn nothing_could_without_a_permit_for_every_principal() {
    assert!(of("").is_empty());
    let staff =
        r#"@id("s") permit(principal in Role::"staff", action == Action::"crm.get", resource);"#;
    assert!(of(staff).is_empty(), "the agent has none");
    let agent = r#"@id("a") permit(principal in Role::"support-agent", action in Action::"system:crm", resource);"#;
    assert_eq!(["crm.get"].as_slice(), of(&format!("{staff}\n{agent}")));
    assert_eq!(["crm.get"].as_slice(), listed(&plan(staff), &[alice()]));
    assert!(listed(&plan(PERMIT_ALL), &[]).is_empty());
}

#[test]
fn what_arguments_resource_and_proof_still_decide_stands_against_nothing() {
    for forbid in [
        r#"forbid(principal, action == Action::"crm.get", resource) when { context.input.id == "1" };"#,
        r#"forbid(principal, action == Action::"crm.get", resource) when { !(context.input.id == "1") };"#,
        r#"forbid(principal, action == Action::"crm.get", resource == Resource::"customers/gold/1");"#,
        r#"forbid(principal, action, resource) when { resource is Resource && resource.labels.contains(Label::"vip") };"#,
        r#"forbid(principal, action, resource) unless { context.satisfied.contains(Kind::"bound_token") };"#,
        r#"forbid(principal, action, resource) when { context.enforcer == "envoy" };"#,
        r#"forbid(principal, action, resource) when { context.confidence < 50 };"#,
        r#"forbid(principal, action, resource) when { context.origins.target.contains(Origin::"unknown") };"#,
        r#"forbid(principal, action, resource) unless { [Origin::"named"].containsAll(context.origins.target) };"#,
        r#"forbid(principal, action, resource) when { context.literals.unknown > 0 };"#,
        r#"@stepup("approve") forbid(principal, action, resource) unless { context.satisfied.contains(Kind::"approve") };"#,
        r#"forbid(principal, action == Action::"crm.get", resource) when { context.input.id == "1" || context.chain.depth > 5 };"#,
        r#"forbid(principal, action, resource) when { context.chain.depth > 2 };"#,
        r#"forbid(principal in Role::"staff", action, resource) when { principal is Agent };"#,
    ] {
        assert!(survives(forbid), "{forbid}");
    }
}

#[test]
fn a_forbid_whatever_the_arguments_takes_it_off_the_list() {
    for forbid in [
        r#"forbid(principal, action == Action::"crm.get", resource);"#,
        r#"forbid(principal, action in Action::"effect:read", resource in Collection::"customers");"#,
        r#"forbid(principal, action in Action::"system:crm", resource is Resource in System::"crm");"#,
        r#"forbid(principal in Role::"staff", action, resource);"#,
        r#"forbid(principal, action, resource) when { context.chain.depth == 2 };"#,
        r#"forbid(principal, action, resource) when { context.time > datetime("2020-01-01") };"#,
        r#"forbid(principal, action == Action::"crm.get", resource) when { context.chain.depth == 2 || context.input.id == "1" };"#,
        r#"forbid(principal, action == Action::"crm.get", resource) when { context.input.id == "1" || context.chain.depth == 2 };"#,
        r#"forbid(principal, action == Action::"crm.get", resource) unless { context.input.id == "1" && context.chain.depth == 1 };"#,
        r#"forbid(principal, action, resource) when { context.proof.age < 100 };"#,
        r#"forbid(principal, action, resource) when { context.task.template == Template::"none" };"#,
        // It fails whatever the arguments, which denies too.
        r#"forbid(principal, action, resource) when { context.chain.depth + 9223372036854775807 > 0 };"#,
    ] {
        assert!(!survives(forbid), "{forbid}");
    }
}

#[test]
fn a_permit_that_can_never_fire_permits_nothing() {
    for body in [
        "context.chain.depth > 5",
        r#"context.input.id == "1" && context.chain.depth > 5"#,
        r#"context.chain.depth > 5 && context.input.id == "1""#,
        r#"!(context.input.id == "1" || context.chain.depth == 2)"#,
        "context.chain.depth + 9223372036854775807 > 0",
        r#"if context.input.id == "1" then context.chain.depth > 5 else false"#,
    ] {
        let permit = format!(
            r#"@id("p") permit(principal, action == Action::"crm.get", resource) when {{ {body} }};"#
        );
        assert!(of(&permit).is_empty(), "{body}");
    }
    let perhaps = r#"@id("p") permit(principal, action == Action::"crm.get", resource) when { context.input.id == "1" };"#;
    assert_eq!(["crm.get"].as_slice(), of(perhaps));
    let elsewhere = r#"@id("p") permit(principal, action in [Action::"crm.get", Action::"mail.send"], resource in System::"mail");"#;
    assert_eq!(["mail.send"].as_slice(), of(elsewhere));
    let one = r#"@id("p") permit(principal, action in Action::"system:crm", resource == Resource::"customers/7");"#;
    assert!(of(one).contains(&"crm.get".to_owned()));
}

#[test]
fn a_tier_that_nothing_can_meet_takes_it_off_the_list() {
    let mut model = model(PERMIT_ALL);
    model.tiers[0] = TierRequirements { subject: true, ..TierRequirements::default() };
    let plan = compile(model, None).unwrap();
    let could = |chain: &[Principal]| listed(&plan, chain).contains(&"crm.get".to_owned());
    assert!(could(&[alice(), bot()]));
    assert!(!could(&[bot()]));
    // What a step-up could supply stays.
    assert!(listed(&plan, &[bot()]).contains(&"crm.delete".to_owned()));
}

#[test]
fn what_is_only_observed_is_let_through_and_so_listed() {
    let mut model = model("");
    let rule = ModeRule {
        mode: Mode::Observe,
        owner: "sec@corp.example".to_owned(),
        until: Some(authz_kernel::decision::Time(NOW.0 + 1_000)),
        at: authz_kernel::model::Location::default(),
    };
    model.modes.systems.insert("mail".to_owned(), rule);
    let plan = compile(model, None).unwrap();
    let observed = ["mail.drop", "mail.send", "mail.status"];
    assert_eq!(observed.as_slice(), listed(&plan, &[bot()]));
    assert_eq!(observed.as_slice(), listed(&plan, &[]), "also for nobody");
}

#[test]
fn a_split_operation_is_listed_with_its_cases() {
    let mut model = model(r#"@id("p") permit(principal, action == Action::"crm.get", resource);"#);
    let mut operation = model.operations[1].clone();
    operation.id = "crm.customer".to_owned();
    let cases = [("get", "crm.get"), ("delete", "crm.delete")];
    let split = Split {
        operation,
        on: "/action".to_owned(),
        cases: cases.iter().map(|(value, id)| ((*value).to_owned(), (*id).to_owned())).collect(),
        when_absent: None,
    };
    model.splits.insert("crm.customer".to_owned(), split);
    let plan = compile(model, None).unwrap();
    assert_eq!(["crm.customer", "crm.get"].as_slice(), listed(&plan, &[bot()]));
}

#[test]
fn ids_go_on_after_one_and_within_a_system() {
    let plan = plan(PERMIT_ALL);
    assert_eq!(["crm.refund", "crm.search"].as_slice(), plan.ids_after("crm", "crm.get"));
    assert_eq!(7, plan.ids_after("", "").len());
    assert!(plan.ids_after("cr", "").is_empty());
    assert!(plan.ids_after("", "zzz").is_empty());
}
