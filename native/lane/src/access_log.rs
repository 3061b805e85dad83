//! `envoy.service.accesslog.v3.AccessLogService`: what came of permitted requests, as the proxy that asked has logged it.
//!
//! The fields are those of `envoy/data/accesslog/v3/accesslog.proto`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::history::Event;
use authz_kernel::model::Reports;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Record, RecordKey, RecordKind};
use prost::Message;
use prost::bytes::Bytes;
use prost_types::value::Kind;

use crate::engine::Engine;
use crate::limits;
use crate::metrics::LogEntry;
use crate::proto::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpResponseProperties, ResponseFlags,
};
use crate::proto::envoy::service::accesslog::v3::StreamAccessLogsResponse;
use crate::report::{Reporter, Told, may_report};
use crate::revoke;
use crate::settings::{ReportWay, Surface};
use crate::steps::record::ChangeContext;
use crate::tasks::Caller;
use crate::transport::{ApiError, Transport};
use crate::world::Loaded;

/// Under which the proxy keeps the `dynamic_metadata` of our answers.
const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
const DECISION_ID: &str = "decision_id";
/// `response_code_details` of a response that came from the upstream, and not from the proxy itself.
const VIA_UPSTREAM: &str = "via_upstream";

/// `StreamAccessLogsMessage` with its entries unread, so that they are counted before they take any room.
#[derive(Clone, PartialEq, Message)]
struct LogMessage {
    #[prost(message, optional, tag = "2")]
    http_logs: Option<LogEntries>,
    #[prost(message, optional, tag = "3")]
    tcp_logs: Option<LogEntries>,
}

#[derive(Clone, PartialEq, Message)]
struct LogEntries {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    log_entry: Vec<Bytes>,
}

/// An entry that tells what came of a decision.
struct Logged {
    decision_id: String,
    event: Event,
}

impl Engine {
    /// Takes one message of an access log. What it tells of no open permit is counted, and changes nothing.
    ///
    /// An empty one asks whether the caller is heard at all.
    ///
    /// # Errors
    /// Whoever tells is no enforcer that reports by access log.
    pub(crate) fn access_log(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let world = self.heard(transport)?;
        match self.entries(request) {
            Some(message) => {
                for _ in message.tcp_logs.into_iter().flat_map(|entries| entries.log_entry) {
                    self.metrics.logged(LogEntry::NoDecision);
                }
                for entry in message.http_logs.into_iter().flat_map(|entries| entries.log_entry) {
                    let came = match read(&entry) {
                        Ok(logged) => self.settle_logged(logged, &world, transport),
                        Err(came) => came,
                    };
                    self.metrics.logged(came);
                }
            }
            None => self.metrics.logged(LogEntry::Malformed),
        }
        Ok(StreamAccessLogsResponse {}.encode_to_vec())
    }

    /// Whoever tells is an enforcer that reports by access log, and is not revoked.
    fn heard(&self, transport: &Transport<'_>) -> Result<Arc<Loaded>, ApiError> {
        let mut judgement = self.judgement(Surface::AccessLog, self.world(), transport);
        let heard = self.admit(&judgement.arrival, transport).and_then(|world| {
            may_report(&judgement, ReportWay::AccessLog)?;
            revoke::of_asker(&*self.keeper.revocations()?, &judgement.arrival.asker)?;
            Ok(world)
        });
        heard.map_err(|refused| {
            let error = ApiError::of(refused.reason, refused.message.clone());
            judgement.refuse(refused);
            let line = self.recorded(transport);
            drop(self.conclude(judgement, &[], transport, line, None));
            error
        })
    }

    /// The entries of a message; none: it cannot be read, or is too large.
    fn entries(&self, request: &[u8]) -> Option<LogMessage> {
        self.check_size(request).ok()?;
        let message = LogMessage::decode(Bytes::copy_from_slice(request)).ok()?;
        let count = |entries: &Option<LogEntries>| {
            entries.as_ref().map_or(0, |entries| entries.log_entry.len())
        };
        let all = count(&message.http_logs).saturating_add(count(&message.tcp_logs));
        (all <= limits::LOG_ENTRIES).then_some(message)
    }

    /// Settles the permit that an entry is about. One that nobody awaits is no decision, and leaves no record.
    fn settle_logged(
        &self,
        logged: Logged,
        world: &Arc<Loaded>,
        transport: &Transport<'_>,
    ) -> LogEntry {
        let transport = &Transport { received: self.clock.monotonic(), ..*transport };
        let mut judgement = self.judgement(Surface::AccessLog, Some(Arc::clone(world)), transport);
        let wait = self.wait_of(transport);
        let key = RecordKey::new(RecordKind::Reservation, &logged.decision_id);
        let permit = match self.keeper.peek(&key, wait) {
            Ok(Some(Record::Reservation(permit))) => permit,
            Ok(_) => return LogEntry::NothingOpen,
            Err(_) => return LogEntry::Failed,
        };
        if permit.due <= judgement.arrival.now() {
            return LogEntry::NothingOpen;
        }
        if world.plan.model().reports(&permit.operation) != Reports::AccessLog {
            return LogEntry::OtherReporter;
        }
        let told = Told {
            decision_id: logged.decision_id,
            event: logged.event,
            // What was never tried brought nothing; what came of anything else nobody here sees.
            labels: (logged.event == Event::Aborted).then(BTreeSet::new),
            actuals: BTreeMap::new(),
        };
        let line = self.recorded(transport);
        let done = {
            let call = ChangeContext { evidence: &[], recorded: &line, wait };
            let caller = Caller { world: Arc::clone(world), call, is_owner: false };
            self.told(&told, Reporter::AccessLog, &mut judgement, &caller)
        };
        let kept = match done {
            Ok((_, kept)) => kept,
            Err(refused) => {
                judgement.refuse(refused);
                None
            }
        };
        let judgement = self.conclude(judgement, &[], transport, line, kept);
        match judgement.reason() {
            ReasonCode::Permitted => LogEntry::Settled,
            ReasonCode::EnforcerRefused => LogEntry::Refused,
            // Another was faster.
            ReasonCode::NotPermitted => LogEntry::NothingOpen,
            _ => LogEntry::Failed,
        }
    }
}

/// Reads one entry; where it tells nothing, why.
fn read(entry: &[u8]) -> Result<Logged, LogEntry> {
    let entry = HttpAccessLogEntry::decode(entry).map_err(|_| LogEntry::Malformed)?;
    let common = entry.common_properties.unwrap_or_default();
    if !is_final(&common) {
        return Err(LogEntry::NotFinal);
    }
    let decision_id = decision_id(&common)?.to_owned();
    let event = what_came(&common, &entry.response.unwrap_or_default());
    Ok(Logged { decision_id, event })
}

/// The request is over, and this is not the log of one attempt at its upstream (`access_log_type`).
#[expect(deprecated, reason = "proxies before `access_log_type` say it so")]
fn is_final(common: &AccessLogCommon) -> bool {
    matches!(
        AccessLogType::try_from(common.access_log_type),
        Ok(AccessLogType::NotSet | AccessLogType::DownstreamEnd)
    ) && !common.intermediate_log_entry
}

/// The decision that let the request through, from `common_properties.metadata`.
fn decision_id(common: &AccessLogCommon) -> Result<&str, LogEntry> {
    let ours = common.metadata.as_ref().and_then(|all| all.filter_metadata.get(EXT_AUTHZ));
    let Some(value) = ours.and_then(|ours| ours.fields.get(DECISION_ID)) else {
        return Err(LogEntry::NoDecision);
    };
    match &value.kind {
        Some(Kind::StringValue(id)) if !id.is_empty() && id.len() <= limits::ID => Ok(id),
        _ => Err(LogEntry::Malformed),
    }
}

/// What came of a request, as far as its log says. Whatever may have been done counts as done, as where nobody tells.
///
/// * Done: the upstream answered (`response_code_details`, `via_upstream`) with 2xx, 303 or 304 (RFC 9110 §15.4.4, §15.4.5),
///   and nothing cut the answer off (`response_flags`). Other redirections say that it is to be done elsewhere.
/// * Failed: it answered so with 4xx or 5xx, at the first attempt (`upstream_request_attempt_count`); but not with 502, 503
///   or 504, which are what a proxy between says of a server that it lost (RFC 9110 §15.6.3 to §15.6.5).
/// * Aborted: the proxy answered by itself, and had sent nothing ([`was_never_sent`]).
/// * Unreported: anything else. A reset, a time-out, a client that left: the upstream may have done it.
fn what_came(common: &AccessLogCommon, response: &HttpResponseProperties) -> Event {
    let none = ResponseFlags::default();
    let flags = common.response_flags.as_ref().unwrap_or(&none);
    match response.response_code_details.as_str() {
        VIA_UPSTREAM if *flags == none => {
            let is_first = common.upstream_request_attempt_count <= 1;
            match response.response_code.unwrap_or_default() {
                200..=299 | 303 | 304 => Event::Done,
                502..=504 => Event::Unreported,
                400..=599 if is_first => Event::Failed,
                _ => Event::Unreported,
            }
        }
        "" | VIA_UPSTREAM => Event::Unreported,
        _ if was_never_sent(common) && is_of_proxy(flags) => Event::Aborted,
        _ => Event::Unreported,
    }
}

/// No byte of the request went to any upstream: none was sent (`time_to_first_upstream_tx_byte`, of the last attempt;
/// `upstream_wire_bytes_sent`, of all), and there was no second attempt (`upstream_request_attempt_count`).
fn was_never_sent(common: &AccessLogCommon) -> bool {
    common.time_to_first_upstream_tx_byte.is_none()
        && common.time_to_first_upstream_rx_byte.is_none()
        && common.upstream_wire_bytes_sent == 0
        && common.upstream_request_attempt_count <= 1
}

/// All that is flagged is what a proxy finds before it sends anything: no route, cluster, name, healthy host, room in the
/// circuit breaker or connection; a rate limit; an injected fault; a filter that refuses.
fn is_of_proxy(flags: &ResponseFlags) -> bool {
    let rest = ResponseFlags {
        no_healthy_upstream: false,
        upstream_connection_failure: false,
        upstream_overflow: false,
        no_route_found: false,
        no_cluster_found: false,
        dns_resolution_failure: false,
        delay_injected: false,
        fault_injected: false,
        rate_limited: false,
        rate_limit_service_error: false,
        unauthorized_details: None,
        no_filter_config_found: false,
        ..*flags
    };
    rest == ResponseFlags::default()
}
