//! A small bundle, and the solver.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use authz_analyze::input::{BundleInput, InputError};
use authz_analyze::solver::{SolverProgram, SymbolicSolver};
use authz_kernel::plan::Plan;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The time of every test: 2026-11-25T00:00:00Z.
pub(crate) const NOW_MS: i64 = 1_795_564_800_000;

const BUNDLE: &str = "name: desk\ntasks: required\n";
pub(crate) const FACTS: &str = r#"
catalog:
  crm:
    kind: http
    operations:
      get: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      note: {input: {type: object, properties: {id: {type: string}, text: {type: string}}, required: [id, text]}}
  billing:
    kind: http
    operations:
      pay: {input: {type: object, properties: {amount: {type: integer}, fee: {type: integer}}, required: [amount, fee]}}
  mail:
    kind: http
    operations:
      send: {input: {type: object, properties: {to: {type: string}}, required: [to]}}
labels:
  pii: {kind: confidentiality, description: personal data}
  untrusted: {kind: trust, description: text of strangers}
resources:
  customers: {labels: [pii]}
  orders: {}
destinations:
  internal: {match: "*@corp.example", clearance: [pii]}
  external: {match: "*", clearance: []}
classify:
  - {match: crm.get, effects: [read], yields: [pii], resource: {collection: customers, id: /id}}
  - {match: crm.note, effects: [write], resource: {collection: customers, id: /id}}
  - {match: billing.pay, effects: [write], tier: high}
  - {match: mail.send, effects: [export], destination: {from: [/to], type: email}}
agents:
  bots: ["spiffe://a.example/bot/*"]
subjects:
  staff: {issuer: corp, claim: groups, contains: employees}
templates:
  desk: {purpose: work, deadline: 8h, scope: [{system: crm}, {system: billing}, {system: mail}]}
"#;

pub(crate) fn input(facts: &str, policies: &str) -> BundleInput {
    let files = [("bundle.yaml", BUNDLE), ("facts.yaml", facts), ("policy.cedar", policies)];
    let encode = |(path, text): (&str, &str)| (path.to_owned(), STANDARD.encode(text));
    BundleInput { files: files.into_iter().map(encode).collect(), vars: BTreeMap::new() }
}

pub(crate) fn plan_of(facts: &str, policies: &str) -> Plan {
    match input(facts, policies).compile(NOW_MS) {
        Ok(plan) => plan,
        Err(InputError::Bundle(diagnostics)) => {
            panic!("{:?}", diagnostics.iter().map(|one| one.what.clone()).collect::<Vec<_>>())
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn plan(policies: &str) -> Plan {
    plan_of(FACTS, policies)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Command of the solver. `make setup` installs it, so a test without it fails.
pub(crate) fn command() -> Vec<String> {
    let python = root().join(".venv/bin/python").to_string_lossy().into_owned();
    let code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from authz.analysis.solver import main; sys.exit(main())";
    vec![python, "-c".to_owned(), code.to_owned(), root().to_string_lossy().into_owned()]
}

pub(crate) fn program(command: Vec<String>, limit: Duration) -> SolverProgram {
    SolverProgram { command, limit, jobs: 1 }
}

/// One solver for all tests, with time for a busy machine.
pub(crate) static SOLVER: LazyLock<SymbolicSolver> = LazyLock::new(|| {
    let solver = SymbolicSolver::start(program(command(), Duration::from_secs(60)));
    solver.expect("the solver: `make setup` installs it")
});
