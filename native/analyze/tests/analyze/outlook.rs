//! Operations about which the analysis does not ask the kernel's outlook, compared with an analysis that asks about each.

use std::collections::BTreeSet;

use authz_analyze::paths::guard::Conditions;
use authz_analyze::paths::taint::{Goal, Taints};
use authz_analyze::paths::ways::{Parties, Way, Ways};
use authz_kernel::decide::Prospects;
use authz_kernel::decision::{CallerProof, Facts, Outcome, ProofMethod, Time};
use authz_kernel::plan::Plan;
use authz_kernel::task::{TaskView, WordRecords};

use crate::brute_force::NOW_MS;
use crate::paths::compile;
use crate::random_bundle::random_bundle;

const NOW: Time = Time(NOW_MS);
const MODELS: u64 = 24;

/// Operations that the kernel's outlook does not deny, asked about each one.
fn outlook<'a>(plan: &'a Plan, taints: &'a Taints<'_>, way: &Way) -> Vec<&'a str> {
    let facts = Facts {
        enforcer: "",
        chain: &way.principals,
        proof: CallerProof {
            method: ProofMethod::JwtSvid,
            bound: true,
            age: Some(0),
            acr: "",
            satisfied: &[],
        },
        confidence: 100,
        task: way.task.as_ref().map(|task| TaskView { task, ancestors: &way.ancestors }),
        subject_proof: None,
        history: None,
        words: WordRecords::default(),
        literal_key: None,
        value_key: None,
        endorsed: &[],
        recipient_lists: None,
        granted: None,
        breakglass: None,
    };
    let prospects = Prospects::new(plan, &facts, NOW).with_any_proof();
    let ids = taints.flows.iter().filter_map(|flow| taints.operation(flow));
    ids.map(|operation| operation.id.as_str())
        .filter(|id| prospects.outlook(id).is_some_and(|one| one.outcome != Outcome::Deny))
        .collect()
}

/// An operation is left out only where the outlook denies it, or where no permit covers some principal.
#[test]
fn no_operation_is_left_out_that_could_be_called() {
    let (mut open, mut closed) = (0, 0);
    for seed in 0..MODELS {
        let plan = compile(&random_bundle(seed).files);
        let conditions = Conditions::new(&plan);
        let parties = Parties::new(&plan, &conditions);
        let ways = Ways::new(&plan, &conditions, &parties, NOW);
        let breakglass = BTreeSet::new();
        let taints = Taints::new(&plan, &conditions, (&parties, &ways), &breakglass, NOW);
        for way in &ways.all {
            let undenied = outlook(&plan, &taints, way);
            let kept: Vec<usize> = taints.open(way.position).map(|one| one.operation).collect();
            for flow in &taints.flows {
                let id = taints.operation(flow).map_or("", |one| one.id.as_str());
                let is_undenied = undenied.contains(&id);
                let is_kept = kept.contains(&flow.operation);
                let could = is_undenied && taints.could(way, flow, &Goal::default());
                assert!(is_kept || !could, "seed {seed}: {id} is left out of {way:?}");
                assert!(is_undenied || !is_kept, "seed {seed}: {id} is denied in {way:?}");
                open += usize::from(is_kept);
                closed += usize::from(!is_kept);
            }
        }
    }
    assert!(open > 100 && closed > 100, "{open} open, {closed} closed");
}
