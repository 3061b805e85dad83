//! `Explain`: a decision without effect, with all facts that it depends on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use authz_kernel::decide::decide;
use authz_kernel::reason::ReasonCode;
use authz_token::Evidence;
use prost::Message;

use crate::answer;
use crate::api_call::{check_admin, refuse_proofs, refuse_task_credential};
use crate::engine::{Engine, own};
use crate::judgement::{Arrival, CallerIdentity, Judgement, ResolvedOperation, TaskContext};
use crate::proto::authz::v1 as wire;
use crate::record;
use crate::refusal::{CallRefusal, Step};
use crate::request::{self, CallRequest};
use crate::settings::Surface;
use crate::steps::judge::kernel_facts;
use crate::steps::{self, Call};
use crate::transport::{ApiError, Transport};
use crate::world::Loaded;

/// Operation that policies judge.
const EXPLAIN: &str = "authz.explain";

impl Engine {
    /// Judges without effect and answers all facts of the decision. The answer is an `authz.v1.ExplainResponse`.
    ///
    /// # Errors
    /// The listener is not an administration listener, the caller has no permit for `authz.explain`, or the request cannot be
    /// explained in this version.
    pub fn explain(&self, request: &[u8], transport: &Transport<'_>) -> Result<Vec<u8>, ApiError> {
        catch_unwind(AssertUnwindSafe(|| self.try_explain(request, transport)))
            .unwrap_or_else(|_| Err(self.failed_inside()))
    }

    fn try_explain(&self, request: &[u8], transport: &Transport<'_>) -> Result<Vec<u8>, ApiError> {
        let world = self.world.load_full();
        self.may_explain(world.clone(), transport)?;
        let bad = |message: &str| ApiError::of(ReasonCode::BadInput, message);
        let message: wire::ExplainRequest = self
            .decode(request, "the bytes are no ExplainRequest")
            .map_err(|refused| bad(&refused.message))?;
        if message.overrides.is_some_and(|overrides| !overrides.fields.is_empty()) {
            return Err(bad("`overrides` is not in this version"));
        }
        let check = match message.subject {
            Some(wire::explain_request::Subject::Check(check)) => check,
            Some(wire::explain_request::Subject::DecisionId(_)) => {
                return Err(bad("`decision_id` is not in this version; send the request itself"));
            }
            None => return Err(bad("give `check`")),
        };
        let mut arrival = self.arrival(Surface::Explain, world, transport);
        arrival.asks_itself = false;
        let line = self.recorded(transport);
        let ask = request::read_check(&check, &self.settings)
            .map(|ask| CallRequest { probe: true, ..ask });
        let ended = match &ask {
            Ok(ask) => {
                let call =
                    Call { request: ask, transport, recorded: &line, explain: true, traces: true };
                steps::decide(self, &call, arrival)
            }
            Err(refused) => {
                let claim = request::read_agent_claim(&check.evidence, &self.settings);
                steps::admit::refuse_unread(self, transport, arrival, claim, refused.clone())
            }
        };
        let judgement = self.conclude_ended(ended, transport, line);
        let facts = record::facts_of(&judgement);
        let facts =
            serde_json::to_vec(&serde_json::json!({ "arguments": facts })).unwrap_or_default();
        let mut decision = answer::decision(&judgement);
        decision.detail = Some(answer::detail(&judgement, facts));
        Ok(wire::ExplainResponse { decision: Some(decision) }.encode_to_vec())
    }

    /// Refuses a caller that policy does not permit to explain. That decision has a record of its own.
    fn may_explain(
        &self,
        world: Option<Arc<Loaded>>,
        transport: &Transport<'_>,
    ) -> Result<(), ApiError> {
        let arrival = self.arrival(Surface::Explain, world, transport);
        let record = self.judge_explainer(arrival, transport);
        let line = self.recorded(transport);
        let record = self.conclude(Box::new(record), &[], transport, line, None);
        match record.permit() {
            Some(_) => Ok(()),
            None => Err(ApiError::of(record.reason(), record.message())),
        }
    }

    /// The record of a call that asks whether its caller may explain.
    fn judge_explainer(&self, arrival: Arrival, transport: &Transport<'_>) -> Judgement {
        let (identity, world) = match self.identify_explainer(&arrival, transport) {
            (identity, Ok(world)) => (identity, world),
            (identity, Err(refused)) => return unjudged(arrival, identity).refused(refused),
        };
        let facts = kernel_facts(&arrival, &identity.facts, &identity.chain, None, None);
        let decision = decide(&world.plan, &facts, &own(EXPLAIN), arrival.now());
        let record = unjudged(arrival, identity).with_decision(decision);
        match self.in_time(transport, Step::Judge) {
            Ok(()) => record,
            Err(refused) => record.refused(refused),
        }
    }

    /// Admits and identifies a caller that wants to explain. Returns its identity also where it is refused.
    fn identify_explainer(
        &self,
        arrival: &Arrival,
        transport: &Transport<'_>,
    ) -> (CallerIdentity, Result<Arc<Loaded>, CallRefusal>) {
        let shown = self.admit(arrival, transport).and_then(|world| {
            let evidence = self.evidence_of_explainer(&world, transport)?;
            Ok((world, evidence))
        });
        let (world, evidence) = match shown {
            Ok(shown) => shown,
            Err(refused) => return (CallerIdentity::default(), Err(refused)),
        };
        let (identity, verified) = self.verify_caller(arrival, &world, &[evidence], None);
        let verified = verified.and_then(|()| {
            refuse_task_credential(&identity.facts)?;
            refuse_proofs(&identity.facts)
        });
        (identity, verified.map(|()| world))
    }

    /// The credential in the `authorization` metadata of a call at an administration listener.
    fn evidence_of_explainer<'t>(
        &self,
        world: &Loaded,
        transport: &Transport<'t>,
    ) -> Result<Evidence<'t>, CallRefusal> {
        check_admin(world.way(transport.listener), "only an administration listener explains")?;
        let Some(value) = transport.authorization else {
            return Err(CallRefusal::new(
                ReasonCode::NoCredential,
                Step::Identify,
                "there is no `authorization` metadata",
            ));
        };
        let (scheme, token) = request::split_authorization(value)?;
        request::read_credential(world.role_of(token), scheme, token, None, &self.settings)
    }
}

/// The record of a caller that wants to explain, before it is judged.
fn unjudged(arrival: Arrival, caller: CallerIdentity) -> Judgement {
    let operation = EXPLAIN.to_owned();
    let resolved = ResolvedOperation { operation, ..ResolvedOperation::default() };
    Judgement::unjudged(arrival, caller, resolved, TaskContext::default())
}
