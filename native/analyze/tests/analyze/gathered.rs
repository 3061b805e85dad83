//! Labels that are derived from the data of several places: the search makes the calls that gather it.

use authz_analyze::paths::PathResults;
use authz_analyze::report::{Finality, Finding};

use crate::paths::{FACTS, analyze, bundle, is_proved, of_rule, run_case};

fn facts(derive: &str, never: &str) -> String {
    let labels = format!("labels: {{bulk: {{kind: confidentiality, derive: {{{derive}}}}}, ");
    let facts = FACTS.replace("labels: {", &labels);
    format!("{facts}\nanalysis: {{assertions: [{{id: a, never: {never}}}]}}\n")
}

fn found(results: &PathResults) -> &Finding {
    assert!(!is_proved(results, "assertion:a"), "{results:#?}");
    match of_rule(results, "assertion:a")[..] {
        [finding] => finding,
        _ => panic!("{results:#?}"),
    }
}

const READ: &str = "@id(\"read\") permit(principal, action == Action::\"crm.get\", resource);\n";
const BULK: &str = "@id(\"bulk\") permit(principal, action == Action::\"mail.send\", resource)
when { context.session.labels.contains(Label::\"bulk\") };";

#[test]
fn a_hundred_resources_are_read_for_a_label_that_a_permit_asks_for() {
    let facts = facts("from: pii, resources: 100", "{operation: mail.send}");
    let (plan, results) = analyze(&bundle(&facts, &format!("{READ}{BULK}")));
    let finding = found(&results);
    assert_eq!(finding.verdict, Finality::PathFound, "{finding:#?}");
    // The calls are one step of the path, and each is a step of the case.
    let [read, send] = finding.path.as_slice() else { panic!("{finding:#?}") };
    assert_eq!((read.operation.as_str(), send.operation.as_str()), ("crm.get", "mail.send"));
    assert!(read.note.starts_with("100 calls"), "{}", read.note);
    assert!(read.labels_after.contains(&"bulk".to_owned()), "{read:#?}");
    let report = run_case(&plan, finding);
    assert_eq!((report.passed, report.failed.len()), (100, 1), "{report:#?}");
    assert_eq!(report.failed.first().map(|failure| failure.step), Some(101));
    // Without a call that brings the label, the permit never fires.
    let unread = READ.replace("crm.get", "wiki.read");
    let (_, results) = analyze(&bundle(&facts, &format!("{unread}{BULK}")));
    assert!(is_proved(&results, "assertion:a"), "{results:#?}");
}

#[test]
fn a_permit_that_asks_for_a_plain_label_is_reached_too() {
    let facts = facts("from: pii, resources: 2", "{operation: mail.send}");
    let plain = BULK.replace("\"bulk\")", "\"pii\")");
    let (_, results) = analyze(&bundle(&facts, &format!("{READ}{plain}")));
    let finding = found(&results);
    assert_eq!((finding.verdict, finding.path.len()), (Finality::PathFound, 2), "{finding:#?}");
}

/// The data itself has the label, also where no policy reads it, so that Authz keeps none.
#[test]
fn data_of_two_sources_has_a_derived_label() {
    let send = "@id(\"send\") permit(principal, action == Action::\"mail.send\", resource);";
    let never = "{label: bulk, destination: outside}";
    let one = facts("from: pii, sources: 2", never);
    let (_, results) = analyze(&bundle(&one, &format!("{READ}{send}")));
    // All of it comes from one collection.
    assert_eq!(found(&results).verdict, Finality::NotDecided);
    let two = one.replace(
        "wiki.read, effects: [read], tier: low",
        "wiki.read, effects: [read], tier: low, yields: [pii]",
    );
    let both =
        READ.replace("== Action::\"crm.get\"", "in [Action::\"crm.get\", Action::\"wiki.read\"]");
    let (plan, results) = analyze(&bundle(&two, &format!("{both}{send}")));
    let finding = found(&results);
    assert_eq!((finding.verdict, finding.path.len()), (Finality::PathFound, 3), "{finding:#?}");
    assert_eq!(run_case(&plan, finding).failed.len(), 1, "{}", finding.case);
}
