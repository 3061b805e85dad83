//! Random small bundles: one system, two agents, two people, and few policies.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A small generator of random numbers (splitmix64), so that a seed names a bundle.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.below(all.len() as u64)).unwrap_or_default();
        all.get(at).copied().unwrap_or_default()
    }
}

/// Operations of the system, by name.
pub(crate) const OPERATIONS: [&str; 6] = ["look", "surf", "put", "take", "send", "pay"];

/// How agents come to act in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tasks {
    /// Without tasks.
    Optional,
    /// In tasks of one template.
    Required,
}

/// A random bundle.
#[derive(Clone, Debug)]
pub(crate) struct RandomBundle {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) tasks: Tasks,
    /// `isolated` of agent `a`.
    pub(crate) isolated: &'static str,
}

/// The bundle of a seed.
pub(crate) fn random_bundle(seed: u64) -> RandomBundle {
    let mut random = Random::new(seed);
    let tasks = if random.one_in(2) { Tasks::Required } else { Tasks::Optional };
    let isolated = match random.below(3) {
        0 => "per_task",
        1 => "per_subject",
        _ => "none",
    };
    let has_notes = !random.one_in(3);
    let keeps = !random.one_in(4);
    let policies = policies(&mut random, tasks);
    let mut files = BTreeMap::new();
    let mut put = |name: &str, text: String| {
        files.insert(name.to_owned(), text.into_bytes());
    };
    put(
        "bundle.yaml",
        match tasks {
            Tasks::Optional => "name: random\ntasks: optional\n".to_owned(),
            Tasks::Required => "name: random\ntasks: required\n".to_owned(),
        },
    );
    put("facts.yaml", facts(&mut random, tasks, isolated, has_notes, keeps));
    put("policy.cedar", policies);
    RandomBundle { files, tasks, isolated }
}

fn facts(
    random: &mut Random,
    tasks: Tasks,
    isolated: &str,
    has_notes: bool,
    keeps: bool,
) -> String {
    let note = if has_notes { ", resource: {collection: notes, id: /id}" } else { "" };
    let keep = if keeps { "" } else { "keeps_written: none" };
    let mut text = format!(
        "agents:
  ra: {{match: ['spiffe://dev.example/a'], isolated: {isolated}}}
  rb: ['spiffe://dev.example/b']
subjects:
  staff: {{issuer: corp, claim: groups, contains: staff}}
  guest: {{issuer: corp, claim: groups, contains: guest}}
labels: {{pii: {{kind: confidentiality}}, untrusted: {{kind: trust}}}}
resources: {{notes: {{{keep}}}}}
destinations: {{inside: {{match: '*@in.example', clearance: [pii]}}, outside: {{match: '*', clearance: []}}}}
catalog:
  s:
    kind: http
    operations:
      look: {{input: {{type: object, properties: {{}}}}}}
      surf: {{input: {{type: object, properties: {{}}}}}}
      put: {{input: {{type: object, properties: {{id: {{type: string}}}}, required: [id]}}}}
      take: {{input: {{type: object, properties: {{id: {{type: string}}}}, required: [id]}}}}
      send: {{input: {{type: object, properties: {{to: {{type: array, items: {{type: string}}}}}}, required: [to]}}}}
      pay: {{input: {{type: object, properties: {{n: {{type: integer}}}}, required: [n]}}}}
classify:
  - {{match: s.look, effects: [read], tier: low, yields: [pii]}}
  - {{match: s.surf, effects: [read], tier: low, yields: [untrusted]}}
  - {{match: s.put, effects: [write], tier: low{note}}}
  - {{match: s.take, effects: [read], tier: low{note}}}
  - {{match: s.send, effects: [export], tier: standard, destination: {{from: [/to], type: email}}}}
  - {{match: s.pay, effects: [write], tier: standard}}
"
    );
    if tasks == Tasks::Required {
        let depth = random.below(2);
        let scope: Vec<String> = OPERATIONS
            .iter()
            .filter(|_| !random.one_in(6))
            .map(|name| format!("{{operation: s.{name}}}"))
            .collect();
        let scope = if scope.is_empty() { vec!["{operation: s.look}".to_owned()] } else { scope };
        let starters = random.pick(&["[]", "[ra]", "[rb]", "[ra, rb]"]).to_owned();
        let _ = write!(
            text,
            "templates:\n  t: {{purpose: work, deadline: 1h, max_depth: {depth}, tier_cap: high, starters: {starters}, scope: [{}]}}\n",
            scope.join(", ")
        );
    }
    text.push_str(
        "analysis:
  assertions:
    - {id: pii-out, never: {label: pii, destination: outside}}
    - {id: pii-out-unseen, never: {label: pii, destination: outside, without: approve}}
    - {id: pay-after-strangers, never: {operation: s.pay, after: untrusted}}
    - {id: a-pays, never: {agent: ra, operation: s.pay}}
    - {id: guest-pays, never: {subject: guest, operation: s.pay}}
    - {id: both-out, never: {label: pii, destination: outside, after: untrusted, without: person}}
",
    );
    text
}

fn policies(random: &mut Random, tasks: Tasks) -> String {
    let mut text = String::new();
    for role in ["ra", "rb", "staff", "guest"] {
        for operation in OPERATIONS {
            if random.one_in(4) {
                continue;
            }
            let condition = match (operation, random.below(5)) {
                ("send", 0) => {
                    " when { context.destination.class == DestinationClass::\"inside\" }"
                }
                ("pay", 0) => " when { context.input.n > 100 }",
                ("pay" | "send", 1) => {
                    " when { !context.session.labels.contains(Label::\"untrusted\") }"
                }
                ("pay", 2) => " when { context.chain.subject }",
                _ => "",
            };
            let _ = writeln!(
                text,
                "@id(\"{role}-{operation}\") permit(principal in Role::\"{role}\", action == Action::\"s.{operation}\", resource){condition};"
            );
        }
        if tasks == Tasks::Required && !random.one_in(4) {
            let _ = writeln!(
                text,
                "@id(\"{role}-start\") permit(principal in Role::\"{role}\", action == Action::\"task:t\", resource);"
            );
            let whom = random.pick(&["ra", "rb"]);
            let _ = writeln!(
                text,
                "@id(\"{role}-give\") permit(principal in Role::\"{role}\", action == Action::\"give:t\", resource in Role::\"{whom}\");"
            );
        }
    }
    for (at, forbid) in FORBIDS.iter().enumerate() {
        if random.one_in(4) {
            let _ = writeln!(text, "@id(\"forbid-{at}\") {forbid}");
        }
    }
    text
}

const FORBIDS: [&str; 9] = [
    "forbid(principal, action, resource) when { context.uncleared_labels.contains(Label::\"pii\") };",
    "@stepup(\"approve\") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() } unless { context.satisfied.contains(Kind::\"approve\") };",
    "@stepup(\"confirm\") forbid(principal, action == Action::\"s.send\", resource) when { context.session.labels.contains(Label::\"untrusted\") } unless { context.satisfied.contains(Kind::\"confirm\") };",
    "forbid(principal, action == Action::\"s.pay\", resource) when { context.session.labels.contains(Label::\"untrusted\") || context.remembered.contains(Label::\"untrusted\") };",
    // Fails for each amount.
    "forbid(principal, action == Action::\"s.pay\", resource) when { context.input.n * 0 + 9223372036854775807 + 1 < 0 };",
    "forbid(principal in Role::\"guest\", action == Action::\"s.pay\", resource);",
    "forbid(principal, action == Action::\"s.send\", resource) when { context.destination.class == DestinationClass::\"outside\" };",
    "forbid(principal in Role::\"ra\", action == Action::\"s.pay\", resource) unless { context.chain.depth > 1 };",
    "forbid(principal, action == Action::\"s.take\", resource) when { context.session.labels.contains(Label::\"pii\") };",
];
