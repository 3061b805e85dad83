//! `envoy.service.accesslog.v3.AccessLogService`: outcomes of permitted requests, as the proxy that asked has logged them.
//!
//! The fields are those of `envoy/data/accesslog/v3/accesslog.proto`.

use std::sync::Arc;

use authz_kernel::history::Event;
use authz_kernel::model::Reports;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Record, RecordKey, RecordKind};
use prost::Message;
use prost::bytes::Bytes;
use prost_types::value::Kind;

use crate::api_call::RefusedCaller;
use crate::engine::Engine;
use crate::limits;
use crate::metrics::LogEntry;
use crate::proto::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpResponseProperties, ResponseFlags,
};
use crate::proto::envoy::service::accesslog::v3::StreamAccessLogsResponse;
use crate::report::{OutcomeReport, Reporter, reporting_enforcer};
use crate::revoke;
use crate::settings::{ReportWay, Surface};
use crate::transport::{ApiError, Transport};
use crate::world::Loaded;

/// Name under which the proxy keeps the `dynamic_metadata` of Authz's answers.
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

/// Outcome of a permit, as an entry tells it.
struct LoggedOutcome {
    decision_id: String,
    event: Event,
}

impl Engine {
    /// Takes one message of an access log. An entry that tells of no open permit is counted, and changes nothing.
    ///
    /// A message without entries asks whether the caller may report at all.
    ///
    /// # Errors
    /// The caller is not an enforcer that reports by access log.
    pub(crate) fn access_log(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let world = self.admit_log(transport)?;
        match self.entries(request) {
            Some(message) => {
                for _ in message.tcp_logs.into_iter().flat_map(|entries| entries.log_entry) {
                    self.metrics.logged(LogEntry::NoDecision);
                }
                for entry in message.http_logs.into_iter().flat_map(|entries| entries.log_entry) {
                    let result = match read_entry(&entry) {
                        Ok(outcome) => self.settle_logged(outcome, &world, transport),
                        Err(result) => result,
                    };
                    self.metrics.logged(result);
                }
            }
            None => self.metrics.logged(LogEntry::Malformed),
        }
        Ok(StreamAccessLogsResponse {}.encode_to_vec())
    }

    /// Refuses a caller that is not an enforcer that reports by access log, or that is revoked. A refusal is recorded.
    fn admit_log(&self, transport: &Transport<'_>) -> Result<Arc<Loaded>, ApiError> {
        let arrival = self.arrival(Surface::AccessLog, self.world(), transport);
        let admitted = self.admit(&arrival, transport).and_then(|world| {
            reporting_enforcer(&arrival, ReportWay::AccessLog)?;
            revoke::of_asker(&*self.keeper.revocations()?, &arrival.asker)?;
            Ok(world)
        });
        admitted.map_err(|refused| {
            let error = ApiError::of(refused.reason, refused.message.clone());
            let caller = RefusedCaller::of(arrival, self.recorded(transport), "", refused);
            drop(self.conclude_refused(caller, transport));
            error
        })
    }

    /// The entries of a message; none if the message cannot be read or is too large.
    fn entries(&self, request: &[u8]) -> Option<LogMessage> {
        self.check_size(request).ok()?;
        let message = LogMessage::decode(Bytes::copy_from_slice(request)).ok()?;
        let count = |entries: &Option<LogEntries>| {
            entries.as_ref().map_or(0, |entries| entries.log_entry.len())
        };
        let all = count(&message.http_logs).saturating_add(count(&message.tcp_logs));
        (all <= limits::LOG_ENTRIES).then_some(message)
    }

    /// Settles the permit that an entry is about. An entry without an open permit leaves no record.
    fn settle_logged(
        &self,
        outcome: LoggedOutcome,
        world: &Arc<Loaded>,
        transport: &Transport<'_>,
    ) -> LogEntry {
        let transport = &Transport { received: self.clock.monotonic(), ..*transport };
        let arrival = self.arrival(Surface::AccessLog, Some(Arc::clone(world)), transport);
        let key = RecordKey::new(RecordKind::Reservation, &outcome.decision_id);
        let permit = match self.keeper.peek(&key, self.wait_of(transport)) {
            Ok(Some(Record::Reservation(permit))) => permit,
            Ok(_) => return LogEntry::NothingOpen,
            Err(_) => return LogEntry::Failed,
        };
        if permit.due <= arrival.now() {
            return LogEntry::NothingOpen;
        }
        if world.plan.model().reports(&permit.operation) != Reports::AccessLog {
            return LogEntry::OtherReporter;
        }
        let report = OutcomeReport::logged(outcome.decision_id, outcome.event);
        let caller = self.enforcer_caller(arrival, Arc::clone(world), transport);
        let settled = self.settle_report(&report, Reporter::AccessLog, &caller);
        let (record, _) = self.conclude_call(caller, settled);
        match record.reason() {
            ReasonCode::Permitted => LogEntry::Settled,
            ReasonCode::EnforcerRefused => LogEntry::Refused,
            // Another report was faster.
            ReasonCode::NotPermitted => LogEntry::NothingOpen,
            _ => LogEntry::Failed,
        }
    }
}

/// Reads one entry.
///
/// # Errors
/// The reason why the entry tells no outcome.
fn read_entry(entry: &[u8]) -> Result<LoggedOutcome, LogEntry> {
    let entry = HttpAccessLogEntry::decode(entry).map_err(|_| LogEntry::Malformed)?;
    let common = entry.common_properties.unwrap_or_default();
    if !is_final(&common) {
        return Err(LogEntry::NotFinal);
    }
    let decision_id = decision_id(&common)?.to_owned();
    let event = event_of(&common, &entry.response.unwrap_or_default());
    Ok(LoggedOutcome { decision_id, event })
}

/// Whether the request is over, and the entry is not the log of one attempt at its upstream (`access_log_type`).
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

/// The outcome of a request, as far as its log says it. An operation that may have been done counts as done, as it does without
/// a report.
///
/// * Done: the upstream answered (`response_code_details`, `via_upstream`) with 2xx, 303 or 304 (RFC 9110 §15.4.4, §15.4.5),
///   and nothing cut the answer off (`response_flags`). Other redirections say that it is to be done elsewhere.
/// * Failed: it answered so with 4xx or 5xx, at the first attempt (`upstream_request_attempt_count`); but not with 502, 503
///   or 504, by which a proxy in between says that it lost the server (RFC 9110 §15.6.3 to §15.6.5).
/// * Aborted: the proxy answered by itself, and had sent nothing ([`was_never_sent`]).
/// * Unreported: anything else. A reset, a time-out, a client that left: the upstream may have done it.
fn event_of(common: &AccessLogCommon, response: &HttpResponseProperties) -> Event {
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

/// Whether no byte of the request went to any upstream: none was sent (`time_to_first_upstream_tx_byte`, of the last attempt;
/// `upstream_wire_bytes_sent`, of all), in the only attempt (`upstream_request_attempt_count`).
fn was_never_sent(common: &AccessLogCommon) -> bool {
    common.time_to_first_upstream_tx_byte.is_none()
        && common.time_to_first_upstream_rx_byte.is_none()
        && common.upstream_wire_bytes_sent == 0
        && common.upstream_request_attempt_count <= 1
}

/// Whether all flags are those that a proxy sets before it sends anything: no route, cluster, name, healthy host, room in the
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
