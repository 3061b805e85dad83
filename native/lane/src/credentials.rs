//! `authz.v1.Credentials`: task credentials, issued of a permit that is kept; what they are now; how they end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::Event;
use authz_kernel::model::Tier;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Binding, Credential, Detail, Lease, LeaseState, Record, RecordKey, RecordKind, Reservation,
    Task,
};
use authz_state::store::{StoreError, Transaction};
use authz_token::{AgentFacts, AgentProof, ProofFacts, Role, UnixTime, verify_proof};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Value, json};

use crate::ask::{Refused, Step};
use crate::ending::after;
use crate::engine::Engine;
use crate::history;
use crate::judgement::{CredentialNote, Judgement, name_of};
use crate::keeper::Wait;
use crate::locate::{self, Located};
use crate::metrics::CredentialEvent;
use crate::presented::{Sent, check_sent, lock_of, system_of, take_all};
use crate::proto::authz::v1 as wire;
use crate::settings::CredentialSettings;
use crate::steps::record::ChangeError;
use crate::steps::settle::{forget_answer, survives_of};
use crate::tasks::{Caller, Done, bounded};
use crate::world::Loaded;
use crate::{report, revoke, shown};

/// The type of our authorization details (RFC 9396).
const DETAIL_TYPE: &str = "authz_task";
/// Most bytes of a token's header and signature in Base64, with the dots between.
const TOKEN_FRAME: usize = 256;
/// Where proofs for `Issue` are of, below the issuer.
const ISSUE: &str = "/authz.v1.Credentials/Issue";

/// What a permit is turned into.
enum Issued {
    /// A token: whose audience it has.
    Token { audience: String, binding: Option<Binding> },
    /// A secret that a broker leases of the system.
    Lease { broker: String },
    /// A secret that is put into the request beside the agent.
    Injection,
}

impl Engine {
    /// Turns a permit that is kept into a credential. Answers with what the token shall say: whoever holds the signing key
    /// signs it.
    pub(crate) fn issue(
        &self,
        message: &wire::IssueRequest,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        let world = &caller.world;
        let Some(settings) = &world.credentials else {
            return Err(Refused::input("no credentials are issued here"));
        };
        bounded("decision_id", &message.decision_id)?;
        bounded("audience", &message.audience)?;
        if message.proof.len() > self.settings.max_token_bytes {
            let most = self.settings.max_token_bytes;
            return Err(Refused::credential(format!("`proof` is longer than {most} bytes")));
        }
        let bound = self.prove(judgement, world, &message.proof)?;
        check_sent(
            &judgement.caller.facts.proofs,
            &Ok(Sent::to_us(format!("{}{ISSUE}", settings.issuer))),
        )?;
        let binding = binding_of(judgement, bound);
        let issued = self.issue_bound(message, judgement, caller, settings, binding);
        if judgement.caller.facts.proofs.is_empty() || matches!(issued, Ok((_, Some(_)))) {
            return issued;
        }
        // INVARIANT (once): proofs are taken with what is issued of them, or, where nothing is, by themselves.
        let now = judgement.arrival.now();
        self.remember(&judgement.caller.facts.proofs, world, now, caller.call.wait)?;
        issued
    }

    /// Turns a permit into a credential that is bound to a key, and takes the proofs that came along.
    fn issue_bound(
        &self,
        message: &wire::IssueRequest,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
        settings: &CredentialSettings,
        binding: Option<Binding>,
    ) -> Result<Done, Refused> {
        let world = &caller.world;
        let key = RecordKey::new(RecordKind::Reservation, &message.decision_id);
        let Some(Record::Reservation(kept)) = self.keeper.peek(&key, caller.call.wait)? else {
            return Err(no_permit("there is no permit of that decision, or it counts as done"));
        };
        let system = system_of(&kept.operation).unwrap_or_default();
        let is_known = world.plan.systems().contains_key(system);
        if !is_known || world.plan.operation(&kept.operation).is_none() {
            let message = "the operation of the permit is no longer in the bundle";
            return Err(Refused::new(ReasonCode::UnknownOperation, Step::Resolve, message));
        }
        judgement.resolved.operation.clone_from(&kept.operation);
        judgement.resolved.system = world.system(&kept.operation);
        judgement.resolved.tier = Some(kept.tier);
        let audience = settings.audience(system);
        if !message.audience.is_empty() && message.audience != audience {
            return Err(Refused::new(
                ReasonCode::WrongAudience,
                Step::Resolve,
                "the permit is for a system of another audience",
            ));
        }
        let injection = settings.injections.get(system);
        let is_injected = injection.is_some();
        self.may_have(judgement, &kept, is_injected)?;
        if injection.is_some_and(|injection| injection.value.is_none()) {
            let message = "the secret that the system is reached with cannot be read";
            return Err(Refused::new(ReasonCode::Unavailable, Step::Judge, message));
        }
        check_open(&kept, judgement.arrival.now())?;
        if let Ok(found) = locate::find(&self.keeper, &kept.task, caller.call.wait) {
            self.check_left_out(judgement.arrival.now(), &world.plan, &found, caller.call.wait)?;
            let at = (judgement.arrival.now(), caller.call.wait);
            history::refuse_barred(&self.keeper, &world.plan, &found, at)?;
        }
        let issued = match settings.leases.get(system) {
            _ if is_injected => Issued::Injection,
            Some(broker) => Issued::Lease { broker: broker.clone() },
            None => {
                let required = world.plan.model().tiers.get(kept.tier as usize);
                let is_required = required.is_some_and(|required| required.bound);
                if binding.is_none() && (is_required || kept.tier >= Tier::High) {
                    judgement.wants_proof("a credential of this tier is bound to a key: prove one");
                    return Ok((Vec::new(), None));
                }
                Issued::Token { audience: audience.to_owned(), binding }
            }
        };
        let mut locks = vec![RecordKey::new(RecordKind::Session, &kept.session)];
        locks.extend(judgement.caller.facts.proofs.iter().map(lock_of));
        let survives = survives_of(kept.tier);
        let id = self.clock.new_id();
        let mut answer = Vec::new();
        let kept = self.change(
            judgement,
            &caller.call,
            &locks,
            survives,
            &mut |transaction, judgement| {
                let now = judgement.arrival.now();
                let slack = self.keeper.proof_slack_ms();
                take_all(transaction, &judgement.caller.facts.proofs, world, now, slack)??;
                let permit = open_permit(transaction, &key, now)?;
                self.may_have(judgement, &permit, is_injected)?;
                let located = locate::find_in(transaction, &permit.task)?;
                let revoked = self.keeper.revocations()?;
                if is_injected {
                    locate::live(&located, &revoked, now)?;
                } else {
                    locate::usable(&located, &revoked, &judgement.caller.facts, now)?;
                }
                revoke::of_operation(&revoked, &permit.operation)?;
                let longest = settings.lifetime.of(permit.tier);
                let of = (&located, Some(&*permit));
                let ends = self.ends(judgement, of, longest, message.lifetime_seconds)?;
                judgement.context.task = Some(Arc::clone(&located.task));
                judgement.caller.chain =
                    shown::chain_in(&judgement.caller, judgement.arrival.now(), &located);
                let made = self.issued(
                    transaction,
                    judgement,
                    settings,
                    &located,
                    &permit,
                    &id,
                    ends,
                    &issued,
                )?;
                self.check_length(&made)?;
                answer = self.with_nonce(made, world, judgement);
                judgement.grant("a task credential is issued");
                Ok(())
            },
        )?;
        if kept.is_some() {
            self.metrics.credential(CredentialEvent::Issued);
        }
        Ok((answer, kept))
    }

    /// Whether the caller may have a credential of a permit: the agent that was permitted, for itself; where the secret is
    /// one that no agent may see, the enforcer that asked.
    fn may_have(
        &self,
        judgement: &Judgement,
        permit: &Reservation,
        is_injected: bool,
    ) -> Result<(), Refused> {
        if is_injected {
            if !permit.enforcer.is_empty() && judgement.arrival.asker.name() == permit.enforcer {
                return Ok(());
            }
            return Err(Refused::new(
                ReasonCode::EnforcerRefused,
                Step::Identify,
                "the system's secret is given to the enforcer that asked, and to nobody else",
            ));
        }
        let Some(agent) = &judgement.caller.facts.agent else {
            return Err(Refused::new(
                ReasonCode::NoCredential,
                Step::Identify,
                "a credential is issued to the agent that was permitted, which proves itself",
            ));
        };
        if agent.proof == AgentProof::TaskCredential || judgement.caller.facts.credential.is_some()
        {
            return Err(Refused::credential("a task credential proves no agent that asks for one"));
        }
        if agent.spiffe_id != permit.agent {
            return Err(Refused::new(
                ReasonCode::NotAssignee,
                Step::Locate,
                "another agent was permitted",
            ));
        }
        Ok(())
    }

    /// The key that a credential is bound to: the one that is proved, else that of the agent's own certificate. Proofs are
    /// taken, whatever comes of the call.
    ///
    /// Args: `proof`: as of [`Self::prove`]. `uri`: what it is of.
    pub(crate) fn binding(
        &self,
        judgement: &mut Judgement,
        world: &Loaded,
        proof: &str,
        uri: String,
        wait: Wait,
    ) -> Result<Option<Binding>, Refused> {
        let bound = self.prove(judgement, world, proof)?;
        judgement.resolved.proved = self.take_proofs(
            &judgement.caller.facts.proofs,
            judgement.arrival.now(),
            world,
            &Ok(Sent::to_us(uri)),
            false,
            wait,
        )?;
        Ok(binding_of(judgement, bound))
    }

    /// Verifies a proof of the key that is wished for, and puts it with those that came with tokens. None is taken yet.
    ///
    /// Args: `proof`: empty: none.
    ///
    /// Returns: the thumbprint of the key.
    fn prove(
        &self,
        judgement: &mut Judgement,
        world: &Loaded,
        proof: &str,
    ) -> Result<Option<String>, Refused> {
        if proof.is_empty() {
            return Ok(None);
        }
        let now = UnixTime(judgement.arrival.now_ms.div_euclid(1_000));
        let verified = self.with_nonces(world, now, |nonces| verify_proof(proof, &nonces, now));
        let proved = verified.map_err(|refusal| Refused::of_token(&refusal))?;
        let bound = proved.jkt.clone();
        let is_it =
            |known: &ProofFacts| known.jkt == proved.jkt && known.jti_digest == proved.jti_digest;
        if !judgement.caller.facts.proofs.iter().any(is_it) {
            judgement.caller.facts.proofs.push(proved);
        }
        Ok(Some(bound))
    }

    /// Refuses what would make a token that nobody may present, for its length.
    pub(crate) fn check_length(&self, answer: &Value) -> Result<(), Refused> {
        let claims = answer.get("claims").and_then(Value::as_str).map_or(0, str::len);
        // Base64, with header and signature.
        let token = claims.div_ceil(3).saturating_mul(4).saturating_add(TOKEN_FRAME);
        let most = self.settings.max_token_bytes;
        if token > most {
            return Err(Refused::input(format!("the credential is longer than {most} bytes")));
        }
        Ok(())
    }

    /// An answer, with the nonce for the next proof where there is one.
    pub(crate) fn with_nonce(
        &self,
        mut answer: Value,
        world: &Loaded,
        judgement: &Judgement,
    ) -> Vec<u8> {
        if let (Value::Object(members), Some(nonce)) =
            (&mut answer, self.next_nonce(world, judgement))
        {
            members.insert("dpop_nonce".to_owned(), json!(nonce));
        }
        answer.to_string().into_bytes()
    }

    /// The nonce to put into the next proof, where this server wants one in each.
    fn next_nonce(&self, world: &Loaded, judgement: &Judgement) -> Option<String> {
        let now = UnixTime(judgement.arrival.now_ms.div_euclid(1_000));
        world.dpop().require_nonce.then(|| self.nonces(now).into_current())
    }

    /// When a credential ends: after `longest` seconds, as it is wished, and no later than its task, all above it, and the
    /// subject's token: the one that comes along and the one that was shown for the permit; where there is neither, the
    /// newest that was shown in the task.
    ///
    /// Args: the task, and the permit; none where it is made now.
    pub(crate) fn ends(
        &self,
        judgement: &Judgement,
        (located, permit): (&Located, Option<&Reservation>),
        longest: u32,
        wish: u32,
    ) -> Result<Time, Refused> {
        let now = judgement.arrival.now();
        let seconds = if wish == 0 { longest } else { longest.min(wish) };
        let end = after(now, u64::from(seconds).saturating_mul(1_000));
        let end = located.path().map(|task| task.deadline).fold(end, Time::min);
        let for_permit = permit.and_then(|permit| permit.subject_until);
        let shown = shown::ends(&judgement.caller).into_iter().chain(for_permit).min();
        // INVARIANT (never longer than its subject): to leave the token out makes no credential last longer.
        let token = shown.or(located.view().root().subject_until);
        let end = token.map_or(end, |token| end.min(token));
        // A token tells whole seconds.
        let end = Time(end.0.div_euclid(1_000).saturating_mul(1_000));
        if end <= now {
            let message = "the task, or the subject's token, ends within a second";
            return Err(Refused::new(ReasonCode::TaskEnded, Step::Locate, message));
        }
        Ok(end)
    }

    /// Writes the record of what is issued, and that its permit is spoken for.
    #[expect(clippy::too_many_arguments, reason = "one call, and each is another thing")]
    fn issued(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &mut Judgement,
        settings: &CredentialSettings,
        located: &Located,
        permit: &Reservation,
        id: &str,
        expires_at: Time,
        issued: &Issued,
    ) -> Result<Value, Refused> {
        let now = judgement.arrival.now();
        let done = after(now, self.keeper.settings().report_within_ms);
        let note = |id: &str, binding: Option<&Binding>| CredentialNote {
            jti: id.to_owned(),
            decision_id: permit.decision_id.clone(),
            binding: binding.map(Binding::member),
        };
        let (name, due, redeemed, answer) = match issued {
            Issued::Token { audience, binding } => {
                let credential = Arc::new(Credential {
                    jti: id.to_owned(),
                    task: permit.task.clone(),
                    session: permit.session.clone(),
                    agent: permit.agent.clone(),
                    audience: audience.clone(),
                    details: vec![detail_of(permit)],
                    binding: binding.clone(),
                    issued_at: now,
                    expires_at,
                    revoked_at: None,
                    rest: BTreeMap::new(),
                });
                judgement.caller.credential = Some(note(id, binding.as_ref()));
                let answer = answer_of(&credential, &located.task, settings)?;
                let due = credential.due();
                transaction.put(Record::Credential(credential));
                (id.to_owned(), due, false, answer)
            }
            Issued::Lease { broker } => {
                let id = format!("{}/{id}", permit.session);
                let system = system_of(&permit.operation).unwrap_or_default();
                let lease = Arc::new(Lease {
                    id: id.clone(),
                    broker: broker.clone(),
                    system: system.to_owned(),
                    operation: permit.operation.clone(),
                    task: permit.task.clone(),
                    session: permit.session.clone(),
                    decision_id: permit.decision_id.clone(),
                    agent: permit.agent.clone(),
                    name: String::new(),
                    state: LeaseState::Wanted,
                    expires_at,
                    attempts: 0,
                    next_try: None,
                    last_error: String::new(),
                    rest: BTreeMap::new(),
                });
                judgement.caller.credential = Some(note(&id, None));
                let answer = json!({"lease": *lease, "expires_at": seconds(expires_at)});
                transaction.put(Record::Lease(lease));
                (id, done, true, answer)
            }
            Issued::Injection => {
                let id = format!("{}/{id}", permit.session);
                judgement.caller.credential = Some(note(&id, None));
                let system = system_of(&permit.operation).unwrap_or_default();
                let injection = json!({"system": system, "lease": id});
                let answer = json!({"injection": injection, "expires_at": seconds(expires_at)});
                (id, done, true, answer)
            }
        };
        transaction.put(Record::Reservation(Arc::new(Reservation {
            credential: Some(name),
            due,
            redeemed,
            ..Reservation::clone(permit)
        })));
        Ok(answer)
    }
}

/// Gives back what a permit counted, since nothing can come of it any more, and forgets it.
pub(crate) fn release(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
    now: Time,
) -> Result<(), StoreError> {
    give_back(transaction, permit)?;
    forget_answer(transaction, permit)?;
    report::settle_unreported(transaction, permit, Event::Aborted, now)?;
    transaction.delete(RecordKey::new(RecordKind::Reservation, &permit.decision_id));
    Ok(())
}

/// Gives back the uses that a permit counted.
pub(crate) fn give_back(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
) -> Result<(), StoreError> {
    let mut tasks: Vec<&str> = permit.charged.iter().map(|(task, _)| task.as_str()).collect();
    tasks.sort_unstable();
    tasks.dedup();
    for id in tasks {
        if let Some(Record::Task(task)) = transaction.get(&RecordKey::new(RecordKind::Task, id))? {
            let mut task = Task::clone(&task);
            task.release(&permit.charged);
            transaction.put(Record::Task(Arc::new(task)));
        }
    }
    Ok(())
}

/// What a credential is bound to.
///
/// Args: `wished`: the thumbprint of the key that was proved for it.
fn binding_of(judgement: &Judgement, wished: Option<String>) -> Option<Binding> {
    // A token of the agent that is bound to a key has proved it.
    let own = judgement.caller.facts.proofs.iter().find(|proof| proof.role == Role::Agent);
    match wished.or_else(|| own.map(|proof| proof.jkt.clone())) {
        Some(jkt) => Some(Binding::Jkt(jkt)),
        None => certificate_binding(judgement),
    }
}

/// The certificate of an agent that asks for itself by TLS, as a binding.
pub(crate) fn certificate_binding(judgement: &Judgement) -> Option<Binding> {
    let peer = judgement.arrival.asker.peer.as_ref().filter(|_| judgement.arrival.asks_itself)?;
    let agent: &AgentFacts = judgement.caller.facts.agent.as_ref()?;
    let digest = (agent.spiffe_id == peer.spiffe_id).then_some(peer.certificate_digest)?;
    Some(Binding::X5t(URL_SAFE_NO_PAD.encode(digest)))
}

/// A permit of which a credential can be issued.
fn open_permit(
    transaction: &mut dyn Transaction,
    key: &RecordKey,
    now: Time,
) -> Result<Arc<Reservation>, ChangeError> {
    let Some(Record::Reservation(permit)) = transaction.get(key)? else {
        return Err(no_permit("there is no permit of that decision, or it counts as done").into());
    };
    check_open(&permit, now)?;
    Ok(permit)
}

fn check_open(permit: &Reservation, now: Time) -> Result<(), Refused> {
    if permit.credential.is_some() || permit.redeemed {
        return Err(Refused::new(
            ReasonCode::UsesExhausted,
            Step::Judge,
            "a credential was issued of this permit before",
        ));
    }
    if permit.due <= now {
        return Err(no_permit("the permit counts as done"));
    }
    // INVARIANT (once): whoever did not ask for a credential performs what is permitted itself.
    if !permit.wants_credential {
        return Err(no_permit("the permit was not asked for with `wants_credential`"));
    }
    Ok(())
}

fn no_permit(message: &str) -> Refused {
    Refused::new(ReasonCode::NotPermitted, Step::Judge, message)
}

/// What a permit lets a credential say.
fn detail_of(permit: &Reservation) -> Detail {
    Detail {
        decision_id: permit.decision_id.clone(),
        operation: permit.operation.clone(),
        resource: permit.resource.clone(),
        arguments_digest: permit.arguments_digest.clone(),
        destinations: permit.destinations.clone(),
    }
}

/// The token, as whoever signs it is told.
pub(crate) fn answer_of(
    credential: &Credential,
    task: &Task,
    settings: &CredentialSettings,
) -> Result<Value, Refused> {
    let text = serde_json::to_string(&claims(credential, task, settings));
    Ok(json!({
        // As a text: it is signed as it stands.
        "claims": text.map_err(|_| unwritten())?,
        "token_type": token_type(credential),
        "expires_at": seconds(credential.expires_at),
        "task": credential.task,
    }))
}

pub(crate) const fn token_type(credential: &Credential) -> &'static str {
    match credential.binding {
        Some(Binding::Jkt(_)) => "DPoP",
        Some(Binding::X5t(_)) | None => "Bearer",
    }
}

/// What a token says: the same at every time.
#[derive(Serialize)]
struct Claims<'a> {
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

/// Who acts (RFC 8693 §4.1).
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

fn claims<'a>(
    credential: &'a Credential,
    task: &'a Task,
    settings: &'a CredentialSettings,
) -> Claims<'a> {
    let mut agents = task.agents.iter().map(|agent| agent.spiffe_id.as_str());
    let sub = match &task.subject {
        Some(subject) => Cow::Owned(name_of(&subject.principal()).into_owned()),
        None => Cow::Borrowed(agents.next().unwrap_or_default()),
    };
    Claims {
        iss: &settings.issuer,
        sub,
        client_id: &credential.agent,
        aud: &credential.audience,
        iat: seconds(credential.issued_at),
        exp: seconds(credential.expires_at),
        jti: &credential.jti,
        task: &credential.task,
        authorization_details: credential.details.iter().map(detail).collect(),
        // The innermost is the first that acted; whoever acts now stands outermost.
        act: agents.fold(None, |act, sub| Some(Box::new(Actor { sub, act }))),
        cnf: credential
            .binding
            .as_ref()
            .map(|binding| BTreeMap::from([(binding.member(), binding.value())])),
    }
}

/// What a token says, as it is asked for later.
pub(crate) fn claims_of(
    credential: &Credential,
    task: &Task,
    settings: &CredentialSettings,
) -> Result<Value, Refused> {
    serde_json::to_value(claims(credential, task, settings)).map_err(|_| unwritten())
}

fn detail(detail: &Detail) -> AuthorizationDetail<'_> {
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

fn unwritten() -> Refused {
    Refused::new(ReasonCode::Unavailable, Step::Record, "the claims cannot be written")
}

/// Whole seconds since 1970.
const fn seconds(time: Time) -> i64 {
    time.0.div_euclid(1_000)
}
