//! What sessions learn from reported values.

use authz_kernel::ValueKey;
use authz_kernel::history::{KnownValues, ValueMarks, ValueTerms};
use authz_kernel::model::{
    CreatesRule, DestinationKind, Effect, IntroducedBy, IntroducesRule, OriginRules, PairsRule,
    ResultPointer, Spelling, Tier, ValueSpace,
};
use authz_kernel::plan::Plan;
use authz_kernel::values::{LearnedValues, ReportedValue, Vouchers};
use serde_json::json;
use smallvec::SmallVec;

use crate::common::{NOW, PERMIT_ALL, compile, model, operation};

const MADE: ValueMarks = ValueMarks::MADE;
const INTRODUCED: ValueMarks = ValueMarks::INTRODUCED;
const NAMED: ValueMarks = ValueMarks::NAMED;
const NONE: ValueMarks = ValueMarks::NONE;

fn pointer(text: &str) -> ResultPointer {
    ResultPointer::parse(text).unwrap()
}

fn events(spelling: Spelling) -> ValueSpace {
    ValueSpace::Collection { name: "events".to_owned(), spelling }
}

fn introduces(from: &str, space: ValueSpace, by: IntroducedBy) -> IntroducesRule {
    IntroducesRule { from: pointer(from), space, by }
}

fn mails() -> ValueSpace {
    ValueSpace::Destination(DestinationKind::Email)
}

fn pair(by_owner: bool) -> PairsRule {
    PairsRule {
        id: pointer("/items/*/id"),
        name: pointer("/items/*/title"),
        collection: "events".to_owned(),
        spelling: Spelling::Exact,
        by_owner,
    }
}

/// A plan whose operation `crm.search` has these rules.
fn plan(origins: OriginRules) -> Plan {
    let mut model = model(PERMIT_ALL);
    let mut search = operation(
        "crm.values",
        &[Effect::Write],
        Tier::Low,
        json!({"type": "object", "properties": {}}),
    );
    search.origins = origins;
    model.operations.push(search);
    model.operations.sort_by(|one, other| one.id.cmp(&other.id));
    compile(model, None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The user names `mark@x.example` and the words; a harness relays `harry@x.example`.
struct Prompt(&'static [&'static str]);

impl Vouchers for Prompt {
    fn author(&self, text: &str) -> Option<Tier> {
        match text {
            "mark@x.example" => Some(Tier::Critical),
            "harry@x.example" => Some(Tier::Standard),
            _ => None,
        }
    }

    fn words(&self, name: &str) -> Option<(Tier, SmallVec<[u64; 8]>)> {
        let has = |word: &&str| name.split_whitespace().any(|one| one.eq_ignore_ascii_case(word));
        let words = (1..).zip(self.0).filter(|(_, word)| has(word)).map(|(print, _)| print);
        let words: SmallVec<[u64; 8]> = words.collect();
        (!words.is_empty()).then_some((Tier::Critical, words))
    }
}

/// A session that reads reports of the operation.
struct Session {
    plan: Plan,
    key: ValueKey,
    known: KnownValues,
    prompt: Prompt,
}

impl Session {
    fn new(origins: OriginRules) -> Self {
        let key = ValueKey::new(&[7; 32]);
        Self { plan: plan(origins), key, known: KnownValues::default(), prompt: Prompt(&[]) }
    }

    fn report(&mut self, terms: &ValueTerms, values: &[(&str, u32, &str)]) -> LearnedValues {
        let values: Vec<ReportedValue<'_>> = values
            .iter()
            .map(|(pointer, item, text)| ReportedValue { pointer, item: *item, text })
            .collect();
        let of = ("crm.values", terms);
        self.plan.learn_values(of, &values, &self.prompt, &self.key, (&mut self.known, NOW))
    }

    fn id(&self, id: &str) -> ValueMarks {
        self.known.find(self.key.id("crm", "events", id), NOW)
    }

    fn mail(&self, mail: &str) -> ValueMarks {
        self.known.find(self.key.destination(&format!("email:{mail}")), NOW)
    }
}

fn both() -> ValueTerms {
    ValueTerms { introduces: true, creates: true, ..ValueTerms::default() }
}

#[test]
fn an_object_is_made_by_a_result_and_by_no_argument() {
    let creates = vec![CreatesRule {
        id: pointer("/id"),
        collection: "events".to_owned(),
        spelling: Spelling::Fold,
    }];
    let mut session = Session::new(OriginRules { creates, ..OriginRules::default() });
    let given = session.key.id("crm", "events", "old");
    let terms = ValueTerms { arguments: vec![given], ..both() };
    let learned =
        session.report(&terms, &[("/id", 0, "E7"), ("/id", 0, "Old"), ("/id", 0, "a//b")]);
    assert_eq!(LearnedValues { kept: 1, unlifted: 1, invalid: 1, full: 0 }, learned);
    assert_eq!((MADE, NONE), (session.id("e7"), session.id("old")));
    // The id of one system or collection says nothing in another.
    for (system, collection) in [("mail", "events"), ("crm", "customers")] {
        let print = session.key.id(system, collection, "e7");
        assert_eq!(NONE, session.known.find(print, NOW));
    }
    // Another store has another key.
    assert_ne!(given, ValueKey::new(&[8; 32]).id("crm", "events", "old"));
    let none = ValueTerms { creates: false, ..both() };
    assert_eq!(1, session.report(&none, &[("/id", 0, "e8")]).unlifted);
    assert_eq!(NONE, session.id("e8"));
}

#[test]
fn a_value_is_introduced_by_the_owner_or_by_an_author_who_is_named() {
    let author = || IntroducedBy::Author(pointer("/items/*/from"));
    let mut session = Session::new(OriginRules {
        introduces: vec![
            introduces("/items/*/id", events(Spelling::Exact), IntroducedBy::Owner),
            introduces("/items/*/organizer", mails(), IntroducedBy::Anybody),
            introduces("/items/*/reply_to", mails(), author()),
        ],
        ..OriginRules::default()
    });
    let values = [
        ("/items/*/id", 0, "e1"),
        ("/items/*/id", 1, "e2"),
        ("/items/*/organizer", 0, "eve@x.example"),
        ("/items/*/reply_to", 0, "one@x.example"),
        ("/items/*/from", 0, "mark@x.example"),
        ("/items/*/reply_to", 1, "two@x.example"),
        ("/items/*/from", 1, "eve@x.example"),
        ("/items/*/reply_to", 2, "three@x.example"),
        ("/items/*/from", 2, "harry@x.example"),
        ("/items/*/reply_to", 3, "four@x.example"),
        // Of two authors both must be named.
        ("/items/*/reply_to", 4, "five@x.example"),
        ("/items/*/from", 4, "mark@x.example"),
        ("/items/*/from", 4, "eve@x.example"),
        ("/items/*/reply_to", 0, "not a mailbox"),
        ("/items/*/secret", 0, "six@x.example"),
    ];
    let refused = session.report(&ValueTerms { introduces: false, ..both() }, &values);
    assert_eq!((0, 0), (refused.kept, session.known.len()), "the object that was read is unknown");
    let learned = session.report(&both(), &values);
    // Nobody asked for the organizer, nor for the secret.
    assert_eq!(LearnedValues { kept: 4, unlifted: 3, invalid: 3, full: 0 }, learned);
    assert_eq!((INTRODUCED, INTRODUCED), (session.id("e1"), session.id("e2")));
    assert_eq!(INTRODUCED, session.mail("one@x.example"));
    assert_eq!(ValueMarks::INTRODUCED_BY_HARNESS, session.mail("three@x.example"));
    for unknown in ["two", "four", "five", "six", "eve", "mark"] {
        assert_eq!(NONE, session.mail(&format!("{unknown}@x.example")), "{unknown}");
    }
}

#[test]
fn an_id_is_as_good_as_its_name() {
    let named = |by_owner, words, values: &[(&str, u32, &str)]| {
        let mut session =
            Session::new(OriginRules { pairs: vec![pair(by_owner)], ..OriginRules::default() });
        session.prompt = Prompt(words);
        session.report(&both(), values);
        ["e1", "e2", "e3"].map(|id| session.id(id).has(NAMED))
    };
    let title = "/items/*/title";
    let ids = [("/items/*/id", 0, "e1"), ("/items/*/id", 1, "e2")];
    let with = |names: [&'static str; 2]| {
        let names = [(title, 0, names[0]), (title, 1, names[1])];
        ids.into_iter().chain(names).collect::<Vec<_>>()
    };
    let dental = with(["Dental check-up", "Team lunch"]);
    assert_eq!([true, false, false], named(true, &["dental"], &dental));
    assert_eq!([false; 3], named(false, &["dental"], &dental), "anybody may write the name");
    assert_eq!([true, true, false], named(true, &["dental", "lunch"], &dental));
    // A look-alike takes the name away, and gains nothing.
    let alike = with(["DENTAL check-up", "Dental"]);
    assert_eq!([false; 3], named(true, &["dental"], &alike));
    let more = with(["Dental", "Dental check"]);
    assert_eq!([false, true, false], named(true, &["dental", "check"], &more));
    // A name of two readings, and an item without its name.
    let two = [ids[0], (title, 0, "Dental"), (title, 0, "Lunch"), ids[1]];
    assert_eq!([false; 3], named(true, &["dental", "lunch"], &two));
}

#[test]
fn a_later_report_takes_a_name_away_from_both() {
    let mut session =
        Session::new(OriginRules { pairs: vec![pair(true)], ..OriginRules::default() });
    session.prompt = Prompt(&["dental"]);
    let one = [("/items/*/id", 0, "e1"), ("/items/*/title", 0, "Dental")];
    let two = [("/items/*/id", 0, "e2"), ("/items/*/title", 0, "dental")];
    session.report(&both(), &one);
    assert_eq!(NAMED, session.id("e1"));
    session.report(&both(), &two);
    assert_eq!((NONE, NONE), (session.id("e1"), session.id("e2")));
    session.report(&both(), &one);
    assert_eq!(NONE, session.id("e1"));
}
