//! Any bytes: never a crash, never a permit that the well-formed request would not get.

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::{Engine, Transport, fuzz};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use serde_json::json;
use std::path::Path;
use std::sync::LazyLock;

use crate::credentials;
use crate::support::*;

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let served = unloaded(&json!({}));
    let mut world = world();
    world.listeners.extend(listeners_of(&json!([{"name": "http", "http": true}])));
    world.credentials = Some(credentials::issuing(&json!({})));
    served.engine.load(world).unwrap();
    served
});

fn engine() -> &'static Engine {
    &SERVED.engine
}

/// The committed corpora: each input once found interesting stays a test.
#[test]
fn corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut seen = 0;
    for (name, body) in fuzz::BODIES {
        for entry in std::fs::read_dir(folder.join(name)).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            body(engine(), &bytes);
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(512), failure_persistence: None, ..ProptestConfig::default() })]

    /// Random bytes over every surface.
    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..600)) {
        for (_, body) in fuzz::BODIES {
            body(engine(), &bytes);
        }
    }

    /// A good request with some of its bytes replaced is permitted only if it still holds the same, good credentials.
    #[test]
    fn broken_request(at in 0_usize..2000, with in any::<u8>(), cut in 0_usize..2000) {
        let request = search();
        let mut bytes = request.encode_to_vec();
        let length = bytes.len();
        bytes[at % length] = with;
        bytes.truncate(length - cut % length / 8);
        let decision = own(&engine().check(&bytes, &Transport::by("dev")));
        if decision.outcome == wire::Outcome::Permit as i32 {
            let read = wire::CheckRequest::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(&read.operation, "crm.search");
            prop_assert!(read.evidence.iter().all(|e| request.evidence.iter().any(|g| g.token == e.token)));
        }
    }

    /// The same for a proxy's request.
    #[test]
    fn broken_proxy_request(at in 0_usize..2000, with in any::<u8>()) {
        let request = http("GET", "/customers?q=a", &[]);
        let mut bytes = request.encode_to_vec();
        let length = bytes.len();
        bytes[at % length] = with;
        let answer = engine().envoy_check(&bytes, &Transport::by("dev"));
        let answer = ext::CheckResponse::decode(answer.as_slice()).unwrap();
        if answer.status.unwrap().code == 0 {
            let read = ext::CheckRequest::decode(bytes.as_slice()).unwrap();
            let http = read.attributes.unwrap().request.unwrap().http.unwrap();
            prop_assert_eq!(&http.method, "GET");
            prop_assert!(http.path.starts_with("/customers?q="));
        }
    }

    /// Any text in any header that we read.
    #[test]
    fn header_values(
        name in prop::sample::select(vec!["authorization", "authz-subject", "dpop", "baggage", "authz-task", "host"]),
        value in "\\PC{0,80}",
    ) {
        let answer = SERVED.proxy(&http("GET", "/customers?q=a", &[(name, &value)]));
        let is_harmless = matches!(name, "baggage" | "host");
        prop_assert!(is_harmless || answer.status.unwrap().code != 0, "{} {}", name, value);
    }
}
