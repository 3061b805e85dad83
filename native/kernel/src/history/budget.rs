//! Counted limits: how many, how much, and how many different, in all or within a window. Exact: what is kept is every event
//! of the window, and where that is as much as may be kept, nothing more is let through.

use std::collections::{BTreeMap, BTreeSet};

use crate::decision::{ReasonCode, Time};
use crate::digest::{sha256, short};
use crate::hex::hex_start;
use crate::history::sequence::EventSubject;
use crate::history::{
    HistoryView, Holders, MAX_EVENTS, MAX_RULES, MAX_TASKS, Spending, Spent, UNSTARTED_GRAIN_MS,
};
use crate::json::Value as Json;
use crate::model::{Budget, Counts, Model, RuleScope};

/// A budget, ready to be asked.
#[derive(Clone, Debug)]
struct CompiledBudget {
    name: String,
    /// Name under which its use is stored. A changed budget with the same name has another one, and begins anew.
    stored: String,
    counts: Counts,
    most: i64,
    within_ms: Option<i64>,
    scope: RuleScope,
    denies: bool,
    /// Permit whose calls count, by `@id`. `None`: it is a budget of the bundle, and each permitted call counts.
    permit: Option<String>,
}

/// All budgets of a bundle, and the numbers of uses of permits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budgets {
    all: Vec<CompiledBudget>,
}

/// Amounts that an event would spend, and the budgets that it would exceed.
#[derive(Debug, Default)]
pub(crate) struct Spends<'a> {
    /// Budgets that it would exceed, by name.
    pub(crate) exceeded: Vec<&'a str>,
    /// Reason of a refusal that no policy can overrule.
    pub(crate) refused: Option<BudgetRefusal<'a>>,
    /// What a permit spends.
    pub(crate) spends: Vec<Spending>,
}

/// Refusal of an event by a budget.
#[derive(Debug)]
pub(crate) struct BudgetRefusal<'a> {
    pub(crate) budget: &'a str,
    pub(crate) reason: ReasonCode,
    pub(crate) message: String,
}

impl Budgets {
    /// Compiles the budgets; gives beside them which of them an operation spends, by its id.
    pub(crate) fn of(model: &Model) -> (Self, BTreeMap<String, Vec<u32>>) {
        let mut all = Vec::with_capacity(model.budgets.len());
        let mut by_operation: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (name, budget) in &model.budgets {
            let index = u32::try_from(all.len()).unwrap_or(u32::MAX);
            all.push(CompiledBudget::of(name, budget));
            for operation in &model.operations {
                let built_in = model.is_built_in(operation);
                if budget.of.iter().any(|event| event.matches(operation, built_in)) {
                    by_operation.entry(operation.id.clone()).or_default().push(index);
                }
            }
        }
        (Self { all }, by_operation)
    }

    /// Adds the number of uses of a permit; gives its position.
    pub(crate) fn add_uses(&mut self, permit: &str, most: u32) -> u32 {
        let index = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(CompiledBudget {
            name: permit.to_owned(),
            // No budget of a bundle has a colon in its name.
            stored: format!("max_uses:{permit}"),
            counts: Counts::Count,
            most: i64::from(most),
            within_ms: None,
            scope: RuleScope::Task,
            denies: true,
            permit: Some(permit.to_owned()),
        });
        index
    }

    /// Under which name each budget's use is stored, by the budget's own.
    pub(crate) fn stored(&self) -> BTreeMap<&str, &str> {
        let own = self.all.iter().filter(|one| one.permit.is_none());
        own.map(|one| (one.name.as_str(), one.stored.as_str())).collect()
    }

    /// Names under which the use of budgets is stored.
    pub(crate) fn kept_as(&self, named: &[u32]) -> impl Iterator<Item = &str> {
        let all = named.iter().filter_map(|index| self.all.get(*index as usize));
        all.map(|budget| budget.stored.as_str())
    }

    /// Whether the use of all budgets of these names is stored.
    pub(crate) fn has_all<'a>(&self, mut stored: impl Iterator<Item = &'a str>) -> bool {
        stored.all(|name| self.all.iter().any(|budget| budget.stored == name))
    }

    /// JSON pointers to the arguments whose different values those budgets count.
    pub(crate) fn keys(&self, named: &[u32]) -> impl Iterator<Item = &str> {
        let all = named.iter().filter_map(|index| self.all.get(*index as usize));
        all.filter_map(|budget| match &budget.counts {
            Counts::Distinct(pointer) => Some(pointer.as_str()),
            Counts::Count | Counts::Sum(_) => None,
        })
    }

    /// Whose records those budgets are kept in.
    pub(crate) fn holders(&self, named: &[u32]) -> Holders {
        let all = named.iter().filter_map(|index| self.all.get(*index as usize));
        all.map(|budget| budget.scope.holder()).collect()
    }

    /// What a call would use of the permits that fired.
    pub(crate) fn use_permits(
        &self,
        named: &[u32],
        fired: impl Fn(&str) -> bool,
        subject: EventSubject<'_>,
        history: HistoryView<'_>,
        now: Time,
    ) -> Spends<'_> {
        let mut all = Spends::default();
        for uses in named.iter().filter_map(|index| self.all.get(*index as usize)) {
            if !uses.permit.as_deref().is_some_and(&fired) {
                continue;
            }
            let (name, most) = (&uses.name, uses.most);
            match uses.spend(subject, history, now) {
                Ok(spending) => all.spends.push(spending),
                Err(Short::Exceeded | Short::Uncounted) => {
                    let calls = if most == 1 { "one call" } else { &format!("{most} calls") };
                    let what = format!("the permit `{name}` counts for {calls} of a task at most");
                    all.refuse(name, ReasonCode::UsesExhausted, what);
                }
                Err(Short::Full) => {
                    let what = format!("the session keeps as many uses of `{name}` as it may");
                    all.refuse(name, ReasonCode::WindowFull, what);
                }
            }
        }
        all
    }

    /// What an event would spend.
    pub(crate) fn spend(
        &self,
        named: &[u32],
        subject: EventSubject<'_>,
        history: HistoryView<'_>,
        now: Time,
    ) -> Spends<'_> {
        let mut all = Spends::default();
        let budgets = named.iter().filter_map(|index| self.all.get(*index as usize));
        for budget in budgets.filter(|budget| budget.permit.is_none()) {
            match budget.spend(subject, history, now) {
                Ok(spending) => all.spends.push(spending),
                Err(Short::Exceeded) => {
                    all.exceeded.push(&budget.name);
                    if budget.denies {
                        let what = format!("the budget `{}` would be exceeded", budget.name);
                        all.refuse(&budget.name, ReasonCode::BudgetExceeded, what);
                    }
                }
                // A permit by policy would spend nothing, so the request is refused.
                Err(Short::Uncounted) => {
                    all.exceeded.push(&budget.name);
                    let what = format!("the budget `{}` counts no amount of the kind", budget.name);
                    all.refuse(&budget.name, ReasonCode::BudgetExceeded, what);
                }
                Err(Short::Full) => {
                    let what = format!(
                        "the {} keeps as many events of the budget `{}` as it may",
                        budget.scope.holder().as_str(),
                        budget.name
                    );
                    all.refuse(&budget.name, ReasonCode::WindowFull, what);
                }
            }
        }
        all
    }
}

impl<'a> Spends<'a> {
    fn refuse(&mut self, budget: &'a str, reason: ReasonCode, message: String) {
        if self.refused.as_ref().is_none_or(|known| reason < known.reason) {
            self.refused = Some(BudgetRefusal { budget, reason, message });
        }
    }
}

/// Why an event does not fit.
enum Short {
    /// More would be spent than there is.
    Exceeded,
    /// The argument is not an amount that can be spent: it is negative, or not an integer.
    Uncounted,
    /// The record keeps as much as it may.
    Full,
}

impl CompiledBudget {
    fn of(name: &str, budget: &Budget) -> Self {
        let digest = sha256(budget.canonical().as_bytes());
        let hash = hex_start(&digest, 8);
        Self {
            name: name.to_owned(),
            stored: format!("{name}#{hash}"),
            counts: budget.counts.clone(),
            most: budget.most,
            within_ms: budget
                .within
                .map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
            scope: budget.scope,
            denies: budget.denies,
            permit: None,
        }
    }

    /// What the event spends.
    fn spend(
        &self,
        subject: EventSubject<'_>,
        history: HistoryView<'_>,
        now: Time,
    ) -> Result<Spending, Short> {
        let holder = self.scope.holder();
        // INVARIANT (recalled): judging begins only where all that the operation names is at hand.
        let kept = history.of(holder).ok_or(Short::Full)?;
        let instance = match self.scope {
            RuleScope::Task => subject.task,
            RuleScope::Session | RuleScope::Agent | RuleScope::Subject => "",
        };
        let window_ms = self.within_ms.or_else(|| subject.window_ms());
        let oldest = window_ms.map(|within| Time(now.0.saturating_sub(within)));
        // A budget without a window may count more events than could be kept one by one.
        let grain_ms = (self.within_ms.is_none() && oldest.is_some()).then_some(UNSTARTED_GRAIN_MS);
        let nothing = Spent::default();
        let uses = kept.budgets.get(&self.stored);
        if uses.is_none() && kept.budgets.len() >= MAX_RULES {
            return Err(Short::Full);
        }
        let spent = uses.and_then(|uses| uses.instances.get(instance));
        if spent.is_none() && uses.is_some_and(|uses| uses.instances.len() >= MAX_TASKS) {
            return Err(Short::Full);
        }
        let reserved = || kept.reserved(&self.stored, instance);
        let spent = spent.unwrap_or(&nothing);
        let counts = |at: &Time| oldest.is_none_or(|oldest| *at >= oldest);
        let mut spending = Spending {
            budget: self.stored.clone(),
            holder,
            instance: instance.to_owned(),
            amount: 0,
            values: BTreeSet::new(),
            is_windowed: oldest.is_some(),
            grain_ms,
            is_sum: matches!(self.counts, Counts::Sum(_)),
            forgets_before: oldest,
        };
        if let Counts::Distinct(pointer) = &self.counts {
            let known = spent.values.iter().filter(|(_, at)| counts(at)).map(|(value, _)| value);
            let open = reserved().filter(|(at, _)| counts(at)).flat_map(|(_, one)| &one.values);
            let mut all: BTreeSet<&String> = known.chain(open).collect();
            spending.values = values(subject, pointer, &all);
            all.extend(&spending.values);
            if i64::try_from(all.len()).unwrap_or(i64::MAX) > self.most {
                return Err(Short::Exceeded);
            }
            return Ok(spending);
        }
        spending.amount = match &self.counts {
            Counts::Sum(pointer) => match subject.arguments.pointer(pointer) {
                // A negative amount would give spent amounts back.
                Some(Json::Integer(number)) if *number >= 0 => *number,
                _ => return Err(Short::Uncounted),
            },
            Counts::Count | Counts::Distinct(_) => 1,
        };
        let open = || reserved().map(|(at, one)| (at, one.amount));
        let events = || spent.events.iter().copied().chain(open()).filter(|(at, _)| counts(at));
        let before = events().try_fold(spent.total, |sum, (_, amount)| sum.checked_add(amount));
        match before.and_then(|before| before.checked_add(spending.amount)) {
            Some(after) if after <= self.most => {}
            Some(_) | None => return Err(Short::Exceeded),
        }
        if spending.is_windowed && grain_ms.is_none() && events().count() >= MAX_EVENTS {
            return Err(Short::Full);
        }
        Ok(spending)
    }
}

/// The digests of a value, or of all of a list: they may be long, or a secret.
///
/// INVARIANT (one key): a number and its digits are one value, and of an id all spellings are.
///
/// Args: `known`: digests that count already. Under older rules of spelling a value had another digest, which it keeps.
fn values(subject: EventSubject<'_>, pointer: &str, known: &BTreeSet<&String>) -> BTreeSet<String> {
    let renamed = |new: String, old: String| if known.contains(&old) { old } else { new };
    let one = |value: &Json| match (subject.id_at(pointer), value) {
        (Some(id), Json::String(text)) if id != text => {
            Some(renamed(short(&format!("s{id}")), short(&format!("s{text}"))))
        }
        (_, Json::String(text)) => Some(short(&format!("s{text}"))),
        (_, Json::Integer(number)) => {
            Some(renamed(short(&format!("s{number}")), short(&format!("i{number}"))))
        }
        (_, Json::Bool(value)) => Some(short(&format!("b{value}"))),
        _ => None,
    };
    match subject.arguments.pointer(pointer) {
        Some(Json::Array(items)) => items.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => BTreeSet::new(),
    }
}
