//! Values that sessions know from reports: their keyed fingerprints, the rules by which a report adds them, and what they say
//! about an argument.
//!
//! INVARIANT (no value in the store): a value leaves this module only as a fingerprint.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use authz_base::tier::Tier;
use smallvec::SmallVec;

use crate::canonical::canonical;
use crate::decision::Time;
use crate::history::{KnownValues, NamingWord, ValueFingerprint, ValueMarks, ValueTerms};
use crate::json::Value as Json;
use crate::model::{
    DestinationKind, Effect, IntroducedBy, Operation, Origin, ResultPointer, Spelling, ValueSpace,
};
use crate::plan::Plan;
use crate::spelling;
use crate::task::{HARNESS_TIER, hmac, names_of};
use crate::value_key::ValueKey;

/// Arguments of one call, kept apart from the objects that the call creates.
const MOST_ARGUMENTS: usize = 32;

/// The key of fingerprints that belongs to the secret of a store.
#[must_use]
pub fn value_key(secret: &[u8; 32]) -> ValueKey {
    ValueKey::new(&hmac(secret, &[b"known-values"]))
}

/// An id as its collection knows it. `None`: it is not in its one spelling.
fn id_key(text: &str, spelled: Spelling) -> Option<Cow<'_, str>> {
    spelling::check_id(text).ok()?;
    Some(match spelled {
        Spelling::Exact => Cow::Borrowed(text),
        Spelling::Fold => spelling::fold(text),
    })
}

/// The name under which a reported destination is kept: of a URL or a path the whole of it. `None`: it is not in the form of its
/// kind.
fn destination_name(kind: DestinationKind, text: &str) -> Option<String> {
    let canonical = canonical(kind, text).ok()?;
    names_of(kind, text, &canonical.text).pop()
}

/// Values that the session of a call knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionValues<'a> {
    known: &'a KnownValues,
    key: &'a ValueKey,
    now: Time,
}

impl<'a> SessionValues<'a> {
    /// `None`: the session knows nothing.
    pub(crate) fn of(known: &'a KnownValues, key: Option<&'a ValueKey>, now: Time) -> Option<Self> {
        Some(Self { known, key: key.filter(|_| !known.is_empty())?, now })
    }

    /// What reports said of an id, in its one spelling.
    pub(crate) fn id(self, system: &str, collection: &str, key: &str) -> ValueMarks {
        self.known.find(self.key.id(system, collection, key), self.now)
    }

    /// What reports said of a destination.
    ///
    /// Args: `names`: the names by which it counts, as [`names_of`] gives them.
    pub(crate) fn destination(self, names: &[String]) -> ValueMarks {
        let marks = names.iter().map(|name| self.known.find(self.key.destination(name), self.now));
        marks.fold(ValueMarks::default(), ValueMarks::and)
    }
}

/// The origin of a value by the reports. `None`: no report has the value.
///
/// Args: `tier`: of the call; `counts_made`: the call only reads, writes or deletes.
pub(crate) fn origin_of(marks: ValueMarks, tier: Tier, counts_made: bool) -> Option<Origin> {
    let by_harness = tier <= HARNESS_TIER;
    let all = [
        (ValueMarks::NAMED, Origin::Named),
        (ValueMarks::NAMED_BY_HARNESS, if by_harness { Origin::Named } else { Origin::Claimed }),
        (ValueMarks::MADE, if counts_made { Origin::Made } else { Origin::Unknown }),
        (ValueMarks::INTRODUCED, Origin::Introduced),
        (
            ValueMarks::INTRODUCED_BY_HARNESS,
            if by_harness { Origin::Introduced } else { Origin::Claimed },
        ),
    ];
    let origins = all.into_iter().filter(|(mark, _)| marks.has(*mark)).map(|(_, origin)| origin);
    origins.min().filter(|origin| *origin != Origin::Unknown)
}

/// Whether an object that the session made may be acted on freely: only where it is changed or deleted.
pub(crate) fn counts_made(operation: &Operation) -> bool {
    let others = |effect: &Effect| !matches!(effect, Effect::Read | Effect::Write | Effect::Delete);
    let changes = |effect: &Effect| matches!(effect, Effect::Write | Effect::Delete);
    operation.effects.iter().any(changes) && !operation.effects.iter().any(others)
}

/// What a report of a call may say about values.
///
/// Args: `is_good`: the object that the call reads has a good origin, or it reads no single object.
pub(crate) fn terms(
    operation: &Operation,
    arguments: &Json,
    is_good: bool,
    key: &ValueKey,
) -> ValueTerms {
    let spaces: Vec<(&str, Spelling)> = operation
        .origins
        .creates
        .iter()
        .map(|rule| (rule.collection.as_str(), rule.spelling))
        .collect();
    let mut given = Vec::new();
    let mut creates = !spaces.is_empty();
    if creates {
        creates = each_scalar(arguments, &mut |text| {
            for (collection, spelled) in &spaces {
                let print =
                    id_key(text, *spelled).map(|id| key.id(&operation.system, collection, &id));
                given.extend(print.filter(|print| !given.contains(print)));
            }
            given.len() <= MOST_ARGUMENTS
        });
    }
    // With more arguments than are kept, any id of the result may be one of them.
    let arguments = if creates { given } else { Vec::new() };
    ValueTerms {
        introduces: is_good && operation.origins.introduces_values(),
        creates,
        arguments,
        ..ValueTerms::default()
    }
}

/// Visits texts and integers, as deep as they stand, until `visit` returns false. Returns whether all were visited.
fn each_scalar(value: &Json, visit: &mut dyn FnMut(&str) -> bool) -> bool {
    match value {
        Json::String(text) => visit(text),
        Json::Integer(number) => visit(&number.to_string()),
        Json::Array(items) => items.iter().all(|item| each_scalar(item, visit)),
        Json::Object(members) => members.iter().all(|(_, member)| each_scalar(member, visit)),
        Json::Null | Json::Bool(_) | Json::Decimal(_) => true,
    }
}

/// One value of a result, as an enforcer reports it.
#[derive(Clone, Copy)]
pub struct ReportedValue<'a> {
    /// Pointer into the result, as the permit asked for it.
    pub pointer: &'a str,
    /// Running number of the array element that holds it.
    pub item: u32,
    /// The value; numbers and booleans as JSON writes them.
    pub text: &'a str,
}

/// What vouches for the authors and names in a report. Each answer is the highest tier for which it does.
pub trait Vouchers {
    /// Whether the user or a trusted recipient list names an author, whose mailbox or account stands there.
    fn author(&self, text: &str) -> Option<Tier>;
    /// Words of a name that stand in the user's prompt, as keyed prints. `None`: no word does.
    fn words(&self, name: &str) -> Option<(Tier, SmallVec<[u64; 8]>)>;
}

/// Numbers of reported values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LearnedValues {
    /// The session knows them now.
    pub kept: u32,
    /// Nothing speaks for them: an object of unknown origin was read, or nobody vouches for the author.
    pub unlifted: u32,
    /// They are not canonical, or the operation does not declare their pointer.
    pub invalid: u32,
    /// The session knows as many values as it may.
    pub full: u32,
}

/// A report about values, and the session that it is of.
struct Lesson<'a> {
    system: &'a str,
    key: &'a ValueKey,
    now: Time,
    known: &'a mut KnownValues,
    learned: LearnedValues,
}

impl Lesson<'_> {
    fn keep(&mut self, print: Option<ValueFingerprint>, marks: ValueMarks) {
        let count = match print {
            None => &mut self.learned.invalid,
            Some(print) if self.known.add(print, marks, self.now) => &mut self.learned.kept,
            Some(_) => &mut self.learned.full,
        };
        *count = count.saturating_add(1);
    }

    fn unlifted(&mut self) {
        self.learned.unlifted = self.learned.unlifted.saturating_add(1);
    }

    fn id(&self, collection: &str, spelled: Spelling, text: &str) -> Option<ValueFingerprint> {
        Some(self.key.id(self.system, collection, &id_key(text, spelled)?))
    }

    fn print(&self, space: &ValueSpace, text: &str) -> Option<ValueFingerprint> {
        match space {
            ValueSpace::Collection { name, spelling } => self.id(name, *spelling, text),
            ValueSpace::Destination(kind) => {
                Some(self.key.destination(&destination_name(*kind, text)?))
            }
            ValueSpace::Role(_) => None,
        }
    }
}

/// Values of one pointer, by their items.
type ItemValues<'a> = BTreeMap<u32, Vec<&'a str>>;

impl Plan {
    /// The pointers into the result of an operation whose values its report should hold, in order.
    #[must_use]
    pub fn report_values(&self, id: &str) -> Vec<String> {
        let Some(operation) = self.operation(id).filter(|one| self.asks_values(one)) else {
            return Vec::new();
        };
        let all: BTreeSet<String> = operation.origins.reported().map(ToString::to_string).collect();
        all.into_iter().collect()
    }

    /// Adds the values of a report to those that a session knows.
    ///
    /// Args: `terms`: of the permit; `now`: time of the report.
    pub fn learn_values(
        &self,
        (id, terms): (&str, &ValueTerms),
        values: &[ReportedValue<'_>],
        vouchers: &dyn Vouchers,
        key: &ValueKey,
        (known, now): (&mut KnownValues, Time),
    ) -> LearnedValues {
        let mut by_pointer: BTreeMap<&str, ItemValues<'_>> = BTreeMap::new();
        for value in values {
            let items = by_pointer.entry(value.pointer).or_default();
            items.entry(value.item).or_default().push(value.text);
        }
        known.forget_old(now);
        let Some(operation) = self.operation(id) else { return LearnedValues::default() };
        let rules = &operation.origins;
        let declared: BTreeSet<String> = rules.reported().map(ToString::to_string).collect();
        let count = |items: &ItemValues<'_>| items.values().map(Vec::len).sum::<usize>();
        let undeclared = by_pointer.iter().filter(|(pointer, _)| !declared.contains(**pointer));
        let undeclared = undeclared.map(|(_, items)| count(items)).sum::<usize>();
        let mut lesson = Lesson {
            system: &operation.system,
            key,
            now,
            known,
            learned: LearnedValues {
                invalid: u32::try_from(undeclared).unwrap_or(u32::MAX),
                ..LearnedValues::default()
            },
        };
        static NOTHING: ItemValues<'static> = ItemValues::new();
        let of = |pointer: &ResultPointer| by_pointer.get(pointer.to_string().as_str());
        let of = |pointer: &ResultPointer| of(pointer).unwrap_or(&NOTHING);
        for rule in &rules.creates {
            for text in of(&rule.id).values().flatten() {
                let print = lesson.id(&rule.collection, rule.spelling, text);
                // An id that the call named may be that of an object which was there before.
                if terms.creates && print.is_none_or(|print| !terms.arguments.contains(&print)) {
                    lesson.keep(print, ValueMarks::MADE);
                } else {
                    lesson.unlifted();
                }
            }
        }
        for pair in rules.pairs.iter().filter(|pair| pair.by_owner) {
            let names = of(&pair.name);
            for (item, ids) in of(&pair.id) {
                let words = match names.get(item).map(Vec::as_slice) {
                    Some([name]) if terms.introduces => naming_words(name, vouchers),
                    _ => Vec::new(),
                };
                for text in ids {
                    let Some(print) = lesson.id(&pair.collection, pair.spelling, text) else {
                        lesson.keep(None, ValueMarks::default());
                        continue;
                    };
                    let word = |(word, marks): &(u64, ValueMarks)| NamingWord {
                        fingerprint: key.word(lesson.system, &pair.collection, *word),
                        marks: *marks,
                    };
                    let words: Vec<NamingWord> = words.iter().map(word).collect();
                    if lesson.known.pair(print, &words, now) {
                        lesson.learned.kept = lesson.learned.kept.saturating_add(1);
                    } else {
                        lesson.unlifted();
                    }
                }
            }
        }
        for rule in rules.introduces.iter().filter(|rule| rule.by != IntroducedBy::Anybody) {
            let authors = match &rule.by {
                IntroducedBy::Author(author) => Some(of(author)),
                IntroducedBy::Owner | IntroducedBy::Anybody => None,
            };
            for (item, texts) in of(&rule.from) {
                let marks = match authors {
                    _ if !terms.introduces => None,
                    None => Some(ValueMarks::INTRODUCED),
                    Some(authors) => authored(authors.get(item), vouchers),
                };
                for text in texts {
                    match marks {
                        Some(marks) => lesson.keep(lesson.print(&rule.space, text), marks),
                        None => lesson.unlifted(),
                    }
                }
            }
        }
        lesson.learned
    }

    /// Whether values of an operation's results can change what is judged later.
    pub(crate) fn asks_values(&self, operation: &Operation) -> bool {
        self.recall.knows_values && operation.origins.brings_values()
    }
}

/// The mark of a value that its authors vouch for: each of them must be vouched for.
fn authored(authors: Option<&Vec<&str>>, vouchers: &dyn Vouchers) -> Option<ValueMarks> {
    let authors = authors.filter(|authors| !authors.is_empty())?;
    let tier = authors.iter().try_fold(Tier::Critical, |tier, author| {
        vouchers.author(author).map(|vouched| tier.min(vouched))
    })?;
    Some(match tier {
        Tier::Critical => ValueMarks::INTRODUCED,
        _ => ValueMarks::INTRODUCED_BY_HARNESS,
    })
}

/// The words of a name that the user's prompt has, and how good they are.
fn naming_words(name: &str, vouchers: &dyn Vouchers) -> Vec<(u64, ValueMarks)> {
    let Some((tier, words)) = vouchers.words(name) else { return Vec::new() };
    let marks = match tier {
        Tier::Critical => ValueMarks::NAMED,
        _ => ValueMarks::NAMED_BY_HARNESS,
    };
    words.into_iter().map(|word| (word, marks)).collect()
}
