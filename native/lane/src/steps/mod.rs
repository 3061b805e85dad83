//! The stages of a call, in the order in which a call passes them: admit, identify, resolve, locate, judge, settle, record.
//!
//! Each stage takes the value of the stage before it and returns its own. No stage writes into the value of another, and
//! none can be called out of order, since only the stage before it makes the value that it takes. For example, [`settle()`] takes a
//! [`JudgedCall`]:
//!
//! ```
//! use authz_lane::Engine;
//! use authz_lane::steps::{Call, EndedCall, JudgedCall, Staged, settle};
//!
//! fn settle_judged<'a>(
//!     engine: &Engine,
//!     call: &Call<'_, 'a>,
//!     judged: JudgedCall<'a>,
//! ) -> Staged<'a, EndedCall<'a>> {
//!     settle(engine, call, judged)
//! }
//! ```
//!
//! A call without a verdict cannot be settled. The stage before [`judge()`] returns a [`LocatedCall`], which does not compile here:
//!
//! ```compile_fail
//! use authz_lane::Engine;
//! use authz_lane::steps::{Call, EndedCall, LocatedCall, Staged, settle};
//!
//! fn settle_unjudged<'a>(
//!     engine: &Engine,
//!     call: &Call<'_, 'a>,
//!     located: LocatedCall<'a>,
//! ) -> Staged<'a, EndedCall<'a>> {
//!     settle(engine, call, located)
//! }
//! ```

pub(crate) mod admit;
pub(crate) mod identify;
pub(crate) mod judge;
pub(crate) mod locate;
pub(crate) mod record;
pub(crate) mod resolve;
pub(crate) mod settle;

use std::fmt;

use authz_kernel::reason::ReasonCode;
use authz_token::Evidence;

use crate::engine::Engine;
use crate::judgement::{Arrival, Judgement};
use crate::refusal::{CallRefusal, Step};
use crate::request::CallRequest;
use crate::steps::record::{KeptRecord, RecordOrigin};
use crate::transport::Transport;

pub use crate::steps::admit::{AdmittedCall, admit};
pub use crate::steps::identify::{IdentifiedCall, identify};
pub use crate::steps::judge::{JudgedCall, judge};
pub use crate::steps::locate::{LocatedCall, locate};
pub use crate::steps::resolve::{ResolvedCall, resolve};
pub use crate::steps::settle::settle;

/// One call to judge: its request, and how it came. Every stage reads it, and none changes it.
#[derive(Clone, Copy)]
pub struct Call<'c, 'a> {
    pub(crate) request: &'c CallRequest<'a>,
    pub(crate) transport: &'c Transport<'a>,
    /// Origin of the call in its audit record.
    pub(crate) recorded: &'c RecordOrigin,
    /// The call only asks for an explanation (`Explain`), and its policies are traced.
    pub(crate) explain: bool,
    /// The decision lists how each policy was judged. Only an offline engine asks for it beside `explain`.
    pub(crate) traces: bool,
}

impl Call<'_, '_> {
    /// The call changes nothing that is stored.
    const fn is_dry(&self) -> bool {
        self.request.probe || self.explain
    }
}

// Written by hand so that no log can hold a token.
impl fmt::Debug for Call<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("explain", &self.explain).finish_non_exhaustive()
    }
}

/// A call with its final verdict, which goes to its record and its answer.
pub struct EndedCall<'a> {
    pub(crate) record: Box<Judgement>,
    /// All evidence of the call: no record repeats a token of it.
    pub(crate) evidence: Vec<Evidence<'a>>,
    /// The record was already written, with the changes of the call.
    pub(crate) kept: Option<KeptRecord>,
}

impl fmt::Debug for EndedCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedCall").field("reason", &self.record.reason()).finish_non_exhaustive()
    }
}

impl<'a> EndedCall<'a> {
    /// A call that a stage refused. `mode` may let it through nevertheless.
    pub(crate) fn refused(
        mut record: Judgement,
        evidence: Vec<Evidence<'a>>,
        refused: CallRefusal,
    ) -> Self {
        record.refuse(refused);
        record.soften();
        Self { record: Box::new(record), evidence, kept: None }
    }
}

/// Result of a stage: its value, or the call as the stage ended it.
pub type Staged<'a, T> = Result<T, EndedCall<'a>>;

/// Takes a call through the stages from its arrival to its final verdict.
pub(crate) fn decide<'a>(engine: &Engine, call: &Call<'_, 'a>, arrival: Arrival) -> EndedCall<'a> {
    decide_as(engine, call, arrival, |admitted| identify(engine, call, admitted))
}

/// As [`decide`], with another stage that identifies the caller.
pub(crate) fn decide_as<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    arrival: Arrival,
    identify: impl FnOnce(AdmittedCall) -> Staged<'a, IdentifiedCall<'a>>,
) -> EndedCall<'a> {
    let stages = || {
        let admitted = admit(engine, call, arrival)?;
        let identified = identify(admitted)?;
        let resolved = resolve(engine, call, identified)?;
        let located = locate(engine, call, resolved)?;
        let judged = judge(engine, call, located)?;
        settle(engine, call, judged)
    };
    stages().unwrap_or_else(|ended| ended)
}

impl Engine {
    /// Refuses a call whose deadline has passed.
    pub(crate) fn in_time(&self, transport: &Transport<'_>, step: Step) -> Result<(), CallRefusal> {
        if transport.is_late(self.clock.monotonic()) {
            let message = "the caller's deadline passed";
            return Err(CallRefusal::new(ReasonCode::Deadline, step, message));
        }
        Ok(())
    }
}
