//! Decisions of a session that knows values, without a server: what `bench/README.md` counts instructions with.
//!
//! ```text
//! known_values VALUES CALLS
//! ```
//! Decides so often about an object that the session made, in a session that knows so many values. Every answer must be a
//! permit.

use std::collections::BTreeMap;
use std::error::Error;

use authz_kernel::ValueKey;
use authz_kernel::decide::decide;
use authz_kernel::decision::{CallerProof, Facts, Outcome, Principal, ProofMethod, Request, Time};
use authz_kernel::history::{HistoryView, SessionHistory, ValueMarks};
use authz_kernel::mcp::ServerTask;
use authz_kernel::plan::Plan;
use authz_kernel::source;
use authz_kernel::task::{TaskView, WordRecords, taskless};

const NOW: Time = Time(1_795_564_800_000);
const BUNDLE: &str = r#"
agents: {bot: ["spiffe://a.example/bot"]}
resources: {events: {}}
catalog:
  calendar:
    kind: http
    reports: sdk
    operations:
      create: {effects: [write], creates: {id: /id, collection: events}}
      change:
        effects: [write]
        objects: {from: /id, role: target, collection: events}
        input: {type: object, properties: {id: {type: string}}, required: [id]}
"#;
const POLICIES: &str = r#"
@id("all") permit(principal, action, resource);
@id("strange") forbid(principal, action, resource)
unless { [Origin::"named", Origin::"known", Origin::"made"].containsAll(context.origins.target) };
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: known_values VALUES CALLS");
    let (values, calls): (u32, u32) = (next()?.parse()?, next()?.parse()?);
    let plan = plan()?;
    let key = ValueKey::new(&[7; 32]);
    let mut session = SessionHistory::new();
    for number in 0..values {
        let print = key.id("calendar", "events", &format!("event-{number}"));
        session.values.add(print, ValueMarks::MADE, NOW);
    }
    let chain = [Principal::Agent {
        spiffe_id: "spiffe://a.example/bot".to_owned(),
        trust_domain: "a.example".to_owned(),
    }];
    let task = taskless(&chain, "").ok_or("no task")?;
    let facts = Facts {
        enforcer: "",
        chain: &chain,
        proof: CallerProof {
            method: ProofMethod::JwtSvid,
            bound: true,
            age: Some(0),
            acr: "",
            satisfied: &[],
        },
        confidence: 0,
        task: Some(TaskView { task: &task, ancestors: &[] }),
        subject_proof: None,
        history: Some(HistoryView::new(&session)),
        words: WordRecords::default(),
        literal_key: None,
        value_key: Some(&key),
        endorsed: &[],
        recipient_lists: None,
        granted: None,
        breakglass: None,
    };
    let request = Request {
        operation: "calendar.change",
        arguments: br#"{"id":"event-0"}"#.as_slice().into(),
        resource: None,
        destinations: &[],
        supported_obligations: &[],
        labels: &[],
        server_task: ServerTask::None,
    };
    let is_known = values > 0;
    for _ in 0..calls {
        let decision = std::hint::black_box(decide(&plan, &facts, &request, NOW));
        if (decision.outcome == Outcome::Permit) != is_known {
            return Err(decision.message.into());
        }
    }
    Ok(())
}

fn plan() -> Result<Plan, Box<dyn Error>> {
    let files = [
        ("bundle.yaml", "name: values\ntasks: optional\n"),
        ("facts.yaml", BUNDLE),
        ("policies/values.cedar", POLICIES),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).into();
    let bundle = source::load(&files, &BTreeMap::new()).map_err(|wrong| format!("{wrong:?}"))?;
    Ok(Plan::compile(bundle, None).map_err(|wrong| format!("{wrong:?}"))?)
}
