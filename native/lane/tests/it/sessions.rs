//! Agents that work without tasks: one session for each pair of agent and subject, which no caller chooses, leaves or resets.

use std::path::Path;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::task::{Record, RecordKey, RecordKind, Session, Task};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::{Engine, Surface, Transport, World};
use authz_state::store::{MemoryStore, Store, Survives, Transaction};
use prost::Message;
use serde_json::{Value, json};

use crate::credentials::soon;
use crate::support::*;
use crate::tasks::{agent, call, call_by, deleting, end, searching, starting, subject};

const BUNDLE: &str = "{name: desk, tasks: required, implicit_tasks: {agents: [bot, loner, strict, own], template: work, tier_cap: high}}";
const FACTS: &str = "
agents:
  planner: ['spiffe://a.example/ns/plan/sa/*']
  loner: ['spiffe://a.example/ns/loner/sa/*']
  strict: {match: ['spiffe://a.example/ns/strict/sa/*'], subject: required}
  own: {match: ['spiffe://a.example/ns/own/sa/*'], subject: none}
  loose: {match: ['spiffe://a.example/ns/strict/sa/*', 'spiffe://a.example/ns/own/sa/*'], subject: optional}
templates:
  work: {purpose: work, deadline: 1h, tier_cap: high, scope: [{operation: crm.search}, {operation: crm.delete}]}
  plan: {purpose: plan, deadline: 1h, max_depth: 1, starters: [planner], scope: [{operation: crm.search}]}
budgets: {searches: {count: crm.search, most: 2}}
denials: {raise_after: 9, end_after: 3}
";
const POLICIES: &str = r#"
@id("planner") permit(principal in Role::"planner", action, resource);
@id("unstarted") permit(principal, action in Action::"system:crm", resource)
when { principal in Role::"loner" || principal in Role::"loose" };
@id("staff-starts") permit(principal in Role::"staff", action in [Action::"task:plan", Action::"task:work", Action::"give:plan", Action::"give:work"], resource);
@id("kept") forbid(principal, action == Action::"crm.delete", resource) when { context.input.id like "kept-*" };
"#;
const PLANNER: &str = "spiffe://a.example/ns/plan/sa/one";
const LONER: &str = "spiffe://a.example/ns/loner/sa/one";

fn with(bundle: &str, facts: &str) -> World {
    let files = [("bundle.yaml", bundle), ("work.yaml", facts), ("policies/work.cedar", POLICIES)];
    World { plan: plan(&files), ..world() }
}

fn load(served: &Served) {
    served.engine.load(with(BUNDLE, FACTS)).unwrap();
}

fn desk(extra: &Value) -> (Served, Arc<dyn Store>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    (on(&store, extra), store)
}

fn on(store: &Arc<dyn Store>, extra: &Value) -> Served {
    let audit = folder().join("audit.jsonl");
    let engine = Engine::with_store(settings(&audit, extra), Arc::clone(store)).unwrap();
    let served = Served { engine: Arc::new(engine), audit };
    load(&served);
    served
}

fn embedded(path: &Path, extra: &Value) -> Served {
    let mut state = json!({"engine": "embedded", "path": path});
    if let (Some(all), Some(more)) = (state.as_object_mut(), extra.as_object()) {
        all.extend(more.clone());
    }
    let served = unloaded(&json!({ "state": state }));
    load(&served);
    served
}

fn of(who: &str) -> Vec<wire::Evidence> {
    vec![agent(BOT), subject(who)]
}

fn searches(served: &Served, who: &str) -> &'static str {
    code(&served.check(&wire::CheckRequest { evidence: of(who), ..search() }))
}

/// Three denials, which end the session.
fn is_denied(served: &Served, who: &str) {
    for n in 0..3 {
        let request = deleting("", BOT, &format!("kept-{n}"));
        let request = wire::CheckRequest { evidence: of(who), ..request };
        assert_eq!("FORBIDDEN", code(&served.check(&request)));
    }
    assert_eq!("REVOKED", searches(served, who));
}

fn listed(served: &Served, by: &str, evidence: Vec<wire::Evidence>) -> Vec<wire::Task> {
    let list = wire::TasksListRequest { evidence, ..wire::TasksListRequest::default() };
    let listed: wire::TasksListResponse = call_by(served, by, Surface::TaskList, &list).unwrap();
    listed.tasks
}

fn revoked(served: &Served, target: Target) -> u32 {
    let request = wire::AdminRevokeRequest { target: Some(target), ..Default::default() };
    let answer: wire::AdminRevokeResponse =
        call_by(served, "admin", Surface::Revoke, &request).unwrap();
    answer.tasks_ended
}

/// Alice herself, without an agent.
fn herself() -> Vec<wire::Evidence> {
    vec![evidence(wire::EvidenceRole::Subject, alone_alice())]
}

fn id_of(served: &Served, who: &str) -> String {
    let all = listed(served, "admin", Vec::new());
    let is = |task: &&wire::Task| task.subject == format!("corp/{who}");
    all.iter().find(is).unwrap().id.clone()
}

/// Neither a trace nor an MCP session, over any protocol, has a session of its own.
#[test]
fn nothing_that_is_sent_chooses_it() {
    let (served, _) = desk(&json!({}));
    let traced = |trace: &str| {
        let parent = format!("00-{trace}-b7ad6b7169203331-01");
        let transport = Transport { trace_parent: Some(&parent), ..Transport::by("dev") };
        let request = wire::CheckRequest { evidence: of("alice"), ..search() };
        code(&own(&served.engine.check(&request.encode_to_vec(), &transport)))
    };
    assert_eq!("PERMITTED", traced("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!("PERMITTED", traced("1af7651916cd43dd8448eb211c80319c"));
    assert_eq!("BUDGET_EXCEEDED", traced("2af7651916cd43dd8448eb211c80319c"));
    let status = |headers: &[(&str, &str)]| {
        let answer = served.proxy(&http("GET", "/customers?q=a", headers));
        let fields = answer.dynamic_metadata.unwrap().fields;
        match &fields["reason_code"].kind {
            Some(prost_types::value::Kind::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        }
    };
    for headers in [
        &[][..],
        &[("mcp-session-id", "s-1")],
        &[("traceparent", "00-3af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        &[("baggage", "a=b")],
    ] {
        assert_eq!("BUDGET_EXCEEDED", status(headers), "{headers:?}");
    }
    assert_eq!("PERMITTED", searches(&served, "bob"));
    let records = served.records();
    let kinds = records.iter().map(|record| &record["input"]["task"]["kind"]);
    assert!(kinds.clone().all(|kind| *kind == "implicit"), "{:?}", kinds.collect::<Vec<_>>());
}

/// To its agent it is no task: nothing lists it, reads it, extends it, delegates from it, ends it or names it.
#[test]
fn it_is_no_task() {
    let (served, _) = desk(&json!({}));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    let all = listed(&served, "admin", Vec::new());
    assert_eq!(1, all.len());
    let id = all[0].id.clone();
    assert!(listed(&served, "dev", of("alice")).is_empty());
    assert!(listed(&served, "dev", vec![agent(BOT)]).is_empty());
    let unknown = Err("UNKNOWN_TASK");
    let get = wire::GetRequest { evidence: of("alice"), task: id.clone() };
    assert_eq!(unknown, call::<wire::GetResponse>(&served, Surface::TaskGet, &get).map(drop));
    let extend = wire::ExtendRequest {
        evidence: of("alice"),
        task: id.clone(),
        prompt: "bob@corp.example".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        unknown,
        call::<wire::ExtendResponse>(&served, Surface::TaskExtend, &extend).map(drop)
    );
    let extend = wire::ExtendRequest { evidence: herself(), ..extend };
    assert_eq!(
        unknown,
        call::<wire::ExtendResponse>(&served, Surface::TaskExtend, &extend).map(drop)
    );
    for assignee in [BOT, PLANNER] {
        let delegate = wire::DelegateRequest {
            evidence: vec![agent(BOT)],
            parent: id.clone(),
            assignee: assignee.to_owned(),
            ..wire::DelegateRequest::default()
        };
        let answer = call::<wire::DelegateResponse>(&served, Surface::TaskDelegate, &delegate);
        assert_eq!(unknown, answer.map(drop));
    }
    for status in [wire::TaskStatus::Completed, wire::TaskStatus::Aborted] {
        assert_eq!(unknown.map(|()| 0), end(&served, &id, of("alice"), status));
    }
    assert_eq!("UNKNOWN_TASK", code(&served.check(&searching(&id, BOT))));
    let list = wire::ListRequest {
        evidence: of("alice"),
        task: id.clone(),
        ..wire::ListRequest::default()
    };
    assert_eq!(unknown, call::<wire::ListResponse>(&served, Surface::List, &list).map(drop));
    let list = wire::ListRequest { task: String::new(), ..list };
    let could: wire::ListResponse = call(&served, Surface::List, &list).unwrap();
    assert!(could.operations.contains(&"crm.search".to_owned()), "{could:?}");
    assert_eq!("PERMITTED", searches(&served, "alice"));
}

/// An agent is given tasks, or works without any; never both.
#[test]
fn an_agent_has_tasks_or_none() {
    let (served, _) = desk(&json!({}));
    let start = |template: &str, by: Vec<wire::Evidence>, assignee: &str| {
        let request = wire::StartRequest {
            template: template.to_owned(),
            params: None,
            assignee: assignee.to_owned(),
            ..starting(by)
        };
        let answer: wire::StartResponse = call(&served, Surface::TaskStart, &request)?;
        Ok(answer.task.unwrap())
    };
    for template in ["plan", "work"] {
        assert_eq!(Err("NOT_PERMITTED"), start(template, vec![subject("alice")], BOT).map(drop));
    }
    let task: wire::Task = start("plan", vec![agent(PLANNER), subject("alice")], "").unwrap();
    let delegate = wire::DelegateRequest {
        evidence: vec![agent(PLANNER)],
        parent: task.id.clone(),
        assignee: BOT.to_owned(),
        ..wire::DelegateRequest::default()
    };
    let answer = call::<wire::DelegateResponse>(&served, Surface::TaskDelegate, &delegate);
    assert_eq!(Err("NOT_PERMITTED"), answer.map(drop));
    assert_eq!("PERMITTED", code(&served.check(&searching(&task.id, PLANNER))));
    let without = || {
        let evidence = vec![agent(PLANNER), subject("alice")];
        code(&served.check(&wire::CheckRequest { evidence, ..searching("", PLANNER) }))
    };
    assert_eq!("NO_TASK", without());
    // A bundle that lets it work without tasks from now on takes its tasks away.
    let bundle = BUNDLE.replace("[bot,", "[planner, bot,");
    let facts = FACTS.replace("starters: [planner], ", "");
    served.engine.load(with(&bundle, &facts)).unwrap();
    assert_eq!("OUT_OF_SCOPE", code(&served.check(&searching(&task.id, PLANNER))));
    assert_eq!("PERMITTED", without());
    // And one that lets no agent do so leaves nothing of the sessions.
    assert_eq!("PERMITTED", searches(&served, "alice"));
    served.engine.load(with("{name: desk, tasks: required}", FACTS)).unwrap();
    assert_eq!("NO_TASK", searches(&served, "alice"));
}

/// What was taken away stays so for that pair, whatever is swept and whenever the node starts; its administrator lets it begin
/// anew.
#[test]
fn what_was_revoked_stays_so() {
    let path = folder().join("state");
    let short = json!({"retention_ms": 1_000});
    let served = embedded(&path, &short);
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("PERMITTED", searches(&served, "bob"));
    let (alice, bob) = (id_of(&served, "alice"), id_of(&served, "bob"));
    assert_eq!(1, revoked(&served, Target::Session(alice.clone())));
    assert_eq!(1, revoked(&served, Target::Task(bob.clone())));
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    for _ in 0..2 {
        assert!(served.engine.sweep().error.is_empty());
        assert_eq!("REVOKED", searches(&served, "alice"));
        assert_eq!("REVOKED", searches(&served, "bob"));
    }
    // To revoke it once more does not make it shorter.
    assert_eq!(0, revoked(&served, Target::Session(alice.clone())));
    served.engine.close();
    drop(served);
    let served = embedded(&path, &short);
    assert!(served.engine.sweep().error.is_empty());
    assert_eq!("REVOKED", searches(&served, "alice"));
    assert_eq!("PERMITTED", searches(&served, "carl"));
    for by in [of("alice"), vec![agent(BOT)], vec![subject("bob")]] {
        assert_eq!(Err("UNKNOWN_TASK"), end(&served, &alice, by, wire::TaskStatus::Completed));
    }
    let by_alice = end(&served, &alice, herself(), wire::TaskStatus::Completed);
    assert_eq!(Err("REVOKED"), by_alice, "the subject did not take it away");
    let request = wire::EndRequest {
        evidence: Vec::new(),
        task: alice.clone(),
        status: wire::TaskStatus::Completed as i32,
    };
    let answer: wire::EndResponse = call_by(&served, "admin", Surface::TaskEnd, &request).unwrap();
    assert_eq!(1, answer.ended);
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("REVOKED", searches(&served, "bob"));
}

/// What denials ended, the subject alone lets begin anew.
#[test]
fn what_denials_ended_stays_so() {
    let path = folder().join("state");
    let served = embedded(&path, &json!({}));
    is_denied(&served, "alice");
    assert_eq!("PERMITTED", searches(&served, "bob"));
    served.engine.close();
    drop(served);
    let served = embedded(&path, &json!({}));
    assert_eq!("REVOKED", searches(&served, "alice"));
    let id = id_of(&served, "alice");
    let done = wire::TaskStatus::Completed;
    for by in [of("alice"), vec![agent(BOT)], vec![subject("alice")], vec![subject("bob")]] {
        assert_eq!(Err("UNKNOWN_TASK"), end(&served, &id, by, done));
    }
    assert_eq!(Ok(1), end(&served, &id, herself(), done));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    // What the administrator revokes besides is no longer the subject's to give back.
    is_denied(&served, "alice");
    assert_eq!(0, revoked(&served, Target::Session(id.clone())));
    assert_eq!(Err("REVOKED"), end(&served, &id, herself(), done));
    assert_eq!("REVOKED", searches(&served, "alice"));
}

/// An agent that is revoked is refused everywhere, and its sessions are there again once it is no longer.
#[test]
fn a_revoked_agent_keeps_what_it_did() {
    let (served, _) = desk(&json!({}));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!(0, revoked(&served, Target::Agent(BOT.to_owned())));
    assert_eq!("REVOKED", searches(&served, "alice"));
    assert_eq!(wire::TaskStatus::Active as i32, listed(&served, "admin", Vec::new())[0].status);
}

/// It outlives a restart; once it is forgotten nothing of it counts.
#[test]
fn it_is_forgotten_and_not_before() {
    let path = folder().join("state");
    let served = embedded(&path, &json!({}));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    served.engine.close();
    drop(served);
    let served = embedded(&path, &json!({}));
    assert_eq!("BUDGET_EXCEEDED", searches(&served, "alice"));
    let (served, store) = desk(&json!({}));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    let id = id_of(&served, "alice");
    // Two permits less than `grain` apart leave one note of their time, that of the first.
    let (day, grain) = (24 * 3_600_000, 9_600_000);
    let put = |change: &dyn Fn(&Task) -> Task| {
        let key = RecordKey::new(RecordKind::Task, &id);
        let session = RecordKey::new(RecordKind::Session, &id);
        let mut work = |transaction: &mut dyn Transaction| {
            let Some(Record::Task(task)) = transaction.get(&key)? else { panic!("no task") };
            transaction.put(Record::Task(Arc::new(change(&task))));
            Ok(true)
        };
        store.transact(&[session, key.clone()], Survives::Crash, soon(), &mut work).unwrap();
    };
    put(&|task| Task { last_used: Time(now() * 1000 - day - grain + 5_000), ..task.clone() });
    assert_eq!("BUDGET_EXCEEDED", searches(&served, "alice"));
    put(&|task| Task { last_used: Time(now() * 1000 - day - grain), ..task.clone() });
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("BUDGET_EXCEEDED", searches(&served, "alice"));
    // Swept or not, it begins anew.
    put(&|task| Task { deadline: Time(now() * 1000), ..task.clone() });
    assert!(served.engine.sweep().error.is_empty());
    assert_eq!(wire::TaskStatus::Expired as i32, listed(&served, "admin", Vec::new())[0].status);
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("BUDGET_EXCEEDED", searches(&served, "alice"));
    assert_eq!(wire::TaskStatus::Active as i32, listed(&served, "admin", Vec::new())[0].status);
}

/// Of many calls at once that begin it there is one session, and they spend together what there is.
#[test]
fn it_begins_once() {
    for served in [desk(&json!({})).0, embedded(&folder().join("state"), &json!({}))] {
        let request = wire::CheckRequest { evidence: of("alice"), ..search() };
        assert_eq!(2, crate::tasks::permitted_at_once(&served, &request, 8, 3));
        assert_eq!(1, listed(&served, "admin", Vec::new()).len());
    }
}

/// What the bundle says of the template, and the subject's token of her, counts as it is now.
#[test]
fn it_is_bounded_as_the_bundle_says_now() {
    let (served, _) = desk(&json!({}));
    let delete = || {
        let request = deleting("", BOT, "7");
        code(&served.check(&wire::CheckRequest { evidence: of("alice"), ..request }))
    };
    assert_eq!("PERMITTED", delete());
    let narrow = FACTS.replace("{operation: crm.delete}]}", "{operation: crm.search}]}");
    served.engine.load(with(BUNDLE, &narrow)).unwrap();
    assert_eq!("OUT_OF_SCOPE", delete());
    assert_eq!("PERMITTED", searches(&served, "alice"));
    let capped = BUNDLE.replace("tier_cap: high", "tier_cap: low");
    served.engine.load(with(&capped, FACTS)).unwrap();
    assert_eq!("OUT_OF_SCOPE", delete());
    load(&served);
    assert_eq!("PERMITTED", delete());
    // The same person without the group is not staff.
    let guest = evidence(wire::EvidenceRole::Subject, user("alice", json!(["guests"])));
    let request = wire::CheckRequest { evidence: vec![agent(BOT), guest], ..search() };
    assert_eq!("CHAIN_NOT_PERMITTED", code(&served.check(&request)));
}

/// Sessions of before, which a trace chose, load and count for nothing any more.
#[test]
fn an_old_store_loads() {
    let (served, store) = desk(&json!({}));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    let id = id_of(&served, "alice");
    let old = "0192f0c1-2345-7000-8000-0123456789ab";
    let keys = [old, &id].map(|id| RecordKey::new(RecordKind::Session, id));
    let mut work = |transaction: &mut dyn Transaction| {
        let known = RecordKey::new(RecordKind::Task, &id);
        let Some(Record::Task(task)) = transaction.get(&known)? else { panic!("no task") };
        let Some(Record::Session(session)) = transaction.get(&keys[1])? else { panic!("none") };
        let (id, session_id) = (old.to_owned(), old.to_owned());
        let task = Task { id, session: session_id, ..Task::clone(&task) };
        let session =
            Session { id: old.to_owned(), root: old.to_owned(), ..Session::clone(&session) };
        transaction.put(Record::Task(Arc::new(task)));
        transaction.put(Record::Session(Arc::new(session)));
        Ok(true)
    };
    store.transact(&keys, Survives::Crash, soon(), &mut work).unwrap();
    let served = on(&store, &json!({}));
    assert_eq!("UNKNOWN_TASK", code(&served.check(&searching(old, BOT))));
    assert_eq!("PERMITTED", searches(&served, "alice"));
    assert_eq!("BUDGET_EXCEEDED", searches(&served, "alice"));
    assert_eq!(1, revoked(&served, Target::Session(old.to_owned())));
}

fn asked(served: &Served, by: &str, who: Option<wire::Evidence>) -> &'static str {
    let evidence = [agent(by)].into_iter().chain(who).collect();
    code(&served.check(&wire::CheckRequest { evidence, ..search() }))
}

/// An agent that has acted for a subject shows one from then on, whatever it was answered, on each node and after a restart.
#[test]
fn the_subject_is_not_left_out() {
    let guest = || evidence(wire::EvidenceRole::Subject, user("mallory", json!(["guests"])));
    let path = folder().join("state");
    let served = embedded(&path, &json!({}));
    assert_eq!("PERMITTED", asked(&served, LONER, None), "it has acted for nobody yet");
    let evidence = vec![agent(LONER), guest()];
    let probe = wire::CheckRequest { evidence, mode: wire::Mode::Probe as i32, ..search() };
    served.check(&probe);
    assert_eq!("PERMITTED", asked(&served, LONER, None), "to try out is not to act");
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, LONER, Some(guest())));
    assert_eq!("NO_CREDENTIAL", asked(&served, LONER, None));
    assert_eq!("PERMITTED", asked(&served, LONER, Some(subject("alice"))));
    let own = format!("Bearer {}", svid_with(LONER, "authz", now() + 60));
    let by_proxy = |headers: &[(&str, &str)]| {
        let answer = served.proxy(&http("GET", "/customers?q=a", headers));
        let fields = answer.dynamic_metadata.unwrap().fields;
        match &fields["reason_code"].kind {
            Some(prost_types::value::Kind::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!("PERMITTED", by_proxy(&[("authorization", &own)]));
    assert_eq!("NO_CREDENTIAL", by_proxy(&[("authorization", &own), ("authz-subject", "\0")]));
    served.engine.close();
    drop(served);
    let served = embedded(&path, &json!({}));
    assert_eq!("NO_CREDENTIAL", asked(&served, LONER, None));

    let (one, store) = desk(&json!({}));
    assert_eq!("PERMITTED", asked(&one, LONER, Some(subject("alice"))));
    let other = on(&store, &json!({}));
    assert_eq!("NO_CREDENTIAL", asked(&other, LONER, None));
    assert_eq!("NO_CREDENTIAL", asked(&one, LONER, None));
    assert_eq!("PERMITTED", asked(&one, "spiffe://a.example/ns/loner/sa/two", None));
}

/// What a role says of the subject counts, also where another role says less.
#[test]
fn a_role_says_whether_there_is_a_subject() {
    let (served, _) = desk(&json!({}));
    let (strict, own) = ("spiffe://a.example/ns/strict/sa/a", "spiffe://a.example/ns/own/sa/a");
    assert_eq!("NO_CREDENTIAL", asked(&served, strict, None));
    assert_eq!("PERMITTED", asked(&served, strict, Some(subject("alice"))));
    assert_eq!("PERMITTED", asked(&served, own, None));
    assert_eq!("CHAIN_NOT_PERMITTED", asked(&served, own, Some(subject("alice"))));
    assert_eq!("PERMITTED", asked(&served, BOT, Some(subject("alice"))));
    assert_eq!("PERMITTED", asked(&served, BOT, None));
}

/// A task that the agent starts for nobody is no way round it.
#[test]
fn a_start_does_not_leave_the_subject_out() {
    let (served, _) = desk(&json!({}));
    let start = |by: Vec<wire::Evidence>| {
        let request =
            wire::StartRequest { template: "plan".to_owned(), params: None, ..starting(by) };
        call::<wire::StartResponse>(&served, Surface::TaskStart, &request).map(drop)
    };
    assert_eq!(Ok(()), start(vec![agent(PLANNER)]));
    assert_eq!(Ok(()), start(vec![agent(PLANNER), subject("alice")]));
    assert_eq!(Err("NO_CREDENTIAL"), start(vec![agent(PLANNER)]));
    assert_eq!(Ok(()), start(vec![agent(PLANNER), subject("bob")]));
}

/// Where the subject may be left out, what restricts the agent for any of its subjects restricts it without one: on each node,
/// after a restart, and where the administrator revokes.
#[test]
fn without_a_subject_all_that_restricts_counts() {
    let path = folder().join("state");
    let served = embedded(&path, &json!({}));
    assert_eq!("PERMITTED", asked(&served, BOT, None));
    is_denied(&served, "alice");
    assert_eq!("REVOKED", asked(&served, BOT, None));
    assert_eq!("PERMITTED", searches(&served, "bob"));
    served.engine.close();
    drop(served);
    let served = embedded(&path, &json!({}));
    assert_eq!("REVOKED", asked(&served, BOT, None));

    let (one, store) = desk(&json!({}));
    assert_eq!("PERMITTED", searches(&one, "alice"));
    assert_eq!(1, revoked(&one, Target::Session(id_of(&one, "alice"))));
    let other = on(&store, &json!({}));
    for served in [&one, &other] {
        assert_eq!("REVOKED", asked(served, BOT, None), "never used before");
        assert_eq!("PERMITTED", searches(served, "bob"));
    }
    let alone = listed(&one, "admin", Vec::new());
    let alone = alone.iter().find(|task| task.subject.is_empty()).unwrap();
    let request = wire::EndRequest {
        evidence: Vec::new(),
        task: alone.id.clone(),
        status: wire::TaskStatus::Completed as i32,
    };
    let answer: wire::EndResponse = call_by(&one, "admin", Surface::TaskEnd, &request).unwrap();
    assert_eq!(1, answer.ended);
    assert_eq!("PERMITTED", asked(&one, BOT, None));
    assert_eq!("REVOKED", searches(&one, "alice"));
}
