//! The fast lane over real sockets.

use std::sync::Arc;
use std::time::Duration;

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::authorizer_client::AuthorizerClient;
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::proto::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use authz_lane::proto::grpc::health::v1::HealthCheckRequest;
use authz_lane::proto::grpc::health::v1::health_client::HealthClient;
use authz_lane::{FastLane, FastSettings, Surface, Transport};
use prost::Message;
use serde_json::json;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::support::*;

pub(crate) fn lane(served: &Served, extra: serde_json::Value) -> (FastLane, String) {
    let socket = served.audit.with_file_name("fast.sock");
    let mut settings = json!({
        "listeners": [
            {"name": "dev", "address": "127.0.0.1:0"},
            {"name": "crm", "address": format!("unix:{}", socket.display())},
        ],
        "workers": 2, "concurrency": 2_048, "connections": 1_024, "max_streams": 256,
        "receive_timeout_ms": 5_000, "handshake_timeout_ms": 5_000, "idle_timeout_ms": 300_000,
        "ready_after_ms": 1_000,
    });
    merge(&mut settings, &extra);
    let settings = FastSettings::from_json(settings.to_string().as_bytes()).unwrap();
    let lane = FastLane::start(Arc::clone(&served.engine), settings).unwrap();
    let address = format!("http://{}", lane.addresses()[0]);
    (lane, address)
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(crate) async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}

fn without_id(mut decision: wire::Decision) -> Vec<u8> {
    decision.decision_id.clear();
    decision.decided_at = None;
    decision.encode_to_vec()
}

/// Both lanes give the same bytes, but for ids and times.
#[test]
fn same_bytes_as_the_engine() {
    let served = served();
    let (lane, address) = lane(&served, json!({}));
    runtime().block_on(async {
        let channel = connect(&address).await;
        let mut client = AuthorizerClient::new(channel.clone());
        let mut high = asking("crm.delete");
        high.arguments_json = b"{\"id\":\"1\"}".to_vec();
        for request in
            [search(), asking("crm.mail"), asking("wiki.read"), asking("crm.nothing"), high]
        {
            let fast = client.check(request.clone()).await.unwrap().into_inner().decision.unwrap();
            let slow = own(&served.engine.check(&request.encode_to_vec(), &Transport::by("dev")));
            assert_eq!(without_id(slow), without_id(fast));
        }
        let mut proxy = AuthorizationClient::new(channel.clone());
        let good = proxy.check(http("GET", "/customers?q=a", &[])).await.unwrap().into_inner();
        assert_eq!(0, good.status.unwrap().code);
        let bad = proxy.check(ext::CheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(3, bad.status.unwrap().code);
        let mut health = HealthClient::new(channel);
        let answer = health.check(HealthCheckRequest { service: String::new() }).await.unwrap();
        assert_eq!(1, answer.into_inner().status);
        let unknown = health.check(HealthCheckRequest { service: "x".to_owned() }).await;
        assert_eq!(tonic::Code::NotFound, unknown.unwrap_err().code());
    });
    lane.close(Duration::from_secs(1));
    lane.close(Duration::ZERO);
}

/// A report is taken as by the engine, and refused with the same reason.
#[test]
fn reports() {
    let served = served();
    let (lane, address) = lane(&served, json!({}));
    let request = wire::ReportRequest {
        decision_id: "nobody".to_owned(),
        result: wire::ReportResult::Ok as i32,
        ..wire::ReportRequest::default()
    };
    let bad = wire::ReportRequest { result: 9, ..request.clone() };
    runtime().block_on(async {
        let mut client = AuthorizerClient::new(connect(&address).await);
        for request in [request, bad] {
            let bytes = request.encode_to_vec();
            let slow = served.engine.call(Surface::Report, &bytes, &Transport::by("dev"));
            let slow = slow.unwrap_err();
            let fast = client.report(request).await.unwrap_err();
            assert_eq!(slow.grpc_code, fast.code() as i32);
            assert_eq!(slow.message, fast.message());
            let reason = slow.reason_code.as_str().as_bytes();
            assert!(fast.details().windows(reason.len()).any(|part| part == reason));
        }
    });
    lane.close(Duration::from_secs(1));
}

/// A unix socket is another listener; what is not answered here says so with its reason.
#[test]
fn unix_socket_and_other_methods() {
    let served = served();
    let (lane, address) = lane(&served, json!({}));
    runtime().block_on(async {
        let unix = connect(&lane.addresses()[1]).await;
        let decision = AuthorizerClient::new(unix).check(asking("wiki.read")).await.unwrap();
        assert_eq!("ENFORCER_REFUSED", code(&decision.into_inner().decision.unwrap()));
        let mut client = AuthorizerClient::new(connect(&address).await);
        let error = client.batch_check(wire::BatchCheckRequest::default()).await.unwrap_err();
        assert_eq!(tonic::Code::Unimplemented, error.code());
        let details = error.details();
        assert!(details.windows(13).any(|w| w == b"UNIMPLEMENTED"), "{details:?}");
    });
    lane.close(Duration::from_secs(1));
    assert!(!served.audit.with_file_name("fast.sock").exists());
}

/// What a generated service refuses by itself is an RPC error, which `failure_mode_allow` turns into a permit. Here a
/// message that is too long, and one that does not decode, are denials.
#[test]
fn bad_messages_are_denials() {
    let served = served();
    let (lane, address) = lane(&served, json!({}));
    runtime().block_on(async {
        let mut proxy = AuthorizationClient::new(connect(&address).await);
        let long = edit(http("POST", "/customers", &[]), |h| h.raw_body = vec![b'x'; 3 << 20]);
        let answer = proxy.check(long).await.unwrap().into_inner();
        assert_eq!(3, answer.status.unwrap().code);
        let mut client = AuthorizerClient::new(connect(&address).await);
        let mut long = search();
        long.arguments_json = vec![b' '; 3 << 20];
        let decision = client.check(long).await.unwrap().into_inner().decision.unwrap();
        assert_eq!("BAD_INPUT", code(&decision));
    });
    lane.close(Duration::from_secs(1));
}

/// A few KiB unpack to many MiB, so nothing is unpacked: the call ends as gRPC's compression specification says. A message
/// that is not compressed is answered, and so is one that is none.
#[test]
fn compressed_messages() {
    let served = served();
    let (lane, address) = lane(&served, json!({}));
    runtime().block_on(async {
        let mut client = AuthorizerClient::new(connect(&address).await);
        for (encoding, code) in [
            ("gzip", tonic::Code::Unimplemented),
            ("deflate", tonic::Code::Unimplemented),
            ("zstd", tonic::Code::Unimplemented),
            ("of my own", tonic::Code::Unimplemented),
            ("identity", tonic::Code::Ok),
        ] {
            let mut request = tonic::Request::new(search());
            request.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
            let answer = client.check(request).await;
            assert_eq!(code, answer.as_ref().map_or_else(tonic::Status::code, |_| tonic::Code::Ok));
            if let Err(status) = answer {
                let accepted = status.metadata().get("grpc-accept-encoding").unwrap();
                assert_eq!("identity", accepted);
            }
        }
    });
    let refused = served.engine.metrics().into_iter().find(|one| one.name == "authz_fast_refused");
    let compressed = refused.unwrap().samples.into_iter().find(|sample| {
        ["dev", "compressed"].iter().zip(&sample.labels).all(|(value, (_, seen))| value == seen)
    });
    assert!((compressed.unwrap().value - 4.0).abs() < f64::EPSILON);
    lane.close(Duration::from_secs(1));
}

/// Past its concurrency the lane answers at once; a deadline is honoured.
#[test]
fn overload_and_deadline() {
    let served = served();
    let (lane, address) = lane(&served, json!({"concurrency": 1, "workers": 1}));
    runtime().block_on(async {
        let channel = connect(&address).await;
        // The first answer brings the server's settings: a client that does not know them yet may open too many streams, which
        // the server then resets.
        AuthorizerClient::new(channel.clone()).check(search()).await.unwrap();
        let mut high = asking("crm.delete");
        high.arguments_json = b"{\"id\":\"1\"}".to_vec();
        let calls: Vec<_> = (0..64)
            .map(|_| {
                let (mut client, request) = (AuthorizerClient::new(channel.clone()), high.clone());
                tokio::spawn(async move { client.check(request).await.unwrap().into_inner() })
            })
            .collect();
        let mut outcomes = std::collections::BTreeMap::new();
        for call in calls {
            let decision = call.await.unwrap().decision.unwrap();
            *outcomes.entry((decision.outcome, decision.public_code)).or_insert(0) += 1;
        }
        let permitted = (wire::Outcome::Permit as i32, wire::PublicCode::Permit as i32);
        let overloaded = (wire::Outcome::Deny as i32, wire::PublicCode::Unavailable as i32);
        assert_eq!(64, outcomes.values().sum::<i32>());
        assert!(outcomes.keys().all(|key| [permitted, overloaded].contains(key)), "{outcomes:?}");
        assert!(outcomes.contains_key(&overloaded), "{outcomes:?}");

        let mut request = tonic::Request::new(search());
        request.metadata_mut().insert("grpc-timeout", "1n".parse().unwrap());
        let mut client = AuthorizerClient::new(channel);
        match client.check(request).await {
            Ok(answer) => {
                let decision = answer.into_inner().decision.unwrap();
                assert_eq!(wire::PublicCode::Unavailable as i32, decision.public_code);
            }
            // The transport's own timer may be first.
            Err(status) => assert!(
                [tonic::Code::Cancelled, tonic::Code::DeadlineExceeded].contains(&status.code()),
                "{status}"
            ),
        }
    });
    lane.close(Duration::from_secs(1));
}

/// Naive way: a health call waits for its message for ever. One that does not come ends in the time of any other.
#[test]
fn health_does_not_wait_for_ever() {
    use tokio_stream::StreamExt as _;
    let served = served();
    let (lane, address) = lane(&served, json!({"receive_timeout_ms": 100}));
    runtime().block_on(async {
        let channel = connect(&address).await;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let never = tokio_stream::pending::<HealthCheckRequest>();
        let codec = tonic_prost::ProstCodec::<
            HealthCheckRequest,
            authz_lane::proto::grpc::health::v1::HealthCheckResponse,
        >::default();
        let path = "/grpc.health.v1.Health/Check".parse().unwrap();
        let call = grpc.streaming(tonic::Request::new(never), path, codec);
        let ended = tokio::time::timeout(Duration::from_secs(5), call).await.unwrap();
        let code = match ended {
            Err(status) => status.code(),
            Ok(answer) => answer.into_inner().next().await.unwrap().unwrap_err().code(),
        };
        assert_eq!(tonic::Code::DeadlineExceeded, code);
    });
    lane.close(Duration::from_secs(1));
}
