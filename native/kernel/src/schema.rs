//! The Cedar schema that a bundle gives rise to.
//!
//! Every closed set of names (roles, labels, kinds…) is an *enumerated* entity type, so that a policy with a
//! mistyped name is refused; as plain entities or strings it would load and never match. The context of an action is
//! total: every key is always there, so that a policy needs no `has` for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use authz_base::record::task::NO_TEMPLATE;

use crate::arguments::{ArgumentType, Member};
use crate::decision::ProofMethod;
use crate::model::{BREAKGLASS, EXCEPTION_TYPE, Effect, Model, Origin};

/// Knowledge of a context key's value before a request is made, for the listing of operations that could be permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownFrom {
    /// The caller, its task and the time give the value.
    Caller,
    /// Only a request gives the value: a listing takes it for any value.
    Request,
}

/// Declares the top-level keys of `context`, one row a key.
///
/// A row is `Key = name, Cedar type, source of the value`; its comment is the text of docs/reference/policies.md.
macro_rules! context_keys {
    ($($(#[doc = $doc:literal])+ $key:ident = $name:literal, $cedar:literal, $from:ident;)+) => {
        /// A top-level key of `context`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Key {
            $($(#[doc = $doc])+ $key,)+
        }

        impl Key {
            /// All keys.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$key),+];

            /// Name of the key in policies.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$key => $name,)+ }
            }

            /// Cedar type of the value; empty for `input`, whose type is that of the operation's arguments.
            #[must_use]
            pub const fn cedar_type(self) -> &'static str {
                match self { $(Self::$key => $cedar,)+ }
            }

            /// Source of the value.
            #[must_use]
            pub const fn known_from(self) -> KnownFrom {
                match self { $(Self::$key => KnownFrom::$from,)+ }
            }

            /// Meaning of the value, in Markdown.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$key => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

context_keys! {
    /// Arguments of the operation, with the types that the catalog declares.
    Input = "input", "", Request;
    /// Effective tier of the call: 0 `low`, 1 `standard`, 2 `high`, 3 `critical`.
    Tier = "tier", "Long", Caller;
    /// Task in which the call is made. `depth` is 0 for a root, `age` is in seconds. Without a task, `kind` is `none` and `template` is `none`.
    Task = "task", "TaskFacts", Caller;
    /// Proof of the subject on whose behalf the caller acts: `verified`, `asserted`, or `self` where the caller acts for itself.
    SubjectProof = "subject_proof", "SubjectProof", Caller;
    /// Chain of delegation: number of principals, its agents, and whether it begins with a subject.
    Chain = "chain", "ChainFacts", Caller;
    /// Name of the enforcer that asks; empty where the caller asks about itself.
    Enforcer = "enforcer", "String", Request;
    /// Confidence that the call is meant, 0 to 100, as a [guard](configuration/guards.md) states it; 0 without its statement.
    Confidence = "confidence", "Long", Request;
    /// Destination of the data. With several destinations, a policy that reads the key is judged for each of them. `present` is false where the operation has none.
    Destination = "destination", "DestinationFacts", Request;
    /// Origins of the values of the call, by the [role](bundle/classify.md#objects) of their arguments: `named`, `known`, `made`, `introduced`, `claimed`, `unknown`. A set is empty where the operation has no argument with the role.
    Origins = "origins", "OriginFacts", Request;
    /// Number of mailboxes, hosts and IBANs in the texts of the arguments, at any depth, that are neither `named` nor `known`; at most 256.
    Literals = "literals", "LiteralFacts", Request;
    /// Proof of the caller: its method, whether it is bound to a key, its age in seconds, and the `acr` of the subject's token.
    Proof = "proof", "ProofFacts", Caller;
    /// Kinds of step-up that are met now.
    Satisfied = "satisfied", "Set<Kind>", Request;
    /// Time of the decision.
    Time = "time", "datetime", Caller;
    /// History of the session: labels that it carries, number of collections and systems that labelled data came from, and number of permitted calls.
    Session = "session", "SessionFacts", Request;
    /// Labels carried by the call that the destination is not cleared for.
    UnclearedLabels = "uncleared_labels", "Set<Label>", Request;
    /// Sequences that the call would complete.
    Sequences = "sequences", "Set<Sequence>", Request;
    /// Budgets that the call would exceed.
    Budgets = "budgets", "Set<Budget>", Request;
    /// Labels that the acting agent remembers of other tasks.
    Remembered = "remembered", "Set<Label>", Request;
    /// [Standing exceptions](bundle/exceptions.md) that cover the call now. A policy that reads the key names the exceptions that it accepts.
    Exception = "exception", "Set<Exception>", Request;
}

impl Key {
    /// True where the value is known before a request is made.
    #[must_use]
    pub const fn is_known_before_request(self) -> bool {
        matches!(self.known_from(), KnownFrom::Caller)
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

    /// The set without a key.
    #[must_use]
    pub const fn without(self, key: Key) -> Self {
        Self(self.0 & !(1 << key as u8))
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
pub const OWN_OPERATIONS: [&str; 9] = [
    "probe",
    "explain",
    "status",
    "reload",
    "revoke",
    "task.start_for",
    "task.read",
    "task.end",
    APPROVE,
];
/// The operation that policies judge for a person who approves a call. Its arguments say which call.
pub const APPROVE: &str = "approve";
/// What stands before a template in the operation that starts its tasks.
pub const START: &str = "task:";
/// What stands before a template in the operation that gives one of its tasks to another agent, which is the resource.
pub const GIVE: &str = "give:";
/// The group of the operations that give tasks.
pub const GIVE_GROUP: &str = "authz.task.give";
pub use crate::model::BUILT_IN_KINDS;

/// Annotations that a policy may have.
pub const ANNOTATIONS: [&str; 7] =
    ["id", "reason", "stepup", "obligation", "control", "covers", "mode"];

/// The closed sets of names of one bundle: enumerated entity type → its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaNames {
    types: BTreeMap<&'static str, BTreeSet<String>>,
}

impl SchemaNames {
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
        put("Origin", Origin::ALL.iter().map(|origin| origin.as_str().to_owned()).collect());
        put("ProofMethod", owned(&ProofMethod::NAMES));
        put("SubjectProof", owned(&["verified", "self", "asserted"]));
        put("TaskKind", owned(&["none", "root", "child", "implicit"]));
        let templates = model.templates.keys().cloned().chain([NO_TEMPLATE.to_owned()]);
        put("Template", templates.collect());
        put("Sequence", model.sequences.keys().cloned().collect());
        put("Budget", model.budgets.keys().cloned().collect());
        let exceptions = model.exceptions.keys().cloned().chain([BREAKGLASS.to_owned()]);
        put(EXCEPTION_TYPE, exceptions.collect());
        let systems = model.systems.keys().cloned().chain([OWN_SYSTEM.to_owned()]);
        put("System", systems.collect());
        let classes = model.destinations.keys().cloned().chain([NO_DESTINATION.to_owned()]);
        put("DestinationClass", classes.collect());
        let kinds = BUILT_IN_KINDS.iter().map(|kind| (*kind).to_owned());
        let approvers = model.roles.keys().map(|role| format!("approve:{role}"));
        put("Kind", kinds.chain(approvers).chain(reauth.iter().cloned()).collect());
        Self { types }
    }

    /// The names of two bundles.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        for (kind, members) in other.types {
            self.types.entry(kind).or_default().extend(members);
        }
        self
    }

    /// Names that another bundle lacks: type and name.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Vec<(&'static str, &str)> {
        let lacks = |kind: &str, name: &String| {
            !other.members(kind).is_some_and(|members| members.contains(name))
        };
        let names = self
            .types
            .iter()
            .flat_map(|(kind, members)| members.iter().map(move |name| (*kind, name)));
        names
            .filter(|(kind, name)| lacks(kind, name))
            .map(|(kind, name)| (kind, name.as_str()))
            .collect()
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
type OriginFacts = { recipient: Set<Origin>, target: Set<Origin>, amount: Set<Origin>, command: Set<Origin>, credential: Set<Origin> };
type LiteralFacts = { unknown: Long };
type ProofFacts = { method: ProofMethod, bound: Bool, age: Long, acr: String };
type SessionFacts = { labels: Set<Label>, sources: Long, calls: Long };
";

/// Declaration of the context of every action, beside `input`.
fn context_members() -> String {
    let keys = Key::ALL.into_iter().filter(|key| *key != Key::Input);
    let members: Vec<String> =
        keys.map(|key| format!("{}: {}", key.as_str(), key.cedar_type())).collect();
    members.join(", ")
}

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
    Key::parse(key).map(|key| attributes(key.cedar_type())).unwrap_or_default()
}

/// Declares an action group.
#[must_use]
pub fn group(name: &str) -> String {
    format!("action {};\n", quote(name))
}

/// Declares an operation's action.
///
/// Args:
/// * `id`: the operation id; `groups`: its action groups; `resource`: the type of its resource; `input`: its arguments.
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
    let _ = writeln!(text, ", {} }} }};", context_members());
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
