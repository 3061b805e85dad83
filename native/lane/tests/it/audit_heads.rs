//! Heads of the audit logs of nodes that share a store.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_lane::Engine;
use authz_state::store::{MemoryStore, Store};
use authz_state::{Head, SignedHead};
use serde_json::{Value, json};

use crate::support::*;

/// A node with a chained audit log on a store of several nodes.
fn node(name: &str, audit: &Path, store: &Arc<dyn Store>) -> Served {
    let chain = json!({
        "head_key": null, "max_segment_bytes": 1 << 20, "max_segment_age_ms": 86_400_000,
        "head_interval_ms": 1, "keep_segments": null,
    });
    let extra = json!({"node_id": name, "audit_sync_interval_ms": 10, "audit_chain": chain});
    let engine = Engine::with_store(settings(audit, &extra), Arc::clone(store)).unwrap();
    engine.load(world()).unwrap();
    Served { engine: Arc::new(engine), audit: audit.to_owned() }
}

/// Waits until the newest head covers so many records.
fn wait_for_head(served: &Served, count: u64) -> Head {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = served.engine.status().audit.head;
        let head = serde_json::from_str::<SignedHead>(&text).ok().and_then(|head| head.head());
        match head {
            Some(head) if head.count >= count => return head,
            _ => assert!(Instant::now() < deadline, "no head of {count} records: {text}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn heads_of(record: &Value) -> Vec<Head> {
    let heads: Vec<SignedHead> = serde_json::from_value(record["heads"].clone()).unwrap();
    heads.iter().map(|head| head.head().unwrap()).collect()
}

/// Each node records the heads of the others in its own log, each head once.
#[test]
fn nodes_record_the_heads_of_each_other() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let [one, two] = ["n1", "n2"].map(|name| node(name, &folder().join("audit.jsonl"), &store));
    for _ in 0..3 {
        one.check(&search());
    }
    let head = wait_for_head(&one, 4);
    assert_eq!("", one.engine.sweep().error);
    for _ in 0..2 {
        assert_eq!("", two.engine.sweep().error);
    }
    let records = two.records();
    assert_eq!(2, records.len());
    assert_eq!("desk", records[0]["loaded"]["bundle"]);
    assert_eq!(vec![head], heads_of(&records[1]));
    assert_eq!("n2", records[1]["labels"]["id"]);
    assert_eq!(1, records[1]["chain"]["index"]);
    assert_eq!(4, one.records().len(), "its own head is not recorded");
}

/// A log that was removed while its node was down is missed, although no file tells of it.
#[test]
fn the_store_tells_of_a_log_that_is_gone() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let audit = folder().join("audit.jsonl");
    let served = node("n1", &audit, &store);
    served.check(&search());
    wait_for_head(&served, 2);
    assert_eq!("", served.engine.sweep().error);
    // The store outlives the node.
    drop(served);
    let same = node("n1", &audit, &store);
    wait_for_head(&same, 3);
    assert_eq!("", same.engine.sweep().error);
    assert_eq!("", same.engine.status().audit.chain_damage);
    drop(same);
    std::fs::remove_dir_all(audit.parent().unwrap()).unwrap();
    std::fs::create_dir(audit.parent().unwrap()).unwrap();
    let emptied = node("n1", &audit, &store);
    wait_for_head(&emptied, 1);
    assert_eq!("", emptied.engine.sweep().error);
    let status = emptied.engine.status();
    let damage = "the store has a head of 3 records of segment 1, and the log has 1 of segment 1";
    assert_eq!(damage, status.audit.chain_damage);
    assert!(status.warnings.iter().any(|warning| warning.contains(damage)));
    let families = emptied.engine.metrics();
    let damaged = families.iter().find(|family| family.name == "authz_audit_damaged").unwrap();
    assert_eq!([1.0], *damaged.samples.iter().map(|sample| sample.value).collect::<Vec<_>>());
}

/// A refused load has a record in a chained log, with bounds. It changes no bundle, and bytes of another form are refused.
#[test]
fn refused_loads_are_recorded() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let served = node("n1", &folder().join("audit.jsonl"), &store);
    let error = json!({"at": "tasks.yaml:3", "code": "", "message": "\u{e9}\n".repeat(400)});
    let load = json!({"digest": "ab", "errors": vec![error; 7], "unrecorded": 2});
    assert!(served.engine.record_refused_load(load.to_string().as_bytes()).unwrap());
    assert!(served.engine.record_refused_load(br#"{"errors": []}"#).unwrap());
    for wrong in ["", "{}", r#"{"errors": [], "outcome": "PERMIT"}"#] {
        assert!(served.engine.record_refused_load(wrong.as_bytes()).is_err(), "{wrong}");
    }
    let records = served.records();
    assert_eq!(3, records.len());
    let refused = &records[1]["refused"];
    assert_eq!(records[0]["loaded"]["digest"], refused["in_use"]);
    assert_eq!((&json!("ab"), &json!(2)), (&refused["digest"], &refused["unrecorded"]));
    assert_eq!(
        (Some(5), &json!(2)),
        (refused["errors"].as_array().map(Vec::len), &refused["omitted"])
    );
    let text = refused["errors"][4]["message"].as_str().unwrap();
    assert_eq!(300, text.chars().count());
    assert_eq!(json!({"in_use": refused["in_use"], "errors": []}), records[2]["refused"]);
    assert_eq!(2, records[2]["chain"]["index"]);

    let unchained = served_with(&json!({}));
    assert!(!unchained.engine.record_refused_load(br#"{"errors": []}"#).unwrap());
    assert!(unchained.records().is_empty());
}
