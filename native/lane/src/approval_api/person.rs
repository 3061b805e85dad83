//! The verified person who answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Claim, Principal, Subject, Time};
use authz_kernel::task::approval::{
    APPROVE, APPROVE_ROLE, Approval, CONFIRM, PasskeyAssertion, TWO_PERSON,
};
use serde::Deserialize;

use crate::approvals::{AnswerMethod, Guard, holds};
use crate::judgement::name_of;
use crate::refusal::CallRefusal;
use crate::world::Loaded;

/// Resolution of the time of a login, in milliseconds: tokens have whole seconds.
const GRAIN_MS: i64 = 1_000;

/// A person, as the host describes it in JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenPerson {
    issuer: String,
    sub: String,
    #[serde(default)]
    claims: BTreeMap<String, serde_json::Value>,
    method: AnswerMethod,
    authenticated_at_ms: i64,
    #[serde(default)]
    acr: String,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    passkey: Option<PasskeyAssertion>,
}

/// A verified person.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) subject: Arc<Subject>,
    pub(crate) principal: Principal,
    /// `<issuer alias>/<sub>`, percent-encoded.
    pub(crate) name: String,
    pub(crate) method: AnswerMethod,
    pub(crate) authenticated_at: Time,
    pub(crate) acr: String,
    pub(crate) passkey: Option<PasskeyAssertion>,
}

impl Person {
    /// Reads a person. `None` is the owner of the administration socket, who can see all approvals and answer none.
    ///
    /// # Errors
    /// The text does not describe a valid person.
    pub(crate) fn read(json: &[u8]) -> Result<Option<Self>, CallRefusal> {
        let given: Option<GivenPerson> = serde_json::from_slice(json)
            .map_err(|error| CallRefusal::input(format!("the person is not valid: {error}")))?;
        let Some(given) = given else { return Ok(None) };
        if given.issuer.is_empty() || given.sub.is_empty() {
            return Err(CallRefusal::input("the person needs `issuer` and `sub`"));
        }
        if (given.method == AnswerMethod::Passkey) != given.passkey.is_some() {
            return Err(CallRefusal::input("`passkey` is only valid with the method `passkey`"));
        }
        if (given.method == AnswerMethod::Socket) != given.uid.is_some() {
            return Err(CallRefusal::input("`uid` is only valid with the method `socket`"));
        }
        // Policies cannot read claims of other forms.
        let claims = given
            .claims
            .into_iter()
            .filter_map(|(name, value)| Some((name, serde_json::from_value::<Claim>(value).ok()?)));
        let subject = Arc::new(Subject {
            issuer: given.issuer,
            sub: given.sub,
            claims: claims.collect(),
            narrowed: Vec::new(),
        });
        let principal = Principal::User(Arc::clone(&subject));
        Ok(Some(Self {
            name: name_of(&principal).into_owned(),
            subject,
            principal,
            method: given.method,
            authenticated_at: Time(given.authenticated_at_ms),
            acr: given.acr,
            passkey: given.passkey,
        }))
    }

    /// A person of a test, who logged in just now or uses a passkey.
    pub(crate) fn stated(subject: Subject, method: AnswerMethod, now: Time) -> Self {
        let subject = Arc::new(subject);
        let principal = Principal::User(Arc::clone(&subject));
        Self {
            name: name_of(&principal).into_owned(),
            subject,
            principal,
            method,
            authenticated_at: now,
            acr: String::new(),
            passkey: None,
        }
    }

    /// Returns the roles of the person in the bundle, sorted.
    pub(crate) fn roles(&self, world: &Loaded) -> Vec<String> {
        let mut roles: Vec<String> =
            world.plan.roles_of(&self.principal).iter().map(str::to_owned).collect();
        roles.sort_unstable();
        roles
    }

    /// Returns whether the person is the subject of a call.
    pub(crate) fn is_subject_of(&self, approval: &Approval) -> bool {
        approval
            .subject
            .as_ref()
            .is_some_and(|one| one.issuer == self.subject.issuer && one.sub == self.subject.sub)
    }

    /// Returns whether the person has answered an approval.
    pub(crate) fn has_answered(&self, approval: &Approval) -> bool {
        approval.answers.iter().any(|answer| answer.person == self.name)
    }

    /// Returns whether roles and place in the chain let the person answer for a queue of an approval.
    ///
    /// INVARIANT (chain exclusion): the subject of the call can only confirm, and only the subject can confirm.
    pub(crate) fn is_of_queue(
        &self,
        approval: &Approval,
        queue: &str,
        roles: &[String],
        world: &Loaded,
        now: Time,
    ) -> bool {
        let is_subject = self.is_subject_of(approval);
        if queue == CONFIRM {
            return is_subject && approval.subject.as_ref().is_some_and(|one| !one.is_service);
        }
        if is_subject && holds(Guard::ChainExclusion) {
            return false;
        }
        match queue {
            APPROVE | TWO_PERSON => true,
            _ if !holds(Guard::Role) => true,
            _ => {
                let holds = |role: &str| roles.iter().any(|held| held == role);
                let rule = world.plan.model().approvals.queue(queue);
                let is_deputy =
                    rule.escalate_after.zip(rule.deputies).is_some_and(|(after, role)| {
                        let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
                        approval.created_at.0.saturating_add(after) <= now.0 && holds(&role)
                    });
                is_deputy || queue.strip_prefix(APPROVE_ROLE).is_some_and(holds)
            }
        }
    }

    /// Returns whether the authentication of the person suffices for an approval.
    pub(crate) fn is_proved_for(&self, approval: &Approval) -> bool {
        match self.method {
            AnswerMethod::Passkey => true,
            _ if approval.needs_passkey => false,
            AnswerMethod::Socket => true,
            AnswerMethod::Login => {
                let made = approval.created_at.0.div_euclid(GRAIN_MS);
                self.authenticated_at.0.div_euclid(GRAIN_MS) >= made
            }
        }
    }
}
