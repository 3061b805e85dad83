//! `authz.v1.Authorizer/List`: the operations that could be permitted to a caller. A list is not a decision, so it leaves
//! no record and changes nothing.

use std::collections::{BTreeSet, HashMap};

use authz_kernel::decide::Prospects;
use authz_kernel::decision::Facts;
use authz_kernel::model::{Model, SystemKind};
use authz_kernel::reason::ReasonCode;
use authz_token::AgentProof;
use prost::Message;

use crate::api_call::{ApiMessage, CallerEvidence, refuse_proofs, refuse_task_credential};
use crate::engine::Engine;
use crate::judgement::{Arrival, CallerIdentity, name_of};
use crate::limits;
use crate::locate::{self, Located};
use crate::message::public_message;
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::request::{self, check_id};
use crate::revoke;
use crate::settings::Surface;
use crate::shown;
use crate::speaker;
use crate::steps::admit::AdmittedCall;
use crate::steps::judge::kernel_facts;
use crate::steps::locate::Implied;
use crate::transport::{ApiError, Transport};

/// Number of operations between two checks of the deadline.
const STRIDE: usize = 64;

impl ApiMessage for wire::ListRequest {
    const UNREADABLE: &'static str = "the bytes are no ListRequest";

    fn evidence(&self) -> CallerEvidence<'_> {
        CallerEvidence::Message(&self.evidence)
    }
}

/// A list that is to be made, its caller identified.
struct ListCall<'c> {
    admitted: AdmittedCall,
    identity: CallerIdentity,
    /// The task that the caller names, or works in without naming it.
    located: Option<Located>,
    transport: &'c Transport<'c>,
}

impl Engine {
    /// Lists the operations that could be permitted. The answer is an `authz.v1.ListResponse`.
    ///
    /// # Errors
    /// The request cannot be read, its caller is not identified, or the caller lists more often than it may.
    pub(crate) fn list(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let arrival = self.arrival(Surface::List, self.world(), transport);
        let asks_itself = arrival.asks_itself;
        let answer = self.list_operations(request, transport, arrival);
        answer.map(|answer| answer.encode_to_vec()).map_err(|refused| {
            // A caller that asks about itself learns only what an agent may see.
            let message = match asks_itself {
                true => public_message(refused.reason),
                false => refused.message,
            };
            ApiError::of(refused.reason, message)
        })
    }

    fn list_operations(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
        arrival: Arrival,
    ) -> Result<wire::ListResponse, CallRefusal> {
        let decode = || self.decode_message::<wire::ListRequest>(request);
        let message = self.read_message(&arrival, transport, decode)?;
        let world = self.admit(&arrival, transport)?;
        let page_size = page_size(&message)?;
        let admitted = AdmittedCall { arrival, world };
        let call = self.identify_list(&message, admitted, transport)?;
        self.check_list_rate(&call)?;
        self.page_of_operations(&message, page_size, &call)
    }

    /// Identifies the caller of a list, and finds its task.
    fn identify_list<'c>(
        &self,
        message: &wire::ListRequest,
        admitted: AdmittedCall,
        transport: &'c Transport<'c>,
    ) -> Result<ListCall<'c>, CallRefusal> {
        let mut evidence = request::read_evidence(&message.evidence, &self.settings)?;
        check_id("task", &message.task)?;
        let task = Some(message.task.as_str()).filter(|task| !task.is_empty());
        let AdmittedCall { arrival, world } = &admitted;
        let peer = arrival.asker.peer.as_ref().filter(|_| arrival.asks_itself);
        let agent = peer.map(|peer| peer.agent(AgentProof::X509Svid));
        if arrival.asks_itself {
            self.add_own_authorization(&mut evidence, transport, world, agent.is_some())?;
        }
        let (mut identity, verified) = self.verify_caller(arrival, world, &evidence, agent);
        let verified = verified.and_then(|()| {
            refuse_task_credential(&identity.facts)?;
            refuse_proofs(&identity.facts)?;
            speaker::refuse_bearer_alone(&arrival.asker, &identity.facts, world)
        });
        match verified {
            // An operation that is only observed is let through without evidence.
            Err(refused)
                if refused.reason == ReasonCode::NoCredential
                    && world.plan.model().modes.any_observes(arrival.now()) =>
            {
                identity.chain.clear();
            }
            verified => verified?,
        }
        let located = self.locate_list(task, &admitted, &identity, transport)?;
        if let Some(located) = &located {
            identity.chain = shown::chain_in(&identity, admitted.arrival.now(), located);
        }
        Ok(ListCall { admitted, identity, located, transport })
    }

    /// The task of a list: the named one, the session of an agent that works without tasks, or none.
    fn locate_list(
        &self,
        task: Option<&str>,
        AdmittedCall { arrival, world }: &AdmittedCall,
        identity: &CallerIdentity,
        transport: &Transport<'_>,
    ) -> Result<Option<Located>, CallRefusal> {
        let (plan, now, wait) = (&world.plan, arrival.now(), self.wait_of(transport));
        if let Some(task) = task {
            let located = locate::find_task(&self.keeper, task, wait)?;
            self.check_usable(&located, identity, now)?;
            self.check_left_out(now, plan, &located, wait)?;
            return Ok(Some(located));
        }
        match self.implied(identity, now, plan, wait)? {
            Some((located, implied)) => {
                if implied == Implied::Kept {
                    self.check_usable(&located, identity, now)?;
                }
                Ok(Some(located))
            }
            None if plan.model().tasks.optional => Ok(Located::taskless(identity)),
            None => Ok(None),
        }
    }

    fn check_list_rate(&self, call: &ListCall<'_>) -> Result<(), CallRefusal> {
        let caller = call.identity.chain.last().map(name_of).unwrap_or_default();
        if self.probes.admit(&caller, self.clock.monotonic()) {
            return Ok(());
        }
        Err(CallRefusal::new(
            ReasonCode::Overloaded,
            Step::Judge,
            "the caller lists more often than it may",
        ))
    }

    /// One page of the operations that could be permitted to the caller.
    fn page_of_operations(
        &self,
        message: &wire::ListRequest,
        page_size: usize,
        call: &ListCall<'_>,
    ) -> Result<wire::ListResponse, CallRefusal> {
        let AdmittedCall { arrival, world } = &call.admitted;
        let view = call.located.as_ref().map(Located::view);
        let (proved, chain) = (&call.identity.facts, &call.identity.chain);
        let breakglass = self.keeper.breakglasses();
        let facts = Facts {
            breakglass: breakglass.as_deref(),
            ..kernel_facts(arrival, proved, chain, view, None)
        };
        let prospects = Prospects::new(&world.plan, &facts, arrival.now());
        let enforcer = arrival.asker.enforcer.as_ref();
        let revoked = self.keeper.revocations()?;
        let is_revoked = |id: &str| revoke::of_operation(&revoked, id).is_err();
        let mut answer = wire::ListResponse::default();
        let tool_names = message.wants_tools.then(|| ToolNames::new(world.plan.model()));
        let mut tools = BTreeSet::new();
        let ids = world.plan.ids_after(&message.system, &message.page_token);
        for (index, id) in ids.into_iter().enumerate() {
            if index.is_multiple_of(STRIDE) {
                self.in_time(call.transport, Step::Judge)?;
            }
            let may_ask = enforcer.is_none_or(|enforcer| enforcer.may_ask(id));
            if !may_ask || is_revoked(id) || !prospects.could(id) {
                continue;
            }
            if answer.operations.len() >= page_size {
                // The next page begins after the last operation of this one.
                answer.next_page_token = answer.operations.last().cloned().unwrap_or_default();
                break;
            }
            answer.operations.push(id.to_owned());
            tools.extend(tool_names.as_ref().and_then(|names| names.of(id)));
        }
        answer.tools = tools.into_iter().map(ListedTool::to_wire).collect();
        Ok(answer)
    }
}

/// A tool that could be permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ListedTool<'m> {
    system: &'m str,
    /// Exact name at its MCP server.
    name: &'m str,
    operation: &'m str,
}

impl ListedTool<'_> {
    fn to_wire(self) -> wire::Tool {
        wire::Tool {
            system: self.system.to_owned(),
            name: self.name.to_owned(),
            operation: self.operation.to_owned(),
        }
    }
}

/// Names of the tools of a bundle, by their operations.
struct ToolNames<'m> {
    model: &'m Model,
    /// Names of tools of MCP servers, by the id of their operation.
    tools: HashMap<&'m str, &'m str>,
    /// The split operation of each case, by the case's id.
    splits: HashMap<&'m str, &'m str>,
}

impl<'m> ToolNames<'m> {
    fn new(model: &'m Model) -> Self {
        let tools = model.tools.values().flatten();
        let tools = tools.map(|(name, tool)| (tool.operation.as_str(), name.as_str())).collect();
        let cases = model.splits.iter().flat_map(|(split, declared)| {
            declared.cases.values().map(move |case| (case.as_str(), split.as_str()))
        });
        Self { model, tools, splits: cases.collect() }
    }

    /// The tool whose operation, or a case of whose operation, has this id.
    fn of(&self, id: &'m str) -> Option<ListedTool<'m>> {
        let operation = self.splits.get(id).copied().unwrap_or(id);
        let (system, own) = operation.split_once('.')?;
        let name = match self.model.systems.get(system)?.kind {
            SystemKind::Mcp => *self.tools.get(operation)?,
            SystemKind::Http => own,
        };
        Some(ListedTool { system, name, operation })
    }
}

/// Number of operations on a page. Checks the other bounds of the message, too.
fn page_size(message: &wire::ListRequest) -> Result<usize, CallRefusal> {
    let size = match usize::try_from(message.page_size) {
        Ok(0) => limits::PAGE,
        Ok(size) => size.min(limits::PAGE),
        Err(_) => return Err(CallRefusal::input("`page_size` is below 0")),
    };
    check_id("system", &message.system)?;
    check_id("page_token", &message.page_token)?;
    Ok(size)
}
