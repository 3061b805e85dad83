//! Origins of values: the keys `objects`, `creates`, `introduces`, `pairs` and `coerces` of a rule.

use std::collections::BTreeSet;

use super::build::ModelBuilder;
use super::classify::{Lists, Said, destination_kind};
use super::types::{
    CoercesEntry, CoercionWord, CreatesEntry, DestinationWord, IntroducesEntry, ObjectEntry,
    OriginWord, PairsEntry, RoleWord, WriterWord,
};
use super::yaml::{At, Many, Mark};
use crate::diagnostic::clip;
use crate::model::{
    Coercion, CoercionRule, CreatesRule, Effect, IntroducedBy, IntroducesRule, ObjectRule,
    Operation, Origin, OriginRules, PairsRule, ResultPointer, ValueRole, ValueSpace,
};

/// Entries of one key of an operation, and arguments of one entry.
const MOST: usize = 16;
/// Largest divisor of an amount.
const MOST_SCALE: u32 = 1_000_000;
/// Types of an argument that carries authority.
const SCALARS: [&str; 4] = ["string", "integer", "number", "boolean"];

/// An operation and the file of its rule.
#[derive(Clone, Copy)]
struct RulePlace<'a> {
    file: &'a str,
    operation: &'a Operation,
}

impl ModelBuilder<'_> {
    /// What a rule says of the origins of values.
    pub(super) fn origins(
        &mut self,
        file: &str,
        operation: &Operation,
        said: &Said<'_>,
    ) -> OriginRules {
        let place = RulePlace { file, operation };
        OriginRules {
            objects: self.objects(place, said.objects),
            creates: self.creates(place, said.creates),
            introduces: self.introduces(place, said.introduces),
            pairs: self.pairs(place, said.pairs),
            coerces: self.coerces(place, said.coerces),
        }
    }

    /// The entries of a key, at most 16 of them.
    fn entries<'b, T>(
        &mut self,
        place: RulePlace<'_>,
        key: &str,
        said: Option<&'b Many<At<T>>>,
    ) -> &'b [At<T>] {
        let entries = said.map_or(&[][..], |said| said.0.as_slice());
        if let Some(beyond) = entries.get(MOST) {
            let what = format!("more than {MOST} entries in `{key}` of `{}`", place.operation.id);
            self.found.error(&beyond.at.within(place.file), what, "Remove some.");
        }
        entries.get(..MOST).unwrap_or(entries)
    }

    fn objects(
        &mut self,
        place: RulePlace<'_>,
        said: Option<&Many<At<ObjectEntry>>>,
    ) -> Vec<ObjectRule> {
        let mut rules = Vec::new();
        let mut declared: BTreeSet<(ValueRole, &str)> = BTreeSet::new();
        for entry in self.entries(place, "objects", said) {
            let role = role(entry.value.role.value);
            for pointer in &entry.value.from.0 {
                if !declared.insert((role, pointer.value.as_str())) {
                    let what = format!(
                        "`{}` has the role `{}` twice",
                        clip(&pointer.value),
                        role.as_str()
                    );
                    self.found.error(&pointer.at.within(place.file), what, "Keep one of the two.");
                }
            }
            rules.extend(self.object(place, entry, role));
        }
        rules
    }

    fn object(
        &mut self,
        place: RulePlace<'_>,
        entry: &At<ObjectEntry>,
        role: ValueRole,
    ) -> Option<ObjectRule> {
        let RulePlace { file, operation } = place;
        let said = &entry.value;
        let at = entry.at.within(file);
        if said.from.0.is_empty() || said.from.0.len() > MOST {
            let what = format!("`from` names 1 to {MOST} arguments, not {}", said.from.0.len());
            self.found.error(&at, what, "Write `from: [/argument]`.");
        }
        // Destinations are texts; ids and amounts may be numbers, too.
        let types: &[&str] = if said.r#type.is_some() { &["string"] } else { &SCALARS };
        for pointer in said.from.0.iter().take(MOST) {
            self.pointer(file, operation, pointer, types, true);
        }
        let space = self.space(place, (said.collection.as_ref(), said.r#type.as_ref()));
        let is_spaced = said.collection.is_some() || said.r#type.is_some();
        if !is_spaced && matches!(role, ValueRole::Recipient | ValueRole::Target) {
            let what = format!(
                "an object with the role `{}` has neither `collection` nor `type`",
                role.as_str()
            );
            let fix =
                "Say what its values are: `collection: …` for ids, or `type: email`, `url`, …";
            self.found.error(&at, what, fix);
        }
        if is_spaced && role == ValueRole::Amount {
            let what = "an object with the role `amount` has a `collection` or a `type`";
            self.found.error(&at, what, "Remove it, or correct the role.");
        }
        let currency = said.currency.as_ref().map(|pointer| {
            self.pointer(file, operation, pointer, &["string"], false);
            pointer.value.clone()
        });
        let scale = said.scale.as_ref().map_or(1, |scale| scale.value);
        if let Some(said) = &said.scale {
            let is_power = scale.checked_ilog10().is_some_and(|power| 10_u32.pow(power) == scale);
            if !is_power || scale > MOST_SCALE {
                let what =
                    format!("`scale` is {scale}, which is no power of ten up to {MOST_SCALE}");
                self.found.error(
                    &said.at.within(file),
                    what,
                    "Write `scale: 100` for an amount in hundredths.",
                );
            }
        }
        let of_amounts = [
            ("currency", said.currency.as_ref().map(|c| c.at)),
            ("scale", said.scale.as_ref().map(|s| s.at)),
        ];
        for (key, mark) in of_amounts {
            if let Some(mark) = mark.filter(|_| role != ValueRole::Amount) {
                let what = format!("`{key}` stands in an object with the role `{}`", role.as_str());
                let fix = format!("Remove it: only an object with the role `amount` has `{key}`.");
                self.found.error(&mark.within(file), what, fix);
            }
        }
        let from: Vec<String> =
            said.from.0.iter().take(MOST).map(|pointer| pointer.value.clone()).collect();
        let space = space?.unwrap_or(ValueSpace::Role(role));
        Some(ObjectRule {
            nouns: ObjectRule::nouns_of(&from, &space),
            from,
            role,
            space,
            currency,
            scale,
            when_absent: said.when_absent.map_or(Origin::Unknown, origin),
        })
    }

    /// The namespace that `collection` or `type` says; the inner `None` where neither stands there.
    #[expect(clippy::option_option, reason = "an error and an absent namespace differ")]
    fn space(
        &mut self,
        place: RulePlace<'_>,
        said: (Option<&At<String>>, Option<&At<DestinationWord>>),
    ) -> Option<Option<ValueSpace>> {
        match said {
            (None, None) => Some(None),
            (Some(named), None) => {
                let spelling = self.collection(place.file, named)?;
                Some(Some(ValueSpace::Collection { name: named.value.clone(), spelling }))
            }
            (None, Some(word)) => Some(Some(ValueSpace::Destination(destination_kind(word.value)))),
            (Some(_), Some(word)) => {
                let what = "`collection` and `type` stand side by side";
                let fix = "Keep `collection` for ids of a system, or `type` for destinations.";
                self.found.error(&word.at.within(place.file), what, fix);
                None
            }
        }
    }

    fn creates(
        &mut self,
        place: RulePlace<'_>,
        said: Option<&Many<At<CreatesEntry>>>,
    ) -> Vec<CreatesRule> {
        let entries = self.entries(place, "creates", said);
        let is_read = place.operation.effects.iter().all(|effect| *effect == Effect::Read);
        if let Some(first) = entries.first().filter(|_| is_read) {
            let what = format!("`{}` creates something, but only reads", place.operation.id);
            let fix = "Correct `effects`, or write `introduces` for values that it finds.";
            self.found.error(&first.at.within(place.file), what, fix);
        }
        let mut rules = Vec::new();
        for entry in entries {
            let said = &entry.value;
            let id = self.result(place, &said.id);
            let spelling = self.collection(place.file, &said.collection);
            if let (Some(id), Some(spelling)) = (id, spelling) {
                rules.push(CreatesRule { id, collection: said.collection.value.clone(), spelling });
            }
        }
        rules
    }

    fn introduces(
        &mut self,
        place: RulePlace<'_>,
        said: Option<&Many<At<IntroducesEntry>>>,
    ) -> Vec<IntroducesRule> {
        let mut rules = Vec::new();
        for entry in self.entries(place, "introduces", said) {
            let said = &entry.value;
            let from = self.result(place, &said.from);
            let space = self.space(place, (said.collection.as_ref(), said.r#type.as_ref()));
            if space == Some(None) {
                let what =
                    format!("`{}` has neither `collection` nor `type`", clip(&said.from.value));
                let fix =
                    "Say what its values are: `collection: …` for ids, or `type: email`, `url`, …";
                self.found.error(&entry.at.within(place.file), what, fix);
            }
            let by = match (&said.by, &said.author) {
                (None, None) => Some(IntroducedBy::Anybody),
                (Some(word), None) if word.value == WriterWord::Owner => Some(IntroducedBy::Owner),
                (Some(_), None) => Some(IntroducedBy::Anybody),
                (None, Some(author)) => {
                    self.of_item(place, from.as_ref(), ("author", author)).map(IntroducedBy::Author)
                }
                (Some(word), Some(_)) => {
                    let what = "`by` and `author` stand side by side";
                    let fix = "Keep `author` where the field has the rights of its author, or `by` where all values have one writer.";
                    self.found.error(&word.at.within(place.file), what, fix);
                    None
                }
            };
            if let (Some(from), Some(Some(space)), Some(by)) = (from, space, by) {
                rules.push(IntroducesRule { from, space, by });
            }
        }
        rules
    }

    fn pairs(
        &mut self,
        place: RulePlace<'_>,
        said: Option<&Many<At<PairsEntry>>>,
    ) -> Vec<PairsRule> {
        let mut rules = Vec::new();
        for entry in self.entries(place, "pairs", said) {
            let said = &entry.value;
            let id = self.result(place, &said.id);
            let name = self.of_item(place, id.as_ref(), ("name", &said.name));
            let spelling = self.collection(place.file, &said.collection);
            if let (Some(id), Some(name), Some(spelling)) = (id, name, spelling) {
                let by_owner = said.by.as_ref().is_some_and(|word| word.value == WriterWord::Owner);
                rules.push(PairsRule {
                    id,
                    name,
                    collection: said.collection.value.clone(),
                    spelling,
                    by_owner,
                });
            }
        }
        rules
    }

    fn coerces(
        &mut self,
        place: RulePlace<'_>,
        said: Option<&Many<At<CoercesEntry>>>,
    ) -> Vec<CoercionRule> {
        let mut rules: Vec<CoercionRule> = Vec::new();
        for entry in self.entries(place, "coerces", said) {
            let (from, to) = (&entry.value.from, coercion(entry.value.to.value));
            self.argument(place.file, place.operation, from, (to.types(), Lists::Elements));
            if rules.iter().any(|rule| rule.from == from.value) {
                let what = format!("`{}` is coerced twice", clip(&from.value));
                self.found.error(&from.at.within(place.file), what, "Keep one of the two.");
            } else {
                rules.push(CoercionRule { from: from.value.clone(), to });
            }
        }
        rules
    }

    /// A pointer into the result of an operation.
    fn result(&mut self, place: RulePlace<'_>, said: &At<String>) -> Option<ResultPointer> {
        let pointer = ResultPointer::parse(&said.value);
        if pointer.is_none() {
            let what = format!(
                "`{}` is no JSON pointer into a result of at most {} members",
                clip(&said.value),
                ResultPointer::MAX_TOKENS
            );
            let fix = "Write `/member`, or `/items/*/member` for each element of a list.";
            self.found.error(&said.at.within(place.file), what, fix);
        }
        pointer
    }

    /// A pointer that must name something of the same item as another: of one element of the same list.
    fn of_item(
        &mut self,
        place: RulePlace<'_>,
        of: Option<&ResultPointer>,
        (key, said): (&str, &At<String>),
    ) -> Option<ResultPointer> {
        let pointer = self.result(place, said)?;
        let of = of?;
        let at: Mark = said.at;
        let what = if pointer == *of {
            format!("`{key}` names the value itself")
        } else if pointer.item() != of.item() {
            format!("`{key}: {}` is of another item than `{of}`", clip(&said.value))
        } else {
            return Some(pointer);
        };
        let item = of.item_text();
        let fix = format!("Write a member of the same item: `{item}/…`.");
        self.found.error(&at.within(place.file), what, fix);
        None
    }
}

pub(super) const fn role(word: RoleWord) -> ValueRole {
    match word {
        RoleWord::Recipient => ValueRole::Recipient,
        RoleWord::Target => ValueRole::Target,
        RoleWord::Amount => ValueRole::Amount,
        RoleWord::Command => ValueRole::Command,
        RoleWord::Credential => ValueRole::Credential,
    }
}

const fn origin(word: OriginWord) -> Origin {
    match word {
        OriginWord::Named => Origin::Named,
        OriginWord::Known => Origin::Known,
        OriginWord::Made => Origin::Made,
        OriginWord::Introduced => Origin::Introduced,
        OriginWord::Claimed => Origin::Claimed,
        OriginWord::Unknown => Origin::Unknown,
    }
}

const fn coercion(word: CoercionWord) -> Coercion {
    match word {
        CoercionWord::Integer => Coercion::Integer,
        CoercionWord::Number => Coercion::Number,
        CoercionWord::Boolean => Coercion::Boolean,
        CoercionWord::Url => Coercion::Url,
        CoercionWord::Folder => Coercion::Folder,
    }
}
