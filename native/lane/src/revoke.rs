//! The kill switch: a revoked principal, credential, task or operation is refused, and no `mode` lets it through.

use std::sync::Arc;

use authz_kernel::decision::{Claim, Time};
use authz_kernel::hex::hex;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    AgentName, Cutoff, Revocation, RevocationTarget as Target, Revocations, Task, TaskSubject,
};
use authz_token::{AgentFacts, AgentProof, ClaimValue, SubjectFacts, VerifiedFacts};

use crate::judgement::Asker;
use crate::refusal::{CallRefusal, Step};

/// Refuses a caller whose certificate, workload or trust domain is revoked.
pub(crate) fn of_asker(revoked: &Revocations, asker: &Asker) -> Result<(), CallRefusal> {
    match &asker.peer {
        Some(peer) if !revoked.is_empty() => of_agent(revoked, &peer.agent(AgentProof::X509Svid)),
        _ => Ok(()),
    }
}

/// Refuses a principal if the principal, its credential, its key or its issuer is revoked.
pub(crate) fn of_callers(revoked: &Revocations, facts: &VerifiedFacts) -> Result<(), CallRefusal> {
    if revoked.is_empty() {
        return Ok(());
    }
    if let Some(agent) = &facts.agent {
        of_agent(revoked, agent)?;
    }
    match &facts.subject {
        Some(subject) => of_subject(revoked, subject),
        None => Ok(()),
    }
}

fn of_agent(revoked: &Revocations, agent: &AgentFacts) -> Result<(), CallRefusal> {
    refuse(revoked, Target::Agent, &agent.spiffe_id)?;
    refuse(revoked, Target::Issuer, &agent.trust_domain)?;
    maybe(revoked, Target::Jti, agent.jti.as_deref())?;
    maybe(revoked, Target::Key, agent.kid.as_deref())?;
    maybe(revoked, Target::Key, agent.certificate_digest.map(|digest| hex(&digest)).as_deref())
}

fn of_subject(revoked: &Revocations, subject: &SubjectFacts) -> Result<(), CallRefusal> {
    of_subject_name(revoked, &subject.issuer, &subject.sub)?;
    let text_of = |claim: &str| match subject.claims.get(claim) {
        Some(ClaimValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let mut cutoffs = revoked.cutoffs_of(&subject.issuer, &subject.sub, text_of);
    cut_off(cutoffs.find(|cutoff| cutoff.covers_token(subject.issued_at)))?;
    maybe(revoked, Target::Jti, subject.jti.as_deref())?;
    maybe(revoked, Target::Key, subject.kid.as_deref())
}

/// Refuses an agent that is revoked, or whose trust domain is.
pub(crate) fn of_agent_name(revoked: &Revocations, agent: &AgentName) -> Result<(), CallRefusal> {
    refuse(revoked, Target::Agent, &agent.spiffe_id)?;
    refuse(revoked, Target::Issuer, &agent.trust_domain)
}

/// Refuses to act for a subject that is revoked, or whose issuer is.
pub(crate) fn of_subject_name(
    revoked: &Revocations,
    issuer: &str,
    sub: &str,
) -> Result<(), CallRefusal> {
    if revoked.is_empty() {
        return Ok(());
    }
    refuse(revoked, Target::Issuer, issuer)?;
    refuse(revoked, Target::Subject, &TaskSubject::revocation_name(issuer, sub))
}

/// Refuses a person that is revoked, or who logged in before the cut-off of the person's sessions.
pub(crate) fn of_person(
    revoked: &Revocations,
    issuer: &str,
    sub: &str,
    authenticated_at: Time,
) -> Result<(), CallRefusal> {
    of_subject_name(revoked, issuer, sub)?;
    let mut cutoffs = revoked.cutoffs_of(issuer, sub, |_| None);
    cut_off(cutoffs.find(|cutoff| cutoff.covers(authenticated_at)))
}

/// Refuses what a cut-off covers.
fn cut_off(cutoff: Option<&Arc<Cutoff>>) -> Result<(), CallRefusal> {
    match cutoff {
        Some(cutoff) => Err(CallRefusal::new(
            ReasonCode::Revoked,
            Step::Identify,
            format!("the subject has to log in again: {}", cutoff.reason),
        )),
        None => Ok(()),
    }
}

/// Refuses an operation that is revoked, or whose system is.
pub(crate) fn of_operation(revoked: &Revocations, operation: &str) -> Result<(), CallRefusal> {
    if revoked.is_empty() || operation.is_empty() {
        return Ok(());
    }
    refuse(revoked, Target::Operation, operation)?;
    match operation.split_once('.') {
        Some((system, _)) => refuse(revoked, Target::System, system),
        None => Ok(()),
    }
}

/// Refuses a system that is revoked.
pub(crate) fn of_system(revoked: &Revocations, system: &str) -> Result<(), CallRefusal> {
    refuse(revoked, Target::System, system)
}

/// True if one of these systems is revoked, or one of their operations.
pub(crate) fn is_any_revoked(revoked: &Revocations, systems: &[String]) -> bool {
    systems.iter().any(|system| revoked.has_of_system(system))
}

/// Refuses a task credential that is revoked, or whose key is.
pub(crate) fn of_credential(
    revoked: &Revocations,
    jti: &str,
    kid: Option<&str>,
) -> Result<(), CallRefusal> {
    refuse(revoked, Target::Jti, jti)?;
    maybe(revoked, Target::Key, kid)
}

/// Refuses a task that is revoked, or whose session, agents or subject are.
///
/// `tree` is the task and all tasks above it.
pub(crate) fn of_tasks<'a>(
    revoked: &Revocations,
    tree: impl Iterator<Item = &'a Arc<Task>>,
) -> Result<(), CallRefusal> {
    if revoked.is_empty() {
        return Ok(());
    }
    for task in tree {
        refuse(revoked, Target::Task, &task.id)?;
        refuse(revoked, Target::Session, &task.session)?;
        for agent in &task.agents {
            of_agent_name(revoked, agent)?;
        }
        if let Some(subject) = &task.subject {
            of_subject_name(revoked, &subject.issuer, &subject.sub)?;
            let text_of = |claim: &str| match subject.claims.get(claim) {
                Some(Claim::Text(text)) => Some(text.as_str()),
                _ => None,
            };
            let mut cutoffs = revoked.cutoffs_of(&subject.issuer, &subject.sub, text_of);
            cut_off(cutoffs.find(|cutoff| cutoff.covers_task(task)))?;
        }
    }
    Ok(())
}

fn maybe(revoked: &Revocations, target: Target, value: Option<&str>) -> Result<(), CallRefusal> {
    value.map_or(Ok(()), |value| refuse(revoked, target, value))
}

fn refuse(revoked: &Revocations, target: Target, value: &str) -> Result<(), CallRefusal> {
    match revoked.find(target, value) {
        Some(revocation) => Err(because(revocation)),
        None => Ok(()),
    }
}

fn because(revocation: &Revocation) -> CallRefusal {
    let what = revocation.target.as_str();
    let why = match revocation.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    CallRefusal::new(ReasonCode::Revoked, Step::Identify, format!("the {what} is revoked{why}"))
}
