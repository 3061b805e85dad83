//! The Cedar schema that a bundle gives rise to.
//!
//! Every closed set of names (roles, labels, kinds…) is an *enumerated* entity type, so that a policy with a
//! mistyped name is refused; as plain entities or strings it would load and never match. The context of an action is
//! total: every key is always there, so that a policy needs no `has` for it. Keys of later versions stand in the
//! schema, and a policy that reads one is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use authz_base::record::task::NO_TEMPLATE;

use crate::arguments::{ArgumentType, Member};
use crate::decision::ProofMethod;
use crate::model::{Effect, Model};

/// A top-level key of `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Key {
    /// The arguments.
    Input,
    /// Effective tier, 0–3.
    Tier,
    /// The task.
    Task,
    /// How it was proved on whose behalf the caller acts.
    SubjectProof,
    /// The chain of delegation.
    Chain,
    /// Who asks.
    Enforcer,
    /// 0–100.
    Confidence,
    /// Where the data goes.
    Destination,
    /// How the caller proved itself.
    Proof,
    /// Step-up kinds met now.
    Satisfied,
    /// When the decision is made.
    Time,
    /// State of the task tree.
    Session,
    /// Labels carried beyond the destination's clearance.
    Excess,
    /// Sequences that this event would complete.
    Sequences,
    /// Budgets that this event would exceed.
    Budgets,
    /// Labels that the acting agent remembers of other tasks.
    Remembered,
    /// A standing permission.
    Exception,
}

impl Key {
    /// All keys.
    pub const ALL: [Self; 17] = [
        Self::Input,
        Self::Tier,
        Self::Task,
        Self::SubjectProof,
        Self::Chain,
        Self::Enforcer,
        Self::Confidence,
        Self::Destination,
        Self::Proof,
        Self::Satisfied,
        Self::Time,
        Self::Session,
        Self::Excess,
        Self::Sequences,
        Self::Budgets,
        Self::Remembered,
        Self::Exception,
    ];

    /// Its name in policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Tier => "tier",
            Self::Task => "task",
            Self::SubjectProof => "subject_proof",
            Self::Chain => "chain",
            Self::Enforcer => "enforcer",
            Self::Confidence => "confidence",
            Self::Destination => "destination",
            Self::Proof => "proof",
            Self::Satisfied => "satisfied",
            Self::Time => "time",
            Self::Session => "session",
            Self::Excess => "excess",
            Self::Sequences => "sequences",
            Self::Budgets => "budgets",
            Self::Remembered => "remembered",
            Self::Exception => "exception",
        }
    }

    /// True for a key whose facts only a later version gathers.
    #[must_use]
    pub const fn is_later(self) -> bool {
        matches!(self, Self::Exception)
    }

    /// The key of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.as_str() == name)
    }
}

/// A set of context keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys(u32);

impl Keys {
    /// Adds a key.
    pub const fn insert(&mut self, key: Key) {
        self.0 |= 1 << key as u8;
    }

    /// True where the key is in the set.
    #[must_use]
    pub const fn contains(self, key: Key) -> bool {
        self.0 & (1 << key as u8) != 0
    }

    /// The union of two sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Class of an operation without a destination.
pub const NO_DESTINATION: &str = "none";
/// Stands in an enumerated type that the bundle leaves empty, since Cedar has no empty enumeration.
const EMPTY: &str = "(nothing declared)";
/// The system of our own operations.
pub const OWN_SYSTEM: &str = "authz";
/// Our own operations, judged like any other; beside them each template has one that starts its tasks, and one that gives
/// them to another agent.
pub const OWN_OPERATIONS: [&str; 8] =
    ["probe", "explain", "status", "reload", "revoke", "task.start_for", "task.read", "task.end"];
/// What stands before a template in the operation that starts its tasks.
pub const START: &str = "task:";
/// What stands before a template in the operation that gives one of its tasks to another agent, which is the resource.
pub const GIVE: &str = "give:";
/// The group of the operations that give tasks.
pub const GIVE_GROUP: &str = "authz.task.give";
/// Step-up kinds that every bundle has.
pub const BUILT_IN_KINDS: [&str; 6] =
    ["confirm", "approve", "two_person", "fresh_credential", "bound_token", "confidence"];

/// The closed sets of names of one bundle: enumerated entity type → its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    types: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Names {
    /// Gathers the names of a bundle.
    ///
    /// Args:
    /// * `reauth`: the `reauth:…` kinds that `@stepup` annotations name.
    #[must_use]
    pub fn of(model: &Model, reauth: &BTreeSet<String>) -> Self {
        let mut types: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        let mut put = |kind, names: BTreeSet<String>| {
            types.insert(kind, names);
        };
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        put("Role", model.roles.keys().cloned().collect());
        put("Label", model.labels.keys().cloned().collect());
        put("Collection", model.collections.keys().cloned().collect());
        put("Effect", Effect::ALL.iter().map(|effect| effect.as_str().to_owned()).collect());
        put("ProofMethod", owned(&ProofMethod::NAMES));
        put("SubjectProof", owned(&["verified", "self", "asserted"]));
        put("TaskKind", owned(&["none", "root", "child", "implicit"]));
        let templates = model.templates.keys().cloned().chain([NO_TEMPLATE.to_owned()]);
        put("Template", templates.collect());
        put("Sequence", model.sequences.keys().cloned().collect());
        put("Budget", model.budgets.keys().cloned().collect());
        let systems = model.systems.keys().cloned().chain([OWN_SYSTEM.to_owned()]);
        put("System", systems.collect());
        let classes = model.destinations.keys().cloned().chain([NO_DESTINATION.to_owned()]);
        put("DestinationClass", classes.collect());
        let kinds = BUILT_IN_KINDS.iter().map(|kind| (*kind).to_owned());
        let approvers = model.roles.keys().map(|role| format!("approve:{role}"));
        put("Kind", kinds.chain(approvers).chain(reauth.iter().cloned()).collect());
        Self { types }
    }

    /// The members of an enumerated type; none where the type is not enumerated.
    #[must_use]
    pub fn members(&self, kind: &str) -> Option<&BTreeSet<String>> {
        self.types.get(kind)
    }

    /// The schema's entity types and shared context types.
    #[must_use]
    pub fn prelude(&self) -> String {
        let mut text = String::with_capacity(4096);
        for (kind, members) in &self.types {
            let _ = write!(text, "entity {kind} enum [");
            if members.is_empty() {
                text.push_str(&quote(EMPTY));
            }
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                text.push_str(&quote(member));
            }
            text.push_str("];\n");
        }
        text.push_str(FIXED);
        text
    }
}

/// The part that is the same for every bundle.
const FIXED: &str = r"entity Agent in [Role] { trust_domain: String, spiffe_id: String };
entity User in [Role] { issuer: String, sub: String };
entity Service in [Role] { issuer: String, sub: String };
entity Resource in [Collection, System] { labels: Set<Label>, id: String };
type TaskFacts = { kind: TaskKind, template: Template, purpose: String, depth: Long, age: Long };
type ChainFacts = { depth: Long, agents: Set<Agent>, subject: Bool };
type DestinationFacts = { class: DestinationClass, trusted: Bool, host: String, present: Bool };
type ProofFacts = { method: ProofMethod, bound: Bool, age: Long, acr: String };
type SessionFacts = { labels: Set<Label>, sources: Long, calls: Long };
type ExceptionFacts = { active: Bool };
";

/// What the context of every action holds beside `input`.
const CONTEXT: &str = "tier: Long, task: TaskFacts, subject_proof: SubjectProof, chain: ChainFacts, \
enforcer: String, confidence: Long, destination: DestinationFacts, proof: ProofFacts, satisfied: Set<Kind>, \
time: datetime, session: SessionFacts, excess: Set<Label>, sequences: Set<Sequence>, budgets: Set<Budget>, \
remembered: Set<Label>, exception: ExceptionFacts";

/// The attributes of a fixed entity or record type; none where the type has none.
pub(crate) fn attributes(name: &str) -> Vec<&'static str> {
    let declared = |line: &&str| {
        let mut words = line.split(' ');
        matches!(words.next(), Some("entity" | "type")) && words.next() == Some(name)
    };
    let line = FIXED.lines().find(declared).unwrap_or_default();
    let members = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let members = members.map_or("", |(members, _)| members).split(',');
    members.filter_map(|member| member.split_once(':')).map(|(name, _)| name.trim()).collect()
}

/// The attributes below a key of the context, other than those of the arguments; none where it has none.
pub(crate) fn attributes_of_key(key: &str) -> Vec<&'static str> {
    let mut pairs = CONTEXT.split(',').filter_map(|pair| pair.split_once(':'));
    let found = pairs.find(|(name, _)| name.trim() == key);
    found.map(|(_, kind)| attributes(kind.trim())).unwrap_or_default()
}

/// Declares an action group.
#[must_use]
pub fn group(name: &str) -> String {
    format!("action {};\n", quote(name))
}

/// Declares an operation's action.
///
/// Args:
/// * `id`: the operation id; `groups`: its action groups; `resource`: the type of what it acts on; `input`: its arguments.
#[must_use]
pub fn action(
    id: &str,
    groups: &[String],
    resource: &str,
    input: &BTreeMap<String, Member>,
) -> String {
    let mut text = format!("action {} in [", quote(id));
    for (index, name) in groups.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(&quote(name));
    }
    let _ = write!(
        text,
        "] appliesTo {{ principal: [User, Service, Agent], resource: [{resource}], context: {{ input: "
    );
    record(&mut text, input);
    let _ = writeln!(text, ", {CONTEXT} }} }};");
    text
}

fn record(text: &mut String, members: &BTreeMap<String, Member>) {
    text.push('{');
    for (index, (name, member)) in members.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(&quote(name));
        text.push_str(if member.required { ": " } else { "?: " });
        kind(text, &member.kind);
    }
    text.push('}');
}

// Recursion is bounded by the depth limit of `arguments`.
fn kind(text: &mut String, argument: &ArgumentType) {
    match argument {
        ArgumentType::Long => text.push_str("Long"),
        ArgumentType::Decimal => text.push_str("decimal"),
        ArgumentType::Text => text.push_str("String"),
        ArgumentType::Bool => text.push_str("Bool"),
        ArgumentType::Opaque => text.push_str("{}"),
        ArgumentType::Set(item) => {
            text.push_str("Set<");
            kind(text, item);
            text.push('>');
        }
        ArgumentType::Record(members) => record(text, members),
    }
}

/// A Cedar string literal.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            other if other.is_control() => {
                let _ = write!(quoted, "\\u{{{:x}}}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_those_of_the_schema() {
        assert_eq!(["trust_domain", "spiffe_id"].as_slice(), attributes("Agent"));
        assert_eq!(["labels", "id"].as_slice(), attributes("Resource"));
        assert!(attributes("System").is_empty());
        assert_eq!(
            ["class", "trusted", "host", "present"].as_slice(),
            attributes_of_key("destination")
        );
        assert!(attributes_of_key("tier").is_empty());
    }
}
