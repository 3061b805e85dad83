//! Random small bundles: one system of up to six operations, one or two agents, one or two people, and few policies.

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

const ROLES: [&str; 4] = ["ra", "rb", "staff", "guest"];

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
    /// `a`, and in most bundles `b`.
    pub(crate) agents: Vec<char>,
    /// `alice`, `bob`, or both.
    pub(crate) people: Vec<&'static str>,
    /// Those of [`OPERATIONS`] that the bundle has.
    pub(crate) operations: Vec<&'static str>,
    /// Notes have the label `pii`, and data of two sources with it has the label `bulk`.
    pub(crate) counts: bool,
    /// `pay` needs a call of `look` before it, whose result is reported.
    pub(crate) reports: bool,
    /// Each recipient of `send` must be named by the person.
    pub(crate) asks_for_origins: bool,
}

impl RandomBundle {
    /// All files.
    pub(crate) fn text(&self) -> String {
        self.files.values().map(|content| String::from_utf8_lossy(content)).collect()
    }

    fn has_role(&self, role: &str) -> bool {
        match role {
            "ra" => true,
            "rb" => self.agents.contains(&'b'),
            "staff" => self.people.contains(&"alice"),
            _ => self.people.contains(&"bob"),
        }
    }

    /// Whether the bundle has each operation and each role that a text names.
    fn has_all_of(&self, text: &str) -> bool {
        let mut absent = OPERATIONS.iter().filter(|name| !self.operations.contains(name));
        !absent.any(|name| text.contains(&format!("s.{name}")))
            && !ROLES
                .iter()
                .any(|role| !self.has_role(role) && text.contains(&format!("\"{role}\"")))
    }

    fn has(&self, operation: &str) -> bool {
        self.operations.contains(&operation)
    }
}

/// The bundle of a seed. A third has one agent, half have one person, and most lack one operation or two.
pub(crate) fn random_bundle(seed: u64) -> RandomBundle {
    let mut random = Random::new(seed);
    let tasks = if random.one_in(2) { Tasks::Required } else { Tasks::Optional };
    let isolated = match random.below(3) {
        0 => "per_task",
        1 => "per_subject",
        _ => "none",
    };
    let agents = if random.one_in(3) { vec!['a'] } else { vec!['a', 'b'] };
    let people = match random.below(4) {
        0 => vec!["alice"],
        1 => vec!["bob"],
        _ => vec!["alice", "bob"],
    };
    // The rules are about `send` and `pay`.
    let of_rules = if random.one_in(2) { "send" } else { "pay" };
    let operations: Vec<&'static str> =
        OPERATIONS.into_iter().filter(|name| *name == of_rules || !random.one_in(4)).collect();
    let files = BTreeMap::new();
    let has_notes = !random.one_in(3);
    // Numbers of their own, so that a bundle without these features stays the same.
    let mut features = Random::new(!seed);
    let counts = has_notes && features.one_in(3);
    let has_both = ["look", "pay"].iter().all(|name| operations.contains(name));
    let reports = has_both && features.one_in(4);
    // Only a task has a prompt.
    let has_prompts = tasks == Tasks::Required && operations.contains(&"send");
    let asks_for_origins = has_prompts && features.one_in(3);
    let mut bundle = RandomBundle {
        files,
        tasks,
        isolated,
        agents,
        people,
        operations,
        counts,
        reports,
        asks_for_origins,
    };
    let keeps = !random.one_in(4);
    let policies = policies(&mut random, &bundle);
    let facts = facts(&mut random, &bundle, has_notes, keeps);
    let mut put = |name: &str, text: String| {
        bundle.files.insert(name.to_owned(), text.into_bytes());
    };
    put(
        "bundle.yaml",
        match tasks {
            Tasks::Optional => "name: random\ntasks: optional\n".to_owned(),
            Tasks::Required => "name: random\ntasks: required\n".to_owned(),
        },
    );
    put("facts.yaml", facts);
    put("policy.cedar", policies);
    bundle
}

fn facts(random: &mut Random, bundle: &RandomBundle, has_notes: bool, keeps: bool) -> String {
    let isolated = bundle.isolated;
    let note = if has_notes { ", resource: {collection: notes, id: /id}" } else { "" };
    let keep = if keeps { "" } else { ", keeps_written: none" };
    let reporter = if bundle.reports { "sdk" } else { "never" };
    let (bulk, kind) = match bundle.counts {
        true => {
            ("bulk: {kind: confidentiality, derive: {from: pii, sources: 2}}, ", "labels: [pii]")
        }
        false => ("", "labels: []"),
    };
    let lines = |all: [(&str, &str, String); 6]| -> String {
        let all = all.into_iter().filter(|(name, ..)| bundle.has(name));
        all.map(|(name, before, after)| format!("{before}{name}{after}\n")).collect()
    };
    let role = |name: &str, line: &str| {
        if bundle.has_role(name) { format!("  {name}: {line}\n") } else { String::new() }
    };
    let agents = format!("{{match: ['spiffe://dev.example/a'], isolated: {isolated}}}");
    let input = |properties: &str, required: &str| {
        format!(
            ": {{input: {{type: object, properties: {{{properties}}}, required: [{required}]}}}}"
        )
    };
    let catalog = lines([
        ("look", "      ", input("", "")),
        ("surf", "      ", input("", "")),
        ("put", "      ", input("id: {type: string}", "id")),
        ("take", "      ", input("id: {type: string}", "id")),
        ("send", "      ", input("to: {type: array, items: {type: string}}", "to")),
        ("pay", "      ", input("n: {type: integer}", "n")),
    ]);
    let classify = lines([
        ("look", "  - {match: s.", ", effects: [read], tier: low, yields: [pii]}".to_owned()),
        ("surf", "  - {match: s.", ", effects: [read], tier: low, yields: [untrusted]}".to_owned()),
        ("put", "  - {match: s.", format!(", effects: [write], tier: low{note}}}")),
        ("take", "  - {match: s.", format!(", effects: [read], tier: low{note}}}")),
        (
            "send",
            "  - {match: s.",
            ", effects: [export], tier: standard, destination: {from: [/to], type: email}}"
                .to_owned(),
        ),
        ("pay", "  - {match: s.", ", effects: [write], tier: standard}".to_owned()),
    ]);
    let mut text = format!(
        "agents:
{}{}subjects:
{}{}labels: {{{bulk}pii: {{kind: confidentiality}}, untrusted: {{kind: trust}}}}
resources: {{notes: {{{kind}{keep}}}}}
destinations: {{inside: {{match: '*@in.example', clearance: [pii]}}, outside: {{match: '*', clearance: []}}}}
catalog:
  s:
    kind: http
    reports: {reporter}
    operations:
{catalog}classify:
{classify}",
        role("ra", &agents),
        role("rb", "['spiffe://dev.example/b']"),
        role("staff", "{issuer: corp, claim: groups, contains: staff}"),
        role("guest", "{issuer: corp, claim: groups, contains: guest}"),
    );
    if bundle.tasks == Tasks::Required {
        let depth = random.below(2);
        let scope: Vec<String> = bundle
            .operations
            .iter()
            .filter(|_| !random.one_in(6))
            .map(|name| format!("{{operation: s.{name}}}"))
            .collect();
        let scope = if scope.is_empty() { vec!["{system: s}".to_owned()] } else { scope };
        let starters: &[&str] = match bundle.has_role("rb") {
            true => &["[]", "[ra]", "[rb]", "[ra, rb]"],
            false => &["[]", "[ra]"],
        };
        let starters = random.pick(starters).to_owned();
        let _ = write!(
            text,
            "templates:\n  t: {{purpose: work, deadline: 1h, max_depth: {depth}, tier_cap: high, starters: {starters}, scope: [{}]}}\n",
            scope.join(", ")
        );
    }
    if bundle.reports {
        text.push_str("sequences: {look-first: {require: s.look, before: s.pay}}\n");
    }
    text.push_str("analysis:\n  assertions:\n");
    for (id, never) in ASSERTIONS {
        let has_guest = bundle.has_role("guest") || !never.contains("guest");
        let has_label = bundle.counts || !never.contains("bulk");
        if has_guest && has_label && bundle.has_all_of(never) {
            let _ = writeln!(text, "    - {{id: {id}, never: {{{never}}}}}");
        }
    }
    text
}

const ASSERTIONS: [(&str, &str); 7] = [
    ("pii-out", "label: pii, destination: outside"),
    ("pii-out-unseen", "label: pii, destination: outside, without: approve"),
    ("pay-after-strangers", "operation: s.pay, after: untrusted"),
    ("a-pays", "agent: ra, operation: s.pay"),
    ("guest-pays", "subject: guest, operation: s.pay"),
    ("bulk-out", "label: bulk, destination: outside"),
    ("both-out", "label: pii, destination: outside, after: untrusted, without: person"),
];

fn policies(random: &mut Random, bundle: &RandomBundle) -> String {
    let mut text = String::new();
    for role in ROLES.into_iter().filter(|role| bundle.has_role(role)) {
        for operation in bundle.operations.iter().copied() {
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
        if bundle.tasks == Tasks::Required && !random.one_in(4) {
            let _ = writeln!(
                text,
                "@id(\"{role}-start\") permit(principal in Role::\"{role}\", action == Action::\"task:t\", resource);"
            );
            let agents: &[&str] = if bundle.has_role("rb") { &["ra", "rb"] } else { &["ra"] };
            let whom = random.pick(agents);
            let _ = writeln!(
                text,
                "@id(\"{role}-give\") permit(principal in Role::\"{role}\", action == Action::\"give:t\", resource in Role::\"{whom}\");"
            );
        }
    }
    for (at, forbid) in FORBIDS.iter().enumerate() {
        if random.one_in(4) && bundle.has_all_of(forbid) {
            let _ = writeln!(text, "@id(\"forbid-{at}\") {forbid}");
        }
    }
    if bundle.reports {
        let _ = writeln!(text, "@id(\"look-first\") {LOOK_FIRST}");
    }
    if bundle.asks_for_origins {
        let _ = writeln!(text, "@id(\"named\") {NAMED}");
    }
    text
}

const NAMED: &str = "forbid(principal, action == Action::\"s.send\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) };";

const LOOK_FIRST: &str = "forbid(principal, action == Action::\"s.pay\", resource) when { context.sequences.contains(Sequence::\"look-first\") };";

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
