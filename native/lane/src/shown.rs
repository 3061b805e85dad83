//! The subject token that comes with a call: which roles the subject of a task still has by it.

use std::sync::Arc;

use authz_kernel::decision::{Claim, Principal, Subject, Time};
use authz_kernel::task::{Record, RecordKey, RecordKind, ShownToken, Task};
use authz_state::store::{Survives, Transaction};
use authz_token::{ClaimValue, SubjectFacts};

use crate::engine::Engine;
use crate::judgement::CallerIdentity;
use crate::keeper::Wait;
use crate::locate::Located;
use crate::refusal::CallRefusal;
use crate::world::Loaded;

/// A verified subject as policies read it.
pub(crate) fn subject_of(facts: &SubjectFacts) -> Subject {
    let claims = facts.claims.iter().map(|(name, value)| {
        let claim = match value {
            ClaimValue::Bool(value) => Claim::Bool(*value),
            ClaimValue::Long(value) => Claim::Long(*value),
            ClaimValue::String(text) => Claim::Text(text.clone()),
            ClaimValue::Set(texts) => Claim::Texts(texts.iter().cloned().collect()),
        };
        (name.clone(), claim)
    });
    Subject {
        issuer: facts.issuer.clone(),
        sub: facts.sub.clone(),
        claims: claims.collect(),
        narrowed: Vec::new(),
    }
}

/// Runs a function with the subject token of the call, if it has one.
fn with_shown<R>(
    caller: &CallerIdentity,
    now: Time,
    run: impl FnOnce(Option<&ShownToken<'_>>) -> R,
) -> R {
    let Some(facts) = &caller.facts.subject else { return run(None) };
    let subject = facts.derived.get_or_derive(|| subject_of(facts));
    let now = now.0.div_euclid(1_000);
    run(Some(&ShownToken {
        token_type: &facts.token_type,
        client: &facts.client,
        // A token of an issuer whose clock is ahead must not be newer than a token that is shown later.
        issued_at: facts.issued_at.map(|issued_at| issued_at.min(now)),
        expires_at: ends(caller),
        claims: &subject.claims,
    }))
}

/// End of the subject token of the call, if it has one.
pub(crate) fn ends(caller: &CallerIdentity) -> Option<Time> {
    let subject = caller.facts.subject.as_ref()?;
    Some(Time(subject.expires_at.saturating_mul(1_000)))
}

/// Principals that act in a task: the subject with the roles that its tokens leave it, then the agents.
pub(crate) fn chain_in(caller: &CallerIdentity, now: Time, located: &Located) -> Vec<Principal> {
    with_shown(caller, now, |shown| located.view().chain(shown))
}

/// Lets a new task begin with the subject token of the call.
pub(crate) fn begin(caller: &CallerIdentity, now: Time, task: &mut Task) {
    with_shown(caller, now, |shown| {
        if let Some(shown) = shown {
            task.begin_with(shown);
        }
    });
}

impl Engine {
    /// Notes the subject token that came with a call in a task, where it changes which roles the subject has in the tree, or
    /// until when a token of it is known.
    ///
    /// If `is_dry`, nothing is stored, and the call is judged as if it were.
    pub(crate) fn note_token(
        &self,
        caller: &CallerIdentity,
        now: Time,
        world: &Loaded,
        located: Located,
        is_dry: bool,
        wait: Wait,
    ) -> Result<Located, CallRefusal> {
        let bundle = world.plan.bundle();
        let after = |root: &Task| with_shown(caller, now, |shown| root.after_token(shown?, bundle));
        let Some(noted) = after(located.view().root()) else { return Ok(located) };
        if is_dry {
            return Ok(located.with_root(Arc::new(noted)));
        }
        let locks = [RecordKey::new(RecordKind::Session, &noted.session)];
        let key = RecordKey::new(RecordKind::Task, &noted.id);
        let mut current = None;
        let mut work = |transaction: &mut dyn Transaction| {
            let Some(Record::Task(root)) = transaction.get(&key)? else { return Ok(false) };
            let Some(noted) = after(&root).map(Arc::new) else {
                current = Some(root);
                return Ok(false);
            };
            transaction.put(Record::Task(Arc::clone(&noted)));
            current = Some(noted);
            Ok(true)
        };
        // Not awaited: the note permits nothing, and after a crash the next token brings it again.
        drop(self.keeper.transact(&locks, Survives::Crash, wait, &mut work)?);
        Ok(match current {
            Some(root) => located.with_root(root),
            None => located,
        })
    }
}
