//! Counted limits.

use std::time::Duration;

use authz_base::record::history::{Holder, MAX_EVENTS};

use super::build::{ModelBuilder, duration};
use super::sequence::{HistoryReader, is_required};
use super::types::{BudgetEntry, ScopeWord, ThenWord};
use super::yaml::{At, Entries};
use crate::diagnostic::clip;
use crate::ids;
use crate::model::{Budget, Counts, Operation, RuleScope};

/// Budgets of a bundle.
const MOST_BUDGETS: usize = 1_000;
/// What one may come to.
const MOST: i64 = 1 << 53;
/// Different values that one may come to.
const MOST_VALUES: i64 = 256;
/// How long a window may be.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Takes over `budgets`, once the operations are known.
pub(super) fn apply(build: &mut ModelBuilder<'_>, file: &str, said: &Entries<At<BudgetEntry>>) {
    for (name, entry) in &said.0 {
        let Some(at) = build.declare(file, "budget", name, ids::refuse) else { continue };
        if build.model.budgets.len() >= MOST_BUDGETS {
            let what = format!("more than {MOST_BUDGETS} budgets");
            return build.found.error(&at, what, "Remove some.");
        }
        let before = build.found.iter().count();
        let said = &entry.value;
        let mut refuse = |what: &str, fix: &str| {
            build.found.error(&entry.at.within(file), what.to_owned(), fix.to_owned());
        };
        let counts = match (&said.count, &said.sum, &said.distinct, &said.of) {
            (Some(_), None, None, None) => Counts::Count,
            (None, Some(pointer), None, Some(_)) => Counts::Sum(pointer.value.clone()),
            (None, None, Some(pointer), Some(_)) => Counts::Distinct(pointer.value.clone()),
            _ => {
                let what = "a budget is one of `count`, `sum` and `of`, `distinct` and `of`";
                refuse(what, "Write for instance `{sum: /amount, of: bank.pay, most: 100}`.");
                continue;
            }
        };
        let scope = said.scope.map_or(RuleScope::Session, ScopeWord::scope);
        if scope.holder() != Holder::Session && said.within.is_none() {
            let word = scope.as_str();
            let what =
                format!("a budget of scope `{word}` needs `within`: it has no end by itself");
            refuse(&what, "Say for instance `within: 24h`.");
        }
        let bound = match counts {
            Counts::Count | Counts::Sum(_) if said.within.is_none() => MOST,
            Counts::Count => i64::try_from(MAX_EVENTS).unwrap_or(i64::MAX),
            Counts::Sum(_) => MOST,
            Counts::Distinct(_) => MOST_VALUES,
        };
        if said.most.value < 0 || said.most.value > bound {
            let what = format!("`most` is {}, and may be 0 to {bound} here", said.most.value);
            build.found.error(&said.most.at.within(file), what, "Write a smaller one.");
        }
        let within = said.within.as_ref().and_then(|text| {
            let span = duration(&text.value).filter(|span| *span <= LONGEST);
            if span.is_none() {
                let what = format!("`{}` is no duration of at most 24h", clip(&text.value));
                build.found.error(&text.at.within(file), what, "Write 30s, 15m or 24h.");
            }
            span
        });
        let mut reader = HistoryReader { build: &mut *build, file };
        let of = said.count.as_ref().or(said.of.as_ref());
        let of = of.map(|events| reader.events(events, false)).unwrap_or_default();
        if let Some(pointer) = said.sum.as_ref().or(said.distinct.as_ref()) {
            let is_sum = said.sum.is_some();
            let model = &build.model;
            let named: Vec<Operation> = model
                .operations
                .iter()
                .filter(|one| of.iter().any(|event| event.matches(one, model.is_built_in(one))))
                .cloned()
                .collect();
            for operation in &named {
                let types: &[&str] =
                    if is_sum { &["integer"] } else { &["string", "integer", "boolean"] };
                build.pointer(file, operation, pointer, types, !is_sum);
                if is_sum
                    && build.found.iter().count() == before
                    && !is_required(operation, &pointer.value)
                {
                    let what = format!(
                        "`{}` of `{}` may be absent, so it cannot be summed",
                        clip(&pointer.value),
                        operation.id
                    );
                    build.found.error(
                        &pointer.at.within(file),
                        what,
                        "Sum an argument that is `required`.",
                    );
                }
            }
        }
        if build.found.iter().count() == before {
            let denies = said.then != Some(ThenWord::Policy);
            let budget = Budget { counts, of, most: said.most.value, within, scope, denies, at };
            build.model.budgets.insert(name.value.clone(), budget);
        }
    }
}
