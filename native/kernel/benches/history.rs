//! Decisions that remember: what rules over the order of events cost, and what a session's history does.
//!
//! `cargo bench -p authz-kernel --bench history`
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark stops where its bundle is wrong"
)]

use std::collections::BTreeMap;
use std::hint::black_box;

use authz_kernel::decide::decide;
use authz_kernel::decision::{
    CallerProof, Decision, Facts, Outcome, Principal, ProofMethod, Request, Time,
};
use authz_kernel::history::{HistoryView, SessionHistory};
use authz_kernel::mcp::ServerTask;
use authz_kernel::plan::Plan;
use authz_kernel::source;
use authz_kernel::task::{
    AgentName, Names, Root, SubjectProof, Task, TaskKind, TaskView, WordRecords, start,
};
use criterion::{Criterion, criterion_group, criterion_main};

const NOW: Time = Time(1_795_564_800_000);
const DECISION: &str = "0199c3f2-7a4e-7000-8000-000000000000";
/// Operations of the system that is asked about.
const OPERATIONS: usize = 51;

/// A bundle of rules over the order of events, of which 20 name the first operation: ten that it could complete, and ten
/// that it is a step of. None: the same without rules.
fn ruled(rules: usize) -> Plan {
    let operations: String = (0..OPERATIONS).map(|n| format!("o{n}: {{}}, ")).collect();
    let rule = |n: usize| match n {
        0..10 => format!("  r{n}: {{never: s.o0, after: s.o{}}}\n", n + 1),
        10..20 => format!("  r{n}: {{never: s.o{}, after: s.o0, within: 1h}}\n", n + 1),
        _ => format!("  r{n}: {{never: s.o{}, after: s.o{}}}\n", n % 50 + 1, (n + 7) % 50 + 1),
    };
    let sequences: String = (0..rules).map(rule).collect();
    let sequences = if rules == 0 { "  {}\n".to_owned() } else { sequences };
    let facts = format!(
        "agents: {{worker: ['spiffe://bench.example/ns/bench/sa/*']}}\n\
         catalog: {{s: {{kind: http, operations: {{{operations}}}}}}}\n\
         classify: [{{match: 's.*', effects: [read], tier: low}}]\n\
         templates: {{work: {{purpose: work, deadline: 1h, scope: [{{system: s}}]}}}}\n\
         sequences:\n{sequences}"
    );
    let policies = "@id(\"may\") permit(principal, action, resource);\n\
         @id(\"order\") forbid(principal, action in Action::\"system:s\", resource)\n\
         when { !context.sequences.isEmpty() && context.tier > 0 };";
    compiled(&facts, policies)
}

fn compiled(facts: &str, policies: &str) -> Plan {
    let files =
        [("bundle.yaml", "name: bench"), ("facts.yaml", facts), ("policies/a.cedar", policies)];
    let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
    let model = source::load(&BTreeMap::from(files), &BTreeMap::new());
    let model = model.unwrap_or_else(|errors| panic!("{errors}"));
    Plan::compile(model, None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// An agent with a task, who asks.
struct Asker {
    plan: Plan,
    chain: [Principal; 1],
    task: Task,
}

impl Asker {
    fn of(plan: Plan) -> Self {
        let agent = AgentName::parse("spiffe://bench.example/ns/bench/sa/one").unwrap();
        let root = Root {
            template: "work",
            params: &BTreeMap::new(),
            scope: &[],
            kind: TaskKind::Root,
            assignee: agent.clone(),
            subject: None,
            subject_proof: SubjectProof::Itself,
            starter: String::new(),
            deadline: None,
            tier_cap: None,
            names: Names::default(),
            now: NOW,
            id: "0199c3f2-7a4e-7000-8000-00000000000a".to_owned(),
            session: "0199c3f2-7a4e-7000-8000-00000000000b".to_owned(),
        };
        let task = start(&plan, root).unwrap();
        Self { plan, chain: [agent.principal()], task }
    }

    fn ask(&self, operation: &str, session: &SessionHistory, now: Time) -> Decision {
        let facts = Facts {
            enforcer: "envoy",
            chain: &self.chain,
            proof: CallerProof {
                method: ProofMethod::JwtSvid,
                bound: false,
                age: Some(60),
                acr: "",
                satisfied: &[],
            },
            confidence: 0,
            task: Some(TaskView { task: &self.task, ancestors: &[] }),
            subject_proof: None,
            history: Some(HistoryView::new(session)),
            words: WordRecords::default(),
            literal_key: None,
            value_key: None,
            endorsed: &[],
            recipient_lists: None,
            granted: None,
            breakglass: None,
        };
        let request = Request {
            operation,
            arguments: b"{}".into(),
            resource: None,
            destinations: &[],
            supported_obligations: &[],
            labels: &[],
            server_task: ServerTask::None,
        };
        *decide(&self.plan, &facts, &request, now)
    }

    /// What a session knows after these calls, each let through.
    fn after(&self, operations: impl Iterator<Item = usize>) -> SessionHistory {
        let mut session = SessionHistory::new();
        for operation in operations.map(|number| format!("s.o{number}")) {
            let decision = self.ask(&operation, &session, NOW);
            session.apply(&decision.passage, DECISION, &operation, NOW);
        }
        session
    }
}

fn rules(criterion: &mut Criterion) {
    for rules in [0, 20, 1_000] {
        let asker = Asker::of(ruled(rules));
        // Half of the operations were called; that they come before completes either none of the ten rules, or all.
        let quiet = asker.after([0].into_iter().chain(25..OPERATIONS));
        let completed = asker.after(0..25);
        for (what, session, count) in
            [("none completed", quiet, 0), ("ten completed", completed, 10.min(rules))]
        {
            let decision = asker.ask("s.o0", &session, NOW);
            assert_eq!((Outcome::Permit, count), (decision.outcome, decision.sequences.len()));
            let mut now = NOW;
            criterion.bench_function(&format!("{rules} rules, {what}"), |bencher| {
                bencher.iter(|| {
                    now = Time(now.0.saturating_add(1));
                    black_box(asker.ask("s.o0", &session, now))
                });
            });
        }
    }
}

criterion_group!(benches, rules);
criterion_main!(benches);
