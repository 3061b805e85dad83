//! Facts that the policies of an operation could read, for the audit.

use smol_str::SmolStr;

use super::located::TaskBounds;
use crate::decision::{Facts, RecordedCheckResults, RecordedFact, RecordedFacts};
use crate::evaluate::ContextFacts;
use crate::model::ValueRole;
use crate::rfc3339;
use crate::schema::{Key, Keys};
use crate::task::SubjectProof;

/// Destination beside the worst one, which a policy that reads the destination is judged for, too.
pub(super) struct OtherDestination<'a> {
    pub(super) class: &'a str,
    pub(super) host: &'a str,
    pub(super) uncleared_labels: &'a [&'a str],
}

/// Facts of the keys of `context` that the slice reads.
///
/// `input` is left out, because the record has the arguments, and so are the agents of the chain.
pub(super) fn recorded<'a>(
    keys: Keys,
    seen: &ContextFacts<'_>,
    others: impl Iterator<Item = OtherDestination<'a>>,
) -> RecordedFacts {
    let mut values = Vec::new();
    for key in Key::ALL {
        if keys.contains(key)
            && let Some(value) = fact(key, seen)
        {
            values.push((key.as_str(), value));
        }
    }
    if keys.contains(Key::Destination) || keys.contains(Key::UnclearedLabels) {
        let others = others.map(|other| {
            let labels = set(other.uncleared_labels.iter().copied());
            let destination = destination(other.class, other.host, seen);
            RecordedFact::Record(vec![("destination", destination), ("uncleared_labels", labels)])
        });
        let others: Vec<RecordedFact> = others.collect();
        if !others.is_empty() {
            values.push(("other_destinations", RecordedFact::List(others)));
        }
    }
    RecordedFacts { values, reads_arguments: keys.contains(Key::Input), ..RecordedFacts::default() }
}

/// Results of the checks beside policies.
pub(super) fn checks(
    facts: &Facts<'_>,
    subject_proof: SubjectProof,
    satisfied: &[String],
    bounds: &TaskBounds<'_>,
) -> RecordedCheckResults {
    RecordedCheckResults {
        satisfied: satisfied.to_vec(),
        age: facts.proof.age,
        confidence: facts.confidence.min(100),
        subject_proof,
        refused: bounds.refused.as_ref().map(|refused| refused.reason),
        held: bounds
            .held
            .iter()
            .flat_map(|held| &held.kinds)
            .map(|kind| (*kind).to_owned())
            .collect(),
        unsupported: String::new(),
    }
}

fn fact(key: Key, seen: &ContextFacts<'_>) -> Option<RecordedFact> {
    let caller = &seen.caller;
    Some(match key {
        Key::Input => return None,
        Key::Tier => RecordedFact::Long(seen.tier),
        Key::Task => {
            let task = caller.task.as_ref();
            let long = |value: Option<i64>| RecordedFact::Long(value.unwrap_or(0));
            RecordedFact::Record(vec![
                ("kind", word(task.map_or("none", |task| task.kind.as_str()))),
                ("template", word(task.map_or("none", |task| task.template))),
                ("purpose", word(task.map_or("", |task| task.purpose))),
                ("depth", long(task.map(|task| task.depth))),
                ("age", long(task.map(|task| task.age))),
            ])
        }
        Key::SubjectProof => word(caller.subject_proof.as_str()),
        Key::Chain => RecordedFact::Record(vec![
            ("depth", RecordedFact::Long(caller.depth)),
            ("subject", RecordedFact::Bool(caller.subject)),
        ]),
        Key::Enforcer => word(caller.enforcer),
        Key::Confidence => RecordedFact::Long(seen.confidence),
        Key::Destination => destination(seen.class, seen.host, seen),
        Key::Origins => RecordedFact::Record(
            ValueRole::ALL
                .map(|role| {
                    let origins = seen.origins.of(role).origins();
                    (role.as_str(), set(origins.map(|origin| origin.as_str())))
                })
                .into(),
        ),
        Key::Literals => {
            RecordedFact::Record(vec![("unknown", RecordedFact::Long(seen.unknown_literals))])
        }
        Key::Proof => RecordedFact::Record(vec![
            ("method", word(caller.method)),
            ("bound", RecordedFact::Bool(caller.bound)),
            ("age", RecordedFact::Long(caller.age)),
            ("acr", word(caller.acr)),
        ]),
        Key::Satisfied => set(seen.satisfied.iter().map(String::as_str)),
        Key::Time => word(&rfc3339::millis(caller.time)),
        Key::Session => RecordedFact::Record(vec![
            ("labels", set(seen.carried())),
            ("sources", RecordedFact::Long(seen.sources())),
            ("calls", RecordedFact::Long(seen.calls())),
        ]),
        Key::UnclearedLabels => set(seen.uncleared_labels.iter().copied()),
        Key::Sequences => set(seen.sequences.iter().copied()),
        Key::Budgets => set(seen.budgets.iter().copied()),
        Key::Remembered => set(seen.remembered.iter().copied()),
        Key::Exception => set(seen.exceptions.iter().copied()),
    })
}

fn destination(class: &str, host: &str, seen: &ContextFacts<'_>) -> RecordedFact {
    RecordedFact::Record(vec![
        ("class", word(class)),
        ("trusted", RecordedFact::Bool(seen.trusted)),
        ("host", RecordedFact::Text(SmolStr::new(host))),
        ("present", RecordedFact::Bool(seen.destination)),
    ])
}

fn word(text: &str) -> RecordedFact {
    RecordedFact::Word(SmolStr::new(text))
}

fn set<'a>(members: impl Iterator<Item = &'a str>) -> RecordedFact {
    let mut members: Vec<SmolStr> = members.map(SmolStr::new).collect();
    members.sort_unstable();
    members.dedup();
    RecordedFact::Set(members)
}
