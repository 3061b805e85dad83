//! The bundles that newcomers read: they load without a warning, and pass their own tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authz_cases::{Report, parse, run};
use authz_kernel::decision::Time;
use authz_kernel::plan::Plan;
use authz_kernel::source;

const NOW: Time = Time(1_800_000_000_000);

fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                out.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    out
}

/// The plan of a bundle folder.
fn plan(folder: &Path) -> Arc<Plan> {
    let vars = BTreeMap::from([("trust_domain".to_owned(), "a.example".to_owned())]);
    let model = source::load(&files(folder), &vars).unwrap_or_else(|error| panic!("{error}"));
    Arc::new(Plan::compile(model, None).unwrap_or_else(|error| panic!("{error}")))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn passes(folder: &str, least: usize) {
    let plan = plan(&root().join(folder));
    assert_eq!(0, plan.warnings().len(), "{:?}", plan.warnings());
    let report = run(&plan, &plan.model().tests, NOW);
    assert!(report.is_ok(), "{:#?}", report.failed);
    assert!(report.passed >= least, "only {} steps ran", report.passed);
    assert_eq!(0, report.skipped);
}

#[test]
fn the_quickstart_bundle_passes_its_tests() {
    passes("examples/quickstart/bundle", 10);
}

#[test]
fn the_templates_of_init_pass_their_tests() {
    passes("authz/tools/templates/first", 7);
    passes("authz/tools/templates/full", 10);
}

#[test]
fn the_cases_of_every_surface_come_out_the_same_without_one() {
    let root = root().join("tests/cases");
    let vars = BTreeMap::from([("trust_domain".to_owned(), "a.example".to_owned())]);
    let mut all = Report::default();
    for entry in std::fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).unwrap();
        let cases = parse(&name, &bytes, &vars).unwrap_or_else(|error| panic!("{error}"));
        let plan = plan(&root.join("bundles").join(cases.bundle().unwrap()));
        let report = run(&plan, &BTreeMap::from([(name, bytes)]), NOW);
        all.passed += report.passed;
        all.failed.extend(report.failed);
    }
    assert!(all.is_ok(), "{:#?}", all.failed);
    assert!(all.passed >= 50, "only {} steps ran", all.passed);
}

#[test]
fn a_step_that_comes_out_otherwise_is_reported_with_its_line() {
    let plan = plan(&root().join("examples/quickstart/bundle"));
    let text = "fixtures: {subjects: {alice: {issuer: corp, claims: {groups: [employees]}}}}
tests:
  - trace: wrong
    as: {agent: 'spiffe://a.example/ns/support/sa/bot', subject: alice}
    steps:
      - {call: crm.search, input: {query: x}, expect: PERMIT}
      - {call: crm.delete, input: {id: a}, expect: {outcome: STEP_UP, kinds: [approve], policy: nope}}
";
    let report_of = |text: &str| {
        let files = BTreeMap::from([("tests/a.yaml".to_owned(), text.as_bytes().to_vec())]);
        run(&plan, &files, NOW)
    };
    let report = report_of(text);
    assert_eq!((1, 1), (report.passed, report.failed.len()));
    let failure = report.failed.first().unwrap();
    assert_eq!(("wrong", 2, 7), (failure.test.as_str(), failure.step, failure.line));
    assert_eq!("outcome: STEP_UP, policy: nope, kinds: [approve]", failure.expected);
    assert_eq!("outcome: DENY, policies: [only-tickets-are-deleted], kinds: []", failure.actual);
    for (from, to, message) in [
        (
            "subject: alice",
            "subject: alise",
            "tests/a.yaml:4:66: unknown subject `alise`; declared: alice. Did you mean `alice`? Tests name their principals under `fixtures`.",
        ),
        (
            "trace: wrong",
            "enforcer: x",
            "tests/a.yaml:3:5: a test has a name: either `trace` or `case`. Add one.",
        ),
        (
            "    steps:",
            "    task: {}\n    steps:",
            "tests/a.yaml:5:11: `template` is missing. Add it.",
        ),
        (
            "STEP_UP",
            "STEPUP",
            "tests/a.yaml:7:62: unknown value `STEPUP`; known: PERMIT, STEP_UP, DENY. Did you mean `STEP_UP`?",
        ),
    ] {
        let report = report_of(&text.replace(from, to));
        assert_eq!(Some(message), report.failed.first().map(|f| f.message.as_str()));
    }
}
