//! Sequences that count a call once its result is reported: the search reports the results, and the exported test has them.

use authz_analyze::report::Finality;

use crate::paths::{ALL, FACTS, analyze, bundle, of_rule, run_case};

const FORBIDS: &str =
    "@id(\"look-first\") forbid(principal, action == Action::\"mail.send\", resource)
when { context.sequences.contains(Sequence::\"look-first\") };
@id(\"read-first\") forbid(principal, action == Action::\"crm.get\", resource)
when { context.sequences.contains(Sequence::\"read-first\") };";

/// Facts whose sequences ask for reports of the systems `crm` and `mail`.
fn facts(crm: &str, mail: &str) -> String {
    let reporting = |facts: String, system: &str, reporter: &str| {
        let plain = format!("  {system}:\n    kind: http\n");
        facts.replace(&plain, &format!("{plain}    reports: {reporter}\n"))
    };
    let facts = reporting(FACTS.to_owned(), "crm", crm);
    let facts = reporting(facts, "mail", mail);
    format!(
        "{facts}
sequences:
  look-first: {{require: crm.get, before: mail.send}}
  read-first: {{require: mail.read, before: crm.get}}
analysis: {{assertions: [{{id: a, never: {{operation: mail.send}}}}]}}
"
    )
}

#[test]
fn results_are_reported_where_a_sequence_counts_them() {
    for (crm, mail) in [("sdk", "sdk"), ("access_log", "sdk"), ("sdk", "access_log")] {
        let (plan, results) = analyze(&bundle(&facts(crm, mail), &format!("{ALL}{FORBIDS}")));
        let [finding] = of_rule(&results, "assertion:a")[..] else { panic!("{results:#?}") };
        assert_eq!(finding.verdict, Finality::PathFound, "{crm} {mail}: {finding:#?}");
        let operations: Vec<&str> =
            finding.path.iter().map(|step| step.operation.as_str()).collect();
        assert_eq!(operations, ["mail.read", "crm.get", "mail.send"], "{crm} {mail}");
        let reported: Vec<bool> =
            finding.path.iter().map(|step| step.note.contains("reported")).collect();
        assert_eq!(reported, [true, true, false], "{crm} {mail}");
        let report = run_case(&plan, finding);
        let steps = finding.case.matches("\"expect\"").count();
        assert_eq!((report.passed + 1, report.failed.len()), (steps, 1), "{}", finding.case);
        assert_eq!(report.failed.first().map(|failure| failure.step), Some(steps));
        // Without the reports the engine refuses the last call: the test would pass, and show nothing.
        let lines = finding.case.lines().filter(|line| !line.contains("\"report\""));
        let silent: Vec<&str> = lines.collect();
        let mut silent_finding = (*finding).clone();
        silent_finding.case = silent.join("\n");
        let report = run_case(&plan, &silent_finding);
        assert!(
            report.failed.iter().all(|failure| !failure.actual.contains("PERMIT")),
            "{report:#?}"
        );
    }
}

/// A bundle without such a sequence has no reports in its traces.
#[test]
fn nothing_is_reported_for_other_sequences() {
    let facts = facts("sdk", "sdk")
        .replace("before: mail.send}", "before: mail.send, counts: permitted}")
        .replace("before: crm.get}", "before: crm.get, counts: permitted}");
    let (_, results) = analyze(&bundle(&facts, &format!("{ALL}{FORBIDS}")));
    let [finding] = of_rule(&results, "assertion:a")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::PathFound, "{finding:#?}");
    assert!(!finding.case.contains("\"report\""), "{}", finding.case);
}
