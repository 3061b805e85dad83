//! Nothing is proved that a feature of bundles makes false: recipient lists, data of resources, services, origins, break-glass, and operations that nobody reviewed.

use authz_analyze::paths::{ASSUMPTIONS, PathResults};
use authz_analyze::report::{Finality, Finding, Severity};

use crate::paths::{ALL, FACTS, analyze, bundle, is_proved, of_rule, run_case};

fn asserting(facts: &str, never: &str) -> String {
    format!("{facts}\nanalysis: {{assertions: [{{id: a, never: {never}}}]}}\n")
}

fn results(facts: &str, never: &str, policies: &str) -> PathResults {
    analyze(&bundle(&asserting(facts, never), policies)).1
}

fn operations(finding: &Finding) -> Vec<&str> {
    finding.path.iter().map(|step| step.operation.as_str()).collect()
}

/// The finding about the assertion.
fn found(results: &PathResults) -> &Finding {
    assert!(!is_proved(results, "assertion:a"), "{results:#?}");
    match of_rule(results, "assertion:a")[..] {
        [finding] => finding,
        _ => panic!("{results:#?}"),
    }
}

const SHARED: &str = "crm.share, effects: [export], tier: low, resource: {collection: customers, id: /id}, destination: {from: [/to], type: email}";

/// Facts with an operation that sends data.
fn sending(rule: &str) -> String {
    let name = rule.split(',').next().unwrap_or_default().trim_start_matches("crm.");
    FACTS
        .replace(
            "      grant: ",
            &format!("      {name}: {{input: {{type: object, properties: {{id: {{type: string}}, to: {{type: string}}}}, required: [id, to]}}}}\n      grant: "),
        )
        .replace("classify:\n", &format!("classify:\n  - {{match: {rule}}}\n"))
}

fn listing(source: &str) -> String {
    FACTS
        .replace(
            "destinations: {",
            &format!(
                "recipient_lists: {{friends: {{{source}}}}}\n\
                 destinations: {{friends: {{recipient_list: friends, clearance: []}}, "
            ),
        )
        .replace("required: [to]}}", "required: []}}")
        .replace("from: [/to], type: email", "from: [/to], type: email, when_absent: inside")
}

#[test]
fn an_entry_of_a_recipient_list_is_tried() {
    let facts = asserting(
        &listing("file: data/friends.csv, column: mail"),
        "{label: pii, destination: friends}",
    );
    let mut files = bundle(&facts, ALL);
    files.insert("data/friends.csv".to_owned(), b"name,mail\nAnn,ann@friends.example\n".to_vec());
    let (plan, results) = analyze(&files);
    let finding = found(&results);
    assert_eq!(finding.verdict, Finality::PathFound, "{finding:#?}");
    assert_eq!(operations(finding), ["crm.get", "mail.send"]);
    assert!(finding.case.contains("ann@friends.example"), "{}", finding.case);
    assert_eq!(run_case(&plan, finding).failed.len(), 1);
}

/// An open assertion fails a run, since its owners ask that it holds.
#[test]
fn a_recipient_list_that_is_fetched_leaves_the_assertion_open() {
    let facts = listing("url: 'https://lists.example/friends', max_age: 1h");
    let results = results(&facts, "{label: pii, destination: friends}", ALL);
    let finding = found(&results);
    assert_eq!((finding.verdict, finding.severity), (Finality::NotDecided, Severity::Error));
    assert!(!finding.reason.is_empty());
}

#[test]
fn several_recipients_of_one_call_are_tried() {
    let both = "context.input.to.containsAll([\"ann@friends.example\", \"bob@friends.example\"])";
    let policies = format!(
        "@id(\"read\") permit(principal, action == Action::\"crm.get\", resource);\n\
         @id(\"both\") permit(principal, action == Action::\"mail.send\", resource) when {{ context.input has to && {both} }};"
    );
    let facts = asserting(&listing("file: data/friends.csv"), "{label: pii, destination: friends}");
    let mut files = bundle(&facts, &policies);
    let list = b"ann@friends.example\nbob@friends.example\n";
    files.insert("data/friends.csv".to_owned(), list.to_vec());
    let (_, results) = analyze(&files);
    let finding = found(&results);
    assert_eq!(finding.verdict, Finality::PathFound, "{finding:#?}");
}

/// The data of the resource goes out, although the operation reads nothing.
#[test]
fn data_of_the_resource_of_a_call_goes_out_with_it() {
    let never = "{label: pii, destination: outside}";
    let permit = "@id(\"share\") permit(principal, action == Action::\"crm.share\", resource);\n";
    let plain = results(&sending(SHARED), never, permit);
    let finding = found(&plain);
    assert_eq!((finding.verdict, operations(finding)), (Finality::PathFound, vec!["crm.share"]));
    // Authz has the label of the resource for the destination, and not for the session.
    let forbid = |condition: &str| {
        format!(
            "{permit}@id(\"no\") forbid(principal, action, resource) when {{ {condition}.contains(Label::\"pii\") }};"
        )
    };
    let held = results(&sending(SHARED), never, &forbid("context.uncleared_labels"));
    assert!(is_proved(&held, "assertion:a"), "{held:#?}");
    let open = results(&sending(SHARED), never, &forbid("context.session.labels"));
    assert_eq!(found(&open).verdict, Finality::PathFound);
}

/// Authz learns the labels of the data with the answer, when the call has sent it.
#[test]
fn data_that_a_call_brings_and_sends_goes_out_with_it() {
    let rule = "crm.report, effects: [read, export], tier: low, yields: [pii], destination: {from: [/to], type: email}";
    let policies = "@id(\"report\") permit(principal, action == Action::\"crm.report\", resource);\n\
                    @id(\"no\") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };";
    let results = results(&sending(rule), "{label: pii, destination: outside}", policies);
    assert_eq!(operations(found(&results)), ["crm.report"]);
}

/// `after` speaks of data that was read before the call.
#[test]
fn the_resource_of_a_call_is_not_read_before_it() {
    let facts = sending(SHARED)
        .replace("customers: {labels: [pii]}", "customers: {labels: [pii, untrusted]}");
    let permit = "@id(\"share\") permit(principal, action == Action::\"crm.share\", resource);\n";
    let never = "{label: pii, after: untrusted, destination: outside}";
    let alone = results(&facts, never, permit);
    assert!(is_proved(&alone, "assertion:a"), "{alone:#?}");
    let read = format!(
        "{permit}@id(\"get\") permit(principal, action == Action::\"mail.read\", resource);"
    );
    let after = results(&facts, never, &read);
    assert_eq!(operations(found(&after)), ["mail.read", "crm.share"]);
}

/// An id that two patterns match holds the roles of both.
#[test]
fn an_agent_that_two_patterns_match_is_not_forgotten() {
    let facts = FACTS.replace(
        "agents: {bot: ['spiffe://dev.example/bot'], clerk: ['spiffe://dev.example/clerk']}",
        "agents: {bot: ['spiffe://dev.example/*/bot'], clerk: ['spiffe://dev.example/desk/*']}",
    );
    let policies = "@id(\"both\") permit(principal in Role::\"bot\", action == Action::\"crm.grant\", resource)\n\
                    when { principal in Role::\"clerk\" };";
    let both = results(&facts, "{effect: grant}", policies);
    assert_eq!(found(&both).verdict, Finality::PathFound);
    let apart = facts.replace("desk/*", "desk/clerk");
    let none = results(&apart, "{effect: grant}", policies);
    assert!(is_proved(&none, "assertion:a"), "{none:#?}");
}

#[test]
fn a_permit_of_services_is_not_forgotten() {
    let policies = "@id(\"bots\") permit(principal is Agent, action, resource);\n\
                    @id(\"jobs\") permit(principal is Service, action == Action::\"crm.grant\", resource);";
    let facts = FACTS.replace(
        "bot: ['spiffe://dev.example/bot']",
        "bot: {match: ['spiffe://dev.example/bot'], subject: required}",
    );
    let results = results(&facts, "{agent: bot, effect: grant}", policies);
    assert_eq!(found(&results).verdict, Finality::PathFound);
}

/// A call without a task has no prompt, so only the fixpoint counts the permit.
#[test]
fn a_permit_that_asks_who_chose_a_recipient_leaves_the_assertion_open() {
    let policies = "@id(\"named\") permit(principal, action == Action::\"mail.send\", resource)\n\
                    when { [Origin::\"named\"].containsAll(context.origins.recipient) };";
    let results = results(FACTS, "{operation: mail.send}", policies);
    assert_eq!(found(&results).verdict, Finality::NotDecided);
}

/// `mode` can let calls through of operations that nobody reviewed.
#[test]
fn an_operation_without_a_review_is_not_forgotten_where_mode_observes() {
    let facts =
        FACTS.replace("      grant: ", "      erase: {input: {type: object}}\n      grant: ");
    let never = "{operation: crm.erase}";
    let enforced = results(&facts, never, ALL);
    assert!(is_proved(&enforced, "assertion:a"), "{enforced:#?}");
    let mode = "mode: {default: observe, owner: sec, until: 2026-12-20}";
    let observed = results(&format!("{facts}{mode}\n"), never, ALL);
    assert!(!is_proved(&observed, "assertion:a"), "{observed:#?}");
}

/// Break-glass, and credentials in other hands, are no part of the model. A proof says so.
#[test]
fn a_proof_names_what_the_model_leaves_out() {
    let policies = "@id(\"emergency\") permit(principal, action == Action::\"crm.grant\", resource)\n\
                    when { context.exception.contains(Exception::\"breakglass\") };";
    let results = results(FACTS, "{effect: grant}", policies);
    let proof = results.proved.iter().find(|proof| proof.rule == "assertion:a");
    let assumptions = &proof.unwrap_or_else(|| panic!("{results:#?}")).assumptions;
    assert_eq!(assumptions.len(), ASSUMPTIONS.len() + 1);
    for text in ["break-glass", "task credential", "subject is asserted", "`mode`"] {
        assert!(assumptions.iter().any(|one| one.contains(text)), "{text}: {assumptions:#?}");
    }
}

/// An open question of a rule that every bundle has is not reported as an error, because no owner asked for the rule.
#[test]
fn an_open_question_of_a_rule_of_every_bundle_is_a_warning() {
    let facts = FACTS
        .replace("subjects: {", "subjects: {boss: {issuer: partner},")
        .replace("agents: {", "agents: {zoe: ['spiffe://dev.example/zoe'], ");
    let policies = format!(
        "{ALL}@id(\"held\") @stepup(\"approve:boss\") forbid(principal in Role::\"zoe\", action == Action::\"mail.send\", resource) unless {{ context.satisfied.contains(Kind::\"approve:boss\") }};\n\
         @id(\"approver\") permit(principal in Role::\"boss\", action == Action::\"authz.approve\", resource);"
    );
    let (_, results) = analyze(&bundle(&facts, &policies));
    let [finding] = of_rule(&results, "self-approval")[..] else { panic!("{results:#?}") };
    assert_eq!((finding.verdict, finding.severity), (Finality::NotDecided, Severity::Warning));
}
