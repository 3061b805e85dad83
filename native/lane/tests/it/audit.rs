//! The record of each decision, and what happens where there can be none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Surface, Transport, World};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use prost::Message;
use serde_json::json;

use crate::support::*;
use crate::tasks::{REQUIRED, agent, call_by, start, starting, subject, world_of};

/// A record has OPA's names, the facts, and is found by the answer's id.
#[test]
fn record_holds_what_was_judged() {
    let served = served();
    let mut request = search();
    request.arguments_json = br#"{"query":"secret words","limit":3,"sort":"up"}"#.to_vec();
    let call = Transport {
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        peer: Some("127.0.0.1:5"),
        ..Transport::by("dev")
    };
    let decision = own(&served.engine.check(&request.encode_to_vec(), &call));
    let record = served.records().remove(0);
    assert_eq!(decision.decision_id, record["decision_id"]);
    assert_eq!(decision.bundle_digest, record["bundles"]["desk"]["digest"]);
    assert_eq!("authz.v1.Authorizer/Check", record["path"]);
    assert_eq!("127.0.0.1:5", record["requested_by"]);
    assert_eq!("0af7651916cd43dd8448eb211c80319c", record["trace_id"]);
    assert_eq!("b7ad6b7169203331", record["span_id"]);
    let input = &record["input"];
    assert_eq!("crm.search", input["operation"]);
    assert_eq!("insecure_dev", input["enforcer"]);
    assert_eq!(
        json!(["corp/alice", BOT]),
        json!([input["chain"][0]["id"], input["chain"][1]["id"]])
    );
    assert_eq!(
        json!([["staff"], ["bot"]]),
        json!([input["chain"][0]["roles"], input["chain"][1]["roles"]])
    );
    assert_eq!(None, input.get("asked"));
    let places = record["result"]["policies_at"].as_array().unwrap();
    assert_eq!(record["result"]["policies"].as_array().unwrap().len(), places.len());
    assert!(places[0].as_str().unwrap().starts_with("policies/all.cedar:"), "{places:?}");
    assert_eq!(json!([3, "up"]), json!([input["arguments"]["limit"], input["arguments"]["sort"]]));
    let query = input["arguments"]["query"].as_str().unwrap();
    assert!(query.starts_with("sha256:") && query.len() == 71, "{query}");
    assert!(record["masked"].as_array().unwrap().contains(&json!("/input/arguments/query")));
    assert_eq!("PERMIT", record["result"]["outcome"]);
    assert_eq!("PERMITTED", record["result"]["reason_code"]);
    assert_eq!("n1", record["labels"]["id"]);
    assert!(record["metrics"]["timer_decide_ns"].as_u64().unwrap() > 0);
}

const POLICY_OF_LOUD: &str = r#"
@id("loud") @stepup("confirm")
forbid(principal, action == Action::"crm.search", resource)
when { context.input.query like "*loud*" && context.proof.method == ProofMethod::"jwt-svid" && context.tier < 3 }
unless { context.satisfied.contains(Kind::"confirm") };
"#;

/// Bundle whose policies read arguments, proof, destination and time.
fn reading(settings: &str) -> Served {
    let served = unloaded(&json!({}));
    let files = [("policies/loud.cedar", POLICY_OF_LOUD), ("bundle.yaml", settings)];
    served.engine.load(World { plan: plan(&files), ..world() }).unwrap();
    served
}

/// A record has the facts that the policies could read, and the digests of the policies that determined the answer.
#[test]
fn record_has_the_facts_of_its_policies() {
    let served = reading("name: desk\ntasks: optional\n");
    served.check(&wire::CheckRequest {
        arguments_json: br#"{"query":"too loud"}"#.to_vec(),
        ..search()
    });
    let record = served.records().remove(0);
    let input = &record["input"];
    let facts = json!({
        "tier": 0, "satisfied": [],
        "proof": {"method": "jwt-svid", "bound": false, "age": input["facts"]["proof"]["age"], "acr": ""},
    });
    assert_eq!(facts, input["facts"]);
    assert_eq!(json!(false), input["replayable"], "the query is a digest");
    assert_eq!(json!(["loud"]), record["result"]["policies"]);
    let start = POLICY_OF_LOUD.find('@').unwrap();
    let text = POLICY_OF_LOUD[start..].trim_end();
    let digest = authz_kernel::hex::hex(&authz_kernel::digest::sha256(text.as_bytes()));
    assert_eq!(json!([digest]), record["result"]["policies_sha256"]);
    assert_eq!("corp", input["chain"][0]["issuer"]);
    assert_eq!("a.example", input["chain"][1]["issuer"]);
}

/// A bundle that lists a system has the texts of its calls in the audit, and the calls can be replayed.
#[test]
fn record_of_a_listed_system_has_texts() {
    let served = reading("name: desk\ntasks: optional\nrecord_texts: [crm]\n");
    let token = alice();
    for query in ["too loud", token.as_str()] {
        let arguments_json = json!({"query": query}).to_string().into_bytes();
        served.check(&wire::CheckRequest { arguments_json, ..search() });
    }
    let [shown, hidden] = [0, 1].map(|at| served.records().remove(at)["input"].clone());
    assert_eq!(
        json!(["too loud", true]),
        json!([shown["arguments"]["query"], shown["replayable"]])
    );
    let query = hidden["arguments"]["query"].as_str().unwrap();
    assert!(query.starts_with("sha256:"), "a token is never recorded");
    assert_eq!(false, hidden["replayable"]);
}

/// In a chained log each recorded text stands apart, so that it can be erased, and its place has a salted digest. The bytes that an
/// erased text leaves tell its length only in steps of 64.
#[test]
fn record_of_a_chained_log_has_its_texts_apart() {
    let chain = json!({
        "head_key": null, "max_segment_bytes": 1 << 20, "max_segment_age_ms": 86_400_000,
        "head_interval_ms": 1_000, "keep_segments": null,
    });
    let served = unloaded(&json!({"audit_chain": chain}));
    let settings = "name: desk\ntasks: optional\nrecord_texts: [crm]\n";
    let files = [("policies/loud.cedar", POLICY_OF_LOUD), ("bundle.yaml", settings)];
    served.engine.load(World { plan: plan(&files), ..world() }).unwrap();
    let queries = ["too loud", "too loud", "", "}},\"decision_id\":\u{1}\n\u{e9}\u{2028}"];
    let full = "q".repeat(64);
    for query in queries.into_iter().chain([full.as_str()]) {
        let arguments_json = json!({"query": query}).to_string().into_bytes();
        served.check(&wire::CheckRequest { arguments_json, ..search() });
    }
    let records = served.records();
    let mut salts = std::collections::BTreeSet::new();
    for (record, query) in records[1..].iter().zip(queries.into_iter().chain([full.as_str()])) {
        let entry = &record["texts"]["/input/arguments/query"];
        assert_eq!(query, entry["text"]);
        let [salt, pad] = ["salt", "pad"].map(|name| entry[name].as_str().unwrap());
        assert_eq!((32, true), (salt.len(), salt.bytes().all(|digit| digit.is_ascii_hexdigit())));
        let digest = authz_kernel::digest::sha256(format!("{salt}{query}").as_bytes());
        let salted = format!("salted:{}", authz_kernel::hex::hex(&digest));
        assert_eq!(json!(salted), record["input"]["arguments"]["query"]);
        assert_eq!(true, record["input"]["replayable"]);
        let written = json!(query).to_string().len() - 2;
        assert_eq!(0, (written + pad.len()) % 64, "{query:?}");
        assert!((1..=64).contains(&pad.len()) && pad.bytes().all(|byte| byte == b'-'), "{pad}");
        salts.insert(salt.to_owned());
    }
    assert_eq!((6, 5), (records.len(), salts.len()), "each text has a salt of its own");
    let text = std::fs::read_to_string(&served.audit).unwrap();
    for (line, record) in text.lines().zip(&records).skip(1) {
        let whole = r#"{"texts":{"/input/arguments/query":{"salt":"#;
        assert!(line.starts_with(whole), "{line}");
        assert!(line.contains(r#""}},"decision_id":"#), "{line}");
        assert_eq!(1, record["texts"].as_object().unwrap().len());
    }
}

/// The record of an erasure names its texts, reason and administrator; a request that does not is refused, and another listener.
#[test]
fn an_erasure_is_recorded() {
    let embedded = json!({"state": {"engine": "embedded", "path": folder().join("state")}});
    for state in [json!({}), embedded] {
        erasure_is_recorded(&served_with(&state));
    }
}

fn erasure_is_recorded(served: &Served) {
    let good = wire::RecordErasureRequest {
        selection: "subject=corp/alice".to_owned(),
        texts: 5,
        records: 2,
        reason: "request 4711".to_owned(),
        by: "ann".to_owned(),
    };
    let record = |listener: &str, request: &wire::RecordErasureRequest| {
        call_by::<wire::RecordErasureResponse>(served, listener, Surface::RecordErasure, request)
    };
    let id = record("admin", &good).unwrap().decision_id;
    let nobody = wire::RecordErasureRequest { by: String::new(), ..good.clone() };
    record("admin", &nobody).unwrap();
    let long = |most: usize| "x".repeat(most + 1);
    for bad in [
        wire::RecordErasureRequest { selection: " ".to_owned(), ..good.clone() },
        wire::RecordErasureRequest { selection: long(4_096), ..good.clone() },
        wire::RecordErasureRequest { reason: String::new(), ..good.clone() },
        wire::RecordErasureRequest { reason: long(1_024), ..good.clone() },
        wire::RecordErasureRequest { by: long(256), ..good.clone() },
        wire::RecordErasureRequest { texts: 1, ..good.clone() },
        wire::RecordErasureRequest { records: 0, ..good.clone() },
    ] {
        let refused = record("admin", &bad).unwrap_err();
        assert_eq!("BAD_INPUT", refused.reason_code.as_str(), "{bad:?}");
    }
    let refused = record("crm", &good).unwrap_err();
    assert_eq!("ENFORCER_REFUSED", refused.reason_code.as_str());
    served.engine.close();
    let records = served.records();
    // The store hands its records to the log by itself, so refusals can stand before them.
    let (permits, denials): (Vec<_>, Vec<_>) =
        records.iter().partition(|one| one["result"]["outcome"] == "PERMIT");
    assert_eq!((2, 8), (permits.len(), denials.len()));
    let (first, second) = (permits[0], permits[1]);
    assert_eq!(json!(id), first["decision_id"]);
    let erasure = json!({
        "selection": "subject=corp/alice", "texts": 5, "records": 2, "by": "ann", "reason": "request 4711",
    });
    assert_eq!(erasure, first["input"]["erasure"]);
    assert_eq!("authz.record_erasure", first["input"]["operation"]);
    assert_eq!("owner of the administration socket", second["input"]["erasure"]["by"]);
    assert!(denials.iter().all(|one| one["input"]["erasure"].is_null()));
}

/// A call that no policy read texts of can be replayed, although its texts are digests.
#[test]
fn record_without_read_texts_is_replayable() {
    let served = served();
    served.check(&search());
    let input = served.records().remove(0)["input"].clone();
    assert_eq!(json!([{}, true]), json!([input["facts"], input["replayable"]]));
}

/// What no operation was found for is told by its form, so that somebody can write the missing entry.
#[test]
fn record_tells_what_is_missing() {
    let served = served();
    served.check(&asking("crm.purge"));
    served.check(&asking("crm.purge\u{1b}[2J"));
    served.proxy(&http("PATCH", "/nowhere/4711/notes?limit=3&limit=4&9=x", &[]));
    let asked: Vec<_> =
        served.records().iter().map(|record| record["input"]["asked"].clone()).collect();
    assert_eq!(json!({"operation": "crm.purge"}), asked[0]);
    assert_eq!(json!({"operation": "{text}"}), asked[1]);
    let form = json!({
        "method": "PATCH",
        "host": "crm.example",
        "path": "/nowhere/{digits}/notes",
        "query": ["limit", "{digits}"],
    });
    assert_eq!(form, asked[2]);
}

/// Wherever a token is put, no record holds it, also not encoded once more.
#[test]
fn tokens_never_get_in() {
    let served = served();
    let (agent, subject) = (svid(), alice());
    let request = wire::CheckRequest {
        evidence: vec![
            evidence(wire::EvidenceRole::Agent, &*agent),
            evidence(wire::EvidenceRole::Subject, &*subject),
        ],
        ..asking("crm.delete")
    };
    let put: Vec<fn(&mut wire::CheckRequest, &str)> = vec![
        |_, _| {},
        |r, token| r.arguments_json = json!({"id": token}).to_string().into_bytes(),
        |r, token| r.arguments_json = json!({ token: "x" }).to_string().into_bytes(),
        |r, token| r.operation = token.chars().take(500).collect(),
        |r, token| r.resource = token.chars().take(500).collect(),
        |r, token| r.task = token.chars().take(500).collect(),
        |r, token| r.approval_id = token.chars().take(500).collect(),
        |r, token| r.destinations = vec![token.to_owned()],
        |r, token| r.supported_obligations = vec![token.chars().take(250).collect()],
        |r, token| r.evidence[0].token = format!("{token}x"),
        |r, token| r.evidence[0].proof = token.to_owned(),
    ];
    for token in [&agent, &subject] {
        for change in &put {
            let mut request = request.clone();
            change(&mut request, token);
            served.check(&request);
            let call = Transport {
                authorization: Some(token),
                trace_parent: Some(token),
                peer: Some("p"),
                ..Transport::by(token)
            };
            let _denied = served.engine.check(&request.encode_to_vec(), &call);
        }
        let headers = [
            ("authz-task", token.as_str()),
            ("x-other", token.as_str()),
            ("baggage", &format!("authz.task={token}")),
        ];
        for header in headers {
            served.proxy(&http("GET", "/customers?q=a", &[header]));
        }
        served.proxy(&http("GET", &format!("/customers?q={token}"), &[]));
        served.proxy(&http("DELETE", &format!("/customers/{token}"), &[]));
        served.proxy(&http(token, "/customers", &[]));
    }
    let records = served.records();
    assert!(records.len() > 40);
    let text = std::fs::read_to_string(&served.audit).unwrap();
    for token in [&agent, &subject] {
        let (head, signature) = token.rsplit_once('.').unwrap();
        let payload = head.split_once('.').unwrap().1;
        let encoded = STANDARD.encode(token.as_bytes());
        let encoded_url = URL_SAFE_NO_PAD.encode(token.as_bytes());
        for needle in [payload, &signature[..40], &encoded[..200], &encoded_url[..200]] {
            let holds = text.lines().find(|line| line.contains(needle));
            assert_eq!(None, holds, "a record holds {needle}");
        }
    }
}

/// A record that cannot be queued denies, whatever the tier.
#[test]
fn full_queue_denies() {
    let served = served_with(&json!({"audit_queue_lines": 1}));
    let served = Arc::new(served);
    let mut outcomes = std::collections::BTreeSet::new();
    // One line at a time fits; of many at once some find the queue full.
    for _ in 0..200 {
        let decision = served.check(&search());
        let permitted = decision.outcome == wire::Outcome::Permit as i32;
        assert_eq!(permitted, code(&decision) == "PERMITTED");
        outcomes.insert(code(&decision));
    }
    assert!(outcomes.contains("AUDIT_FULL"), "{outcomes:?}");
    let refused = served.engine.status().audit.refused_lines;
    assert!(refused > 0);
}

/// Checks of tier low, one after another, faster than a queue of one record is written.
fn many_checks(served: &Served) -> Vec<wire::Decision> {
    (0..100).map(|_| served.check(&search())).collect()
}

/// Number of decisions that the log says were dropped, and ids of the other records.
fn dropped_and_recorded(served: &Served) -> (u64, BTreeSet<String>) {
    let mut dropped = 0;
    let mut recorded = BTreeSet::new();
    for record in served.records() {
        match record["dropped"]["count"].as_u64() {
            Some(count) => {
                assert!(record["result"].is_null() && record["input"].is_null(), "{record}");
                assert!(record["dropped"]["first"].as_str() <= record["dropped"]["last"].as_str());
                dropped += count;
            }
            None => {
                recorded.insert(record["decision_id"].as_str().unwrap().to_owned());
            }
        }
    }
    (dropped, recorded)
}

/// `block`: a call whose record finds no room waits for it. The call is permitted, and its record is in the log.
#[test]
fn full_queue_blocks() {
    let served = served_with(&json!({
        "audit_queue_lines": 1, "audit_on_full": "block", "audit_max_wait_ms": 60_000,
    }));
    let decisions = many_checks(&served);
    assert!(decisions.iter().all(|decision| code(decision) == "PERMITTED"), "{decisions:?}");
    assert!(served.engine.status().audit.waited_lines > 0);
    served.engine.close();
    let (dropped, recorded) = dropped_and_recorded(&served);
    assert_eq!((0, 100), (dropped, recorded.len()));
    assert!(decisions.iter().all(|decision| recorded.contains(&decision.decision_id)));
}

/// `block`: the wait has an end, and then the call is denied with the code of a full queue. The log tells of no permit that was
/// not answered, unless a second record says so.
#[test]
fn full_queue_blocks_for_a_time() {
    let served = served_with(&json!({
        "audit_queue_lines": 1, "audit_on_full": "block", "audit_max_wait_ms": 0,
    }));
    let decisions = many_checks(&served);
    let codes: BTreeSet<&str> = decisions.iter().map(code).collect();
    assert!(codes.contains("AUDIT_FULL"), "{codes:?}");
    assert!(codes.is_subset(&BTreeSet::from(["AUDIT_FULL", "PERMITTED"])), "{codes:?}");
    served.engine.close();
    let records = served.records();
    let of = |id: &str| records.iter().filter(|record| record["decision_id"] == *id).count();
    for decision in &decisions {
        let count = of(&decision.decision_id);
        let last = records.iter().rfind(|record| record["decision_id"] == *decision.decision_id);
        // The record of a denial may find no room either.
        let is_told = last.is_none_or(|last| last["result"]["reason_code"] == code(decision));
        assert!(is_told, "{decision:?}: {last:?}");
        assert!(count == 1 || code(decision) == "AUDIT_FULL", "{decision:?}");
    }
    let metrics = format!("{:?}", served.engine.metrics());
    assert!(metrics.contains("authz_audit_waited_records"), "{metrics}");
}

/// `drop`: a decision whose record finds no room is answered. The log tells how many records are missing, and each other
/// record is there.
#[test]
fn full_queue_drops() {
    let served = served_with(&json!({"audit_queue_lines": 1, "audit_on_full": "drop"}));
    let decisions = many_checks(&served);
    assert!(decisions.iter().all(|decision| code(decision) == "PERMITTED"), "{decisions:?}");
    let lost = served.engine.status().audit.dropped_lines;
    assert!(lost > 0);
    // The record of the sum finds room once the queue is written.
    let until = Instant::now() + Duration::from_secs(60);
    while served.engine.status().audit.queued_lines > 0 && Instant::now() < until {
        std::thread::yield_now();
    }
    served.engine.close();
    let (dropped, recorded) = dropped_and_recorded(&served);
    assert_eq!((lost, 100 - lost), (dropped, recorded.len() as u64));
}

/// `drop` has no effect on a record that must be durable, on one that is written in the transaction of its change, and on a log
/// that fails.
#[test]
fn records_of_changes_are_not_dropped() {
    let served = served_with(&json!({"audit_queue_lines": 1, "audit_on_full": "drop"}));
    let mut delete = asking("crm.delete");
    delete.arguments_json = b"{\"id\":\"1\"}".to_vec();
    let mut codes = BTreeSet::new();
    for _ in 0..100 {
        let _filling = served.check(&search());
        let decision = served.check(&delete);
        codes.insert(code(&decision));
        if code(&decision) == "PERMITTED" {
            let records = served.records();
            let is_recorded = records.iter().any(|r| r["decision_id"] == *decision.decision_id);
            assert!(is_recorded, "{decision:?}");
        }
    }
    assert!(codes.contains("AUDIT_FULL"), "{codes:?}");
    served.engine.close();
    assert_eq!("AUDIT_FULL", code(&served.check(&search())));

    let served = unloaded(&json!({"audit_queue_lines": 1, "audit_on_full": "drop"}));
    served.engine.load(world_of(REQUIRED)).unwrap();
    let request = starting(vec![agent(BOT), subject("alice")]);
    let started: Vec<_> = (0..50).map(|_| start(&served, &request)).collect();
    let refused = started.iter().filter_map(|task| task.as_ref().err());
    assert_eq!(BTreeSet::from(["AUDIT_FULL"]), refused.copied().collect());
    served.engine.close();
    let (dropped, recorded) = dropped_and_recorded(&served);
    assert_eq!(0, dropped);
    let tasks = started.iter().filter(|task| task.is_ok()).count();
    assert!(tasks > 0 && recorded.len() >= tasks, "{tasks} {}", recorded.len());
}

/// A word that is not in the list of the setting is refused.
#[test]
fn unknown_treatment_is_refused() {
    for word in ["ignore", "Deny", ""] {
        let refused = serde_json::from_value::<authz_lane::AuditOnFull>(json!(word));
        assert!(refused.is_err(), "{refused:?}");
    }
}

/// After the writer has closed nothing is permitted: nobody could tell later.
#[test]
fn closed_writer_denies() {
    let served = served();
    served.engine.close();
    for request in [search(), asking("crm.card")] {
        let decision = served.check(&request);
        assert_eq!(("AUDIT_FULL", wire::Outcome::Deny as i32), (code(&decision), decision.outcome));
    }
}

/// High tier: the record is on the disk before the answer is.
#[test]
fn high_tier_is_durable_first() {
    let served = served();
    let mut request = asking("crm.delete");
    request.arguments_json = b"{\"id\":\"1\"}".to_vec();
    for _ in 0..5 {
        let syncs = served.engine.status().audit.syncs;
        let decision = served.check(&request);
        assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
        let text = std::fs::read_to_string(&served.audit).unwrap();
        assert!(text.contains(&decision.decision_id));
        assert!(served.engine.status().audit.syncs > syncs);
    }
    // A deadline that leaves no time for the disk is a denial, and the record says so.
    let call = Transport { remaining: Some(Duration::from_micros(1)), ..Transport::by("dev") };
    let decision = own(&served.engine.check(&request.encode_to_vec(), &call));
    assert_eq!("DEADLINE", code(&decision));
    let last = served.records().pop().unwrap();
    assert_eq!("DEADLINE", last["result"]["reason_code"]);
}

/// Naive way: a refusal names the member that it is about. Its name is the caller's own text, at any depth and in either
/// form of request.
#[test]
fn invented_names_are_not_repeated() {
    const SECRET: &str = "hunter2-password";
    let served = served();
    let mut answers = Vec::new();
    for arguments in [
        json!({"query": "a", SECRET: 1}).to_string(),
        json!({"query": {SECRET: 1}}).to_string(),
        json!({"query": "a", format!("x`: {SECRET}"): 1}).to_string(),
        json!({"query": "a", format!("a/b~{SECRET}"): {"limit": 1}}).to_string(),
        format!("{{\"{SECRET}\":1,\"{SECRET}\":2}}"),
        format!("{{\"query\":{{\"{SECRET}` at `\":[1,}}"),
        format!("{{\"query\":\"a\",\"{}{SECRET}\":1}}", "x".repeat(150)),
    ] {
        let mut request = search();
        request.arguments_json = arguments.into_bytes();
        let decision = served.check(&request);
        assert_eq!("BAD_INPUT", code(&decision));
        answers.push(format!("{decision:?}"));
        let typed = [("content-type", "application/json")];
        let body = request.arguments_json.clone();
        let posted = edit(http("POST", "/customers", &typed), |http| http.raw_body = body);
        answers.push(format!("{:?}", served.proxy(&posted)));
    }
    let mut request = search();
    request.arguments_json = br#"{"query":"a","limit":"x"}"#.to_vec();
    let named = served.check(&request);
    let records = served.records();
    let text = std::fs::read_to_string(&served.audit).unwrap();
    assert_eq!(15, records.len());
    assert!(!text.contains(SECRET), "{text}");
    assert!(answers.iter().all(|answer| !answer.contains(SECRET)), "{answers:?}");
    // What the schema declares is named, for whoever has to fix the request.
    let message = records[14]["result"]["message"].as_str().unwrap();
    assert!(message.contains("`/limit`"), "{message}");
    assert!(named.message.is_empty() || named.message.contains("`/limit`"), "{}", named.message);
}

/// Naive way: callers without a credential fill the queue, and who may do what it asks for finds no room.
#[test]
fn strangers_leave_room_in_the_queue() {
    let served = served_with(&json!({"audit_queue_lines": 100}));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    let _denied = served.engine.check(b"\xff\xff", &Transport::by("dev"));
                }
            });
        }
        let request = search();
        let outcomes: Vec<&str> = (0..500)
            .map(|_| {
                // Slower than the queue of permits drains, far slower than strangers fill theirs.
                std::thread::sleep(Duration::from_micros(500));
                code(&served.check(&request))
            })
            .collect();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(outcomes.iter().all(|outcome| *outcome == "PERMITTED"), "{outcomes:?}");
    });
    let audit = served.engine.status().audit;
    assert!(audit.dropped_refusals > 0, "{audit:?}");
    assert_eq!(0, audit.refused_lines);
    let metrics = format!("{:?}", served.engine.metrics());
    assert!(metrics.contains(r#"("result", "dropped")"#), "{metrics}");
}

/// Naive way: the audit file is removed, and permits of tier high go on being answered on records that nobody has.
#[test]
fn removed_audit_file() {
    let served = served();
    let mut request = asking("crm.delete");
    request.arguments_json = b"{\"id\":\"1\"}".to_vec();
    assert_eq!("PERMITTED", code(&served.check(&request)));
    std::fs::remove_file(&served.audit).unwrap();
    for _ in 0..3 {
        let decision = served.check(&request);
        assert_eq!("PERMITTED", code(&decision));
        let text = std::fs::read_to_string(&served.audit).unwrap();
        assert!(text.contains(&decision.decision_id));
    }
    std::fs::remove_dir_all(served.audit.parent().unwrap()).unwrap();
    assert_eq!("AUDIT_FULL", code(&served.check(&request)));
}

/// Records of sums and the others, by code.
fn counted(records: &[serde_json::Value], peer: &str) -> BTreeMap<String, (usize, u64)> {
    let mut counts = BTreeMap::<String, (usize, u64)>::new();
    for record in records {
        let by = record["requested_by"].as_str().unwrap();
        if by != peer && !by.starts_with(&format!("{peer}:")) {
            continue;
        }
        let code = record["result"]["reason_code"].as_str().unwrap();
        let count = counts.entry(code.to_owned()).or_default();
        match record["sum"]["count"].as_u64() {
            Some(sum) => count.1 += sum,
            None => count.0 += 1,
        }
    }
    counts
}

/// Naive way: whoever has no credential fills the disk with records. The first few of each peer and code stand alone, the
/// others are a sum, and nothing is lost.
#[test]
fn refusals_of_strangers_are_summed() {
    let served = served_with(&json!({"audit_unverified_refusals": 3}));
    let mut stranger = search();
    stranger.evidence.clear();
    let stranger = stranger.encode_to_vec();
    let calls: [(&str, &[u8], usize); 3] =
        [("192.0.2.1", &stranger, 20), ("192.0.2.1", b"\xff", 3), ("192.0.2.2", b"\xff", 5)];
    for (peer, request, times) in calls {
        for port in 0..times {
            let address = format!("{peer}:{port}");
            let call = Transport { peer: Some(&address), ..Transport::by("own") };
            let decision = own(&served.engine.check(request, &call));
            assert_eq!(wire::Outcome::Deny as i32, decision.outcome);
        }
    }
    let records = served.records();
    let code = "NO_CREDENTIAL";
    let first = BTreeMap::from([("BAD_INPUT".to_owned(), (3, 0)), (code.to_owned(), (3, 17))]);
    assert_eq!(first, counted(&records, "192.0.2.1"));
    let second = BTreeMap::from([("BAD_INPUT".to_owned(), (3, 2))]);
    assert_eq!(second, counted(&records, "192.0.2.2"));
    let sum = records.iter().find(|record| record["sum"]["count"] == 17).unwrap();
    assert_eq!(json!(["own", "n1"]), json!([sum["labels"]["listener"], sum["labels"]["id"]]));
    assert_eq!(
        json!(["DENY", code]),
        json!([sum["result"]["outcome"], sum["result"]["reason_code"]])
    );
    assert_eq!(("192.0.2.1", None), (sum["sum"]["peer"].as_str().unwrap(), sum.get("input")));
    assert!(sum["sum"]["first"].as_str().unwrap() <= sum["sum"]["last"].as_str().unwrap());
    let metrics = format!("{:?}", served.engine.metrics());
    assert!(metrics.contains("authz_audit_summed_refusals"), "{metrics}");
}

/// A permit, a denial of a caller that proved who it is, and what `mode` lets through have a record each.
#[test]
fn what_is_permitted_or_verified_is_never_summed() {
    const TIMES: usize = 12;
    let only = json!({"audit_unverified_refusals": 1});
    let mode = "mode: {default: observe, owner: sec, until: 2999-01-01}";
    let mut stranger = search();
    stranger.evidence.clear();
    let mut expired = search();
    expired.evidence[0].token = svid_with(BOT, "authz", now() - 60);
    for (served, request, listener, is_summed) in [
        (served_with(&only), search(), "dev", false),
        (served_with(&only), asking("wiki.read"), "dev", false),
        (served_with(&only), asking("crm.nothing"), "dev", false),
        (served_with(&only), asking("wiki.read"), "crm", false),
        (served_with(&only), search(), "own", false),
        (observing_with(mode, &only), stranger.clone(), "dev", false),
        (observing_with(mode, &only), search(), "dev", false),
        (served_with(&only), stranger.clone(), "dev", true),
        (served_with(&only), stranger, "crm", true),
        (served_with(&only), expired, "dev", true),
    ] {
        let decisions: Vec<_> = (0..TIMES).map(|_| served.check_by(listener, &request)).collect();
        let code = code(&decisions[0]);
        let records = served.records();
        let sums = records.iter().filter(|record| record.get("sum").is_some()).count();
        assert_eq!(usize::from(is_summed), sums, "{listener} {code}: {records:#?}");
        if !is_summed {
            assert_eq!(TIMES, records.len(), "{listener} {code}");
            for (decision, record) in decisions.iter().zip(&records) {
                assert_eq!(decision.decision_id, record["decision_id"]);
            }
        }
    }
}

/// The agents that records name, with the reason codes; how many refusals stand in sums.
fn named(records: &[serde_json::Value]) -> (BTreeMap<(String, String), usize>, u64) {
    let mut named = BTreeMap::new();
    let mut summed = 0;
    for record in records {
        if let Some(count) = record["sum"]["count"].as_u64() {
            summed += count;
            continue;
        }
        let chain = record["input"]["chain"].as_array().unwrap();
        let agent = chain.last().map_or("", |link| link["id"].as_str().unwrap());
        let code = record["result"]["reason_code"].as_str().unwrap();
        *named.entry((agent.to_owned(), code.to_owned())).or_default() += 1;
    }
    (named, summed)
}

/// Naive way: an agent puts a bad subject token, or too many arguments, beside its own good credential, and its requests are
/// summed up with those of strangers.
#[test]
fn an_agent_does_not_hide_among_strangers() {
    const TIMES: usize = 12;
    let subject = wire::EvidenceRole::Subject;
    let with_subject = |token: String| {
        let mut request = search();
        request.evidence = vec![evidence(wire::EvidenceRole::Agent, svid())];
        request.evidence.push(evidence(subject, token));
        request
    };
    let mut subject_first = with_subject("x.y.z".to_owned());
    subject_first.evidence.reverse();
    let mut long = search();
    long.arguments_json = vec![b' '; 300 * 1024];
    let mut many_labels = search();
    many_labels.labels = (0..100).map(|n| format!("l{n}")).collect();
    let mut unknown_label = search();
    unknown_label.labels = vec!["no-such-label".to_owned()];
    let mut two = search();
    two.evidence.push(evidence(wire::EvidenceRole::Agent, forged()));
    let over = "x".repeat(9 * 1024);
    for (request, code) in [
        (with_subject("x.y.z".to_owned()), "BAD_CREDENTIAL"),
        (with_subject(alice() + "x"), "BAD_CREDENTIAL"),
        (with_subject(String::new()), "BAD_CREDENTIAL"),
        (with_subject(over), "BAD_CREDENTIAL"),
        (subject_first, "BAD_CREDENTIAL"),
        (long, "BAD_INPUT"),
        (many_labels, "BAD_INPUT"),
        (unknown_label, "BAD_INPUT"),
        (two, "BAD_CREDENTIAL"),
    ] {
        let served = served_with(&json!({"audit_unverified_refusals": 1}));
        for _ in 0..TIMES {
            let decision = served.check_by("dev", &request);
            assert_eq!(code, crate::support::code(&decision));
            assert!(decision.detail.is_none());
        }
        let records = served.records();
        let expected = BTreeMap::from([((BOT.to_owned(), code.to_owned()), TIMES)]);
        assert_eq!((expected, 0), named(&records), "{:?}", records[0]);
        let link = records[0]["input"]["chain"].as_array().unwrap().last().unwrap();
        assert_eq!(json!(["jwt-svid", ["bot"]]), json!([link["proof"], link["roles"]]));
        assert_eq!(64, link["token_sha256"].as_str().unwrap().len());
    }
}

/// As before of a call about tasks.
#[test]
fn an_agent_does_not_hide_among_strangers_in_calls_about_tasks() {
    const TIMES: usize = 12;
    for token in ["x.y.z".to_owned(), "x".repeat(9 * 1024)] {
        let served = served_with(&json!({"audit_unverified_refusals": 1}));
        let agent = evidence(wire::EvidenceRole::Agent, svid());
        let subject = evidence(wire::EvidenceRole::Subject, token);
        let request =
            wire::GetRequest { evidence: vec![subject, agent], ..wire::GetRequest::default() };
        for _ in 0..TIMES {
            let by = Transport::by("dev");
            let refused =
                served.engine.call(authz_lane::Surface::TaskGet, &request.encode_to_vec(), &by);
            assert_eq!("BAD_CREDENTIAL", refused.unwrap_err().reason_code.as_str());
        }
        let expected = BTreeMap::from([((BOT.to_owned(), "BAD_CREDENTIAL".to_owned()), TIMES)]);
        assert_eq!((expected, 0), named(&served.records()));
    }
}

/// As before over Envoy's protocol, whatever else of the request is malformed.
#[test]
fn an_agent_does_not_hide_among_strangers_behind_a_proxy() {
    const TIMES: usize = 12;
    let get = |headers: &[(&str, &str)]| http("GET", "/customers?q=a", headers);
    let list = |headers: &[(&str, &[u8])]| raw("GET", "/customers?q=a", headers);
    for (request, code) in [
        (get(&[("authz-subject", "x.y.z")]), "BAD_CREDENTIAL"),
        (list(&[("authz-subject", b"x.y.z")]), "BAD_CREDENTIAL"),
        (get(&[("content-length", "x")]), "AMBIGUOUS_REQUEST"),
        (get(&[("Odd", "x")]), "AMBIGUOUS_REQUEST"),
        (list(&[("baggage", b"\xff")]), "AMBIGUOUS_REQUEST"),
        (get(&[(":path", "/other")]), "AMBIGUOUS_REQUEST"),
        (get(&[("authz-task", "a"), ("baggage", "authz.task=b")]), "TASK_CONFLICT"),
        (get(&[("dpop", "")]), "BAD_PROOF"),
    ] {
        let served = served_with(&json!({"audit_unverified_refusals": 1}));
        for _ in 0..TIMES {
            let answer = served.proxy(&request);
            assert_ne!(0, answer.status.as_ref().unwrap().code);
        }
        let expected = BTreeMap::from([((BOT.to_owned(), code.to_owned()), TIMES)]);
        assert_eq!((expected, 0), named(&served.records()), "{code}");
    }
}

/// Only a good credential is anybody's: what stands beside a bad one is a stranger's, whatever it says.
#[test]
fn a_bad_credential_names_nobody() {
    const TIMES: usize = 12;
    let mut bad = search();
    bad.evidence[0].token = forged();
    let mut expired = search();
    expired.evidence[0].token = svid_with(BOT, "authz", now() - 60);
    let mut long = bad.clone();
    long.arguments_json = vec![b' '; 300 * 1024];
    let mut alone = search();
    alone.evidence.remove(0);
    alone.arguments_json = vec![b' '; 300 * 1024];
    for request in [bad, expired, long, alone] {
        let served = served_with(&json!({"audit_unverified_refusals": 1}));
        for _ in 0..TIMES {
            served.check_by("dev", &request);
        }
        let (named, summed) = named(&served.records());
        assert_eq!(TIMES as u64 - 1, summed, "{named:?}");
        assert!(named.keys().all(|(agent, _)| agent.is_empty()), "{named:?}");
    }
}

/// Also what the fast lane sheds before it reads it.
#[test]
fn both_lanes_sum() {
    let served = served_with(&json!({"audit_unverified_refusals": 2}));
    let (lane, address) = crate::fast::lane(&served, json!({}));
    let mut stranger = search();
    stranger.evidence.clear();
    crate::fast::runtime().block_on(async {
        let channel = crate::fast::connect(&address).await;
        let mut client = wire::authorizer_client::AuthorizerClient::new(channel);
        for _ in 0..10 {
            let decision = client.check(stranger.clone()).await.unwrap().into_inner().decision;
            assert_eq!("NO_CREDENTIAL", code(&decision.unwrap()));
        }
    });
    lane.close(Duration::from_secs(1));
    let reason = authz_kernel::reason::ReasonCode::Overloaded;
    for _ in 0..5 {
        drop(served.engine.refusal(authz_lane::Surface::Check, reason));
    }
    let records = served.records();
    let expected = BTreeMap::from([("NO_CREDENTIAL".to_owned(), (2, 8))]);
    assert_eq!(expected, counted(&records, "127.0.0.1"));
    let shed = records.iter().filter(|one| one["result"]["reason_code"] == "OVERLOADED");
    assert_eq!(
        json!([null, null, 3]),
        json!(shed.map(|one| &one["sum"]["count"]).collect::<Vec<_>>())
    );
}
