//! Results of queries, in every store.

use std::collections::BTreeMap;

use authz_base::record::task::TaskStatus;
use authz_base::record::{Record, RecordKey, RecordKind};

use super::bounds::MAX_PAGE;
use super::{Page, Query};

/// Where a record stands among what a query finds; none where it is not found.
pub(crate) fn place(query: &Query, after: &str, record: &Record) -> Option<(i64, RecordKey)> {
    if let Query::DueBefore(before) = query {
        return record.due().filter(|due| due < before).map(|due| (due, record.key()));
    }
    if let Query::Kind(kind) | Query::Prefix(kind, _) = query {
        let key = record.key();
        let first = if let Query::Prefix(_, first) = query { first } else { "" };
        let fits = key.kind == *kind && key.id.starts_with(first) && &*key.id > after;
        return fits.then_some((0, key));
    }
    let Record::Task(task) = record else { return None };
    let fits = match query {
        Query::Session(session) => task.session == *session,
        Query::LiveOf(agent) => task.status == TaskStatus::Active && task.assignee() == agent,
        Query::TasksOf(agent) => task.assignee() == agent,
        Query::Tasks => true,
        Query::Kind(_) | Query::Prefix(..) | Query::DueBefore(_) => false,
    };
    (fits && task.id.as_str() > after).then(|| (0, RecordKey::new(RecordKind::Task, &task.id)))
}

/// Number of records of a page.
pub(crate) fn most(page: &Page) -> usize {
    page.most.min(MAX_PAGE)
}

/// Stored records with the changes of a transaction: `stored` holds none of the changed keys.
pub(crate) fn merged(
    stored: Vec<Record>,
    changes: &BTreeMap<RecordKey, Option<Record>>,
    query: &Query,
    page: &Page,
) -> Vec<Record> {
    let mut all: Vec<((i64, RecordKey), Record)> = stored
        .into_iter()
        .chain(changes.values().flatten().cloned())
        .filter_map(|record| Some((place(query, &page.after, &record)?, record)))
        .collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all.truncate(most(page));
    all.into_iter().map(|(_, record)| record).collect()
}
