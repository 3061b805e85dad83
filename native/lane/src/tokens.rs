//! `authz.v1.Credentials/Introspect` (RFC 7662) and `authz.v1.Credentials/Revoke` (RFC 7009): the state of a task credential, and
//! its early end.

use std::fmt;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::reason::{PublicCode, ReasonCode};
use authz_kernel::task::{
    Binding, Credential, Record, RecordKey, RecordKind, Revocations, TaskStatus,
};
use authz_state::store::{Survives, Transaction};
use authz_token::{CredentialFacts, Refusal, verify_credential};
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api_call::{
    ApiCaller, ApiGrant, ApiMessage, ApiOutcome, CallerEvidence, GrantedChange, HttpClient,
    WithRecord as _,
};
use crate::credential_use::is_of_record;
use crate::credentials::claims::{introspected_claims, token_type};
use crate::engine::{Engine, seconds};
use crate::history;
use crate::judgement::{ApiRecord, CredentialNote};
use crate::keeper::ChangeError;
use crate::locate::{self, Located};
use crate::metrics::CredentialEvent;
use crate::permits::release;
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::revoke;
use crate::settings::Surface;
use crate::tasks::{END, may_end};
use crate::transport::{ApiError, Transport};
use crate::world::Enforcer;

/// A request about a token.
#[derive(Debug)]
struct TokenRequest {
    evidence: Vec<wire::Evidence>,
    token: String,
    /// The client of an HTTP endpoint. Default: the evidence shows the caller.
    client: Option<HttpClient>,
}

impl ApiMessage for TokenRequest {
    fn evidence(&self) -> CallerEvidence<'_> {
        match &self.client {
            Some(client) => CallerEvidence::Client(client),
            None => CallerEvidence::Message(&self.evidence),
        }
    }
}

/// A request about a token over HTTP.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTokenRequest {
    client: HttpClient,
    token: String,
}

impl TokenRequest {
    fn read(surface: Surface, request: &[u8], is_http: bool) -> Result<Self, CallRefusal> {
        if is_http {
            let HttpTokenRequest { client, token } = serde_json::from_slice(request)
                .map_err(|_| CallRefusal::input("the bytes are no such question"))?;
            return Ok(Self { evidence: Vec::new(), token, client: Some(client) });
        }
        let unreadable = |_| CallRefusal::input(Self::UNREADABLE);
        let (evidence, token) = if surface == Surface::CredentialIntrospect {
            let message = wire::IntrospectRequest::decode(request).map_err(unreadable)?;
            (message.evidence, message.token)
        } else {
            let message = wire::CredentialsRevokeRequest::decode(request).map_err(unreadable)?;
            (message.evidence, message.token)
        };
        Ok(Self { evidence, token, client: None })
    }
}

/// A token that Authz issued, and its record.
struct IssuedToken {
    facts: Arc<CredentialFacts>,
    credential: Arc<Credential>,
}

/// Reason why a token is not active.
#[derive(Debug)]
enum InactiveToken {
    /// The token cannot be verified.
    Unverified(Refusal),
    /// The store has no record of the token.
    Forgotten,
    /// The claims are not those of the record.
    OtherRecord,
    /// The token was issued, and cannot be used now.
    Unusable(CallRefusal),
    /// The caller may not introspect the token.
    OtherCaller,
}

impl fmt::Display for InactiveToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unverified(refusal) => write!(f, "{refusal}"),
            Self::Forgotten => f.write_str("it is no longer kept"),
            Self::OtherRecord => f.write_str("it is not the one of its record"),
            Self::Unusable(refused) => f.write_str(&refused.message),
            Self::OtherCaller => {
                f.write_str("the caller is neither the token's agent nor an enforcer of its system")
            }
        }
    }
}

impl Engine {
    /// Answers a request about a token. The answer is JSON.
    pub(crate) fn about_token(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let world = self.world();
        let way = world.as_ref().and_then(|world| world.way(transport.listener));
        let is_http = way.is_some_and(|way| way.http);
        let decode = || {
            self.check_size(request)?;
            TokenRequest::read(surface, request, is_http)
        };
        let run = |message: &TokenRequest, caller: &ApiCaller<'_>| match surface {
            Surface::CredentialIntrospect => self.introspect_token(&message.token, caller),
            _ => self.revoke_token(&message.token, caller),
        };
        match self.api_call(surface, transport, decode, run) {
            Ok(answer) => Ok(answer.to_string().into_bytes()),
            // A client does not learn whose token it has, or whether it is a token (RFC 7009 §2.2). The refusal is recorded.
            Err(error) if is_http && error.reason_code == ReasonCode::NotAssignee => {
                Ok(b"{}".to_vec())
            }
            Err(error) => Err(error),
        }
    }

    /// Answers the claims of a token. A token that is not active, or that the caller may not introspect, has no claims.
    fn introspect_token(&self, token: &str, caller: &ApiCaller<'_>) -> ApiOutcome<Value> {
        let inactive = |message: String| Ok(ApiGrant::unchanged(json!({"active": false}), message));
        let token = match self.find_token(token, caller)? {
            Ok(token) => token,
            Err(reason) => return inactive(format!("the token is not active: {reason}")),
        };
        let record = token.record();
        let outcome = match self.active_token(&token, caller).with_record(&record)? {
            Ok((credential, located)) => active_answer(&credential, &located, caller),
            Err(reason @ InactiveToken::OtherCaller) => inactive(reason.to_string()),
            Err(reason) => inactive(format!("the token is not active: {reason}")),
        };
        outcome.with_record(&record)
    }

    /// The record of a token and its task, if the token is active and the caller's business.
    fn active_token(
        &self,
        token: &IssuedToken,
        caller: &ApiCaller<'_>,
    ) -> Result<Result<(Arc<Credential>, Located), InactiveToken>, CallRefusal> {
        if !may_introspect(&token.credential, caller) {
            return Ok(Err(InactiveToken::OtherCaller));
        }
        let usable = self.read_live(token, caller).and_then(|(credential, located)| {
            let (plan, now, wait) = (caller.plan(), caller.now(), caller.wait);
            self.check_left_out(now, plan, &located, wait)?;
            history::refuse_barred(&self.keeper, plan, &located, now, wait)?;
            Ok((credential, located))
        });
        match usable {
            Ok(active) => Ok(Ok(active)),
            Err(refused) if is_own_failure(refused.reason) => Err(refused),
            Err(refused) => Ok(Err(InactiveToken::Unusable(refused))),
        }
    }

    /// Reads the record of a token and its task in a transaction, so that they are current.
    fn read_live(
        &self,
        token: &IssuedToken,
        caller: &ApiCaller<'_>,
    ) -> Result<(Arc<Credential>, Located), CallRefusal> {
        let locks = [RecordKey::new(RecordKind::Session, &token.credential.session)];
        let mut live = Err(CallRefusal::credential("the store told nothing"));
        let mut work = |transaction: &mut dyn Transaction| {
            // Read once the locks are held, so that a view that grew old in the wait is refused.
            live = self
                .keeper
                .revocations()
                .and_then(|revoked| live_in(transaction, token, &revoked, caller.now()));
            Ok(false)
        };
        let commit = self.keeper.transact(&locks, Survives::Crash, caller.wait, &mut work)?;
        self.keeper.kept(commit, caller.wait)?;
        live
    }

    /// Ends a credential, and gives back the permits of it that were not used.
    fn revoke_token(&self, token: &str, caller: &ApiCaller<'_>) -> ApiOutcome<Value> {
        let token = match self.find_token(token, caller)? {
            Ok(token) => token,
            Err(reason) => {
                let message = format!("the token was not active: {reason}");
                return Ok(ApiGrant::unchanged(json!({}), message));
            }
        };
        let record = token.record();
        let credential = &token.credential;
        self.check_revocation(credential, caller).with_record(&record)?;
        let locks = [RecordKey::new(RecordKind::Session, &credential.session)];
        let survives = Survives::PowerLoss;
        let grant = self.change_if_any(caller, &record, &locks, survives, &mut |transaction| {
            let released = revoke_in(transaction, &credential.jti, caller.now())?;
            Ok(GrantedChange::new(released, "the task credential is revoked"))
        })?;
        match grant {
            Some(grant) => {
                self.metrics.credential(CredentialEvent::Revoked);
                self.metrics.released(grant.answer);
                Ok(grant.map(|_| json!({})))
            }
            None => {
                let grant = ApiGrant::unchanged(json!({}), "the token was not active");
                Ok(grant.with_record(&record))
            }
        }
    }

    /// Refuses a caller that may not revoke a credential: neither the owner, nor its agent, nor permitted to end its task.
    fn check_revocation(
        &self,
        credential: &Credential,
        caller: &ApiCaller<'_>,
    ) -> Result<(), CallRefusal> {
        if caller.is_owner || caller.is_agent(&credential.agent) {
            return Ok(());
        }
        let may_end_task = match locate::find(&self.keeper, &credential.task, caller.wait) {
            Ok(located) => may_end(&located, caller.facts(), TaskStatus::Revoked),
            Err(refused) if is_own_failure(refused.reason) => return Err(refused),
            Err(_) => false,
        };
        if may_end_task || self.check_own_operation(caller, END).is_ok() {
            return Ok(());
        }
        Err(CallRefusal::new(
            ReasonCode::NotAssignee,
            Step::Locate,
            "the credential is another agent's, whose task the caller may not end",
        ))
    }

    /// Finds a token that Authz issued, and its record.
    ///
    /// # Errors
    /// The store failed.
    fn find_token(
        &self,
        token: &str,
        caller: &ApiCaller<'_>,
    ) -> Result<Result<IssuedToken, InactiveToken>, CallRefusal> {
        let now = seconds(caller.arrival.now_ms);
        let facts = match verify_credential(token, &caller.world.trust, self.tokens(), now) {
            Ok(facts) => facts,
            Err(refusal) => {
                if let Some(owner) = &refusal.unknown_key {
                    self.want_key(owner);
                }
                return Ok(Err(InactiveToken::Unverified(refusal)));
            }
        };
        let key = RecordKey::new(RecordKind::Credential, &facts.jti);
        let Some(Record::Credential(credential)) = self.keeper.peek(&key, caller.wait)? else {
            return Ok(Err(InactiveToken::Forgotten));
        };
        if !is_of_record(&facts, &credential) {
            return Ok(Err(InactiveToken::OtherRecord));
        }
        Ok(Ok(IssuedToken { facts, credential }))
    }
}

impl IssuedToken {
    /// Members of the audit record that name the token.
    fn record(&self) -> ApiRecord {
        let credential = &self.credential;
        let decision_id = match credential.details.as_slice() {
            [detail] => detail.decision_id.clone(),
            _ => String::new(),
        };
        let binding = credential.binding.as_ref().map(Binding::member);
        let note = CredentialNote { jti: credential.jti.clone(), decision_id, binding };
        ApiRecord { credential: Some(note), ..ApiRecord::default() }
    }
}

/// Whether a caller may introspect a token: the owner, the token's agent, and an enforcer that asks about all its operations.
fn may_introspect(credential: &Credential, caller: &ApiCaller<'_>) -> bool {
    let may_ask = |enforcer: &Arc<Enforcer>| {
        // A credential without operations is for nobody's system.
        !credential.details.is_empty()
            && credential.details.iter().all(|detail| enforcer.may_ask(&detail.operation))
    };
    caller.is_owner
        || caller.asker().enforcer.as_ref().is_some_and(may_ask)
        || caller.is_agent(&credential.agent)
}

/// The answer about an active token.
fn active_answer(
    credential: &Credential,
    located: &Located,
    caller: &ApiCaller<'_>,
) -> ApiOutcome<Value> {
    let Some(settings) = &caller.world.credentials else {
        let message = "no decision was made";
        return Err(CallRefusal::new(ReasonCode::Unavailable, Step::Identify, message).into());
    };
    let mut claims = introspected_claims(credential, &located.task, settings)?;
    if let Value::Object(members) = &mut claims {
        members.insert("active".to_owned(), json!(true));
        members.insert("token_type".to_owned(), json!(token_type(credential)));
    }
    let record = ApiRecord::of_task(&located.task);
    Ok(ApiGrant::unchanged(claims, "the token is active").with_record(&record))
}

/// The record of a token in a transaction, and its task, if the token is active.
fn live_in(
    transaction: &mut dyn Transaction,
    token: &IssuedToken,
    revoked: &Revocations,
    now: Time,
) -> Result<(Arc<Credential>, Located), CallRefusal> {
    let key = RecordKey::new(RecordKind::Credential, &token.credential.jti);
    let failed = |error| crate::keeper::refused(&error);
    let Some(Record::Credential(credential)) = transaction.get(&key).map_err(failed)? else {
        let message = "the task credential is no longer kept";
        return Err(CallRefusal::new(ReasonCode::Revoked, Step::Locate, message));
    };
    let located = locate::find_in(transaction, &credential.task)?;
    check_active(&credential, &token.facts.kid, &located, revoked, now)?;
    Ok((credential, located))
}

/// Refuses a credential that cannot be used now: it has ended, it is revoked, or its task is not live.
fn check_active(
    credential: &Credential,
    kid: &str,
    located: &Located,
    revoked: &Revocations,
    now: Time,
) -> Result<(), CallRefusal> {
    let refuse = |reason, message: &str| Err(CallRefusal::new(reason, Step::Locate, message));
    if credential.revoked_at.is_some() {
        return refuse(ReasonCode::Revoked, "the task credential is revoked");
    }
    if credential.is_over(now) {
        return refuse(ReasonCode::ExpiredCredential, "the task credential has ended");
    }
    revoke::of_credential(revoked, &credential.jti, Some(kid))?;
    for detail in &credential.details {
        revoke::of_operation(revoked, &detail.operation)?;
    }
    locate::live(located, revoked, now)
}

/// Revokes a credential in a transaction. Returns the number of permits that were given back.
fn revoke_in(transaction: &mut dyn Transaction, jti: &str, now: Time) -> Result<u64, ChangeError> {
    let key = RecordKey::new(RecordKind::Credential, jti);
    let credential = match transaction.get(&key)? {
        Some(Record::Credential(credential)) if !credential.is_over(now) => credential,
        _ => return Err(ChangeError::Unchanged),
    };
    let mut released = 0_u64;
    for detail in &credential.details {
        let key = RecordKey::new(RecordKind::Reservation, &detail.decision_id);
        if let Some(Record::Reservation(permit)) = transaction.get(&key)?
            && permit.is_unused()
            && permit.credential.as_ref() == Some(&credential.jti)
        {
            release(transaction, &permit, now)?;
            released = released.saturating_add(1);
        }
    }
    let credential = Credential { revoked_at: Some(now), ..Credential::clone(&credential) };
    transaction.put(Record::Credential(Arc::new(credential)));
    Ok(released)
}

/// Whether a refusal says that Authz itself cannot tell.
fn is_own_failure(reason: ReasonCode) -> bool {
    reason.row().public_code == PublicCode::Unavailable
}
