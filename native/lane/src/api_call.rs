//! Calls that no policy of a system judges: tasks, credentials, reports and administration.
//!
//! Such a call is a function of its caller and its message:
//!
//! ```text
//! bytes ─▶ decode ─▶ admit and identify (ApiCaller) ─▶ the call's function ─▶ record ─▶ answer
//!                                                       ApiGrant | ApiRefusal
//! ```
//!
//! [`Engine::api_call`] alone turns its result into audit line, metrics and answer. A function that fails returns an
//! [`ApiRefusal`], which holds the members of the audit line that were known by then.

mod caller;
mod change;
mod identify;
mod outcome;

use authz_kernel::reason::ReasonCode;
use prost::Message;

use crate::engine::Engine;
use crate::judgement::{ApiVerdict, Judgement};
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::settings::Surface;
use crate::transport::{ApiError, Transport};
use crate::world::Way;

pub(crate) use crate::api_call::caller::{
    ApiCaller, CallerEvidence, ExchangeTokens, HttpClient, RefusedCaller,
};
pub(crate) use crate::api_call::change::GrantedChange;
pub(crate) use crate::api_call::identify::{refuse_proofs, refuse_task_credential};
pub(crate) use crate::api_call::outcome::{ApiGrant, ApiOutcome, ApiRefusal, WithRecord};

/// Message of an API call.
pub(crate) trait ApiMessage: Sized {
    /// Operation of Authz that the record of each such call names. Default: the call's function names the operation.
    const OPERATION: &'static str = "";
    /// Error message of bytes that are not such a message.
    const UNREADABLE: &'static str = "the bytes are no such request";

    /// Evidence by which the message shows its caller.
    fn evidence(&self) -> CallerEvidence<'_>;

    /// Refuses a listener that does not take such messages.
    fn check_listener(_way: Option<&Way>) -> Result<(), CallRefusal> {
        Ok(())
    }
}

/// Refuses a listener that is not an administration listener.
pub(crate) fn check_admin(way: Option<&Way>, message: &str) -> Result<(), CallRefusal> {
    if way.is_some_and(|way| way.admin) {
        return Ok(());
    }
    Err(CallRefusal::new(ReasonCode::EnforcerRefused, Step::Identify, message))
}

/// Implements [`ApiMessage`] for messages that carry the evidence of their caller.
macro_rules! messages_with_evidence {
    ($($message:ident),+ $(,)?) => {
        $(impl ApiMessage for wire::$message {
            fn evidence(&self) -> CallerEvidence<'_> {
                CallerEvidence::Message(&self.evidence)
            }
        })+
    };
}

messages_with_evidence!(
    StartRequest,
    DelegateRequest,
    ExtendRequest,
    GetRequest,
    TasksListRequest,
    EndRequest,
    IssueRequest,
);

impl ApiMessage for wire::ReportRequest {
    fn evidence(&self) -> CallerEvidence<'_> {
        CallerEvidence::Message(&[])
    }
}

impl Engine {
    /// Answers an API call whose message and answer are protobuf.
    ///
    /// # Errors
    /// The call is refused.
    pub(crate) fn api_method<M: ApiMessage + Message + Default, A: Message>(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
        run: impl for<'m> FnOnce(&Self, &'m M, &ApiCaller<'m>) -> ApiOutcome<A>,
    ) -> Result<Vec<u8>, ApiError> {
        let decode = || self.decode_message::<M>(request);
        let run = |message: &M, caller: &ApiCaller<'_>| run(self, message, caller);
        self.api_call(surface, transport, decode, run).map(|answer| answer.encode_to_vec())
    }

    /// Reads the message of an API call.
    pub(crate) fn decode_message<M: ApiMessage + Message + Default>(
        &self,
        request: &[u8],
    ) -> Result<M, CallRefusal> {
        self.decode(request, M::UNREADABLE)
    }

    /// Reads the message of a call, admits and identifies its caller, runs the call, and records the outcome.
    ///
    /// # Errors
    /// The call is refused, or its record is not durable.
    pub(crate) fn api_call<M: ApiMessage, T>(
        &self,
        surface: Surface,
        transport: &Transport<'_>,
        decode: impl FnOnce() -> Result<M, CallRefusal>,
        run: impl for<'m> FnOnce(&'m M, &ApiCaller<'m>) -> ApiOutcome<T>,
    ) -> Result<T, ApiError> {
        let arrival = self.arrival(surface, self.world(), transport);
        let line = self.recorded(transport);
        let message = match self.read_message(&arrival, transport, decode) {
            Ok(message) => message,
            Err(refused) => {
                let caller = RefusedCaller::of(arrival, line, M::OPERATION, refused);
                return self.answer_of(&self.conclude_refused(caller, transport), None);
            }
        };
        let caller = match self.identify_api_caller(arrival, &message, transport, line) {
            Ok(caller) => caller,
            Err(caller) => {
                return self.answer_of(&self.conclude_refused(*caller, transport), None);
            }
        };
        let outcome = run(&message, &caller);
        let (record, answer) = self.conclude_call(caller, outcome);
        self.answer_of(&record, answer)
    }

    /// The answer of a call, or the error that its record says.
    pub(crate) fn answer_of<T>(
        &self,
        record: &Judgement,
        answer: Option<T>,
    ) -> Result<T, ApiError> {
        record.granted()?;
        answer.ok_or_else(|| self.failed_inside())
    }

    /// Records a call whose caller was refused.
    pub(crate) fn conclude_refused(
        &self,
        caller: RefusedCaller<'_>,
        transport: &Transport<'_>,
    ) -> Box<Judgement> {
        let (record, evidence, line) = caller.into_judgement();
        self.conclude(Box::new(record), &evidence, transport, line, None)
    }

    /// Records a call and counts it. The record may become a refusal, where it cannot be made durable.
    pub(crate) fn conclude_call<T>(
        &self,
        caller: ApiCaller<'_>,
        outcome: ApiOutcome<T>,
    ) -> (Box<Judgement>, Option<T>) {
        let (members, verdict, kept, answer) = match outcome {
            Ok(ApiGrant { answer, message, record, kept }) => {
                (record, ApiVerdict::Granted(message), kept, Some(answer))
            }
            Err(ApiRefusal { denial, record }) => (*record, ApiVerdict::Denied(denial), None, None),
        };
        let transport = caller.transport;
        let (record, evidence, line) = caller.into_judgement(members, verdict);
        (self.conclude(Box::new(record), &evidence, transport, line, kept), answer)
    }
}
