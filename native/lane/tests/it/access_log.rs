//! What a proxy's access log tells of permits: what it settles, and all that settles nothing.

use authz_kernel::reason::ReasonCode;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::envoy::config::core::v3::Metadata;
use authz_lane::proto::envoy::data::accesslog::v3 as log;
use authz_lane::proto::envoy::service::accesslog::v3 as als;
use authz_lane::{Surface, Transport};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Duration, Struct, Value};
use serde_json::json;

use crate::report::{TEMPLATES, ask, of, report, shop_that, stock_as};
use crate::support::*;
use crate::tasks::alices;

/// An entry of a request that the proxy forwarded by this decision, answered so by the upstream.
pub(crate) fn answered(decision_id: &str, code: u32) -> log::HttpAccessLogEntry {
    let id = Value { kind: Some(Kind::StringValue(decision_id.to_owned())) };
    let ours = Struct { fields: [("decision_id".to_owned(), id)].into() };
    let metadata = Metadata {
        filter_metadata: [("envoy.filters.http.ext_authz".to_owned(), ours)].into(),
        ..Metadata::default()
    };
    log::HttpAccessLogEntry {
        common_properties: Some(log::AccessLogCommon {
            metadata: Some(metadata),
            time_to_first_upstream_tx_byte: Some(Duration::default()),
            upstream_wire_bytes_sent: 120,
            upstream_request_attempt_count: 1,
            access_log_type: log::AccessLogType::DownstreamEnd as i32,
            ..log::AccessLogCommon::default()
        }),
        response: Some(log::HttpResponseProperties {
            response_code: Some(code),
            response_code_details: "via_upstream".to_owned(),
            ..log::HttpResponseProperties::default()
        }),
        ..log::HttpAccessLogEntry::default()
    }
}

fn with(
    mut entry: log::HttpAccessLogEntry,
    change: impl FnOnce(&mut log::AccessLogCommon, &mut log::HttpResponseProperties),
) -> log::HttpAccessLogEntry {
    let (common, response) = (entry.common_properties.as_mut(), entry.response.as_mut());
    change(common.unwrap(), response.unwrap());
    entry
}

/// The proxy answered by itself, and had sent nothing.
fn unsent(decision_id: &str, flags: log::ResponseFlags) -> log::HttpAccessLogEntry {
    with(answered(decision_id, 503), |common, response| {
        common.time_to_first_upstream_tx_byte = None;
        common.upstream_wire_bytes_sent = 0;
        common.response_flags = Some(flags);
        response.response_code_details = "upstream_reset_before_response_started".to_owned();
    })
}

fn connection_failed(decision_id: &str) -> log::HttpAccessLogEntry {
    let upstream_connection_failure = true;
    unsent(
        decision_id,
        log::ResponseFlags { upstream_connection_failure, ..log::ResponseFlags::default() },
    )
}

pub(crate) fn message(entries: Vec<log::HttpAccessLogEntry>) -> Vec<u8> {
    use als::stream_access_logs_message::{HttpAccessLogEntries, LogEntries};
    let logs = LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries });
    let message = als::StreamAccessLogsMessage { identifier: None, log_entries: Some(logs) };
    message.encode_to_vec()
}

fn tell(served: &Served, listener: &str, message: &[u8]) -> Result<(), ReasonCode> {
    let told = served.engine.call(Surface::AccessLog, message, &Transport::by(listener));
    told.map(|answer| assert!(answer.is_empty())).map_err(|error| error.reason_code)
}

fn tell_of(served: &Served, entry: log::HttpAccessLogEntry) {
    assert_eq!(Ok(()), tell(served, "gate", &message(vec![entry])));
}

/// Entries so far, by what came of them; those of which there are none are left out.
fn counted(served: &Served) -> Vec<(String, u32)> {
    let families = served.engine.metrics();
    let family = families.iter().find(|family| family.name == "authz_access_log_entries").unwrap();
    let seen = family.samples.iter().filter(|sample| sample.value > 0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
    seen.map(|sample| (sample.labels[0].1.clone(), sample.value as u32)).collect()
}

fn counts(wanted: &[(&str, u32)]) -> Vec<(String, u32)> {
    wanted.iter().map(|(result, count)| ((*result).to_owned(), *count)).collect()
}

/// A shop whose proxy tells, and a task in it.
fn shop() -> (Served, String) {
    let served = shop_that(&json!({}), TEMPLATES, "access_log");
    let task = alices(&served).id;
    (served, task)
}

fn pay(served: &Served, task: &str, n: i64) -> wire::Decision {
    ask(served, task, "gate", "shop.pay", &json!({"n": n}))
}

fn paid(served: &Served, task: &str) -> String {
    let decision = pay(served, task, 100);
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    decision.decision_id
}

/// It is required to be done, and counts as done; of labels nobody saw which came, so all that may have come stay.
#[test]
fn what_the_upstream_did_is_done() {
    let (served, task) = shop();
    let call = |call: &str| ask(&served, &task, "gate", call, &json!({"n": 1}));
    let found = ask(&served, &task, "gate", "shop.find", &json!({}));
    assert_eq!("FORBIDDEN", code(&ask(&served, &task, "gate", "shop.delete", &json!({}))));
    tell_of(&served, answered(&found.decision_id, 200));
    assert_eq!("PERMITTED", code(&ask(&served, &task, "gate", "shop.delete", &json!({}))));
    assert_eq!("FORBIDDEN", code(&call("shop.move")), "`vip` may have come");
    assert_eq!(counts(&[("settled", 1)]), counted(&served));
    let path = "envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
    let records = served.records();
    let told: Vec<_> = records.iter().filter(|record| record["path"] == path).collect();
    let wanted = json!({"decision_id": found.decision_id, "result": "OK"});
    assert_eq!(vec![&wanted], told.iter().map(|one| &one["input"]["report"]).collect::<Vec<_>>());
    assert_eq!("gate", told[0]["input"]["enforcer"]);
}

/// What was permitted without a task is told of like any other.
#[test]
fn what_was_permitted_without_a_task_is_told_of_too() {
    let served = unloaded(&json!({}));
    stock_as(&served, "{name: desk, tasks: optional}", TEMPLATES, "access_log");
    tell_of(&served, connection_failed(&paid(&served, "")));
    tell_of(&served, answered(&paid(&served, ""), 200));
    assert_eq!("BUDGET_EXCEEDED", code(&pay(&served, "", 1)));
    assert_eq!(counts(&[("settled", 2)]), counted(&served));
}

fn flag(set: fn(&mut log::ResponseFlags)) -> log::ResponseFlags {
    let mut flags = log::ResponseFlags::default();
    set(&mut flags);
    flags
}

/// The upstream had begun to answer.
fn cut_off(id: &str, set: fn(&mut log::ResponseFlags)) -> log::HttpAccessLogEntry {
    with(answered(id, 200), |common, response| {
        common.response_flags = Some(flag(set));
        response.response_code_details = "upstream_reset_after_response_started".to_owned();
    })
}

type Entry = fn(&str) -> log::HttpAccessLogEntry;

/// What is known to have come.
const KNOWN: [(&str, &str, Entry); 10] = [
    ("200", "OK", |id| answered(id, 200)),
    ("303", "OK", |id| answered(id, 303)),
    ("304", "OK", |id| answered(id, 304)),
    ("404", "FAILED", |id| answered(id, 404)),
    ("500", "FAILED", |id| answered(id, 500)),
    ("no connection", "ABORTED", connection_failed),
    ("no healthy host", "ABORTED", |id| unsent(id, flag(|flags| flags.no_healthy_upstream = true))),
    ("no room", "ABORTED", |id| unsent(id, flag(|flags| flags.upstream_overflow = true))),
    ("no route", "ABORTED", |id| {
        with(unsent(id, flag(|flags| flags.no_route_found = true)), |common, response| {
            common.upstream_request_attempt_count = 0;
            response.response_code_details = "route_not_found".to_owned();
        })
    }),
    ("another filter", "ABORTED", |id| unsent(id, log::ResponseFlags::default())),
];

/// What may have been done.
const UNKNOWN: [(&str, Entry); 18] = [
    ("101", |id| answered(id, 101)),
    ("302", |id| answered(id, 302)),
    ("502", |id| answered(id, 502)),
    ("503", |id| answered(id, 503)),
    ("504", |id| answered(id, 504)),
    ("no status", |id| answered(id, 0)),
    ("flagged", |id| {
        let flags = Some(flag(|flags| flags.local_reset = true));
        with(answered(id, 200), |common, _| common.response_flags = flags)
    }),
    ("reset", |id| cut_off(id, |flags| flags.upstream_remote_reset = true)),
    ("time-out", |id| cut_off(id, |flags| flags.upstream_request_timeout = true)),
    ("client left", |id| cut_off(id, |flags| flags.downstream_connection_termination = true)),
    ("client left before", |id| {
        unsent(id, flag(|flags| flags.downstream_connection_termination = true))
    }),
    ("cached", |id| unsent(id, flag(|flags| flags.response_from_cache_filter = true))),
    ("sent, then reset", |id| {
        with(connection_failed(id), |common, _| {
            common.time_to_first_upstream_tx_byte = Some(Duration::default());
        })
    }),
    ("sent at an earlier attempt", |id| {
        with(connection_failed(id), |common, _| common.upstream_wire_bytes_sent = 1)
    }),
    ("second attempt", |id| {
        with(connection_failed(id), |common, _| common.upstream_request_attempt_count = 2)
    }),
    ("failed at the second attempt", |id| {
        with(answered(id, 409), |common, _| common.upstream_request_attempt_count = 2)
    }),
    ("no details", |id| {
        with(connection_failed(id), |_, response| response.response_code_details.clear())
    }),
    ("no response", |id| log::HttpAccessLogEntry { response: None, ..answered(id, 200) }),
];

/// What came of a payment that can be aborted: whether what it reserved is given back.
#[test]
fn only_what_was_not_done_is_given_back() {
    let unknown = UNKNOWN.map(|(name, entry)| (name, "UNREPORTED", entry));
    let (served, _) = shop();
    let mut told = Vec::new();
    for (name, wanted, entry) in KNOWN.into_iter().chain(unknown) {
        let task = alices(&served).id;
        let id = paid(&served, &task);
        tell_of(&served, entry(&id));
        told.push((name, json!({"decision_id": id, "result": wanted})));
        let is_back = ["FAILED", "ABORTED"].contains(&wanted);
        let again = pay(&served, &task, 1);
        assert_eq!(if is_back { "PERMITTED" } else { "BUDGET_EXCEEDED" }, code(&again), "{name}");
    }
    let records = served.records();
    let mut reports = records.iter().map(|record| &record["input"]["report"]);
    for (name, wanted) in &told {
        assert!(reports.any(|report| report == wanted), "{name}: {wanted}");
    }
}

/// Of an operation that may have begun when it fails, only what never began is given back.
#[test]
fn what_failed_half_way_is_spent() {
    for (entry, wanted) in
        [(answered("", 500), "BUDGET_EXCEEDED"), (connection_failed(""), "PERMITTED")]
    {
        let (served, task) = shop();
        let move_ = |n: i64| ask(&served, &task, "gate", "shop.move", &json!({"n": n}));
        let id = move_(100).decision_id;
        let metadata = answered(&id, 0).common_properties.unwrap().metadata;
        tell_of(&served, with(entry, |common, _| common.metadata = metadata));
        assert_eq!(wanted, code(&move_(100)));
    }
}

#[test]
fn an_entry_counts_once() {
    let (served, task) = shop();
    let failed = connection_failed(&paid(&served, &task));
    let entry = || failed.clone();
    assert_eq!(Ok(()), tell(&served, "gate", &message(vec![entry(), entry(), entry()])));
    tell_of(&served, entry());
    assert_eq!(counts(&[("settled", 1), ("nothing_open", 3)]), counted(&served));
    // Once given back, and not once an entry.
    assert_eq!("PERMITTED", code(&pay(&served, &task, 100)));
    assert_eq!("BUDGET_EXCEEDED", code(&pay(&served, &task, 1)));
}

/// Nobody is heard but an enforcer that reports so, and it tells only of what it was permitted itself.
#[test]
fn who_may_not_tell_settles_nothing() {
    let (served, task) = shop();
    let id = paid(&served, &task);
    let told = message(vec![connection_failed(&id)]);
    for listener in ["sdk", "mute", "own", "admin", "nowhere"] {
        for message in [&told[..], &[]] {
            let refused = Err(ReasonCode::EnforcerRefused);
            assert_eq!(refused, tell(&served, listener, message), "{listener}");
        }
    }
    assert_eq!(counts(&[]), counted(&served));
    assert_eq!(Ok(()), tell(&served, "gate2", &told));
    assert_eq!(counts(&[("refused", 1)]), counted(&served));
    // Nor does `Report`, for a system whose reporter is the log.
    let aborted = of(&id, wire::ReportResult::Aborted);
    for listener in ["gate", "sdk"] {
        assert_eq!(Err("ENFORCER_REFUSED"), report(&served, listener, &aborted));
    }
    assert_eq!("BUDGET_EXCEEDED", code(&pay(&served, &task, 1)));
    assert_eq!(Ok(()), tell(&served, "gate", &told));
    assert_eq!("PERMITTED", code(&pay(&served, &task, 1)));
}

/// For a system that names another reporter, or none, it tells nothing, and leaves no record.
#[test]
fn other_reporters_are_left_to_tell() {
    let served = shop_that(&json!({}), TEMPLATES, "sdk");
    let task = alices(&served).id;
    let id = paid(&served, &task);
    let quiet = ask(&served, &task, "gate", "quiet.find", &json!({})).decision_id;
    let told = vec![connection_failed(&id), answered(&quiet, 200)];
    assert_eq!(Ok(()), tell(&served, "gate", &message(told)));
    assert_eq!("BUDGET_EXCEEDED", code(&pay(&served, &task, 1)));
    assert_eq!(counts(&[("other_reporter", 2)]), counted(&served));
    let records = served.records();
    assert!(records.iter().all(|record| record["input"]["report"].is_null()));
}

#[test]
fn garbage_settles_nothing() {
    let (served, task) = shop();
    let id = paid(&served, &task);
    let good = connection_failed(&id);
    let metadata = |value: Option<Kind>| {
        with(good.clone(), |common, _| {
            let all = &mut common.metadata.as_mut().unwrap().filter_metadata;
            let ours = all.get_mut("envoy.filters.http.ext_authz").unwrap();
            ours.fields.insert("decision_id".to_owned(), Value { kind: value });
        })
    };
    let type_of = |kind: log::AccessLogType| {
        with(good.clone(), |common, _| common.access_log_type = kind as i32)
    };
    #[expect(deprecated, reason = "proxies before `access_log_type` say it so")]
    let intermediate = with(good.clone(), |common, _| {
        common.access_log_type = 0;
        common.intermediate_log_entry = true;
    });
    let entries = vec![
        // Of no decision, or one that cannot be read.
        log::HttpAccessLogEntry::default(),
        with(good.clone(), |common, _| common.metadata = None),
        metadata(None),
        metadata(Some(Kind::NumberValue(1.0))),
        metadata(Some(Kind::StringValue(String::new()))),
        metadata(Some(Kind::StringValue("x".repeat(513)))),
        metadata(Some(Kind::StringValue("nobody".to_owned()))),
        // Not over, or of an attempt only.
        type_of(log::AccessLogType::DownstreamStart),
        type_of(log::AccessLogType::DownstreamPeriodic),
        type_of(log::AccessLogType::UpstreamEnd),
        with(good.clone(), |common, _| common.access_log_type = 99),
        intermediate,
    ];
    assert_eq!(Ok(()), tell(&served, "gate", &message(entries)));
    let mut broken = vec![0x12, 4, 0x0a, 2, 0xff, 0xff];
    for bytes in [&[0xff][..], &[0x12, 9], &broken] {
        assert_eq!(Ok(()), tell(&served, "gate", bytes));
    }
    // Too many entries, and too many bytes.
    assert_eq!(Ok(()), tell(&served, "gate", &message(vec![good.clone(); 4_097])));
    broken.resize(1_048_577, 0);
    assert_eq!(Ok(()), tell(&served, "gate", &broken));
    // TCP entries tell of no request.
    let tcp = als::stream_access_logs_message::TcpAccessLogEntries {
        log_entry: vec![log::TcpAccessLogEntry::default()],
    };
    let tcp = als::StreamAccessLogsMessage {
        identifier: None,
        log_entries: Some(als::stream_access_logs_message::LogEntries::TcpLogs(tcp)),
    };
    assert_eq!(Ok(()), tell(&served, "gate", &tcp.encode_to_vec()));
    let wanted = [("nothing_open", 1), ("no_decision", 3), ("not_final", 5), ("malformed", 9)];
    assert_eq!(counts(&wanted), counted(&served));
    assert_eq!("BUDGET_EXCEEDED", code(&pay(&served, &task, 1)));
    tell_of(&served, good);
    assert_eq!("PERMITTED", code(&pay(&served, &task, 1)));
}

/// A message of so many entries is taken, with whatever they tell; of one more none is.
#[test]
fn entries_of_a_message_are_bounded() {
    const MOST: usize = 4_096;
    let (served, task) = shop();
    let told = connection_failed(&paid(&served, &task));
    let others = |count: usize| vec![log::HttpAccessLogEntry::default(); count];
    let all = message([others(MOST), vec![told.clone()]].concat());
    assert_eq!(Ok(()), tell(&served, "gate", &all));
    assert_eq!(counts(&[("malformed", 1)]), counted(&served));
    assert_eq!("BUDGET_EXCEEDED", code(&pay(&served, &task, 1)));
    let all = message([others(MOST - 1), vec![told]].concat());
    assert_eq!(Ok(()), tell(&served, "gate", &all));
    let wanted = [("settled", 1), ("no_decision", 4_095), ("malformed", 1)];
    assert_eq!(counts(&wanted), counted(&served));
    assert_eq!("PERMITTED", code(&pay(&served, &task, 1)));
}

/// What counts as done is not told again, and a log that comes late changes nothing.
#[test]
fn a_late_entry_changes_nothing() {
    let served = shop_that(&json!({"state": {"report_within_ms": 100}}), TEMPLATES, "access_log");
    let task = alices(&served).id;
    let id = paid(&served, &task);
    std::thread::sleep(std::time::Duration::from_millis(200));
    tell_of(&served, connection_failed(&id));
    assert_eq!("BUDGET_EXCEEDED", code(&pay(&served, &task, 1)));
    assert_eq!(counts(&[("nothing_open", 1)]), counted(&served));
}
