//! Resolve: which operation does the request ask for, and may it be asked for at all?

use std::sync::Arc;

use authz_kernel::decision::{Given, Request};
use authz_kernel::mcp::ServerTask;
use authz_kernel::mode::may_soften;
use authz_kernel::reach::HostSystems;
use authz_kernel::reason::ReasonCode;
use authz_kernel::routes::{Body, HttpRequest, RouteError, Routed};
use authz_kernel::task::Revocations;

use crate::credential_use::check_audience;
use crate::engine::{Engine, own};
use crate::judgement::{Arrival, Asker, ResolvedOperation, TaskContext};
use crate::keeper::Wait;
use crate::proofs::ProvedRequest;
use crate::refusal::{CallRefusal, Step};
use crate::request::{CallRequest, RequestTarget, system_of};
use crate::request_form::RequestForm;
use crate::revoke;
use crate::steps::admit::AdmittedCall;
use crate::steps::identify::IdentifiedCall;
use crate::steps::{Call, EndedCall, Staged};
use crate::world::Loaded;

/// Source of the operation of a request.
#[derive(Debug)]
pub(crate) enum Match {
    /// The request names it.
    Named,
    /// A route leads to it.
    Routed(Box<Routed>),
    /// No route leads to an operation, or the catalog lacks the tool of the request, and `mode` may only observe that: the refusal
    /// that counts unless an earlier one does.
    Missed(Box<RouteError>, CallRefusal),
}

impl Match {
    /// The request as the kernel judges it.
    pub(crate) fn request<'r>(&'r self, ask: &'r CallRequest<'_>) -> Request<'r> {
        let named = match &ask.target {
            RequestTarget::Operation { id, arguments, resource, destinations, .. } => Request {
                operation: id,
                arguments: Given::Json(arguments),
                resource: *resource,
                destinations,
                ..own("")
            },
            RequestTarget::Http { .. } => own(""),
        };
        match self {
            Self::Named => Request {
                labels: &ask.labels,
                supported_obligations: &ask.supported_obligations,
                ..named
            },
            Self::Routed(routed) => Request {
                operation: &routed.operation,
                arguments: Given::Read(&routed.arguments),
                labels: &ask.labels,
                supported_obligations: &ask.supported_obligations,
                server_task: routed
                    .mcp
                    .as_ref()
                    .map_or(ServerTask::None, |message| message.server_task),
                ..own("")
            },
            Self::Missed(error, _) => own(&error.operation),
        }
    }

    /// The task that the body of the request names.
    pub(crate) fn task_in_body(&self) -> Option<&str> {
        match self {
            Self::Named => None,
            Self::Routed(routed) => routed.task.as_deref(),
            Self::Missed(error, _) => error.task.as_deref(),
        }
    }

    /// The refusal of a request without an operation.
    pub(crate) const fn missed(&self) -> Option<&CallRefusal> {
        match self {
            Self::Missed(_, refused) => Some(refused),
            Self::Named | Self::Routed(_) => None,
        }
    }
}

/// A call whose operation is known, or certainly not known.
#[derive(Debug)]
pub struct ResolvedCall<'a> {
    pub(crate) identified: IdentifiedCall<'a>,
    pub(crate) operation: ResolvedOperation,
    pub(crate) matched: Match,
    /// Revocations that the call is judged under.
    pub(crate) revoked: Arc<Revocations>,
    /// Longest wait of the call for the store.
    pub(crate) wait: Wait,
}

impl ResolvedCall<'_> {
    /// The catalog has the operation.
    pub(crate) fn is_known(&self) -> bool {
        !self.operation.operation.is_empty()
    }

    /// The call will be judged as a call of its caller: its operation and its caller are known.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_known() && self.matched.missed().is_none() && self.identified.unproved.is_none()
    }
}

/// Resolves the operation of a call, and takes the proofs of possession that came along.
///
/// # Errors
/// The call as refused: the request can be read in more than one way or in none, the enforcer may not ask about the operation, a
/// proof is of another request or was used before, or the operation is revoked.
pub fn resolve<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    identified: IdentifiedCall<'a>,
) -> Staged<'a, ResolvedCall<'a>> {
    let mut operation = ResolvedOperation::default();
    let wait = engine.wait_of(call.transport);
    let resolved = match_request(engine, call, &identified, &mut operation).and_then(|matched| {
        let request = matched.request(call.request);
        check_request(engine, call, &identified, wait, &request, &mut operation)?;
        let revoked = engine.keeper.revocations()?;
        check_revoked(&revoked, &identified.admitted.world, &mut operation)?;
        Ok((matched, revoked))
    });
    match resolved {
        Ok((matched, revoked)) => {
            Ok(ResolvedCall { identified, operation, matched, revoked, wait })
        }
        Err(refused) => {
            let (record, evidence) =
                identified.into_record(operation, TaskContext::default(), None);
            Err(EndedCall::refused(record, evidence, refused))
        }
    }
}

/// Finds the operation that a request names or is routed to.
///
/// `operation` is the value of this stage: the record of a refused call shows what it held by then.
fn match_request(
    engine: &Engine,
    call: &Call<'_, '_>,
    identified: &IdentifiedCall<'_>,
    operation: &mut ResolvedOperation,
) -> Result<Match, CallRefusal> {
    let AdmittedCall { arrival, world } = &identified.admitted;
    let matched = match &call.request.target {
        RequestTarget::Operation { id, tool: Some(tool), .. }
            if !world.plan.model().is_tool(tool, id) =>
        {
            return Ok(missing_tool(identified.unproved.as_ref(), operation, world, id));
        }
        RequestTarget::Operation { .. } => Match::Named,
        RequestTarget::Http { method, host, path, headers, unusable, body } => {
            let names = headers.iter().map(|(name, _)| *name);
            check_header_names(world, names, unusable)?;
            operation.is_cut_off = matches!(body, Body::Partial);
            let http = HttpRequest { method, host, path, headers, body: *body };
            match world.plan.routes().resolve(&http).and_then(|found| world.at_system(found, host))
            {
                Ok(routed) => {
                    operation.route = Some(routed.route);
                    operation.mcp.clone_from(&routed.mcp);
                    if routed.arguments.written_len() > engine.settings.max_arguments_bytes {
                        return Err(CallRefusal::input("the arguments are too long"));
                    }
                    Match::Routed(Box::new(routed))
                }
                Err(error) => {
                    let refused = unrouted(arrival, operation, world, &http, &error);
                    let refused = instead(identified.unproved.as_ref(), refused);
                    if !refused.understood || !may_soften(error.reason) {
                        return Err(refused);
                    }
                    // `mode` may let the call through, but only if the stages before and `locate` do not refuse it.
                    Match::Missed(Box::new(error), refused)
                }
            }
        }
    };
    let request = matched.request(call.request);
    if let Some(known) = world.plan.operation(request.operation) {
        operation.operation.clone_from(&known.id);
        operation.system = world.system(&known.id);
        operation.tier = Some(known.tier);
    } else if matched.missed().is_none() {
        note_unknown(operation, world, request.operation);
    }
    Ok(matched)
}

/// Notes an operation that the catalog does not have.
fn note_unknown(operation: &mut ResolvedOperation, world: &Loaded, id: &str) {
    operation.asked = Some(RequestForm::operation(id));
    let system = system_of(id);
    match system.filter(|system| world.plan.systems().contains_key(*system)) {
        Some(system) => system.clone_into(&mut operation.unknown_in),
        None => operation.may_be_for.push(String::new()),
    }
}

/// The match of a request for a tool that the catalog lacks: another tool may have the operation `id`.
fn missing_tool(
    unproved: Option<&CallRefusal>,
    operation: &mut ResolvedOperation,
    world: &Loaded,
    id: &str,
) -> Match {
    note_unknown(operation, world, id);
    let error = RouteError {
        reason: ReasonCode::UnknownOperation,
        message: "the catalog has no tool of this name".to_owned(),
        understood: true,
        mcp: None,
        operation: "".into(),
        task: None,
    };
    let refused = CallRefusal::new(error.reason, Step::Resolve, error.message.as_str());
    let refused = instead(unproved, CallRefusal { understood: true, ..refused });
    Match::Missed(Box::new(error), refused)
}

/// Refuses headers that a route reads and whose value is not a text, and headers that some servers take for one that a route
/// reads.
fn check_header_names<'h>(
    world: &Loaded,
    names: impl Iterator<Item = &'h str>,
    unusable: &[&'h str],
) -> Result<(), CallRefusal> {
    let routes = world.plan.routes();
    if let Some(name) = unusable.iter().find(|name| routes.reads_header(name)) {
        return Err(CallRefusal::ambiguous(format!("`{name}` is no text")));
    }
    match world.read_headers.twin(names.chain(unusable.iter().copied())) {
        Some(name) => Err(CallRefusal::ambiguous(format!(
            "a header is spelled almost as `{name}`, and some servers take both for one"
        ))),
        None => Ok(()),
    }
}

/// Checks that the enforcer may ask about the operation, and that what is presented is for it; takes its proofs.
fn check_request(
    engine: &Engine,
    call: &Call<'_, '_>,
    identified: &IdentifiedCall<'_>,
    wait: Wait,
    request: &Request<'_>,
    operation: &mut ResolvedOperation,
) -> Result<(), CallRefusal> {
    let AdmittedCall { arrival, world } = &identified.admitted;
    let facts = &identified.caller.facts;
    may_ask(&arrival.asker, operation, request.operation)?;
    if !request.operation.is_empty() {
        check_audience(facts, world, request.operation)?;
    }
    if !facts.proofs.is_empty() {
        let unknown_in = Some(operation.unknown_in.as_str()).filter(|id| !id.is_empty());
        let system = system_of(request.operation).or(unknown_in);
        let sent = ProvedRequest::of(call.request, world, system);
        let now = arrival.now();
        operation.proved =
            engine.take_proofs(&facts.proofs, now, world, &sent, call.is_dry(), wait)?;
    }
    Ok(())
}

/// Refuses an operation that is revoked, or whose system is; notes whether the request may be for a revoked one.
fn check_revoked(
    revoked: &Revocations,
    world: &Loaded,
    operation: &mut ResolvedOperation,
) -> Result<(), CallRefusal> {
    revoke::of_operation(revoked, &operation.operation)?;
    if revoked.is_empty() {
        return Ok(());
    }
    let unknown_in = std::slice::from_ref(&operation.unknown_in);
    let split = world.plan.model().splits.get(&operation.operation);
    let mut cases = split.into_iter().flat_map(|split| split.cases.values());
    operation.may_be_revoked = cases.any(|case| revoke::of_operation(revoked, case).is_err())
        || revoke::is_any_revoked(revoked, &operation.may_be_for)
        || (operation.operation.is_empty() && revoke::is_any_revoked(revoked, unknown_in));
    if operation.operation.is_empty() {
        revoke::of_system(revoked, &operation.unknown_in)?;
    }
    Ok(())
}

/// Refusal of a request that no route leads to an operation.
///
/// `operation` gets the facts of the request.
fn unrouted(
    arrival: &Arrival,
    operation: &mut ResolvedOperation,
    world: &Loaded,
    http: &HttpRequest<'_>,
    error: &RouteError,
) -> CallRefusal {
    if error.reason == ReasonCode::NoRoute {
        operation.asked = Some(RequestForm::http(http));
    }
    let is_limited = || arrival.asker.enforcer.as_ref().is_some_and(|one| one.is_limited());
    let observes = || world.plan.model().modes.any_observes(arrival.now());
    if let Some(message) = &error.mcp {
        message.system.clone_into(&mut operation.unknown_in);
        operation.asked = message.missing.as_deref().map(RequestForm::operation);
        operation.mcp = Some((**message).clone());
    } else if error.operation.is_empty() && (is_limited() || observes()) {
        let HostSystems { systems, has_others } = world.plan.systems_at(http.host);
        let others = has_others.then(String::new);
        operation.may_be_for = systems.into_iter().map(str::to_owned).chain(others).collect();
    }
    let refused = CallRefusal::new(error.reason, Step::Resolve, error.message.as_str());
    CallRefusal { understood: error.understood, ..refused }
}

/// Refuses an operation that the enforcer may not ask about. If the system is not certain, the enforcer must be allowed to ask
/// about each system that it could be. A caller that asks about itself may ask about every system.
fn may_ask(
    asker: &Asker,
    resolved: &ResolvedOperation,
    operation: &str,
) -> Result<(), CallRefusal> {
    let Some(enforcer) = &asker.enforcer else { return Ok(()) };
    let may_ask = match (operation, resolved.unknown_in.as_str()) {
        ("", "") => enforcer.may_ask_about_any(&resolved.may_be_for),
        ("", _) => enforcer.may_ask_about_any(std::slice::from_ref(&resolved.unknown_in)),
        (operation, _) => enforcer.may_ask(operation),
    };
    if may_ask {
        return Ok(());
    }
    Err(CallRefusal::new(
        ReasonCode::EnforcerRefused,
        Step::Identify,
        "the enforcer does not ask about this system, or it is not certain which one it is",
    ))
}

/// Refusal of a request without evidence that also leads to no operation: the first refusal counts, and `mode` lets the call
/// through only if it may let both through.
fn instead(unproved: Option<&CallRefusal>, refused: CallRefusal) -> CallRefusal {
    let Some(first) = unproved else { return refused };
    let understood = refused.understood && may_soften(refused.reason);
    let message = match understood {
        true => first.message.clone(),
        false => {
            format!("{}; nor can the request be let through: {}", first.message, refused.message)
        }
    };
    CallRefusal { understood, message, ..first.clone() }
}
