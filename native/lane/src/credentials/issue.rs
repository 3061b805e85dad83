//! `authz.v1.Credentials/Issue`: a credential of a permit that is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::model::Tier;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Binding, Credential, Detail, Lease, LeaseState, Record, RecordKey, RecordKind, Reservation,
};
use authz_state::store::Transaction;
use authz_token::AgentProof;
use serde_json::{Value, json};

use crate::api_call::{ApiCaller, ApiOutcome, ApiRefusal, GrantedChange, WithRecord as _};
use crate::credentials::claims::{seconds, token_answer};
use crate::credentials::key::{CredentialLifetime, ProvedKey, end_of_credential};
use crate::ending::after;
use crate::engine::Engine;
use crate::history;
use crate::judgement::{ApiRecord, CredentialNote};
use crate::keeper::ChangeError;
use crate::locate::{self, Located};
use crate::metrics::CredentialEvent;
use crate::proofs::{ProvedRequest, check_request, lock_of, take_all};
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::request::{check_id, system_of};
use crate::revoke;
use crate::settings::{CredentialSettings, Surface};
use crate::shown;
use crate::steps::settle::survives_of;
use crate::transport::{ApiError, Transport};

/// Path of the method below the issuer, which its proofs are of.
const ISSUE: &str = "/authz.v1.Credentials/Issue";

/// Form of the credential that a system takes.
enum CredentialForm {
    /// A token for this audience.
    Token { audience: String, binding: Option<Binding> },
    /// A secret that a broker leases of the system.
    Lease { broker: String },
    /// A secret that a proxy adds to the request, and that the agent never sees.
    HeaderCredential,
}

/// A credential that may be issued: its permit as it was found, and the order.
struct IssueOrder<'a> {
    settings: &'a CredentialSettings,
    form: CredentialForm,
    permit: Arc<Reservation>,
    key: &'a ProvedKey,
    id: String,
    wished_seconds: u32,
}

impl IssueOrder<'_> {
    const fn is_header_credential(&self) -> bool {
        matches!(self.form, CredentialForm::HeaderCredential)
    }
}

/// A credential as a transaction issues it.
struct IssuedCredential<'a> {
    located: &'a Located,
    /// The permit as the transaction reads it.
    permit: &'a Reservation,
    expires_at: Time,
    now: Time,
    /// Time until which the outcome of the permit may be reported.
    report_until: Time,
}

impl Engine {
    /// Answers an `authz.v1.IssueRequest`. The answer is JSON.
    pub(crate) fn issue(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let decode = || self.decode_message::<wire::IssueRequest>(request);
        let run = |message: &wire::IssueRequest, caller: &ApiCaller<'_>| {
            self.issue_credential(message, caller)
        };
        self.api_call(Surface::CredentialIssue, transport, decode, run)
    }

    /// Turns a permit that is kept into a credential. The answer is JSON: the claims of the token, which the holder of the
    /// signing key signs.
    pub(crate) fn issue_credential(
        &self,
        message: &wire::IssueRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<Vec<u8>> {
        let Some(settings) = &caller.world.credentials else {
            return Err(CallRefusal::input("no credentials are issued here").into());
        };
        check_id("decision_id", &message.decision_id)?;
        check_id("audience", &message.audience)?;
        if message.proof.len() > self.settings.max_token_bytes {
            let most = self.settings.max_token_bytes;
            return Err(
                CallRefusal::credential(format!("`proof` is longer than {most} bytes")).into()
            );
        }
        let key = self.prove_key(caller, &message.proof)?;
        let request = ProvedRequest::to_authz(format!("{}{ISSUE}", settings.issuer));
        check_request(&key.proofs, &Ok(request))?;
        let refusal = match self.issue_for_key(message, settings, &key, caller) {
            Err(refusal) if !key.proofs.is_empty() => refusal,
            issued => return issued,
        };
        // INVARIANT (once): proofs are taken with the credential that is issued for them, or alone if none is issued.
        self.take_proofs_once(&key.proofs, &caller.world, caller.now(), caller.wait)
            .with_record(&refusal.record)?;
        Err(refusal)
    }

    /// Turns a permit into a credential that is bound to a key, and takes the proofs of the call.
    fn issue_for_key(
        &self,
        message: &wire::IssueRequest,
        settings: &CredentialSettings,
        key: &ProvedKey,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<Vec<u8>> {
        let world = &caller.world;
        let permit_key = RecordKey::new(RecordKind::Reservation, &message.decision_id);
        let Some(Record::Reservation(permit)) = self.keeper.peek(&permit_key, caller.wait)? else {
            return Err(unknown_permit().into());
        };
        let system = system_of(&permit.operation).unwrap_or_default();
        let is_known = world.plan.systems().contains_key(system);
        if !is_known || world.plan.operation(&permit.operation).is_none() {
            let message = "the operation of the permit is no longer in the bundle";
            return Err(
                CallRefusal::new(ReasonCode::UnknownOperation, Step::Resolve, message).into()
            );
        }
        let system_id = world.system(&permit.operation);
        let record = ApiRecord::of_operation(&permit.operation, system_id, permit.tier);
        self.check_issue(&message.audience, settings, &permit, caller).with_record(&record)?;
        let form = form_of(settings, &permit, key.binding.as_ref(), caller)
            .map_err(|refusal| refusal.with_record(&record))?;
        let (id, wished_seconds) = (self.clock.new_id(), message.lifetime_seconds);
        let order = IssueOrder { settings, form, permit, key, id, wished_seconds };
        self.write_issue(&order, caller, &record)
    }

    /// Refuses a permit that no credential can be issued of, or not to this caller.
    fn check_issue(
        &self,
        audience: &str,
        settings: &CredentialSettings,
        permit: &Reservation,
        caller: &ApiCaller<'_>,
    ) -> Result<(), CallRefusal> {
        let (plan, now, wait) = (caller.plan(), caller.now(), caller.wait);
        let system = system_of(&permit.operation).unwrap_or_default();
        if !audience.is_empty() && audience != settings.audience(system) {
            return Err(CallRefusal::new(
                ReasonCode::WrongAudience,
                Step::Resolve,
                "the permit is for a system of another audience",
            ));
        }
        let static_secret = settings.static_secrets.get(system);
        check_holder(caller, permit, static_secret.is_some())?;
        if static_secret.is_some_and(|static_secret| static_secret.value.is_none()) {
            let message = "the secret that the system is reached with cannot be read";
            return Err(CallRefusal::new(ReasonCode::Unavailable, Step::Judge, message));
        }
        check_open(permit, now)?;
        if let Ok(located) = locate::find(&self.keeper, &permit.task, wait) {
            self.check_left_out(now, plan, &located, wait)?;
            history::refuse_barred(&self.keeper, plan, &located, now, wait)?;
        }
        Ok(())
    }

    fn write_issue(
        &self,
        order: &IssueOrder<'_>,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<Vec<u8>> {
        let mut locks = vec![RecordKey::new(RecordKind::Session, &order.permit.session)];
        locks.extend(order.key.proofs.iter().map(lock_of));
        let survives = survives_of(order.permit.tier);
        let grant = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            let (world, now) = (&caller.world, caller.now());
            let slack = self.keeper.proof_slack_ms();
            take_all(transaction, &order.key.proofs, world, now, slack)??;
            let permit = open_permit(transaction, &order.permit.decision_id, now)?;
            let located = self.check_issue_in(transaction, order, &permit, caller)?;
            let longest = order.settings.lifetime.of(permit.tier);
            let lifetime = CredentialLifetime { longest, wished: order.wished_seconds };
            let issued = IssuedCredential {
                expires_at: end_of_credential(caller, &located, Some(&permit), lifetime)?,
                report_until: after(now, self.keeper.settings().report_within_ms),
                located: &located,
                permit: &permit,
                now,
            };
            let record = record_of_issue(order, &issued, caller);
            let answer = write_credential(transaction, order, &issued)
                .and_then(|answer| {
                    self.check_token_length(&answer)?;
                    Ok(self.answer_with_nonce(answer, caller))
                })
                .map_err(ChangeError::Refused)
                .with_record(&record)?;
            let message = "a task credential is issued";
            Ok(GrantedChange::new(answer, message).with_record(record))
        })?;
        self.metrics.credential(CredentialEvent::Issued);
        Ok(grant)
    }

    /// Checks a permit again, on the records that a transaction reads. Returns its task.
    fn check_issue_in(
        &self,
        transaction: &mut dyn Transaction,
        order: &IssueOrder<'_>,
        permit: &Reservation,
        caller: &ApiCaller<'_>,
    ) -> Result<Located, CallRefusal> {
        check_holder(caller, permit, order.is_header_credential())?;
        let located = locate::find_in(transaction, &permit.task)?;
        let revoked = self.keeper.revocations()?;
        match order.is_header_credential() {
            true => locate::live(&located, &revoked, caller.now())?,
            false => locate::usable(&located, &revoked, caller.facts(), caller.now())?,
        }
        revoke::of_operation(&revoked, &permit.operation)?;
        Ok(located)
    }
}

/// The form of the credential of a permit.
///
/// # Errors
/// A credential of this tier must be bound to a key, and the call proves none.
fn form_of(
    settings: &CredentialSettings,
    permit: &Reservation,
    binding: Option<&Binding>,
    caller: &ApiCaller<'_>,
) -> Result<CredentialForm, ApiRefusal> {
    let system = system_of(&permit.operation).unwrap_or_default();
    if settings.static_secrets.contains_key(system) {
        return Ok(CredentialForm::HeaderCredential);
    }
    if let Some(broker) = settings.leases.get(system) {
        return Ok(CredentialForm::Lease { broker: broker.clone() });
    }
    check_bound(permit.tier, binding, caller)?;
    let audience = settings.audience(system).to_owned();
    Ok(CredentialForm::Token { audience, binding: binding.cloned() })
}

/// Demands a proof of possession for an unbound credential of a tier whose credentials are bound to a key.
pub(crate) fn check_bound(
    tier: Tier,
    binding: Option<&Binding>,
    caller: &ApiCaller<'_>,
) -> Result<(), ApiRefusal> {
    let required = caller.plan().model().tiers.get(tier as usize);
    let is_required = tier >= Tier::High || required.is_some_and(|required| required.bound);
    match binding {
        None if is_required => {
            let message = "a credential of this tier is bound to a key: prove one";
            Err(ApiRefusal::proof_required(message))
        }
        _ => Ok(()),
    }
}

/// Refuses a caller that may have no credential of a permit. The agent of the permit gets tokens and leases; the enforcer that
/// asked for the permit gets secrets that no agent may see.
fn check_holder(
    caller: &ApiCaller<'_>,
    permit: &Reservation,
    is_header_credential: bool,
) -> Result<(), CallRefusal> {
    if is_header_credential {
        if !permit.enforcer.is_empty() && caller.asker().name() == permit.enforcer {
            return Ok(());
        }
        return Err(CallRefusal::new(
            ReasonCode::EnforcerRefused,
            Step::Identify,
            "the system's secret is given to the enforcer that asked, and to nobody else",
        ));
    }
    let Some(agent) = caller.agent() else {
        return Err(CallRefusal::new(
            ReasonCode::NoCredential,
            Step::Identify,
            "a credential is issued to the agent that was permitted, which proves itself",
        ));
    };
    if agent.proof == AgentProof::TaskCredential || caller.facts().credential.is_some() {
        return Err(CallRefusal::credential("a task credential proves no agent that asks for one"));
    }
    if agent.spiffe_id != permit.agent {
        let message = "another agent was permitted";
        return Err(CallRefusal::new(ReasonCode::NotAssignee, Step::Locate, message));
    }
    Ok(())
}

/// A permit of which a credential can be issued.
fn open_permit(
    transaction: &mut dyn Transaction,
    decision_id: &str,
    now: Time,
) -> Result<Arc<Reservation>, ChangeError> {
    let key = RecordKey::new(RecordKind::Reservation, decision_id);
    let Some(Record::Reservation(permit)) = transaction.get(&key)? else {
        return Err(unknown_permit().into());
    };
    check_open(&permit, now)?;
    Ok(permit)
}

/// Refuses a permit that a credential was issued of, that is over, or that was asked for without a credential.
fn check_open(permit: &Reservation, now: Time) -> Result<(), CallRefusal> {
    if permit.credential.is_some() || permit.redeemed {
        return Err(CallRefusal::new(
            ReasonCode::UsesExhausted,
            Step::Judge,
            "a credential was issued of this permit before",
        ));
    }
    if permit.due <= now {
        return Err(not_permitted("the permit counts as done"));
    }
    // INVARIANT (once): a caller that did not ask for a credential performs the operation itself.
    if !permit.wants_credential {
        return Err(not_permitted("the permit was not asked for with `wants_credential`"));
    }
    Ok(())
}

fn unknown_permit() -> CallRefusal {
    not_permitted("there is no permit of that decision, or it counts as done")
}

fn not_permitted(message: &str) -> CallRefusal {
    CallRefusal::new(ReasonCode::NotPermitted, Step::Judge, message)
}

/// Id of the credential, the lease or the header credential.
fn id_of(order: &IssueOrder<'_>) -> String {
    match order.form {
        CredentialForm::Token { .. } => order.id.clone(),
        CredentialForm::Lease { .. } | CredentialForm::HeaderCredential => {
            format!("{}/{}", order.permit.session, order.id)
        }
    }
}

/// Members of the audit record that the transaction finds out.
fn record_of_issue(
    order: &IssueOrder<'_>,
    issued: &IssuedCredential<'_>,
    caller: &ApiCaller<'_>,
) -> ApiRecord {
    let binding = match &order.form {
        CredentialForm::Token { binding, .. } => binding.as_ref().map(Binding::member),
        CredentialForm::Lease { .. } | CredentialForm::HeaderCredential => None,
    };
    let decision_id = issued.permit.decision_id.clone();
    ApiRecord {
        chain: Some(shown::chain_in(&caller.identity, issued.now, issued.located)),
        credential: Some(CredentialNote { jti: id_of(order), decision_id, binding }),
        ..ApiRecord::of_task(&issued.located.task)
    }
}

/// Writes the record of the credential, and that its permit is used for it. Returns the answer.
fn write_credential(
    transaction: &mut dyn Transaction,
    order: &IssueOrder<'_>,
    issued: &IssuedCredential<'_>,
) -> Result<Value, CallRefusal> {
    let (permit, id) = (issued.permit, id_of(order));
    let system = system_of(&permit.operation).unwrap_or_default();
    let expires_at = seconds(issued.expires_at);
    let (due, answer) = match &order.form {
        CredentialForm::Token { audience, binding } => {
            let credential = token_credential(id.clone(), audience, binding.clone(), issued);
            let answer = token_answer(&credential, &issued.located.task, order.settings)?;
            let due = credential.due();
            transaction.put(Record::Credential(Arc::new(credential)));
            (due, answer)
        }
        CredentialForm::Lease { broker } => {
            let lease = Arc::new(wanted_lease(id.clone(), broker, system, issued));
            let answer = json!({"lease": *lease, "expires_at": expires_at});
            transaction.put(Record::Lease(lease));
            (issued.report_until, answer)
        }
        CredentialForm::HeaderCredential => {
            let static_secret = json!({"system": system, "lease": id});
            let answer = json!({"static_secret": static_secret, "expires_at": expires_at});
            (issued.report_until, answer)
        }
    };
    transaction.put(Record::Reservation(Arc::new(Reservation {
        credential: Some(id),
        due,
        // A token is redeemed when it is presented; a secret cannot be seen again.
        redeemed: !matches!(order.form, CredentialForm::Token { .. }),
        ..Reservation::clone(permit)
    })));
    Ok(answer)
}

fn token_credential(
    jti: String,
    audience: &str,
    binding: Option<Binding>,
    issued: &IssuedCredential<'_>,
) -> Credential {
    let permit = issued.permit;
    Credential {
        jti,
        task: permit.task.clone(),
        session: permit.session.clone(),
        agent: permit.agent.clone(),
        audience: audience.to_owned(),
        details: vec![Detail {
            decision_id: permit.decision_id.clone(),
            operation: permit.operation.clone(),
            resource: permit.resource.clone(),
            arguments_digest: permit.arguments_digest.clone(),
            destinations: permit.destinations.clone(),
        }],
        binding,
        issued_at: issued.now,
        expires_at: issued.expires_at,
        revoked_at: None,
        rest: BTreeMap::new(),
    }
}

/// A lease that the broker has not given yet.
fn wanted_lease(id: String, broker: &str, system: &str, issued: &IssuedCredential<'_>) -> Lease {
    let permit = issued.permit;
    Lease {
        id,
        broker: broker.to_owned(),
        system: system.to_owned(),
        operation: permit.operation.clone(),
        task: permit.task.clone(),
        session: permit.session.clone(),
        decision_id: permit.decision_id.clone(),
        agent: permit.agent.clone(),
        name: String::new(),
        state: LeaseState::Wanted,
        expires_at: issued.expires_at,
        attempts: 0,
        next_try: None,
        last_error: String::new(),
        rest: BTreeMap::new(),
    }
}
