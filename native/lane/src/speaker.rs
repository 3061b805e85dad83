//! Speaker of a prompt, and subjects that call without an agent.
//!
//! INVARIANT (nothing that an agent can say counts as the user's word): a token that may stand beside an agent proves nothing
//! here. The agent holds it, and may leave its own credential out.

use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{MAX_PARTS, Part, SaidBy, Speaker};
use authz_token::{SubjectFacts, VerifiedFacts};

use crate::judgement::Asker;
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::world::Loaded;

/// Subject that calls itself: no agent calls, and no agent holds the proof of the subject.
pub(crate) fn alone(facts: &VerifiedFacts) -> Option<&SubjectFacts> {
    facts.subject.as_deref().filter(|subject| facts.agent.is_none() && subject.is_alone)
}

/// True if a subject calls with nothing but a token that an agent may hold. Then the caller may be an agent.
pub(crate) fn is_bearer_alone(asker: &Asker, facts: &VerifiedFacts, world: &Loaded) -> bool {
    facts.agent.is_none() && facts.subject.is_some() && !speaker(asker, facts, world).is_user()
}

/// Refuses a subject that calls by nothing but a token that an agent may hold: the agent would leave its own credential out, and
/// with it what restricts the agent.
///
/// # Errors
/// The subject is not proved (NO_CREDENTIAL).
pub(crate) fn refuse_bearer_alone(
    asker: &Asker,
    facts: &VerifiedFacts,
    world: &Loaded,
) -> Result<(), CallRefusal> {
    if !is_bearer_alone(asker, facts, world) {
        return Ok(());
    }
    Err(CallRefusal::new(
        ReasonCode::NoCredential,
        Step::Identify,
        "the subject's token alone proves nobody, since agents hold it too: show the agent's credential beside it, or a token \
         of the subject for an `alone_audience`, or ask as a front end (`relays: [prompt]`)",
    ))
}

/// Whose word the prompt and the parameters of a call are.
pub(crate) fn speaker(asker: &Asker, facts: &VerifiedFacts, world: &Loaded) -> Speaker {
    if alone(facts).is_some() {
        return Speaker::Subject;
    }
    let is_proved = facts.subject.is_some();
    let agent = facts.agent.as_ref().map(|agent| agent.spiffe_id.as_str());
    // An enforcer that calls as the agent speaks as that agent.
    let is_itself = agent.is_some() && asker.peer.as_ref().map(|peer| &*peer.spiffe_id) == agent;
    let relays = asker.enforcer.as_ref().is_some_and(|enforcer| enforcer.relays_prompt);
    if relays && is_proved && !is_itself {
        return Speaker::FrontEnd;
    }
    agent.map_or(Speaker::Agent, |agent| world.plan.roles().speaker_of(agent, is_proved))
}

/// Proof of the caller of a keyed request, in three texts: the kind of credential (agent's or subject's), the speaker of the
/// prompt, and the front end that relays.
pub(crate) fn proof_of<'a>(
    asker: &'a Asker,
    facts: &VerifiedFacts,
    world: &Loaded,
) -> [&'a str; 3] {
    let proved = if facts.agent.is_some() { "agent" } else { "subject" };
    let by = speaker(asker, facts, world);
    let front_end = if by == Speaker::FrontEnd { asker.name() } else { "" };
    [proved, by.as_str(), front_end]
}

/// Refuses a context of the session from a caller that is not a front end.
///
/// # Errors
/// The caller may not name contexts (ENFORCER_REFUSED).
pub(crate) fn may_name_context(
    asker: &Asker,
    context: &str,
    explain: bool,
) -> Result<(), CallRefusal> {
    let enforcer = asker.enforcer.as_ref();
    if context.is_empty() || explain || enforcer.is_some_and(|enforcer| enforcer.relays_session) {
        return Ok(());
    }
    Err(CallRefusal::new(
        ReasonCode::EnforcerRefused,
        Step::Identify,
        "the caller may not name a `session_context`: its enforcer does not say `relays: [session]`",
    ))
}

/// The context of the session that counts: a front end's word, beside the subject's token. Empty: none, and labels of all
/// contexts count.
pub(crate) fn context<'a>(asker: &Asker, facts: &VerifiedFacts, context: &'a str) -> &'a str {
    let agent = facts.agent.as_ref().map(|agent| agent.spiffe_id.as_str());
    let peer = asker.peer.as_ref().map(|peer| &*peer.spiffe_id);
    // An enforcer that calls as the agent speaks as that agent.
    let is_itself = agent.is_some() && peer == agent;
    if facts.subject.is_some() && !is_itself { context } else { "" }
}

/// The parts of a prompt. The text alone is one part, the user's.
pub(crate) fn parts<'a>(
    prompt: &'a str,
    parts: &'a [wire::PromptPart],
) -> Result<Vec<Part<'a>>, CallRefusal> {
    if parts.is_empty() {
        return Ok(vec![Part::of_user(prompt)]);
    }
    if !prompt.is_empty() {
        return Err(CallRefusal::input("`prompt` and `prompt_parts` are both given"));
    }
    if parts.len() > MAX_PARTS {
        return Err(CallRefusal::input(format!("`prompt_parts` has more than {MAX_PARTS} items")));
    }
    parts
        .iter()
        .map(|part| {
            let said_by = match wire::SaidBy::try_from(part.said_by) {
                Ok(wire::SaidBy::User) => SaidBy::User,
                Ok(wire::SaidBy::Quoted) => SaidBy::Quoted,
                Ok(wire::SaidBy::Unspecified | wire::SaidBy::Other) => SaidBy::Other,
                Err(_) => return Err(CallRefusal::input("`said_by` has an unknown value")),
            };
            Ok(Part { text: &part.text, said_by })
        })
        .collect()
}
