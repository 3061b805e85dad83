//! Two engines with the same clock, ids and secret answer the same calls alike, byte for byte, and record them alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Clock, Engine, Surface, Transport};
use authz_state::store::MemoryStore;
use prost::Message;
use serde_json::json;

use crate::support::*;
use crate::tasks::{REQUIRED, agent, deleting, searching, starting, subject, world_of};

/// A clock that stands still, and ids in order.
#[derive(Debug)]
struct Script {
    since_1970: Duration,
    monotonic: Instant,
    next_id: AtomicU64,
}

impl Clock for Script {
    fn since_1970(&self) -> Duration {
        self.since_1970
    }

    fn monotonic(&self) -> Instant {
        self.monotonic
    }

    fn new_id(&self) -> String {
        format!("00000000-0000-7000-8000-{:012x}", self.next_id.fetch_add(1, Ordering::SeqCst))
    }
}

fn scripted(since_1970: Duration, monotonic: Instant) -> Served {
    let audit = folder().join("audit.jsonl");
    let clock = Script { since_1970, monotonic, next_id: AtomicU64::new(1) };
    let store = Arc::new(MemoryStore::new([7; 32]));
    let engine = Engine::with_clock(settings(&audit, &json!({})), store, Arc::new(clock)).unwrap();
    engine.load(world_of(REQUIRED)).unwrap();
    Served { engine: Arc::new(engine), audit }
}

/// Answers to calls; a refusal as its text.
fn answers(served: &Served, calls: &[(Surface, Vec<u8>)]) -> Vec<Result<Vec<u8>, String>> {
    let transport = Transport::by("dev");
    let answer = |(surface, request): &(Surface, Vec<u8>)| match surface {
        Surface::Check => Ok(served.engine.check(request, &transport)),
        surface => {
            served.engine.call(*surface, request, &transport).map_err(|error| error.to_string())
        }
    };
    calls.iter().map(answer).collect()
}

#[test]
fn equal_clocks_and_ids_give_equal_answers_and_records() {
    let (since_1970, monotonic) = (Duration::from_secs(now().unsigned_abs()), Instant::now());
    let (one, other) = (scripted(since_1970, monotonic), scripted(since_1970, monotonic));
    let begin =
        vec![(Surface::TaskStart, starting(vec![agent(BOT), subject("alice")]).encode_to_vec())];
    let started = answers(&one, &begin);
    assert_eq!(started, answers(&other, &begin));
    let bytes = started.first().unwrap().as_ref().unwrap();
    let task = wire::StartResponse::decode(bytes.as_slice()).unwrap().task.unwrap().id;
    let end = wire::EndRequest {
        evidence: vec![agent(BOT)],
        task: task.clone(),
        status: wire::TaskStatus::Completed as i32,
    };
    let calls = [
        (Surface::Check, searching(&task, BOT).encode_to_vec()),
        (Surface::Check, deleting(&task, BOT, "7").encode_to_vec()),
        (Surface::Check, asking("wiki.read").encode_to_vec()),
        (Surface::Check, b"no message".to_vec()),
        (Surface::TaskEnd, end.encode_to_vec()),
        (Surface::Check, searching(&task, BOT).encode_to_vec()),
    ];
    let answered = answers(&one, &calls);
    assert_eq!(answered, answers(&other, &calls));
    let codes: Vec<&str> = answered
        .iter()
        .zip(&calls)
        .filter(|(_, (surface, _))| *surface == Surface::Check)
        .map(|(answer, _)| code(&own(answer.as_ref().unwrap())))
        .collect();
    assert_eq!(["PERMITTED", "PERMITTED", "NO_TASK", "BAD_INPUT", "TASK_ENDED"], *codes);
    let records = one.records();
    assert_eq!(records.len(), begin.len() + calls.len());
    assert_eq!(records, other.records());
}
