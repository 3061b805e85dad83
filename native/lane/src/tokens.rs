//! What a task credential is now (RFC 7662), and how it ends before its time (RFC 7009).

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    AgentName, Credential, Record, RecordKey, RecordKind, Revocations, TaskStatus,
};
use authz_state::store::{Survives, Transaction};
use authz_token::{AgentFacts, AgentProof, CredentialFacts, Facts, UnixTime, verify_credential};
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ask::{Refused, Step};
use crate::credentials::{claims_of, release, token_type};
use crate::engine::Engine;
use crate::history;
use crate::judgement::{Asker, CredentialNote, EnforcerProof, Judgement};
use crate::locate::{self, Located};
use crate::metrics::CredentialEvent;
use crate::proto::authz::v1 as wire;
use crate::revoke;
use crate::settings::Surface;
use crate::steps::record::{ChangeContext, ChangeError, GrantedChange, KeptRecord};
use crate::tasks::{Caller, END, may_end};
use crate::transport::{ApiError, Transport};
use crate::world::Loaded;

/// A client of a token endpoint, as the server has authenticated it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    spiffe_id: String,
    how: How,
}

/// How the server knows a client.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    X509Svid,
    JwtSvid,
}

/// What is asked of a token.
#[derive(Debug)]
struct Question {
    evidence: Vec<wire::Evidence>,
    token: String,
    client: Option<Client>,
}

/// The same over HTTP.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpQuestion {
    client: Client,
    token: String,
}

/// A token of ours and its record, or why there is none.
type FoundToken = Result<(Arc<CredentialFacts>, Arc<Credential>), String>;

impl Engine {
    /// Answers what is asked about a token. The answer is JSON.
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
            question(surface, request, is_http)
        };
        let (record, answer) = self.api_call(
            surface,
            transport,
            decode,
            |asked, transport, record, presented, line| {
                let (world, is_owner) = match &asked.client {
                    Some(client) => self.client(record, client, transport)?,
                    None => self.caller(record, &asked.evidence, presented, transport)?,
                };
                let wait = self.wait_of(transport);
                let call = ChangeContext { evidence: presented, recorded: line, wait };
                let caller = Caller { world, call, is_owner };
                if surface == Surface::CredentialIntrospect {
                    let known = self.introspect(&asked.token, record, &caller)?;
                    return Ok((known.to_string().into_bytes(), None));
                }
                let kept = self.revoke_token(&asked.token, record, &caller)?;
                Ok((b"{}".to_vec(), kept))
            },
        );
        match (record.granted(), answer) {
            (Ok(()), answer) => answer.ok_or_else(|| self.failed_inside()),
            // To a client it is none of its business whose token it has, or whether it is one (RFC 7009 §2.2). The refusal is
            // recorded, and nothing was done.
            (Err(error), None) if is_http && error.reason_code == ReasonCode::NotAssignee => {
                Ok(b"{}".to_vec())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// A client whom the server has authenticated: an enforcer, or an agent that asks for itself.
    pub(crate) fn client(
        &self,
        judgement: &mut Judgement,
        client: &Client,
        transport: &Transport<'_>,
    ) -> Result<(Arc<Loaded>, bool), Refused> {
        let world = self.admit(&judgement.arrival, transport)?;
        let agent = client.facts()?;
        let peer =
            judgement.arrival.asker.peer.take().filter(|peer| peer.spiffe_id == agent.spiffe_id);
        let enforcer = world.enforcer_of(&agent.spiffe_id).cloned();
        let known = if enforcer.is_some() { EnforcerProof::Certificate } else { EnforcerProof::No };
        judgement.arrival.asks_itself = enforcer.is_none();
        judgement.arrival.asker = Asker { enforcer, known, peer };
        let facts = Facts { agent: Some(Arc::new(agent)), ..Facts::default() };
        revoke::of_callers(&*self.keeper.revocations()?, &facts)?;
        judgement.caller.chain = crate::steps::identify::chain_of(&facts);
        judgement.caller.facts = facts;
        Ok((world, false))
    }

    /// What is known of a token: nothing, where it is not active or the caller has nothing to do with it.
    fn introspect(
        &self,
        token: &str,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Value, Refused> {
        let inactive = json!({"active": false});
        let (facts, credential) = match self.found_token(token, judgement, caller)? {
            Ok(found) => found,
            Err(why) => {
                judgement.grant(format!("the token is not active: {why}"));
                return Ok(inactive);
            }
        };
        let agent = judgement.caller.facts.agent.as_ref().map(|agent| agent.spiffe_id.as_str());
        let asks = |operation: &str| {
            let enforcer = judgement.arrival.asker.enforcer.as_ref();
            enforcer.is_some_and(|enforcer| enforcer.may_ask(operation))
        };
        let is_asked_of = credential.details.iter().all(|detail| asks(&detail.operation));
        if !(caller.is_owner || is_asked_of || agent == Some(credential.agent.as_str())) {
            judgement
                .grant("the caller is neither the token's agent nor an enforcer of its system");
            return Ok(inactive);
        }
        let Some(settings) = &caller.world.credentials else { return Ok(inactive) };
        let locks = [RecordKey::new(RecordKind::Session, &credential.session)];
        let mut told = Err(Refused::credential("the store told nothing"));
        let mut work = |transaction: &mut dyn Transaction| {
            let revoked = self.keeper.store().revocations();
            told =
                live_in(transaction, &credential, &facts.kid, &revoked, judgement.arrival.now_ms);
            Ok(false)
        };
        let commit = self.keeper.transact(&locks, Survives::Crash, caller.call.wait, &mut work)?;
        self.keeper.kept(commit, caller.call.wait)?;
        let (credential, located) = match told {
            Ok(told) => told,
            Err(refused) if is_own_failure(refused.reason) => return Err(refused),
            Err(refused) => {
                judgement.grant(format!("the token is not active: {}", refused.message));
                return Ok(inactive);
            }
        };
        let plan = &caller.world.plan;
        let wait = caller.call.wait;
        let usable =
            self.check_left_out(judgement.arrival.now(), plan, &located, wait).and_then(|()| {
                let at = (judgement.arrival.now(), wait);
                history::refuse_barred(&self.keeper, plan, &located, at)
            });
        if let Err(refused) = usable {
            if is_own_failure(refused.reason) {
                return Err(refused);
            }
            judgement.grant(format!("the token is not active: {}", refused.message));
            return Ok(inactive);
        }
        judgement.grant("the token is active");
        let mut known = claims_of(&credential, &located.task, settings)?;
        if let Value::Object(members) = &mut known {
            members.insert("active".to_owned(), json!(true));
            members.insert("token_type".to_owned(), json!(token_type(&credential)));
        }
        judgement.context.task = Some(located.task);
        Ok(known)
    }

    /// Ends a credential; nobody can use it from then on, and what nobody used of it is given back.
    fn revoke_token(
        &self,
        token: &str,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Option<KeptRecord>, Refused> {
        let credential = match self.found_token(token, judgement, caller)? {
            Ok((_, credential)) => credential,
            Err(why) => {
                judgement.grant(format!("the token was not active: {why}"));
                return Ok(None);
            }
        };
        self.may_revoke(&credential, judgement, caller)?;
        let key = RecordKey::new(RecordKind::Credential, &credential.jti);
        let locks = [RecordKey::new(RecordKind::Session, &credential.session)];
        let survives = Survives::PowerLoss;
        let mut released = 0_u64;
        let kept = self.change_granted(
            judgement,
            &caller.call,
            &locks,
            survives,
            &mut |transaction, judgement| {
                let now = judgement.arrival.now();
                let credential = match transaction.get(&key)? {
                    Some(Record::Credential(one)) if !one.is_over(now) => one,
                    _ => return Err(ChangeError::Unchanged),
                };
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
                let credential =
                    Credential { revoked_at: Some(now), ..Credential::clone(&credential) };
                transaction.put(Record::Credential(Arc::new(credential)));
                Ok(GrantedChange::new("the task credential is revoked"))
            },
        )?;
        if kept.is_some() {
            self.metrics.credential(CredentialEvent::Revoked);
            self.metrics.released(released);
        } else {
            judgement.grant("the token was not active");
        }
        Ok(kept)
    }

    /// Its agent, whoever may end its task, and the owner of the administration socket revoke a credential.
    fn may_revoke(
        &self,
        credential: &Credential,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<(), Refused> {
        let agent = judgement.caller.facts.agent.as_ref();
        if caller.is_owner || agent.is_some_and(|agent| agent.spiffe_id == credential.agent) {
            return Ok(());
        }
        let located = locate::find(&self.keeper, &credential.task, caller.call.wait);
        let may = match &located {
            Ok(located) => may_end(located, judgement, TaskStatus::Revoked),
            Err(refused) if is_own_failure(refused.reason) => return Err(refused.clone()),
            Err(_) => false,
        };
        let chain = judgement.caller.chain.clone();
        if may || self.permitted(judgement, &caller.world, &chain, None, END, b"").is_ok() {
            return Ok(());
        }
        Err(Refused::new(
            ReasonCode::NotAssignee,
            Step::Locate,
            "the credential is another agent's, whose task the caller may not end",
        ))
    }

    /// A token that we issued, and its record. Errors inside: why it is none, or is none any more.
    fn found_token(
        &self,
        token: &str,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<FoundToken, Refused> {
        let now = UnixTime(judgement.arrival.now_ms.div_euclid(1_000));
        let facts = match verify_credential(token, &caller.world.trust, self.tokens(), now) {
            Ok(facts) => facts,
            Err(refusal) => {
                if let Some(owner) = &refusal.unknown_key {
                    self.want_key(owner);
                }
                return Ok(Err(refusal.to_string()));
            }
        };
        let key = RecordKey::new(RecordKind::Credential, &facts.jti);
        let Some(Record::Credential(credential)) = self.keeper.peek(&key, caller.call.wait)? else {
            return Ok(Err("it is no longer kept".to_owned()));
        };
        if !is_of(&facts, &credential) {
            return Ok(Err("it is not the one of its record".to_owned()));
        }
        let is_single = credential.details.len() == 1;
        let first = credential.details.first();
        judgement.caller.credential = Some(CredentialNote {
            jti: credential.jti.clone(),
            decision_id: first
                .filter(|_| is_single)
                .map(|detail| detail.decision_id.clone())
                .unwrap_or_default(),
            binding: credential.binding.as_ref().map(authz_kernel::task::Binding::member),
        });
        Ok(Ok((facts, credential)))
    }
}

impl Client {
    /// The agent that it is.
    pub(crate) fn facts(&self) -> Result<AgentFacts, Refused> {
        let name = AgentName::parse(&self.spiffe_id)
            .map_err(|why| Refused::input(format!("`client`: {why}")))?;
        let proof = match self.how {
            How::X509Svid => AgentProof::X509Svid,
            How::JwtSvid => AgentProof::JwtSvid,
        };
        Ok(AgentFacts::named(name.spiffe_id, name.trust_domain, proof))
    }
}

/// Whether a record is that of a token.
pub(crate) fn is_of(facts: &CredentialFacts, credential: &Credential) -> bool {
    let known = credential.binding.as_ref().map(|known| (known.member(), known.value()));
    let said = facts.binding.map(|binding| (binding.method(), binding.text()));
    credential.jti == facts.jti
        && credential.task == facts.task
        && credential.agent == facts.agent
        && credential.audience == facts.audience
        && known == said.as_ref().map(|(member, value)| (*member, value.as_str()))
}

/// A credential as it is now, if it is active.
fn live_in(
    transaction: &mut dyn Transaction,
    credential: &Credential,
    kid: &str,
    revoked: &Revocations,
    now_ms: i64,
) -> Result<(Arc<Credential>, Located), Refused> {
    let key = RecordKey::new(RecordKind::Credential, &credential.jti);
    let failed = |error| crate::keeper::refused(&error);
    let Some(Record::Credential(credential)) = transaction.get(&key).map_err(failed)? else {
        let message = "the task credential is no longer kept";
        return Err(Refused::new(ReasonCode::Revoked, Step::Locate, message));
    };
    let located = locate::find_in(transaction, &credential.task)?;
    active(&credential, Some(kid), &located, revoked, Time(now_ms))?;
    Ok((credential, located))
}

/// Refuses a credential that nobody can use now: it has ended, it is revoked, or its task is not live.
pub(crate) fn active(
    credential: &Credential,
    kid: Option<&str>,
    located: &Located,
    revoked: &Revocations,
    now: Time,
) -> Result<(), Refused> {
    let refuse = |reason, message: &str| Err(Refused::new(reason, Step::Locate, message));
    if credential.revoked_at.is_some() {
        return refuse(ReasonCode::Revoked, "the task credential is revoked");
    }
    if credential.is_over(now) {
        return refuse(ReasonCode::ExpiredCredential, "the task credential has ended");
    }
    revoke::of_credential(revoked, &credential.jti, kid)?;
    for detail in &credential.details {
        revoke::of_operation(revoked, &detail.operation)?;
    }
    locate::live(located, revoked, now)
}

/// Whether it is we that cannot tell.
fn is_own_failure(reason: ReasonCode) -> bool {
    use authz_kernel::reason::PublicCode;
    reason.row().public_code == PublicCode::Unavailable
}

fn question(surface: Surface, request: &[u8], is_http: bool) -> Result<Question, Refused> {
    if is_http {
        let HttpQuestion { client, token } = serde_json::from_slice(request)
            .map_err(|_| Refused::input("the bytes are no such question"))?;
        return Ok(Question { evidence: Vec::new(), token, client: Some(client) });
    }
    let unread = |_| Refused::input("the bytes are no such request");
    let (evidence, token) = if surface == Surface::CredentialIntrospect {
        let message = wire::IntrospectRequest::decode(request).map_err(unread)?;
        (message.evidence, message.token)
    } else {
        let message = wire::CredentialsRevokeRequest::decode(request).map_err(unread)?;
        (message.evidence, message.token)
    };
    Ok(Question { evidence, token, client: None })
}
