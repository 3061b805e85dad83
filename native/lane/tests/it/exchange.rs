//! Token exchange: a task, a judgement of each detail, and one credential, or nothing at all.

use authz_kernel::task::RecordKind;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::{PeerChain, Surface, Transport};
use authz_token::mint::{Key, proof};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::credentials::{Issuing, read_issued};
use crate::peers;
use crate::support::*;
use crate::tasks::{REQUIRED, STRANGER, TWO, agent, alices, end};

fn search_detail() -> Value {
    json!({"operation": "crm.search", "arguments": {"query": "who"}})
}

fn delete_detail(id: &str) -> Value {
    json!({"operation": "crm.delete", "arguments": {"id": id}})
}

/// The bot asks for a new task for Alice.
fn asking(details: &[Value]) -> Value {
    json!({
        "client": {"spiffe_id": BOT, "how": "x509_svid"}, "subject_token": alice(),
        "actor_token": null, "audience": null, "lifetime_seconds": null, "details": details,
        "template": "desk", "params": {"ticket": "7"}, "prompt": null, "parent": null,
        "proof": null, "http_uri": "https://authz.example/token",
    })
}

fn with(mut asked: Value, changes: &[(&str, Value)]) -> Value {
    for (name, value) in changes {
        asked[*name] = value.clone();
    }
    asked
}

/// In a task that there is.
fn in_task(id: &str, details: &[Value]) -> Value {
    let mut asked = with(asking(details), &[("task", json!(id))]);
    for name in ["template", "params", "prompt", "parent"] {
        asked.as_object_mut().unwrap().remove(name);
    }
    asked
}

impl Issuing {
    /// By the client's certificate.
    fn exchange(&self, asked: &Value) -> Result<Value, &'static str> {
        let leaf = peers::A.leaf(asked["client"]["spiffe_id"].as_str().unwrap());
        self.exchange_by(Some(&leaf), asked)
    }

    fn exchange_by(&self, leaf: Option<&[u8]>, asked: &Value) -> Result<Value, &'static str> {
        let chain: Vec<&[u8]> = leaf.into_iter().collect();
        let peer_chain = if leaf.is_some() { PeerChain::Der(&chain) } else { PeerChain::None };
        let by = Transport { peer_chain, ..Transport::by("http") };
        let asked = asked.to_string();
        let answer = self.served.engine.call(Surface::CredentialExchange, asked.as_bytes(), &by);
        answer.map(|answer| read_issued(&answer)).map_err(|error| error.reason_code.as_str())
    }

    fn kept(&self) -> [usize; 4] {
        [RecordKind::Session, RecordKind::Task, RecordKind::Reservation, RecordKind::Credential]
            .map(|kind| self.of_kind(kind).len())
    }
}

/// A task is started and all that is asked for permitted in it, in one go; each has its record.
#[test]
fn a_new_task() {
    let issuing = Issuing::new();
    let leaf = peers::A.leaf(BOT);
    let asked = asking(&[search_detail(), delete_detail("7")]);
    let issued = issuing.exchange_by(Some(&leaf), &asked).unwrap();
    let claims = &issued["claims"];
    let task = claims["task"].as_str().unwrap();
    assert_eq!(
        (json!("corp/alice"), json!({"sub": BOT}), json!("https://crm.example")),
        (claims["sub"].clone(), claims["act"].clone(), claims["aud"].clone())
    );
    assert_eq!(json!({"x5t#S256": URL_SAFE_NO_PAD.encode(Sha256::digest(&leaf))}), claims["cnf"]);
    // As long as the highest of its tiers may live.
    let lives = issued["expires_at"].as_i64().unwrap() - now();
    assert!((118..=120).contains(&lives), "{lives}");
    let details = claims["authorization_details"].as_array().unwrap();
    assert_eq!(
        vec![json!("customers"), json!("customers/7")],
        details.iter().map(|one| one["resource"].clone()).collect::<Vec<_>>()
    );
    assert_eq!([1, 1, 2, 1], issuing.kept());
    assert_eq!(vec![1, 0], issuing.uses(task));
    let decisions: Vec<&str> =
        details.iter().map(|one| one["decision_id"].as_str().unwrap()).collect();
    for one in issuing.reservations() {
        assert!(decisions.contains(&&*one.decision_id));
        assert_eq!(claims["jti"].as_str(), one.credential.as_deref());
        assert_eq!((BOT, false, true), (&*one.agent, one.redeemed, one.wants_credential));
    }
    let token = peers::OWN.sign_credential(&claims.to_string());
    assert_eq!(json!(true), issuing.known("crm", &token, vec![])["active"]);
    end(&issuing.served, task, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    assert_eq!(json!(false), issuing.known("crm", &token, vec![])["active"]);
    let records = issuing.served.records();
    let of: Vec<&Value> =
        records.iter().filter(|one| one["labels"]["surface"] == "credential_exchange").collect();
    let shown =
        |name: &str| -> Vec<Value> { of.iter().map(|one| one["input"][name].clone()).collect() };
    assert_eq!(
        vec![json!("crm.search"), json!("crm.delete"), json!("task:desk")],
        shown("operation")
    );
    assert!(of.iter().all(|one| one["result"]["outcome"] == "PERMIT"));
    assert!(of.iter().all(|one| one["input"]["credential"]["jti"] == claims["jti"]));
    assert!(of.iter().all(|one| one["input"]["task"]["id"] == task));
    assert_eq!(json!(decisions[1]), of[1]["decision_id"]);
    assert_eq!("/oauth/token", of[2]["path"]);
}

/// In a task that there is, and in a new one below it.
#[test]
fn a_known_task_and_one_below() {
    let issuing = Issuing::new();
    let root = alices(&issuing.served);
    let issued = issuing.exchange(&in_task(&root.id, &[search_detail()])).unwrap();
    assert_eq!(json!(root.id), issued["task"]);
    let below = with(
        asking(&[delete_detail("7")]),
        &[("parent", json!(root.id)), ("template", Value::Null), ("params", json!({}))],
    );
    let issued = issuing.exchange(&below).unwrap();
    let child = issued["task"].as_str().unwrap();
    assert_ne!(root.id, child);
    assert_eq!(json!({"sub": BOT, "act": {"sub": BOT}}), issued["claims"]["act"]);
    assert_eq!((vec![1, 0], vec![1, 0]), (issuing.uses(child), issuing.uses(&root.id)));
    // The end of what is above ends both.
    let token = peers::OWN.sign_credential(&issued["claims"].to_string());
    assert_eq!(json!(true), issuing.known("crm", &token, vec![])["active"]);
    end(&issuing.served, &root.id, vec![agent(BOT)], wire::TaskStatus::Aborted).unwrap();
    assert_eq!(json!(false), issuing.known("crm", &token, vec![])["active"]);
    assert_eq!(Err("TASK_ENDED"), issuing.exchange(&below));
    assert_eq!(Err("TASK_ENDED"), issuing.exchange(&in_task(&root.id, &[search_detail()])));
}

/// Where one thing is refused, nothing is given, and no record says that something was.
#[test]
fn all_or_nothing() {
    let issuing = Issuing::new();
    let permitted = delete_detail("7");
    let refused = |details: &[Value]| issuing.exchange(&asking(details)).unwrap_err();
    assert_eq!("OUT_OF_SCOPE", refused(&[permitted.clone(), delete_detail("8")]));
    assert_eq!("OUT_OF_SCOPE", refused(&[delete_detail("8"), permitted.clone()]));
    let mail = json!({"operation": "crm.mail", "arguments": {}});
    assert_eq!("OUT_OF_SCOPE", refused(&[permitted.clone(), mail]));
    assert_eq!(
        "USES_EXHAUSTED",
        refused(&[permitted.clone(), permitted.clone(), permitted.clone()])
    );
    assert_eq!("BAD_INPUT", refused(&[permitted.clone(), json!({"operation": "crm.search"})]));
    assert_eq!([0, 0, 0, 0], issuing.kept());
    // Nor in a task that there is.
    let root = alices(&issuing.served);
    let before = issuing.kept();
    let asked = in_task(&root.id, &[permitted.clone(), delete_detail("8")]);
    assert_eq!(Err("OUT_OF_SCOPE"), issuing.exchange(&asked));
    assert_eq!((before, vec![0, 0]), (issuing.kept(), issuing.uses(&root.id)));
    // Twice is as often as the template lets.
    let issued = issuing.exchange(&asking(&[permitted.clone(), permitted])).unwrap();
    assert_eq!(vec![2, 0], issuing.uses(issued["task"].as_str().unwrap()));
    let records = issuing.served.records();
    let first: Vec<&Value> = records
        .iter()
        .filter(|one| one["labels"]["surface"] == "credential_exchange")
        .take(3)
        .collect();
    let codes: Vec<&Value> = first.iter().map(|one| &one["result"]["reason_code"]).collect();
    assert_eq!(vec!["OUT_OF_SCOPE"; 3], codes);
    assert!(first.iter().all(|one| one["input"]["credential"] == Value::Null));
}

/// Each reason to refuse has its own code, and changes nothing.
#[test]
fn refused() {
    let issuing = Issuing::new();
    let code = |changes: &[(&str, Value)]| {
        issuing.exchange(&with(asking(&[search_detail()]), changes)).map(drop).unwrap_err()
    };
    let details = |details: &[Value]| code(&[("details", json!(details))]);
    let other = evidence_of(TWO);
    assert_eq!("ENFORCER_REFUSED", code(&[("actor_token", json!(other))]));
    assert_eq!("ENFORCER_REFUSED", code(&[("subject_token", json!(other))]));
    assert_eq!("BAD_CREDENTIAL", code(&[("actor_token", json!(forged()))]));
    assert_eq!("BAD_CREDENTIAL", code(&[("subject_token", json!("x.y.z"))]));
    assert_eq!("BAD_CREDENTIAL", code(&[("subject_token", json!("x".repeat(9_000)))]));
    let visitor = user("eve", json!(["visitors"]));
    assert_eq!("CHAIN_NOT_PERMITTED", code(&[("subject_token", json!(visitor))]));
    let stranger = json!({"spiffe_id": STRANGER, "how": "x509_svid"});
    assert_eq!("NOT_PERMITTED", code(&[("client", stranger)]));
    let nobody = json!({"spiffe_id": "bot", "how": "x509_svid"});
    let nobody = with(asking(&[search_detail()]), &[("client", nobody)]);
    assert_eq!(Err("BAD_INPUT"), issuing.exchange_by(None, &nobody));
    assert_eq!("WRONG_AUDIENCE", code(&[("audience", json!("https://wiki.example"))]));
    let wiki = json!({"operation": "wiki.read", "arguments": {}});
    assert_eq!("WRONG_AUDIENCE", details(&[search_detail(), wiki.clone()]));
    let unknown = json!({"operation": "crm.none", "arguments": {}});
    assert_eq!("UNKNOWN_OPERATION", details(&[unknown]));
    for own in ["authz.probe", "task:desk", "erp.read", ""] {
        let own = json!({"operation": own, "arguments": {}});
        assert_eq!("UNKNOWN_OPERATION", details(&[own]));
    }
    assert_eq!("BAD_INPUT", details(&[]));
    assert_eq!("BAD_INPUT", details(&vec![search_detail(); 65]));
    let large = json!({"operation": "crm.search", "arguments": {"query": "x", "limit": 1e20}});
    assert_eq!("BAD_INPUT", details(&[large]));
    let long = json!({"operation": "crm.search", "arguments": {"query": "x".repeat(300_000)}});
    assert_eq!("BAD_INPUT", details(&[long]));
    let many = json!({"operation": "crm.search", "arguments": {"query": "x"}, "destinations": vec!["a"; 65]});
    assert_eq!("BAD_INPUT", details(&[many]));
    let named = json!({"operation": "crm.search", "arguments": {"query": "x"}, "type": "x"});
    assert_eq!("BAD_INPUT", details(&[named]));
    // It would be longer than what may be presented.
    assert_eq!("BAD_INPUT", details(&vec![search_detail(); 40]));
    assert_eq!([0, 0, 0, 0], issuing.kept());
    assert_eq!("BAD_INPUT", code(&[("scope", json!("all"))]));
    assert_eq!("BAD_INPUT", code(&[("params", json!({"ticket": 7}))]));
    assert_eq!("BAD_INPUT", code(&[("template", json!("none-such"))]));
    assert_eq!("NO_TASK", code(&[("template", Value::Null), ("params", json!({}))]));
    assert_eq!("BAD_INPUT", code(&[("task", json!("0193"))]), "both a task and a template");
    assert_eq!("UNKNOWN_TASK", issuing.exchange(&in_task("0193", &[search_detail()])).unwrap_err());
    assert_eq!("UNKNOWN_TASK", code(&[("parent", json!("0193"))]));
    let root = alices(&issuing.served);
    let theirs = with(
        in_task(&root.id, &[search_detail()]),
        &[("client", json!({"spiffe_id": TWO, "how": "x509_svid"}))],
    );
    assert_eq!(Err("NOT_ASSIGNEE"), issuing.exchange(&theirs));
    let bob = user("bob", json!(["employees"]));
    let conflict = with(in_task(&root.id, &[search_detail()]), &[("subject_token", json!(bob))]);
    assert_eq!(Err("TASK_CONFLICT"), issuing.exchange(&conflict));
    // By a token alone nothing binds it: of a high tier there is none then.
    let by_token = json!({"spiffe_id": BOT, "how": "jwt_svid"});
    let unbound = with(asking(&[delete_detail("7")]), &[("client", by_token.clone())]);
    assert_eq!(Err("PROOF_REQUIRED"), issuing.exchange_by(None, &unbound));
    let leaf = peers::A.leaf(TWO);
    assert_eq!(Err("PROOF_REQUIRED"), issuing.exchange_by(Some(&leaf), &unbound));
    assert_eq!(0, issuing.of_kind(RecordKind::Credential).len());
    let low = with(asking(&[search_detail()]), &[("client", by_token)]);
    let issued = issuing.exchange_by(None, &low).unwrap();
    assert_eq!((&Value::Null, &json!("Bearer")), (&issued["claims"]["cnf"], &issued["token_type"]));
    // A credential is no token to exchange.
    let token = peers::OWN.sign_credential(&issued["claims"].to_string());
    let again =
        issuing.exchange(&with(asking(&[search_detail()]), &[("actor_token", json!(token))]));
    assert!(matches!(again, Err("BAD_CREDENTIAL" | "WRONG_AUDIENCE")), "{again:?}");
    // Nowhere else, and of nothing that is leased.
    let asked = asking(&[search_detail()]).to_string().into_bytes();
    assert_eq!(Err("ENFORCER_REFUSED"), issuing.ask(Surface::CredentialExchange, "dev", asked));
    assert_eq!(Err("BAD_INPUT"), issuing.ask(Surface::CredentialExchange, "http", b"{}".to_vec()));
    issuing.load(REQUIRED, &json!({"leases": {"crm": "warehouse"}}));
    assert_eq!("WRONG_AUDIENCE", code(&[]));
    assert!(!format!("{:?}", issuing.served.records()).contains("eyJ"), "no token in the records");
}

fn evidence_of(id: &str) -> String {
    svid_with(id, "authz", now() + 300)
}

/// Bound to the key that the client proves, which also counts as a proof where policy asks for one.
#[test]
fn bound_to_a_proved_key() {
    let issuing = Issuing::new();
    let key = Key::es256("");
    let uri = "https://authz.example/token";
    let by_token = json!({"spiffe_id": BOT, "how": "jwt_svid"});
    let asked = |claims: Value| {
        let proof = json!(key.sign_proof(&claims.to_string()));
        with(asking(&[delete_detail("7")]), &[("client", by_token.clone()), ("proof", proof)])
    };
    let exchange = |claims: Value| issuing.exchange_by(None, &asked(claims));
    assert_eq!(Err("BAD_PROOF"), exchange(proof("GET", uri, now(), "1", None)));
    assert_eq!(Err("BAD_PROOF"), exchange(proof("POST", "https://a.example/", now(), "2", None)));
    assert_eq!([0, 0, 0, 0], issuing.kept());
    let issued = exchange(proof("POST", uri, now(), "3", None)).unwrap();
    assert_eq!(json!({"jkt": key.thumbprint()}), issued["claims"]["cnf"]);
    assert_eq!(json!("DPoP"), issued["token_type"]);
    assert_eq!(Err("REPLAYED"), exchange(proof("POST", uri, now(), "3", None)));
    assert_eq!([1, 1, 1, 1], issuing.kept());
}

/// What is revoked is not exchanged.
#[test]
fn revoked() {
    for target in [
        Target::Operation("crm.search".to_owned()),
        Target::System("crm".to_owned()),
        Target::Agent(BOT.to_owned()),
        Target::Issuer("corp".to_owned()),
    ] {
        let issuing = Issuing::new();
        let request = wire::AdminRevokeRequest { target: Some(target), ..Default::default() };
        let by = Transport::by("admin");
        issuing.served.engine.call(Surface::Revoke, &request.encode_to_vec(), &by).unwrap();
        assert_eq!(Err("REVOKED"), issuing.exchange(&asking(&[search_detail()])));
        assert_eq!([0, 0, 0, 0], issuing.kept());
    }
}

/// With a store of its own, all of it is one transaction, with a line for each.
#[test]
fn kept_with_its_lines() {
    let state = json!({"engine": "embedded", "path": folder().join("state")});
    let audit = folder().join("audit.jsonl");
    let issuing = Issuing::embedded(&audit, &json!({"state": state}));
    let issued = issuing.exchange(&asking(&[search_detail(), delete_detail("7")])).unwrap();
    assert_eq!(
        Err("OUT_OF_SCOPE"),
        issuing.exchange(&asking(&[search_detail(), delete_detail("8")]))
    );
    let token = peers::OWN.sign_credential(&issued["claims"].to_string());
    assert_eq!(json!(true), issuing.known("crm", &token, vec![])["active"]);
    let records = issuing.served.records();
    let outcome = |one: &Value| one["result"]["outcome"].as_str().unwrap().to_owned();
    let outcomes: Vec<String> = records
        .iter()
        .filter(|one| one["labels"]["surface"] == "credential_exchange")
        .map(outcome)
        .collect();
    assert_eq!(3, outcomes.iter().filter(|one| *one == "PERMIT").count(), "{outcomes:?}");
    assert_eq!(3, outcomes.iter().filter(|one| *one == "DENY").count(), "{outcomes:?}");
}

/// Exchanges that are denied count as denied checks do, in whatever task they ask for.
#[test]
fn denied_exchanges_are_denials() {
    let denying = |extra: &Value| {
        let issuing = Issuing::with(REQUIRED, extra);
        let more = [("history.yaml", "denials: {raise_after: 9, end_after: 3}")];
        issuing.load_with(REQUIRED, &more, &json!({}));
        issuing
    };
    let tried = |issuing: &Issuing, place: &dyn Fn(&[Value]) -> Value| {
        // A repeat counts once.
        for id in ["8", "8", "8", "9"] {
            let asked = place(&[search_detail(), delete_detail(id)]);
            assert_eq!(Err("OUT_OF_SCOPE"), issuing.exchange(&asked));
        }
        issuing.exchange(&place(&[search_detail()])).unwrap();
        for id in ["8", "9", "10"] {
            let asked = place(&[search_detail(), delete_detail(id)]);
            assert_eq!(Err("OUT_OF_SCOPE"), issuing.exchange(&asked));
        }
        assert_eq!(Err("REVOKED"), issuing.exchange(&place(&[search_detail()])));
        let start = crate::tasks::starting(vec![agent(BOT), crate::tasks::subject("alice")]);
        assert_eq!(Err("REVOKED"), crate::tasks::start(&issuing.served, &start).map(drop));
    };
    let own = |issuing: &Issuing| {
        let start = crate::tasks::starting(vec![agent(BOT), crate::tasks::subject("alice")]);
        crate::tasks::start(&issuing.served, &start).unwrap().id
    };
    for state in [json!({}), json!({"state": {"max_tasks_per_agent": 5}})] {
        let issuing = denying(&state);
        let task = own(&issuing);
        tried(&issuing, &|details| in_task(&task, details));
        let issuing = denying(&state);
        let parent = own(&issuing);
        tried(&issuing, &|details| {
            let nothing = [("template", Value::Null), ("params", json!({}))];
            with(with(asking(details), &nothing), &[("parent", json!(parent))])
        });
    }
    // Of a new root nothing is kept but that, and what restricts the agent where it leaves the subject out.
    let issuing = denying(&json!({}));
    for id in ["8", "9", "10"] {
        let asked = asking(&[search_detail(), delete_detail(id)]);
        assert_eq!(Err("OUT_OF_SCOPE"), issuing.exchange(&asked));
    }
    assert_eq!([1, 0, 0, 0], issuing.kept());
    assert_eq!(Err("REVOKED"), issuing.exchange(&asking(&[search_detail()])));
    // Neither a request that is not judged counts, nor one that is too much beside another alone.
    let issuing = denying(&json!({}));
    let task = own(&issuing);
    for id in 0..5 {
        let unreadable = json!({"operation": "crm.delete", "arguments": {"id": id}});
        assert_eq!(Err("BAD_INPUT"), issuing.exchange(&in_task(&task, &[unreadable])));
    }
    let thrice = vec![delete_detail("7"); 3];
    for _ in 0..5 {
        assert_eq!(Err("USES_EXHAUSTED"), issuing.exchange(&in_task(&task, &thrice)));
    }
    issuing.exchange(&in_task(&task, &[search_detail()])).unwrap();
}
