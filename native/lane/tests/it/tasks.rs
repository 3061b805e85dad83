//! Tasks: how they come to be, what is permitted in them, and how they end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::{ApiError, Engine, Surface, Transport, World};
use authz_state::store::{MemoryStore, Store};
use prost::Message;
use serde_json::{Value, json};

use crate::support::*;

pub const TWO: &str = "spiffe://a.example/ns/support/sa/two";
pub const THREE: &str = "spiffe://a.example/ns/support/sa/three";
pub const STRANGER: &str = "spiffe://a.example/other";

const TEMPLATES: &str = r"
templates:
  desk:
    purpose: work at the desk
    params: {ticket: String}
    deadline: 30m
    max_depth: 1
    tier_cap: high
    starters: [bot]
    scope:
      - {operation: crm.search}
      - {operation: crm.delete, resources: {ids: ['{ticket}']}, uses: 2}
  brief: {purpose: wait, deadline: 1h, idle_timeout: 1s, starters: [bot], scope: [{operation: crm.search}]}
  seen: {purpose: seen, deadline: 1h, scope: [{operation: crm.search}, {operation: crm.delete}]}
";
const POLICIES: &str = r#"
@id("staff-starts") permit(principal in Role::"staff", action in [Action::"task:desk", Action::"task:brief"], resource);
@id("bots-start") permit(principal in Role::"bot", action in [Action::"task:desk", Action::"task:brief"], resource);
@id("bots-get") permit(principal, action in Action::"authz.task.give", resource in Role::"bot");
"#;

pub fn world_of(bundle: &str) -> World {
    world_with(bundle, &[])
}

/// As [`world_of`], with more files.
pub fn world_with(bundle: &str, more: &[(&str, &str)]) -> World {
    let mut files = vec![
        ("bundle.yaml", bundle),
        ("templates.yaml", TEMPLATES),
        ("policies/tasks.cedar", POLICIES),
    ];
    files.extend(more);
    World { plan: plan(&files), ..world() }
}

fn tasked_with(bundle: &str, extra: &Value) -> Served {
    let served = unloaded(extra);
    served.engine.load(world_of(bundle)).unwrap();
    served
}

pub const REQUIRED: &str = "{name: desk, tasks: required}";

fn tasked() -> Served {
    tasked_with(REQUIRED, &json!({}))
}

pub fn agent(id: &str) -> wire::Evidence {
    evidence(wire::EvidenceRole::Agent, svid_with(id, "authz", now() + 300))
}

pub fn subject(sub: &str) -> wire::Evidence {
    evidence(wire::EvidenceRole::Subject, user(sub, json!(["employees"])))
}

pub fn call<R: Message + Default>(
    served: &Served,
    surface: Surface,
    request: &impl Message,
) -> Result<R, &'static str> {
    call_by(served, "dev", surface, request).map_err(|error| error.reason_code.as_str())
}

pub fn call_by<R: Message + Default>(
    served: &Served,
    listener: &str,
    surface: Surface,
    request: &impl Message,
) -> Result<R, ApiError> {
    let transport = Transport::by(listener);
    let answer = served.engine.call(surface, &request.encode_to_vec(), &transport)?;
    Ok(R::decode(answer.as_slice()).unwrap())
}

fn params(ticket: &str) -> prost_types::Struct {
    let kind = Some(prost_types::value::Kind::StringValue(ticket.to_owned()));
    prost_types::Struct { fields: [("ticket".to_owned(), prost_types::Value { kind })].into() }
}

pub fn starting(evidence: Vec<wire::Evidence>) -> wire::StartRequest {
    wire::StartRequest {
        evidence,
        template: "desk".to_owned(),
        params: Some(params("7")),
        ..wire::StartRequest::default()
    }
}

/// Alice's token that no agent gets.
fn alone() -> wire::Evidence {
    evidence(wire::EvidenceRole::Subject, alone_alice())
}

pub fn start(served: &Served, request: &wire::StartRequest) -> Result<wire::Task, &'static str> {
    let answer: wire::StartResponse = call(served, Surface::TaskStart, request)?;
    Ok(answer.task.unwrap())
}

/// Alice's task of the bot.
pub fn alices(served: &Served) -> wire::Task {
    start(served, &starting(vec![agent(BOT), subject("alice")])).unwrap()
}

pub fn delegating(parent: &wire::Task, by: &str, to: &str) -> wire::DelegateRequest {
    wire::DelegateRequest {
        evidence: vec![agent(by)],
        parent: parent.id.clone(),
        assignee: to.to_owned(),
        ..wire::DelegateRequest::default()
    }
}

pub fn delegate(
    served: &Served,
    request: &wire::DelegateRequest,
) -> Result<wire::Task, &'static str> {
    let answer: wire::DelegateResponse = call(served, Surface::TaskDelegate, request)?;
    Ok(answer.task.unwrap())
}

pub fn get(
    served: &Served,
    task: &str,
    by: Vec<wire::Evidence>,
) -> Result<wire::Task, &'static str> {
    let request = wire::GetRequest { evidence: by, task: task.to_owned() };
    let answer: wire::GetResponse = call(served, Surface::TaskGet, &request)?;
    Ok(answer.task.unwrap())
}

pub fn end(
    served: &Served,
    task: &str,
    by: Vec<wire::Evidence>,
    status: wire::TaskStatus,
) -> Result<u32, &'static str> {
    let request = wire::EndRequest { evidence: by, task: task.to_owned(), status: status as i32 };
    let answer: wire::EndResponse = call(served, Surface::TaskEnd, &request)?;
    Ok(answer.ended)
}

/// A search in a task.
pub fn searching(task: &str, by: &str) -> wire::CheckRequest {
    wire::CheckRequest { evidence: vec![agent(by)], task: task.to_owned(), ..search() }
}

/// A deletion in a task: it counts, and is of tier high.
pub fn deleting(task: &str, by: &str, id: &str) -> wire::CheckRequest {
    wire::CheckRequest {
        operation: "crm.delete".to_owned(),
        arguments_json: json!({"id": id}).to_string().into_bytes(),
        ..searching(task, by)
    }
}

/// Subjects start, listed agents start, nobody else does; and policy has the last word.
#[test]
fn who_starts() {
    let served = tasked();
    let by = |evidence| start(&served, &starting(evidence));
    let named = |evidence, assignee: &str| {
        let request = wire::StartRequest { assignee: assignee.to_owned(), ..starting(evidence) };
        start(&served, &request)
    };
    let task = by(vec![agent(BOT), subject("alice")]).unwrap();
    assert_eq!((BOT, "corp/alice"), (&*task.assignee, &*task.subject));
    assert_eq!(wire::SubjectProof::Verified as i32, task.subject_proof);
    assert_eq!((0, wire::TaskStatus::Active as i32), (task.depth, task.status));
    assert_eq!(2, task.scope.len());
    let task = by(vec![agent(BOT)]).unwrap();
    assert_eq!(("", wire::SubjectProof::Self_ as i32), (&*task.subject, task.subject_proof));
    let task = named(vec![alone()], TWO).unwrap();
    assert_eq!((TWO, "corp/alice"), (&*task.assignee, &*task.subject));
    assert_eq!(Err("BAD_INPUT"), by(vec![subject("alice")]).map(drop));
    assert_eq!(Err("BAD_INPUT"), named(vec![subject("alice")], "two").map(drop));
    assert_eq!(Err("NOT_PERMITTED"), by(vec![agent(STRANGER), subject("alice")]).map(drop));
    let visitor = evidence(wire::EvidenceRole::Subject, user("eve", json!(["visitors"])));
    // Of the subject's token alone nobody knows whether an agent shows it: the agent that gets the task needs a permit, too.
    // So it gives no data, and what it starts is the agent's own.
    assert_eq!(Err("NO_CREDENTIAL"), named(vec![visitor.clone()], TWO).map(drop));
    assert_eq!(Err("NO_CREDENTIAL"), named(vec![subject("alice")], TWO).map(drop));
    let scoped = wire::StartRequest {
        params: None,
        scope: vec![wire::ScopeEntry::default()],
        assignee: TWO.to_owned(),
        ..starting(vec![subject("alice")])
    };
    assert_eq!(Err("NO_CREDENTIAL"), start(&served, &scoped).map(drop));
    assert_eq!(Err("CHAIN_NOT_PERMITTED"), by(vec![agent(BOT), visitor]).map(drop));
    assert_eq!(Err("NO_CREDENTIAL"), by(vec![]).map(drop));
    assert_eq!(
        Err("BAD_CREDENTIAL"),
        by(vec![evidence(wire::EvidenceRole::Agent, forged())]).map(drop)
    );
    let unknown =
        wire::StartRequest { template: "none-such".to_owned(), ..starting(vec![agent(BOT)]) };
    assert_eq!(Err("BAD_INPUT"), start(&served, &unknown).map(drop));
    let closed = wire::StartRequest {
        template: "seen".to_owned(),
        params: None,
        ..starting(vec![subject("alice")])
    };
    let closed = wire::StartRequest { assignee: TWO.to_owned(), ..closed };
    assert_eq!(Err("NOT_PERMITTED"), start(&served, &closed).map(drop));
    // By the administration socket there is nobody on whose behalf a task could be.
    let refused =
        call_by::<wire::StartResponse>(&served, "admin", Surface::TaskStart, &starting(vec![]));
    assert_eq!("NO_CREDENTIAL", refused.unwrap_err().reason_code.as_str());
}

/// An agent may name a subject only where policy lets it, and the task then stays below tier high.
#[test]
fn asserted_subjects() {
    let policies = r#"
@id("asserts") permit(principal in Role::"bot", action == Action::"authz.task.start_for", resource);
@id("anybody") permit(principal is User, action in [Action::"task:desk", Action::"system:crm"], resource);
"#;
    let naming = |subject: &str, evidence| wire::StartRequest {
        asserted_subject: subject.to_owned(),
        ..starting(evidence)
    };
    let refused = |served: &Served, request| start(served, &request).map(drop).unwrap_err();
    let plain = tasked();
    assert_eq!("NOT_PERMITTED", refused(&plain, naming("corp/bob", vec![agent(BOT)])));
    let served = unloaded(&json!({}));
    let more = [
        ("bundle.yaml", REQUIRED),
        ("templates.yaml", TEMPLATES),
        ("policies/tasks.cedar", POLICIES),
        ("policies/asserts.cedar", policies),
    ];
    served.engine.load(World { plan: plan(&more), ..world() }).unwrap();
    let task = start(&served, &naming("corp/bob", vec![agent(BOT)])).unwrap();
    assert_eq!("corp/bob", task.subject);
    assert_eq!(wire::SubjectProof::Asserted as i32, task.subject_proof);
    let decision = served.check(&searching(&task.id, BOT));
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    assert_eq!("TIER_REQUIREMENT", code(&served.check(&deleting(&task.id, BOT, "7"))));
    for subject in ["bob", "other/bob", "corp/", "corp/a\nb", "/bob"] {
        assert_eq!("BAD_INPUT", refused(&served, naming(subject, vec![agent(BOT)])), "{subject:?}");
    }
    let both = naming("corp/bob", vec![agent(BOT), subject("alice")]);
    assert_eq!("BAD_INPUT", refused(&served, both));
    let mut alone = naming("corp/bob", vec![subject("alice")]);
    alone.assignee = TWO.to_owned();
    assert_eq!("BAD_INPUT", refused(&served, alone));
    assert_eq!("NOT_PERMITTED", refused(&served, naming("corp/bob", vec![agent(STRANGER)])));
}

/// Each field of a start out of its bounds.
#[test]
fn start_is_bounded() {
    let served = tasked();
    let cases: &[fn(&mut wire::StartRequest)] = &[
        |r| r.template = "t".repeat(513),
        |r| r.params = None,
        |r| r.params.as_mut().unwrap().fields.clear(),
        |r| r.idempotency_key = "k".repeat(513),
        |r| r.scope = vec![wire::ScopeEntry::default(); 1_001],
        |r| r.deadline = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
        |r| r.evidence = vec![agent(BOT); 5],
    ];
    for (index, change) in cases.iter().enumerate() {
        let mut request = starting(vec![agent(BOT)]);
        change(&mut request);
        let code = start(&served, &request).map(drop).unwrap_err();
        assert!(matches!(code, "BAD_INPUT" | "BAD_CREDENTIAL"), "case {index}: {code}");
    }
    let wider = wire::StartRequest {
        scope: vec![wire::ScopeEntry {
            operation: "crm.mail".to_owned(),
            ..wire::ScopeEntry::default()
        }],
        ..starting(vec![agent(BOT)])
    };
    assert_eq!(Err("OUT_OF_SCOPE"), start(&served, &wider).map(drop));
}

/// A call needs a task, of its own, and what it may do there is counted.
#[test]
fn scope_and_uses() {
    let served = tasked();
    assert_eq!("NO_TASK", code(&served.check(&search())));
    let task = alices(&served);
    let decision = served.check(&searching(&task.id, BOT));
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    assert_eq!(["bots", "staff"], decision.policy_ids.as_slice(), "the subject's policy counts");
    let check = |request| code(&served.check(&request));
    assert_eq!("UNKNOWN_TASK", check(searching("t-1", BOT)));
    assert_eq!("NOT_ASSIGNEE", check(searching(&task.id, TWO)));
    let mut other = searching(&task.id, BOT);
    other.evidence.push(subject("bob"));
    assert_eq!("TASK_CONFLICT", check(other));
    let mut same = searching(&task.id, BOT);
    same.evidence.push(subject("alice"));
    assert_eq!("PERMITTED", check(same));
    let mut alone = searching(&task.id, BOT);
    alone.evidence = vec![subject("alice")];
    assert_eq!("NO_CREDENTIAL", check(alone.clone()));
    alone.evidence = vec![evidence(wire::EvidenceRole::Subject, alone_alice())];
    assert_eq!("NOT_ASSIGNEE", check(alone));
    let mail = wire::CheckRequest {
        operation: "crm.mail".to_owned(),
        arguments_json: Vec::new(),
        ..searching(&task.id, BOT)
    };
    assert_eq!("OUT_OF_SCOPE", check(mail));
    assert_eq!("OUT_OF_SCOPE", check(deleting(&task.id, BOT, "8")));
    assert_eq!("PERMITTED", check(deleting(&task.id, BOT, "7")));
    let mut probe = deleting(&task.id, BOT, "7");
    probe.mode = wire::Mode::Probe as i32;
    probe.evidence.push(subject("alice"));
    assert_eq!("PERMITTED", check(probe));
    assert_eq!("PERMITTED", check(deleting(&task.id, BOT, "7")));
    assert_eq!("USES_EXHAUSTED", check(deleting(&task.id, BOT, "7")));
    let records = served.records();
    let last = records.last().unwrap();
    assert_eq!(json!(task.id), last["input"]["task"]["id"]);
    assert_eq!(json!("desk"), last["input"]["task"]["template"]);
    let chain = last["input"]["chain"].as_array().unwrap();
    assert_eq!((2, &json!("task")), (chain.len(), &chain[0]["proof"]));
    let started = &records[1];
    assert_eq!("authz.v1.Tasks/Start", started["path"]);
    assert_eq!("task:desk", started["input"]["operation"]);
    assert_eq!(json!(task.id), started["input"]["task"]["id"]);
    // Each permitted deletion has its record, which went with its change.
    let permitted = |record: &&Value| {
        record["input"]["operation"] == "crm.delete" && record["result"]["outcome"] == "PERMIT"
    };
    assert_eq!(3, records.iter().filter(permitted).count());
}

/// Only its assignee delegates a task, never more than it has, and never deeper than its template says; uses count in it.
#[test]
fn delegation() {
    let served = tasked();
    let root = alices(&served);
    assert_eq!(Err("NOT_ASSIGNEE"), delegate(&served, &delegating(&root, TWO, THREE)).map(drop));
    let child = delegate(&served, &delegating(&root, BOT, TWO)).unwrap();
    assert_eq!((&root.id, &root.session, 1), (&child.parent, &child.session, child.depth));
    assert_eq!((TWO, "corp/alice"), (&*child.assignee, &*child.subject));
    assert_eq!(Err("TOO_DEEP"), delegate(&served, &delegating(&child, TWO, THREE)).map(drop));
    let wider = wire::DelegateRequest {
        scope: vec![wire::ScopeEntry {
            operation: "crm.delete".to_owned(),
            ..wire::ScopeEntry::default()
        }],
        ..delegating(&root, BOT, THREE)
    };
    let refused = call_by::<wire::DelegateResponse>(&served, "dev", Surface::TaskDelegate, &wider);
    let refused = refused.unwrap_err();
    assert_eq!("OUT_OF_SCOPE", refused.reason_code.as_str());
    assert!(refused.message.contains("ids"), "{}", refused.message);
    let check = |request| code(&served.check(&request));
    // A peer may not use what its orchestrator has, nor the orchestrator what the peer has.
    assert_eq!("NOT_ASSIGNEE", check(searching(&root.id, TWO)));
    assert_eq!("NOT_ASSIGNEE", check(searching(&child.id, BOT)));
    let decision = served.check(&searching(&child.id, TWO));
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    assert_eq!("PERMITTED", check(deleting(&child.id, TWO, "7")));
    assert_eq!("PERMITTED", check(deleting(&root.id, BOT, "7")));
    assert_eq!("USES_EXHAUSTED", check(deleting(&child.id, TWO, "7")));
    assert_eq!("USES_EXHAUSTED", check(deleting(&root.id, BOT, "7")));
    let unknown = wire::DelegateRequest { parent: "t-1".to_owned(), ..delegating(&root, BOT, TWO) };
    assert_eq!(Err("UNKNOWN_TASK"), delegate(&served, &unknown).map(drop));
}

/// The end of a task is the end of all below it, at once; who may end it how.
#[test]
fn ends() {
    use wire::TaskStatus as S;
    let served = tasked();
    let check = |request| code(&served.check(&request));
    let made = || {
        let root = alices(&served);
        let child = delegate(&served, &delegating(&root, BOT, TWO)).unwrap();
        (root, child)
    };
    let (root, child) = made();
    assert_eq!(Err("NOT_PERMITTED"), end(&served, &root.id, vec![agent(TWO)], S::Completed));
    assert_eq!(Err("NOT_PERMITTED"), end(&served, &child.id, vec![agent(TWO)], S::Revoked));
    assert_eq!(Err("BAD_INPUT"), end(&served, &child.id, vec![agent(TWO)], S::Active));
    assert_eq!(Err("BAD_INPUT"), end(&served, &child.id, vec![agent(TWO)], S::Expired));
    assert_eq!(Err("UNKNOWN_TASK"), end(&served, "t-1", vec![agent(TWO)], S::Completed));
    assert_eq!(Ok(1), end(&served, &child.id, vec![agent(TWO)], S::Completed));
    assert_eq!("TASK_ENDED", check(searching(&child.id, TWO)));
    assert_eq!("PERMITTED", check(searching(&root.id, BOT)));
    assert_eq!(Ok(0), end(&served, &child.id, vec![agent(TWO)], S::Completed));
    assert_eq!(Ok(1), end(&served, &root.id, vec![agent(BOT)], S::Aborted));
    assert_eq!("TASK_ENDED", check(searching(&root.id, BOT)));
    let ended = get(&served, &root.id, vec![agent(BOT)]).unwrap();
    assert_eq!((S::Aborted as i32, true), (ended.status, ended.ended_at.is_some()));
    assert_eq!(Err("TASK_ENDED"), delegate(&served, &delegating(&root, BOT, TWO)).map(drop));

    let (root, child) = made();
    assert_eq!(Ok(2), end(&served, &root.id, vec![agent(BOT)], S::Completed));
    assert_eq!("TASK_ENDED", check(searching(&child.id, TWO)));
    let (root, child) = made();
    assert_eq!(Ok(1), end(&served, &child.id, vec![agent(BOT)], S::Revoked));
    assert_eq!("REVOKED", check(searching(&child.id, TWO)));
    let bearer = evidence(wire::EvidenceRole::Subject, alice());
    let by_bearer = end(&served, &root.id, vec![bearer], S::Revoked);
    assert_eq!(Err("NOT_PERMITTED"), by_bearer, "an agent holds that token too");
    let mine = evidence(wire::EvidenceRole::Subject, alone_alice());
    assert_eq!(Ok(1), end(&served, &root.id, vec![mine], S::Revoked));
    assert_eq!("REVOKED", check(searching(&root.id, BOT)));
    // The owner of the administration socket needs no evidence.
    let (root, _) = made();
    let request = wire::EndRequest { task: root.id, status: S::Aborted as i32, evidence: vec![] };
    let ended: wire::EndResponse = call_by(&served, "admin", Surface::TaskEnd, &request).unwrap();
    assert_eq!(2, ended.ended);
}

/// The kill switch ends tasks, with all below them.
#[test]
fn revoked_tasks() {
    let served = tasked();
    let revoke = |target| {
        let request = wire::AdminRevokeRequest { target: Some(target), ..Default::default() };
        let answer: wire::AdminRevokeResponse =
            call_by(&served, "admin", Surface::Revoke, &request).unwrap();
        answer.tasks_ended
    };
    let made = || {
        let root = alices(&served);
        let child = delegate(&served, &delegating(&root, BOT, TWO)).unwrap();
        assert_eq!("PERMITTED", code(&served.check(&searching(&child.id, TWO))));
        (root, child)
    };
    let (root, child) = made();
    assert_eq!(1, revoke(Target::Task(child.id.clone())));
    assert_eq!("REVOKED", code(&served.check(&searching(&child.id, TWO))));
    assert_eq!("PERMITTED", code(&served.check(&searching(&root.id, BOT))));
    let (root, child) = made();
    assert_eq!(2, revoke(Target::Session(root.session.clone())));
    assert_eq!("REVOKED", code(&served.check(&searching(&child.id, TWO))));
    assert_eq!("REVOKED", code(&served.check(&searching(&root.id, BOT))));
    // Of a chain every link counts, also those that do not call.
    let (root, child) = made();
    let _ended = revoke(Target::Agent(BOT.to_owned()));
    assert_eq!("REVOKED", code(&served.check(&searching(&child.id, TWO))));
    assert_eq!("REVOKED", code(&served.check(&searching(&root.id, BOT))));
    let others = start(
        &served,
        &wire::StartRequest { assignee: THREE.to_owned(), ..starting(vec![alone()]) },
    )
    .unwrap();
    assert_eq!("PERMITTED", code(&served.check(&searching(&others.id, THREE))));
    revoke(Target::Issuer("corp".to_owned()));
    assert_eq!("REVOKED", code(&served.check(&searching(&others.id, THREE))));
}

/// A deadline that is asked for counts from then on, though nothing is written; so does idleness, which use ends.
#[test]
fn time_runs_out() {
    let served = tasked();
    let soon = now() + 1;
    let request = wire::StartRequest {
        deadline: Some(prost_types::Timestamp { seconds: soon, nanos: 900_000_000 }),
        ..starting(vec![agent(BOT)])
    };
    let task = start(&served, &request).unwrap();
    let past = wire::StartRequest {
        deadline: Some(prost_types::Timestamp { seconds: now() - 5, nanos: 0 }),
        ..starting(vec![agent(BOT)])
    };
    assert_eq!(Err("BAD_INPUT"), start(&served, &past).map(drop));
    let brief = wire::StartRequest {
        template: "brief".to_owned(),
        params: None,
        ..starting(vec![agent(BOT)])
    };
    let idle = start(&served, &brief).unwrap();
    let used = start(&served, &brief).unwrap();
    let from = Instant::now();
    while from.elapsed() < Duration::from_millis(2_200) {
        assert_eq!("PERMITTED", code(&served.check(&searching(&used.id, BOT))));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!("TASK_ENDED", code(&served.check(&searching(&task.id, BOT))));
    assert_eq!("TASK_ENDED", code(&served.check(&searching(&idle.id, BOT))));
    assert_eq!("PERMITTED", code(&served.check(&searching(&used.id, BOT))));
    let expired = get(&served, &idle.id, vec![agent(BOT)]).unwrap();
    assert_eq!(wire::TaskStatus::Expired as i32, expired.status);
}

/// A subject has the roles alone that its newest token has: with an older token and without any, below the task too, and
/// for another node of the same store. Tokens of other clients count while they are shown.
#[test]
fn the_newest_token_counts() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let engine = || {
        let audit = folder().join("audit.jsonl");
        let engine = Engine::with_store(settings(&audit, &json!({})), Arc::clone(&store)).unwrap();
        engine.load(world_of(REQUIRED)).unwrap();
        Served { engine: Arc::new(engine), audit }
    };
    let served = engine();
    let token = |group: &str, issued_at: i64, client: &str| {
        let token = user_at("alice", json!([group]), issued_at, client);
        evidence(wire::EvidenceRole::Subject, token)
    };
    let at = now() - 200;
    let begun = token("employees", at, "desk");
    let task = start(&served, &starting(vec![agent(BOT), begun.clone()])).unwrap();
    let child = delegate(&served, &delegating(&task, BOT, TWO)).unwrap();
    let asked = |served: &Served, shown: Option<&wire::Evidence>| {
        let mut request = searching(&task.id, BOT);
        request.evidence.extend(shown.cloned());
        let own = code(&served.check(&request));
        let subject = shown.map_or("\0", |one| one.token.as_str());
        let headers = [("authz-task", task.id.as_str()), ("authz-subject", subject)];
        let proxied = served.proxy(&http("GET", "/customers?q=a", &headers)).status.unwrap().code;
        assert_eq!(own == "PERMITTED", proxied == 0, "{own} {proxied}");
        own
    };
    let below = |served: &Served| code(&served.check(&searching(&child.id, TWO)));
    assert_eq!("PERMITTED", asked(&served, None));
    // A token of another client without the role counts while it is shown.
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, Some(&token("guests", at + 90, "mail"))));
    assert_eq!("PERMITTED", asked(&served, None));
    // That client's user lost a role.
    assert_eq!("PERMITTED", asked(&served, Some(&token("employees", at + 40, "chat"))));
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, Some(&token("guests", at + 41, "chat"))));
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, None));
    assert_eq!("PERMITTED", asked(&served, Some(&token("employees", at + 42, "chat"))));
    // The role is lost by a newer token of the client that started the task.
    assert_eq!("PERMITTED", below(&served));
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, Some(&token("guests", at + 50, "desk"))));
    for served in [&served, &engine()] {
        assert_eq!("CHAIN_NOT_PERMITTED", asked(served, None));
        assert_eq!("CHAIN_NOT_PERMITTED", asked(served, Some(&begun)));
        assert_eq!(
            "CHAIN_NOT_PERMITTED",
            asked(served, Some(&token("employees", at + 49, "desk")))
        );
        assert_eq!("CHAIN_NOT_PERMITTED", below(served));
    }
    // It comes back by a newer one, and of tokens without the role the newest is the one to be newer than.
    assert_eq!("PERMITTED", asked(&served, Some(&token("employees", at + 60, "desk"))));
    assert_eq!(("PERMITTED", "PERMITTED"), (asked(&served, None), below(&served)));
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, Some(&token("guests", at + 70, "desk"))));
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, Some(&token("guests", at + 80, "desk"))));
    let between = token("employees", at + 75, "desk");
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, Some(&between)));
    // A clock that is ahead makes no token newer than those that come later.
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, Some(&token("guests", now() + 3, "desk"))));
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!("PERMITTED", asked(&served, Some(&token("employees", now(), "desk"))));
}

/// A task is given to another agent where policy permits it, for the giver's whole chain; an agent that keeps it asks nobody.
#[test]
fn who_may_give_a_task_to_whom() {
    let served = tasked();
    let given = |assignee: &str, by: Vec<wire::Evidence>| {
        let request = wire::StartRequest { assignee: assignee.to_owned(), ..starting(by) };
        start(&served, &request).map(|task| task.assignee)
    };
    assert_eq!(Ok(TWO.to_owned()), given(TWO, vec![alone()]));
    assert_eq!(Err("NO_CREDENTIAL"), given(STRANGER, vec![subject("alice")]));
    assert_eq!(Err("CHAIN_NOT_PERMITTED"), given(STRANGER, vec![agent(BOT), subject("alice")]));
    assert_eq!(Err("NOT_PERMITTED"), given(STRANGER, vec![agent(BOT)]));
    let task = alices(&served);
    let to = |assignee: &str| delegate(&served, &delegating(&task, BOT, assignee)).map(drop);
    assert_eq!((Ok(()), Err("CHAIN_NOT_PERMITTED")), (to(TWO), to(STRANGER)));

    let closed = |policies: &str| {
        let plan = plan(&[
            ("bundle.yaml", REQUIRED),
            ("templates.yaml", TEMPLATES),
            ("policies/tasks.cedar", policies),
        ]);
        let warnings: Vec<String> = plan.warnings().iter().map(ToString::to_string).collect();
        let served = unloaded(&json!({}));
        served.engine.load(World { plan, ..world() }).unwrap();
        (served, warnings)
    };
    let starts: String = POLICIES.lines().filter(|line| !line.contains("bots-get")).collect();
    let (served, warnings) = closed(&starts);
    let warned = |of: &str| warnings.iter().any(|one| one.contains(&format!("`give:{of}`")));
    assert_eq!((true, false, true), (warned("desk"), warned("brief"), warned("seen")));
    let task = alices(&served);
    let to = |assignee: &str| delegate(&served, &delegating(&task, BOT, assignee)).map(drop);
    assert_eq!((Ok(()), Err("CHAIN_NOT_PERMITTED")), (to(BOT), to(TWO)));
    // Every principal of the chain needs a permit, and policy sees template, parameters and assignee.
    let narrow = format!(
        r#"{starts} @id("bots-give") permit(principal in Role::"bot", action == Action::"give:desk", resource in Role::"bot")
        when {{ context.input.ticket == "7" && resource.spiffe_id == "{TWO}" }};"#
    );
    let (served, warnings) = closed(&narrow);
    assert!(!warnings.iter().any(|one| one.contains("`give:desk`")), "{warnings:?}");
    let task = alices(&served);
    let own = start(&served, &starting(vec![agent(BOT)])).unwrap();
    let to = |task: &wire::Task, assignee: &str| {
        delegate(&served, &delegating(task, BOT, assignee)).map(drop)
    };
    assert_eq!(Err("CHAIN_NOT_PERMITTED"), to(&task, TWO));
    assert_eq!((Ok(()), Err("NOT_PERMITTED")), (to(&own, TWO), to(&own, THREE)));
}

/// One key, one task; and one permit, charged once.
#[test]
fn keys() {
    let served = tasked();
    let request = wire::StartRequest {
        idempotency_key: "k-1".to_owned(),
        ..starting(vec![agent(BOT), subject("alice")])
    };
    let task = start(&served, &request).unwrap();
    // With fresh evidence: credentials are no part of what is asked.
    let again =
        wire::StartRequest { evidence: vec![agent(BOT), subject("alice")], ..request.clone() };
    assert_eq!(task.id, start(&served, &again).unwrap().id);
    let other = wire::StartRequest { params: Some(params("8")), ..request.clone() };
    assert_eq!(Err("IDEMPOTENCY_CONFLICT"), start(&served, &other).map(drop));
    let others = wire::StartRequest { evidence: vec![agent(TWO)], ..request };
    assert_ne!(task.id, start(&served, &others).unwrap().id, "each caller has keys of its own");
    // A key is of one subject and one assignee, too: nobody is given a task of another.
    let keyed = |evidence, assignee: &str| {
        let request = wire::StartRequest {
            idempotency_key: "k-1".to_owned(),
            assignee: assignee.to_owned(),
            ..starting(evidence)
        };
        start(&served, &request)
    };
    let bobs = keyed(vec![agent(BOT), subject("bob")], "").unwrap();
    assert_eq!("corp/bob", bobs.subject);
    assert_ne!(task.id, bobs.id);
    let nobodys = keyed(vec![agent(BOT)], "").unwrap();
    assert_eq!("", nobodys.subject);
    assert!(nobodys.id != task.id && nobodys.id != bobs.id);
    let by_alice = |assignee| keyed(vec![alone()], assignee).unwrap();
    assert_eq!((TWO, THREE), (&*by_alice(TWO).assignee, &*by_alice(THREE).assignee));
    assert_eq!(by_alice(TWO).id, by_alice(TWO).id);
    // A token that an agent may hold takes no key of the subject alone, whatever is asked under it.
    let her_other = wire::StartRequest {
        idempotency_key: "k-9".to_owned(),
        assignee: TWO.to_owned(),
        ..starting(vec![alone()])
    };
    let squatting = wire::StartRequest {
        evidence: vec![subject("alice")],
        params: Some(params("8")),
        ..her_other.clone()
    };
    assert_eq!(Err("NO_CREDENTIAL"), start(&served, &squatting).map(drop));
    start(&served, &her_other).unwrap();
    let visitor = evidence(wire::EvidenceRole::Subject, user("alice", json!(["visitors"])));
    let refused = keyed(vec![agent(BOT), visitor], "").map(drop);
    assert_eq!(Err("CHAIN_NOT_PERMITTED"), refused, "the subject lost its role meanwhile");
    let below =
        wire::DelegateRequest { idempotency_key: "k-1".to_owned(), ..delegating(&task, BOT, TWO) };
    let child = delegate(&served, &below).unwrap();
    assert_eq!(child.id, delegate(&served, &below).unwrap().id);
    let to_three = wire::DelegateRequest { assignee: THREE.to_owned(), ..below.clone() };
    assert_eq!(THREE, delegate(&served, &to_three).unwrap().assignee);
    let bobs_child = wire::DelegateRequest { parent: bobs.id.clone(), ..below.clone() };
    assert_eq!("corp/bob", delegate(&served, &bobs_child).unwrap().subject);

    let keyed = |id: &str, key: &str| wire::CheckRequest {
        idempotency_key: key.to_owned(),
        ..deleting(&task.id, BOT, id)
    };
    let first = served.check(&keyed("7", "c-1"));
    assert_eq!("PERMITTED", code(&first));
    for _ in 0..5 {
        let again = served.check(&keyed("7", "c-1"));
        assert_eq!(first, again);
    }
    assert_eq!("IDEMPOTENCY_CONFLICT", code(&served.check(&keyed("8", "c-1"))));
    let of = |task: &wire::Task, by: &str| wire::CheckRequest {
        idempotency_key: "c-1".to_owned(),
        ..deleting(&task.id, by, "7")
    };
    let of_bob = served.check(&of(&bobs, BOT));
    assert_eq!("PERMITTED", code(&of_bob));
    assert_ne!(first.decision_id, of_bob.decision_id, "another chain has keys of its own");
    assert_eq!("PERMITTED", code(&served.check(&keyed("7", "c-2"))));
    assert_eq!("USES_EXHAUSTED", code(&served.check(&keyed("7", "c-3"))));
    assert_eq!("USES_EXHAUSTED", code(&served.check(&of(&child, TWO))), "nor a child's agent");
    assert_eq!(first, served.check(&keyed("7", "c-1")), "steps 1 to 4 still pass");
    assert_eq!(0, served.check_by("own", &keyed("7", "c-9")).reason_code, "no enforcer, no key");
    assert_eq!(
        wire::PublicCode::Invalid as i32,
        served.check_by("own", &keyed("7", "c-9")).public_code
    );
    let by = vec![agent(BOT)];
    end(&served, &task.id, by, wire::TaskStatus::Completed).unwrap();
    assert_eq!("TASK_ENDED", code(&served.check(&keyed("7", "c-1"))));
}

/// Over Envoy's protocol: by header, by baggage, by MCP; and named twice.
#[test]
fn by_proxy() {
    let served = tasked();
    let task = alices(&served);
    let status = |headers: &[(&str, &str)]| {
        let answer = served.proxy(&http("GET", "/customers?q=a", headers));
        let fields = answer.dynamic_metadata.unwrap().fields;
        match &fields["reason_code"].kind {
            Some(prost_types::value::Kind::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!("NO_TASK", status(&[]));
    assert_eq!("PERMITTED", status(&[("authz-task", &task.id)]));
    let baggage = format!("a=b,authz.task={};p=1", task.id);
    assert_eq!("PERMITTED", status(&[("baggage", &baggage)]));
    assert_eq!("PERMITTED", status(&[("authz-task", &task.id), ("baggage", &baggage)]));
    assert_eq!("TASK_CONFLICT", status(&[("authz-task", "t-1"), ("baggage", &baggage)]));
    assert_eq!("UNKNOWN_TASK", status(&[("authz-task", "t-1")]));
    let own = format!("Bearer {}", svid_with(TWO, "authz", now() + 60));
    assert_eq!("NOT_ASSIGNEE", status(&[("authz-task", &task.id), ("authorization", &own)]));
}

/// Whoever asks sees its own tasks; a page ends where it says.
#[test]
fn lists() {
    let served = tasked();
    let made: Vec<wire::Task> = (0..5).map(|_| alices(&served)).collect();
    let other =
        start(&served, &wire::StartRequest { assignee: TWO.to_owned(), ..starting(vec![alone()]) })
            .unwrap();
    let page = |by: &str, change: &dyn Fn(&mut wire::TasksListRequest)| {
        let mut request =
            wire::TasksListRequest { evidence: vec![agent(by)], ..Default::default() };
        change(&mut request);
        call::<wire::TasksListResponse>(&served, Surface::TaskList, &request)
    };
    let ids = |tasks: &[wire::Task]| tasks.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
    let mut expected = ids(&made);
    expected.sort();
    assert_eq!(expected, ids(&page(BOT, &|_| {}).unwrap().tasks));
    assert_eq!(ids(std::slice::from_ref(&other)), ids(&page(TWO, &|_| {}).unwrap().tasks));
    assert_eq!(Err("NOT_PERMITTED"), page(TWO, &|r| r.assignee = BOT.to_owned()).map(drop));
    assert_eq!(Err("BAD_INPUT"), page(BOT, &|r| r.page_size = -1).map(drop));
    assert_eq!(Err("BAD_INPUT"), page(BOT, &|r| r.status = 99).map(drop));
    let mut seen = Vec::new();
    let mut token = String::new();
    for size in [2, 2, 1] {
        let got = page(BOT, &|r| {
            r.page_size = 2;
            r.page_token.clone_from(&token);
        })
        .unwrap();
        assert_eq!(size, got.tasks.len());
        seen.extend(ids(&got.tasks));
        token = got.next_page_token;
    }
    assert_eq!((expected, String::new()), (seen, token));
    end(&served, &made[0].id, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    let ended = page(BOT, &|r| r.status = wire::TaskStatus::Completed as i32).unwrap().tasks;
    assert_eq!(vec![made[0].id.clone()], ids(&ended));
    let in_session = page(BOT, &|r| r.session.clone_from(&made[1].session)).unwrap().tasks;
    assert_eq!(vec![made[1].id.clone()], ids(&in_session));
    assert!(page(TWO, &|r| r.session.clone_from(&made[1].session)).unwrap().tasks.is_empty());
    let all = wire::TasksListRequest::default();
    let all: wire::TasksListResponse = call_by(&served, "admin", Surface::TaskList, &all).unwrap();
    assert_eq!(6, all.tasks.len());
    assert_eq!(Err("NOT_PERMITTED"), get(&served, &other.id, vec![agent(THREE)]).map(drop));
}

/// Tasks, their uses and revocations outlive the process.
#[test]
fn a_restart_keeps_everything() {
    let path = folder().join("state");
    let open = |path: &Path| {
        let state = json!({"state": {"engine": "embedded", "path": path}});
        let served = tasked_with(REQUIRED, &state);
        assert!(served.engine.status().ready);
        served
    };
    let served = open(&path);
    let task = alices(&served);
    let done = alices(&served);
    assert_eq!("PERMITTED", code(&served.check(&deleting(&task.id, BOT, "7"))));
    end(&served, &done.id, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    let records = served.records();
    let deleted = |record: &&Value| record["input"]["operation"] == "crm.delete";
    assert_eq!(1, records.iter().filter(deleted).count());
    drop(served);
    let served = open(&path);
    assert_eq!("TASK_ENDED", code(&served.check(&searching(&done.id, BOT))));
    assert_eq!("PERMITTED", code(&served.check(&deleting(&task.id, BOT, "7"))));
    assert_eq!("USES_EXHAUSTED", code(&served.check(&deleting(&task.id, BOT, "7"))));
}

/// How many of the calls that so many threads make at once are permitted.
pub fn permitted_at_once(
    served: &Served,
    request: &wire::CheckRequest,
    threads: usize,
    calls: usize,
) -> usize {
    let check = || code(&served.check(request));
    let calling = || (0..calls).filter(|_| check() == "PERMITTED").count();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(calling)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Many callers at once use a task exactly as often as it allows.
#[test]
fn uses_are_exact() {
    let path = folder().join("state");
    for state in [json!({}), json!({"state": {"engine": "embedded", "path": path}})] {
        let served = tasked_with(REQUIRED, &state);
        let task = alices(&served);
        assert_eq!(2, permitted_at_once(&served, &deleting(&task.id, BOT, "7"), 4, 5));
    }
}

/// One agent has only so many live tasks, and one tree.
#[test]
fn bounds() {
    let served = tasked_with(
        REQUIRED,
        &json!({"state": {"max_tasks_per_agent": 2, "max_tasks_per_session": 3}}),
    );
    let root = alices(&served);
    alices(&served);
    assert_eq!(Err("OVERLOADED"), start(&served, &starting(vec![agent(BOT)])).map(drop));
    let child = || delegate(&served, &delegating(&root, BOT, TWO)).map(drop);
    assert_eq!([Ok(()), Ok(()), Err("OVERLOADED")], [child(), child(), child()]);
    let third = delegate(&served, &delegating(&root, BOT, THREE)).map(drop);
    assert_eq!(Err("OVERLOADED"), third);
    end(&served, &root.id, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    assert_eq!(Ok(()), start(&served, &starting(vec![agent(BOT)])).map(drop));
}

/// Ended tasks count, too: an agent that starts and ends them fills its share, and never that of others. Near the bound
/// those of the largest holder are forgotten early.
#[test]
fn no_agent_fills_the_store_with_ended_tasks() {
    let served = tasked_with(REQUIRED, &json!({"state": {"max_tasks": 10}}));
    let begins = |id: &str| start(&served, &starting(vec![agent(id), subject("alice")]));
    let fill = |id: &str| {
        let mut count = 0;
        while count < 10 {
            match begins(id) {
                Ok(task) => {
                    end(&served, &task.id, vec![agent(id)], wire::TaskStatus::Completed).unwrap();
                }
                Err(reason) => {
                    assert_eq!("OVERLOADED", reason);
                    break;
                }
            }
            count += 1;
        }
        count
    };
    let warns = || {
        let warnings = served.engine.status().warnings;
        warnings.iter().any(|warning| warning.contains("state.max_tasks"))
    };
    assert_eq!((4, false), (fill(BOT), warns()));
    assert_eq!([2, 2], [TWO, THREE].map(fill));
    assert!(warns(), "four fifths are used");
    assert_eq!(4, served.engine.sweep().forgotten, "those of the largest holder");
    assert!(!warns());
    assert_eq!(Err("OVERLOADED"), begins(BOT).map(drop), "it counts until its deadline");
    assert_eq!(Ok(()), begins(THREE).map(drop));
}

/// Who may add a further turn at all; whose word it is, is another question.
#[test]
fn extends() {
    let served = tasked();
    let task = alices(&served);
    let extend = |by: Vec<wire::Evidence>| {
        let request = wire::ExtendRequest {
            evidence: by,
            task: task.id.clone(),
            prompt: "also bob@corp.example".to_owned(),
            prompt_parts: Vec::new(),
        };
        call::<wire::ExtendResponse>(&served, Surface::TaskExtend, &request).map(drop)
    };
    let alices = || evidence(wire::EvidenceRole::Subject, alice());
    assert_eq!(Ok(()), extend(vec![alices()]));
    assert_eq!(Ok(()), extend(vec![agent(BOT), alices()]));
    for by in [vec![agent(BOT)], vec![subject("bob")], vec![agent(TWO), alices()]] {
        assert_eq!(Err("NOT_PERMITTED"), extend(by));
    }
    end(&served, &task.id, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    assert_eq!(Err("TASK_ENDED"), extend(vec![alices()]));
}

/// What is due is done: expired tasks are written, permits that nobody reported count as done, ended trees are forgotten.
#[test]
fn sweeps() {
    let path = folder().join("state");
    let times = json!({"report_within_ms": 100, "retention_ms": 1_000});
    let mut kept = times.clone();
    kept["engine"] = json!("embedded");
    kept["path"] = json!(path);
    for state in [times, kept] {
        let served = tasked_with(REQUIRED, &json!({"state": state}));
        // Time enough to begin and delegate on a busy machine.
        let deadline = now() + 4;
        let soon = wire::StartRequest {
            deadline: Some(prost_types::Timestamp { seconds: deadline, nanos: 0 }),
            ..starting(vec![agent(BOT)])
        };
        let root = start(&served, &soon).unwrap();
        let child = delegate(&served, &delegating(&root, BOT, TWO)).unwrap();
        let lives = alices(&served);
        assert_eq!("PERMITTED", code(&served.check(&deleting(&lives.id, BOT, "7"))));
        let left = u64::try_from(deadline - now()).unwrap_or(0);
        std::thread::sleep(Duration::from_secs(left) + Duration::from_millis(300));
        let swept = served.engine.sweep();
        assert_eq!((1, 2, 0), (swept.committed, swept.expired, swept.forgotten), "{swept:?}");
        let again = served.engine.sweep();
        assert_eq!((0, 0), (again.committed, again.expired));
        let expired = get(&served, &child.id, vec![agent(TWO)]).unwrap();
        assert_eq!(wire::TaskStatus::Expired as i32, expired.status);
        assert!(expired.ended_at.is_some());
        std::thread::sleep(Duration::from_millis(1_200));
        assert_eq!(1, served.engine.sweep().forgotten);
        assert_eq!("UNKNOWN_TASK", code(&served.check(&searching(&root.id, BOT))));
        assert_eq!("PERMITTED", code(&served.check(&searching(&lives.id, BOT))));
        // Counted uses stay counted.
        assert_eq!("PERMITTED", code(&served.check(&deleting(&lives.id, BOT, "7"))));
        assert_eq!("USES_EXHAUSTED", code(&served.check(&deleting(&lives.id, BOT, "7"))));
        let metrics = served.engine.metrics();
        let of = |name: &str, label: &str| {
            let family = metrics.iter().find(|family| family.name == name).unwrap();
            let has = |sample: &&authz_lane::metrics::Sample| {
                label.is_empty() || sample.labels.iter().any(|(_, value)| value == label)
            };
            family.samples.iter().find(has).unwrap().value
        };
        assert!((of("authz_tasks_started", "root") - 2.0).abs() < 0.1);
        assert!((of("authz_tasks_ended", "expired") - 2.0).abs() < 0.1);
        assert!((of("authz_reservations", "committed") - 1.0).abs() < 0.1);
        assert!((of("authz_store_writable", "") - 1.0).abs() < 0.1);
    }
}
