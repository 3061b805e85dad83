//! Origins of values: who chose the values of a call that carry authority.
//!
//! The one place that answers it. [`OriginFacts`] holds the sources of origins, and [`origin_of`] asks them in turn: names of the
//! task, then recipient lists, then values that reports brought to the session. What a policy reads is gathered by
//! [`origins_of_call`] and [`unknown_literals`], only for operations whose policies read it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use smallvec::SmallVec;

use super::aliases;
use super::literals::count_unknown;
use super::resolve::{Resolved, named_destinations};
use crate::arguments::Arguments;
use crate::canonical::{canonical, url_parts};
use crate::decision::{Facts, Request, Time, UnnamedValue};
use crate::history::{ValueFingerprint, ValueMarks};
use crate::json::Value as Json;
use crate::model::{
    DestinationKind, ObjectRule, Operation, Origin, OriginSets, Spelling, Tier, ValueRole,
    ValueSpace,
};
use crate::plan::Plan;
use crate::recipient_lists::{RecipientListAnswer, RecipientListQuery, RecipientLists};
use crate::schema::{Key, Keys};
use crate::spelling;
use crate::task::{
    HARNESS_TIER, Names, Nouns, PromptWords, Speaker, Task, amount_name, literal, names_of,
};
use crate::value_key::ValueKey;
use crate::values::{self, SessionValues};

/// Nouns of destinations, which belong to no collection.
static NO_NOUNS: LazyLock<Nouns> = LazyLock::new(Nouns::default);

/// Values of one call whose origins are looked up. The origin of a value beyond it is unknown.
pub(super) const MAX_VALUES: usize = 256;

/// A value that carries authority, in its namespace.
#[derive(Clone, Debug)]
pub(super) struct TypedValue<'a> {
    /// System of the operation; empty for a destination.
    pub(super) system: &'a str,
    /// Namespace of the value.
    pub(super) space: &'a ValueSpace,
    /// The value as the call writes it: of a number or a boolean its JSON text.
    pub(super) written: Cow<'a, str>,
    /// The value in the one form of its namespace. `None`: it is not written in a form of its namespace.
    pub(super) canonical: Option<Cow<'a, str>>,
    /// The object that the value belongs to; for an amount its currency and scale. `None`: the value is a destination.
    pub(super) object: Option<&'a ObjectRule>,
    /// Currency of an amount, as the call writes it.
    pub(super) currency: Option<&'a str>,
    /// Authority. `None`: the value is not looked at as one of the call's own.
    pub(super) role: Option<ValueRole>,
}

impl<'a> TypedValue<'a> {
    /// A destination, which belongs to no system.
    pub(super) fn of_destination(
        space: &'a ValueSpace,
        kind: DestinationKind,
        written: &'a str,
    ) -> Self {
        let canonical =
            canonical(kind, written).ok().map(|destination| Cow::Owned(destination.text));
        let written = Cow::Borrowed(written);
        Self { system: "", space, written, canonical, object: None, currency: None, role: None }
    }

    /// The same destination, with its authority.
    pub(super) fn in_role(self, role: ValueRole) -> Self {
        Self { role: Some(role), ..self }
    }

    /// The resource of a call, by its key.
    pub(super) fn of_resource(system: &'a str, space: &'a ValueSpace, key: &'a str) -> Self {
        let key = Cow::Borrowed(key);
        Self {
            system,
            space,
            canonical: Some(key.clone()),
            written: key,
            object: None,
            currency: None,
            role: None,
        }
    }

    /// A value of an object. `None`: JSON of another kind, or null.
    pub(super) fn of_object(
        system: &'a str,
        rule: &'a ObjectRule,
        value: &'a Json,
        currency: Option<&'a str>,
    ) -> Option<Self> {
        let written = match value {
            Json::String(text) => Cow::Borrowed(text.as_str()),
            Json::Integer(number) => Cow::Owned(number.to_string()),
            Json::Decimal(text) => Cow::Borrowed(text.as_str()),
            Json::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Json::Null | Json::Array(_) | Json::Object(_) => return None,
        };
        let canonical = match &rule.space {
            ValueSpace::Destination(kind) => {
                canonical(*kind, &written).ok().map(|destination| Cow::Owned(destination.text))
            }
            ValueSpace::Collection { spelling, .. } => key_of(&written, *spelling),
            ValueSpace::Role(_) => Some(written.clone()),
        };
        Some(Self {
            system,
            space: &rule.space,
            written,
            canonical,
            object: Some(rule),
            currency,
            role: Some(rule.role),
        })
    }

    /// The names by which a prompt may name the value.
    fn names(&self) -> SmallVec<[String; 2]> {
        let Some(form) = self.canonical.as_deref() else { return SmallVec::new() };
        match self.space {
            ValueSpace::Destination(kind) => names_of(*kind, &self.written, form),
            ValueSpace::Role(ValueRole::Amount) => {
                let scale = self.object.map_or(1, |object| object.scale);
                amount_name(&self.written, scale, self.currency).into_iter().collect()
            }
            // An id may be written like anything that a prompt names.
            ValueSpace::Collection { .. } | ValueSpace::Role(_) => {
                let kind = kind_like(&self.written);
                let name = canonical(kind, &self.written);
                name.map_or_else(
                    |_| SmallVec::new(),
                    |name| names_of(kind, &self.written, &name.text),
                )
            }
        }
    }
}

impl TypedValue<'_> {
    /// The value as a person endorses it. `None`: a value of this role or form cannot be endorsed.
    pub(super) fn endorsable(&self, key: &ValueKey) -> Option<UnnamedValue> {
        let role =
            self.role.filter(|role| matches!(role, ValueRole::Recipient | ValueRole::Target))?;
        let canonical = self.canonical.as_deref()?;
        let (collection, value) = match self.space {
            ValueSpace::Collection { name, .. } => (name.as_str(), Cow::Borrowed(canonical)),
            // The canonical form of a URL is its host, and an endorsement is of one resource.
            ValueSpace::Destination(DestinationKind::UrlHost) => {
                (form_of(DestinationKind::UrlHost), Cow::Owned(whole_url(&self.written)?))
            }
            ValueSpace::Destination(kind) => (form_of(*kind), Cow::Borrowed(canonical)),
            ValueSpace::Role(_) => ("", Cow::Borrowed(canonical)),
        };
        let space = match self.space {
            ValueSpace::Collection { .. } => format!("collection/{collection}"),
            ValueSpace::Destination(_) => format!("destination/{collection}"),
            ValueSpace::Role(_) => "value".to_owned(),
        };
        Some(UnnamedValue {
            role,
            collection: collection.to_owned(),
            fingerprint: key.endorsed(role.as_str(), self.system, &space, &value),
            value: value.into_owned(),
        })
    }

    /// The best speaker who names the value by its words.
    ///
    /// A mailbox, a URL and an IBAN have one form, by which the reader of prompts tells them.
    fn speaker(&self, words: &PromptWords<'_>) -> Option<Speaker> {
        self.canonical.as_deref()?;
        let nouns = self.object.map(|object| &object.nouns).unwrap_or(&NO_NOUNS);
        match self.space {
            ValueSpace::Destination(DestinationKind::Path | DestinationKind::Account)
            | ValueSpace::Role(
                ValueRole::Target
                | ValueRole::Recipient
                | ValueRole::Command
                | ValueRole::Credential,
            ) => words.speaker(&self.written, nouns, false),
            ValueSpace::Collection { spelling, .. } => {
                words.speaker(&self.written, nouns, *spelling == Spelling::Fold)
            }
            ValueSpace::Role(ValueRole::Amount) => words.speaker_of_amount(&self.written, nouns),
            ValueSpace::Destination(
                DestinationKind::Email | DestinationKind::UrlHost | DestinationKind::Iban,
            ) => None,
        }
    }
}

/// Scheme, host, port and whole path of a URL. `None`: servers may read its path in different ways, or it has a query, which an
/// endorsement cannot fix.
fn whole_url(written: &str) -> Option<String> {
    let (origin, segments) = url_parts(written).filter(|_| !written.contains(['?', '#']))?;
    Some(segments.iter().fold(origin, |url, segment| format!("{url}/{segment}")))
}

/// Name of a form of destinations.
pub(super) const fn form_of(kind: DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Email => "email",
        DestinationKind::UrlHost => "url",
        DestinationKind::Iban => "iban",
        DestinationKind::Path => "path",
        DestinationKind::Account => "account",
    }
}

/// The id of a collection under which everything knows it.
fn key_of<'a>(written: &Cow<'a, str>, comparison: Spelling) -> Option<Cow<'a, str>> {
    spelling::check_id(written).ok()?;
    Some(match comparison {
        Spelling::Exact => written.clone(),
        Spelling::Fold => Cow::Owned(spelling::fold(written).into_owned()),
    })
}

/// The kind of name that an id, which has no kind of its own, is written like.
fn kind_like(text: &str) -> DestinationKind {
    if text.contains("://") {
        DestinationKind::UrlHost
    } else if text.contains('/') {
        DestinationKind::Path
    } else if text.contains('@') {
        DestinationKind::Email
    } else {
        DestinationKind::Account
    }
}

/// What gave a value its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OriginSource<'a> {
    /// The `names` of a template.
    Template,
    /// A name in a prompt or a parameter.
    Name(Speaker),
    /// Words of a prompt or a parameter.
    Words(Speaker),
    /// An alias in a prompt.
    Alias(Speaker),
    /// The recipient list of this name.
    RecipientList(&'a str),
    /// Reports in the session.
    Report(ValueMarks),
    /// Nothing speaks for the value.
    Nothing,
}

/// Sources of the origins of values.
#[derive(Clone, Copy, Debug)]
pub(super) struct OriginFacts<'a> {
    vouching: Option<Vouching<'a>>,
    words: Option<PromptWords<'a>>,
    recipient_lists: Option<&'a RecipientLists>,
    /// Values that the session knows from reports.
    session: Option<SessionValues<'a>>,
    /// Values that people endorsed for the call, and the key of their fingerprints.
    endorsed: Option<(&'a [ValueFingerprint], &'a ValueKey)>,
    /// That the session made an object counts.
    counts_made: bool,
    now: Time,
    tier: Tier,
}

impl<'a> OriginFacts<'a> {
    /// Args: `tier`: effective tier of the call; `counts_made`: that the session made an object counts.
    pub(super) fn of(
        plan: &'a Plan,
        facts: &Facts<'a>,
        (now, tier): (Time, Tier),
        counts_made: bool,
    ) -> Self {
        let known = facts.history.map(|view| view.values);
        let words = facts
            .task
            .zip(facts.literal_key)
            .and_then(|(view, key)| PromptWords::of(facts.words.of(view), key));
        Self {
            vouching: Vouching::of(plan, facts),
            words,
            recipient_lists: facts.recipient_lists,
            session: known.and_then(|known| SessionValues::of(known, facts.value_key, now)),
            endorsed: facts
                .value_key
                .filter(|_| !facts.endorsed.is_empty())
                .map(|key| (facts.endorsed, key)),
            counts_made,
            now,
            tier,
        }
    }

    /// What reports in the session said of a value.
    fn marks(&self, value: &TypedValue<'_>) -> Option<ValueMarks> {
        let (session, canonical) = (self.session?, value.canonical.as_deref()?);
        Some(match value.space {
            ValueSpace::Collection { name, .. } => session.id(value.system, name, canonical),
            // A folder that a result brought says nothing about the files below it.
            ValueSpace::Destination(DestinationKind::Path) => {
                session.destination(&[format!("path:{canonical}")])
            }
            ValueSpace::Destination(kind) => {
                session.destination(&names_of(*kind, &value.written, canonical))
            }
            ValueSpace::Role(_) => return None,
        })
    }

    /// The origin that reports in the session give a value.
    fn by_report(&self, value: &TypedValue<'_>) -> Option<Origin> {
        values::origin_of(self.marks(value)?, self.tier, self.counts_made)
    }

    /// The best speaker who says the words of a value, also where they may mean something else.
    pub(super) fn speaker_of_mention(&self, value: &TypedValue<'_>) -> Option<Speaker> {
        self.words?.speaker_of_mention(&value.written)
    }

    /// What gave a value its origin.
    pub(super) fn source(&self, value: &TypedValue<'_>, origin: Origin) -> OriginSource<'a> {
        if self.by_name(value) == Some(origin)
            && let Some(source) = self.source_of_name(value)
        {
            return source;
        }
        match (self.list_with(value), self.marks(value)) {
            (Some(list), _) if origin == Origin::Known => OriginSource::RecipientList(list),
            (_, Some(marks)) if origin != Origin::Unknown => OriginSource::Report(marks),
            _ => OriginSource::Nothing,
        }
    }

    fn source_of_name(&self, value: &TypedValue<'_>) -> Option<OriginSource<'a>> {
        let best = self.speaker(value)?;
        let names = value.names();
        let vouching = self.vouching.as_ref();
        if vouching.is_some_and(|vouching| vouching.is_in_template(&names)) {
            return Some(OriginSource::Template);
        }
        if vouching.and_then(|vouching| vouching.speaker(&names)) == Some(best) {
            return Some(OriginSource::Name(best));
        }
        let by_words = self.words.as_ref().and_then(|words| value.speaker(words));
        Some(if by_words == Some(best) {
            OriginSource::Words(best)
        } else {
            OriginSource::Alias(best)
        })
    }

    /// The best speaker of the task who says a value: by its name, its words, or an alias.
    fn speaker(&self, value: &TypedValue<'_>) -> Option<Speaker> {
        let by_name = || self.vouching?.speaker(&value.names());
        let by_words = || value.speaker(&self.words?);
        let by_alias = || self.speaker_of_alias(value);
        let mut best = None;
        for speaker in [by_name(), by_words(), by_alias()].into_iter().flatten() {
            best = best.max(Some(speaker));
        }
        best
    }

    fn speaker_of_alias(&self, value: &TypedValue<'_>) -> Option<Speaker> {
        let (plan, words) = (self.vouching?.plan, self.words?);
        let ValueSpace::Destination(kind) = value.space else { return None };
        if plan.model().recipient_lists.values().all(|rule| rule.alias.is_none()) {
            return None;
        }
        let canonical = value.canonical.as_deref()?;
        let query = RecipientListQuery::new(self.recipient_lists, *kind, canonical, self.now);
        aliases::speaker_of_alias(plan, self.recipient_lists, &query, &words)
    }

    /// The origin that the names of the task give a value.
    fn by_name(&self, value: &TypedValue<'_>) -> Option<Origin> {
        match self.speaker(value)? {
            Speaker::Subject | Speaker::FrontEnd => Some(Origin::Named),
            Speaker::Harness if self.tier <= HARNESS_TIER => Some(Origin::Named),
            Speaker::Harness | Speaker::Agent => Some(Origin::Claimed),
        }
    }

    /// Whether people endorsed a value for the call.
    fn is_endorsed(&self, value: &TypedValue<'_>) -> bool {
        self.endorsed.is_some_and(|(endorsed, key)| {
            value.endorsable(key).is_some_and(|one| endorsed.contains(&one.fingerprint))
        })
    }

    /// The trusted and fresh recipient list that has a value.
    fn list_with(&self, value: &TypedValue<'_>) -> Option<&'a str> {
        let (Some(vouching), ValueSpace::Destination(kind), Some(canonical)) =
            (self.vouching, value.space, value.canonical.as_deref())
        else {
            return None;
        };
        if vouching.plan.model().recipient_lists.is_empty() {
            return None;
        }
        let query = RecipientListQuery::new(self.recipient_lists, *kind, canonical, self.now);
        vouching.list_with(Some(&query))
    }
}

/// Facts about the values of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueFacts {
    /// Origins of the values that carry authority.
    pub(super) origins: OriginSets,
    /// Addresses in the texts that are neither named nor known.
    pub(super) unknown_literals: i64,
}

impl ValueFacts {
    /// Looks up what policies read.
    ///
    /// Args: `keys`: context keys that the policies of the operation read; other facts have the value of a call without values.
    pub(super) fn of<'a>(
        (plan, facts, request): (&'a Plan, &Facts<'a>, &Request<'_>),
        operation: &Operation,
        resolved: &Resolved<'_>,
        keys: Keys,
        (now, tier): (Time, Tier),
    ) -> Self {
        let mut values = Self { origins: OriginSets::EMPTY, unknown_literals: 0 };
        let (reads_origins, reads_literals) =
            (keys.contains(Key::Origins), keys.contains(Key::Literals));
        if !reads_origins && !reads_literals {
            return values;
        }
        let counts_made = values::counts_made(operation);
        let sources = OriginFacts::of(plan, facts, (now, tier), counts_made);
        if reads_origins {
            let sends = resolved.traffic.sends || !request.destinations.is_empty();
            values.origins =
                origins_of_call(operation, &resolved.arguments, request, sends, &sources);
        }
        if reads_literals {
            values.unknown_literals = unknown_literals(&resolved.arguments, &sources);
        }
        values
    }
}

/// The origin of a value: the best that a source gives it.
pub(super) fn origin_of(value: &TypedValue<'_>, facts: &OriginFacts<'_>) -> Origin {
    let by_name = facts.by_name(value);
    if by_name == Some(Origin::Named) || facts.is_endorsed(value) {
        return Origin::Named;
    }
    if facts.list_with(value).is_some() {
        return Origin::Known;
    }
    let origins = by_name.into_iter().chain(facts.by_report(value));
    origins.min().unwrap_or(Origin::Unknown)
}

/// The values of an argument: those of a list one by one, and without null.
pub(super) fn values_at<'a>(
    arguments: &'a Arguments,
    pointer: &str,
) -> impl Iterator<Item = &'a Json> {
    let values = match arguments.json().pointer(pointer) {
        None => &[],
        Some(Json::Array(items)) => items.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    values.iter().filter(|value| **value != Json::Null)
}

/// The origins of the values of a call, by role.
///
/// Args: `sends`: the call moves data to its destinations.
fn origins_of_call(
    operation: &Operation,
    arguments: &Arguments,
    request: &Request<'_>,
    sends: bool,
    facts: &OriginFacts<'_>,
) -> OriginSets {
    let mut sets = OriginSets::EMPTY;
    let mut left = MAX_VALUES;
    if let Some(rule) = operation.destination.as_ref().filter(|_| sends) {
        let space = ValueSpace::Destination(rule.kind);
        // Refused before, where it is malformed.
        let named = named_destinations(rule, arguments, request).unwrap_or_default();
        if named.is_empty() {
            sets.insert(rule.role, Origin::Unknown);
        }
        for written in named {
            left = left.saturating_sub(1);
            let value = TypedValue::of_destination(&space, rule.kind, written).in_role(rule.role);
            sets.insert(rule.role, origin_of(&value, facts));
        }
    }
    for rule in &operation.origins.objects {
        let currency =
            rule.currency.as_deref().and_then(|pointer| arguments.json().pointer(pointer));
        let currency = match currency {
            Some(Json::String(currency)) => Some(currency.as_str()),
            _ => None,
        };
        let mut has_value = false;
        for pointer in &rule.from {
            for value in values_at(arguments, pointer) {
                has_value = true;
                if left == 0 {
                    // INVARIANT (bounded): the origin of a value that is not looked up is unknown.
                    sets.insert(rule.role, Origin::Unknown);
                    break;
                }
                left = left.saturating_sub(1);
                let value = TypedValue::of_object(&operation.system, rule, value, currency);
                sets.insert(
                    rule.role,
                    value.map_or(Origin::Unknown, |value| origin_of(&value, facts)),
                );
            }
        }
        if !has_value {
            sets.insert(rule.role, rule.when_absent);
        }
    }
    sets
}

/// Number of mailboxes, hosts and IBANs in the texts of a call that are neither named nor known.
fn unknown_literals(arguments: &Arguments, facts: &OriginFacts<'_>) -> i64 {
    count_unknown(arguments.json(), |address| {
        let kind = address.kind.destination();
        let space = ValueSpace::Destination(kind);
        let value = TypedValue::of_destination(&space, kind, &address.text);
        matches!(
            origin_of(&value, facts),
            Origin::Named | Origin::Known | Origin::Made | Origin::Introduced
        )
    })
}

/// Evidence that trusts a destination: names of the task, names that its template lists, and trusted recipient lists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vouching<'a> {
    literals: Option<Literals<'a>>,
    /// Names that the templates of the task and of its root list.
    listed: [&'a BTreeSet<String>; 2],
    plan: &'a Plan,
}

impl<'a> Vouching<'a> {
    /// None where nothing does.
    pub(super) fn of(plan: &'a Plan, facts: &Facts<'a>) -> Option<Self> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        let literals = Literals::of(facts);
        let listed_by = |task: &Task| {
            let template = plan.template(&task.template);
            template.map_or(&NONE, |template| &template.names)
        };
        let listed = match facts.task {
            Some(view) => [listed_by(view.task), listed_by(view.root())],
            None => [&NONE, &NONE],
        };
        let is_any = literals.is_some()
            || !plan.model().recipient_lists.is_empty()
            || listed.iter().any(|names| !names.is_empty());
        is_any.then_some(Self { literals, listed, plan })
    }

    /// The highest tier in which a destination is trusted.
    ///
    /// Args: its kind, how the call writes it, and its canonical form.
    pub(super) fn vouches(
        &self,
        (kind, raw, canonical): (DestinationKind, &str, &str),
        query: Option<&RecipientListQuery<'_>>,
    ) -> Option<Tier> {
        if self.list_with(query).is_some() {
            return Some(Tier::Critical);
        }
        if self.literals.is_none() && self.listed.iter().all(|listed| listed.is_empty()) {
            return None;
        }
        match self.speaker(&names_of(kind, raw, canonical))? {
            Speaker::Subject | Speaker::FrontEnd => Some(Tier::Critical),
            Speaker::Harness => Some(HARNESS_TIER),
            Speaker::Agent => None,
        }
    }

    /// The trusted recipient list that has the destination of a query.
    fn list_with(&self, query: Option<&RecipientListQuery<'_>>) -> Option<&'a str> {
        let mut trusted = self.plan.model().recipient_lists.iter().filter(|(_, rule)| rule.trusted);
        let (name, _) = trusted.find(|(name, _)| {
            query.is_some_and(|query| query.ask(name) == RecipientListAnswer::Listed)
        })?;
        Some(name)
    }

    /// Whether a template of the task lists one of these names.
    fn is_in_template(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.listed.iter().any(|listed| listed.contains(name)))
    }

    /// The best speaker of one of these names. A template speaks as the subject.
    fn speaker(&self, names: &[String]) -> Option<Speaker> {
        if self.is_in_template(names) {
            return Some(Speaker::Subject);
        }
        self.literals?.speaker(names)
    }
}

/// Names of the task, and of the root above it.
#[derive(Clone, Copy, Debug)]
struct Literals<'a> {
    task: &'a Names,
    root: &'a Names,
    key: &'a [u8; 32],
}

impl<'a> Literals<'a> {
    /// None where nothing was named or claimed.
    fn of(facts: &Facts<'a>) -> Option<Self> {
        let view = facts.task?;
        let (task, root) = (&view.task.names, &view.root().names);
        let is_any = !task.is_empty() || !root.is_empty();
        is_any.then_some(Self { task, root, key: facts.literal_key? })
    }

    /// The best speaker of one of these names.
    fn speaker(&self, names: &[String]) -> Option<Speaker> {
        let mut best = None;
        for name in names {
            let literal = literal(name, self.key);
            let has = |by: fn(&Names) -> &BTreeSet<String>| {
                by(self.task).contains(&literal) || by(self.root).contains(&literal)
            };
            if has(|names| &names.user) {
                return Some(Speaker::Subject);
            }
            if has(|names| &names.harness) {
                best = Some(Speaker::Harness);
            } else if best.is_none() && has(|names| &names.claimed) {
                best = Some(Speaker::Agent);
            }
        }
        best
    }
}
