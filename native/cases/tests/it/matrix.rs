//! Matrices: a cell is a case, and a failure names it.

use std::collections::BTreeMap;

use authz_cases::{Failure, parse, run};

use crate::traces::{NOW, compiled};

const FACTS: &str = include_str!("../../../kernel/tests/facts/report.yaml");
const POLICIES: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("stop") forbid(principal, action == Action::"crm.delete", resource);
@id("large") forbid(principal, action == Action::"crm.move", resource) when { context.input.n > 10 };
@id("ask") @stepup("approve") forbid(principal, action == Action::"mail.send", resource)
unless { context.satisfied.contains(Kind::"approve") };
@id("order") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"look-first") };
@id("looked") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"looked") };
"#;
const FIXTURES: &str = "fixtures: {agents: {bot: 'spiffe://a.example/ns/desk/sa/bot', other: 'spiffe://a.example/ns/x/sa/other'}}\n";
const MATRIX: &str = r"tests:
  - case: who may do what
    matrix:
      principals:
        bot: {agent: bot}
        other: {agent: other}
      operations:
        crm.list:
        crm.delete:
        move: {call: crm.move, input: {n: 1}}
        mail: {call: mail.send, input: {to: [a@x.example]}}
      contexts:
        plain:
        much: {input: {n: 11}}
        approved: {as: {satisfied: approve}}
        listed: {task: {template: desk}, before: [{call: crm.list, expect: PERMIT}]}
      outcomes:
        - [operation,  context,  bot,            other]
        - [crm.list,   plain,    PERMIT,         DENY]
        - [crm.delete, plain,    DENY FORBIDDEN, {outcome: DENY, policy: stop}]
        - [move,       plain,    PERMIT,         DENY]
        - [move,       much,     DENY,           DENY]
        - [move,       listed,   {outcome: DENY, policies: [looked]}, any]
        - [mail,       plain,    STEP_UP,        DENY]
        - [mail,       approved, PERMIT,         any]
";

fn failures(text: &str) -> Vec<Failure> {
    let plan = compiled("{name: a, tasks: optional}", FACTS, POLICIES);
    run(
        &plan,
        &BTreeMap::from([("t.yaml".to_owned(), format!("{FIXTURES}{text}").into_bytes())]),
        NOW,
    )
    .failed
}

/// The message of the error of a file.
fn error(text: &str) -> String {
    let text = format!("{FIXTURES}{text}");
    parse("t.yaml", text.as_bytes(), &BTreeMap::new()).unwrap_err().to_string()
}

#[test]
fn each_cell_is_a_test() {
    assert_eq!(failures(MATRIX), []);
    let plan = compiled("{name: a, tasks: optional}", FACTS, POLICIES);
    let files = BTreeMap::from([("t.yaml".to_owned(), format!("{FIXTURES}{MATRIX}").into_bytes())]);
    let report = run(&plan, &files, NOW);
    assert_eq!(report.passed, 13, "twelve calls, and one step before a call");
}

#[test]
fn a_failure_names_its_cell_and_its_row() {
    let wrong =
        MATRIX.replace("much,     DENY,           DENY", "much,     DENY,           PERMIT");
    let failures = failures(&wrong);
    assert_eq!(failures.len(), 1);
    let failure = &failures[0];
    assert_eq!(failure.test, "who may do what: other, move, much");
    assert_eq!(failure.line, 23);
    assert_eq!(failure.expected, "outcome: PERMIT");
    let wrong = MATRIX.replace("policies: [looked]", "policies: [stop]");
    let failure = &self::failures(&wrong)[0];
    assert_eq!((failure.test.as_str(), failure.step), ("who may do what: bot, move, listed", 2));
    assert_eq!(failure.line, 24);
}

#[test]
fn a_step_before_a_call_fails_under_the_name_of_the_cell() {
    let wrong = MATRIX.replace(
        "before: [{call: crm.list, expect: PERMIT}]",
        "before: [{call: crm.list, expect: DENY}]",
    );
    let failure = &failures(&wrong)[0];
    assert_eq!((failure.test.as_str(), failure.step), ("who may do what: bot, move, listed", 1));
}

#[test]
fn a_matrix_without_contexts_has_no_column_for_them() {
    let text = r"tests:
  - case: small
    matrix:
      principals: {bot: {agent: bot}}
      operations: {crm.list: {}}
      outcomes:
        - [operation, bot]
        - [crm.list, PERMIT]
";
    assert_eq!(failures(text), []);
    let failure = &failures(&text.replace("PERMIT", "DENY"))[0];
    assert_eq!(failure.test, "small: bot, crm.list");
}

#[test]
fn a_table_that_is_not_whole_is_refused() {
    let edit = |from: &str, to: &str| error(&MATRIX.replace(from, to));
    for (from, to, part) in [
        (
            "[operation,  context,  bot,            other]",
            "[bot, other]",
            "t.yaml:19:11: the head of the table begins with `operation, context`",
        ),
        ("            other]", "            bot]", "the principal `bot` has two columns"),
        ("            other]", "            bog]", "unknown principal `bog`"),
        (
            "[crm.list,   plain,    PERMIT,         DENY]",
            "[crm.list, plain, PERMIT]",
            "the row has 3 cells, and the head has 4",
        ),
        ("[crm.list,   plain", "[crm.lits,   plain", "unknown operation `crm.lits`"),
        ("[crm.list,   plain", "[crm.list,   plian", "unknown context `plian`"),
        (
            "[mail,       approved",
            "[mail,       plain",
            "the table has this call in this context twice",
        ),
        ("approved, PERMIT,         any]", "approved, PERMITS, any]", "unknown outcome `PERMITS`"),
        ("DENY FORBIDDEN", "DENY FORBIDEN", "FORBIDEN"),
        (
            "        other: {agent: other}\n",
            "        other: {agent: other}\n        third: {agent: other}\n",
            "the principal `third` has no column in the table",
        ),
        (
            "        crm.list:\n",
            "        crm.list:\n        crm.pay:\n",
            "the operation `crm.pay` has no row in the table",
        ),
        (
            "        plain:\n",
            "        plain:\n        plane:\n",
            "the context `plane` has no row in the table",
        ),
        (
            "        other: {agent: other}\n",
            "        other: {agent: nobody}\n",
            "unknown agent `nobody`",
        ),
        ("much: {input: {n: 11}}", "much: {input: [11]}", "both are mappings"),
        (
            "    matrix:\n",
            "    as: {agent: bot}\n    matrix:\n",
            "the callers of a matrix are its `principals`",
        ),
        (
            "    matrix:\n",
            "    expect: DENY\n    matrix:\n",
            "the expectations of a matrix are its `outcomes`",
        ),
        (
            "    matrix:\n",
            "    call: crm.list\n    matrix:\n",
            "the calls of a matrix are its `operations`",
        ),
        (
            "    matrix:\n",
            "    task: {template: desk}\n    matrix:\n",
            "has no `steps` and no `task`",
        ),
        ("  - case:", "  - trace:", "a matrix is a `case`"),
        ("        much:", "        mush: {inputs: {}}\n        much:", "inputs"),
    ] {
        let message = edit(from, to);
        assert!(message.contains(part), "{from} -> {to}: {message}");
    }
}

#[test]
fn an_empty_table_is_refused() {
    let text = |outcomes: &str| {
        format!(
            "tests:\n  - case: small\n    matrix: {{principals: {{bot: {{agent: bot}}}}, operations: {{crm.list: {{}}}}, outcomes: {outcomes}}}\n"
        )
    };
    assert!(error(&text("[]")).contains("`outcomes` is empty"));
    assert!(error(&text("[[operation, bot]]")).contains("the table has no row"));
}

#[test]
fn cells_of_a_file_are_bounded() {
    let principals: String = (0..101).map(|index| format!("p{index}: {{agent: bot}}, ")).collect();
    let head: String = (0..101).map(|index| format!(", p{index}")).collect();
    let operations: String =
        (0..100).map(|index| format!("o{index}: {{call: crm.list}}, ")).collect();
    let rows: String =
        (0..100).map(|index| format!("        - [o{index}{}]\n", ", PERMIT".repeat(101))).collect();
    let text = format!(
        "tests:\n  - case: large\n    matrix:\n      principals: {{{principals}}}\n      operations: {{{operations}}}\n      outcomes:\n        - [operation{head}]\n{rows}"
    );
    assert!(error(&text).contains("more than 10000 cells"), "{}", error(&text));
}
