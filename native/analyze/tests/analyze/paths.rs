//! Paths: what is found, what is proved, and a comparison with a brute force.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use authz_analyze::input::Lease;
use authz_analyze::paths::{NoOracle, PathResults, PathsInput};
use authz_analyze::report::{Finality, Finding, Proof};
use authz_cases::StepClock;
use authz_kernel::decision::{Outcome, Time};
use authz_kernel::plan::{Plan, PlanCompiler};
use authz_kernel::task::AgentName;
use authz_lane::offline::{OfflineEngine, OfflineWorld, StatedCaller};
use authz_lane::proto::authz::v1 as wire;

use crate::brute_force::{Brute, NOW_MS, Plant, Violations};
use crate::random_bundle::{RandomBundle, random_bundle};

const NOW: Time = Time(NOW_MS);

pub(crate) fn compile(files: &BTreeMap<String, Vec<u8>>) -> Arc<Plan> {
    let vars = BTreeMap::new();
    let bundle = match authz_cases::source::reader(files, &vars).at(NOW).read() {
        Ok(bundle) => bundle,
        Err(found) => panic!("{found}"),
    };
    match PlanCompiler::new().compile(bundle) {
        Ok(plan) => Arc::new(plan),
        Err(found) => panic!("{found}"),
    }
}

pub(crate) fn analyze(files: &BTreeMap<String, Vec<u8>>) -> (Arc<Plan>, PathResults) {
    analyze_leases(files, Vec::new())
}

pub(crate) fn analyze_leases(
    files: &BTreeMap<String, Vec<u8>>,
    leases: Vec<Lease>,
) -> (Arc<Plan>, PathResults) {
    let plan = compile(files);
    let input = PathsInput {
        plan: Arc::clone(&plan),
        files: files.clone(),
        vars: BTreeMap::new(),
        leases,
        now: NOW,
    };
    let results = input.analyze(&NoOracle);
    (plan, results)
}

pub(crate) fn bundle(facts: &str, policies: &str) -> BTreeMap<String, Vec<u8>> {
    [
        ("bundle.yaml", "name: test\ntasks: optional\n"),
        ("facts.yaml", facts),
        ("policy.cedar", policies),
    ]
    .into_iter()
    .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))
    .collect()
}

pub(crate) fn of_rule<'r>(results: &'r PathResults, rule: &str) -> Vec<&'r Finding> {
    results.findings.iter().filter(|finding| finding.rule == rule).collect()
}

pub(crate) fn is_proved(results: &PathResults, rule: &str) -> bool {
    results.proved.iter().any(|proof| proof.rule == rule)
}

/// Runs the case of a finding as `authz test` does.
pub(crate) fn run_case(plan: &Arc<Plan>, finding: &Finding) -> authz_cases::Report {
    let files = BTreeMap::from([("case.yaml".to_owned(), finding.case.clone().into_bytes())]);
    authz_cases::run(plan, &files, NOW)
}

pub(crate) const FACTS: &str = "
agents: {bot: ['spiffe://dev.example/bot'], clerk: ['spiffe://dev.example/clerk']}
subjects: {staff: {issuer: corp, claim: groups, contains: staff}}
labels: {pii: {kind: confidentiality}, untrusted: {kind: trust}}
resources: {customers: {labels: [pii]}, notes: {}}
destinations: {inside: {match: '*@in.example', clearance: [pii]}, outside: {match: '*', clearance: []}}
catalog:
  crm:
    kind: http
    operations:
      get: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      grant: {input: {type: object, properties: {to: {type: string}, amount: {type: integer}}, required: [to, amount]}}
  mail:
    kind: http
    operations:
      send: {input: {type: object, properties: {to: {type: array, items: {type: string}}}, required: [to]}}
      read: {input: {type: object, properties: {}}}
  wiki:
    kind: http
    operations:
      write: {input: {type: object, properties: {text: {type: string}}, required: [text]}}
      read: {input: {type: object, properties: {}}}
classify:
  - {match: crm.get, effects: [read], tier: low, resource: {collection: customers, id: /id}}
  - {match: crm.grant, effects: [grant], tier: high}
  - {match: mail.send, effects: [export], tier: standard, destination: {from: [/to], type: email}}
  - {match: mail.read, effects: [read], tier: low, yields: [untrusted]}
  - {match: wiki.write, effects: [write], tier: low}
  - {match: wiki.read, effects: [read], tier: low}
";

pub(crate) const ALL: &str = "@id(\"all\") permit(principal, action in [Action::\"system:crm\", Action::\"system:mail\"], resource);\n";

#[test]
fn a_label_reaches_a_destination() {
    let facts = format!(
        "{FACTS}\nanalysis: {{assertions: [{{id: pii-out, never: {{label: pii, destination: outside}}}}]}}\n"
    );
    let (plan, results) = analyze(&bundle(&facts, ALL));
    let [finding] = of_rule(&results, "assertion:pii-out")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::PathFound);
    let operations: Vec<&str> = finding.path.iter().map(|step| step.operation.as_str()).collect();
    assert_eq!(operations, ["crm.get", "mail.send"]);
    assert!(finding.path.iter().filter(|step| step.is_pivot).count() == 1, "{finding:#?}");
    assert_eq!(finding.policies, ["all"]);
    // The exported case fails while the hole is there, at its last step alone.
    let report = run_case(&plan, finding);
    assert_eq!((report.passed, report.failed.len()), (1, 1), "{}\n{report:#?}", finding.case);
    assert_eq!(report.failed.first().map(|failure| failure.step), Some(2));
    // The cut is one change, and the case passes with it.
    let cut = finding.cut.as_ref().unwrap();
    assert!(cut.exact, "{cut:#?}");
    let [change] = cut.changes.as_slice() else { panic!("{cut:#?}") };
    assert_eq!(change.kind, "add_forbid");
    let (plan, results) = analyze(&bundle(&facts, &format!("{ALL}{}", change.text)));
    assert!(is_proved(&results, "assertion:pii-out"), "{results:#?}");
    assert!(run_case(&plan, finding).is_ok());
}

#[test]
fn a_forbid_proves_the_assertion() {
    let facts = format!(
        "{FACTS}\nanalysis: {{assertions: [{{id: pii-out, never: {{label: pii, destination: outside, without: approve}}}}, {{id: strict, never: {{label: pii, destination: outside}}}}]}}\n"
    );
    let forbid = "@id(\"held\") @stepup(\"approve\") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() } unless { context.satisfied.contains(Kind::\"approve\") };";
    let (plan, results) = analyze(&bundle(&facts, &format!("{ALL}{forbid}")));
    assert!(is_proved(&results, "assertion:pii-out"), "{results:#?}");
    // After an approval the call is permitted, and the stricter assertion says so.
    let [finding] = of_rule(&results, "assertion:strict")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::PathFound);
    assert_eq!(run_case(&plan, finding).failed.len(), 1, "{}", finding.case);
    // A weaker forbid proves nothing.
    let weak = forbid.replace(
        "!context.uncleared_labels.isEmpty()",
        "!context.uncleared_labels.isEmpty() && context.session.calls > 5",
    );
    let (_, results) = analyze(&bundle(&facts, &format!("{ALL}{weak}")));
    assert!(!is_proved(&results, "assertion:pii-out"));
    assert_eq!(of_rule(&results, "assertion:pii-out").len(), 1);
}

#[test]
fn a_role_obtains_an_effect_only_by_its_permits() {
    let facts = format!(
        "{FACTS}\nanalysis: {{assertions: [{{id: bot, never: {{agent: bot, effect: grant}}}}, {{id: clerk, never: {{agent: clerk, effect: grant}}}}]}}\n"
    );
    let policies = "@id(\"a\") permit(principal in Role::\"clerk\", action == Action::\"crm.grant\", resource) when { context.input.amount > 500 && context.input.to == \"root\" };
@id(\"b\") permit(principal in Role::\"staff\", action in Action::\"system:crm\", resource);";
    let (plan, results) = analyze(&bundle(&facts, policies));
    assert!(is_proved(&results, "assertion:bot"), "{results:#?}");
    let [finding] = of_rule(&results, "assertion:clerk")[..] else { panic!("{results:#?}") };
    // The arguments fit the condition.
    assert_eq!(finding.verdict, Finality::PathFound, "{finding:#?}");
    assert_eq!(run_case(&plan, finding).failed.len(), 1);
}

#[test]
fn untrusted_text_sensitive_data_and_a_way_out_are_toxic() {
    let (_, results) = analyze(&bundle(FACTS, ALL));
    let [finding] = of_rule(&results, "toxic-combination")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.path.len(), 3, "{finding:#?}");
    let without_read = ALL.replace(", Action::\"system:mail\"", ", Action::\"mail.send\"");
    let (_, results) = analyze(&bundle(FACTS, &without_read));
    assert!(of_rule(&results, "toxic-combination").is_empty());
    assert!(is_proved(&results, "toxic-combination"));
}

#[test]
fn a_label_is_lost_in_a_place_without_a_collection() {
    let policies = "@id(\"all\") permit(principal, action, resource);
@id(\"no-out\") forbid(principal, action, resource) when { context.uncleared_labels.contains(Label::\"pii\") };";
    let (plan, results) = analyze(&bundle(FACTS, policies));
    let [finding] = of_rule(&results, "label-lost")[..] else { panic!("{results:#?}") };
    let operations: Vec<&str> = finding.path.iter().map(|step| step.operation.as_str()).collect();
    assert_eq!(operations, ["crm.get", "wiki.write", "wiki.read", "mail.send"], "{finding:#?}");
    assert_eq!(run_case(&plan, finding).failed.len(), 1);
    // With one collection for both the label is kept.
    let kept = FACTS
        .replace(
            "effects: [write], tier: low}",
            "effects: [write], tier: low, resource: {collection: notes}}",
        )
        .replace(
            "{match: wiki.read, effects: [read], tier: low}",
            "{match: wiki.read, effects: [read], tier: low, resource: {collection: notes}}",
        );
    let (_, results) = analyze(&bundle(&kept, policies));
    assert!(of_rule(&results, "label-lost").is_empty(), "{results:#?}");
}

#[test]
fn an_agent_lets_another_do_what_it_may_not() {
    let facts = format!("{FACTS}
templates: {{work: {{purpose: work, deadline: 1h, tier_cap: high, starters: [bot], scope: [{{system: crm}}]}}}}
");
    let policies = "@id(\"clerk\") permit(principal in Role::\"clerk\", action in Action::\"system:crm\", resource);
@id(\"start\") permit(principal in Role::\"bot\", action == Action::\"task:work\", resource);
@id(\"give\") permit(principal in Role::\"bot\", action == Action::\"give:work\", resource in Role::\"clerk\");";
    let mut files = bundle(&facts, policies);
    files.insert("bundle.yaml".to_owned(), b"name: test\n".to_vec());
    let (plan, results) = analyze(&files);
    let found = of_rule(&results, "confused-deputy");
    assert!(found.iter().any(|one| one.verdict == Finality::PathFound), "{results:#?}");
    let finding = found.first().unwrap();
    assert!(finding.path.first().unwrap().is_pivot);
    assert_eq!(run_case(&plan, finding).failed.len(), 1, "{}", finding.case);
    let cut = finding.cut.as_ref().unwrap();
    assert_eq!(cut.changes.len(), 1, "{cut:#?}");
    // Without the permit to give tasks there is no path.
    let alone = policies.replace("@id(\"give\") permit", "@id(\"give\") forbid");
    files.insert("policy.cedar".to_owned(), alone.into_bytes());
    let (_, results) = analyze(&files);
    assert!(is_proved(&results, "confused-deputy"), "{results:#?}");
}

#[test]
fn sequences_that_contradict_each_other_close_an_operation() {
    let facts = format!(
        "{FACTS}
sequences:
  look-first: {{require: crm.get, before: mail.send, counts: permitted}}
  never-after: {{never: mail.send, after: \"crm.*\"}}
  other: {{never: mail.send, after: wiki.read}}
"
    );
    let policies = format!("{ALL}@id(\"one\") forbid(principal, action == Action::\"mail.send\", resource) when {{ context.sequences.contains(Sequence::\"look-first\") }};
@id(\"two\") forbid(principal, action == Action::\"mail.send\", resource) when {{ context.sequences.contains(Sequence::\"never-after\") }};
@id(\"three\") forbid(principal, action == Action::\"mail.send\", resource) when {{ context.sequences.contains(Sequence::\"other\") }};");
    let (_, results) = analyze(&bundle(&facts, &policies));
    // The two name different patterns of events: nothing is claimed.
    assert!(of_rule(&results, "contradicting-sequences").is_empty());
    let facts = facts.replace("\"crm.*\"", "crm.get");
    let (_, results) = analyze(&bundle(&facts, &policies));
    let [finding] = of_rule(&results, "contradicting-sequences")[..] else {
        panic!("{results:#?}")
    };
    assert!(finding.message.contains("`look-first`") && finding.message.contains("`never-after`"));
}

#[test]
fn authority_that_nobody_uses_is_found() {
    let policies = format!(
        "{ALL}@id(\"dead\") permit(principal in Role::\"bot\", action == Action::\"wiki.write\", resource);"
    );
    // The subject has no permit for it, and without a subject the agent does not act.
    let facts = FACTS.replace(
        "bot: ['spiffe://dev.example/bot']",
        "bot: {match: ['spiffe://dev.example/bot'], subject: required}",
    );
    let (_, results) = analyze(&bundle(&facts, &policies));
    let found: Vec<&str> = of_rule(&results, "unused-authority")
        .iter()
        .flat_map(|one| &one.policies)
        .map(String::as_str)
        .collect();
    assert_eq!(found, ["dead"]);
}

#[test]
fn an_exception_on_a_path_is_named() {
    let facts = format!("{FACTS}
exceptions: {{legacy: {{who: bot, operations: [mail.send], owner: a, reason: b, ticket: c, expires: 2026-12-31}}}}
");
    let policies = "@id(\"e\") permit(principal in Role::\"bot\", action == Action::\"mail.send\", resource) when { context.exception.contains(Exception::\"legacy\") };";
    let (plan, results) = analyze(&bundle(&facts, policies));
    let [finding] = of_rule(&results, "exception-on-path")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::PathFound);
    assert_eq!(run_case(&plan, finding).failed.len(), 1);
    let expired = facts.replace("2026-12-31", "2026-11-01");
    let (_, results) = analyze(&bundle(&expired, policies));
    assert!(of_rule(&results, "exception-on-path").is_empty());
}

#[test]
fn a_step_up_that_nobody_can_answer_is_found() {
    let forbid = "@id(\"held\") @stepup(\"approve:staff\") forbid(principal, action == Action::\"mail.send\", resource) unless { context.satisfied.contains(Kind::\"approve:staff\") };";
    let (_, results) = analyze(&bundle(FACTS, &format!("{ALL}{forbid}")));
    assert_eq!(of_rule(&results, "unanswerable-step-up").len(), 1, "{results:#?}");
    let answered = format!(
        "{ALL}{forbid}\n@id(\"approver\") permit(principal in Role::\"staff\", action == Action::\"authz.approve\", resource);"
    );
    let (_, results) = analyze(&bundle(FACTS, &answered));
    assert!(of_rule(&results, "unanswerable-step-up").is_empty());
    // The engine lets nobody approve a call of their own.
    assert!(is_proved(&results, "self-approval"), "{results:#?}");
}

#[test]
fn a_person_with_two_accounts_approves_a_call_of_their_own() {
    let facts = FACTS.replace("subjects: {", "subjects: {boss: {issuer: partner},");
    let policies = format!("{ALL}@id(\"held\") @stepup(\"approve:boss\") forbid(principal, action == Action::\"mail.send\", resource) unless {{ context.satisfied.contains(Kind::\"approve:boss\") }};
@id(\"approver\") permit(principal in Role::\"boss\", action == Action::\"authz.approve\", resource);");
    let (_, results) = analyze(&bundle(&facts, &policies));
    let [finding] = of_rule(&results, "self-approval")[..] else { panic!("{results:#?}") };
    assert!(finding.message.contains("partner/example"), "{}", finding.message);
}

/// The ways that are tried first are not held, and others that could be are left.
#[test]
fn a_self_approval_beyond_the_bound_is_not_decided() {
    let facts = FACTS
        .replace("subjects: {", "subjects: {boss: {issuer: partner},")
        .replace("agents: {", "agents: {zoe: ['spiffe://dev.example/zoe'], ");
    let policies = format!("{ALL}@id(\"held\") @stepup(\"approve:boss\") forbid(principal in Role::\"zoe\", action == Action::\"mail.send\", resource) unless {{ context.satisfied.contains(Kind::\"approve:boss\") }};
@id(\"approver\") permit(principal in Role::\"boss\", action == Action::\"authz.approve\", resource);");
    let (_, results) = analyze(&bundle(&facts, &policies));
    assert!(!is_proved(&results, "self-approval"), "{results:#?}");
    let [finding] = of_rule(&results, "self-approval")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::NotDecided);
    assert!(!finding.reason.is_empty());
}

/// `mode` lets a refused call through, so that a forbid proves nothing while `mode` observes.
#[test]
fn a_forbid_that_is_not_enforced_proves_nothing() {
    let facts = format!(
        "{FACTS}\nanalysis: {{assertions: [{{id: grant, never: {{agent: bot, effect: grant}}}}]}}\n"
    );
    let forbid = "@id(\"no\") forbid(principal, action == Action::\"crm.grant\", resource);";
    let policies = format!("{ALL}{forbid}");
    let (_, results) = analyze(&bundle(&facts, &policies));
    assert!(is_proved(&results, "assertion:grant"), "{results:#?}");
    let observing = format!("{facts}mode: {{default: observe, owner: sec, until: 2026-12-20}}\n");
    let (_, results) = analyze(&bundle(&observing, &policies));
    assert!(!is_proved(&results, "assertion:grant"), "{results:#?}");
    let [finding] = of_rule(&results, "assertion:grant")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::PathFound);
    assert_eq!(finding.path.last().map(|step| step.reason_code.as_str()), Some("FORBIDDEN"));
    // The outcome of the call is a refusal, so that a test of the bundle could not show it.
    assert!(finding.case.is_empty(), "{}", finding.case);
}

/// The brute force makes each call on a fork, so a call must change the fork alone.
#[test]
fn a_call_on_a_fork_changes_the_fork_alone() {
    let forbid = "@id(\"no\") forbid(principal, action == Action::\"mail.send\", resource) when { context.session.labels.contains(Label::\"untrusted\") };";
    let plan = compile(&bundle(FACTS, &format!("{ALL}{forbid}")));
    let world = OfflineWorld {
        recipient_lists: plan.fresh_recipient_lists(),
        issuers: BTreeSet::new(),
        plan,
    };
    let engine = OfflineEngine::new(world, Arc::new(StepClock::new(NOW))).unwrap();
    let spiffe_id = "spiffe://dev.example/bot".to_owned();
    let agent = AgentName { spiffe_id, trust_domain: "dev.example".to_owned() };
    let caller = StatedCaller {
        agent: Some(agent),
        is_bound: true,
        confidence: 100,
        ..StatedCaller::default()
    };
    let request = |operation: &str, input: &str| wire::CheckRequest {
        operation: operation.to_owned(),
        arguments_json: input.as_bytes().to_vec(),
        ..Default::default()
    };
    let (read, send) =
        (request("mail.read", "{}"), request("mail.send", "{\"to\": [\"x@in.example\"]}"));
    let fork = engine.fork().unwrap();
    assert_eq!(fork.check(&read, &caller).outcome, Outcome::Permit);
    let other = fork.fork().unwrap();
    let outcomes = [&engine, &fork, &other].map(|one| one.explain(&send, &caller).outcome);
    assert_eq!(outcomes, [Outcome::Permit, Outcome::Deny, Outcome::Deny]);
}

/// Comparison of an analysis with the brute force over one bundle.
struct Comparison {
    /// Paths that the analysis does not find, and proofs that are false, for each plant.
    differences: BTreeMap<Plant, Vec<String>>,
    /// Violations that the brute force found in the engine as it is.
    violations: usize,
    /// Assertions that the analysis proved.
    proofs: usize,
}

impl Comparison {
    fn of(bundle: &RandomBundle) -> Self {
        let (plan, results) = analyze(&bundle.files);
        let brute = Brute::explore(bundle, &plan);
        let found: BTreeSet<(String, String)> = results
            .findings
            .iter()
            .filter(|finding| finding.verdict == Finality::PathFound)
            .filter_map(|finding| {
                let id = finding.rule.strip_prefix("assertion:")?;
                let operation = &finding.path.last()?.operation;
                Some((id.to_owned(), operation.clone()))
            })
            .collect();
        let difference = |(id, operation): &(String, String)| {
            if is_proved(&results, &format!("assertion:{id}")) {
                Some(format!("{id} is proved, and {operation} breaks it"))
            } else if !found.contains(&(id.clone(), operation.clone())) {
                Some(format!("{id} is broken by {operation}, and no path is found"))
            } else {
                None
            }
        };
        let of_plant = |(plant, violations): (&Plant, &Violations)| {
            (*plant, violations.iter().filter_map(difference).collect())
        };
        let is_assertion = |proof: &&Proof| proof.rule.starts_with("assertion:");
        Self {
            differences: brute.violations.iter().map(of_plant).collect(),
            violations: brute.violations.get(&Plant::Sound).map_or(0, BTreeSet::len),
            proofs: results.proved.iter().filter(is_assertion).count(),
        }
    }

    fn has_difference(&self, plant: Plant) -> bool {
        self.differences.get(&plant).is_some_and(|all| !all.is_empty())
    }
}

/// Number of random bundles without `AUTHZ_PATHS_MODELS`.
const MODELS: u64 = 300;

/// Comparisons by seed, from `AUTHZ_PATHS_FIRST` on. Each processor takes the next seed.
static COMPARISONS: LazyLock<BTreeMap<u64, Comparison>> = LazyLock::new(|| {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let first = number("AUTHZ_PATHS_FIRST").unwrap_or(0);
    let end = first + number("AUTHZ_PATHS_MODELS").unwrap_or(MODELS);
    let next = AtomicU64::new(first);
    let work = || {
        let mut done = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return done;
            }
            done.push((seed, Comparison::of(&random_bundle(seed))));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
});

#[test]
fn a_brute_force_finds_nothing_that_the_analysis_misses() {
    let of_seed = |(seed, comparison): (&u64, &Comparison)| {
        let differences = comparison.differences.get(&Plant::Sound).cloned().unwrap_or_default();
        differences.into_iter().map(|one| (*seed, one)).collect::<Vec<_>>()
    };
    let wrong: Vec<(u64, String)> = COMPARISONS.iter().flat_map(of_seed).collect();
    let first = wrong.first().map(|(seed, _)| random_bundle(*seed).text()).unwrap_or_default();
    assert!(wrong.is_empty(), "{wrong:#?}\nthe first of these bundles:\n{first}");
    if COMPARISONS.len() < 100 {
        return;
    }
    // Both occur, so that the comparison says something.
    let violations: usize = COMPARISONS.values().map(|one| one.violations).sum();
    let proofs: usize = COMPARISONS.values().map(|one| one.proofs).sum();
    let few = COMPARISONS.len() / 4;
    assert!(violations > few && proofs > few, "{violations} violations, {proofs} proofs");
}

#[test]
fn each_defect_of_the_engine_makes_the_comparison_fail() {
    let plants = [
        ("without the meet over the chain", Plant::NoMeet),
        ("without erroring forbids", Plant::ErrorsSkipped),
        ("with the best destination", Plant::BestDestination),
    ];
    for (name, plant) in plants {
        let shows = COMPARISONS.values().filter(|one| one.has_difference(plant)).count();
        assert!(shows > 0, "the engine {name}: no random bundle shows it");
    }
}
