//! Values that a report of a call may add, and the speakers that vouch for them.

use authz_base::principal::Principal;
use smallvec::SmallVec;

use crate::canonical::canonical;
use crate::decision::{CallerProof, Facts, ProofMethod, Time};
use crate::history::ValueTerms;
use crate::model::{DestinationKind, Operation, Origin, Tier, ValueRole, ValueSpace};
use crate::plan::Plan;
use crate::recipient_lists::{RecipientListQuery, RecipientLists};
use crate::task::{HARNESS_TIER, PromptWords, SignificantWords, Speaker, TaskView, WordRecords};
use crate::values::{self, Vouchers};

use super::origin::{MAX_VALUES, OriginFacts, TypedValue, Vouching, origin_of, values_at};
use super::resolve::Resolved;

/// Values that a report of a call may add. `None`: no values.
pub(super) fn terms(
    plan: &Plan,
    facts: &Facts<'_>,
    operation: &Operation,
    resolved: &Resolved<'_>,
    (tier, now): (Tier, Time),
) -> Option<ValueTerms> {
    let key = facts.value_key.filter(|_| plan.asks_values(operation))?;
    let introduces = operation.origins.introduces_values() && {
        let sources = OriginFacts::of(plan, facts, (now, tier), true);
        is_read_well(operation, resolved, &sources)
    };
    Some(values::terms(operation, resolved.arguments.json(), introduces, key))
}

/// Whether no object that a call reads was chosen by anybody: an attacker who chooses the object chooses what it introduces.
fn is_read_well(operation: &Operation, resolved: &Resolved<'_>, sources: &OriginFacts<'_>) -> bool {
    let is_good = |value: &TypedValue<'_>| {
        !matches!(origin_of(value, sources), Origin::Claimed | Origin::Unknown)
    };
    let id = resolved.id.key.as_str();
    if let Some(rule) = operation.resource.as_ref().filter(|_| !id.is_empty()) {
        let (name, spelling) = (rule.collection.clone(), rule.spelling);
        let space = ValueSpace::Collection { name, spelling };
        if !is_good(&TypedValue::of_resource(&operation.system, &space, id)) {
            return false;
        }
    }
    let targets = operation.origins.objects.iter().filter(|rule| rule.role == ValueRole::Target);
    let targets = targets.flat_map(|rule| rule.from.iter().map(move |pointer| (rule, pointer)));
    let mut values = targets.flat_map(|(rule, pointer)| {
        let values = values_at(&resolved.arguments, pointer);
        values.map(move |value| TypedValue::of_object(&operation.system, rule, value, None))
    });
    // INVARIANT (bounded): more values than are looked up count as chosen by anybody.
    let all =
        values.by_ref().take(MAX_VALUES).all(|value| value.is_some_and(|value| is_good(&value)));
    all && values.next().is_none()
}

/// Prompt, templates and recipient lists of a task, as they vouch for what a report says.
#[derive(Clone, Copy, Debug)]
pub struct TaskVouchers<'a> {
    /// The loaded plan.
    pub plan: &'a Plan,
    /// The task of the call. Default: a call without a task has no prompt.
    pub task: Option<TaskView<'a>>,
    /// Words of the prompts of the task.
    pub words: WordRecords<'a>,
    /// Key of the names of tasks.
    pub literal_key: &'a [u8; 32],
    /// State of the bundle's recipient lists.
    pub recipient_lists: &'a RecipientLists,
    /// Time of the report.
    pub now: Time,
}

impl TaskVouchers<'_> {
    fn vouched(&self, kind: DestinationKind, text: &str) -> Option<Tier> {
        const NOBODY: &[Principal] = &[];
        let canonical = canonical(kind, text).ok()?;
        let facts = Facts {
            enforcer: "",
            chain: NOBODY,
            proof: CallerProof {
                method: ProofMethod::Jwt,
                bound: false,
                age: None,
                acr: "",
                satisfied: &[],
            },
            confidence: 0,
            task: self.task,
            subject_proof: None,
            history: None,
            words: self.words,
            literal_key: Some(self.literal_key),
            value_key: None,
            endorsed: &[],
            recipient_lists: Some(self.recipient_lists),
            granted: None,
            breakglass: None,
        };
        let query =
            RecipientListQuery::new(Some(self.recipient_lists), kind, &canonical.text, self.now);
        Vouching::of(self.plan, &facts)?.vouches((kind, text, &canonical.text), Some(&query))
    }
}

impl Vouchers for TaskVouchers<'_> {
    fn author(&self, text: &str) -> Option<Tier> {
        self.vouched(DestinationKind::Email, text)
            .or_else(|| self.vouched(DestinationKind::Account, text))
    }

    fn words(&self, name: &str) -> Option<(Tier, SmallVec<[u64; 8]>)> {
        let task = self.task?;
        let prompt = PromptWords::of(self.words.of(task), self.literal_key)?;
        let SignificantWords { by, words } = prompt.significant(name)?;
        match by {
            Speaker::Subject | Speaker::FrontEnd => Some((Tier::Critical, words)),
            Speaker::Harness => Some((HARNESS_TIER, words)),
            Speaker::Agent => None,
        }
    }
}
