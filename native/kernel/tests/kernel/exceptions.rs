//! Standing exceptions: facts that policies may accept, until they expire.

use authz_kernel::decide::{Prospects, decide};
use authz_kernel::decision::{
    Decision, Facts, Outcome, Principal, ReasonCode, Request, RuleKind, Time,
};
use authz_kernel::lint::LintFacts;
use authz_kernel::plan::Plan;
use authz_kernel::task::{Breakglass, BreakglassConfirmation, BreakglassPerson, Breakglasses};

use crate::common::{NOW, alice, bot, facts, request};
use crate::history::compiled;

const FACTS: &str = "
agents:
  nightly: {match: [spiffe://a.example/ns/support/sa/bot]}
  other: {match: [spiffe://a.example/ns/other/sa/bot]}
subjects: {staff: {issuer: corp, claim: groups, contains: employees}}
labels: {pii: {kind: confidentiality}}
resources: {ledgers: {}, Payroll: {labels: [pii], spelling: fold}}
destinations: {outside: {match: ['*'], clearance: []}}
catalog:
  erp:
    kind: http
    operations:
      read: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      pay: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      close: {}
      mail: {input: {type: object, properties: {to: {type: array, items: {type: string}}}, required: [to]}}
classify:
  - {match: erp.read, effects: [read], tier: low, resource: {collection: ledgers, id: /id}}
  - {match: erp.pay, effects: [write], tier: standard, resource: {collection: Payroll, id: /id}}
  - {match: erp.close, effects: [write], tier: critical}
  - {match: erp.mail, effects: [export], tier: low, destination: {from: /to, type: email}}
";

const ACCEPTS: &str =
    "@id(\"legacy\") permit(principal, action in Action::\"system:erp\", resource)
    when { context.exception.contains(Exception::\"erp-nightly\") };";

/// A plan whose bundle has one exception with these keys beside those that are required.
fn plan_with(keys: &str, policies: &str) -> Plan {
    let exception = format!(
        "{{operations: [erp.read, erp.pay], owner: erp-team, reason: no OAuth, ticket: ERP-7, {keys}}}"
    );
    let text = format!("{FACTS}\nexceptions: {{erp-nightly: {exception}}}");
    compiled("{name: a, tasks: optional}", &text, policies).unwrap_or_else(|text| panic!("{text}"))
}

const UNTIL: &str = "who: nightly, expires: 2027-01-31";

fn asked(plan: &Plan, chain: &[Principal], request: &Request<'_>, now: Time) -> Decision {
    *decide(plan, &facts(chain), request, now)
}

fn other() -> Principal {
    Principal::Agent {
        spiffe_id: "spiffe://a.example/ns/other/sa/bot".to_owned(),
        trust_domain: "a.example".to_owned(),
    }
}

/// The end of 2027-01-31 in UTC.
const END: Time = Time(1_801_440_000_000);

#[test]
fn it_is_for_its_caller_operations_and_time() {
    let plan = plan_with(UNTIL, ACCEPTS);
    let (read, pay, close) =
        (("erp.read", r#"{"id": "1"}"#), ("erp.pay", r#"{"id": "1"}"#), ("erp.close", ""));
    let staff = [alice(), bot()];
    let below = [bot(), other()];
    let one = [bot()];
    let stranger = [other()];
    use ReasonCode as R;
    for (chain, (operation, arguments), now, reason) in [
        (&one[..], read, NOW, R::Permitted),
        (&one[..], pay, NOW, R::Permitted),
        // A policy accepts it for the whole chain.
        (&staff[..], read, NOW, R::Permitted),
        // The caller is the last of the chain; who stands above it does not count.
        (&below[..], read, NOW, R::ChainNotPermitted),
        (&stranger[..], read, NOW, R::NotPermitted),
        (&one[..], close, NOW, R::NotPermitted),
        (&one[..], read, Time(END.0 - 1), R::Permitted),
        (&one[..], read, END, R::ExceptionExpired),
        (&staff[..], read, END, R::ExceptionExpired),
        (&stranger[..], read, END, R::NotPermitted),
        (&below[..], read, END, R::ChainNotPermitted),
        (&one[..], close, END, R::NotPermitted),
    ] {
        let decision = asked(&plan, chain, &request(operation, arguments), now);
        assert_eq!(reason, decision.reason, "{operation} {chain:?} {now:?}: {}", decision.message);
        let used: &[&str] = if reason == R::Permitted { &["erp-nightly"] } else { &[] };
        assert_eq!(used, decision.exceptions, "{operation} {chain:?} {now:?}");
    }
}

#[test]
fn an_expired_exception_is_named() {
    let plan = plan_with(UNTIL, ACCEPTS);
    let decision = asked(&plan, &[bot()], &request("erp.read", r#"{"id": "1"}"#), END);
    let [rule] = decision.rules.as_slice() else { panic!("{:?}", decision.rules) };
    assert_eq!((RuleKind::Exception, "erp-nightly"), (rule.kind, rule.name.as_str()));
    assert!(rule.at.line > 1, "{rule}");
    assert!(
        decision.message.contains("expired exception `erp-nightly` (facts.yaml:"),
        "{}",
        decision.message
    );
    assert_eq!(1, decision.without_permit.len());
}

#[test]
fn it_never_lifts_what_forbids() {
    let forbid = format!(
        "{ACCEPTS} @id(\"no\") forbid(principal, action == Action::\"erp.pay\", resource);"
    );
    let plan = plan_with(UNTIL, &forbid);
    let pay = request("erp.pay", r#"{"id": "1"}"#);
    assert_eq!(ReasonCode::Forbidden, asked(&plan, &[bot()], &pay, NOW).reason);
    // Without a policy that accepts it, it changes nothing.
    let plan =
        plan_with(UNTIL, "@id(\"a\") permit(principal in Role::\"staff\", action, resource);");
    assert_eq!(ReasonCode::NotPermitted, asked(&plan, &[bot()], &pay, NOW).reason);
    assert_eq!(ReasonCode::NotPermitted, asked(&plan, &[bot()], &pay, END).reason);
}

#[test]
fn a_forbid_may_spare_it() {
    let policies = "@id(\"may\") permit(principal, action, resource);
        @id(\"no\") forbid(principal, action == Action::\"erp.pay\", resource)
        unless { context.exception.contains(Exception::\"erp-nightly\") };";
    let plan = plan_with(UNTIL, policies);
    let pay = request("erp.pay", r#"{"id": "1"}"#);
    let spared = asked(&plan, &[bot()], &pay, NOW);
    assert_eq!(
        (Outcome::Permit, &["erp-nightly".to_owned()][..]),
        (spared.outcome, &*spared.exceptions)
    );
    assert_eq!(ReasonCode::Forbidden, asked(&plan, &[other()], &pay, NOW).reason);
    assert_eq!(ReasonCode::Forbidden, asked(&plan, &[bot()], &pay, END).reason);
    // What is permitted anyway does not use it.
    let read = asked(&plan, &[bot()], &request("erp.read", r#"{"id": "1"}"#), NOW);
    assert_eq!((Outcome::Permit, &[][..]), (read.outcome, &*read.exceptions));
}

/// What is permitted without it owes it no obligation, and is not counted.
#[test]
fn it_is_used_only_where_it_makes_a_difference() {
    let both = format!(
        "{ACCEPTS} @id(\"staff\") permit(principal, action, resource) when {{ context.chain.subject }};"
    );
    let plan = plan_with(&format!("{UNTIL}, obligations: [redact:card]"), &both);
    let read = request("erp.read", r#"{"id": "1"}"#);
    let alone = asked(&plan, &[bot()], &read, NOW);
    assert_eq!(ReasonCode::EnforcerRefused, alone.reason, "{}", alone.message);
    let [rule] = alone.rules.as_slice() else { panic!("{:?}", alone.rules) };
    assert_eq!((RuleKind::Exception, "erp-nightly"), (rule.kind, rule.name.as_str()));
    let able = Request { supported_obligations: &["redact:card"], ..read };
    let decision = asked(&plan, &[bot()], &able, NOW);
    assert_eq!(Outcome::Permit, decision.outcome);
    assert_eq!(
        (vec!["redact:card".to_owned()], vec!["erp-nightly".to_owned()]),
        (decision.obligations, decision.exceptions)
    );
}

#[test]
fn it_covers_calls_up_to_its_tier() {
    for (cap, reason) in [("low", ReasonCode::NotPermitted), ("standard", ReasonCode::Permitted)] {
        let plan = plan_with(&format!("{UNTIL}, tier_cap: {cap}"), ACCEPTS);
        let pay = request("erp.pay", r#"{"id": "1"}"#);
        assert_eq!(reason, asked(&plan, &[bot()], &pay, NOW).reason, "{cap}");
        let read = request("erp.read", r#"{"id": "1"}"#);
        assert_eq!(ReasonCode::Permitted, asked(&plan, &[bot()], &read, NOW).reason, "{cap}");
    }
}

#[test]
fn it_covers_its_resources() {
    use ReasonCode as R;
    for (resources, operation, id, reason) in [
        ("{collections: [ledgers]}", "erp.read", "1", R::Permitted),
        ("{collections: [ledgers]}", "erp.pay", "1", R::NotPermitted),
        ("{ids: [a/1]}", "erp.read", "a/1", R::Permitted),
        ("{ids: [a/1]}", "erp.read", "A/1", R::NotPermitted),
        // The collection ignores case.
        ("{ids: [Ab/1]}", "erp.pay", "aB/1", R::Permitted),
        ("{path_prefix: a}", "erp.read", "a/1", R::Permitted),
        ("{path_prefix: a}", "erp.read", "ab/1", R::NotPermitted),
        ("{label_ceiling: []}", "erp.read", "1", R::Permitted),
        ("{label_ceiling: []}", "erp.pay", "1", R::NotPermitted),
    ] {
        let plan = plan_with(&format!("{UNTIL}, resources: {resources}"), ACCEPTS);
        let arguments = format!("{{\"id\": \"{id}\"}}");
        let decision = asked(&plan, &[bot()], &request(operation, &arguments), NOW);
        assert_eq!(reason, decision.reason, "{resources} {operation} {id}");
    }
}

/// A policy that reads destinations, too, accepts the exception only if it does for each of them.
#[test]
fn each_destination_is_judged_with_it() {
    let policies = "@id(\"legacy\") permit(principal, action, resource) when {
        context.exception.contains(Exception::\"erp-nightly\") && context.destination.host != \"bad.example\" };";
    let text = format!(
        "{FACTS}\nexceptions: {{erp-nightly: {{operations: [erp.mail], owner: o, reason: r, ticket: t, {UNTIL}}}}}"
    );
    let plan = compiled("{name: a, tasks: optional}", &text, policies).unwrap();
    for (to, reason, expired) in [
        (r#"["a@good.example"]"#, ReasonCode::Permitted, ReasonCode::ExceptionExpired),
        (
            r#"["a@good.example", "a@bad.example"]"#,
            ReasonCode::NotPermitted,
            ReasonCode::NotPermitted,
        ),
    ] {
        let arguments = format!("{{\"to\": {to}}}");
        let mail = request("erp.mail", &arguments);
        assert_eq!(reason, asked(&plan, &[bot()], &mail, NOW).reason, "{to}");
        assert_eq!(expired, asked(&plan, &[bot()], &mail, END).reason, "{to}");
    }
}

#[test]
fn who_may_be_an_agent() {
    for (who, reason) in [
        ("spiffe://a.example/ns/support/sa/bot", ReasonCode::Permitted),
        ("spiffe://a.example/ns/*/sa/bot", ReasonCode::Permitted),
        ("spiffe://a.example/ns/other/sa/bot", ReasonCode::NotPermitted),
        ("staff", ReasonCode::NotPermitted),
    ] {
        let plan = plan_with(&format!("who: '{who}', expires: 2027-01-31"), ACCEPTS);
        let read = request("erp.read", r#"{"id": "1"}"#);
        assert_eq!(reason, asked(&plan, &[bot()], &read, NOW).reason, "{who}");
        // Alice without an agent.
        let alone = asked(&plan, &[alice()], &read, NOW).reason;
        assert_eq!(alone == ReasonCode::Permitted, who == "staff", "{who}");
    }
}

/// Other reasons of a denial come before that of an expired exception.
#[test]
fn an_expired_exception_hides_no_other_denial() {
    let policies = format!(
        "{ACCEPTS} @id(\"no\") forbid(principal, action == Action::\"erp.pay\", resource);"
    );
    let plan = plan_with(UNTIL, &policies);
    let pay = request("erp.pay", r#"{"id": "1"}"#);
    assert_eq!(ReasonCode::Forbidden, asked(&plan, &[bot()], &pay, END).reason);
}

#[test]
fn a_listing_knows_what_it_covers() {
    let plan = plan_with(UNTIL, ACCEPTS);
    let chain = [bot()];
    let facts = facts(&chain);
    let prospects = Prospects::new(&plan, &facts, NOW);
    assert!(prospects.could("erp.read") && prospects.could("erp.pay"));
}

#[test]
fn what_nobody_accepts_gets_a_warning() {
    let lint = |policies: &str| {
        let found = plan_with(UNTIL, policies).lint(&LintFacts::default());
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        found.into_iter().filter(|text| text.contains("exception")).collect::<Vec<_>>()
    };
    assert_eq!(Vec::<String>::new(), lint(ACCEPTS));
    let found = lint("@id(\"a\") permit(principal, action, resource);");
    assert_eq!(1, found.len(), "{found:?}");
    assert!(found[0].contains("no policy accepts the exception `erp-nightly`"), "{found:?}");
}

#[test]
fn a_policy_names_the_exceptions_that_it_accepts() {
    let refused = |condition: &str| {
        let policies =
            format!("@id(\"a\") permit(principal, action, resource) when {{ {condition} }};");
        let text = format!(
            "{FACTS}\nexceptions: {{erp-nightly: {{operations: [erp.read], owner: o, reason: r, ticket: t, {UNTIL}}}}}"
        );
        compiled("{name: a, tasks: optional}", &text, &policies).unwrap_err()
    };
    let text = refused("!context.exception.isEmpty()");
    assert!(text.contains("reads `context.exception` and names no exception"), "{text}");
    let text = refused("context.exception.contains(Exception::\"erp-nightl\")");
    assert!(
        text.contains("unknown exception `erp-nightl`; declared: erp-nightly (facts.yaml:"),
        "{text}"
    );
}

/// A confidence that nobody can state holds every call of its tier.
#[test]
fn a_confidence_without_guards_gets_a_warning() {
    let text = format!("{FACTS}\ntiers: {{standard: {{confidence: 80}}, high: {{bound: false}}}}");
    let permit = "@id(\"a\") permit(principal, action, resource);";
    let plan = compiled("{name: a, tasks: optional}", &text, permit).unwrap();
    let found = |has_guards| {
        let found = plan.lint(&LintFacts { has_guards, ..LintFacts::default() });
        found.iter().map(ToString::to_string).filter(|text| text.contains("no guard")).count()
    };
    assert_eq!((1, 0, 0), (found(Some(false)), found(Some(true)), found(None)));
}

const EMERGENCY: &str =
    "@id(\"emergency\") permit(principal, action in Action::\"system:erp\", resource)
    when { context.exception.contains(Exception::\"breakglass\") };";

/// Break-glass at `erp` until `END`, for all callers.
fn breakglass() -> Breakglasses {
    let person = |sub: &str| BreakglassPerson {
        issuer: "corp".to_owned(),
        sub: sub.to_owned(),
        name: format!("corp/{sub}"),
    };
    let mut all = Breakglasses::default();
    all.insert(std::sync::Arc::new(Breakglass {
        id: "one".to_owned(),
        system: "erp".to_owned(),
        agent: None,
        duration_ms: 1,
        reason: "down".to_owned(),
        ticket: "INC-1".to_owned(),
        opened_by: person("ann"),
        opened_at: NOW,
        confirm_before: NOW,
        confirmed: Some(BreakglassConfirmation { by: person("bob"), at: NOW, ends_at: END }),
        ended: None,
        rest: Default::default(),
    }));
    all
}

/// Break-glass covers calls that no exception of the bundle covers, up to tier high, until its end.
#[test]
fn breakglass_comes_after_exceptions_of_the_bundle() {
    let plan = plan_with(UNTIL, &format!("{ACCEPTS} {EMERGENCY}"));
    let all = breakglass();
    let chain = [other()];
    let decided = |chain: &[Principal], operation: &str, arguments: &str, now| {
        let facts = Facts { breakglass: Some(&all), ..facts(chain) };
        *decide(&plan, &facts, &request(operation, arguments), now)
    };
    let one = r#"{"id": "1"}"#;
    let used = decided(&chain, "erp.read", one, NOW);
    assert_eq!((Outcome::Permit, vec!["breakglass".to_owned()]), (used.outcome, used.exceptions));
    assert_eq!(vec!["log_full".to_owned()], used.own_obligations);
    let by = used.breakglass.unwrap();
    assert_eq!(
        ("one", "INC-1", "corp/ann", "corp/bob"),
        (&*by.id, &*by.ticket, &*by.opened_by, &*by.confirmed_by)
    );
    // The exception of the bundle covers the bot.
    let standing = decided(&[bot()], "erp.read", one, NOW);
    assert_eq!((vec!["erp-nightly".to_owned()], None), (standing.exceptions, standing.breakglass));
    assert_eq!(ReasonCode::NotPermitted, decided(&chain, "erp.close", "", NOW).reason);
    assert_eq!(ReasonCode::NotPermitted, decided(&chain, "erp.read", one, END).reason);
    // An expired exception of the bundle covers nothing any more.
    let earlier = "who: nightly, expires: 2020-01-31";
    let plan = plan_with(earlier, &format!("{ACCEPTS} {EMERGENCY}"));
    let chain = [bot()];
    let facts = Facts { breakglass: Some(&all), ..facts(&chain) };
    let used = *decide(&plan, &facts, &request("erp.read", one), NOW);
    assert_eq!((Outcome::Permit, vec!["breakglass".to_owned()]), (used.outcome, used.exceptions));
}

/// A listing has what break-glass could permit. The plan names the operations whose policies accept it.
#[test]
fn a_listing_knows_breakglass() {
    let plan = plan_with(UNTIL, EMERGENCY);
    let (all, chain) = (breakglass(), [other()]);
    let without = facts(&chain);
    let with = Facts { breakglass: Some(&all), ..facts(&chain) };
    let could = |facts, operation| Prospects::new(&plan, facts, NOW).could(operation);
    assert!(could(&with, "erp.read") && !could(&without, "erp.read"));
    assert!(!could(&with, "erp.close"), "tier critical");
    assert_eq!(4, plan.operations_with_breakglass("erp").count());
    assert!(plan.reads_exceptions("erp.read"));
    let silent = plan_with(UNTIL, "@id(\"a\") permit(principal, action, resource);");
    assert_eq!(0, silent.operations_with_breakglass("erp").count());
    assert!(!silent.reads_exceptions("erp.read"));
}
