//! Calls that are permitted because a person named their values: the search writes the prompt, and the exported test has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_analyze::paths::PathResults;
use authz_analyze::report::{Finality, Finding};
use authz_kernel::plan::Plan;

use crate::paths::{FACTS, analyze, bundle, is_proved, of_rule, run_case};

const TASKS: &str = "templates: {work: {purpose: work, deadline: 1h, tier_cap: high, starters: [STARTERS], scope: [{system: crm}, {system: mail}, {system: wiki}]}}";
const STARTS: &str = "@id(\"start\") permit(principal, action == Action::\"task:work\", resource);
@id(\"give\") permit(principal, action == Action::\"give:work\", resource);
";
const READS: &str = "@id(\"read\") permit(principal, action in [Action::\"crm.get\", Action::\"mail.read\"], resource);\n";
const SENDS: &str = "@id(\"send\") permit(principal, action == Action::\"mail.send\", resource);\n";
const NAMED: &str =
    "@id(\"named-alone\") forbid(principal, action == Action::\"mail.send\", resource)
unless { [Origin::\"named\"].containsAll(context.origins.recipient) };
";

/// A bundle whose agents act in tasks that people start, and agents of the role `starters`.
fn in_tasks(facts: &str, starters: &str, never: &str, policies: &str) -> BTreeMap<String, Vec<u8>> {
    let tasks = TASKS.replace("STARTERS", starters);
    let facts =
        format!("{facts}\n{tasks}\nanalysis: {{assertions: [{{id: a, never: {never}}}]}}\n");
    let mut files = bundle(&facts, &format!("{STARTS}{policies}"));
    files.insert("bundle.yaml".to_owned(), b"name: test\n".to_vec());
    files
}

fn results(facts: &str, never: &str, policies: &str) -> (Arc<Plan>, PathResults) {
    analyze(&in_tasks(facts, "", never, policies))
}

/// The path of the assertion. Its case fails at the last step alone.
fn path<'r>(plan: &Arc<Plan>, results: &'r PathResults) -> &'r Finding {
    let [finding] = of_rule(results, "assertion:a")[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::PathFound, "{finding:#?}");
    let report = run_case(plan, finding);
    let steps = finding.case.matches("\"expect\"").count();
    assert_eq!(report.passed + 1, steps, "{}\n{report:#?}", finding.case);
    let [failure] = report.failed.as_slice() else { panic!("{}\n{report:#?}", finding.case) };
    assert_eq!((failure.step, failure.actual.contains("PERMIT")), (steps, true), "{report:#?}");
    finding
}

fn is_open(results: &PathResults) -> bool {
    let found = of_rule(results, "assertion:a");
    !found.is_empty() && found.iter().all(|one| one.verdict == Finality::NotDecided)
}

#[test]
fn a_prompt_names_the_recipient_of_a_path() {
    let policies = format!("{READS}{SENDS}{NAMED}");
    let (plan, results) = results(FACTS, "{label: pii, destination: outside}", &policies);
    let finding = path(&plan, &results);
    let operations: Vec<&str> = finding.path.iter().map(|step| step.operation.as_str()).collect();
    assert_eq!(operations, ["authz.task:work", "crm.get", "mail.send"]);
    // The prompt names no more than the path needs.
    let note = &finding.path.first().unwrap().note;
    assert!(note.ends_with("; the subject's prompt names stranger@outside.example"), "{note}");
    assert!(finding.case.contains("\"prompt\":\"stranger@outside.example\""), "{}", finding.case);
}

/// A call that nobody asked for is worse than one that a person asked for.
#[test]
fn a_path_without_a_prompt_is_preferred() {
    let loose = NAMED.replace("unless {", "unless { context.session.calls > 0 ||");
    let policies = format!("{READS}{SENDS}{loose}");
    let (plan, results) = results(FACTS, "{label: pii, destination: outside}", &policies);
    let finding = path(&plan, &results);
    assert!(!finding.case.contains("prompt"), "{}", finding.case);
    assert!(finding.path.iter().all(|step| !step.note.contains("prompt")), "{finding:#?}");
}

/// The words of an agent are claims, so the subject writes the prompt itself.
#[test]
fn the_subject_adds_a_prompt_to_a_task_that_an_agent_starts() {
    let not_alone = "@id(\"not-alone\") forbid(principal, action == Action::\"task:work\", resource) when { context.chain.depth < 2 };";
    let policies = format!("{READS}{SENDS}{NAMED}{not_alone}");
    let files = in_tasks(FACTS, "bot", "{label: pii, destination: outside}", &policies);
    let (plan, results) = analyze(&files);
    let finding = path(&plan, &results);
    assert!(finding.case.contains("\"extend\":{\"prompt\":"), "{}", finding.case);
}

/// A prompt brings no value of a result.
#[test]
fn a_prompt_decides_nothing_else() {
    let brought = SENDS.replace(
        "resource);",
        "resource) when { context.origins.recipient == [Origin::\"introduced\"] };",
    );
    let policies = format!("{READS}{brought}");
    let (_, results) = results(FACTS, "{label: pii, destination: outside}", &policies);
    assert!(is_open(&results), "{results:#?}");
    let never = format!(
        "{READS}{SENDS}{NAMED}@id(\"no\") forbid(principal, action == Action::\"mail.send\", resource) when {{ !context.uncleared_labels.isEmpty() }};"
    );
    let (_, results) = self::results(FACTS, "{label: pii, destination: outside}", &never);
    assert!(is_proved(&results, "assertion:a"), "{results:#?}");
}

#[test]
fn trusted_destinations_and_addresses_in_texts_are_named() {
    for condition in ["context.destination.trusted", "context.literals.unknown == 0"] {
        let forbid = format!(
            "@id(\"no\") forbid(principal, action == Action::\"mail.send\", resource) unless {{ {condition} }};"
        );
        let policies = format!("{READS}{SENDS}{forbid}");
        let (plan, results) = results(FACTS, "{label: pii, destination: outside}", &policies);
        let finding = path(&plan, &results);
        assert!(finding.case.contains("\"prompt\""), "{condition}: {}", finding.case);
    }
}

#[test]
fn a_prompt_names_ids_and_amounts() {
    let facts = FACTS
        .replace(
            "      grant: {input: {type: object, properties: {to: {type: string}, amount: {type: integer}}, required: [to, amount]}}",
            "      grant: {input: {type: object, properties: {to: {type: string}, amount: {type: integer}, currency: {type: string}}, required: [to, amount, currency]}}",
        )
        .replace(
            "crm.grant, effects: [grant], tier: high",
            "crm.grant, effects: [grant], tier: high, objects: [{from: [/to], role: target, collection: customers}, {from: [/amount], role: amount, currency: /currency, scale: 100}]",
        );
    let policies = "@id(\"grant\") permit(principal, action == Action::\"crm.grant\", resource)
when { context.origins.target == [Origin::\"named\"] && context.origins.amount == [Origin::\"named\"] && context.input.amount > 5000 };";
    let (plan, results) = results(&facts, "{effect: grant}", policies);
    let finding = path(&plan, &results);
    assert!(finding.case.contains("EUR 50.01"), "{}", finding.case);
    let one = policies.replace("context.origins.target == ", "context.origins.command == ");
    let (_, results) = self::results(&facts, "{effect: grant}", &one);
    assert!(!of_rule(&results, "assertion:a").iter().any(|one| one.verdict == Finality::PathFound));
}
