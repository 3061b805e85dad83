//! Parts of a bundle that its tests reach, as the engine's own decisions tell.

use std::collections::BTreeMap;

use authz_kernel::decision::{PolicyEffect, Verdict};
use authz_kernel::plan::Plan;
use authz_kernel::testable::{PartKind, TestablePart};
use authz_lane::offline::OfflineDecision;
use serde::Serialize;

/// Tests that are listed of one part, the first ones that reach it.
const MOST_TESTS: usize = 5;

/// How far the tests of a bundle get to one of its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartReach {
    /// No decision of a test is about it.
    #[default]
    None,
    /// Of a policy: it was judged, and its conditions never held.
    Judged,
    /// Of a policy: it fired, and never determined an outcome.
    Fired,
    /// A decision depends on it; of a policy: it determined an outcome.
    Reached,
}

/// One part of the bundle, and the tests that reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CoveredPart {
    /// Kind of the part.
    pub kind: PartKind,
    /// Its name in the bundle.
    pub name: String,
    /// Its file; empty where no file names it.
    pub file: String,
    /// Its line, from 1; 0 where unknown.
    pub line: u32,
    /// `permit` or `forbid` of a policy; empty for other parts.
    pub effect: &'static str,
    /// How far the tests get.
    pub reach: PartReach,
    /// Names of the first tests that get so far, at most 5.
    pub tests: Vec<String>,
}

/// Parts of a bundle, by kind and name, with the tests that reach them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Decisions that the tests asked for.
    pub decisions: usize,
    /// Every part.
    pub parts: Vec<CoveredPart>,
}

/// Parts that the tests have reached so far.
#[derive(Debug, Default)]
pub(crate) struct CoverageNotes {
    decisions: usize,
    reached: BTreeMap<(PartKind, String), PartNotes>,
}

#[derive(Debug, Default)]
struct PartNotes {
    reach: PartReach,
    tests: Vec<String>,
}

impl CoverageNotes {
    /// Notes the parts on which the decisions of a step of a test depend.
    pub(crate) fn note(&mut self, test: &str, decisions: &[OfflineDecision]) {
        for answer in decisions {
            self.note_one(test, answer);
        }
    }

    fn note_one(&mut self, test: &str, answer: &OfflineDecision) {
        // A decision about an operation of Authz itself belongs to a call that counts already.
        self.decisions += usize::from(!answer.id.is_empty());
        if !answer.template.is_empty() {
            self.reach(PartKind::Template, &answer.template, PartReach::Reached, test);
        }
        let Some(decision) = &answer.decision else { return };
        for judged in &decision.trace {
            let reach = match judged.result {
                Verdict::NotFired => PartReach::Judged,
                Verdict::Fired | Verdict::Failed(_) => PartReach::Fired,
            };
            self.reach(PartKind::Policy, &judged.policy, reach, test);
        }
        if !decision.operation.is_empty() {
            self.reach(PartKind::Operation, &decision.operation, PartReach::Reached, test);
        }
        // The tier of such an operation is a constant of Authz.
        if let Some(tier) = decision.tier.filter(|_| !answer.id.is_empty()) {
            self.reach(PartKind::Tier, tier.as_str(), PartReach::Reached, test);
        }
        if !decision.destination_class.is_empty() {
            let class = &decision.destination_class;
            self.reach(PartKind::Destination, class, PartReach::Reached, test);
        }
        for (kind, names) in [
            (PartKind::Policy, &decision.policies),
            (PartKind::StepUpKind, &decision.kinds),
            (PartKind::Sequence, &decision.sequences),
            (PartKind::Budget, &decision.budgets),
            (PartKind::Exception, &decision.exceptions),
        ] {
            for name in names {
                self.reach(kind, name, PartReach::Reached, test);
            }
        }
    }

    fn reach(&mut self, kind: PartKind, name: &str, reach: PartReach, test: &str) {
        let notes = self.reached.entry((kind, name.to_owned())).or_default();
        if reach > notes.reach {
            notes.reach = reach;
            notes.tests.clear();
        }
        if reach == notes.reach
            && notes.tests.len() < MOST_TESTS
            && notes.tests.last().is_none_or(|last| last != test)
        {
            notes.tests.push(test.to_owned());
        }
    }

    /// The coverage of a plan.
    pub(crate) fn of(mut self, plan: &Plan) -> Coverage {
        let parts = plan.testable_parts().into_iter().map(|part| {
            let TestablePart { kind, name, at, effect } = part;
            let key = (kind, name);
            let PartNotes { reach, tests } = self.reached.remove(&key).unwrap_or_default();
            CoveredPart {
                kind,
                name: key.1,
                file: at.file,
                line: at.line,
                effect: match effect {
                    Some(PolicyEffect::Permit) => "permit",
                    Some(PolicyEffect::Forbid) => "forbid",
                    None => "",
                },
                reach,
                tests,
            }
        });
        Coverage { decisions: self.decisions, parts: parts.collect() }
    }
}
