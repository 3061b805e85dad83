//! Standing exceptions of a served bundle: uses are recorded and counted.

use authz_lane::World;
use authz_lane::proto::authz::v1 as wire;
use serde_json::json;

use crate::support::*;

const POLICY: &str = "
@id(\"legacy-mail\") permit(principal, action == Action::\"wiki.sync\", resource)
when { context.exception.contains(Exception::\"sync\") };
";

fn exceptions(expires: &str) -> String {
    format!(
        "catalog: {{sync: {{kind: http, operations: {{run: {{effects: [write], tier: standard}}}}}}}}
exceptions:
  sync: {{who: bot, operations: [sync.run], owner: ops, reason: no OAuth, ticket: OPS-1, expires: {expires}}}
  idle: {{who: bot, operations: [sync.*], owner: ops, reason: none, ticket: OPS-2, expires: 2999-01-01}}"
    )
}

fn serving(expires: &str) -> Served {
    let (facts, policy) = (exceptions(expires), POLICY.replace("wiki.sync", "sync.run"));
    let served = unloaded(&json!({}));
    let plan = plan(&[("exceptions.yaml", &facts), ("policies/legacy.cedar", &policy)]);
    served.engine.load(World { plan, ..world() }).unwrap();
    served
}

fn samples(served: &Served, name: &str) -> Vec<(String, f64)> {
    let families = served.engine.metrics();
    let family = families.iter().find(|family| family.name == name).unwrap();
    let samples = family.samples.iter();
    samples.map(|sample| (sample.labels[0].1.clone(), sample.value)).collect()
}

#[test]
fn a_use_is_recorded_and_counted() {
    let served = serving("2999-01-01");
    let before = samples(&served, "authz_exception_uses");
    let counts = |sync| {
        let names = [("breakglass", 0.0), ("idle", 0.0), ("sync", sync)];
        names.map(|(name, uses): (&str, f64)| (name.to_owned(), uses)).to_vec()
    };
    assert_eq!(counts(0.0), before);
    for _ in 0..2 {
        assert_eq!("PERMITTED", code(&served.check(&asking("sync.run"))));
    }
    assert_eq!("PERMITTED", code(&served.check(&search())));
    let after = samples(&served, "authz_exception_uses");
    assert_eq!(counts(2.0), after);
    let ends = samples(&served, "authz_exception_expiry_timestamp_seconds");
    assert_eq!(("sync".to_owned(), 32_472_230_400.0), ends[1]);
    let [idle, sync] = &served.engine.status().exceptions[..] else { panic!("two exceptions") };
    assert_eq!((0, None), (idle.uses, idle.last_used_ms));
    assert_eq!((2, "ops", "OPS-1"), (sync.uses, sync.owner.as_str(), sync.ticket.as_str()));
    assert!(sync.last_used_ms.is_some());
    let records = served.records();
    assert_eq!(json!(["sync"]), records[0]["result"]["exceptions"]);
    assert_eq!(None, records[2]["result"].get("exceptions"));
}

#[test]
fn an_expired_exception_permits_nothing() {
    let served = serving("2020-01-01");
    let decision = served.check(&asking("sync.run"));
    assert_eq!("EXCEPTION_EXPIRED", code(&decision));
    assert_eq!(wire::Outcome::Deny as i32, decision.outcome);
    assert_eq!(("sync".to_owned(), 0.0), samples(&served, "authz_exception_uses")[2]);
    let records = served.records();
    let rules = &records[0]["result"]["rules"];
    assert_eq!(
        (json!("exception"), json!("sync")),
        (rules[0]["kind"].clone(), rules[0]["name"].clone())
    );
}
