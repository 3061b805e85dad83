//! Origins of values: which arguments carry authority, and which results bring values that count.

use std::fmt;

use authz_base::json::{pointer_tokens, push_token};

use super::{DestinationKind, Spelling};
use crate::prompt::Nouns;

/// Party that chose a value, from the best origin to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// The user: the prompt, a parameter that the user gave, or the `names` of the task's template.
    Named,
    /// A trusted and fresh recipient list.
    Known,
    /// The session: an earlier call made the object.
    Made,
    /// A declared field of a result, whose author counts.
    Introduced,
    /// An agent, which relays it as the user's.
    Claimed,
    /// Anybody.
    Unknown,
}

impl Origin {
    /// All origins, from the best to the worst.
    pub const ALL: [Self; 6] =
        [Self::Named, Self::Known, Self::Made, Self::Introduced, Self::Claimed, Self::Unknown];

    /// The word used in bundles and in `Origin::"…"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Known => "known",
            Self::Made => "made",
            Self::Introduced => "introduced",
            Self::Claimed => "claimed",
            Self::Unknown => "unknown",
        }
    }

    /// The origin of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.as_str() == word)
    }
}

/// Set of origins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OriginSet(u8);

impl OriginSet {
    /// Adds an origin.
    pub const fn insert(&mut self, origin: Origin) {
        self.0 |= 1 << origin as u8;
    }

    /// True where the origin is in the set.
    #[must_use]
    pub const fn contains(self, origin: Origin) -> bool {
        self.0 & (1 << origin as u8) != 0
    }

    /// True where every member of the other set is in this one.
    #[must_use]
    pub const fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// True where a member of the other set is in this one.
    #[must_use]
    pub const fn contains_any(self, other: Self) -> bool {
        other.0 & self.0 != 0
    }

    /// True where no origin is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All sets, by their [`OriginSet::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        (0..1 << Origin::ALL.len()).map(Self)
    }

    /// Its place among all sets.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its members, from the best to the worst.
    pub fn origins(self) -> impl Iterator<Item = Origin> {
        Origin::ALL.into_iter().filter(move |origin| self.contains(*origin))
    }
}

impl FromIterator<Origin> for OriginSet {
    fn from_iter<I: IntoIterator<Item = Origin>>(origins: I) -> Self {
        let mut set = Self::default();
        origins.into_iter().for_each(|origin| set.insert(origin));
        set
    }
}

/// Origins of the values of a call, by the role of the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OriginSets([OriginSet; ValueRole::ALL.len()]);

impl OriginSets {
    /// The origins of a call without values.
    pub const EMPTY: Self = Self([OriginSet(0); ValueRole::ALL.len()]);

    /// Adds the origin of a value.
    pub fn insert(&mut self, role: ValueRole, origin: Origin) {
        if let Some(set) = self.0.get_mut(role as usize) {
            set.insert(origin);
        }
    }

    /// The origins of the values of a role.
    #[must_use]
    pub fn of(&self, role: ValueRole) -> OriginSet {
        self.0.get(role as usize).copied().unwrap_or_default()
    }
}

/// Authority that an argument carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ValueRole {
    /// Receives the data.
    #[default]
    Recipient,
    /// Is changed, deleted, bought or entered.
    Target,
    /// Is paid or transferred.
    Amount,
    /// Is run.
    Command,
    /// Opens an account or system.
    Credential,
}

impl ValueRole {
    /// All roles, in order.
    pub const ALL: [Self; 5] =
        [Self::Recipient, Self::Target, Self::Amount, Self::Command, Self::Credential];

    /// The word used in bundles and in `context.origins`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recipient => "recipient",
            Self::Target => "target",
            Self::Amount => "amount",
            Self::Command => "command",
            Self::Credential => "credential",
        }
    }
}

/// Namespace of a value. Values of two namespaces are never the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSpace {
    /// Ids of a collection of the operation's system.
    Collection {
        /// A declared collection.
        name: String,
        /// Comparison of its ids.
        spelling: Spelling,
    },
    /// Destinations of one kind, the same for all systems.
    Destination(DestinationKind),
    /// Values of one role of the operation's system.
    Role(ValueRole),
}

/// One step of a [`ResultPointer`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResultToken {
    /// Member of an object, or index of an array.
    Member(String),
    /// Every element of an array: `*`.
    Each,
}

/// JSON pointer (RFC 6901) into a result, in which `*` stands for every element of an array.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResultPointer(Vec<ResultToken>);

impl ResultPointer {
    /// Tokens of one pointer.
    pub const MAX_TOKENS: usize = 16;

    /// Reads a pointer. `None`: the text is not a JSON pointer, names the whole result, or has more than 16 tokens.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let tokens = pointer_tokens(text)?;
        if tokens.is_empty() || tokens.len() > Self::MAX_TOKENS {
            return None;
        }
        let token =
            |token| if token == "*" { ResultToken::Each } else { ResultToken::Member(token) };
        Some(Self(tokens.into_iter().map(token).collect()))
    }

    /// Its tokens; at least one.
    #[must_use]
    pub fn tokens(&self) -> &[ResultToken] {
        &self.0
    }

    /// The tokens up to and with the last `*`: they name the item that the value belongs to. Empty: the result itself.
    #[must_use]
    pub fn item(&self) -> &[ResultToken] {
        let end = self.0.iter().rposition(|token| *token == ResultToken::Each);
        self.0.get(..end.map_or(0, |end| end.saturating_add(1))).unwrap_or_default()
    }

    /// The item as a pointer; empty: the result itself.
    #[must_use]
    pub fn item_text(&self) -> String {
        pointer_text(self.item())
    }
}

/// Tokens as the text of a pointer.
fn pointer_text(tokens: &[ResultToken]) -> String {
    let mut text = String::new();
    for token in tokens {
        match token {
            ResultToken::Member(name) => push_token(&mut text, name),
            ResultToken::Each => text.push_str("/*"),
        }
    }
    text
}

impl fmt::Display for ResultPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&pointer_text(&self.0))
    }
}

/// Meaning of an operation for the origins of values. Default: the operation says nothing about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginRules {
    /// Arguments that carry authority, beside the destination.
    pub objects: Vec<ObjectRule>,
    /// Results that name an object which the call made.
    pub creates: Vec<CreatesRule>,
    /// Results whose values count by their author.
    pub introduces: Vec<IntroducesRule>,
    /// Results that pair an id with a name.
    pub pairs: Vec<PairsRule>,
    /// Arguments that the server takes in a second form.
    pub coerces: Vec<CoercionRule>,
}

impl OriginRules {
    /// Whether the server takes an argument as a folder.
    #[must_use]
    pub fn is_folder(&self, pointer: &str) -> bool {
        self.coerces.iter().any(|rule| rule.to == Coercion::Folder && rule.from == pointer)
    }

    /// Whether results of the operation have values that count.
    #[must_use]
    pub fn brings_values(&self) -> bool {
        !self.creates.is_empty() || self.introduces_values()
    }

    /// Whether results of the operation have values or names that count by their writer.
    #[must_use]
    pub fn introduces_values(&self) -> bool {
        self.introduces.iter().any(|rule| rule.by != IntroducedBy::Anybody)
            || self.pairs.iter().any(|pair| pair.by_owner)
    }

    /// The places in a result whose values count, or decide whether others do.
    pub fn reported(&self) -> impl Iterator<Item = &ResultPointer> {
        let introduced = self.introduces.iter().flat_map(|rule| match &rule.by {
            IntroducedBy::Anybody => [None, None],
            IntroducedBy::Owner => [Some(&rule.from), None],
            IntroducedBy::Author(author) => [Some(&rule.from), Some(author)],
        });
        let pairs = self.pairs.iter().filter(|pair| pair.by_owner);
        let pairs = pairs.flat_map(|pair| [Some(&pair.id), Some(&pair.name)]);
        self.creates.iter().map(|rule| Some(&rule.id)).chain(introduced).chain(pairs).flatten()
    }
}

/// Arguments that carry authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRule {
    /// JSON pointers (RFC 6901) to the arguments: scalars or lists of scalars.
    pub from: Vec<String>,
    /// Authority that they carry.
    pub role: ValueRole,
    /// Namespace of their values.
    pub space: ValueSpace,
    /// JSON pointer to the argument with the currency of an amount.
    pub currency: Option<String>,
    /// Divisor of an amount: 100 where the argument is in hundredths of the currency.
    pub scale: u32,
    /// Origin of a call without any value.
    pub when_absent: Origin,
    /// Nouns by which a prompt may call the values.
    pub nouns: Nouns,
}

impl ObjectRule {
    /// The nouns of arguments and of the collection of their values.
    #[must_use]
    pub fn nouns_of(from: &[String], space: &ValueSpace) -> Nouns {
        let arguments = from.iter().filter_map(|pointer| pointer.rsplit('/').next());
        let collection = match space {
            ValueSpace::Collection { name, .. } => Some(name.as_str()),
            ValueSpace::Destination(_) | ValueSpace::Role(_) => None,
        };
        Nouns::of(&arguments.chain(collection).collect::<Vec<_>>())
    }
}

/// A result that names an object which the call made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatesRule {
    /// Place of the id in the result.
    pub id: ResultPointer,
    /// Collection of the object.
    pub collection: String,
    /// Comparison of the collection's ids.
    pub spelling: Spelling,
}

/// A result whose values count by their author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntroducesRule {
    /// Place of the values in the result.
    pub from: ResultPointer,
    /// Namespace of the values.
    pub space: ValueSpace,
    /// Party that writes the field.
    pub by: IntroducedBy,
}

/// Party that writes a field of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IntroducedBy {
    /// The owner of the data: the value is introduced.
    Owner,
    /// Outsiders too: the value stays unknown.
    #[default]
    Anybody,
    /// The author whose mailbox or account stands there, in the same item: the value is introduced if the author is named or
    /// known.
    Author(ResultPointer),
}

/// A result that pairs an id with a name: an id is as good as its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairsRule {
    /// Place of the id in the result.
    pub id: ResultPointer,
    /// Place of the name, in the same item.
    pub name: ResultPointer,
    /// Collection of the id.
    pub collection: String,
    /// Comparison of the collection's ids.
    pub spelling: Spelling,
    /// True if only the owner of the data writes the name. Otherwise the pair lifts nothing.
    pub by_owner: bool,
}

/// An argument that the server takes in a second form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoercionRule {
    /// JSON pointer (RFC 6901) to the argument: a scalar, or a list of scalars.
    pub from: String,
    /// Form in which the server takes it.
    pub to: Coercion,
}

/// Form in which a server takes an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coercion {
    /// An integer; a string of its digits is taken for it.
    Integer,
    /// A number; a string of it is taken for it.
    Number,
    /// A boolean; the strings `true` and `false` are taken for it.
    Boolean,
    /// A URL; a host without a scheme is taken for `https://host/`.
    Url,
    /// A folder; a slash at its end is not a part of its name.
    Folder,
}

impl Coercion {
    /// The word used in bundles.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Url => "url",
            Self::Folder => "folder",
        }
    }

    /// Types of JSON Schema that such an argument may have.
    #[must_use]
    pub const fn types(self) -> &'static [&'static str] {
        match self {
            Self::Integer => &["integer", "number"],
            Self::Number => &["number"],
            Self::Boolean => &["boolean"],
            Self::Url | Self::Folder => &["string"],
        }
    }
}
