//! Bundles of any size, for benchmarks.
//!
//! Each decision judges sixteen policies, for every size: eight forbids on every action, and eight policies of the
//! operation; four of the sixteen read `principal`. Operations grow with policies. The load test writes the same shape.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Policies on every action.
pub const GLOBAL: usize = 8;
/// Policies of one operation.
pub const PER_OPERATION: usize = 8;
/// Operations of one system.
const PER_SYSTEM: usize = 10;

const ANY: &str = r#"@id("any-suspended") @reason("the principal is suspended")
forbid(principal in Role::"suspended", action, resource);
@id("any-depth") @reason("the chain is too long")
forbid(principal, action, resource) when { context.chain.depth > 8 };
@id("any-tier") @reason("critical operations are closed")
forbid(principal, action, resource) when { context.tier > 2 };
@id("any-destination") @reason("an untrusted destination")
forbid(principal, action, resource) when { context.destination.present && !context.destination.trusted };
@id("any-proof") @reason("the caller proved nothing")
forbid(principal, action, resource) when { context.proof.method == ProofMethod::"none" };
@id("any-enforcer") @reason("the gateway is closed")
forbid(principal, action, resource) when { context.enforcer == "closed-gateway" };
@id("any-agent") @reason("a recalled agent stands in the chain")
forbid(principal, action, resource)
when { context.chain.agents.contains(Agent::"spiffe://bench.example/ns/recalled/sa/agent") };
@id("any-time") @reason("past the end of service")
forbid(principal, action, resource) when { context.time > datetime("2099-01-01") };
"#;

const FACTS: &str = r#"agents:
  worker: ["spiffe://bench.example/ns/bench/sa/*"]
  recalled: ["spiffe://bench.example/ns/recalled/sa/agent"]
subjects:
  staff: {issuer: corp, claim: groups, contains: employees}
  trainee: {issuer: corp, claim: groups, contains: trainees}
  suspended: {issuer: corp, claim: groups, contains: suspended}
labels: {pii: {kind: confidentiality}, sealed: {kind: confidentiality}}
resources:
  accounts: {labels: [pii], patterns: [{match: "sealed/*", labels: [sealed]}]}
templates:
  work: {purpose: work on one account, deadline: 24h, max_depth: 6, scope: [{operation: api000.op0}]}
"#;

/// The id of the operation at an index.
#[must_use]
pub fn operation_id(index: usize) -> String {
    format!("api{:03}.op{}", index / PER_SYSTEM, index % PER_SYSTEM)
}

/// How many operations a bundle of that many policies has.
#[must_use]
pub const fn operations_of(policies: usize) -> usize {
    policies.saturating_sub(GLOBAL) / PER_OPERATION
}

/// The files of a bundle, path to text.
///
/// Args:
/// * `policies`: number of policies, rounded down to whole operations.
/// * `changed`: in how many operations one policy differs from the bundle with `changed` 0.
#[must_use]
pub fn bundle_of(policies: usize, changed: usize) -> BTreeMap<String, String> {
    let count = operations_of(policies);
    let mut files = BTreeMap::from([
        ("bundle.yaml".to_owned(), "name: bench\ntasks: optional\n".to_owned()),
        ("facts.yaml".to_owned(), FACTS.to_owned()),
        ("policies/any.cedar".to_owned(), ANY.to_owned()),
    ]);
    let mut catalog = "catalog:\n".to_owned();
    let mut classify = "classify:\n".to_owned();
    for index in 0..count {
        let id = operation_id(index);
        let (system, name) = id.split_once('.').unwrap_or((&id, ""));
        if index % PER_SYSTEM == 0 {
            let _ = writeln!(
                catalog,
                "  {system}:\n    kind: http\n    origin: https://{system}.bench.example\n    operations:"
            );
            let _ = writeln!(
                classify,
                "  - {{match: \"{system}.*\", effects: [read], tier: standard, yields: [pii], \
                 resource: {{collection: accounts, id: /id}}}}"
            );
        }
        let _ = writeln!(
            catalog,
            "      {name}: {{input: {{type: object, required: [id, amount, currency], properties: {{id: {{type: \
             string}}, amount: {{type: integer}}, currency: {{type: string}}, note: {{type: string}}}}}}}}"
        );
        let file = files.entry(format!("policies/{system}.cedar")).or_default();
        file.push_str(&of_operation(&id, if index < changed { 499 } else { 500 }));
    }
    files.insert("catalog.yaml".to_owned(), catalog + &classify);
    files
}

fn of_operation(operation: &str, most: u32) -> String {
    let id = operation.replace('.', "-");
    format!(
        r#"@id("{id}-staff") @reason("staff may use it")
permit(principal in Role::"staff", action == Action::"{operation}", resource)
when {{ context.input.amount < 1000000 }};
@id("{id}-agents") @reason("agents may use it")
permit(principal in Role::"worker", action == Action::"{operation}", resource)
when {{ context.input.amount < 1000000 }};
@id("{id}-trainee") @reason("trainees move small amounts")
forbid(principal in Role::"trainee", action == Action::"{operation}", resource)
when {{ context.input.amount > {most} }};
@id("{id}-amount") @reason("the amount is too large")
forbid(principal, action == Action::"{operation}", resource) when {{ context.input.amount > 900000 }};
@id("{id}-currency") @reason("the currency is not traded")
forbid(principal, action == Action::"{operation}", resource) when {{ context.input.currency == "XXX" }};
@id("{id}-sealed") @reason("the resource is sealed")
forbid(principal, action == Action::"{operation}", resource) when {{ resource.labels.contains(Label::"sealed") }};
@id("{id}-chain") @reason("the chain is too long for it")
forbid(principal, action == Action::"{operation}", resource) when {{ context.chain.depth > 5 }};
@id("{id}-age") @reason("the credential is too old")
forbid(principal, action == Action::"{operation}", resource) when {{ context.proof.age > 864000 }};
"#
    )
}
