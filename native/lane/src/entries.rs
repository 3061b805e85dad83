//! Entries of the engine: the calls that its servers make.

use std::panic::{AssertUnwindSafe, catch_unwind};

use authz_kernel::reason::ReasonCode;
use authz_state::AuditError;
use prost::Message;

use crate::answer;
use crate::engine::Engine;
use crate::envoy::{self, Removed};
use crate::judgement::{Arrival, Judgement};
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::request::{self, AgentClaim};
use crate::settings::{Lane, Surface};
use crate::steps::record::{RecordOrigin, Reply, UnansweredCall};
use crate::steps::{self, Call};
use crate::transport::{ApiError, Transport};

impl Engine {
    /// Judges an `authz.v1.CheckRequest`; the answer is always an `authz.v1.CheckResponse`.
    #[must_use]
    pub fn check(&self, request: &[u8], transport: &Transport<'_>) -> Vec<u8> {
        self.answer(Surface::Check, request, transport)
    }

    /// Judges an `envoy.service.auth.v3.CheckRequest`; the answer is always that service's `CheckResponse`.
    #[must_use]
    pub fn envoy_check(&self, request: &[u8], transport: &Transport<'_>) -> Vec<u8> {
        self.answer(Surface::ExtAuthz, request, transport)
    }

    pub(super) fn answer(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Vec<u8> {
        self.guarded(transport.lane, surface, || {
            let mut pending = self.begin(surface, request, transport);
            let recorded = self.wait(&mut pending);
            self.finish(pending, recorded)
        })
    }

    /// As [`Engine::check`] and [`Engine::envoy_check`], without blocking the thread while the record is synced.
    pub(crate) async fn answer_async(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Vec<u8> {
        let begun = catch_unwind(AssertUnwindSafe(|| self.begin(surface, request, transport)));
        let Ok(mut pending) = begun else {
            self.metrics.panicked();
            return self.refuse(transport.lane, surface, ReasonCode::Unavailable);
        };
        let mut recorded = Ok(());
        while recorded.is_ok()
            && let Some((ticket, waits)) = pending.take_ticket()
        {
            let until = tokio::time::Instant::from_std(pending.until());
            recorded =
                tokio::time::timeout_at(until, ticket).await.unwrap_or(Err(AuditError::Late));
            pending.failed_at(waits, recorded);
        }
        self.guarded(transport.lane, surface, || self.finish(pending, recorded))
    }

    /// Answers a call that answers no decision: lists, reports, revocations, tasks and credentials.
    ///
    /// # Errors
    /// The call is refused.
    pub fn call(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let answered = catch_unwind(AssertUnwindSafe(|| match surface {
            Surface::List => self.list(request, transport),
            Surface::Report => self.api_method(surface, request, transport, Self::report_outcome),
            Surface::AccessLog => self.access_log(request, transport),
            Surface::RecordErasure => {
                self.api_method(surface, request, transport, Self::record_erasure)
            }
            Surface::Revoke => self.revoke(request, transport),
            Surface::Forget => self.api_method(surface, request, transport, Self::forget_labels),
            Surface::TaskNames => self.api_method(surface, request, transport, Self::task_names),
            Surface::TaskStart => self.api_method(surface, request, transport, Self::start_task),
            Surface::TaskDelegate => {
                self.api_method(surface, request, transport, Self::delegate_task)
            }
            Surface::TaskExtend => self.api_method(surface, request, transport, Self::extend_task),
            Surface::TaskGet => self.api_method(surface, request, transport, Self::get_task),
            Surface::TaskList => self.api_method(surface, request, transport, Self::list_tasks),
            Surface::TaskEnd => self.api_method(surface, request, transport, Self::end_task),
            Surface::CredentialExchange => self.exchange(request, transport),
            Surface::SecurityEvent => self.security_event(request, transport),
            Surface::CredentialIntrospect | Surface::CredentialRevoke => {
                self.about_token(surface, request, transport)
            }
            Surface::CredentialIssue => self.issue(request, transport),
            Surface::ApprovalGet => {
                self.api_method(surface, request, transport, Self::get_approval)
            }
            _ => Err(ApiError::of(ReasonCode::BadInput, "there is no such call")),
        }));
        answered.unwrap_or_else(|_| Err(self.failed_inside()))
    }

    /// Runs a function that answers. If it panics, the answer is a denial.
    pub(crate) fn guarded(
        &self,
        lane: Lane,
        surface: Surface,
        run: impl FnOnce() -> Vec<u8>,
    ) -> Vec<u8> {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
            self.metrics.panicked();
            self.refuse(lane, surface, ReasonCode::Unavailable)
        })
    }

    /// Decides a call and queues its record; `surface` is `Check` or `ExtAuthz`.
    pub(crate) fn begin(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> UnansweredCall {
        let arrival = self.arrival(surface, self.world(), transport);
        if surface == Surface::ExtAuthz {
            return self.begin_envoy(arrival, request, transport);
        }
        let message: Result<wire::CheckRequest, CallRefusal> =
            self.decode(request, "the bytes are no CheckRequest");
        match message {
            Ok(message) => self.begin_own(arrival, &message, transport),
            Err(refused) => {
                self.refuse_message(arrival, transport, AgentClaim::default(), refused, Reply::Own)
            }
        }
    }

    pub(crate) fn begin_own(
        &self,
        arrival: Arrival,
        message: &wire::CheckRequest,
        transport: &Transport<'_>,
    ) -> UnansweredCall {
        let ask = match request::read_check(message, &self.settings) {
            Ok(ask) => ask,
            Err(refused) => {
                let claim = request::read_agent_claim(&message.evidence, &self.settings);
                return self.refuse_message(arrival, transport, claim, refused, Reply::Own);
            }
        };
        let line = self.recorded(transport);
        let call =
            Call { request: &ask, transport, recorded: &line, explain: false, traces: false };
        let ended = steps::decide(self, &call, arrival);
        self.record(ended, transport, Reply::Own, line)
    }

    pub(super) fn begin_envoy(
        &self,
        arrival: Arrival,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> UnansweredCall {
        let message = self.check_size(request).and_then(|()| {
            envoy::EnvoyRequest::read(request)
                .map_err(|_| CallRefusal::input("the bytes are no ext_authz CheckRequest"))
        });
        let relays = envoy::Relays::of(arrival.asker.enforcer.as_deref());
        let parsed = match &message {
            Ok(message) => envoy::of_request(message, &self.settings, relays),
            Err(refused) => Err(refused.clone()),
        };
        let mut parsed = match parsed {
            Ok(parsed) => parsed,
            Err(refused) => {
                let reply = Reply::Envoy { removed: Removed::default() };
                let claim = message.as_ref().ok();
                let claim = claim.map(|one| envoy::agent_claim(one, &self.settings, relays));
                let claim = claim.unwrap_or_default();
                return self.refuse_message(arrival, transport, claim, refused, reply);
            }
        };
        let transport = &parsed.trace.over(transport);
        let line = self.recorded(transport);
        let call = Call {
            request: &parsed.request,
            transport,
            recorded: &line,
            explain: false,
            traces: false,
        };
        let ended = steps::decide(self, &call, arrival);
        let removed = parsed.removed(&ended.record, &ended.evidence);
        self.record(ended, transport, Reply::Envoy { removed }, line)
    }

    /// Records a call whose message cannot be read.
    pub(crate) fn refuse_message(
        &self,
        arrival: Arrival,
        transport: &Transport<'_>,
        claim: AgentClaim<'_>,
        refused: CallRefusal,
        reply: Reply,
    ) -> UnansweredCall {
        let ended = steps::admit::refuse_unread(self, transport, arrival, claim, refused);
        self.record(ended, transport, reply, self.recorded(transport))
    }

    /// A ready answer for a request that is not judged: OVERLOADED, DEADLINE or UNAVAILABLE, always a denial.
    ///
    /// Counted and recorded; never waits.
    #[must_use]
    pub fn refusal(&self, surface: Surface, reason: ReasonCode) -> Vec<u8> {
        self.refuse(Lane::Python, surface, reason)
    }

    /// As [`Engine::refusal`], for either server.
    pub(crate) fn refuse(&self, lane: Lane, surface: Surface, reason: ReasonCode) -> Vec<u8> {
        let reason = match reason {
            ReasonCode::Overloaded | ReasonCode::Deadline => reason,
            _ => ReasonCode::Unavailable,
        };
        let received = self.clock.monotonic();
        let transport = Transport::at("", received);
        let arrival = self.arrival(surface, self.world(), &transport);
        let refused = CallRefusal::new(reason, Step::Identify, reason.row().title);
        let judgement = Judgement::of(arrival).refused(refused);
        let line = RecordOrigin { peer: String::new(), trace: None, lane };
        self.record_refusal(&judgement, &[], line.origin(self), None);
        self.count(&judgement, received, lane, None);
        match surface {
            Surface::ExtAuthz => {
                let removed = Removed::default();
                envoy::answer(&judgement, &removed, self.settings.envoy_error_response, None)
            }
            Surface::BatchCheck => {
                let decisions = vec![answer::decision(&judgement)];
                wire::BatchCheckResponse { decisions }.encode_to_vec()
            }
            Surface::Check => {
                let decision = Some(answer::decision(&judgement));
                wire::CheckResponse { decision, ..Default::default() }.encode_to_vec()
            }
            // Calls that answer no decision.
            _ => {
                let decision = Some(answer::decision(&judgement));
                wire::ExplainResponse { decision }.encode_to_vec()
            }
        }
    }

    /// Writes and syncs the audit queue. Later requests are denied, since nothing can record them. Idempotent.
    pub fn close(&self) {
        self.keeper.store().close();
        self.write_sums(self.sums.all());
        self.record_dropped(self.dropped_records.all(self.clock.now_ms()));
        self.audit.close();
    }
}
