//! Claims of a task credential (RFC 9068, RFC 9396, RFC 8693): what a token says when it is signed, and when it is introspected.

use std::borrow::Cow;
use std::collections::BTreeMap;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Binding, Credential, Detail, Task};
use serde::Serialize;
use serde_json::{Value, json};

use crate::judgement::name_of;
use crate::refusal::{CallRefusal, Step};
use crate::settings::CredentialSettings;

/// Type of the authorization details of Authz (RFC 9396).
const DETAIL_TYPE: &str = "authz_task";

/// Claims and members of a token, for the service that signs it.
pub(crate) fn token_answer(
    credential: &Credential,
    task: &Task,
    settings: &CredentialSettings,
) -> Result<Value, CallRefusal> {
    let text = serde_json::to_string(&token_claims(credential, task, settings));
    Ok(json!({
        // A text, because the signature covers these very bytes.
        "claims": text.map_err(|_| unwritable())?,
        "token_type": token_type(credential),
        "expires_at": seconds(credential.expires_at),
        "task": credential.task,
    }))
}

/// `token_type` of a credential (RFC 6749 §7.1, RFC 9449 §5).
pub(crate) const fn token_type(credential: &Credential) -> &'static str {
    match credential.binding {
        Some(Binding::Jkt(_)) => "DPoP",
        Some(Binding::X5t(_)) | None => "Bearer",
    }
}

/// Claims of a token. They never change.
#[derive(Serialize)]
struct TokenClaims<'a> {
    iss: &'a str,
    sub: Cow<'a, str>,
    client_id: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: &'a str,
    task: &'a str,
    authorization_details: Vec<AuthorizationDetail<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Box<Actor<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<BTreeMap<&'a str, &'a str>>,
}

/// Agent that acts (RFC 8693 §4.1).
#[derive(Serialize)]
struct Actor<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Box<Actor<'a>>>,
}

#[derive(Serialize)]
struct AuthorizationDetail<'a> {
    r#type: &'a str,
    operation: &'a str,
    uses: u32,
    decision_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    destinations: &'a [String],
}

fn token_claims<'a>(
    credential: &'a Credential,
    task: &'a Task,
    settings: &'a CredentialSettings,
) -> TokenClaims<'a> {
    let mut agents = task.agents.iter().map(|agent| agent.spiffe_id.as_str());
    let sub = match &task.subject {
        Some(subject) => Cow::Owned(name_of(&subject.principal()).into_owned()),
        None => Cow::Borrowed(agents.next().unwrap_or_default()),
    };
    TokenClaims {
        iss: &settings.issuer,
        sub,
        client_id: &credential.agent,
        aud: &credential.audience,
        iat: seconds(credential.issued_at),
        exp: seconds(credential.expires_at),
        jti: &credential.jti,
        task: &credential.task,
        authorization_details: credential.details.iter().map(authorization_detail).collect(),
        // The first agent of the chain stands innermost, the agent that acts now outermost.
        act: agents.fold(None, |act, sub| Some(Box::new(Actor { sub, act }))),
        cnf: credential
            .binding
            .as_ref()
            .map(|binding| BTreeMap::from([(binding.member(), binding.value())])),
    }
}

/// Claims of a token as JSON, for introspection (RFC 7662).
pub(crate) fn introspected_claims(
    credential: &Credential,
    task: &Task,
    settings: &CredentialSettings,
) -> Result<Value, CallRefusal> {
    serde_json::to_value(token_claims(credential, task, settings)).map_err(|_| unwritable())
}

fn authorization_detail(detail: &Detail) -> AuthorizationDetail<'_> {
    AuthorizationDetail {
        r#type: DETAIL_TYPE,
        operation: &detail.operation,
        uses: 1,
        decision_id: &detail.decision_id,
        resource: detail.resource.as_deref(),
        arguments_digest: detail.arguments_digest.as_deref(),
        destinations: &detail.destinations,
    }
}

fn unwritable() -> CallRefusal {
    CallRefusal::new(ReasonCode::Unavailable, Step::Record, "the claims cannot be written")
}

/// Whole seconds since 1970.
pub(super) const fn seconds(time: Time) -> i64 {
    time.0.div_euclid(1_000)
}
