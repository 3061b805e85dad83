//! Task credentials: what they come of, what they are, and how they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_kernel::task::{Record, RecordKind, Reservation};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::{CredentialSettings, Engine, Settings, World};
use authz_state::store::{MemoryStore, Page, Query, Store};
use serde_json::{Value, json};

use crate::support::*;
use crate::tasks::{REQUIRED, alices, deleting, searching, world_of};

pub fn issuing() -> CredentialSettings {
    let settings =
        json!({"issuer": "https://authz.example", "audiences": {"crm": "https://crm.example"}});
    CredentialSettings::from_json(settings.to_string().as_bytes()).unwrap()
}

fn soon() -> Instant {
    Instant::now().checked_add(Duration::from_secs(10)).unwrap()
}

/// An engine that issues credentials, and its store.
struct Issuing {
    served: Served,
    store: Arc<dyn Store>,
}

impl Issuing {
    fn new() -> Self {
        Self::with(REQUIRED, &json!({}))
    }

    fn with(bundle: &str, extra: &Value) -> Self {
        let audit = folder().join("audit.jsonl");
        let settings: Settings = settings(&audit, extra);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
        let engine = Engine::with_store(settings, Arc::clone(&store)).unwrap();
        let served = Served { engine: Arc::new(engine), audit };
        let world = World { credentials: Some(issuing()), ..world_of(bundle) };
        served.engine.load(world).unwrap();
        Self { served, store }
    }

    fn of_kind(&self, kind: RecordKind) -> Vec<Record> {
        let page = Page { after: String::new(), most: 100 };
        self.store.find(&Query::Kind(kind), &page, soon()).unwrap()
    }

    fn reservations(&self) -> Vec<Arc<Reservation>> {
        let all = self.of_kind(RecordKind::Reservation).into_iter();
        all.filter_map(|record| match record {
            Record::Reservation(one) => Some(one),
            _ => None,
        })
        .collect()
    }
}

fn wanting(request: wire::CheckRequest) -> wire::CheckRequest {
    wire::CheckRequest { wants_credential: true, ..request }
}

/// Whoever wants a credential gets a permit that is kept, even of what is stateless; and needs a task.
#[test]
fn a_permit_is_kept_for_a_credential() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let check = |request: &wire::CheckRequest| issuing.served.check(request);
    assert_eq!("PERMITTED", code(&check(&searching(&task.id, BOT))));
    assert!(issuing.reservations().is_empty(), "a search is stateless");
    let decision = check(&wanting(searching(&task.id, BOT)));
    assert_eq!("PERMITTED", code(&decision));
    let kept = issuing.reservations().pop().unwrap();
    assert_eq!((&decision.decision_id, &task.id), (&kept.decision_id, &kept.task));
    assert_eq!((BOT, true, false), (&*kept.agent, kept.wants_credential, kept.redeemed));
    assert_eq!(Some("customers"), kept.resource.as_deref());
    assert_eq!(64, kept.arguments_digest.as_ref().unwrap().len());
    assert_eq!("PERMITTED", code(&check(&deleting(&task.id, BOT, "7"))));
    let kept = issuing.reservations().pop().unwrap();
    assert_eq!((Some("customers/7"), false), (kept.resource.as_deref(), kept.wants_credential));
    // A probe changes nothing, a refusal keeps nothing.
    let mut probe = wanting(searching(&task.id, BOT));
    probe.mode = wire::Mode::Probe as i32;
    check(&probe);
    assert_eq!("OUT_OF_SCOPE", code(&check(&wanting(deleting(&task.id, BOT, "8")))));
    assert_eq!(2, issuing.reservations().len());
    let optional = Issuing::with("{name: desk, tasks: optional}", &json!({}));
    assert_eq!("PERMITTED", code(&optional.served.check(&search())));
    assert_eq!("NO_TASK", code(&optional.served.check(&wanting(search()))));
    let plain = served();
    assert_eq!("BAD_INPUT", code(&plain.check(&wanting(search()))));
}

/// Settings out of their range are refused with their name.
#[test]
fn settings_are_bounded() {
    let refused = |more: Value| {
        let mut settings = json!({"issuer": "https://authz.example"});
        for (name, value) in more.as_object().unwrap() {
            settings[name] = value.clone();
        }
        CredentialSettings::from_json(settings.to_string().as_bytes()).unwrap_err().to_string()
    };
    for (more, name) in [
        (json!({"issuer": "http://authz.example"}), "issuer"),
        (json!({"lifetime": {"critical": 0}}), "lifetime.critical"),
        (json!({"lifetime": {"low": 86_401}}), "lifetime.low"),
        (json!({"dpop": {"window": 0}}), "dpop.window"),
        (json!({"dpop": {"max_proofs_per_key": 0}}), "dpop.max_proofs_per_key"),
        (json!({"dpop": {"windows": 1}}), "windows"),
        (
            json!({"leases": {"erp": "x"}, "injections": {"erp": {"header": "x", "value": "y"}}}),
            "erp",
        ),
    ] {
        assert!(refused(more).contains(name), "{name}");
    }
}
