//! Token exchange (RFC 8693): one credential for several operations (RFC 9396).
//!
//! An exchange passes these steps:
//!
//! 1. [`request`]: its JSON is read and bounded.
//! 2. [`placement`]: its task is found, or made if policy lets it be started.
//! 3. [`details`]: each operation is judged, and charged before the next one is judged.
//! 4. [`credential`]: the task, the permits and the credential are written.
//!
//! Steps 3 and 4 are one transaction: the exchange gives all that it asks for, or nothing. Denials of an exchange that gives
//! nothing are counted in a transaction of their own ([`denied`]).

mod credential;
mod denied;
mod details;
mod placement;
mod request;

use authz_kernel::history::{ObjectKeys, Remembering};
use authz_kernel::model::Tier;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{AgentName, Binding, RecordKey, RecordKind, alones_of};

use crate::api_call::{
    ApiCaller, ApiGrant, ApiOutcome, ApiRefusal, GrantedChange, WithRecord as _,
};
use crate::credentials::check_bound;
use crate::engine::Engine;
use crate::exchange::placement::Placement;
use crate::exchange::request::ExchangeRequest;
use crate::history;
use crate::judgement::{ApiRecord, CredentialNote, Judgement};
use crate::limits;
use crate::metrics::CredentialEvent;
use crate::proofs::ProvedRequest;
use crate::refusal::{CallRefusal, Step};
use crate::settings::{CredentialSettings, Surface};
use crate::shown;
use crate::steps::record::KeptRecord;
use crate::steps::settle::survives_of;
use crate::transport::{ApiError, Transport};

/// An exchange whose parts are found and checked, before anything is judged or written.
struct Exchange<'a> {
    /// The caller. Its agent proved the key of `binding`, if there is one.
    caller: &'a ApiCaller<'a>,
    settings: &'a CredentialSettings,
    request: &'a ExchangeRequest,
    /// The agent that the credential is for.
    agent: AgentName,
    placement: Placement,
    audience: String,
    binding: Option<Binding>,
    /// Highest tier of the operations.
    tier: Tier,
    jti: String,
}

impl Engine {
    /// Exchanges tokens for a credential. The request and the answer are JSON.
    pub(crate) fn exchange(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let decode = || {
            self.check_size(request)?;
            serde_json::from_slice::<ExchangeRequest>(request)
                .map_err(|_| CallRefusal::input("the bytes are no such request"))
        };
        let run = |request: &ExchangeRequest, caller: &ApiCaller<'_>| {
            self.exchange_tokens(request, caller)
        };
        self.api_call(Surface::CredentialExchange, transport, decode, run)
    }

    fn exchange_tokens(
        &self,
        request: &ExchangeRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<Vec<u8>> {
        let Some(settings) = &caller.world.credentials else {
            return Err(CallRefusal::input("no credentials are issued here").into());
        };
        let Some(agent) = caller.agent() else {
            return Err(CallRefusal::credential("no agent is known").into());
        };
        let agent = AgentName {
            spiffe_id: agent.spiffe_id.clone(),
            trust_domain: agent.trust_domain.clone(),
        };
        let audience = self.audience_of(request, settings, caller)?;
        let binding = self.prove_exchange_key(request, caller)?;
        let bound = binding.as_ref().map(|_| caller.with_bound_agent());
        let caller = bound.as_ref().unwrap_or(caller);
        let tier = highest_tier(request, caller);
        let record = ApiRecord { tier: Some(tier), ..ApiRecord::default() };
        check_bound(tier, binding.as_ref(), caller)
            .map_err(|refusal| refusal.with_record(&record))?;
        let (placement, found) = self
            .place_exchange(request, &agent, caller)
            .map_err(|refusal| refusal.with_record(&record))?;
        let record = found.or(&record);
        let jti = self.clock.new_id();
        let exchange =
            Exchange { caller, settings, request, agent, placement, audience, binding, tier, jti };
        self.settle_exchange(&exchange, &record)
    }

    /// Proves the key that the credential is to be bound to. The proofs are taken, also if the exchange is refused later.
    fn prove_exchange_key(
        &self,
        request: &ExchangeRequest,
        caller: &ApiCaller<'_>,
    ) -> Result<Option<Binding>, CallRefusal> {
        let key = self.prove_key(caller, request.proof.as_deref().unwrap_or_default())?;
        let sent = Ok(ProvedRequest::to_authz(request.http_uri.clone()));
        let (now, wait) = (caller.now(), caller.wait);
        // Not awaited: the change of the exchange is durable only after its proofs.
        drop(self.take_proofs(&key.proofs, now, &caller.world, &sent, false, wait)?);
        Ok(key.binding)
    }

    /// The one audience of all details.
    fn audience_of(
        &self,
        request: &ExchangeRequest,
        settings: &CredentialSettings,
        caller: &ApiCaller<'_>,
    ) -> Result<String, CallRefusal> {
        if request.details.is_empty() || request.details.len() > limits::LIST {
            let most = limits::LIST;
            return Err(CallRefusal::input(format!("`details` are none, or more than {most}")));
        }
        let mut audience = request.audience.as_deref();
        for detail in &request.details {
            detail.check(self.settings.max_arguments_bytes)?;
            let system = detail.system();
            if !caller.plan().systems().contains_key(system) {
                let message = "there is no such operation";
                return Err(CallRefusal::new(ReasonCode::UnknownOperation, Step::Resolve, message));
            }
            let is_secret = settings.leases.contains_key(system)
                || settings.static_secrets.contains_key(system);
            if is_secret {
                let message = "the system knows no tokens, so none is issued for it";
                return Err(CallRefusal::new(ReasonCode::WrongAudience, Step::Resolve, message));
            }
            let own = settings.audience(system);
            if audience.is_some_and(|audience| audience != own) {
                let message = "a credential is for one audience, and that is another's";
                return Err(CallRefusal::new(ReasonCode::WrongAudience, Step::Resolve, message));
            }
            audience = Some(own);
        }
        Ok(audience.unwrap_or_default().to_owned())
    }

    /// Judges the details and writes the credential. Then records each detail.
    fn settle_exchange(&self, exchange: &Exchange<'_>, record: &ApiRecord) -> ApiOutcome<Vec<u8>> {
        let (details, outcome) = self.write_exchange(exchange, record);
        let outcome = outcome.map_err(|refusal| {
            let counted = self.count_denials(exchange, &details).with_record(&refusal.record);
            counted.err().unwrap_or(refusal)
        });
        self.record_details(exchange, details, outcome.as_ref().err().map(ApiRefusal::reason));
        outcome
    }

    /// Judges the details and writes the credential, in one transaction. Returns the records of the details, also where the
    /// exchange fails.
    fn write_exchange(
        &self,
        exchange: &Exchange<'_>,
        record: &ApiRecord,
    ) -> (Vec<Judgement>, ApiOutcome<Vec<u8>>) {
        let (caller, locks) = (exchange.caller, exchange_locks(exchange));
        let survives = survives_of(exchange.tier);
        let mut details = Vec::new();
        let outcome = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            details = Vec::new();
            let (located, began) = self.locate_exchange(transaction, exchange)?;
            let record = ApiRecord {
                chain: Some(shown::chain_in(&caller.identity, caller.now(), &located)),
                ..ApiRecord::of_task(&located.task)
            };
            let judged = self.judge_details(transaction, exchange, located);
            details = judged.records;
            judged.result.with_record(&record)?;
            let (located, permitted) = (&judged.located, &judged.permitted);
            let (answer, end) = self
                .write_credential(transaction, exchange, located, permitted)
                .with_record(&record)?;
            let credential = Some(exchange.credential_note(String::new()));
            let record = ApiRecord { credential, ..record };
            for detail in &details {
                self.record_with(transaction, detail, &caller.context(), survives)
                    .with_record(&record)?;
            }
            let message = format!("a task credential is issued until {}", end.0);
            Ok(GrantedChange::new((answer, began), message).with_record(record))
        });
        if let Ok(ApiGrant { answer: (_, began), .. }) = &outcome {
            if let Some(kind) = began {
                self.metrics.task_started(*kind);
            }
            self.metrics.credential(CredentialEvent::Issued);
        }
        (details, outcome.map(|grant| grant.map(|(answer, _)| answer)))
    }

    /// Writes the records of the details of an exchange.
    ///
    /// `refused` is the reason of a refused exchange. Default: the records were written with the exchange, and are only counted.
    fn record_details(
        &self,
        exchange: &Exchange<'_>,
        details: Vec<Judgement>,
        refused: Option<ReasonCode>,
    ) {
        let ApiCaller { transport, evidence, .. } = exchange.caller;
        for detail in details {
            let detail = match refused {
                // INVARIANT (all or nothing): no record says that an operation was permitted by a refused exchange.
                Some(reason) if detail.permit().is_some() => {
                    let message = "another part of the exchange was refused";
                    detail.refused(CallRefusal::new(reason, Step::Judge, message))
                }
                _ => detail,
            };
            let line = self.recorded(transport);
            let kept = refused.is_none().then(KeptRecord::elsewhere);
            self.conclude(Box::new(detail), evidence, transport, line, kept);
        }
    }
}

impl Exchange<'_> {
    /// The credential in the audit record of the exchange, or of one of its details.
    ///
    /// `decision_id` is that of the detail; empty for the exchange.
    fn credential_note(&self, decision_id: String) -> CredentialNote {
        let binding = self.binding.as_ref().map(Binding::member);
        CredentialNote { jti: self.jti.clone(), decision_id, binding }
    }
}

/// Highest tier of the operations of an exchange.
fn highest_tier(request: &ExchangeRequest, caller: &ApiCaller<'_>) -> Tier {
    let details = request.details.iter();
    let operations = details.filter_map(|detail| caller.plan().operation(&detail.operation));
    operations.map(|operation| operation.tier).max().unwrap_or_default()
}

/// The records that an exchange is settled under.
fn exchange_locks(exchange: &Exchange<'_>) -> Vec<RecordKey> {
    let (plan, task) = (exchange.caller.plan(), exchange.placement.task());
    let mut locks = vec![
        RecordKey::new(RecordKind::Agent, &exchange.agent.spiffe_id),
        RecordKey::new(RecordKind::Session, &task.session),
    ];
    // The records of the agents above the task change, too.
    let chain = exchange.placement.chain(&exchange.agent);
    let parts = (1..=chain.len()).filter_map(|length| chain.get(..length));
    locks.extend(parts.flat_map(history::counted_in));
    let alones = alones_of(plan, task);
    locks.extend(alones.iter().map(|alone| RecordKey::new(RecordKind::Session, &alone.id)));
    for detail in &exchange.request.details {
        let (operation, remembering) = (&detail.operation, Remembering::default());
        let parties = history::parties(plan, operation, false, remembering, || chain.clone());
        locks.extend(parties.into_iter().map(|(_, record)| record));
        let arguments = detail.arguments_json();
        let objects = plan.objects_of(&detail.request(&arguments, &[]));
        locks.extend(objects.iter().flat_map(ObjectKeys::all).cloned());
    }
    locks
}
