//! `Explain`: a decision without effect, with everything that it was made of.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use authz_kernel::decide::decide;
use authz_kernel::reason::ReasonCode;
use prost::Message;

use crate::answer;
use crate::ask::{self, Ask, Refused, Step};
use crate::engine::{Engine, own};
use crate::judgement::Judgement;
use crate::proto::authz::v1 as wire;
use crate::record;
use crate::settings::Surface;
use crate::steps::judge::kernel_facts;
use crate::steps::{self, Call};
use crate::transport::{ApiError, Transport};
use crate::world::Loaded;

/// The operation that policy judges.
const EXPLAIN: &str = "authz.explain";

impl Engine {
    /// Judges without effect and tells everything; the answer is an `authz.v1.ExplainResponse`.
    ///
    /// # Errors
    /// The listener is no administration listener, whoever asks has no permit for `authz.explain`, or the request cannot
    /// be explained in this version.
    pub fn explain(&self, request: &[u8], transport: &Transport<'_>) -> Result<Vec<u8>, ApiError> {
        catch_unwind(AssertUnwindSafe(|| self.try_explain(request, transport)))
            .unwrap_or_else(|_| Err(self.failed_inside()))
    }

    fn try_explain(&self, request: &[u8], transport: &Transport<'_>) -> Result<Vec<u8>, ApiError> {
        let world = self.world.load_full();
        self.may_explain(world.clone(), transport)?;
        let bad = |message: &str| ApiError::of(ReasonCode::BadInput, message);
        self.check_size(request).map_err(|refused| bad(&refused.message))?;
        let message = wire::ExplainRequest::decode(request)
            .map_err(|_| bad("the bytes are no ExplainRequest"))?;
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
        let ask = ask::of_request(&check, &self.settings).map(|ask| Ask { probe: true, ..ask });
        let ended = match &ask {
            Ok(ask) => {
                let call = Call { ask, transport, recorded: &line, explain: true };
                steps::decide(self, &call, arrival)
            }
            Err(refused) => {
                let claim = ask::agent_claim(&check.evidence, &self.settings);
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

    /// Whoever explains is known, and policy lets it. That judgement is a decision with a record of its own.
    fn may_explain(
        &self,
        world: Option<Arc<Loaded>>,
        transport: &Transport<'_>,
    ) -> Result<(), ApiError> {
        let mut judgement = self.judgement(Surface::Explain, world, transport);
        EXPLAIN.clone_into(&mut judgement.resolved.operation);
        if let Err(refused) = self.try_explainer(&mut judgement, transport) {
            judgement.refuse(refused);
        }
        let line = self.recorded(transport);
        let judgement = self.conclude(judgement, &[], transport, line, None);
        match judgement.permit() {
            Some(_) => Ok(()),
            None => Err(ApiError::of(judgement.reason(), judgement.message())),
        }
    }

    fn try_explainer(
        &self,
        judgement: &mut Judgement,
        transport: &Transport<'_>,
    ) -> Result<(), Refused> {
        let world = self.admit(&judgement.arrival, transport)?;
        if !world.way(transport.listener).is_some_and(|way| way.admin) {
            return Err(Refused::new(
                ReasonCode::EnforcerRefused,
                Step::Identify,
                "only an administration listener explains",
            ));
        }
        let Some(value) = transport.authorization else {
            return Err(Refused::new(
                ReasonCode::NoCredential,
                Step::Identify,
                "there is no `authorization` metadata",
            ));
        };
        let (scheme, token) = ask::authorization(value)?;
        let role = world.role_of(token);
        let evidence = ask::credential(role, scheme, token, None, &self.settings)?;
        self.identify(judgement, &world, &[evidence], None)?;
        let facts = kernel_facts(judgement, &judgement.caller.chain, None, None);
        let decision = decide(&world.plan, &facts, &own(EXPLAIN), judgement.arrival.now());
        judgement.decided(decision);
        self.in_time(transport, Step::Judge)
    }
}
