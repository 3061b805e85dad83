//! Windows: a call that is refused within a window is permitted after it, unless the agent has forgotten the data.

use authz_analyze::report::Finality;

use crate::paths::{ALL, FACTS, analyze, bundle, of_rule, run_case};

const FORBID: &str =
    "@id(\"not-after\") forbid(principal, action == Action::\"mail.send\", resource)
when { context.sequences.contains(Sequence::\"not-after\") };";

fn facts(memory: &str) -> String {
    let bot = format!("bot: {{match: ['spiffe://dev.example/bot'], memory: {memory}}}");
    let clerk = format!("clerk: {{match: ['spiffe://dev.example/clerk'], memory: {memory}}}");
    let facts = FACTS
        .replace("bot: ['spiffe://dev.example/bot']", &bot)
        .replace("clerk: ['spiffe://dev.example/clerk']", &clerk);
    format!(
        "{facts}
sequences: {{not-after: {{never: mail.send, after: crm.get, within: 1h, scope: agent}}}}
analysis: {{assertions: [{{id: a, never: {{label: pii, destination: outside}}}}]}}
"
    )
}

#[test]
fn a_call_waits_for_the_end_of_a_window() {
    let (plan, results) = analyze(&bundle(&facts("8h"), &format!("{ALL}{FORBID}")));
    let [finding] = of_rule(&results, "assertion:a")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::PathFound, "{finding:#?}");
    let notes: Vec<&str> = finding.path.iter().map(|step| step.note.as_str()).collect();
    assert_eq!(notes, ["", "3601 seconds after the call before it"]);
    let report = run_case(&plan, finding);
    assert_eq!((report.passed, report.failed.len()), (1, 1), "{}\n{report:#?}", finding.case);
    // At one time the engine refuses the call.
    let mut hurried = (*finding).clone();
    hurried.case = finding.case.replace(",\"after\":\"3601s\"", "");
    assert_ne!(hurried.case, finding.case);
    assert!(run_case(&plan, &hurried).is_ok());
}

/// A path without a wait is preferred.
#[test]
fn nothing_waits_where_a_call_is_permitted_at_once() {
    let lax = FORBID.replace("when {", "when { context.session.calls > 5 &&");
    let (_, results) = analyze(&bundle(&facts("8h"), &format!("{ALL}{lax}")));
    let [finding] = of_rule(&results, "assertion:a")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::PathFound, "{finding:#?}");
    assert!(!finding.case.contains("\"after\""), "{}", finding.case);
}

/// The agent reads for one person and sends for another one, so that only its memory has the data.
#[test]
fn an_agent_that_forgets_before_the_end_of_a_window_sends_nothing() {
    let policies = "@id(\"bots\") permit(principal in Role::\"bot\", action in [Action::\"crm.get\", Action::\"mail.send\"], resource);
@id(\"staff\") permit(principal in Role::\"staff\", action == Action::\"crm.get\", resource);
@id(\"others\") permit(principal is User, action == Action::\"mail.send\", resource) unless { principal in Role::\"staff\" };
";
    for (memory, verdict) in [("8h", Finality::PathFound), ("30m", Finality::NotDecided)] {
        let facts = facts(memory).replace("memory:", "subject: required, memory:");
        let (_, results) = analyze(&bundle(&facts, &format!("{policies}{FORBID}")));
        let [finding] = of_rule(&results, "assertion:a")[..] else { panic!("{results:#?}") };
        assert_eq!(finding.verdict, verdict, "{memory}: {finding:#?}");
    }
}
