//! Tasks as they travel: from the messages of `authz.v1.Tasks`, and to them.

use std::collections::BTreeMap;

use authz_kernel::decision::Time;
use authz_kernel::task::{
    AgentName, Limit, MAX_SCOPE, MAX_TEXTS, Param, ScopeEntry, Selector, SubjectProof, Task,
    TaskStatus, TaskSubject,
};
use prost_types::{Struct, Timestamp, Value, value::Kind};

use crate::judgement::name_of;
use crate::proto::authz::v1 as wire;
use crate::proto::authz::v1::argument_limit::Limit as WireLimit;
use crate::protobuf::timestamp;
use crate::refusal::CallRefusal;

/// Parameters of one task.
const MAX_PARAMS: usize = 64;
/// The largest whole number that a double holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The parameters of a template. A number must be whole, since no template has others.
pub(crate) fn params(params: Option<&Struct>) -> Result<BTreeMap<String, Param>, CallRefusal> {
    let mut read = BTreeMap::new();
    let Some(params) = params else { return Ok(read) };
    if params.fields.len() > MAX_PARAMS {
        return Err(CallRefusal::input(format!("there are more than {MAX_PARAMS} parameters")));
    }
    for (name, value) in &params.fields {
        let value = match &value.kind {
            Some(Kind::BoolValue(value)) => Param::Bool(*value),
            Some(Kind::StringValue(text)) => Param::Text(text.clone()),
            Some(Kind::NumberValue(number)) => Param::Long(whole(*number)?),
            _ => {
                return Err(CallRefusal::input(
                    "a parameter is no text, whole number, true or false",
                ));
            }
        };
        read.insert(name.clone(), value);
    }
    Ok(read)
}

#[expect(clippy::cast_possible_truncation, reason = "it is whole, and within what both types hold")]
fn whole(number: f64) -> Result<i64, CallRefusal> {
    if number.fract() != 0.0 || number.abs() > EXACT {
        return Err(CallRefusal::input(
            "a parameter is a number that is not whole, or beyond 2^53",
        ));
    }
    Ok(number as i64)
}

/// A scope that is asked for. Empty lists restrict nothing, as the protocol says, and no uses are as many as the wider
/// entry has.
pub(crate) fn scope(entries: &[wire::ScopeEntry]) -> Result<Vec<ScopeEntry>, CallRefusal> {
    if entries.len() > MAX_SCOPE {
        return Err(CallRefusal::input(format!("`scope` has more than {MAX_SCOPE} entries")));
    }
    entries.iter().map(entry).collect()
}

fn entry(asked: &wire::ScopeEntry) -> Result<ScopeEntry, CallRefusal> {
    let resources = match &asked.resources {
        None => Selector::default(),
        Some(resources) => {
            let set =
                |texts: &[String]| (!texts.is_empty()).then(|| texts.iter().cloned().collect());
            for texts in [&resources.collections, &resources.ids, &resources.label_ceiling] {
                check_texts(texts)?;
            }
            Selector {
                collections: set(&resources.collections),
                ids: set(&resources.ids),
                path_prefix: Some(resources.path_prefix.clone()).filter(|text| !text.is_empty()),
                label_ceiling: set(&resources.label_ceiling),
            }
        }
    };
    let mut arguments = BTreeMap::new();
    for (pointer, limit) in &asked.arguments {
        let limit = match &limit.limit {
            Some(WireLimit::OneOf(texts)) => {
                check_texts(&texts.values)?;
                Limit::OneOf(texts.values.iter().cloned().collect())
            }
            Some(WireLimit::Range(range)) => Limit::Range(range.minimum, range.maximum),
            Some(WireLimit::Prefix(text)) => Limit::Prefix(text.clone()),
            None => return Err(CallRefusal::input("a limit on an argument says nothing")),
        };
        arguments.insert(pointer.clone(), limit);
    }
    Ok(ScopeEntry {
        operation: asked.operation.clone(),
        resources,
        arguments,
        uses: (asked.uses != 0).then_some(asked.uses),
    })
}

fn check_texts(texts: &[String]) -> Result<(), CallRefusal> {
    if texts.len() > MAX_TEXTS {
        return Err(CallRefusal::input(format!(
            "a list in `scope` has more than {MAX_TEXTS} items"
        )));
    }
    Ok(())
}

/// An agent by its SPIFFE id.
pub(crate) fn agent(field: &str, spiffe_id: &str) -> Result<AgentName, CallRefusal> {
    AgentName::parse(spiffe_id)
        .map_err(|why| CallRefusal::input(format!("`{field}` is no SPIFFE id of an agent: {why}")))
}

/// A point in time, in milliseconds.
pub(crate) fn time(field: &str, at: Option<&Timestamp>) -> Result<Option<Time>, CallRefusal> {
    let Some(at) = at else { return Ok(None) };
    let fits = (0..1_000_000_000).contains(&at.nanos);
    let millis = i64::from(at.nanos.div_euclid(1_000_000));
    at.seconds
        .checked_mul(1_000)
        .and_then(|ms| ms.checked_add(millis))
        .filter(|_| fits)
        .map(|ms| Some(Time(ms)))
        .ok_or_else(|| CallRefusal::input(format!("`{field}` is no time")))
}

/// A task as it stands at a time.
pub(crate) fn task(task: &Task, now: Time) -> wire::Task {
    let names = &task.names;
    let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
    wire::Task {
        id: task.id.clone(),
        template: task.template.clone(),
        parent: task.ancestors.last().cloned().unwrap_or_default(),
        session: task.session.clone(),
        assignee: task.assignee().to_owned(),
        subject: task.subject.as_ref().map(subject).unwrap_or_default(),
        params: Some(Struct {
            fields: task.params.iter().map(|(name, value)| (name.clone(), param(value))).collect(),
        }),
        scope: task.scope.iter().map(scope_entry).collect(),
        deadline: Some(timestamp(task.deadline)),
        depth: task.depth(),
        status: status(task.status_at(now)) as i32,
        subject_proof: proof(task.subject_proof) as i32,
        started_at: Some(timestamp(task.started_at)),
        ended_at: task.ended_at.map(timestamp),
        named: count(names.user.len().saturating_add(names.harness.len())),
        claimed: count(names.claimed.len()),
    }
}

/// A subject as records and headers name it.
pub(crate) fn subject(subject: &TaskSubject) -> String {
    name_of(&subject.principal()).into_owned()
}

#[expect(clippy::cast_precision_loss, reason = "parameters that came as doubles are exact")]
fn param(param: &Param) -> Value {
    let kind = match param {
        Param::Bool(value) => Kind::BoolValue(*value),
        Param::Long(number) => Kind::NumberValue(*number as f64),
        Param::Text(text) => Kind::StringValue(text.clone()),
    };
    Value { kind: Some(kind) }
}

fn scope_entry(entry: &ScopeEntry) -> wire::ScopeEntry {
    let list = |set: &Option<std::collections::BTreeSet<String>>| {
        set.iter().flatten().cloned().collect::<Vec<String>>()
    };
    let resources = &entry.resources;
    let limit = |limit: &Limit| match limit {
        Limit::OneOf(texts) => {
            WireLimit::OneOf(wire::StringValues { values: texts.iter().cloned().collect() })
        }
        Limit::Range(least, most) => {
            WireLimit::Range(wire::IntegerRange { minimum: *least, maximum: *most })
        }
        Limit::Prefix(text) => WireLimit::Prefix(text.clone()),
    };
    wire::ScopeEntry {
        operation: entry.operation.clone(),
        resources: (*resources != Selector::default()).then(|| wire::ResourceSelector {
            collections: list(&resources.collections),
            ids: list(&resources.ids),
            path_prefix: resources.path_prefix.clone().unwrap_or_default(),
            label_ceiling: list(&resources.label_ceiling),
        }),
        arguments: entry
            .arguments
            .iter()
            .map(|(pointer, one)| {
                (pointer.clone(), wire::ArgumentLimit { limit: Some(limit(one)) })
            })
            .collect(),
        uses: entry.uses.unwrap_or(0),
    }
}

pub(crate) const fn status(status: TaskStatus) -> wire::TaskStatus {
    match status {
        TaskStatus::Active => wire::TaskStatus::Active,
        TaskStatus::Completed => wire::TaskStatus::Completed,
        TaskStatus::Aborted => wire::TaskStatus::Aborted,
        TaskStatus::Revoked => wire::TaskStatus::Revoked,
        TaskStatus::Expired => wire::TaskStatus::Expired,
    }
}

const fn proof(proof: SubjectProof) -> wire::SubjectProof {
    match proof {
        SubjectProof::Verified => wire::SubjectProof::Verified,
        SubjectProof::Asserted => wire::SubjectProof::Asserted,
        SubjectProof::Itself => wire::SubjectProof::Self_,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Only what a template can declare is a parameter, and numbers only where they are exact.
    #[test]
    fn parameters() {
        let of = |kind| Struct { fields: [("p".to_owned(), Value { kind: Some(kind) })].into() };
        for (kind, expected) in [
            (Kind::BoolValue(true), Param::Bool(true)),
            (Kind::StringValue("a".to_owned()), Param::Text("a".to_owned())),
            (Kind::NumberValue(-7.0), Param::Long(-7)),
            (Kind::NumberValue(EXACT), Param::Long(1 << 53)),
        ] {
            assert_eq!(Some(&expected), params(Some(&of(kind))).unwrap().get("p"));
        }
        for kind in [
            Kind::NumberValue(1.5),
            Kind::NumberValue(EXACT * 2.0),
            Kind::NumberValue(f64::NAN),
            Kind::NumberValue(f64::INFINITY),
            Kind::NullValue(0),
            Kind::StructValue(Struct::default()),
        ] {
            assert!(params(Some(&of(kind.clone()))).is_err(), "{kind:?}");
        }
        let many = (0..=MAX_PARAMS).map(|number| (number.to_string(), Value::default()));
        assert!(params(Some(&Struct { fields: many.collect() })).is_err());
    }

    /// A scope reads as it is written.
    #[test]
    fn scope_goes_round() {
        let entries = vec![ScopeEntry {
            operation: "crm.read".to_owned(),
            resources: Selector {
                ids: Some(["a".to_owned()].into()),
                path_prefix: Some("a/b".to_owned()),
                ..Selector::default()
            },
            arguments: [
                ("/n".to_owned(), Limit::Range(1, 5)),
                ("/p".to_owned(), Limit::Prefix("x".to_owned())),
                ("/t".to_owned(), Limit::OneOf(["y".to_owned()].into())),
            ]
            .into(),
            uses: Some(3),
        }];
        let sent: Vec<wire::ScopeEntry> = entries.iter().map(scope_entry).collect();
        assert_eq!(entries, scope(&sent).unwrap());
        let silent = wire::ScopeEntry {
            arguments: [("/n".to_owned(), wire::ArgumentLimit { limit: None })].into(),
            ..wire::ScopeEntry::default()
        };
        assert!(scope(&[silent]).is_err());
        assert!(scope(&vec![wire::ScopeEntry::default(); MAX_SCOPE + 1]).is_err());
    }

    /// A time that does not fit into milliseconds counts as missing.
    #[test]
    fn times() {
        let at = |seconds, nanos| time("deadline", Some(&Timestamp { seconds, nanos }));
        assert_eq!(Some(Time(1_500)), at(1, 500_999_999).unwrap());
        assert!(at(i64::MAX, 0).is_err() && at(0, -1).is_err() && at(0, 1_000_000_000).is_err());
    }
}
