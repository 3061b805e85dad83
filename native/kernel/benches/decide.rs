//! A warm decision from typed facts to verdict, and a reload.
//!
//! `cargo bench -p authz-kernel --features test-support --bench decide`
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark stops where its bundle is wrong"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use authz_kernel::bundle::Bundle;
use authz_kernel::decide::decide;
use authz_kernel::decision::{
    CallerProof, Claim, Facts, Outcome, Principal, ProofMethod, Request, Subject, Time,
};
use authz_kernel::history::{HistoryView, SessionHistory};
use authz_kernel::mcp::ServerTask;
use authz_kernel::plan::Plan;
use authz_kernel::source;
use authz_kernel::task::{
    self, AgentName, Child, Limit, Names, Root, ScopeEntry, SubjectProof, Task, TaskKind, TaskView,
    WordRecords, delegate, start,
};
use authz_kernel::test_support::{bundle_of, operation_id, operations_of};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const NOW: Time = Time(1_795_564_800_000);
const REQUESTS: usize = 1_000;
/// What a session did in which nothing has happened yet.
static NOTHING: LazyLock<SessionHistory> = LazyLock::new(SessionHistory::new);

fn load(policies: usize, changed: usize) -> Bundle {
    let files: BTreeMap<String, Vec<u8>> = bundle_of(policies, changed)
        .into_iter()
        .map(|(path, text)| (path, text.into_bytes()))
        .collect();
    source::load(&files, &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn compile(bundle: Bundle, previous: Option<&Plan>) -> Plan {
    Plan::compile(bundle, previous).unwrap_or_else(|errors| panic!("{errors}"))
}

struct Ask {
    operation: String,
    arguments: String,
    chain: Vec<Principal>,
}

fn agent(name: &str) -> Principal {
    Principal::Agent {
        spiffe_id: format!("spiffe://bench.example/ns/bench/sa/{name}"),
        trust_domain: "bench.example".to_owned(),
    }
}

/// A thousand distinct requests over all operations.
fn asks(operations: usize, principals: usize) -> Vec<Ask> {
    let groups = Claim::Texts(vec!["employees".to_owned(), "berlin".to_owned()]);
    (0..REQUESTS)
        .map(|index| {
            let user = Principal::User(Arc::new(Subject {
                issuer: "corp".to_owned(),
                sub: format!("user-{}", index % 256),
                claims: BTreeMap::from([("groups".to_owned(), groups.clone())]),
                narrowed: Vec::new(),
            }));
            let agents = (1..principals).map(|hop| agent(&format!("worker-{}-{hop}", index % 256)));
            Ask {
                operation: operation_id((index * 7919) % operations),
                arguments: format!(
                    r#"{{"id": "a-{index}", "amount": {}, "currency": "EUR", "note": "invoice {index}"}}"#,
                    index % 400
                ),
                chain: [user].into_iter().chain(agents).collect(),
            }
        })
        .collect()
}

/// A task for what is asked, and those above it: one for each agent of the chain, of three entries each.
fn task_of(plan: &Plan, ask: &Ask) -> (Task, Vec<Arc<Task>>) {
    let none = BTreeMap::new();
    let agents: Vec<AgentName> = ask
        .chain
        .iter()
        .filter_map(|principal| match principal {
            Principal::Agent { spiffe_id, .. } => AgentName::parse(spiffe_id).ok(),
            Principal::User(_) | Principal::Service(_) => None,
        })
        .collect();
    let subject = ask.chain.iter().find_map(|principal| match principal {
        Principal::User(user) => Some(task::Subject {
            is_service: false,
            issuer: user.issuer.clone(),
            sub: user.sub.clone(),
            claims: user.claims.clone(),
            acr: String::new(),
        }),
        Principal::Service(_) | Principal::Agent { .. } => None,
    });
    let mut agents = agents.into_iter();
    let root = Root {
        template: "work",
        params: &none,
        scope: &[],
        kind: TaskKind::Root,
        assignee: agents.next().unwrap(),
        subject,
        subject_proof: SubjectProof::Verified,
        starter: "bench".to_owned(),
        deadline: None,
        tier_cap: None,
        names: Names::default(),
        now: NOW,
        id: "0199c3f2-7a4e-7000-8000-000000000000".to_owned(),
        session: "0199c3f2-7a4e-7000-8000-00000000ffff".to_owned(),
    };
    let entry = |operation: &str| ScopeEntry {
        operation: operation.to_owned(),
        arguments: BTreeMap::from([("/amount".to_owned(), Limit::Range(0, 1_000))]),
        uses: Some(1_000_000),
        ..ScopeEntry::default()
    };
    let scope = [entry("aaa.first"), entry(&ask.operation), entry("zzz.last")].to_vec();
    let mut task = Task { scope, uses: vec![0; 3], ..start(plan, root).unwrap() };
    let mut above = Vec::new();
    for (depth, agent) in agents.enumerate() {
        let child = Child {
            template: None,
            params: &none,
            scope: &[],
            assignee: agent,
            starter: "bench".to_owned(),
            deadline: None,
            now: NOW,
            id: format!("0199c3f2-7a4e-7000-8000-0000000000{depth:02}"),
        };
        let child = delegate(plan, &task, child).unwrap();
        above.push(Arc::new(task));
        task = child;
    }
    (task, above)
}

fn decisions(criterion: &mut Criterion) {
    for policies in [100, 1_000, 10_000] {
        let plan = compile(load(policies, 0), None);
        for (principals, on_task) in [(2, false), (2, true), (4, false), (4, true)] {
            let asks = asks(operations_of(policies), principals);
            let tasks: Vec<_> =
                asks.iter().map(|ask| on_task.then(|| task_of(&plan, ask))).collect();
            let mut next = asks.iter().zip(&tasks).cycle();
            let mut one = || {
                let (ask, task) = next.next().unwrap();
                let view = task.as_ref().map(|(task, above)| TaskView { task, ancestors: above });
                let facts = Facts {
                    enforcer: "envoy",
                    chain: &ask.chain,
                    proof: CallerProof {
                        method: ProofMethod::JwtSvid,
                        bound: false,
                        age: Some(60),
                        acr: "",
                        satisfied: &[],
                    },
                    confidence: 0,
                    task: view,
                    subject_proof: None,
                    history: view.map(|_| HistoryView::new(&NOTHING)),
                    words: WordRecords::default(),
                    literal_key: None,
                    value_key: None,
                    endorsed: &[],
                    recipient_lists: None,
                    granted: None,
                    breakglass: None,
                };
                let request = Request {
                    operation: &ask.operation,
                    arguments: ask.arguments.as_bytes().into(),
                    resource: None,
                    destinations: &[],
                    supported_obligations: &[],
                    labels: &[],
                    server_task: ServerTask::None,
                };
                decide(&plan, &facts, &request, NOW)
            };
            assert_eq!(Outcome::Permit, one().outcome);
            let on = if on_task { ", on a task" } else { "" };
            criterion.bench_function(
                &format!("decide/{policies} policies/chain of {principals}{on}"),
                |bencher| {
                    bencher.iter(|| black_box(one()));
                },
            );
        }
    }
}

fn reloads(criterion: &mut Criterion) {
    let serving = compile(load(10_000, 0), None);
    let mut group = criterion.benchmark_group("reload/10000 policies, 10 changed");
    group.sample_size(10);
    group.bench_function("read and compile", |bencher| {
        bencher.iter(|| black_box(compile(load(10_000, 10), Some(&serving))));
    });
    group.bench_function("compile", |bencher| {
        let bundle = load(10_000, 10);
        bencher.iter_batched(
            || bundle.clone(),
            |bundle| black_box(compile(bundle, Some(&serving))),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("compile, nothing cached", |bencher| {
        let bundle = load(10_000, 10);
        bencher.iter_batched(
            || bundle.clone(),
            |bundle| black_box(compile(bundle, None)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, decisions, reloads);
criterion_main!(benches);
