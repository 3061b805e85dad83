//! What is done without a task is judged as it would be in a task that bounds nothing: random traces, run twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authz_cases::run;
use authz_kernel::plan::Plan;
use authz_kernel::source;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::traces::NOW;

const TRACES: u32 = 300;
const STEPS: usize = 24;

/// What a step of a trace says, but for who acts.
fn step() -> impl Strategy<Value = String> {
    let id = 1..5_u8;
    let call = prop_oneof![
        4 => id.clone().prop_map(|id| format!("call: crm.get, input: {{id: '{id}'}}")),
        2 => id.clone().prop_map(|id| format!("call: crm.delete, input: {{id: '{id}'}}")),
        2 => (0..70_u8).prop_map(|n| format!("call: crm.pay, input: {{amount: {n}}}")),
        1 => Just("call: crm.status".to_owned()),
        1 => Just("call: crm.status, request: {labels: [vip]}".to_owned()),
        1 => Just("call: mail.search".to_owned()),
        3 => prop_oneof![Just("eve@evil.example"), Just("ann@corp.example"), Just("bob@customer.example")]
            .prop_map(|to| format!("call: mail.send, input: {{to: [{to}]}}")),
        2 => id.clone().prop_map(|id| format!("call: notes.write, input: {{id: '{id}'}}")),
        2 => id.prop_map(|id| format!("call: notes.read, input: {{id: '{id}'}}")),
    ];
    // All is wanted to be permitted, so that each step which is not is told with what it came to.
    let call = call.prop_map(|call| format!("      - {{{call}, expect: PERMIT}}\n"));
    let result = prop_oneof![Just("ok"), Just("failed"), Just("aborted")];
    let report = (1..STEPS, result).prop_map(|(of, result)| {
        format!("      - {{report: {{of: {of}, result: {result}}}, expect: OK}}\n")
    });
    prop_oneof![4 => call, 1 => report]
}

/// What each step came to, where it was not permitted.
fn came(plan: &Arc<Plan>, whose: &str, steps: &str) -> Vec<(usize, String)> {
    let text = format!(
        "fixtures:\n  agents: {{bot: 'spiffe://a.example/ns/support/sa/bot'}}\n  \
         subjects: {{alice: {{issuer: corp, claims: {{groups: [employees]}}}}}}\n\
         tests:\n  - trace: t\n    {whose}\n    steps:\n{steps}"
    );
    let files = BTreeMap::from([("t.yaml".to_owned(), text.into_bytes())]);
    let report = run(plan, &files, NOW);
    assert_eq!(0, report.skipped);
    report.failed.into_iter().map(|one| (one.step, one.actual)).collect()
}

#[test]
fn a_trace_without_a_task_comes_out_as_in_one_that_bounds_nothing() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/bundles/taskless");
    let files = read(&root, &root);
    let vars = BTreeMap::from([("trust_domain".to_owned(), "a.example".to_owned())]);
    let plan = Arc::new(Plan::compile(source::load(&files, &vars).unwrap(), None).unwrap());
    let config = Config { cases: TRACES, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    let mut runner = TestRunner::new_with_rng(config, rng);
    let seen = std::cell::RefCell::new(&mut codes);
    let result = runner.run(&proptest::collection::vec(step(), 1..STEPS), |steps| {
        let steps = steps.concat();
        let without = came(&plan, "as: {agent: bot, subject: alice}", &steps);
        let within = came(&plan, "task: {template: desk, agent: bot, subject: alice}", &steps);
        prop_assert_eq!(&within, &without, "{}", steps);
        for (_, actual) in without {
            *seen.borrow_mut().entry(actual).or_default() += 1;
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(codes.len() >= 6, "{codes:?}");
    assert!(codes.values().sum::<usize>() > 500, "{codes:?}");
}

/// The files below a folder, by path.
fn read(root: &Path, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(read(root, &path));
        } else {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}
