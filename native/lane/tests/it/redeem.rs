//! Task credentials and proofs of possession, as they are presented: each is good for what it was issued for, once.

use std::sync::{Arc, LazyLock};

use authz_kernel::decision::Time;
use authz_kernel::task::{Binding, Credential, Detail, Record, RecordKey, RecordKind, Reservation};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::proto::envoy::service::auth::v3::check_response::HttpResponse;
use authz_lane::{Engine, PeerChain, Surface, Transport, World};
use authz_state::store::{MemoryStore, Page, Query, Store, Survives};
use authz_token::mint::x509::{Signer, bundle as authorities};
use authz_token::mint::{Key, jwks, proof};
use authz_token::{TrustSpec, TrustStore};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::approvals::{answer, by_passkey, person};
use crate::credentials::soon;
use crate::support::*;
use crate::tasks::{REQUIRED, alices, call, call_by, delegate, deleting, searching, world_with};

const ISSUER: &str = "https://authz.example";
const CRM: &str = "https://crm.example";
const URI: &str = "https://crm.example/customers/7";
const OTHER: &str = "spiffe://a.example/ns/support/sa/two";
const MESH: &str = "spiffe://a.example/ns/mesh/sa/gateway";

static OWN: LazyLock<Key> = LazyLock::new(|| Key::ed25519("").by_thumbprint());
static AUTHORITY: LazyLock<Signer> = LazyLock::new(|| Signer::authority("a.example"));

fn trust() -> Arc<TrustStore> {
    let mut spec = trust_spec();
    let keys = |bundle: &str| serde_json::from_str::<Value>(bundle).unwrap()["keys"].take();
    let tokens = keys(spec["domains"]["a.example"]["bundle"].as_str().unwrap());
    let both: Vec<Value> = [tokens, keys(&authorities(&[&AUTHORITY]))]
        .iter()
        .flat_map(|keys| keys.as_array().unwrap().clone())
        .collect();
    spec["domains"]["a.example"]["bundle"] = json!({"keys": both}).to_string().into();
    spec["own"] = json!({"issuer": ISSUER, "keys": jwks(&[&OWN])});
    let spec = TrustSpec::from_json(spec.to_string().as_bytes()).unwrap();
    Arc::new(TrustStore::compile(&spec).unwrap())
}

fn digest(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

fn served_world(more: &[(&str, &str)], dpop: &Value) -> World {
    let settings = json!({"issuer": ISSUER, "audiences": {"crm": CRM}, "dpop": dpop});
    let listeners = json!([
        {"name": "dev", "insecure_dev": true},
        {"name": "own"},
        {"name": "admin", "admin": true},
        {"name": "mutual", "mutual": true},
        {"name": "mesh", "enforcer": {"name": "mesh", "asks": ["system:*"], "relays": ["principal"]}},
    ]);
    World {
        trust: trust(),
        credentials: Some(credential_settings(&settings)),
        listeners: listeners_of(&listeners),
        ..world_with(REQUIRED, more)
    }
}

/// An engine, Alice's task of the bot, and the bot's key.
struct Desk {
    served: Served,
    store: Arc<dyn Store>,
    task: wire::Task,
    key: Key,
}

impl Desk {
    fn new() -> Self {
        Self::with(&[], &json!({}))
    }

    /// Args: `more`: files of the bundle. `dpop`: settings of proofs.
    fn with(more: &[(&str, &str)], dpop: &Value) -> Self {
        let audit = folder().join("audit.jsonl");
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
        let engine = Engine::with_store(settings(&audit, &json!({})), Arc::clone(&store)).unwrap();
        let served = Served { engine: Arc::new(engine), audit };
        served.engine.load(served_world(more, dpop)).unwrap();
        let task = alices(&served);
        Self { served, store, task, key: Key::es256("") }
    }

    /// Another bundle is loaded.
    fn reload(&self, more: &[(&str, &str)]) {
        self.served.engine.load(served_world(more, &json!({}))).unwrap();
    }

    fn put(&self, locks: &[RecordKey], records: &[Record]) {
        let mut work = |transaction: &mut dyn authz_state::store::Transaction| {
            records.iter().for_each(|record| transaction.put(record.clone()));
            Ok(true)
        };
        self.store.transact(locks, Survives::Crash, soon(), &mut work).unwrap();
    }

    fn reservation(&self, decision_id: &str) -> Arc<Reservation> {
        let key = RecordKey::new(RecordKind::Reservation, decision_id);
        match self.store.peek(&key, soon()).unwrap() {
            Some(Record::Reservation(one)) => one,
            other => panic!("no reservation: {other:?}"),
        }
    }

    fn proofs(&self) -> usize {
        let page = Page { after: String::new(), most: 10_000 };
        let found = self.store.find(&Query::Kind(RecordKind::Proof), &page, soon()).unwrap();
        // Beside them is the tally of each key.
        found.iter().filter(|record| record.key().id.contains('/')).count()
    }

    /// The permit of a request, of which a credential is wanted.
    fn permit(&self, request: wire::CheckRequest) -> String {
        let decision = self.served.check(&wire::CheckRequest { wants_credential: true, ..request });
        assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
        decision.decision_id
    }

    /// The credential of some permits, bound to what is given, with other claims and another record.
    fn issue_with(
        &self,
        permits: &[String],
        binding: Option<Binding>,
        claims: &Value,
        change: impl FnOnce(&mut Credential),
    ) -> Issued {
        let jti = uuid::Uuid::now_v7().to_string();
        let expires_at = now() + 120;
        let reserved: Vec<Arc<Reservation>> =
            permits.iter().map(|id| self.reservation(id)).collect();
        let details = reserved.iter().map(|one| Detail {
            decision_id: one.decision_id.clone(),
            operation: one.operation.clone(),
            resource: one.resource.clone(),
            arguments_digest: one.arguments_digest.clone(),
            destinations: one.destinations.clone(),
        });
        let mut credential = Credential {
            jti: jti.clone(),
            task: self.task.id.clone(),
            session: self.task.session.clone(),
            agent: BOT.to_owned(),
            audience: CRM.to_owned(),
            details: details.collect(),
            binding: binding.clone(),
            issued_at: Time(now() * 1_000),
            expires_at: Time(expires_at * 1_000),
            revoked_at: None,
            rest: std::collections::BTreeMap::new(),
        };
        let of_token: Vec<Value> = credential
            .details
            .iter()
            .map(|one| {
                let mut detail = json!({
                    "type": "authz_task", "operation": one.operation, "uses": 1,
                    "arguments_digest": one.arguments_digest, "decision_id": one.decision_id,
                });
                if let Some(resource) = &one.resource {
                    detail["resource"] = json!(resource);
                }
                detail
            })
            .collect();
        let mut token = json!({
            "iss": ISSUER, "sub": "corp/alice", "act": {"sub": BOT}, "client_id": BOT, "aud": CRM,
            "iat": now(), "exp": expires_at, "jti": jti, "task": self.task.id,
            "authorization_details": of_token,
        });
        if let Some(binding) = &binding {
            token["cnf"] = json!({binding.member(): binding.value()});
        }
        for (name, value) in claims.as_object().unwrap() {
            token[name] = value.clone();
        }
        change(&mut credential);
        let mut records = vec![Record::Credential(Arc::new(credential))];
        for one in reserved {
            let due = Time(expires_at * 1_000);
            let credential = Some(jti.clone());
            let kept = Reservation { credential, due, ..Reservation::clone(&one) };
            records.push(Record::Reservation(Arc::new(kept)));
        }
        self.put(&[RecordKey::new(RecordKind::Session, &self.task.session)], &records);
        Issued { jti, token: OWN.sign_credential(&token.to_string()) }
    }

    fn jkt(&self) -> Option<Binding> {
        Some(Binding::Jkt(self.key.thumbprint()))
    }

    /// A credential for the deletion of customer 7, bound to the bot's key.
    fn issue(&self) -> Issued {
        let permit = self.permit(deleting(&self.task.id, BOT, "7"));
        self.issue_with(&[permit], self.jkt(), &json!({}), |_| ())
    }

    /// A proof of the bot's key.
    fn proof(&self, token: &str) -> String {
        self.proof_of(token, &json!({}))
    }

    fn proof_of(&self, token: &str, claims: &Value) -> String {
        let jti = uuid::Uuid::now_v7().to_string();
        let mut made = proof("DELETE", URI, now(), &jti, Some(token));
        for (name, value) in claims.as_object().unwrap() {
            made[name] = value.clone();
        }
        self.key.sign_proof(&made.to_string())
    }

    /// The deletion with a credential and a proof.
    fn presenting(&self, token: &str, proof: String) -> wire::CheckRequest {
        wire::CheckRequest {
            evidence: vec![dpop(token, proof)],
            http_method: "DELETE".to_owned(),
            http_uri: URI.to_owned(),
            ..deleting("", BOT, "7")
        }
    }

    /// What comes of the deletion with a credential under a fresh proof.
    fn redeem(&self, issued: &Issued) -> &'static str {
        code(&self.check(&self.presenting(&issued.token, self.proof(&issued.token))))
    }

    fn check(&self, request: &wire::CheckRequest) -> wire::Decision {
        self.served.check(request)
    }

    /// What comes of the deletion over Envoy.
    fn proxied(&self, headers: &[(&str, &str)]) -> ext::CheckResponse {
        let mut all = vec![("authorization", "\0"), ("authz-subject", "\0")];
        all.extend(headers);
        self.served.proxy(&http("DELETE", "/customers/7", &all))
    }

    fn revoke(&self, target: Target) {
        let request = wire::AdminRevokeRequest {
            reason: "lost".to_owned(),
            target: Some(target),
            ..Default::default()
        };
        let _: wire::AdminRevokeResponse =
            call_by(&self.served, "admin", Surface::Revoke, &request).unwrap();
    }
}

/// A credential and its id.
struct Issued {
    jti: String,
    token: String,
}

fn dpop(token: &str, proof: String) -> wire::Evidence {
    let scheme = wire::EvidenceScheme::Dpop as i32;
    wire::Evidence { scheme, proof, ..evidence(wire::EvidenceRole::Agent, token) }
}

fn bearer(token: &str) -> wire::Evidence {
    evidence(wire::EvidenceRole::Agent, token)
}

fn meta(answer: &ext::CheckResponse, name: &str) -> String {
    let value = answer.dynamic_metadata.as_ref().unwrap().fields.get(name);
    match value.and_then(|value| value.kind.clone()) {
        Some(prost_types::value::Kind::StringValue(text)) => text,
        _ => String::new(),
    }
}

fn denied(answer: &ext::CheckResponse, name: &str) -> Option<String> {
    let Some(HttpResponse::DeniedResponse(denied)) = &answer.http_response else { return None };
    let headers = denied.headers.iter().filter_map(|option| option.header.as_ref());
    headers.filter(|header| header.key == name).map(|header| header.value.clone()).next()
}

/// What was permitted is performed once with its credential: judged anew, and counted when it was issued.
#[test]
fn a_credential_is_redeemed_once() {
    let desk = Desk::new();
    let issued = desk.issue();
    let request = desk.presenting(&issued.token, desk.proof(&issued.token));
    let decision = desk.check(&request);
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    assert_eq!("USES_EXHAUSTED", desk.redeem(&issued));
    // Two uses, of which the credential took one.
    assert_eq!("PERMITTED", code(&desk.check(&deleting(&desk.task.id, BOT, "7"))));
    assert_eq!("USES_EXHAUSTED", code(&desk.check(&deleting(&desk.task.id, BOT, "7"))));
    let page = Page { after: String::new(), most: 10 };
    let kept = desk.store.find(&Query::Kind(RecordKind::Reservation), &page, soon()).unwrap();
    let records = desk.served.records();
    let record =
        records.iter().find(|line| line["decision_id"] == json!(decision.decision_id)).unwrap();
    let note = &record["input"]["credential"];
    assert_eq!((&json!(issued.jti), &json!("jkt")), (&note["jti"], &note["binding"]));
    let of = note["decision_id"].as_str().unwrap();
    assert!(of != decision.decision_id);
    assert_eq!("task-credential", record["input"]["chain"][1]["proof"]);
    // Nobody reports what comes of it: it stays with the permit that it was issued of.
    let is_redeemed = |record: &Record| matches!(record, Record::Reservation(one) if one.decision_id == of && one.redeemed);
    assert_eq!(1, kept.iter().filter(|record| is_redeemed(record)).count());
    assert_eq!(
        3,
        records
            .iter()
            .filter(|line| line["input"]["operation"] == "crm.delete"
                && line["result"]["outcome"] == "PERMIT")
            .count()
    );
}

/// What a credential permits is reported by whoever it was presented to, under the decision that this one got.
#[test]
fn what_is_redeemed_is_reported_under_its_own_decision() {
    let facts = FACTS.replacen("kind: http", "kind: http\n    reports: sdk", 1);
    let desk = Desk::with(&[("facts.yaml", &facts)], &json!({}));
    let report = |decision_id: &str| {
        let result = wire::ReportResult::Ok as i32;
        let decision_id = decision_id.to_owned();
        let request = wire::ReportRequest { decision_id, result, ..wire::ReportRequest::default() };
        call_by(&desk.served, "dev", Surface::Report, &request)
            .map(|_: wire::ReportResponse| ())
            .map_err(|error| error.reason_code.as_str())
    };
    let permit = desk.permit(deleting(&desk.task.id, BOT, "7"));
    let issued = desk.issue_with(std::slice::from_ref(&permit), desk.jkt(), &json!({}), |_| ());
    assert_eq!(Err("NOT_PERMITTED"), report(&permit));
    let decision = desk.check(&desk.presenting(&issued.token, desk.proof(&issued.token)));
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    assert_eq!(decision.decision_id, decision.reservation_id);
    assert!(decision.decision_id != permit);
    assert_eq!(Err("NOT_PERMITTED"), report(&permit));
    assert_eq!(Ok(()), report(&decision.reservation_id));
    assert_eq!(Err("NOT_PERMITTED"), report(&decision.reservation_id));
    assert_eq!("USES_EXHAUSTED", desk.redeem(&issued));
}

/// The last use is the credential's own: it is redeemed although the task has none left.
#[test]
fn a_credential_holds_its_use() {
    let desk = Desk::new();
    let (first, second) = (desk.issue(), desk.issue());
    assert_eq!("USES_EXHAUSTED", code(&desk.check(&deleting(&desk.task.id, BOT, "7"))));
    assert_eq!(["PERMITTED", "PERMITTED"], [desk.redeem(&first), desk.redeem(&second)]);
    assert_eq!(["USES_EXHAUSTED", "USES_EXHAUSTED"], [desk.redeem(&first), desk.redeem(&second)]);
}

/// A stateless operation that a credential is for is redeemed too.
#[test]
fn what_is_stateless_is_redeemed_once() {
    let desk = Desk::new();
    let permit = desk.permit(searching(&desk.task.id, BOT));
    let issued = desk.issue_with(&[permit], None, &json!({}), |_| ());
    let request =
        wire::CheckRequest { evidence: vec![bearer(&issued.token)], ..searching("", BOT) };
    assert_eq!("PERMITTED", code(&desk.check(&request)));
    assert_eq!("USES_EXHAUSTED", code(&desk.check(&request)));
}

/// A credential gives no more than it was issued for, and nothing to anybody else.
#[test]
fn a_credential_is_for_what_it_was_issued_for() {
    let desk = Desk::new();
    let issued = desk.issue();
    let with = |change: &dyn Fn(&mut wire::CheckRequest)| {
        let mut request = desk.presenting(&issued.token, desk.proof(&issued.token));
        change(&mut request);
        code(&desk.check(&request))
    };
    assert_eq!("OUT_OF_SCOPE", with(&|request| request.arguments_json = br#"{"id":"8"}"#.to_vec()));
    assert_eq!(
        "OUT_OF_SCOPE",
        with(&|request| {
            request.operation = "crm.search".to_owned();
            request.arguments_json = br#"{"query":"who"}"#.to_vec();
        })
    );
    assert_eq!(
        "WRONG_AUDIENCE",
        with(&|request| {
            request.operation = "wiki.read".to_owned();
            request.arguments_json.clear();
        })
    );
    assert_eq!("TASK_CONFLICT", with(&|request| request.task = "another".to_owned()));
    assert_eq!("PERMITTED", with(&|request| request.task.clone_from(&desk.task.id)));
    let second = desk.issue();
    let with = |evidence: wire::Evidence| {
        let mut request = desk.presenting(&second.token, desk.proof(&second.token));
        request.evidence.push(evidence);
        code(&desk.check(&request))
    };
    let subject =
        |sub: &str| evidence(wire::EvidenceRole::Subject, user(sub, json!(["employees"])));
    assert_eq!("BAD_CREDENTIAL", with(bearer(&svid_with(OTHER, "authz", now() + 60))));
    assert_eq!("TASK_CONFLICT", with(subject("bob")));
    assert_eq!("PERMITTED", with(subject("alice")));
}

/// Where a credential ends, so does what it permits: by itself, with its task, with its agent, and when it is taken away.
#[test]
fn an_ended_credential_permits_nothing() {
    let desk = Desk::new();
    let ended = |change: fn(&mut Credential)| {
        let permit = desk.permit(searching(&desk.task.id, BOT));
        let issued = desk.issue_with(&[permit], None, &json!({}), change);
        let request =
            wire::CheckRequest { evidence: vec![bearer(&issued.token)], ..searching("", BOT) };
        code(&desk.check(&request))
    };
    assert_eq!("PERMITTED", ended(|_| ()));
    assert_eq!("REVOKED", ended(|one| one.revoked_at = Some(Time(1))));
    assert_eq!("EXPIRED_CREDENTIAL", ended(|one| one.expires_at = Time(1)));
    assert_eq!("BAD_CREDENTIAL", ended(|one| one.agent = OTHER.to_owned()));
    assert_eq!("BAD_CREDENTIAL", ended(|one| one.audience = "https://other.example".to_owned()));
    assert_eq!("BAD_CREDENTIAL", ended(|one| one.binding = Some(Binding::Jkt("x".to_owned()))));
    // A record that is not there is none that can be used.
    assert_eq!("REVOKED", ended(|one| one.jti = "another".to_owned()));
    let issued = desk.issue();
    let end = wire::EndRequest {
        evidence: vec![bearer(&svid())],
        task: desk.task.id.clone(),
        status: wire::TaskStatus::Completed as i32,
    };
    let _: wire::EndResponse = call(&desk.served, Surface::TaskEnd, &end).unwrap();
    assert_eq!("TASK_ENDED", desk.redeem(&issued));
}

/// A child's credential ends with its parent's task.
#[test]
fn a_credential_ends_with_the_tasks_above_its_own() {
    let mut desk = Desk::new();
    let parent = desk.task.clone();
    let request = crate::tasks::delegating(&parent, BOT, BOT);
    desk.task = delegate(&desk.served, &request).unwrap();
    let issued = desk.issue();
    assert_eq!("PERMITTED", desk.redeem(&issued));
    let issued = desk.issue();
    let end = wire::EndRequest {
        evidence: vec![evidence(wire::EvidenceRole::Subject, alone_alice())],
        task: parent.id,
        status: wire::TaskStatus::Revoked as i32,
    };
    let _: wire::EndResponse = call(&desk.served, Surface::TaskEnd, &end).unwrap();
    assert_eq!("REVOKED", desk.redeem(&issued));
}

/// The kill switch finds what the cache of verified tokens still knows.
#[test]
fn a_revoked_credential_is_refused_although_it_was_verified_before() {
    let desk = Desk::new();
    let (issued, other) = (desk.issue(), desk.issue());
    assert_eq!("PERMITTED", desk.redeem(&issued));
    let refused = |target| {
        desk.revoke(target);
        desk.redeem(&other)
    };
    assert_eq!("PERMITTED", {
        // A dry look, so that nothing is used up.
        let mut request = desk.presenting(&other.token, desk.proof(&other.token));
        request.mode = wire::Mode::Probe as i32;
        code(&desk.check(&request))
    });
    assert_eq!("REVOKED", refused(Target::Jti(other.jti.clone())));
    let desk = Desk::new();
    let issued = desk.issue();
    desk.revoke(Target::Key(OWN.kid().to_owned()));
    assert_eq!("REVOKED", desk.redeem(&issued));
}

/// A stolen credential is worth nothing without its key, and a captured proof nothing at all.
#[test]
fn a_stolen_credential_is_worth_nothing() {
    let desk = Desk::new();
    let issued = desk.issue();
    let token = issued.token.as_str();
    let asked = |request: &wire::CheckRequest| code(&desk.check(request));
    // By another key.
    let thief = Desk { key: Key::es256(""), ..Desk::new() };
    assert_eq!("BAD_PROOF", asked(&desk.presenting(token, thief.proof(token))));
    // As a bearer token, with and without a proof.
    let mut request = desk.presenting(token, String::new());
    request.evidence = vec![bearer(token)];
    assert_eq!("UNBOUND_CREDENTIAL", asked(&request));
    request.evidence[0].proof = desk.proof(token);
    assert_eq!("BAD_PROOF", asked(&request));
    // Of another request, or of none.
    let wrong = |claims: Value| asked(&desk.presenting(token, desk.proof_of(token, &claims)));
    assert_eq!("BAD_PROOF", wrong(json!({"htu": "https://crm.example/customers/8"})));
    assert_eq!("BAD_PROOF", wrong(json!({"htu": "https://evil.example/customers/7"})));
    assert_eq!("BAD_PROOF", wrong(json!({"htm": "GET"})));
    assert_eq!("BAD_PROOF", wrong(json!({"iat": now() - 3_600})));
    assert_eq!("BAD_PROOF", wrong(json!({"ath": digest(b"another token")})));
    let mut request = desk.presenting(token, desk.proof(token));
    (request.http_method, request.http_uri) = (String::new(), String::new());
    assert_eq!("BAD_PROOF", asked(&request));
    assert_eq!(0, desk.proofs(), "none of them was a proof of the request");
    // Replayed: the same proof is refused, whatever became of the call that brought it first.
    let mut first = desk.presenting(token, desk.proof(token));
    let again = first.clone();
    first.arguments_json = br#"{"id":"8"}"#.to_vec();
    assert_eq!("OUT_OF_SCOPE", asked(&first));
    assert_eq!("REPLAYED", asked(&again));
    let request = desk.presenting(token, desk.proof(token));
    assert_eq!(["PERMITTED", "REPLAYED"], [asked(&request), asked(&request)]);
}

/// The same over Envoy, where method, origin and path are what the proof must be of.
#[test]
fn a_stolen_credential_is_worth_nothing_behind_a_proxy() {
    let desk = Desk::new();
    let issued = desk.issue();
    let token = issued.token.as_str();
    let said = |headers: &[(&str, &str)]| meta(&desk.proxied(headers), "reason_code");
    let sent = |proof: &str| said(&[("authz-credential", token), ("dpop", proof)]);
    let thief = Desk { key: Key::es256(""), ..Desk::new() };
    assert_eq!("BAD_PROOF", sent(&thief.proof(token)));
    assert_eq!(
        "BAD_PROOF",
        sent(&desk.proof_of(token, &json!({"htu": "https://crm.example/customers/8"})))
    );
    assert_eq!("BAD_PROOF", sent(&desk.proof_of(token, &json!({"htm": "POST"}))));
    assert_eq!("UNBOUND_CREDENTIAL", said(&[("authz-credential", token)]));
    assert_eq!("BAD_PROOF", sent(""));
    assert_eq!("BAD_CREDENTIAL", said(&[("authz-credential", "")]));
    let proof = desk.proof(token);
    let answer = desk.proxied(&[("authz-credential", token), ("dpop", &proof)]);
    assert_eq!("PERMITTED", meta(&answer, "reason_code"));
    assert_eq!(issued.jti, meta(&answer, "credential"));
    assert!(!meta(&answer, "credential_decision_id").is_empty());
    let Some(HttpResponse::OkResponse(ok)) = &answer.http_response else { panic!("no permit") };
    let is_removed = |name: &str| ok.headers_to_remove.iter().any(|removed| removed == name);
    assert!(is_removed("authz-credential") && is_removed("dpop"));
    let answer = desk.proxied(&[("authz-credential", token), ("dpop", &proof)]);
    assert_eq!("REPLAYED", meta(&answer, "reason_code"));
    assert_eq!(Some("Bearer realm=\"authz\"".to_owned()), denied(&answer, "www-authenticate"));
    assert_eq!(None, denied(&answer, "dpop-nonce"));
}

/// The headers of a request, given a credential, its proof and an SVID.
type Headers<'a> = dyn Fn(&str, &str, &str) -> Vec<(String, String)> + 'a;

/// A credential comes in one header, under one scheme, and one proof is of one token.
#[test]
fn the_headers_of_a_credential() {
    let desk = Desk::new();
    let try_one = |headers: &Headers<'_>| {
        let issued = desk.issue_with(
            &[desk.permit(searching(&desk.task.id, BOT))],
            desk.jkt(),
            &json!({}),
            |_| (),
        );
        let uri = "https://crm.example/customers";
        let jti = uuid::Uuid::now_v7().to_string();
        let claims = proof("GET", uri, now(), &jti, Some(&issued.token));
        let made = desk.key.sign_proof(&claims.to_string());
        let headers = headers(&issued.token, &made, &svid());
        let mut all = vec![("authorization", "\0"), ("authz-subject", "\0")];
        all.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let answer = desk.served.proxy(&http("GET", "/customers?q=who", &all));
        let mut told = meta(&answer, "reason_code");
        // What of it does not go on to the upstream.
        if let Some(HttpResponse::OkResponse(ok)) = &answer.http_response {
            for name in ["authorization", "dpop"] {
                if ok.headers_to_remove.iter().any(|removed| removed == name) {
                    told.push_str(&format!(" -{name}"));
                }
            }
        }
        told
    };
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let cases: &[(&str, &Headers<'_>)] = &[
        ("PERMITTED -dpop", &|token, proof, _| {
            vec![pair("authz-credential", token.to_owned()), pair("dpop", proof.to_owned())]
        }),
        ("PERMITTED -dpop", &|token, proof, _| {
            vec![pair("authz-credential", format!("DPoP {token}")), pair("dpop", proof.to_owned())]
        }),
        // In `authorization`, where it is told by its issuer.
        ("PERMITTED", &|token, proof, _| {
            vec![pair("authorization", format!("DPoP {token}")), pair("dpop", proof.to_owned())]
        }),
        // Beside the agent's own SVID, and beside a token for the upstream.
        ("PERMITTED -authorization -dpop", &|token, proof, svid| {
            vec![
                pair("authz-credential", token.to_owned()),
                pair("dpop", proof.to_owned()),
                pair("authorization", format!("Bearer {svid}")),
            ]
        }),
        ("PERMITTED -dpop", &|token, proof, _| {
            vec![
                pair("authz-credential", token.to_owned()),
                pair("dpop", proof.to_owned()),
                pair("authorization", "Bearer opaque-of-the-upstream".to_owned()),
            ]
        }),
        ("UNBOUND_CREDENTIAL", &|token, proof, _| {
            vec![
                pair("authz-credential", format!("Bearer {token}")),
                pair("dpop", proof.to_owned()),
            ]
        }),
        ("BAD_PROOF", &|token, proof, _| {
            vec![
                pair("authz-credential", format!("DPoP {token}")),
                pair("dpop", proof.to_owned()),
                pair("authorization", format!("DPoP {token}")),
            ]
        }),
        // The proof is the other token's.
        ("UNBOUND_CREDENTIAL", &|token, proof, _| {
            vec![
                pair("authz-credential", token.to_owned()),
                pair("dpop", proof.to_owned()),
                pair("authorization", "DPoP opaque-of-the-upstream".to_owned()),
            ]
        }),
        ("BAD_CREDENTIAL", &|token, proof, _| {
            vec![
                pair("authz-credential", format!("{token},{token}")),
                pair("dpop", proof.to_owned()),
            ]
        }),
        ("BAD_CREDENTIAL", &|token, proof, _| {
            vec![
                pair("authz-credential", token.to_owned()),
                pair("dpop", format!("{proof},{proof}")),
            ]
        }),
        ("BAD_CREDENTIAL", &|token, proof, _| {
            vec![pair("authz-credential", format!("Basic {token}")), pair("dpop", proof.to_owned())]
        }),
    ];
    for (number, (wanted, headers)) in cases.iter().enumerate() {
        assert_eq!(*wanted, try_one(headers), "{number}");
    }
}

/// A system whose origin the catalog does not say has no URI that a proof could be of.
#[test]
fn without_an_origin_no_proof_is_good() {
    let desk = Desk::new();
    let issued = desk.issue();
    let sent = || {
        let proof = desk.proof(&issued.token);
        let answer = desk.proxied(&[("authz-credential", &issued.token), ("dpop", &proof)]);
        meta(&answer, "reason_code")
    };
    let facts = FACTS.replace("origin: https://crm.example", "origin: ''");
    desk.reload(&[("facts.yaml", &facts)]);
    assert_eq!("BAD_PROOF", sent());
    desk.reload(&[]);
    assert_eq!("PERMITTED", sent());
}

/// A proof from before the start may have been taken already: it needs a nonce, which the refusal brings along.
#[test]
fn a_proof_from_before_the_start_needs_a_nonce() {
    let desk = Desk::new();
    let issued = desk.issue();
    let token = issued.token.as_str();
    let old = json!({"iat": now() - 30});
    let request = desk.presenting(token, desk.proof_of(token, &old));
    let bytes = desk.served.engine.check(&request.encode_to_vec(), &Transport::by("dev"));
    let answer = wire::CheckResponse::decode(bytes.as_slice()).unwrap();
    assert_eq!("BAD_PROOF", code(answer.decision.as_ref().unwrap()));
    assert!(!answer.dpop_nonce.is_empty());
    let answer_of = |claims: &Value| {
        desk.proxied(&[("authz-credential", token), ("dpop", &desk.proof_of(token, claims))])
    };
    let refused = answer_of(&old);
    assert_eq!("BAD_PROOF", meta(&refused, "reason_code"));
    let challenge = denied(&refused, "www-authenticate").unwrap();
    assert_eq!("DPoP realm=\"authz\", error=\"use_dpop_nonce\"", challenge);
    let nonce = denied(&refused, "dpop-nonce").unwrap();
    assert_eq!(answer.dpop_nonce, nonce);
    let invented = answer_of(&json!({"iat": now() - 30, "nonce": "invented"}));
    assert_eq!("BAD_PROOF", meta(&invented, "reason_code"));
    assert!(denied(&invented, "dpop-nonce").is_some());
    assert_eq!(0, desk.proofs());
    let good = answer_of(&json!({"iat": now() - 30, "nonce": nonce}));
    assert_eq!("PERMITTED", meta(&good, "reason_code"));
}

/// Where it is configured, every proof needs one.
#[test]
fn nonces_can_be_required() {
    let desk = Desk::with(&[], &json!({"require_nonce": true}));
    let issued = desk.issue();
    let request = desk.presenting(&issued.token, desk.proof(&issued.token));
    let bytes = desk.served.engine.check(&request.encode_to_vec(), &Transport::by("dev"));
    let answer = wire::CheckResponse::decode(bytes.as_slice()).unwrap();
    assert_eq!("BAD_PROOF", code(answer.decision.as_ref().unwrap()));
    let claims = json!({"nonce": answer.dpop_nonce});
    let request = desk.presenting(&issued.token, desk.proof_of(&issued.token, &claims));
    assert_eq!("PERMITTED", code(&desk.check(&request)));
}

/// One key fills its own share and no other's.
#[test]
fn a_key_has_its_share_of_proofs() {
    let mut desk = Desk::with(&[], &json!({"max_proofs_per_key": 3}));
    let issued = desk.issue();
    let mut request = desk.presenting(&issued.token, String::new());
    request.arguments_json = br#"{"id":"8"}"#.to_vec();
    let mut asked = |desk: &Desk| {
        request.evidence[0].proof = desk.proof(&issued.token);
        code(&desk.check(&request))
    };
    for _ in 0..3 {
        assert_eq!("OUT_OF_SCOPE", asked(&desk));
    }
    assert_eq!("OVERLOADED", asked(&desk));
    assert_eq!(3, desk.proofs());
    desk.key = Key::es256("");
    let other = desk.issue();
    assert_eq!("PERMITTED", desk.redeem(&other));
}

/// A probe judges what is presented, and leaves nothing behind; but no proof is good for it that was taken.
#[test]
fn a_probe_redeems_nothing() {
    let desk = Desk::new();
    let issued = desk.issue();
    let request = desk.presenting(&issued.token, desk.proof(&issued.token));
    let probe = wire::CheckRequest { mode: wire::Mode::Probe as i32, ..request.clone() };
    assert_eq!(["PERMITTED", "PERMITTED"], [code(&desk.check(&probe)), code(&desk.check(&probe))]);
    assert_eq!(0, desk.proofs());
    let batch = wire::BatchCheckRequest {
        items: vec![probe.clone(), probe.clone()],
        mode: wire::BatchMode::Snapshot as i32,
    };
    let bytes = desk.served.engine.batch_check(&batch.encode_to_vec(), &Transport::by("dev"));
    let answer = wire::BatchCheckResponse::decode(bytes.as_slice()).unwrap();
    let codes: Vec<&str> = answer.decisions.iter().map(code).collect();
    assert_eq!(vec!["PERMITTED", "PERMITTED"], codes);
    assert_eq!("PERMITTED", code(&desk.check(&request)));
    assert_eq!("REPLAYED", code(&desk.check(&probe)));
    let fresh = desk.presenting(&issued.token, desk.proof(&issued.token));
    let probe = wire::CheckRequest { mode: wire::Mode::Probe as i32, ..fresh };
    assert_eq!("USES_EXHAUSTED", code(&desk.check(&probe)));
}

/// Observing softens what policy says, never a credential that fails.
#[test]
fn observing_softens_no_credential() {
    let mode = "mode: {default: observe, owner: sec, until: 2999-01-01}";
    let desk = Desk::with(&[("mode.yaml", mode)], &json!({}));
    let permits =
        |request: &wire::CheckRequest| desk.check(request).outcome == wire::Outcome::Permit as i32;
    let naive = deleting(&desk.task.id, BOT, "8");
    assert!(permits(&naive), "without a credential it is let through");
    let issued = desk.issue();
    let token = issued.token.as_str();
    let mut other = desk.presenting(token, desk.proof(token));
    other.arguments_json = br#"{"id":"8"}"#.to_vec();
    assert!(!permits(&other));
    let mut unknown = desk.presenting(token, desk.proof(token));
    unknown.operation = "crm.nothing".to_owned();
    assert!(!permits(&unknown));
    assert_eq!("PERMITTED", desk.redeem(&issued));
    assert!(!permits(&desk.presenting(token, desk.proof(token))), "it is used up");
}

/// What policy refuses is refused with a credential too, and leaves it as it is.
#[test]
fn a_refusal_leaves_the_credential() {
    let desk = Desk::new();
    let issued = desk.issue();
    let forbid = r#"@id("none") forbid(principal, action == Action::"crm.delete", resource);"#;
    desk.reload(&[("policies/none.cedar", forbid)]);
    assert_eq!("FORBIDDEN", desk.redeem(&issued));
    let mut request = desk.presenting(&issued.token, desk.proof(&issued.token));
    request.arguments_json = br#"{"id":7}"#.to_vec();
    desk.reload(&[]);
    assert_eq!("BAD_INPUT", code(&desk.check(&request)));
    assert_eq!("PERMITTED", desk.redeem(&issued));
}

/// People approve deletions.
const ASKED: &str = r#"
@id("approvers") permit(principal in Role::"staff", action == Action::"authz.approve", resource);
@id("asked") @stepup("approve") @reason("deletions are approved")
forbid(principal, action == Action::"crm.delete", resource) unless { context.satisfied.contains(Kind::"approve") };
"#;

/// The credential of an approved call lifts the rules that the answer lifted, and no other rule.
#[test]
fn an_answer_is_redeemed_with_the_rules_that_it_lifted() {
    let (_, rule) = ASKED.split_once("@id(\"asked\")").unwrap();
    let more = format!("{ASKED}@id(\"second\") {rule}");
    let reworded = ASKED.replace("are approved", "need a yes");
    let never = format!(
        "{ASKED}{}",
        r#"@id("never") forbid(principal, action == Action::"crm.delete", resource);"#
    );
    for (policies, wanted) in [
        (ASKED.to_owned(), "PERMITTED"),
        (more, "APPROVAL_REQUIRED"),
        (reworded, "APPROVAL_REQUIRED"),
        (never, "FORBIDDEN"),
        (String::new(), "PERMITTED"),
    ] {
        let desk = Desk::with(&[("policies/asked.cedar", ASKED)], &json!({}));
        let request = deleting(&desk.task.id, BOT, "7");
        let approval = desk.check(&request).challenge.unwrap().approval_id;
        let eve = person("eve", &["employees"]);
        let passkey = json!({
            "issuer": "corp", "sub": "eve", "credential_id": "Y3JlZA", "public_key": "a2V5", "created_at": 1,
        });
        desk.served.engine.put_passkey(passkey.to_string().as_bytes()).unwrap();
        answer(&desk.served, &by_passkey(&eve), &approval, true).unwrap();
        let permit = desk.permit(request);
        let issued = desk.issue_with(&[permit], desk.jkt(), &json!({}), |_| ());
        desk.reload(&[("policies/asked.cedar", &policies)]);
        assert_eq!(wanted, desk.redeem(&issued), "{policies}");
        if wanted != "PERMITTED" {
            desk.reload(&[("policies/asked.cedar", ASKED)]);
            assert_eq!("PERMITTED", desk.redeem(&issued), "a refusal leaves the credential");
        }
        assert_ne!("PERMITTED", desk.redeem(&issued), "it is redeemed once");
    }
}

/// A call that presents a credential gets none, and nothing else than a check takes one.
#[test]
fn a_credential_buys_no_other() {
    let desk = Desk::new();
    let issued = desk.issue();
    let mut request = desk.presenting(&issued.token, desk.proof(&issued.token));
    request.wants_credential = true;
    assert_eq!("BAD_INPUT", code(&desk.check(&request)));
    let permit = desk.permit(searching(&desk.task.id, BOT));
    let bearing = desk.issue_with(&[permit], None, &json!({}), |_| ());
    let mut delegating = crate::tasks::delegating(&desk.task, BOT, OTHER);
    delegating.evidence = vec![bearer(&bearing.token)];
    assert_eq!("WRONG_AUDIENCE", delegate(&desk.served, &delegating).unwrap_err());
    let list = wire::ListRequest {
        evidence: vec![bearer(&bearing.token)],
        ..wire::ListRequest::default()
    };
    let listed: Result<wire::ListResponse, _> = call(&desk.served, Surface::List, &list);
    assert_eq!("WRONG_AUDIENCE", listed.unwrap_err());
}

/// An enforcer's key repeats the answer of the call that redeemed, under a proof of its own.
#[test]
fn the_same_key_redeems_once() {
    let desk = Desk::new();
    let issued = desk.issue();
    let ask = |key: &str| {
        let mut request = desk.presenting(&issued.token, desk.proof(&issued.token));
        key.clone_into(&mut request.idempotency_key);
        desk.check(&request)
    };
    let (first, again, other) = (ask("k1"), ask("k1"), ask("k2"));
    assert_eq!(
        ["PERMITTED", "PERMITTED", "USES_EXHAUSTED"],
        [code(&first), code(&again), code(&other)]
    );
    assert_eq!(first.decision_id, again.decision_id);
}

/// A credential of several permits has each of them redeemed by itself.
#[test]
fn each_detail_is_redeemed_by_itself() {
    let desk = Desk::new();
    let permits = [
        desk.permit(searching(&desk.task.id, BOT)),
        desk.permit(deleting(&desk.task.id, BOT, "7")),
    ];
    let issued = desk.issue_with(&permits, desk.jkt(), &json!({}), |_| ());
    assert_eq!(["PERMITTED", "USES_EXHAUSTED"], [desk.redeem(&issued), desk.redeem(&issued)]);
    let uri = "https://crm.example/customers";
    let jti = uuid::Uuid::now_v7().to_string();
    let claims = proof("GET", uri, now(), &jti, Some(&issued.token));
    let made = desk.key.sign_proof(&claims.to_string());
    let request = wire::CheckRequest {
        evidence: vec![dpop(&issued.token, made)],
        http_method: "GET".to_owned(),
        http_uri: uri.to_owned(),
        ..searching("", BOT)
    };
    assert_eq!("PERMITTED", code(&desk.check(&request)));
}

/// A credential that is bound to a certificate is good with that one only: shown to us, or to a proxy that relays it.
#[test]
fn a_certificate_binds() {
    let desk = Desk::new();
    let (leaf, renewed) = (AUTHORITY.leaf(BOT), AUTHORITY.leaf(BOT));
    let issue = || {
        let permit = desk.permit(deleting(&desk.task.id, BOT, "7"));
        desk.issue_with(&[permit], Some(Binding::X5t(digest(&leaf))), &json!({}), |_| ())
    };
    let issued = issue();
    let request = |evidence| wire::CheckRequest { evidence, ..deleting("", BOT, "7") };
    let shown = |chain: &[&[u8]], evidence: Vec<wire::Evidence>| {
        let call = Transport { peer_chain: PeerChain::Der(chain), ..Transport::by("mutual") };
        let bytes = request(evidence).encode_to_vec();
        let decision = own(&desk.served.engine.check(&bytes, &call));
        decision.outcome == wire::Outcome::Permit as i32
    };
    let token = issued.token.as_str();
    assert_eq!("UNBOUND_CREDENTIAL", code(&desk.check(&request(vec![bearer(token)]))));
    assert!(!shown(&[&renewed], vec![bearer(token)]));
    // A proxy's own certificate is not the agent's.
    assert!(!shown(&[&AUTHORITY.leaf(MESH)], vec![bearer(token)]));
    assert!(shown(&[&leaf], vec![bearer(token)]));
    let second = issue();
    let relayed = |certificate: Option<&[u8]>| {
        let mut sent = http(
            "DELETE",
            "/customers/7",
            &[
                ("authorization", "\0"),
                ("authz-subject", "\0"),
                ("authz-credential", &second.token),
            ],
        );
        let source = sent.attributes.as_mut().unwrap();
        source.source = Some(ext::attribute_context::Peer {
            principal: BOT.to_owned(),
            certificate: certificate.map(crate::peers::pem).unwrap_or_default(),
            ..ext::attribute_context::Peer::default()
        });
        let bytes = desk.served.engine.envoy_check(&sent.encode_to_vec(), &Transport::by("mesh"));
        meta(&ext::CheckResponse::decode(bytes.as_slice()).unwrap(), "reason_code")
    };
    assert_eq!("UNBOUND_CREDENTIAL", relayed(None));
    assert_eq!("UNBOUND_CREDENTIAL", relayed(Some(&renewed)));
    assert_eq!("PERMITTED", relayed(Some(&leaf)));
}

/// A tier that asks for a bound credential takes a certificate or a key, and no bearer token.
#[test]
fn a_tier_asks_for_a_bound_credential() {
    let facts = FACTS.replace("bound: false", "bound: true");
    let desk = Desk::with(&[("facts.yaml", &facts)], &json!({}));
    let decision = desk.check(&deleting(&desk.task.id, BOT, "7"));
    assert_eq!("PROOF_REQUIRED", code(&decision));
    assert_eq!(vec!["bound_token".to_owned()], decision.step_up_kinds);
    let permitted = |wants_credential| {
        let leaf = AUTHORITY.leaf(BOT);
        let chain: [&[u8]; 1] = [&leaf];
        let call = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("mutual") };
        let asked = deleting(&desk.task.id, BOT, "7");
        let request = wire::CheckRequest { evidence: Vec::new(), wants_credential, ..asked };
        let decision = own(&desk.served.engine.check(&request.encode_to_vec(), &call));
        assert_eq!(wire::Outcome::Permit as i32, decision.outcome);
        decision.decision_id
    };
    let bound = desk.issue_with(&[permitted(true)], desk.jkt(), &json!({}), |_| ());
    assert_eq!("PERMITTED", desk.redeem(&bound));
    let loose = desk.issue_with(&[permitted(true)], None, &json!({}), |_| ());
    let request =
        wire::CheckRequest { evidence: vec![bearer(&loose.token)], ..deleting("", BOT, "7") };
    assert_eq!("PROOF_REQUIRED", code(&desk.check(&request)));
}

/// Whoever asks about itself was sent no request of another's.
#[test]
fn only_an_enforcer_says_what_it_was_sent() {
    let desk = Desk::new();
    let issued = desk.issue();
    let request = desk.presenting(&issued.token, desk.proof(&issued.token));
    let bytes = request.encode_to_vec();
    let decision = own(&desk.served.engine.check(&bytes, &Transport::by("own")));
    assert_eq!(wire::PublicCode::Invalid as i32, decision.public_code);
    let half = wire::CheckRequest { http_uri: String::new(), ..request };
    assert_eq!("BAD_INPUT", code(&desk.check(&half)));
}
