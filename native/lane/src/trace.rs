//! W3C Trace Context of a call, and the spans that Python pulls and exports.
//!
//! Nothing here blocks a decision: a span that finds the queue full is dropped and counted.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use authz_base::poison::IgnorePoison as _;
use authz_kernel::hex::hex;
use authz_kernel::reason::PublicCode;
use serde::Serialize;

use crate::clock::Clock;
use crate::judgement::Judgement;
use crate::judgement::outcome_name;
use crate::settings::TraceSettings;

/// Longest `tracestate` that is passed on (Trace Context §3.3.1.5).
const MAX_STATE: usize = 512;

/// The caller's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent<'a> {
    pub(crate) trace: &'a str,
    pub(crate) span: &'a str,
    pub(crate) sampled: bool,
}

/// Reads a `traceparent` (Trace Context §3.2.2). `None`: it is not well-formed.
pub(crate) fn parent(value: &str) -> Option<Parent<'_>> {
    let mut parts = value.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(span, 16)
        && !is_zero(span)
        && is_hex(flags, 2);
    let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    is_valid.then_some(Parent { trace, span, sampled })
}

/// The ids of one decision, for its record and its span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceIds {
    trace: String,
    /// Id of our own span if there is one, else of the caller's span.
    span: String,
    own: Option<Own>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    parent: Option<String>,
    state: Option<String>,
}

impl TraceIds {
    /// Trace id and span id, as a record holds them.
    pub(crate) fn of_record(&self) -> (&str, &str) {
        (&self.trace, &self.span)
    }
}

/// One decision, as a span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// The caller's span. `None`: this span is the first of its trace.
    pub parent_id: Option<String>,
    /// W3C `tracestate` of the call.
    pub trace_state: Option<String>,
    /// The gRPC method.
    pub name: &'static str,
    /// Arrival of the call, in nanoseconds since 1970.
    pub start_ns: u64,
    /// Time of the answer, in nanoseconds since 1970.
    pub end_ns: u64,
    /// True if Authz could not decide: a failure of its own, or overload.
    pub failed: bool,
    /// Its decision.
    pub decision_id: String,
    /// `permit`, `step_up` or `deny`.
    pub decision: &'static str,
    /// Reason code.
    pub reason_code: &'static str,
    /// Operation id. Empty: the operation is not in the catalog.
    pub operation: String,
    /// Id of the task that it was asked in, or about; empty without one.
    pub task: String,
    /// Revision of the bundle. Empty: no bundle is loaded.
    pub bundle_revision: String,
    /// Name of the enforcer. Empty: the caller asked about itself.
    pub enforcer: String,
    /// The way in.
    pub listener: String,
    /// Time that the verification of credentials took, in nanoseconds.
    pub verify_ns: Option<u64>,
    /// Time that policy took, in nanoseconds.
    pub decide_ns: Option<u64>,
}

/// Which decisions become spans, and those that wait to be pulled.
#[derive(Debug)]
pub(crate) struct Tracing {
    settings: TraceSettings,
    spans: Mutex<VecDeque<Span>>,
    dropped: AtomicU64,
}

impl Tracing {
    pub(crate) fn new(settings: TraceSettings) -> Self {
        Self { settings, spans: Mutex::new(VecDeque::new()), dropped: AtomicU64::new(0) }
    }

    /// Takes the oldest spans, at most so many.
    pub(crate) fn take(&self, most: usize) -> Vec<Span> {
        let mut spans = self.spans.lock().ignore_poison();
        let count = spans.len().min(most);
        spans.drain(..count).collect()
    }

    /// Spans that found the queue full.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends the span of a decision, if it has one.
    ///
    /// `ended` is the end of the call since 1970, and `took` its duration.
    pub(crate) fn end(
        &self,
        ids: &TraceIds,
        judgement: &Judgement,
        ended: Duration,
        took: Duration,
    ) {
        let Some(own) = &ids.own else {
            return;
        };
        let end_ns = nanos(ended);
        let span = Span {
            trace_id: ids.trace.clone(),
            span_id: ids.span.clone(),
            parent_id: own.parent.clone(),
            trace_state: own.state.clone(),
            name: judgement.arrival.surface.path(),
            start_ns: end_ns.saturating_sub(nanos(took)),
            end_ns,
            failed: judgement.reason().row().public_code == PublicCode::Unavailable,
            decision_id: judgement.arrival.id.clone(),
            decision: outcome_name(judgement.outcome()),
            reason_code: judgement.reason().as_str(),
            operation: judgement.resolved.operation.clone(),
            task: judgement.context.task.as_ref().map_or_else(String::new, |task| task.id.clone()),
            bundle_revision: judgement
                .arrival
                .world
                .as_ref()
                .map_or_else(String::new, |world| world.revision.clone()),
            enforcer: judgement.arrival.asker.name().to_owned(),
            listener: judgement.arrival.listener.clone(),
            verify_ns: judgement.caller.verify_time.map(nanos),
            decide_ns: judgement.decide_time().map(nanos),
        };
        let mut spans = self.spans.lock().ignore_poison();
        if spans.len() < self.settings.queue {
            spans.push_back(span);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn samples(&self, parent: Option<Parent<'_>>, low: u64) -> bool {
        match parent {
            Some(parent) if self.settings.parent_based => parent.sampled,
            _ => is_sampled(self.settings.ratio, low),
        }
    }
}

/// As OpenTelemetry's `TraceIdRatioBased` sampler decides: by the low half of the trace id.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a ratio within 0 and 1 gives a bound within u64, and the conversion saturates"
)]
fn is_sampled(ratio: f64, low: u64) -> bool {
    ratio >= 1.0 || low < (ratio * 18_446_744_073_709_551_616.0).round() as u64
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The ids of a decision: those of our own span if the decision is sampled, otherwise the caller's. Without
/// randomness of the system, no span is made.
pub(crate) fn ids(
    tracing: Option<&Tracing>,
    clock: &dyn Clock,
    trace_parent: Option<&str>,
    trace_state: Option<&str>,
) -> Option<TraceIds> {
    let parent = trace_parent.and_then(parent);
    let callers = || {
        parent.map(|parent| TraceIds {
            trace: parent.trace.to_owned(),
            span: parent.span.to_owned(),
            own: None,
        })
    };
    let Some(tracing) = tracing else {
        return callers();
    };
    let (trace, low) = match parent {
        Some(parent) => {
            let low = parent.trace.get(16..).and_then(|low| u64::from_str_radix(low, 16).ok());
            (parent.trace.to_owned(), low.unwrap_or(u64::MAX))
        }
        None => {
            let Some((high, low)) = new_id(clock).zip(new_id(clock)) else {
                return callers();
            };
            (format!("{}{}", hex(&high.to_be_bytes()), hex(&low.to_be_bytes())), low)
        }
    };
    if !tracing.samples(parent, low) {
        return callers();
    }
    let Some(span) = new_id(clock) else {
        return callers();
    };
    let state = trace_state.filter(|state| {
        !state.is_empty() && state.len() <= MAX_STATE && state.bytes().all(|byte| byte.is_ascii())
    });
    Some(TraceIds {
        trace,
        span: hex(&span.to_be_bytes()),
        own: Some(Own {
            parent: parent.map(|parent| parent.span.to_owned()),
            state: parent.and(state).map(str::to_owned),
        }),
    })
}

/// Id of a span, or half the id of a trace. Zero is not a valid id (Trace Context §3.2.2).
fn new_id(clock: &dyn Clock) -> Option<u64> {
    clock.random().filter(|value| *value != 0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn tracing(parent_based: bool, ratio: f64) -> Tracing {
        Tracing::new(TraceSettings { parent_based, ratio, queue: 2 })
    }

    /// Only what Trace Context §3.2.2 allows is a parent.
    #[test]
    fn malformed_parents_are_ignored() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(Some(Parent { trace: TRACE, span: SPAN, sampled: true }), parent(&good));
        assert!(!parent(&format!("00-{TRACE}-{SPAN}-02")).unwrap().sampled);
        // A later version may have more parts.
        assert!(parent(&format!("cc-{TRACE}-{SPAN}-01-what")).is_some());
        for bad in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}é-{SPAN}-01"),
            format!("{good},{good}"),
        ] {
            assert_eq!(None, parent(&bad), "{bad}");
        }
    }

    /// Without tracing the record has the caller's ids, with tracing those of our own span.
    #[test]
    fn ids_follow_the_sampler() {
        let sampled = format!("00-{TRACE}-{SPAN}-01");
        let unsampled = format!("00-{TRACE}-{SPAN}-00");
        let own = |tracing: &Tracing, value: Option<&str>| {
            ids(Some(tracing), &SystemClock, value, Some("a=b"))
        };
        assert_eq!(
            (TRACE, SPAN),
            ids(None, &SystemClock, Some(&sampled), None).unwrap().of_record()
        );
        assert_eq!(None, ids(None, &SystemClock, None, None));

        let always = tracing(true, 1.0);
        let child = own(&always, Some(&sampled)).unwrap();
        let parent = Own { parent: Some(SPAN.to_owned()), state: Some("a=b".to_owned()) };
        assert_eq!((TRACE, Some(&parent)), (child.of_record().0, child.own.as_ref()));
        assert_ne!(SPAN, child.of_record().1);
        assert_eq!(None, own(&always, Some(&unsampled)).unwrap().own);
        let root = own(&always, None).unwrap();
        assert_eq!((32, 16), (root.of_record().0.len(), root.of_record().1.len()));
        assert_eq!(Some(&Own { parent: None, state: None }), root.own.as_ref());

        assert!(own(&tracing(false, 1.0), Some(&unsampled)).unwrap().own.is_some());
        assert_eq!(None, own(&tracing(false, 0.0), Some(&sampled)).unwrap().own);
        assert_eq!(None, own(&tracing(true, 0.0), None));
        let long = "a".repeat(MAX_STATE + 1);
        let child = ids(Some(&always), &SystemClock, Some(&sampled), Some(&long)).unwrap();
        assert_eq!(None, child.own.unwrap().state);
    }

    /// A ratio counts by the trace id, so that every service takes the same traces.
    #[test]
    fn ratio_is_of_trace_ids() {
        for (ratio, low, wanted) in [
            (0.5, 0, true),
            (0.5, u64::MAX / 2, true),
            (0.5, u64::MAX / 2 + 2, false),
            (0.0, 0, false),
            (1.0, u64::MAX, true),
        ] {
            assert_eq!(wanted, is_sampled(ratio, low), "{ratio} {low}");
        }
    }
}
