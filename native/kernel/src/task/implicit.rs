//! The session of an agent that works without tasks: one for each pair of agent and subject, so that nothing that a caller
//! sends chooses, leaves or resets it. It has the bounds of a task of the bundle's template, but it cannot be started,
//! extended or delegated.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::start::{Refused, Root, start};
use super::{AGE_MS, IDLE_MS};
use super::{AgentName, Names, SubjectProof, Task, TaskKind, TaskSubject};
use crate::decision::{Principal, Time};
use crate::digest::short;
use crate::hex::hex;
use crate::history::party_id;
use crate::plan::Plan;

/// How the ids of all such sessions begin.
const PREFIX: &str = "implicit/";

/// The id of the session of a pair: of its record, and of that which bounds its calls. None where nobody calls.
///
/// Args:
/// * `chain`: the subject, where there is one, and the agent.
#[must_use]
pub fn implicit_id(chain: &[Principal]) -> Option<String> {
    let agent = party_id(chain.last()?);
    let mut hash = Sha256::new();
    for part in chain.iter().map(party_id) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Some(format!("{PREFIX}{}/{}", short(&agent), hex(&hash.finalize())))
}

/// Whether an id is that of the session of an agent that works without tasks.
#[must_use]
pub fn is_implicit_id(id: &str) -> bool {
    id.starts_with(PREFIX)
}

/// What bounds the calls of a pair whose session begins now. It is forgotten a day after its last permit, and a week after it
/// began. `None`: the bundle does not let this agent work without tasks.
///
/// Args:
/// * `chain`: the subject, where there is one, and the agent; `acr`: of the subject's token.
///
/// # Errors
/// The template is not as the bundle says (BAD_INPUT).
pub fn implicit(
    plan: &Plan,
    chain: &[Principal],
    acr: &str,
    now: Time,
) -> Result<Option<Task>, Refused> {
    let Some(rule) = &plan.model().tasks.implicit else { return Ok(None) };
    let Some(Principal::Agent { spiffe_id, trust_domain }) = chain.last() else { return Ok(None) };
    if !plan.roles().is_implicit(spiffe_id) {
        return Ok(None);
    }
    let Some(id) = implicit_id(chain) else { return Ok(None) };
    let subject = chain.first().and_then(|first| TaskSubject::of(first, acr));
    let proof = if subject.is_some() { SubjectProof::Verified } else { SubjectProof::Itself };
    let root = Root {
        template: &rule.template,
        params: &BTreeMap::new(),
        scope: &[],
        kind: TaskKind::Implicit,
        assignee: AgentName { spiffe_id: spiffe_id.clone(), trust_domain: trust_domain.clone() },
        subject,
        subject_proof: proof,
        starter: spiffe_id.clone(),
        deadline: None,
        tier_cap: Some(rule.tier_cap),
        names: Names::default(),
        now,
        id: id.clone(),
        session: id,
    };
    let task = start(plan, root)?;
    let deadline = Time(now.0.saturating_add(AGE_MS));
    // The note of the last permit may be a tenth of this time old, and the session must be remembered for IDLE_MS after a permit.
    let idle_timeout_ms = Some(IDLE_MS.saturating_mul(10).div_euclid(9));
    Ok(Some(Task { deadline, idle_timeout_ms, ..task }))
}

/// What bounds the calls of a pair now, as the bundle says now. None where the bundle no longer lets the agent work without
/// tasks.
///
/// Args:
/// * `known`: as it is kept; the same is returned where nothing has changed.
///
/// # Errors
/// As of [`implicit`].
pub fn renewed(plan: &Plan, known: &Arc<Task>) -> Result<Option<Arc<Task>>, Refused> {
    let is_same = plan.model().tasks.implicit.as_ref().is_some_and(|rule| {
        rule.template_digest == known.template_digest
            && rule.template == known.template
            && rule.tier_cap == known.tier_cap
    });
    if !plan.roles().is_implicit(known.assignee()) {
        return Ok(None);
    }
    if is_same {
        return Ok(Some(Arc::clone(known)));
    }
    let Some(task) = implicit(plan, &known.chain(), "", known.started_at)? else {
        return Ok(None);
    };
    Ok(Some(Arc::new(Task {
        template: task.template,
        template_digest: task.template_digest,
        purpose: task.purpose,
        scope: task.scope,
        beyond: task.beyond,
        uses: task.uses,
        tier_cap: task.tier_cap,
        index: task.index,
        ..Task::clone(known)
    })))
}
