//! `@mode("observe")`: a policy that is judged, and has no part in the answer.

use std::collections::BTreeMap;

use authz_kernel::decide::{Prospects, decide};
use authz_kernel::decision::{Decision, Facts, Outcome, ReasonCode, Time};
use authz_kernel::diagnostic::Diagnostics;
use authz_kernel::history::{HistoryView, SessionHistory};
use authz_kernel::plan::{Plan, PlanCompiler};
use authz_kernel::source;

use crate::common::{NOW, bot, facts, request};
use crate::history::{compiled, decided_at};

const FACTS: &str = "
agents: {bot: {match: [spiffe://a.example/ns/desk/sa/bot]}}
catalog: {s: {kind: http, operations: {get: {input: {type: object, properties: {n: {type: integer}}, required: [n]}}, put: {}}}}
classify:
  - {match: s.get, effects: [read], tier: low}
  - {match: s.put, effects: [write], tier: low}
templates: {desk: {purpose: work, deadline: 24h, starters: [bot], scope: [{system: s}]}}
";
const MODE: &str = "mode: {owner: sec@corp.example, until: 2026-12-01}\n";
const PERMIT: &str = "@id(\"all\") permit(principal, action, resource);\n";
const DAY_MS: i64 = 86_400_000;
/// A week after `NOW`: the end of `mode` is past.
const LATER: Time = Time(NOW.0 + 7 * DAY_MS);

fn plan(policies: &str) -> Plan {
    let facts = format!("{FACTS}{MODE}");
    compiled("{name: a, tasks: optional}", &facts, policies).unwrap_or_else(|text| panic!("{text}"))
}

fn get(plan: &Plan, number: &str, now: Time) -> Decision {
    let history = SessionHistory::new();
    let arguments = format!("{{\"n\": {number}}}");
    decided_at(plan, "s.get", &arguments, HistoryView::new(&history), now)
}

fn flips(decision: &Decision) -> Vec<(&str, Outcome)> {
    decision.flips().filter_map(|one| Some((one.policy.as_str(), one.outcome?))).collect()
}

#[test]
fn an_observed_forbid_denies_nothing_until_its_end() {
    let text = format!(
        "{PERMIT}@id(\"few\") @mode(\"observe\") forbid(principal, action == Action::\"s.get\", resource)
            when {{ context.input.n > 3 }};"
    );
    let plan = plan(&text);
    let decision = get(&plan, "4", NOW);
    assert_eq!(ReasonCode::Permitted, decision.reason);
    assert_eq!(["all"], decision.policies.as_slice());
    assert_eq!(vec![("few", Outcome::Deny)], flips(&decision));
    let unchanged = get(&plan, "3", NOW);
    assert!(flips(&unchanged).is_empty());
    assert_eq!(Some(Some(Outcome::Permit)), unchanged.observed.first().map(|one| one.outcome));
    let ended = get(&plan, "4", LATER);
    assert_eq!(
        (ReasonCode::Forbidden, ["few".to_owned()].as_slice()),
        (ended.reason, &*ended.policies)
    );
    assert!(ended.observed.is_empty(), "{:?}", ended.observed);
}

#[test]
fn an_observed_forbid_that_fails_denies_nothing() {
    let text = format!(
        "{PERMIT}@id(\"few\") @mode(\"observe\") forbid(principal, action == Action::\"s.get\", resource)
            when {{ context.input.n * 9007199254740991 > 3 }};"
    );
    let decision = get(&plan(&text), "9007199254740991", NOW);
    assert_eq!(ReasonCode::Permitted, decision.reason);
    assert_eq!(vec![("few", Outcome::Deny)], flips(&decision));
}

#[test]
fn an_observed_step_up_holds_nothing() {
    let held = "forbid(principal, action == Action::\"s.get\", resource)
        unless { context.satisfied.contains(Kind::\"approve\") };\n";
    let observed = format!("@id(\"ask\") @stepup(\"approve\") @mode(\"observe\") {held}");
    let decision = get(&plan(&format!("{PERMIT}{observed}")), "1", NOW);
    assert_eq!((Outcome::Permit, true), (decision.outcome, decision.kinds.is_empty()));
    assert!(decision.step_up.is_none());
    assert_eq!(vec![("ask", Outcome::StepUp)], flips(&decision));
    // A call that is held anyway stays held, and one that is denied anyway stays denied.
    let enforced = format!("{PERMIT}{observed}@id(\"first\") @stepup(\"approve\") {held}");
    let decision = get(&plan(&enforced), "1", NOW);
    assert_eq!((Outcome::StepUp, Vec::new()), (decision.outcome, flips(&decision)));
    let grounds = decision.step_up.iter().flat_map(|one| &one.grounds);
    assert_eq!(vec!["first"], grounds.map(|ground| ground.name.as_str()).collect::<Vec<_>>());
    let decision = get(&plan(&observed), "1", NOW);
    assert_eq!((ReasonCode::NotPermitted, Vec::new()), (decision.reason, flips(&decision)));
}

#[test]
fn an_observed_permit_permits_nothing_and_its_end_changes_that_in_no_way() {
    let permit = "@id(\"wide\") @mode(\"observe\") @obligation(\"max_uses:1\")
        permit(principal, action == Action::\"s.get\", resource);\n";
    let observed = plan(permit);
    for now in [NOW, LATER] {
        let decision = get(&observed, "1", now);
        assert_eq!(ReasonCode::NotPermitted, decision.reason);
        assert_eq!(vec![("wide", Outcome::Permit)], flips(&decision));
    }
    // Where something else denies, or another permit fires, it makes no difference.
    for other in ["@id(\"no\") forbid(principal, action, resource);", PERMIT] {
        let decision = get(&plan(&format!("{permit}{other}")), "1", NOW);
        assert!(flips(&decision).is_empty(), "{other}: {:?}", decision.observed);
    }
    let held = "@id(\"ask\") @stepup(\"approve\") forbid(principal, action, resource)
        unless { context.satisfied.contains(Kind::\"approve\") };";
    let decision = get(&plan(&format!("{permit}{held}")), "1", NOW);
    assert_eq!(vec![("wide", Outcome::StepUp)], flips(&decision));
    let refused = "@id(\"wide\") @mode(\"observe\") @obligation(\"custom:x\")
        permit(principal, action == Action::\"s.get\", resource);";
    assert!(flips(&get(&plan(refused), "1", NOW)).is_empty(), "the enforcer cannot carry it out");
}

/// Each principal of a chain may need a permit of its own.
#[test]
fn observed_permits_are_taken_together() {
    let text = "@id(\"agents\") @mode(\"observe\") permit(principal is Agent, action, resource);
        @id(\"users\") @mode(\"observe\") permit(principal is User, action, resource);
        @id(\"never\") @mode(\"observe\") permit(principal is Service, action, resource);";
    let plan = plan(text);
    let decision = crate::common::ask(&plan, "s.get", "{\"n\": 1}");
    assert_eq!(ReasonCode::ChainNotPermitted, decision.reason);
    assert_eq!(vec![("agents", Outcome::Permit), ("users", Outcome::Permit)], flips(&decision));
}

/// A request that is refused before it is judged is refused as before, and no policy is counted for it.
#[test]
fn a_malformed_request_is_not_judged() {
    let decision = get(
        &plan(&format!(
            "{PERMIT}@id(\"x\") @mode(\"observe\") forbid(principal, action, resource);"
        )),
        "\"one\"",
        NOW,
    );
    assert_eq!((ReasonCode::BadInput, true), (decision.reason, decision.observed.is_empty()));
}

/// An observed policy makes no call need a task. Without a task it cannot be judged, and once it is enforced the call is refused.
#[test]
fn a_call_without_a_task_stays_permitted() {
    let text = format!(
        "{PERMIT}@id(\"busy\") @mode(\"observe\") forbid(principal, action == Action::\"s.get\", resource)
            when {{ context.session.calls > 3 }};"
    );
    let facts_text = format!("{FACTS}{MODE}");
    let plan = compiled("{name: a, taskless_tier: low}", &facts_text, &text).unwrap();
    let chain = [bot()];
    let facts = Facts { history: None, ..facts(&chain) };
    let ask = |now| *decide(&plan, &facts, &request("s.get", "{\"n\": 1}"), now);
    let decision = ask(NOW);
    assert_eq!(ReasonCode::Permitted, decision.reason);
    assert_eq!(
        vec![("busy", None)],
        decision.observed.iter().map(|one| (one.policy.as_str(), one.outcome)).collect::<Vec<_>>()
    );
    assert_eq!(ReasonCode::StateUnavailable, ask(LATER).reason);
    let enforced = text.replace("@mode(\"observe\") ", "");
    let plan = compiled("{name: a, taskless_tier: low}", &facts_text, &enforced).unwrap();
    let decision = decide(&plan, &facts, &request("s.get", "{\"n\": 1}"), NOW);
    assert_eq!(ReasonCode::NoTask, decision.reason);
}

#[test]
fn a_list_of_operations_leaves_observed_policies_out() {
    let could = |policies: &str, operation: &str| {
        let plan = plan(policies);
        let chain = [bot()];
        Prospects::new(&plan, &facts(&chain), NOW).could(operation)
    };
    assert!(could(
        &format!("{PERMIT}@id(\"x\") @mode(\"observe\") forbid(principal, action, resource);"),
        "s.put"
    ));
    assert!(!could("@id(\"x\") @mode(\"observe\") permit(principal, action, resource);", "s.put"));
}

fn compiled_at(mode: &str, policy: &str) -> Result<Plan, Diagnostics> {
    let facts = format!("{FACTS}{mode}");
    let policies = format!("{PERMIT}{policy}");
    let texts =
        [("bundle.yaml", "{name: a}"), ("facts.yaml", &facts), ("policies/a.cedar", &policies)];
    let files: BTreeMap<String, Vec<u8>> =
        texts.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).into();
    PlanCompiler::new().at(NOW).compile(source::load(&files, &BTreeMap::new())?)
}

/// Every observed policy has an owner and an end, its own or those of `mode`, as every entry of `mode` has.
#[test]
fn an_observed_policy_has_an_owner_and_an_end() {
    let of = |annotation: &str, effect: &str| {
        format!(
            "@id(\"x\") @mode(\"{annotation}\") {effect}(principal, action == Action::\"s.put\", resource);"
        )
    };
    for (mode, annotation, message) in [
        ("", "observe", "the policy `x` observes without an owner"),
        ("", "observe; owner=a", "the policy `x` observes without an end"),
        ("", "observe; until=2026-12-01", "the policy `x` observes without an owner"),
        ("", "observe; owner=a; until=2027-03-01", "more than 90 days ahead"),
        (MODE, "enforce", "`enforce` is not `observe`"),
        (MODE, "observe; owner=", "an owner is one line of at most 256 bytes"),
        (MODE, "observe; until=soon", "`until=soon` is no date"),
        (MODE, "observe; until=2026-12-01; until=2026-12-02", "repeats a member"),
        (MODE, "observe; for=ever", "neither `owner` nor `until`"),
    ] {
        for effect in ["permit", "forbid"] {
            let error = compiled_at(mode, &of(annotation, effect)).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(message), "{annotation}: {error}");
        }
    }
    let plan = compiled_at(MODE, &of("observe; owner=me@corp.example", "forbid")).unwrap();
    let listed: Vec<_> =
        plan.observing().map(|one| (one.scope, one.name, one.owner, one.until_ms)).collect();
    assert_eq!(vec![("policy", "x", "me@corp.example", 1_796_169_600_000)], listed);
    for (effect, past) in [("forbid", "it is enforced now"), ("permit", "it permits nothing now")] {
        for (until, message) in [("2026-11-20", past), ("2026-11-27", "from then on it")] {
            let text = of(&format!("observe; owner=a; until={until}"), effect);
            let plan = compiled_at("", &text).unwrap();
            let warnings: Vec<String> = plan.warnings().iter().map(ToString::to_string).collect();
            assert!(
                warnings.iter().any(|warning| warning.contains(message)),
                "{until}: {warnings:?}"
            );
        }
    }
}
