//! `authz.v1.Authorizer/List`: which operations could be permitted. Never a decision, so it leaves no record and changes
//! nothing.

use authz_kernel::decide::Prospects;
use authz_kernel::reason::ReasonCode;
use authz_token::AgentProof;
use prost::Message;

use crate::ask::{self, Refused, Step};
use crate::engine::Engine;
use crate::judgement::{Judgement, name_of};
use crate::limits;
use crate::locate::{self, Located};
use crate::message::public_message;
use crate::proto::authz::v1 as wire;
use crate::revoke;
use crate::settings::Surface;
use crate::shown;
use crate::speaker;
use crate::steps::judge::kernel_facts;
use crate::steps::locate::Implied;
use crate::transport::{ApiError, Transport};

/// Operations between two looks at the deadline.
const STRIDE: usize = 64;

impl Engine {
    /// Lists the operations that could be permitted; the answer is an `authz.v1.ListResponse`.
    ///
    /// # Errors
    /// The request cannot be read, nobody is known, or the caller asks more often than it may.
    pub(crate) fn list(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let mut judgement = self.judgement(Surface::List, self.world(), transport);
        self.listed(request, transport, &mut judgement)
            .map(|answer| answer.encode_to_vec())
            .map_err(|refused| {
                // Whoever asks about itself learns what an agent may see.
                let message = match judgement.arrival.asks_itself {
                    true => public_message(refused.reason),
                    false => refused.message,
                };
                ApiError::of(refused.reason, message)
            })
    }

    fn listed(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
        judgement: &mut Judgement,
    ) -> Result<wire::ListResponse, Refused> {
        let world = self.admit(&judgement.arrival, transport)?;
        self.check_size(request)?;
        let message = wire::ListRequest::decode(request)
            .map_err(|_| Refused::input("the bytes are no ListRequest"))?;
        let size = match usize::try_from(message.page_size) {
            Ok(0) => limits::PAGE,
            Ok(size) => size.min(limits::PAGE),
            Err(_) => return Err(Refused::input("`page_size` is below 0")),
        };
        for (name, text) in [("system", &message.system), ("page_token", &message.page_token)] {
            if text.len() > limits::ID {
                return Err(Refused::input(format!(
                    "`{name}` is longer than {} bytes",
                    limits::ID
                )));
            }
        }
        let check = wire::CheckRequest {
            evidence: message.evidence,
            task: message.task,
            ..wire::CheckRequest::default()
        };
        let mut ask = ask::of_request(&check, &self.settings)?;
        let agent = judgement.arrival.asker.peer.as_ref().filter(|_| judgement.arrival.asks_itself);
        let agent = agent.map(|peer| peer.agent(AgentProof::X509Svid));
        if judgement.arrival.asks_itself {
            self.add_own_authorization(&mut ask.evidence, transport, &world, agent.is_some())?;
        }
        let now = judgement.arrival.now();
        let known = self.identify(judgement, &world, &ask.evidence, agent);
        match known.and_then(|()| {
            speaker::refuse_bearer_alone(&judgement.arrival.asker, &judgement.caller.facts, &world)
        }) {
            // What is only observed is let through whoever asks.
            Err(refused)
                if refused.reason == ReasonCode::NoCredential
                    && world.plan.model().modes.any_observes(now) =>
            {
                judgement.caller.chain.clear();
            }
            known => known?,
        }
        let wait = self.wait_of(transport);
        let located = match ask.task {
            Some(task) => {
                let found = locate::find_task(&self.keeper, task, wait)?;
                self.usable(&found, &judgement.caller, now)?;
                self.check_left_out(judgement.arrival.now(), &world.plan, &found, wait)?;
                Some(found)
            }
            None => {
                let implied = self.implied(&judgement.caller, now, &world.plan, wait)?;
                if let Some((found, Implied::Kept)) = &implied {
                    self.usable(found, &judgement.caller, now)?;
                }
                let is_optional = world.plan.model().tasks.optional;
                let taskless =
                    || is_optional.then(|| Located::taskless(&judgement.caller)).flatten();
                implied.map(|(found, _)| found).or_else(taskless)
            }
        };
        if let Some(found) = &located {
            judgement.caller.chain =
                shown::chain_in(&judgement.caller, judgement.arrival.now(), found);
        }
        let chain = &judgement.caller.chain;
        let caller = chain.last().map(name_of).unwrap_or_default();
        if !self.probes.admit(&caller, self.clock.monotonic()) {
            return Err(Refused::new(
                ReasonCode::Overloaded,
                Step::Judge,
                "the caller lists more often than it may",
            ));
        }
        let view = located.as_ref().map(Located::view);
        let facts = kernel_facts(judgement, chain, view, None);
        let prospects = Prospects::new(&world.plan, &facts, now);
        let enforcer = judgement.arrival.asker.enforcer.as_ref();
        let mut answer = wire::ListResponse::default();
        let revoked = self.keeper.revocations()?;
        let is_revoked = |id: &str| revoke::of_operation(&revoked, id).is_err();
        let ids = world.plan.ids_after(&message.system, &message.page_token);
        for (index, id) in ids.into_iter().enumerate() {
            if index.is_multiple_of(STRIDE) {
                self.in_time(transport, Step::Judge)?;
            }
            let may_ask = enforcer.is_none_or(|enforcer| enforcer.may_ask(id));
            if !may_ask || is_revoked(id) || !prospects.could(id) {
                continue;
            }
            if answer.operations.len() >= size {
                // The next page begins after what stands on this one.
                answer.next_page_token = answer.operations.last().cloned().unwrap_or_default();
                break;
            }
            answer.operations.push(id.to_owned());
        }
        Ok(answer)
    }
}
