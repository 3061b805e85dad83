//! Tasks: what a template may say, what a task is given, and what it may do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decide::{Prospects, decide};
use authz_kernel::decision::{
    CallerProof, Claim, Decision, Facts, Outcome, Principal, ProofMethod, ReasonCode, Request, Time,
};
use authz_kernel::history::HistoryView;
use authz_kernel::mcp::ServerTask;
use authz_kernel::model::Tier;
use authz_kernel::plan::Plan;
use authz_kernel::source;
use authz_kernel::task::{
    AgentName, Child, Limit, Names, Param, Part, Refused, Root, SaidBy, ScopeEntry, Selector,
    ShownToken, Speaker, SubjectProof, Task, TaskKind, TaskStatus, TaskSubject, TaskView,
    WordRecords, delegate, extend, implicit, implicit_id, read_names, renewed, start,
};

use crate::common::{NOTHING, NOW};

const KEY: [u8; 32] = [3; 32];
const MINUTE: i64 = 60_000;

const FACTS: &str = r#"
agents:
  desk: ["spiffe://a.example/ns/desk/sa/*"]
subjects:
  staff: {issuer: corp}
labels: {pii: {kind: confidentiality}, sealed: {kind: confidentiality}}
resources:
  customers: {labels: [pii], patterns: [{match: "acme/sealed/*", labels: [sealed]}]}
  orders: {}
destinations:
  all: {match: "*", clearance: []}
catalog:
  crm:
    kind: http
    operations:
      get: {input: {type: object, required: [id], properties: {id: {type: string}}}}
      search: {input: {type: object, properties: {query: {type: string}}}}
      order: {input: {type: object, required: [id], properties: {id: {type: integer}}}}
      refund:
        input:
          type: object
          required: [id]
          properties:
            id: {type: string}
            amount: {type: integer}
            tags: {type: array, items: {type: string}}
      edit:
        input: {type: object, required: [id, action], properties: {id: {type: string}, action: {type: string}}}
      drop: {input: {type: object, properties: {id: {type: string}}}}
      status: {}
  mail:
    kind: http
    operations:
      send: {input: {type: object, required: [to], properties: {to: {type: array, items: {type: string}}, text: {type: string}}}}
  raw:
    kind: http
    operations:
      run: {}
classify:
  - {match: crm.get, effects: [read], tier: low, resource: {collection: customers, id: /id}}
  - {match: crm.search, effects: [read], yields: [pii], resource: {collection: customers}}
  - {match: crm.order, effects: [read], resource: {collection: orders, id: /id}}
  - {match: crm.refund, effects: [write], tier: standard, resource: {collection: customers, id: /id}}
  - match: crm.edit
    resource: {collection: customers, id: /id}
    split: {on: /action, cases: {see: {effects: [read], tier: low}, change: {effects: [write], tier: standard}}}
  - {match: crm.drop, effects: [delete], tier: high}
  - {match: crm.status, effects: [read], tier: low}
  - {match: mail.send, effects: [export], tier: standard, destination: {from: /to, type: email}}
"#;

pub(crate) const TEMPLATES: &str = r#"
templates:
  answer:
    purpose: answer one ticket
    params: {customer: String, limit: Long}
    deadline: 30m
    idle_timeout: 10m
    max_depth: 2
    starters: desk
    scope:
      - {operation: crm.get, resources: {path_prefix: "{customer}", label_ceiling: [pii]}}
      - {operation: crm.search}
      - {operation: crm.order, resources: {ids: ["7", "{limit}"]}}
      - {operation: crm.refund, resources: {ids: ["{customer}"]}, arguments: {/amount: {range: [1, 100]}, /tags: {one_of: [a, "{customer}"]}}, uses: 2}
      - {operation: crm.edit}
      - {operation: mail.send, arguments: {/text: {prefix: "re/"}}, uses: 3}
  look:
    purpose: look things up
    deadline: 1h
    tier_cap: low
    max_depth: 1
    scope:
      - {system: crm, effects: [read]}
  brief: {purpose: look briefly, deadline: 5m, idle_timeout: 1m, scope: [{operation: crm.get}]}
  risky: {purpose: remove things, deadline: 24h, tier_cap: critical, max_depth: 6, scope: [{operations: [crm.drop, crm.get]}]}
"#;

/// A template, and agents that work without tasks.
const UNSTARTED: &str = r#"  counted: {purpose: count, deadline: 1h, scope: [{operation: crm.get, uses: 2}]}
agents:
  loner: ["spiffe://a.example/ns/loner/sa/*"]
  twin: ["spiffe://a.example/ns/*/sa/twin"]
"#;

const POLICIES: &str = r#"@id("all") permit(principal, action, resource);"#;

fn files(manifest: &str, templates: &str, policies: &str) -> BTreeMap<String, Vec<u8>> {
    [
        ("bundle.yaml", manifest),
        ("facts.yaml", FACTS),
        ("templates.yaml", templates),
        ("policies/all.cedar", policies),
    ]
    .into_iter()
    .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))
    .collect()
}

pub(crate) fn plan_of(manifest: &str, templates: &str, policies: &str) -> Result<Plan, String> {
    source::load(&files(manifest, templates, policies), &BTreeMap::new())
        .and_then(|bundle| Plan::compile(bundle, None))
        .map_err(|errors| errors.to_string())
}

pub(crate) fn plan(policies: &str) -> Plan {
    plan_of("name: desk", TEMPLATES, policies).unwrap_or_else(|errors| panic!("{errors}"))
}

fn agent(name: &str) -> AgentName {
    AgentName::parse(&format!("spiffe://a.example/ns/desk/sa/{name}")).unwrap()
}

fn alice() -> TaskSubject {
    TaskSubject {
        is_service: false,
        issuer: "corp".to_owned(),
        sub: "alice".to_owned(),
        claims: BTreeMap::new(),
        acr: String::new(),
    }
}

fn params(all: &[(&str, Param)]) -> BTreeMap<String, Param> {
    all.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

pub(crate) fn acme() -> BTreeMap<String, Param> {
    params(&[("customer", Param::Text("acme".to_owned())), ("limit", Param::Long(9))])
}

pub(crate) fn root<'a>(template: &'a str, params: &'a BTreeMap<String, Param>) -> Root<'a> {
    Root {
        template,
        params,
        scope: &[],
        kind: TaskKind::Root,
        assignee: agent("a"),
        subject: Some(alice()),
        subject_proof: SubjectProof::Verified,
        starter: "corp:alice".to_owned(),
        deadline: None,
        tier_cap: None,
        names: Names::default(),
        now: NOW,
        id: "t-0".to_owned(),
        session: "s".to_owned(),
    }
}

fn child<'a>(to: &str, id: &str, params: &'a BTreeMap<String, Param>) -> Child<'a> {
    Child {
        template: None,
        params,
        scope: &[],
        assignee: agent(to),
        starter: agent("a").spiffe_id,
        deadline: None,
        now: NOW,
        id: id.to_owned(),
    }
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

fn entry(operation: &str) -> ScopeEntry {
    ScopeEntry { operation: operation.to_owned(), ..ScopeEntry::default() }
}

fn ask_at(
    plan: &Plan,
    task: &Task,
    ancestors: &[Arc<Task>],
    operation: &str,
    arguments: &str,
    now: Time,
) -> Decision {
    let chain = task.chain();
    let facts = Facts {
        task: Some(TaskView { task, ancestors }),
        history: Some(HistoryView::new(&NOTHING)),
        literal_key: Some(&KEY),
        ..facts(&chain)
    };
    let decision = decide(plan, &facts, &request(operation, arguments), now);
    // What a decision lets through was listed before.
    let could = Prospects::new(plan, &facts, now).could(operation);
    assert!(could || decision.outcome == Outcome::Deny, "{operation} is not listed");
    *decision
}

fn listed(plan: &Plan, task: Option<TaskView<'_>>, chain: &[Principal], now: Time) -> Vec<String> {
    let facts = Facts { task, ..facts(chain) };
    let prospects = Prospects::new(plan, &facts, now);
    let ids = plan.ids_after("", "");
    ids.into_iter().filter(|id| prospects.could(id)).map(str::to_owned).collect()
}

fn ask(plan: &Plan, task: &Task, operation: &str, arguments: &str) -> Decision {
    ask_at(plan, task, &[], operation, arguments, NOW)
}

pub(crate) fn facts(chain: &[Principal]) -> Facts<'_> {
    Facts {
        enforcer: "",
        chain,
        proof: CallerProof {
            method: ProofMethod::JwtSvid,
            bound: true,
            age: Some(0),
            acr: "",
            satisfied: &[],
        },
        confidence: 0,
        task: None,
        subject_proof: None,
        history: Some(HistoryView::new(&NOTHING)),
        words: WordRecords::default(),
        literal_key: None,
        value_key: None,
        endorsed: &[],
        recipient_lists: None,
        granted: None,
        breakglass: None,
    }
}

pub(crate) fn request<'a>(operation: &'a str, arguments: &'a str) -> Request<'a> {
    Request {
        operation,
        arguments: arguments.as_bytes().into(),
        resource: None,
        destinations: &[],
        supported_obligations: &[],
        labels: &[],
        server_task: ServerTask::None,
    }
}

/// The reason, and for a refusal of the task's the side on which it was.
fn said(decision: &Decision) -> String {
    let side = decision.message.split(':').next().unwrap_or_default();
    match decision.reason {
        ReasonCode::OutOfScope => format!("OUT_OF_SCOPE {side}"),
        reason => reason.as_str().to_owned(),
    }
}

fn refused(result: Result<Task, Refused>) -> String {
    match result {
        Ok(task) => format!("started {}", task.id),
        Err(refused) => refused.to_string(),
    }
}

#[test]
fn a_task_is_held_to_its_scope() {
    let plan = plan(POLICIES);
    let params = acme();
    let task = start(&plan, root("answer", &params)).unwrap();
    for (operation, arguments, expected) in [
        ("crm.get", r#"{"id": "acme"}"#, "PERMITTED"),
        ("crm.get", r#"{"id": "acme/1"}"#, "PERMITTED"),
        ("crm.get", r#"{"id": "/acme/1"}"#, "OUT_OF_SCOPE path_prefix"),
        ("crm.get", r#"{"id": "acmes/1"}"#, "OUT_OF_SCOPE path_prefix"),
        ("crm.get", r#"{"id": "acme/sealed/1"}"#, "OUT_OF_SCOPE label_ceiling"),
        ("crm.search", "{}", "PERMITTED"),
        ("crm.order", r#"{"id": 7}"#, "PERMITTED"),
        ("crm.order", r#"{"id": 9}"#, "PERMITTED"),
        ("crm.order", r#"{"id": 8}"#, "OUT_OF_SCOPE ids"),
        ("crm.refund", r#"{"id": "acme", "amount": 100, "tags": ["a", "acme"]}"#, "PERMITTED"),
        (
            "crm.refund",
            r#"{"id": "acme", "amount": 101, "tags": ["a"]}"#,
            "OUT_OF_SCOPE argument /amount",
        ),
        (
            "crm.refund",
            r#"{"id": "acme", "amount": 0, "tags": ["a"]}"#,
            "OUT_OF_SCOPE argument /amount",
        ),
        ("crm.refund", r#"{"id": "acme", "tags": ["a"]}"#, "OUT_OF_SCOPE argument /amount"),
        (
            "crm.refund",
            r#"{"id": "acme", "amount": 1, "tags": ["a", "b"]}"#,
            "OUT_OF_SCOPE argument /tags",
        ),
        ("crm.refund", r#"{"id": "acme", "amount": 1, "tags": []}"#, "OUT_OF_SCOPE argument /tags"),
        ("crm.refund", r#"{"id": "ACME", "amount": 1, "tags": ["a"]}"#, "OUT_OF_SCOPE ids"),
        ("crm.edit", r#"{"id": "x", "action": "change"}"#, "PERMITTED"),
        ("crm.drop", "{}", "OUT_OF_SCOPE tier_cap"),
        ("crm.status", "{}", "OUT_OF_SCOPE operation"),
        ("mail.send", r#"{"to": ["a@x.example"], "text": "re/T-1"}"#, "PERMITTED"),
        ("mail.send", r#"{"to": ["a@x.example"], "text": "T-1"}"#, "OUT_OF_SCOPE argument /text"),
        ("mail.send", r#"{"to": ["a@x.example"]}"#, "OUT_OF_SCOPE argument /text"),
        ("raw.run", "{}", "UNREVIEWED_OPERATION"),
        ("crm.none", "{}", "UNKNOWN_OPERATION"),
    ] {
        assert_eq!(
            expected,
            said(&ask(&plan, &task, operation, arguments)),
            "{operation} {arguments}"
        );
    }
}

#[test]
fn without_a_task_only_what_is_stateless_and_low_may_pass() {
    let decided = |manifest: &str, operation: &str, arguments: &str| {
        let plan = plan_of(manifest, TEMPLATES, POLICIES).unwrap();
        let chain = start(&plan, root("answer", &acme())).unwrap().chain();
        decide(&plan, &facts(&chain), &request(operation, arguments), NOW)
    };
    for (manifest, operation, arguments, expected) in [
        ("name: a", "crm.status", "{}", ReasonCode::NoTask),
        ("{name: a, tasks: required}", "crm.status", "{}", ReasonCode::NoTask),
        ("{name: a, tasks: optional}", "crm.status", "{}", ReasonCode::Permitted),
        (
            "{name: a, tasks: optional}",
            "mail.send",
            r#"{"to": ["a@x.example"]}"#,
            ReasonCode::Permitted,
        ),
        ("{name: a, taskless_tier: low}", "crm.status", "{}", ReasonCode::Permitted),
        // It returns what carries a label, acts on what does, changes something, or sends something.
        ("{name: a, taskless_tier: critical}", "crm.get", r#"{"id": "1"}"#, ReasonCode::NoTask),
        ("{name: a, taskless_tier: critical}", "crm.order", r#"{"id": 1}"#, ReasonCode::Permitted),
        ("{name: a, taskless_tier: critical}", "crm.search", "{}", ReasonCode::NoTask),
        ("{name: a, taskless_tier: critical}", "crm.refund", r#"{"id": "1"}"#, ReasonCode::NoTask),
        (
            "{name: a, taskless_tier: critical}",
            "mail.send",
            r#"{"to": ["a@x.example"]}"#,
            ReasonCode::NoTask,
        ),
        (
            "{name: a, taskless_tier: low}",
            "crm.edit",
            r#"{"id": "1", "action": "see"}"#,
            ReasonCode::NoTask,
        ),
        (
            "{name: a, taskless_tier: low}",
            "crm.edit",
            r#"{"id": "1", "action": "change"}"#,
            ReasonCode::NoTask,
        ),
        // What cannot be read is refused as such first.
        ("name: a", "crm.get", "{}", ReasonCode::BadInput),
        // Tasks bound what agents do elsewhere.
        ("name: a", "authz.probe", "{}", ReasonCode::Permitted),
        ("name: a", "task:look", "{}", ReasonCode::Permitted),
    ] {
        assert_eq!(
            expected,
            decided(manifest, operation, arguments).reason,
            "{manifest} {operation}"
        );
    }
}

#[test]
fn what_counts_uses_or_has_an_effect_is_stateful() {
    let plan = plan(POLICIES);
    let params = acme();
    let mut task = start(&plan, root("answer", &params)).unwrap();
    let stateless = |id: &str, task: Option<&Task>| {
        plan.is_stateless(id, task.map(|task| TaskView { task, ancestors: &[] }).as_ref())
    };
    for (id, expected) in [
        ("crm.order", true),
        ("crm.get", false),
        ("crm.search", false),
        ("crm.refund", false),
        ("crm.edit", false),
        ("crm.edit.see", false),
        ("crm.edit.change", false),
        ("mail.send", false),
        ("crm.none", false),
        ("authz.probe", true),
    ] {
        assert_eq!(expected, stateless(id, None), "{id}");
        assert_eq!(expected, stateless(id, Some(&task)), "{id} on a task");
    }
    for entry in task.scope.iter_mut().filter(|entry| entry.operation == "crm.order") {
        entry.uses = Some(3);
    }
    assert!(!stateless("crm.order", Some(&task)), "its uses are counted");
    let child = start(&plan, root("look", &BTreeMap::new())).unwrap();
    let above = [Arc::new(task)];
    let view = TaskView { task: &child, ancestors: &above };
    assert!(!plan.is_stateless("crm.order", Some(&view)), "they are counted above it");
}

#[test]
fn a_task_that_cannot_be_used_is_refused() {
    let plan = plan(POLICIES);
    let params = acme();
    let task = start(&plan, root("answer", &params)).unwrap();
    let get = r#"{"id": "acme"}"#;
    let at = |task: &Task, above: &[Arc<Task>], now: i64| {
        ask_at(&plan, task, above, "crm.get", get, Time(NOW.0 + now)).reason
    };
    assert_eq!(ReasonCode::Permitted, at(&task, &[], 9 * MINUTE));
    assert_eq!(ReasonCode::TaskEnded, at(&task, &[], 10 * MINUTE), "it lay idle");
    let used = Task { last_used: Time(NOW.0 + 25 * MINUTE), ..task.clone() };
    assert_eq!(ReasonCode::Permitted, at(&used, &[], 29 * MINUTE));
    assert_eq!(ReasonCode::TaskEnded, at(&used, &[], 30 * MINUTE), "its deadline");
    for (status, reason) in [
        (TaskStatus::Completed, ReasonCode::TaskEnded),
        (TaskStatus::Aborted, ReasonCode::TaskEnded),
        (TaskStatus::Revoked, ReasonCode::Revoked),
        (TaskStatus::Expired, ReasonCode::TaskEnded),
    ] {
        let ended = Task { status, ..task.clone() };
        assert_eq!(reason, at(&ended, &[], 0), "{status:?}");
        let below = delegate(&plan, &task, child("b", "t-1", &BTreeMap::new())).unwrap();
        assert_eq!(reason, at(&below, &[Arc::new(ended)], 0), "above: {status:?}");
    }
    let chain = |chain: &[Principal]| {
        let facts = Facts { task: Some(TaskView { task: &task, ancestors: &[] }), ..facts(chain) };
        decide(&plan, &facts, &request("crm.get", get), NOW).reason
    };
    let own = task.chain();
    assert_eq!(ReasonCode::Permitted, chain(&own));
    let other = Task { agents: vec![agent("b")], ..task.clone() }.chain();
    assert_eq!(ReasonCode::NotAssignee, chain(&other));
    assert_eq!(ReasonCode::NotAssignee, chain(&own[..1]), "the subject is not the agent");
    assert_eq!(ReasonCode::TaskConflict, chain(&own[1..]), "the subject is missing");
    let mallory = TaskSubject { sub: "mallory".to_owned(), ..alice() };
    let swapped = Task { subject: Some(mallory), ..task.clone() }.chain();
    assert_eq!(ReasonCode::TaskConflict, chain(&swapped));
    let longer = Task { agents: vec![agent("b"), agent("a")], ..task.clone() }.chain();
    assert_eq!(ReasonCode::TaskConflict, chain(&longer));
    // The tasks above it must all be there, and be those.
    let below = delegate(&plan, &task, child("b", "t-1", &BTreeMap::new())).unwrap();
    assert_eq!(ReasonCode::Unavailable, at(&below, &[], 0));
    let stranger = Arc::new(Task { id: "t-9".to_owned(), ..task.clone() });
    assert_eq!(ReasonCode::Unavailable, at(&below, &[stranger], 0));
    assert_eq!(ReasonCode::Permitted, at(&below, &[Arc::new(task.clone())], 0));
    // Its template is gone.
    let gone = Task { template: "gone".to_owned(), ..task.clone() };
    assert_eq!("OUT_OF_SCOPE template", said(&ask(&plan, &gone, "crm.get", get)));
}

#[test]
fn uses_count_in_every_task_above() {
    let plan = plan(POLICIES);
    let params = acme();
    let none = BTreeMap::new();
    let mut parent = start(&plan, root("answer", &params)).unwrap();
    let mut first = delegate(&plan, &parent, child("b", "t-1", &none)).unwrap();
    let second = delegate(&plan, &parent, child("c", "t-2", &none)).unwrap();
    let refund = r#"{"id": "acme", "amount": 1, "tags": ["a"]}"#;
    let on = |task: &Task, parent: &Task| {
        ask_at(&plan, task, &[Arc::new(parent.clone())], "crm.refund", refund, NOW)
    };
    for _ in 0..2 {
        let decision = on(&first, &parent);
        let position = parent.scope.iter().position(|e| e.operation == "crm.refund").unwrap();
        let position = u32::try_from(position).unwrap();
        assert_eq!(
            vec![("t-0".to_owned(), position), ("t-1".to_owned(), position)],
            decision.charges
        );
        parent.charge(&decision.charges);
        first.charge(&decision.charges);
    }
    assert_eq!(ReasonCode::UsesExhausted, on(&first, &parent).reason);
    let decision = on(&second, &parent);
    assert_eq!(ReasonCode::UsesExhausted, decision.reason, "all was used below the other child");
    assert!(decision.charges.is_empty());
    let back = [("t-0".to_owned(), 0)];
    parent.release(&back);
    assert_eq!(ReasonCode::UsesExhausted, on(&second, &parent).reason, "another entry");
    let position = parent.scope.iter().position(|e| e.operation == "crm.refund").unwrap();
    parent.release(&[("t-0".to_owned(), u32::try_from(position).unwrap())]);
    assert_eq!(ReasonCode::Permitted, on(&second, &parent).reason);
    // What is not counted is not charged.
    let get = ask_at(&plan, &first, &[Arc::new(parent)], "crm.get", r#"{"id": "acme"}"#, NOW);
    assert_eq!((ReasonCode::Permitted, true), (get.reason, get.charges.is_empty()));
}

#[test]
fn an_entry_that_is_not_counted_comes_first_and_one_with_uses_left_next() {
    let plan = plan(POLICIES);
    let params = acme();
    let mut task = start(&plan, root("answer", &params)).unwrap();
    let counted = |uses| ScopeEntry { uses, ..entry("crm.get") };
    task.scope = vec![counted(Some(1)), counted(Some(5)), counted(None)];
    task.uses = vec![0; 3];
    let charges = |task: &Task| ask(&plan, task, "crm.get", r#"{"id": "x"}"#).charges;
    assert!(charges(&task).is_empty());
    task.scope.pop();
    assert_eq!(vec![("t-0".to_owned(), 0)], charges(&task));
    task.charge(&[("t-0".to_owned(), 0), ("t-1".to_owned(), 1), ("t-0".to_owned(), 99)]);
    assert_eq!(vec![1, 0], task.uses[..2], "other tasks and entries that are not there");
    assert_eq!(vec![("t-0".to_owned(), 1)], charges(&task));
}

#[test]
fn an_asserted_subject_stays_below_high_and_tiers_are_capped_by_all() {
    let plan = plan(POLICIES);
    let none = BTreeMap::new();
    let risky = root("risky", &none);
    let verified = start(&plan, risky.clone()).unwrap();
    assert_eq!(ReasonCode::Permitted, ask(&plan, &verified, "crm.drop", "{}").reason);
    let asserted =
        start(&plan, Root { subject_proof: SubjectProof::Asserted, ..risky.clone() }).unwrap();
    assert_eq!(ReasonCode::TierRequirement, ask(&plan, &asserted, "crm.drop", "{}").reason);
    assert_eq!(ReasonCode::Permitted, ask(&plan, &asserted, "crm.get", r#"{"id": "x"}"#).reason);
    let capped = start(&plan, Root { tier_cap: Some(Tier::Standard), ..risky }).unwrap();
    assert_eq!("OUT_OF_SCOPE tier_cap", said(&ask(&plan, &capped, "crm.drop", "{}")));
    // A child has the lower cap, and its parent's counts also where its own is higher.
    let mut below = delegate(&plan, &capped, child("b", "t-1", &none)).unwrap();
    assert_eq!(Tier::Standard, below.tier_cap);
    below.tier_cap = Tier::Critical;
    let decision = ask_at(&plan, &below, &[Arc::new(capped)], "crm.drop", "{}", NOW);
    assert_eq!("OUT_OF_SCOPE tier_cap", said(&decision));
    // Without a task the lane may know that a subject is only asserted.
    let plan = plan_of("{name: a, tasks: optional}", TEMPLATES, POLICIES).unwrap();
    let chain = verified.chain();
    let facts = Facts { subject_proof: Some(SubjectProof::Asserted), ..facts(&chain) };
    let decision = decide(&plan, &facts, &request("crm.drop", "{}"), NOW);
    assert_eq!(ReasonCode::TierRequirement, decision.reason);
}

#[test]
fn policies_read_the_task() {
    let plan = plan(
        r#"@id("all") permit(principal, action, resource);
        @id("child") forbid(principal, action == Action::"crm.get", resource)
        when { context.task.kind == TaskKind::"child" && context.task.depth == 1 };
        @id("old") forbid(principal, action == Action::"crm.get", resource)
        when { context.task.template == Template::"answer" && context.task.age >= 60 };
        @id("purpose") forbid(principal, action == Action::"crm.search", resource)
        when { context.task.purpose == "answer one ticket" };
        @id("asserted") forbid(principal, action == Action::"crm.order", resource)
        when { context.subject_proof == SubjectProof::"asserted" };
        @id("length") forbid(principal, action == Action::"crm.status", resource)
        when { context.chain.depth == 3 };"#,
    );
    let params = acme();
    let none = BTreeMap::new();
    let task = start(&plan, root("answer", &params)).unwrap();
    let policies = |task: &Task, above: &[Arc<Task>], operation: &str, now: i64| {
        let arguments = if operation == "crm.order" { r#"{"id": 7}"# } else { r#"{"id": "acme"}"# };
        let arguments =
            if operation == "crm.get" || operation == "crm.order" { arguments } else { "{}" };
        ask_at(&plan, task, above, operation, arguments, Time(NOW.0 + now)).policies
    };
    assert_eq!(vec!["all"], policies(&task, &[], "crm.get", 59_999));
    assert_eq!(vec!["old"], policies(&task, &[], "crm.get", 60_000));
    assert_eq!(vec!["purpose"], policies(&task, &[], "crm.search", 0));
    assert_eq!(vec!["all"], policies(&task, &[], "crm.order", 0));
    let asserted = Task { subject_proof: SubjectProof::Asserted, ..task.clone() };
    assert_eq!(vec!["asserted"], policies(&asserted, &[], "crm.order", 0));
    let below = delegate(&plan, &task, child("b", "t-1", &none)).unwrap();
    let above = [Arc::new(task)];
    assert_eq!(vec!["child"], policies(&below, &above, "crm.get", 0));
}

#[test]
fn cedar_says_who_may_start_which() {
    let plan = plan(
        r#"@id("start") permit(principal, action == Action::"task:answer", resource == Template::"answer")
        when { context.input.customer == "acme" && context.input.limit < 10 };
        @id("other") permit(principal, action in Action::"system:authz", resource == System::"authz");"#,
    );
    let chain = start(&plan, root("answer", &acme())).unwrap().chain();
    for (operation, arguments, expected) in [
        ("task:answer", r#"{"customer": "acme", "limit": 9}"#, ReasonCode::Permitted),
        ("task:answer", r#"{"customer": "acme", "limit": 10}"#, ReasonCode::ChainNotPermitted),
        ("task:answer", r#"{"customer": "acme"}"#, ReasonCode::BadInput),
        ("task:look", "{}", ReasonCode::ChainNotPermitted),
        ("task:none", "{}", ReasonCode::UnknownOperation),
        ("authz.task.start_for", "{}", ReasonCode::Permitted),
        ("authz.task.read", "{}", ReasonCode::Permitted),
        ("authz.task.end", "{}", ReasonCode::Permitted),
        ("authz.revoke", "{}", ReasonCode::Permitted),
    ] {
        let decision = decide(&plan, &facts(&chain), &request(operation, arguments), NOW);
        assert_eq!(expected, decision.reason, "{operation} {arguments}");
        if operation == "task:answer" && decision.reason != ReasonCode::BadInput {
            assert_eq!("Template::\"answer\"", decision.resource);
        }
    }
    // A task is given to an agent, whose roles the policy sees.
    let plan = self::plan(
        r#"@id("a") permit(principal, action == Action::"give:answer", resource in Role::"desk")
        when { context.input.limit < 10 && resource.trust_domain == "a.example" };
        @id("b") forbid(principal, action in Action::"authz.task.give", resource)
        when { resource.spiffe_id like "*/b" };"#,
    );
    let own = r#"{"customer": "acme", "limit": 9}"#;
    for (operation, assignee, arguments, expected) in [
        ("give:answer", "spiffe://a.example/ns/desk/sa/c", own, ReasonCode::Permitted),
        ("give:answer", "spiffe://a.example/ns/desk/sa/b", own, ReasonCode::Forbidden),
        ("give:answer", "spiffe://a.example/ns/other/sa/c", own, ReasonCode::ChainNotPermitted),
        ("give:answer", "spiffe://a.example/ns/desk/sa/c", "{}", ReasonCode::BadInput),
        ("give:answer", "spiffe://a.example/ns/desk/sa/*", own, ReasonCode::BadInput),
        ("give:answer", "", own, ReasonCode::BadInput),
        ("give:look", "spiffe://a.example/ns/desk/sa/c", "{}", ReasonCode::ChainNotPermitted),
    ] {
        let request = Request { resource: Some(assignee), ..request(operation, arguments) };
        let decision = decide(&plan, &facts(&chain), &request, NOW);
        assert_eq!(expected, decision.reason, "{operation} {assignee} {arguments}");
    }
    let typo = plan_of(
        "name: a",
        TEMPLATES,
        r#"@id("a") permit(principal, action == Action::"give:anser", resource);
        @id("b") permit(principal, action in Action::"authz.task.give", resource in Role::"desks");
        @id("c") permit(principal, action in Action::"authz.task.give", resource) when { resource.spiffe == "a" };"#,
    );
    let typo = typo.unwrap_err();
    for what in ["unknown template `give:anser`; declared: give:answer", "`desks`", "`spiffe`"] {
        assert!(typo.contains(what), "{what}: {typo}");
    }
    let typo = plan_of(
        "name: a",
        TEMPLATES,
        r#"@id("a") permit(principal, action == Action::"task:anser", resource);
        @id("b") permit(principal, action, resource) when { context.task.template == Template::"anser" };"#,
    );
    assert_eq!(
        "policies/all.cedar:1:38: unknown template `task:anser`; declared: task:answer, task:brief, task:look, task:risky. Did you mean `task:answer`?\n\
         policies/all.cedar:2:86: unknown template `anser`; declared: answer (templates.yaml:3), brief (templates.yaml:24), look (templates.yaml:17), none, risky (templates.yaml:25). Did you mean `answer`?",
        typo.unwrap_err().trim_end()
    );
}

fn by_user(prompt: &str) -> Names {
    read_names(&[Part::of_user(prompt)], &BTreeMap::new(), Speaker::Subject, &KEY).names
}

/// Who said it decides what it trusts: the user always, a harness up to tier standard, an agent never.
#[test]
fn what_is_named_counts_by_who_said_it() {
    let plan = plan(
        r#"@id("all") permit(principal, action, resource);
        @id("named") forbid(principal, action, resource)
        when { context.destination.present && !context.destination.trusted };"#,
    );
    let params = acme();
    let to_bob = r#"{"to": ["bob@acme.example"], "text": "re/x"}"#;
    let reason = |names: Names| {
        let task = start(&plan, Root { names, ..root("answer", &params) }).unwrap();
        let chain = task.chain();
        let facts = Facts {
            task: Some(TaskView { task: &task, ancestors: &[] }),
            history: Some(HistoryView::new(&NOTHING)),
            literal_key: Some(&KEY),
            ..facts(&chain)
        };
        decide(&plan, &facts, &request("mail.send", to_bob), NOW).reason
    };
    let said = |by| {
        read_names(&[Part::of_user("Answer bob@acme.example")], &BTreeMap::new(), by, &KEY).names
    };
    assert_eq!(ReasonCode::Permitted, reason(said(Speaker::Subject)));
    assert_eq!(ReasonCode::Permitted, reason(said(Speaker::FrontEnd)));
    assert_eq!(ReasonCode::Permitted, reason(said(Speaker::Harness)));
    assert_eq!(ReasonCode::Forbidden, reason(said(Speaker::Agent)));
    assert!(!said(Speaker::Agent).claimed.is_empty(), "a claim is kept");
    let part = |said_by| {
        let parts = [Part { text: "Answer bob@acme.example", said_by }];
        read_names(&parts, &BTreeMap::new(), Speaker::Subject, &KEY).names
    };
    for said_by in [SaidBy::Quoted, SaidBy::Other] {
        assert!(part(said_by).is_empty(), "only the user's own words");
    }
    let params = BTreeMap::from([("to".to_owned(), Param::Text("bob@acme.example".to_owned()))]);
    let given = |by| read_names(&[], &params, by, &KEY).names;
    assert_eq!(ReasonCode::Permitted, reason(given(Speaker::Subject)));
    assert_eq!(ReasonCode::Forbidden, reason(given(Speaker::Agent)));
}

/// A task of an earlier version, whose literals say nothing of who named them.
#[test]
fn what_was_kept_without_an_origin_trusts_nothing() {
    let plan = plan(
        r#"@id("all") permit(principal, action, resource);
        @id("named") forbid(principal, action, resource)
        when { context.destination.present && !context.destination.trusted };"#,
    );
    let task = start(&plan, Root { names: by_user("bob@acme.example"), ..root("answer", &acme()) });
    let mut stored = serde_json::to_value(task.unwrap()).unwrap();
    let of_before = stored["names"]["user"].take();
    stored.as_object_mut().unwrap().remove("names");
    stored["literals"] = of_before;
    let task: Task = serde_json::from_value(stored.clone()).unwrap();
    assert!(task.names.is_empty());
    assert_eq!(stored["literals"], serde_json::to_value(&task).unwrap()["literals"], "kept");
    let text = r#"{"to": ["bob@acme.example"], "text": "re/x"}"#;
    assert_eq!(ReasonCode::Forbidden, ask_at(&plan, &task, &[], "mail.send", text, NOW).reason);
}

#[test]
fn a_destination_is_trusted_where_the_user_named_all_of_them() {
    let plan = plan(
        r#"@id("all") permit(principal, action, resource);
        @id("named") forbid(principal, action, resource)
        when { context.destination.present && !context.destination.trusted };"#,
    );
    let params = acme();
    let prompt = "Answer T-1 from bob@acme.example, in copy ann@acme.example.";
    let task = start(&plan, Root { names: by_user(prompt), ..root("answer", &params) });
    let mut task = task.unwrap();
    let to = |task: &Task, above: &[Arc<Task>], to: &str| {
        let text = format!(r#"{{"to": [{to}], "text": "re/x"}}"#);
        ask_at(&plan, task, above, "mail.send", &text, NOW).reason
    };
    assert_eq!(ReasonCode::Permitted, to(&task, &[], r#""bob@acme.example""#));
    assert_eq!(ReasonCode::Permitted, to(&task, &[], r#""bob@ACME.example", "ann@acme.example""#));
    // Of one host and class with the first, so policies cannot tell it apart.
    assert_eq!(ReasonCode::Forbidden, to(&task, &[], r#""bob@acme.example", "eve@acme.example""#));
    assert_eq!(ReasonCode::Forbidden, to(&task, &[], ""));
    let below = delegate(&plan, &task, child("b", "t-1", &BTreeMap::new())).unwrap();
    assert!(below.names.is_empty());
    assert_eq!(
        ReasonCode::Permitted,
        to(&below, &[Arc::new(task.clone())], r#""bob@acme.example""#),
        "the root's count"
    );
    extend(&mut task, by_user("And carol@x.example"));
    assert_eq!(ReasonCode::Permitted, to(&task, &[], r#""carol@x.example""#));
    let chain = task.chain();
    let facts = Facts {
        task: Some(TaskView { task: &task, ancestors: &[] }),
        history: Some(HistoryView::new(&NOTHING)),
        literal_key: Some(&[9; 32]),
        ..facts(&chain)
    };
    let send = request("mail.send", r#"{"to": ["bob@acme.example"], "text": "re/x"}"#);
    assert_eq!(ReasonCode::Forbidden, decide(&plan, &facts, &send, NOW).reason, "another key");
    let facts = Facts { literal_key: None, ..facts };
    assert_eq!(ReasonCode::Forbidden, decide(&plan, &facts, &send, NOW).reason, "no key");
}

#[test]
fn a_start_that_asks_for_too_much_is_refused() {
    let plan = plan(POLICIES);
    let acme = acme();
    let none = BTreeMap::new();
    let with = |name: &str, value: Param| {
        let mut all = acme.clone();
        all.insert(name.to_owned(), value);
        all
    };
    let long = "x".repeat(1_025);
    for (template, params, expected) in [
        ("answer", acme.clone(), "started t-0"),
        ("none", acme.clone(), "BAD_INPUT: the bundle has no template `none`"),
        ("answer", none.clone(), "BAD_INPUT: the parameter `customer` is missing"),
        ("look", acme.clone(), "BAD_INPUT: the template has no parameter `customer`"),
        (
            "answer",
            with("limit", Param::Bool(true)),
            "BAD_INPUT: the parameter `limit` is no Long; a text has 1 to 1,024 bytes and no control characters",
        ),
        (
            "answer",
            with("customer", Param::Text(String::new())),
            "BAD_INPUT: the parameter `customer` is no String; a text has 1 to 1,024 bytes and no control characters",
        ),
        (
            "answer",
            with("customer", Param::Text(long)),
            "BAD_INPUT: the parameter `customer` is no String; a text has 1 to 1,024 bytes and no control characters",
        ),
        (
            "answer",
            with("customer", Param::Text("acme/../b".to_owned())),
            "BAD_INPUT: the parameter `customer`: it has a dot segment",
        ),
    ] {
        assert_eq!(expected, refused(start(&plan, root(template, &params))));
    }
    let narrow =
        |scope: &[ScopeEntry]| refused(start(&plan, Root { scope, ..root("answer", &acme) }));
    let resources =
        |operation: &str, resources: Selector| ScopeEntry { resources, ..entry(operation) };
    let refund = ScopeEntry {
        resources: Selector { ids: Some(set(&["acme"])), ..Selector::default() },
        arguments: [
            ("/amount".to_owned(), Limit::Range(5, 50)),
            ("/tags".to_owned(), Limit::OneOf(set(&["a"]))),
        ]
        .into(),
        uses: Some(1),
        ..entry("crm.refund")
    };
    let limited = |pointer: &str, limit: Limit| {
        let mut one = refund.clone();
        one.arguments.insert(pointer.to_owned(), limit);
        one
    };
    let text = |limit: Limit| ScopeEntry {
        arguments: [("/text".to_owned(), limit)].into(),
        ..entry("mail.send")
    };
    let ceiling = Some(set(&["pii"]));
    for (scope, expected) in [
        (vec![refund.clone()], "started t-0"),
        (vec![entry("crm.search"), entry("crm.edit")], "started t-0"),
        (vec![entry("crm.status")], "OUT_OF_SCOPE: operation: `crm.status`"),
        (vec![entry("crm.nothing")], "OUT_OF_SCOPE: operation: `crm.nothing`"),
        (vec![entry("crm.get")], "OUT_OF_SCOPE: path_prefix: `crm.get`"),
        (
            vec![resources(
                "crm.get",
                Selector {
                    path_prefix: Some("acme/1".to_owned()),
                    label_ceiling: ceiling.clone(),
                    ..Selector::default()
                },
            )],
            "started t-0",
        ),
        (
            vec![resources(
                "crm.get",
                Selector {
                    ids: Some(set(&["acme/1", "acme"])),
                    label_ceiling: ceiling.clone(),
                    ..Selector::default()
                },
            )],
            "started t-0",
        ),
        (
            vec![resources(
                "crm.get",
                Selector {
                    ids: Some(set(&["acme/1", "acmes"])),
                    label_ceiling: ceiling,
                    ..Selector::default()
                },
            )],
            "OUT_OF_SCOPE: path_prefix: `crm.get`",
        ),
        (
            vec![resources(
                "crm.get",
                Selector { path_prefix: Some("acme".to_owned()), ..Selector::default() },
            )],
            "OUT_OF_SCOPE: label_ceiling: `crm.get`",
        ),
        (vec![entry("crm.order")], "OUT_OF_SCOPE: ids: `crm.order`"),
        (vec![ScopeEntry { uses: Some(3), ..refund.clone() }], "OUT_OF_SCOPE: uses: `crm.refund`"),
        (
            vec![limited("/amount", Limit::Range(5, 101))],
            "OUT_OF_SCOPE: argument /amount: `crm.refund`",
        ),
        (vec![limited("/amount", Limit::OneOf(set(&["5", "100"])))], "started t-0"),
        (
            vec![limited("/amount", Limit::OneOf(set(&["5", "0100"])))],
            "OUT_OF_SCOPE: argument /amount: `crm.refund`",
        ),
        (
            vec![limited("/tags", Limit::OneOf(set(&["a", "b"])))],
            "OUT_OF_SCOPE: argument /tags: `crm.refund`",
        ),
        (
            vec![limited("/tags", Limit::Prefix("a".to_owned()))],
            "OUT_OF_SCOPE: argument /tags: `crm.refund`",
        ),
        (vec![text(Limit::Prefix("re/T".to_owned()))], "started t-0"),
        (vec![text(Limit::OneOf(set(&["re/T-1"])))], "started t-0"),
        (vec![text(Limit::Prefix("re".to_owned()))], "OUT_OF_SCOPE: argument /text: `mail.send`"),
        (vec![entry("mail.send")], "OUT_OF_SCOPE: argument /text: `mail.send`"),
        (
            vec![resources(
                "crm.search",
                Selector { ids: Some(set(&["a//b"])), ..Selector::default() },
            )],
            "BAD_INPUT: a value in the scope: it has an empty segment, or ends in a slash",
        ),
        (vec![limited("/amount", Limit::Range(5, 1))], "BAD_INPUT: a range that holds no number"),
        (
            vec![ScopeEntry { uses: Some(1), ..entry("crm.edit") }],
            "BAD_INPUT: `crm.edit` is several operations: uses cannot count it",
        ),
        (vec![entry("crm.search"); 1_001], "BAD_INPUT: the scope has more than 1000 entries"),
    ] {
        assert_eq!(expected, narrow(&scope), "{:?}", scope.first());
    }
    let until = |deadline: i64| {
        let deadline = Some(Time(NOW.0 + deadline));
        refused(start(&plan, Root { deadline, ..root("answer", &acme) }))
    };
    assert_eq!("started t-0", until(30 * MINUTE));
    assert_eq!("OUT_OF_SCOPE: deadline: it may live less long", until(30 * MINUTE + 1));
    assert_eq!("BAD_INPUT: the deadline has passed", until(0));
    let nobody = Root { subject: None, ..root("answer", &acme) };
    assert_eq!(
        "BAD_INPUT: nothing proves a subject that is not there",
        refused(start(&plan, nobody))
    );
}

#[test]
fn what_says_no_uses_gets_those_of_the_wider_entry() {
    let plan = plan(POLICIES);
    let acme = acme();
    let send = ScopeEntry {
        arguments: [("/text".to_owned(), Limit::Prefix("re/".to_owned()))].into(),
        ..entry("mail.send")
    };
    let scope = [send];
    let task = start(&plan, Root { scope: &scope, ..root("answer", &acme) }).unwrap();
    assert_eq!(Some(3), task.scope[0].uses);
    let none = BTreeMap::new();
    let below =
        delegate(&plan, &task, Child { scope: &scope, ..child("b", "t-1", &none) }).unwrap();
    assert_eq!(Some(3), below.scope[0].uses);
}

#[test]
fn a_child_gets_no_more_than_its_parent() {
    let plan = plan(POLICIES);
    let acme = acme();
    let none = BTreeMap::new();
    let parent = start(&plan, root("answer", &acme)).unwrap();
    let below = delegate(&plan, &parent, child("b", "t-1", &none)).unwrap();
    assert_eq!((parent.scope.clone(), &parent.params), (below.scope.clone(), &below.params));
    assert_eq!((TaskKind::Child, 1, "s"), (below.kind, below.depth(), below.session.as_str()));
    assert_eq!(vec!["t-0".to_owned()], below.ancestors);
    assert_eq!(vec![agent("a"), agent("b")], below.agents);
    assert_eq!((parent.deadline, parent.idle_timeout_ms), (below.deadline, below.idle_timeout_ms));

    let of = |child: Child<'_>| refused(delegate(&plan, &parent, child));
    let one = |template| Child { template: Some(template), ..child("b", "t-1", &none) };
    // The parent may not look at every customer.
    assert_eq!("OUT_OF_SCOPE: path_prefix: `crm.get`", of(one("brief")));
    assert_eq!("BAD_INPUT: the bundle has no template `x`", of(one("x")));
    assert_eq!(
        "BAD_INPUT: the parameter `customer` is missing",
        of(Child { params: &params(&[("limit", Param::Long(1))]), ..child("b", "t-1", &none) })
    );
    let other = params(&[("customer", Param::Text("other".to_owned())), ("limit", Param::Long(9))]);
    assert_eq!(
        "OUT_OF_SCOPE: path_prefix: `crm.get`",
        of(Child { params: &other, ..child("b", "t-1", &none) })
    );
    assert_eq!("started t-1", of(Child { params: &acme, ..child("b", "t-1", &none) }));
    let scope = [entry("crm.search")];
    assert_eq!("started t-1", of(Child { scope: &scope, ..child("b", "t-1", &none) }));
    let late = Child { deadline: Some(Time(parent.deadline.0 + 1)), ..child("b", "t-1", &none) };
    assert_eq!("OUT_OF_SCOPE: deadline: it may live less long", of(late));
    let ended = Task { status: TaskStatus::Completed, ..parent.clone() };
    assert_eq!(
        "TASK_ENDED: the parent has ended",
        refused(delegate(&plan, &ended, child("b", "t-1", &none)))
    );

    // A scope beside another template is within both.
    let looking = start(&plan, root("look", &none)).unwrap();
    let brief = Child { template: Some("brief"), ..child("b", "t-1", &none) };
    let below = delegate(&plan, &looking, brief.clone()).unwrap();
    assert_eq!(1, below.scope.len());
    assert_eq!((Time(NOW.0 + 5 * MINUTE), Some(MINUTE)), (below.deadline, below.idle_timeout_ms));
    assert_eq!((Tier::Low, 1), (below.tier_cap, below.max_depth));
    let wider = [entry("crm.status")];
    assert_eq!(
        "OUT_OF_SCOPE: operation: `crm.status`",
        refused(delegate(&plan, &looking, Child { scope: &wider, ..brief }))
    );
}

/// An agent that works without tasks has one session with each subject, and is given nothing.
#[test]
fn an_agent_works_in_tasks_or_without() {
    let manifest = "{name: a, implicit_tasks: {agents: [loner], template: look, tier_cap: high}}";
    let of = |templates: &str| {
        let templates = format!("{templates}{UNSTARTED}");
        plan_of(manifest, &templates, POLICIES).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let plan = of(TEMPLATES);
    let loner = AgentName::parse("spiffe://a.example/ns/loner/sa/a").unwrap();
    let none = BTreeMap::new();
    let given = start(&plan, Root { assignee: loner.clone(), ..root("look", &none) });
    let why = "NOT_PERMITTED: the agent works without tasks (`implicit_tasks.agents`), and so is given none";
    assert_eq!(why, refused(given));
    let parent = start(&plan, root("look", &none)).unwrap();
    let below = Child { assignee: loner.clone(), ..child("b", "t-1", &none) };
    assert_eq!(why, refused(delegate(&plan, &parent, below)));
    let who = |sub: &str, group: &str| {
        let claims = BTreeMap::from([("groups".to_owned(), Claim::Texts(vec![group.to_owned()]))]);
        let subject = TaskSubject {
            issuer: "corp".into(),
            sub: sub.into(),
            claims,
            ..TaskSubject::default()
        };
        vec![subject.principal(), loner.principal()]
    };
    let alone = vec![loner.principal()];
    let (alice, bob) = (who("alice", "staff"), who("bob", "staff"));
    let first = implicit(&plan, &alice, "", NOW).unwrap().unwrap();
    assert_eq!(Some(&first.id), implicit_id(&alice).as_ref());
    assert_eq!(
        (first.id.as_str(), 0, Tier::Low),
        (first.session.as_str(), first.max_depth, first.tier_cap)
    );
    let ids: BTreeSet<_> = [&alice, &bob, &alone].map(|chain| implicit_id(chain)).into();
    assert_eq!(3, ids.len());
    // Claims do not tell pairs apart.
    assert_eq!(implicit_id(&alice), implicit_id(&who("alice", "guests")));
    let first = Arc::new(first);
    let same = renewed(&plan, &first).unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    // The template counts as it is now, whatever it was when the session began.
    let narrow =
        of(&TEMPLATES.replace("effects: [read]}", "effects: [read], resources: {ids: [a]}}"));
    let narrowed = renewed(&narrow, &first).unwrap().unwrap();
    assert_eq!((first.started_at, first.deadline), (narrowed.started_at, narrowed.deadline));
    assert_ne!(first.scope, narrowed.scope);
    assert!(implicit(&plan, &[agent("a").principal()], "", NOW).unwrap().is_none());
    // A day after its last permit, and a week after its first, it is forgotten; what was taken away is not, for a week. The note
    // of the last permit may be a tenth of the time-out old.
    let at = |ms: i64| Time(NOW.0 + ms);
    let day = 24 * 60 * MINUTE;
    let kept = first.idle_timeout_ms.unwrap();
    assert_eq!(day, kept - kept / 10);
    assert_eq!(TaskStatus::Active, first.status_at(at(kept - 1)));
    assert_eq!(TaskStatus::Expired, first.status_at(at(kept)));
    let used = Task { last_used: at(7 * day - 2), ..Task::clone(&first) };
    assert_eq!(TaskStatus::Active, used.status_at(at(7 * day - 1)));
    assert_eq!(TaskStatus::Expired, used.status_at(at(7 * day)));
    let taken = Task { status: TaskStatus::Revoked, ended_at: Some(NOW), ..used };
    assert!(taken.is_barred(at(30 * day - 1)) && !taken.is_barred(at(30 * day)));
    let root = Task { kind: TaskKind::Root, ..taken };
    assert!(!root.is_barred(NOW));
}

#[test]
fn depth_and_length_of_the_chain_are_limited() {
    let plan = plan(POLICIES);
    let acme = acme();
    let none = BTreeMap::new();
    let mut task = start(&plan, root("answer", &acme)).unwrap();
    for depth in 1..=2 {
        task = delegate(&plan, &task, child("b", &format!("t-{depth}"), &none)).unwrap();
    }
    let third = delegate(&plan, &task, child("c", "t-3", &none));
    assert_eq!("TOO_DEEP: a task of depth 3 where at most 2 is allowed", refused(third));
    let flat = start(&plan, root("brief", &none)).unwrap();
    let below = delegate(&plan, &flat, child("b", "t-1", &none));
    assert_eq!("TOO_DEEP: a task of depth 1 where at most 0 is allowed", refused(below));
    let implicit = start(&plan, Root { kind: TaskKind::Implicit, ..root("risky", &none) }).unwrap();
    assert_eq!(0, implicit.max_depth);
    // The deepest has a chain that is as long as one may be.
    let mut task = start(&plan, root("risky", &none)).unwrap();
    let mut above = Vec::new();
    for depth in 1..=6 {
        let next = delegate(&plan, &task, child("b", &format!("t-{depth}"), &none)).unwrap();
        above.push(Arc::new(task));
        task = next;
    }
    assert_eq!(8, task.chain().len());
    let decision = ask_at(&plan, &task, &above, "crm.drop", "{}", NOW);
    assert_eq!(ReasonCode::Permitted, decision.reason);
    assert_eq!(Outcome::Permit, decision.outcome);
    let deeper = Task { max_depth: 99, ..task };
    let refusal = refused(delegate(&plan, &deeper, child("c", "t-7", &none)));
    assert_eq!("TOO_DEEP: a chain of 9 principals, at most 8 are allowed", refusal);
}

#[test]
fn each_fault_of_a_template_has_its_message() {
    let about = |text: &str| match plan_of("name: a", &format!("templates:\n  t: {text}"), POLICIES)
    {
        Ok(_) => "loaded".to_owned(),
        Err(errors) => errors.trim_end().to_owned(),
    };
    let with = |scope: &str| {
        about(&format!("{{purpose: p, params: {{c: String}}, deadline: 1h, scope: [{scope}]}}"))
    };
    let mut wrong = Vec::new();
    let mut check = |text: &str, expected: &str, got: String| {
        if expected != got {
            wrong.push(format!("{text}\n  expected {expected}\n  actual   {got}"));
        }
    };
    for (text, expected) in [
        ("{purpose: p, deadline: 1h, scope: [{operation: crm.get}]}", "loaded"),
        ("{deadline: 1h, scope: []}", "templates.yaml:2:6: `purpose` is missing. Add it."),
        ("{purpose: p, deadline: 1h}", "templates.yaml:2:6: `scope` is missing. Add it."),
        ("{purpose: p, scope: []}", "templates.yaml:2:6: `deadline` is missing. Add it."),
        (
            "{purpose: p, deadline: 1h, scope: []}",
            "templates.yaml:2:3: the tasks of this template may do nothing. Add `{operation: …}` to `scope`.",
        ),
        (
            "{purpose: '', deadline: 1h, scope: [{operation: crm.get}]}",
            "templates.yaml:2:16: a purpose is one line of at most 256 bytes. Say what the task is for.",
        ),
        (
            "{purpose: p, deadline: 25h, scope: [{operation: crm.get}]}",
            "templates.yaml:2:29: `deadline` is longer than 24h. Write at most 24h.",
        ),
        (
            "{purpose: p, deadline: soon, scope: [{operation: crm.get}]}",
            "templates.yaml:2:29: `soon` is no duration. Write a whole number and a unit: 30s, 15m or 2h, at most 24h.",
        ),
        (
            "{purpose: p, deadline: 1h, idle_timeout: 2h, scope: [{operation: crm.get}]}",
            "templates.yaml:2:47: `idle_timeout` is longer than `deadline`. Make it shorter, or remove it.",
        ),
        (
            "{purpose: p, deadline: 1h, max_depth: 7, scope: [{operation: crm.get}]}",
            "templates.yaml:2:44: `max_depth` 7 is above 6. Write 0 to 6.",
        ),
        (
            "{purpose: p, deadline: 1h, tier_cap: hihg, scope: [{operation: crm.get}]}",
            "templates.yaml:2:43: unknown value `hihg`; known: low, standard, high, critical. Did you mean `high`?",
        ),
        (
            "{purpose: p, deadline: 1h, starters: [staff], scope: [{operation: crm.get}]}",
            "templates.yaml:2:44: unknown role of agents `staff`; declared: desk (facts.yaml:3). Write one of the declared names, or declare this one.",
        ),
        ("{purpose: p, deadline: 1h, beyond: step_up, scope: [{operation: crm.get}]}", "loaded"),
        (
            "{purpose: p, deadline: 1h, beyond: {step_up: 'approve:staff'}, scope: [{operation: crm.get}]}",
            "loaded",
        ),
        (
            "{purpose: p, deadline: 1h, beyond: {step_up: 'reauth:urn:corp:mfa'}, scope: [{operation: crm.get}]}",
            "loaded",
        ),
        (
            "{purpose: p, deadline: 1h, beyond: {step_up: aprove}, scope: [{operation: crm.get}]}",
            "templates.yaml:2:51: unknown step-up kind `aprove`; declared: approve, confirm, two_person, fresh_credential, bound_token and 3 more. Did you mean `approve`?",
        ),
        (
            "{purpose: p, deadline: 1h, beyond: {step_up: 'approve:nobody'}, scope: [{operation: crm.get}]}",
            "templates.yaml:2:51: unknown step-up kind `approve:nobody`; declared: confirm, approve, two_person, fresh_credential, bound_token and 3 more. Known are confirm, approve, two_person, fresh_credential, bound_token, confidence, approve:ROLE and reauth:ACR.",
        ),
        (
            "{purpose: p, deadline: 1h, beyond: deny, scope: [{operation: crm.get}]}",
            "templates.yaml:2:41: unknown value `deny`; known: step_up. Write one of the known values.",
        ),
        (
            "{purpose: p, deadline: 1h, params: {1c: String}, scope: [{operation: crm.get}]}",
            "templates.yaml:2:42: bad parameter `1c`. Use letters, digits and `_`, a letter first, at most 64.",
        ),
        (
            "{purpose: p, deadline: 1h, params: {c: Float}, scope: [{operation: crm.get}]}",
            "templates.yaml:2:45: unknown value `Float`; known: String, Long, Bool. Write one of the known values.",
        ),
        (
            "{purpose: p, deadline: 1h, labels: [pii], scope: [{operation: crm.get}]}",
            "templates.yaml:2:33: unknown key `labels`; known: purpose, params, deadline, idle_timeout, max_depth, tier_cap, starters, scope, beyond, names. Remove it, or write one of the known keys.",
        ),
    ] {
        check(text, expected, about(text));
    }
    let named = plan_of(
        "name: a",
        "templates: {none: {purpose: p, deadline: 1h, scope: [{operation: crm.get}]}}",
        POLICIES,
    );
    check(
        "none",
        "templates.yaml:1:13: bad template `none`: `none` stands for a request without a task. Rename it.",
        named.unwrap_err().trim_end().to_owned(),
    );
    for (scope, expected) in [
        ("{operation: crm.get, resources: {ids: '{c}', collections: customers}}", "loaded"),
        ("{operation: crm.edit}", "loaded"),
        ("{operations: [crm.get, crm.edit, crm.get]}", "loaded"),
        ("{system: crm, resources: {collections: [orders]}}", "loaded"),
        (
            "{}",
            "templates.yaml:2:62: an entry has one of `operation`, `operations` and `system`. Say what the task may call.",
        ),
        (
            "{operation: crm.get, system: crm}",
            "templates.yaml:2:62: an entry has one of `operation`, `operations` and `system`. Say what the task may call.",
        ),
        (
            "{operation: crm.gte}",
            "templates.yaml:2:74: unknown operation `crm.gte`; declared: crm.get (facts.yaml:16), crm.drop (facts.yaml:29), crm.edit.change (facts.yaml:27), crm.edit.see (facts.yaml:27), crm.order (facts.yaml:18) and 5 more. Did you mean `crm.get`?",
        ),
        ("{operations: []}", "templates.yaml:2:62: `operations` is empty. Name an operation."),
        (
            "{system: crn}",
            "templates.yaml:2:71: unknown system `crn`; declared: crm (facts.yaml:13), mail (facts.yaml:31), raw (facts.yaml:35). Did you mean `crm`?",
        ),
        (
            "{system: raw}",
            "templates.yaml:2:62: no operation of `raw` is meant by this entry. Correct `effects` or `resources`, or classify its operations.",
        ),
        (
            "{system: mail, effects: [read]}",
            "templates.yaml:2:62: no operation of `mail` is meant by this entry. Correct `effects` or `resources`, or classify its operations.",
        ),
        (
            "{operation: crm.get, effects: [read]}",
            "templates.yaml:2:92: `effects` goes with `system`. Remove it: the operations are named.",
        ),
        (
            "{operation: crm.edit, uses: 2}",
            "templates.yaml:2:90: `uses` counts one operation, and the entry has several. Write an entry of its own for each that is counted.",
        ),
        (
            "{system: mail, uses: 2}",
            "templates.yaml:2:83: `uses` counts one operation, and the entry has several. Write an entry of its own for each that is counted.",
        ),
        (
            "{operation: crm.get, uses: 0}",
            "templates.yaml:2:89: `uses: 0` permits nothing. Remove the entry.",
        ),
        (
            "{operation: crm.status, resources: {ids: [a]}}",
            "templates.yaml:2:97: `crm.status` acts on no such resource. Correct `resources`, or remove the entry.",
        ),
        (
            "{operation: crm.order, resources: {collections: customers}}",
            "templates.yaml:2:96: `crm.order` acts on no such resource. Correct `resources`, or remove the entry.",
        ),
        (
            "{operation: crm.get, resources: {collections: [custmers]}}",
            "templates.yaml:2:109: unknown collection `custmers`; declared: customers (facts.yaml:8), orders (facts.yaml:9). Did you mean `customers`?",
        ),
        (
            "{operation: crm.get, resources: {label_ceiling: [pi]}}",
            "templates.yaml:2:111: unknown label `pi`; declared: pii (facts.yaml:6), sealed (facts.yaml:6). Did you mean `pii`?",
        ),
        (
            "{operation: crm.get, resources: {ids: ['a/']}}",
            "templates.yaml:2:101: bad value `a/`: it has an empty segment, or ends in a slash. Write one `/` between segments, and none at the end.",
        ),
        (
            "{operation: crm.get, resources: {ids: ['{d}']}}",
            "templates.yaml:2:101: unknown parameter `d`; declared: c. Did you mean `c`?",
        ),
        (
            "{operation: crm.get, resources: {path_prefix: 'x/{c}'}}",
            "templates.yaml:2:108: `x/{c}`: a parameter stands for a whole value. Write `{name}` and nothing beside it.",
        ),
        (
            "{operation: crm.refund, arguments: {/amuont: {range: [1, 2]}}}",
            "templates.yaml:2:98: `/amuont` names no argument of `crm.refund`: unknown argument `amuont`; declared: amount, id, tags. Did you mean `amount`?",
        ),
        (
            "{operation: crm.refund, arguments: {/amount: {prefix: x}}}",
            "templates.yaml:2:98: `/amount` of `crm.refund` is not declared as string. Give the argument `type: string` in the catalog.",
        ),
        (
            "{operation: crm.refund, arguments: {/id: {range: [1, 2]}}}",
            "templates.yaml:2:98: `/id` of `crm.refund` is not declared as integer. Give the argument `type: integer` in the catalog.",
        ),
        (
            "{operation: crm.refund, arguments: {/amount: {range: [2, 1]}}}",
            "templates.yaml:2:107: a range is two whole numbers. Write `range: [1, 100]`, the smaller number first.",
        ),
        (
            "{operation: crm.refund, arguments: {/id: {like: x}}}",
            "templates.yaml:2:104: unknown value `like`; known: one_of, range, prefix. Write one of the known values.",
        ),
        (
            "{operation: mail.send, arguments: {/text: {prefix: ''}}}",
            "templates.yaml:2:113: bad value ``: it is empty, or longer than 1,024 bytes. Write 1 to 1,024 bytes.",
        ),
    ] {
        check(scope, expected, with(scope));
    }
    for (manifest, expected) in [
        ("{name: a, implicit_tasks: {agents: loner, template: look}}", "loaded"),
        (
            "{name: a, tasks: optional, implicit_tasks: {agents: [loner], template: look, tier_cap: standard}}",
            "loaded",
        ),
        (
            "{name: a, implicit_tasks: {agents: [loner], template: answer}}",
            "bundle.yaml:1:55: the template `answer` has parameters, and nobody says them for an agent that works without tasks. Name a template without `params`.",
        ),
        (
            "{name: a, implicit_tasks: {agents: [loner], template: lok}}",
            "bundle.yaml:1:55: unknown template `lok`; declared: look (templates.yaml:17), answer (templates.yaml:3), brief (templates.yaml:24), counted (templates.yaml:26), risky (templates.yaml:25). Did you mean `look`?",
        ),
        (
            "{name: a, implicit_tasks: {agents: [loner], template: counted}}",
            "bundle.yaml:1:55: the template `counted` counts the uses of `crm.get` in a task, and these agents have none. Remove `uses` there, and write a budget: `budgets: {NAME: {count: crm.get, most: N, within: 24h}}`.",
        ),
        (
            "{name: a, implicit_tasks: {template: look}}",
            "bundle.yaml:1:27: `implicit_tasks` does not say which agents work without tasks. Add `agents: [ROLE]`. An agent of such a role is given no task; any other agent needs one.",
        ),
        (
            "{name: a, implicit_tasks: {agents: [lonr], template: look}}",
            "bundle.yaml:1:37: unknown role of agents `lonr`; declared: loner (templates.yaml:28), desk (facts.yaml:3), twin (templates.yaml:29). Did you mean `loner`?",
        ),
        (
            "{name: a, implicit_tasks: {agents: [staff], template: look}}",
            "bundle.yaml:1:37: unknown role of agents `staff`; declared: desk (facts.yaml:3), loner (templates.yaml:28), twin (templates.yaml:29). Write one of the declared names, or declare this one.",
        ),
        (
            "{name: a, implicit_tasks: {agents: [desk], template: look}}",
            "templates.yaml:3:3: agents of role `desk` start tasks of `answer`, and such an agent works without tasks: `spiffe://a.example/ns/desk/sa/*` (facts.yaml:3) of role `desk`, which `implicit_tasks.agents` of bundle.yaml names. Remove `desk` from `starters`, or `desk` from `implicit_tasks.agents`, or let their patterns name different agents.",
        ),
        (
            "{name: a, implicit_tasks: {agents: [loner, twin], template: look}}",
            "templates.yaml:3:3: agents of role `desk` start tasks of `answer`, and such an agent works without tasks: `spiffe://a.example/ns/*/sa/twin` (templates.yaml:29) of role `twin`, which `implicit_tasks.agents` of bundle.yaml names. Remove `desk` from `starters`, or `twin` from `implicit_tasks.agents`, or let their patterns name different agents.",
        ),
    ] {
        let templates = format!("{TEMPLATES}{UNSTARTED}");
        let got = plan_of(manifest, &templates, POLICIES)
            .map_or_else(|e| e.trim_end().to_owned(), |_| "loaded".to_owned());
        check(manifest, expected, got);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_bundle_says_of_tasks_is_kept() {
    let plan = plan_of(
        "{name: a, taskless_tier: low, implicit_tasks: {agents: [loner], template: look}}",
        &format!("{TEMPLATES}{UNSTARTED}"),
        POLICIES,
    )
    .unwrap();
    let rule = &plan.model().tasks;
    assert!(!rule.optional);
    assert_eq!(Some(Tier::Low), rule.taskless_tier);
    let implicit = rule.implicit.as_ref().unwrap();
    assert_eq!(("look", Tier::Low), (implicit.template.as_str(), implicit.tier_cap));
    let template = plan.template("answer").unwrap();
    assert!(template.is_started_by(&["other", "desk"]) && !template.is_started_by(&["staff"]));
    let operations: Vec<&str> = template.scope.iter().map(|rule| rule.operation.as_str()).collect();
    let sorted = [
        "crm.edit.change",
        "crm.edit.see",
        "crm.get",
        "crm.order",
        "crm.refund",
        "crm.search",
        "mail.send",
    ];
    assert_eq!(sorted.as_slice(), operations);
    let look: Vec<&str> =
        plan.template("look").unwrap().scope.iter().map(|r| r.operation.as_str()).collect();
    assert_eq!(
        ["crm.edit.see", "crm.get", "crm.order", "crm.search", "crm.status"].as_slice(),
        look
    );
    // Another template has another digest, and the same the same.
    assert_eq!(template.digest(), plan.template("answer").unwrap().digest());
    assert_ne!(template.digest(), plan.template("look").unwrap().digest());
    assert!(plan.template("none").is_none());
}

#[test]
fn a_bundle_that_permits_nothing_says_so() {
    let warnings = |manifest: &str, templates: &str| {
        let plan =
            plan_of(manifest, templates, POLICIES).unwrap_or_else(|errors| panic!("{errors}"));
        let all = plan.warnings().iter().map(ToString::to_string);
        all.filter(|one| !one.contains("nothing reads")).collect::<Vec<_>>()
    };
    let said = "bundle.yaml: warning: every operation needs a task, and there is no template to start one from. \
                Add `templates`, or say `tasks: optional`.";
    assert_eq!(vec![said], warnings("name: a", "labels: {}"));
    for manifest in ["{name: a, tasks: optional}", "{name: a, taskless_tier: low}"] {
        assert!(warnings(manifest, "labels: {}").is_empty(), "{manifest}");
    }
    assert!(warnings("name: a", TEMPLATES).is_empty());
}

#[test]
fn a_limit_that_is_not_known_is_not_read_past() {
    let plan = plan(POLICIES);
    let params = acme();
    let task = start(&plan, root("answer", &params)).unwrap();
    let text = serde_json::to_string(&task).unwrap();
    assert_eq!(task, serde_json::from_str(&text).unwrap());
    let mut newer: serde_json::Value = serde_json::from_str(&text).unwrap();
    newer["later"] = 1.into();
    let kept: Task = serde_json::from_value(newer.clone()).unwrap();
    assert_eq!(Some(&1.into()), kept.rest.get("later"));
    for place in ["/scope/0", "/scope/0/resources", "/agents/0", "/subject"] {
        let mut newer = newer.clone();
        newer.pointer_mut(place).unwrap()["later"] = 1.into();
        assert!(serde_json::from_value::<Task>(newer).is_err(), "{place}");
    }
    newer["scope"][0]["arguments"] = serde_json::json!({"/a": {"like": "x"}});
    assert!(serde_json::from_value::<Task>(newer).is_err());
}

#[test]
fn an_agent_is_named_by_a_whole_spiffe_id() {
    assert_eq!("a.example", agent("x").trust_domain);
    for id in
        ["", "a.example/x", "spiffe://a.example", "spiffe://a.example/*", "spiffe://A.example/x"]
    {
        assert!(AgentName::parse(id).is_err(), "{id}");
    }
}

#[test]
fn what_a_task_could_do_is_listed() {
    let plan = plan(POLICIES);
    let params = acme();
    let mut task = start(&plan, root("answer", &params)).unwrap();
    let chain = task.chain();
    let of = |task: &Task, now: Time| {
        listed(&plan, Some(TaskView { task, ancestors: &[] }), &task.chain(), now)
    };
    let cases: Vec<&str> = plan.ids_after("crm", "crm.edit").into_iter().take(2).collect();
    let wanted: Vec<&str> = ["crm.edit"]
        .into_iter()
        .chain(cases)
        .chain(["crm.get", "crm.order", "crm.refund", "crm.search", "mail.send"])
        .collect();
    assert_eq!(wanted, of(&task, NOW));
    assert!(listed(&plan, None, &chain, NOW).is_empty(), "the bundle requires tasks");
    assert!(of(&task, Time(NOW.0 + 24 * 60 * MINUTE)).is_empty(), "it has ended");

    // A child has what it was given, and nothing that its parent has used up.
    let given =
        |entry: &&ScopeEntry| ["crm.search", "mail.send"].contains(&entry.operation.as_str());
    let scope: Vec<ScopeEntry> = task.scope.iter().filter(given).cloned().collect();
    let small = delegate(&plan, &task, Child { scope: &scope, ..child("b", "t-1", &params) });
    let small = small.unwrap();
    let parents = [Arc::new(task.clone())];
    let below = |ancestors: &[Arc<Task>]| {
        listed(&plan, Some(TaskView { task: &small, ancestors }), &small.chain(), NOW)
    };
    assert_eq!(["crm.search", "mail.send"].as_slice(), below(&parents));
    let position = task.scope.iter().position(|entry| entry.operation == "mail.send").unwrap();
    let charge = [("t-0".to_owned(), u32::try_from(position).unwrap())];
    for _ in 0..3 {
        task.charge(&charge);
    }
    assert!(!of(&task, NOW).contains(&"mail.send".to_owned()));
    assert_eq!(["crm.search"].as_slice(), below(&[Arc::new(task)]));

    // The cap on tiers, policies that read the task, and collections of an entry.
    let look = start(&plan, Root { id: "t-2".to_owned(), ..root("look", &BTreeMap::new()) });
    assert!(of(&look.unwrap(), NOW).iter().all(|id| !id.starts_with("mail")));
    let other = "@id(\"a\") permit(principal, action, resource) when { context.task.template == Template::\"look\" };";
    let plan = self::plan(other);
    let task = start(&plan, root("answer", &params)).unwrap();
    let view = Some(TaskView { task: &task, ancestors: &[] });
    assert!(listed(&plan, view, &chain, NOW).is_empty());
}

#[test]
fn a_chain_is_the_tasks_own_in_all_of_it_or_not_at_all() {
    let (plan, params) = (plan(POLICIES), acme());
    let task = start(&plan, root("answer", &params)).unwrap();
    let task = delegate(&plan, &task, child("b", "t-1", &params)).unwrap();
    let own = task.chain();
    let has = |task: &Task, chain: &[Principal]| TaskView { task, ancestors: &[] }.has_chain(chain);
    assert!(has(&task, &own));
    let mut other = own.clone();
    other.pop();
    assert!(!has(&task, &other), "shorter");
    assert!(!has(&task, own.get(1..).unwrap()), "without the subject");
    assert!(!has(&task, &[]), "nobody");
    let mut claims = own.clone();
    if let Some(Principal::User(subject)) = claims.first_mut() {
        let claim = Claim::Texts(vec!["admins".to_owned()]);
        Arc::make_mut(subject).claims.insert("groups".to_owned(), claim);
    }
    assert!(!has(&task, &claims), "a claim that the task does not have");
    let mut domain = own.clone();
    if let Some(Principal::Agent { trust_domain, .. }) = domain.last_mut() {
        "b.example".clone_into(trust_domain);
    }
    assert!(!has(&task, &domain), "another trust domain");
    let alone =
        Root { subject: None, subject_proof: SubjectProof::Itself, ..root("answer", &params) };
    let alone = start(&plan, alone).unwrap();
    assert!(has(&alone, &alone.chain()));
    assert!(!has(&alone, &own));
}

/// Four streams of tokens are told apart. Tokens of any further one take roles away, and give none back.
#[test]
fn a_task_remembers_the_newest_tokens_of_a_few_streams() {
    let plan = self::plan(POLICIES);
    let params = acme();
    let claims = |groups: &[&str]| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        BTreeMap::from([("groups".to_owned(), Claim::Texts(groups))])
    };
    let (desk, none) = (claims(&["desk"]), claims(&[]));
    let by_desk = r#"
subjects:
  clerks: {issuer: corp, claim: groups, contains: desk}
"#;
    let bundle = source::load(
        &BTreeMap::from([
            ("bundle.yaml".to_owned(), b"name: a".to_vec()),
            ("facts.yaml".to_owned(), by_desk.as_bytes().to_vec()),
        ]),
        &BTreeMap::new(),
    )
    .unwrap();
    let shown = |client: &'static str, issued_at: Option<i64>, claims| ShownToken {
        token_type: "jwt",
        client,
        issued_at,
        expires_at: None,
        claims,
    };
    let mut begun = root("answer", &params);
    begun.subject = Some(TaskSubject { claims: desk.clone(), ..alice() });
    let begun = start(&plan, begun).unwrap();
    let has_role = |task: &Task, token: Option<&ShownToken<'_>>| {
        let chain = TaskView { task, ancestors: &[] }.chain(token);
        bundle.tables().roles.roles_of(chain.first().unwrap()).contains(&"clerks")
    };
    let after = |task: &Task, token: &ShownToken<'_>| {
        task.after_token(token, &bundle).unwrap_or_else(|| task.clone())
    };

    // A task of an earlier version tells no token that it began with.
    assert!(has_role(&begun, None));
    let lost = after(&begun, &shown("a", Some(5), &none));
    assert!(!has_role(&lost, None) && !has_role(&lost, Some(&shown("a", Some(4), &desk))));
    assert!(has_role(&after(&lost, &shown("a", Some(6), &desk)), None));
    assert!(!has_role(&after(&lost, &shown("a", Some(5), &desk)), None), "of the same second");

    // Tokens without a time only take away.
    let timeless = after(&begun, &shown("a", None, &none));
    assert!(!has_role(&timeless, None));
    assert!(!has_role(&after(&timeless, &shown("a", None, &desk)), None));

    // Nothing is kept as long as nothing is lost, but the first token of each stream.
    let mut task = begun.clone();
    task.begin_with(&shown("a", Some(1), &desk));
    assert_eq!(None, task.after_token(&shown("a", Some(9), &desk), &bundle));
    for (number, client) in ["b", "c", "d"].into_iter().enumerate() {
        task = task.after_token(&shown(client, Some(2), &desk), &bundle).unwrap();
        assert_eq!(number + 2, task.subject_tokens.len());
    }
    let more = after(&task, &shown("e", Some(3), &none));
    assert_eq!(4, more.subject_tokens.len());
    assert!(!has_role(&more, None));
    let more = after(&more, &shown("f", Some(9), &desk));
    assert!(!has_role(&more, None), "another stream gives nothing back");
    assert!(!has_role(&after(&task, &shown("a", Some(9), &none)), None));
    assert!(has_role(&task, Some(&shown("a", Some(9), &desk))));
    assert!(!has_role(&task, Some(&shown("a", Some(9), &none))), "while it is shown");

    // That a newer token ends later is kept, at a grain of a minute; and never that another ends sooner.
    let until = |seconds: i64| ShownToken {
        expires_at: Some(Time(seconds * 1_000)),
        ..shown("a", Some(1), &desk)
    };
    assert_eq!(None, task.subject_until);
    let task = task.after_token(&until(100), &bundle).unwrap();
    for seconds in [50, 100, 159] {
        assert_eq!(None, task.after_token(&until(seconds), &bundle));
    }
    let later = task.after_token(&until(160), &bundle).unwrap();
    assert_eq!(Some(Time(160_000)), later.subject_until);
    assert_eq!(task.subject_tokens, later.subject_tokens);
    let asserted = Task { subject_proof: SubjectProof::Asserted, subject_until: None, ..task };
    assert_eq!(None, asserted.after_token(&until(160), &bundle));

    // What is stored can be read again, and a record of an earlier version can be read.
    let text = serde_json::to_string(&more).unwrap();
    assert_eq!(more, serde_json::from_str::<Task>(&text).unwrap());
    assert!(!serde_json::to_string(&begun).unwrap().contains("subject_tokens"));
}

/// Where the bundle changes, the stricter of what a template said at the start of a task and says now counts.
#[test]
fn a_task_asks_beyond_its_scope_as_long_as_its_template_says_so() {
    let with = |beyond: &str| {
        let deadline = "  look:\n    purpose: look things up\n    deadline: 1h\n";
        let templates = TEMPLATES.replace(deadline, &format!("{deadline}{beyond}"));
        assert!(beyond.is_empty() || templates != TEMPLATES);
        plan_of("name: a", &templates, POLICIES).unwrap()
    };
    let (silent, asking) = (with(""), with("    beyond: step_up\n"));
    let approving = with("    beyond: {step_up: approve}\n");
    let mail = ("mail.send", r#"{"to": ["a@x.example"]}"#);
    let capped = |plan: &Plan| {
        let none = BTreeMap::new();
        let task = start(plan, root("look", &none)).unwrap();
        // `look` has a cap below the tier of mail.
        Task { tier_cap: Tier::Standard, ..task }
    };
    for (started, now, kinds) in [
        (&silent, &silent, &[][..]),
        (&silent, &asking, &[]),
        (&asking, &silent, &[]),
        (&asking, &asking, &["confirm"]),
        (&asking, &approving, &["approve", "confirm"]),
    ] {
        let task = capped(started);
        let decision = ask(now, &task, mail.0, mail.1);
        assert_eq!(kinds, decision.kinds.as_slice());
        let expected = match kinds {
            [] => ReasonCode::OutOfScope,
            ["confirm"] => ReasonCode::ConfirmRequired,
            _ => decision.reason,
        };
        assert_eq!(expected, decision.reason);
        let rule = decision.rules.last().unwrap();
        assert_eq!(("scope", "look"), (rule.kind.as_str(), rule.name.as_str()));
        // The rule of a held call is the line of `beyond`, the rule of a denied one the template.
        let look = TEMPLATES.lines().position(|line| line == "  look:").unwrap() + 1;
        let line = if kinds.is_empty() { look } else { look + 3 };
        assert_eq!(line, usize::try_from(rule.at.line).unwrap(), "{rule:?}");
    }
}
