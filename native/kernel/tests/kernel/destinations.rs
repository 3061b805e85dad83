//! Calls with several destinations: each of them counts.

use std::collections::BTreeSet;

use authz_kernel::decision::{Decision, Outcome, ReasonCode, Verdict};
use authz_kernel::model::{DestinationClass, DestinationKind, Location, Model};
use authz_kernel::plan::Plan;
use serde_json::json;

use crate::common::{PERMIT_ALL, ask, compile, model};

/// The support desk with these classes: name, patterns, clearance.
fn with(policies: &str, classes: &[(&str, &[&str], &[&str])]) -> Model {
    let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mut model = model(policies);
    model.destinations.clear();
    for (name, patterns, clearance) in classes {
        let class = DestinationClass {
            patterns: texts(patterns),
            recipient_lists: BTreeSet::new(),
            clearance: texts(clearance).into_iter().collect::<BTreeSet<_>>(),
            at: Location::default(),
        };
        model.destinations.insert((*name).to_owned(), class);
    }
    for operation in &mut model.operations {
        if let Some(rule) = &mut operation.destination {
            rule.when_absent.clear();
        }
    }
    model
}

fn compiled(model: Model) -> Plan {
    compile(model, None).unwrap_or_else(|errors| panic!("{errors}"))
}

fn send(plan: &Plan, to: &[&str]) -> Decision {
    ask(plan, "mail.send", &json!({ "to": to }).to_string())
}

fn both(plan: &Plan, one: &str, other: &str) -> [Decision; 2] {
    [send(plan, &[one, other]), send(plan, &[other, one])]
}

#[test]
fn a_second_recipient_hides_no_forbidden_class() {
    let plan = compiled(with(
        &format!(
            "{PERMIT_ALL}@id(\"no\") forbid(principal, action == Action::\"mail.send\", resource) \
             when {{ context.destination.class == DestinationClass::\"rival\" }};"
        ),
        &[("external", &["*"], &[]), ("rival", &["*@rival.example"], &[])],
    ));
    assert_eq!(Outcome::Permit, send(&plan, &["b@z.example"]).outcome);
    assert_eq!(ReasonCode::Forbidden, send(&plan, &["a@rival.example"]).reason);
    for decision in both(&plan, "a@rival.example", "b@z.example") {
        assert_eq!((Outcome::Deny, ReasonCode::Forbidden), (decision.outcome, decision.reason));
        assert_eq!(vec!["no"], decision.policies);
        assert_eq!("external", decision.destination_class);
        let traced = decision.trace.iter().filter(|judged| judged.policy == "no");
        let traced: Vec<_> = traced.map(|judged| judged.result.clone()).collect();
        assert_eq!(vec![Verdict::Fired, Verdict::Fired], traced, "once for each principal");
    }
}

#[test]
fn a_second_recipient_hides_no_forbidden_host() {
    let policies = format!(
        "{PERMIT_ALL}@id(\"no\") forbid(principal, action == Action::\"mail.send\", resource) \
         when {{ context.destination.host == \"evil.example\" }};"
    );
    let classes: &[(&str, &[&str], &[&str])] = &[("external", &["*"], &[])];
    let mails = compiled(with(&policies, classes));
    let mut urls = with(&policies, classes);
    for operation in &mut urls.operations {
        if let Some(rule) = &mut operation.destination {
            rule.kind = DestinationKind::UrlHost;
        }
    }
    let urls = compiled(urls);
    for (plan, evil, fine) in [
        (&mails, "a@evil.example", "b@z.example"),
        (&urls, "https://evil.example", "https://b.example"),
    ] {
        assert_eq!(Outcome::Permit, send(plan, &[fine]).outcome);
        assert_eq!(ReasonCode::Forbidden, send(plan, &[evil]).reason);
        for decision in both(plan, evil, fine) {
            assert_eq!((Outcome::Deny, ReasonCode::Forbidden), (decision.outcome, decision.reason));
        }
    }
}

#[test]
fn a_second_recipient_fetches_no_permit_for_its_host() {
    let plan = compiled(with(
        "@id(\"may\") permit(principal, action == Action::\"mail.send\", resource) \
         when { context.destination.host == \"a.corp.example\" };",
        &[
            ("external", &["*"], &[]),
            ("internal", &["*@a.corp.example", "*@b.corp.example"], &["pii"]),
        ],
    ));
    assert_eq!(Outcome::Permit, send(&plan, &["x@a.corp.example", "z@a.corp.example"]).outcome);
    assert_eq!(Outcome::Deny, send(&plan, &["y@b.corp.example"]).outcome);
    for decision in both(&plan, "x@a.corp.example", "y@b.corp.example") {
        assert_eq!(Outcome::Deny, decision.outcome);
        assert!(decision.trace.iter().all(|judged| judged.result == Verdict::NotFired));
    }
}

#[test]
fn a_second_recipient_fetches_no_permit_for_its_class() {
    let plan = compiled(with(
        "@id(\"may\") permit(principal, action == Action::\"mail.send\", resource) \
         when { context.destination.class == DestinationClass::\"partner_a\" };",
        &[
            ("external", &["*"], &[]),
            ("partner_a", &["*@pa.example"], &["pii"]),
            ("partner_b", &["*@pb.example"], &["vip"]),
        ],
    ));
    assert_eq!(Outcome::Permit, send(&plan, &["x@pa.example"]).outcome);
    assert_eq!(Outcome::Deny, send(&plan, &["y@pb.example"]).outcome);
    for decision in both(&plan, "x@pa.example", "y@pb.example") {
        assert_eq!(Outcome::Deny, decision.outcome);
        assert_eq!("partner_a", decision.destination_class, "of equal sizes the first by name");
    }
}

#[test]
fn a_forbid_that_fails_for_one_destination_denies() {
    let plan = compiled(with(
        &format!(
            "{PERMIT_ALL}@id(\"no\") forbid(principal, action == Action::\"mail.send\", resource) \
             when {{ context.destination.host == \"odd.example\" && context.tier + 9223372036854775807 > 0 }};"
        ),
        &[("external", &["*"], &[])],
    ));
    assert_eq!(Outcome::Permit, send(&plan, &["b@z.example"]).outcome);
    for decision in both(&plan, "a@odd.example", "b@z.example") {
        assert_eq!(ReasonCode::PolicyError, decision.reason);
        assert!(decision.message.ends_with("integer overflow"), "{}", decision.message);
    }
}

#[test]
fn the_worst_class_has_the_least_clearance() {
    let plan = compiled(with(
        PERMIT_ALL,
        &[
            ("anyone", &["*"], &["pii"]),
            ("boss", &["*@boss.example"], &["pii", "vip"]),
            ("zoo", &["*@zoo.example"], &[]),
        ],
    ));
    let class = |to: &[&str]| send(&plan, to).destination_class;
    assert_eq!("boss", class(&["a@boss.example"]));
    assert_eq!("anyone", class(&["a@boss.example", "b@x.example"]));
    assert_eq!("zoo", class(&["a@boss.example", "b@x.example", "c@zoo.example"]));
    assert_eq!("zoo", class(&["c@zoo.example", "a@boss.example"]));
}

#[test]
fn destinations_that_differ_are_few() {
    let plan = compiled(with(PERMIT_ALL, &[("external", &["*"], &[])]));
    let to =
        |hosts: usize| (0..200).map(|n| format!("p{n}@h{}.example", n % hosts)).collect::<Vec<_>>();
    let asked = |hosts: usize| {
        let to = to(hosts);
        send(&plan, &to.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(Outcome::Permit, asked(16).outcome, "200 recipients of 16 hosts");
    let decision = asked(17);
    assert_eq!((Outcome::Deny, ReasonCode::BadInput), (decision.outcome, decision.reason));
    assert_eq!("more than 16 destinations that differ in class or host", decision.message);
}
