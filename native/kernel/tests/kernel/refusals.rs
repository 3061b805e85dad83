//! What refuses a bundle, word for word.

use crate::common::{compile, model, operation, refusals};
use authz_kernel::model::{Effect, Operation, ResourceRule, Spelling, Tier};

/// Each policy is refused with exactly these lines (the file name left out).
const REFUSED: &[(&str, &[&str])] = &[
    (
        "permit(principal, action, resource);",
        &[
            "1:1: the policy has no `@id`. Write `@id(\"…\")` before it: decisions, tests and the audit name policies by it.",
        ],
    ),
    (
        "@id(\"a\") permit(principal, action, resource);\n@id(\"a\") permit(principal, action, resource);",
        &[
            "2:1: the id `a` is also at policies/support.cedar:1. Give each policy an `@id` of its own.",
        ],
    ),
    (
        "@id(\"a\") @resaon(\"x\") permit(principal, action, resource);",
        &["1:10: unknown annotation `@resaon`. Did you mean `@reason`?"],
    ),
    (
        "@id(\"a b\") permit(principal, action, resource);",
        &["1:1: `@id(\"a b\")` is no id. Use letters, digits and `-_.:/`, at most 128."],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") permit(principal, action, resource);",
        &[
            "1:10: `@stepup` on a permit does nothing. Put it on a `forbid`, with `unless { context.satisfied.contains(Kind::\"…\") }`.",
        ],
    ),
    (
        "@id(\"a\") @obligation(\"redact:pii\") forbid(principal, action, resource);",
        &[
            "1:10: `@obligation` on a forbid does nothing. Put it on the `permit` whose use it conditions.",
        ],
    ),
    (
        "@id(\"a\") @obligation(\"redact pii\") permit(principal, action, resource);",
        &[
            "1:10: `@obligation` has `redact pii`: there is no obligation of the name. Write `redact:NAME`, `redact:/POINTER`, `mask_arguments:/POINTER`, `log_full`, `max_uses:NUMBER` or `custom:NAME`.",
        ],
    ),
    (
        "@id(\"a\") @obligation(\"redact:pii,log\") permit(principal, action, resource);",
        &[
            "1:10: `@obligation` has `log`: there is no obligation of the name. Write `redact:NAME`, `redact:/POINTER`, `mask_arguments:/POINTER`, `log_full`, `max_uses:NUMBER` or `custom:NAME`; here for example `custom:log`.",
        ],
    ),
    (
        "@id(\"a\") @obligation(\"mask_arguments:/amonut\") permit(principal, action == Action::\"crm.refund\", resource);",
        &[
            "1:1: `@obligation` masks `/amonut`, which no operation in the policy's scope has as an argument. Write a JSON pointer to an argument, such as `mask_arguments:/salary`.",
        ],
    ),
    (
        "@id(\"a\") @control(\"\") permit(principal, action, resource);",
        &[
            "1:10: `@control` must be a comma list of control ids. Write for instance `@control(\"ASI03,NHI5\")`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"aprove\") forbid(principal, action, resource) unless { context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:10: unknown step-up kind `aprove`; declared: approve, approve:staff, approve:support-agent, bound_token, confidence and 3 more. Did you mean `approve`?",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") forbid(principal, action, resource);",
        &[
            "1:10: nothing lifts `@stepup(\"approve\")`: the policy would still fire after the step-up. Add `unless { context.satisfied.contains(Kind::\"approve\") }`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") forbid(principal, action, resource) unless { context.satisfied.contains(Kind::\"confirm\") };",
        &[
            "1:10: nothing lifts `@stepup(\"approve\")`: the policy would still fire after the step-up. Add `unless { context.satisfied.contains(Kind::\"approve\") }`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") forbid(principal, action, resource) unless { context.tier == 0 && context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:10: nothing lifts `@stepup(\"approve\")`: the policy would still fire after the step-up. Add `unless { context.satisfied.contains(Kind::\"approve\") }`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers`: it needs a comma list of operations. Write for instance `@covers(\"mail.send, mail.reply; uses=20; within=1h\")`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refund,\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers`: it needs a comma list of operations. Write for instance `@covers(\"mail.send, mail.reply; uses=20; within=1h\")`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refund, mail.send\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers`: its operations are of more than one system (crm, mail), and a value says nothing in another system. Write for instance `@covers(\"mail.send, mail.reply; uses=20; within=1h\")`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refund; uses=0\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers`: `uses=0` is no number from 1 to 100. Write for instance `@covers(\"mail.send, mail.reply; uses=20; within=1h\")`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refund; uses=101\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers`: `uses=101` is no number from 1 to 100. Write for instance `@covers(\"mail.send, mail.reply; uses=20; within=1h\")`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refund; within=61m\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers`: `within=61m` is no duration of at most 1h. Write for instance `@covers(\"mail.send, mail.reply; uses=20; within=1h\")`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refund; uses=2; uses=3\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers`: `uses=3` repeats a limit. Write for instance `@covers(\"mail.send, mail.reply; uses=20; within=1h\")`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refund; often\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers`: `often` is neither `uses` nor `within`. Write for instance `@covers(\"mail.send, mail.reply; uses=20; within=1h\")`.",
        ],
    ),
    (
        "@id(\"a\") @covers(\"crm.refund\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:10: `@covers` stands on a policy that people do not lift. Put it beside `@stepup` of `confirm`, `approve`, `approve:ROLE` or `two_person`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"confidence\") @covers(\"crm.refund\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"confidence\") };",
        &[
            "1:32: `@covers` stands on a policy that people do not lift. Put it beside `@stepup` of `confirm`, `approve`, `approve:ROLE` or `two_person`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refnd\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers`: unknown operation `crm.refnd`; declared: crm.refund, authz.approve, authz.explain, authz.probe, authz.reload and 11 more. Did you mean `crm.refund`?",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refund, crm.get\") forbid(principal, action == Action::\"crm.refund\", resource) unless { [Origin::\"named\"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers` names `crm.get`, which is not in the scope of the policy. Add the operation to the policy's scope, or remove it from `@covers`.",
        ],
    ),
    (
        "@id(\"a\") @stepup(\"approve\") @covers(\"crm.refund\") forbid(principal, action == Action::\"crm.refund\", resource) unless { context.satisfied.contains(Kind::\"approve\") };",
        &[
            "1:29: `@covers` does nothing: the policy does not read `context.origins`, so that an endorsed value does not lift it. Compare `context.origins`, or remove `@covers`.",
        ],
    ),
    (
        "@id(\"a\") forbid(principal == ?principal, action, resource);",
        &[
            "1:1: a template (`?principal` or `?resource`) is linked by nothing, so it would never be evaluated. Write a policy that names the principal or resource, or a role or collection.",
        ],
    ),
    (
        "@id(\"a\") forbid(principal in Role::\"stafff\", action, resource);",
        &[
            "1:30: unknown role `stafff`; declared: staff (support.yaml:11), support-agent (support.yaml:12). Did you mean `staff`?",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action, resource)\n  when { resource is Resource && resource.labels.contains(Label::\"pi\") };",
        &[
            "2:59: unknown label `pi`; declared: pii (support.yaml:5), vip (support.yaml:5). Did you mean `pii`?",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action == Action::\"crm.serch\", resource);",
        &[
            "1:38: unknown operation `crm.serch`; declared: crm.search, authz.approve, authz.explain, authz.probe, authz.reload and 11 more. Did you mean `crm.search`?",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action in Action::\"effect:exprot\", resource);",
        &[
            "1:38: unknown action group `effect:exprot`; declared: effect:export, effect:delete, effect:execute, effect:grant, effect:read and 4 more. Did you mean `effect:export`?",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action in Action::\"effect:grant\", resource);",
        &[
            "1:38: the action group `effect:grant` is empty: no operation is in it, so the policy could never match. Classify an operation into it, or remove it from the policy.",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action, resource in Collection::\"custmers\");",
        &[
            "1:48: unknown collection `custmers`; declared: customers (support.yaml:7). Did you mean `customers`?",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action, resource == Resource::\"custmers/1\");",
        &[
            "1:48: unknown collection `custmers`; declared: customers (support.yaml:7). Did you mean `customers`?",
        ],
    ),
    (
        "@id(\"a\") forbid(principal == Agent::\"spiffe://a.example/x\", action, resource);",
        &[
            "1:30: no registration under `agents` matches `Agent::\"spiffe://a.example/x\"`, so the policy could never match. Register the agent with a role, or correct its SPIFFE id.",
        ],
    ),
    (
        "@id(\"a\") forbid(principal == User::\"alice\", action, resource);",
        &[
            "1:30: `User::\"alice\"` could never match: a subject is named `<issuer alias>/<sub>`. Put the issuer's alias before the `sub`.",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action, resource) when { context.teir == 1 };",
        &[
            "1:53: unknown context key `teir`; known: tier, input, task, subject_proof, chain and 14 more. Did you mean `tier`?",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action, resource) when { context == {} };",
        &["1:53: `context` may be read only by its keys. Read a key, for instance `context.tier`."],
    ),
    (
        "@id(\"a\") forbid(principal, action == Action::\"crm.refund\", resource) when { context.input has amuont && context.input.amuont > 10 };",
        &[
            "1:77: unknown argument `amuont`; declared: amount, extra, id, note, odd name and 1 more: no operation in the policy's scope has it, so the policy could never match. Did you mean `amount`?",
            "1:105: unknown argument `amuont`; declared: amount, extra, id, note, odd name and 1 more: no operation in the policy's scope has it, so the policy could never match. Did you mean `amount`?",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action in Action::\"system:mail\", resource) when { context.input has amount };",
        &[
            "1:78: unknown argument `amount`; declared: body, cc, to: no operation in the policy's scope has it, so the policy could never match. Write one of the declared names, or declare this one.",
        ],
    ),
    (
        "@id(\"a\") forbid(principal, action, resource) when { ",
        &[
            "1:52: unexpected end of input. Expected `!`, `(`, `-`, `[`, `{`, `}`, `false`, identifier, `if`, number, `?principal`, `?resource`, string literal, or `true`.",
        ],
    ),
];

#[test]
fn each_mistake_is_refused_with_its_place_and_its_fix() {
    let mut wrong = Vec::new();
    for (policies, expected) in REFUSED {
        let expected: Vec<String> =
            expected.iter().map(|line| format!("policies/support.cedar:{line}")).collect();
        let found = refusals(policies);
        if expected != found {
            wrong.push(format!("{policies}\n  wanted {expected:#?}\n  found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Cedar's own words are not ours to repeat; that it refuses is.
#[test]
fn what_the_validator_finds_or_warns_of_is_refused_with_its_place() {
    for (policies, place, part) in [
        (
            "@id(\"a\") forbid(principal, action, resource) when { context.tier == \"x\" };",
            "1:",
            "a",
        ),
        (
            "@id(\"a\") forbid(principal, action, resource) when { principal.team == \"x\" };",
            "1:",
            "team",
        ),
        // An optional argument without `has`.
        (
            "@id(\"a\") forbid(principal, action == Action::\"crm.search\", resource) when { context.input.limit > 1 };",
            "1:",
            "limit",
        ),
        // Only a warning of Cedar's: the policy can never match.
        (
            "@id(\"a\") forbid(principal is User, action, resource) when { principal is Agent };",
            "1:",
            "impossible",
        ),
        ("@id(\"a\") forbid(principal, action, resource) when { false };", "1:", "never match"),
        (
            "@id(\"a\") forbid(principal, action == Action::\"mail.status\", resource is Resource);",
            "1:",
            "",
        ),
        // Level: an attribute of an entity that is no variable.
        (
            "@id(\"a\") forbid(principal, action, resource) when { Agent::\"spiffe://a.example/ns/support/sa/bot\".trust_domain == \"x\" };",
            "1:",
            "",
        ),
        // Letters of two scripts.
        (
            "@id(\"a\") forbid(principal, action, resource) when { context.enforcer == \"envоy\" };",
            "1:",
            "script",
        ),
    ] {
        let lines = refusals(policies);
        assert!(!lines.is_empty(), "loaded: {policies}");
        let prefix = format!("policies/support.cedar:{place}");
        assert!(lines.iter().all(|line| line.starts_with(&prefix)), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains(part)), "{lines:?}");
    }
}

#[test]
fn a_policy_on_a_group_may_not_read_an_argument_of_two_types() {
    let mut two = model(
        "@id(\"a\") forbid(principal, action in Action::\"effect:read\", resource) when { context.input has limit && context.input.limit > 5 };",
    );
    assert!(compile(two.clone(), None).is_ok(), "operations without the argument do not matter");
    let status = two.operations.iter_mut().find(|operation| operation.id == "mail.status").unwrap();
    status.input =
        serde_json::json!({"type": "object", "properties": {"limit": {"type": "string"}}}).into();
    assert!(compile(two, None).is_err());
}

#[test]
fn names_that_are_ours_are_refused() {
    let mut taken = model("");
    let system = taken.systems["crm"].clone();
    taken.systems.insert("authz".to_owned(), system);
    let class = taken.destinations["external"].clone();
    taken.destinations.insert("none".to_owned(), class);
    let errors = compile(taken, None).unwrap_err().to_string();
    assert_eq!(
        "support.yaml:1:3: the system `authz` is this server. Use another name.\n\
         support.yaml:9:3: the destination class `none` stands for an operation without destination. Use another name.",
        errors
    );
}

#[test]
fn conditions_that_nest_too_deep_are_refused() {
    let policy =
        |body: &str| format!("@id(\"a\") permit(principal, action, resource) when {{ {body} }};");
    let row = |count: usize| policy(&vec!["context.tier < 3"; count].join(" && "));
    assert_eq!(Vec::<String>::new(), refusals(&row(150)));
    let long = "policies/support.cedar:1:1: the policy has more than 10,000 nodes, or nests deeper than 200. Split it.";
    assert_eq!(vec![long], refusals(&row(600)));
    for (open, close) in [("(", ")"), ("!(", ")"), ("[", "]"), ("if true then true else ", "")] {
        let body = format!("{}context.chain.subject{}", open.repeat(20_000), close.repeat(20_000));
        let lines = refusals(&policy(&body));
        assert!(lines[0].ends_with("the policy nests deeper than 64. Split it."), "{lines:?}");
    }
    // What stands in texts and comments does not count.
    let brackets = "(".repeat(100);
    let plain = format!(
        "// {brackets}\n{}",
        policy(&format!("context.enforcer == \"\\\"{brackets}\" || context.tier == 0"))
    );
    assert_eq!(Vec::<String>::new(), refusals(&plain));
}

/// Says to the test below that it is its own child process.
const CHILD: &str = "AUTHZ_TEST_LONG_ROWS";

/// A stack that overflows ends the process, so the work is done in a child.
#[test]
fn long_rows_are_refused_before_they_are_parsed() {
    if std::env::var_os(CHILD).is_some() {
        return long_rows();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "refusals::long_rows_are_refused_before_they_are_parsed", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{errors}");
}

fn long_rows() {
    let when = |body: &str| format!("forbid(principal, action, resource) when {{ {body} }};");
    let accesses = "more than 2000 of `.` and `[`";
    let sums = "more than 1000 of `+`, `-` and `*`";
    let joins = "more than 1000 of `&&`, `||`, `when` and `unless`";
    let many = |text: &str| text.repeat(150_000);
    for (policy, part) in [
        (when(&format!("context.input.meta{} == 1", many(".a"))), accesses),
        (when(&format!("context{} == 1", many("[\"input\"]"))), accesses),
        (when(&format!("context.satisfied{}", many(".contains(1)"))), accesses),
        (when(&format!("1{} == 1", many("+1"))), sums),
        (when(&format!("1{} == 1", many("*1"))), sums),
        (when(&format!("{} context.tier == 2", many("context.tier == 1 ||"))), joins),
        (when(&format!("{} true", many("true ||"))), joins),
        (when(&format!("// comment\rtrue {} ", many("&& true"))), joins),
        (format!("forbid(principal, action, resource) {};", many("when {true}")), joins),
    ] {
        let lines = refusals(&format!("@id(\"a\") {policy}"));
        assert_eq!(1, lines.len(), "{lines:?}");
        assert!(lines[0].starts_with("policies/support.cedar:1:"), "{lines:?}");
        assert!(lines[0].ends_with(&format!("the policy has {part}. Split it.")), "{lines:?}");
        assert!(authz_kernel::format::format_policy("a.cedar", &policy).is_err());
    }
    // What is bounded only by the parser: it must refuse or load, and not overflow.
    for policy in [
        when(&format!("{}A::\"x\" == principal", many("a::"))),
        when(&format!("{}true", many("!"))),
        when(&format!("context.tier {} 1", many("< 1"))),
        when(&format!("[{}1].contains(1)", many("1,"))),
        format!("{}forbid(principal, action, resource);", many("@a(\"\")")),
    ] {
        assert!(!refusals(&policy).is_empty());
    }
}

#[test]
fn long_chains_of_attributes_are_refused() {
    let policy = format!(
        "@id(\"a\") forbid(principal, action, resource) when {{ context.input.extra{} == 1 }};",
        ".a".repeat(1_900)
    );
    let long = "policies/support.cedar:1:1: the policy has more than 10,000 nodes, or nests deeper than 200. Split it.";
    assert_eq!(vec![long], refusals(&policy));
}

/// On a short stack Cedar's validator finds nothing wrong, and says nothing.
#[test]
fn a_short_stack_of_the_caller_hides_no_error() {
    let typo = "@id(\"a\") forbid(principal, action, resource) when { context.tier == \"x\" };";
    let model = model(typo);
    let compile =
        move || crate::common::compile(model, None).map(drop).map_err(|errors| errors.to_string());
    let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(compile).unwrap();
    let errors = thread.join().unwrap().unwrap_err();
    assert!(errors.starts_with("policies/support.cedar:1:"), "{errors}");
}

/// The support desk with a second collection, on which one operation acts.
fn with_orders(policies: &str) -> Vec<String> {
    let mut model = model(policies);
    let customers = model.collections["customers"].clone();
    model.collections.insert("orders".to_owned(), customers);
    let input = serde_json::json!({"type": "object", "required": ["id"], "properties": {
        "id": {"type": "string"},
        "meta": {"type": "object", "properties": {"amount": {"type": "integer"}}}
    }});
    model.operations.push(Operation {
        resource: Some(ResourceRule {
            collection: "orders".to_owned(),
            id: Some("/id".to_owned()),
            spelling: Spelling::Exact,
        }),
        ..operation("crm.del_order", &[Effect::Delete], Tier::High, input)
    });
    match compile(model, None) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .iter()
            .map(|error| error.to_string().replace("policies/support.cedar:1:", ""))
            .collect(),
    }
}

/// What follows `@id("a") forbid(`, and the one line that refuses it.
const NEVER: &[(&str, &str)] = &[
    (
        "principal, action == Action::\"crm.del_order\", resource in Collection::\"customers\");",
        "75: no operation in the policy's scope acts on the collection `customers`, so this could never match. Correct the policy's actions, or the name.",
    ),
    (
        "principal, action == Action::\"crm.del_order\", resource == Resource::\"customers/42\");",
        "75: no operation in the policy's scope acts on the collection `customers`, so this could never match. Correct the policy's actions, or the name.",
    ),
    (
        "principal, action == Action::\"crm.del_order\", resource in System::\"mail\");",
        "75: no operation in the policy's scope is of the system `mail`, so this could never match. Correct the policy's actions, or the name.",
    ),
    (
        "principal, action in Action::\"effect:export\", resource) when { resource in Collection::\"orders\" };",
        "?: no operation in the policy's scope acts on the collection `orders`, so this could never match. Correct the policy's actions, or the name.",
    ),
    (
        "principal, action, resource == Resource::\"customers/\");",
        "48: `Resource::\"customers/\"` could never match: it is empty, or longer than 1,024 bytes. Write 1 to 1,024 bytes.",
    ),
    (
        "principal, action, resource == Resource::\"customers/a//x\");",
        "48: `Resource::\"customers/a//x\"` could never match: it has an empty segment, or ends in a slash. Write one `/` between segments, and none at the end.",
    ),
    (
        "principal, action == Action::\"crm.get\", resource) when { context.destination.class == DestinationClass::\"external\" };",
        "?: no operation in the policy's scope has a destination, so this could never match. Correct the policy's actions, or the name.",
    ),
    (
        "principal, action == Action::\"crm.del_order\", resource) when { context.tier > 2 || (context.input has meta && context.input.meta has amuont) };",
        "?: unknown member `amuont`; declared: amount: nothing in the policy's scope has it, so this could never match. Did you mean `amount`?",
    ),
    (
        "principal, action == Action::\"crm.get\", resource) when { context.tier > 2 || resource has lables };",
        "?: unknown attribute `lables`; declared: labels, id: nothing in the policy's scope has it, so this could never match. Did you mean `labels`?",
    ),
    (
        "principal, action, resource) when { context.tier > 2 || principal has teem };",
        "?: unknown attribute `teem`; declared: issuer, spiffe_id, sub, trust_domain: nothing in the policy's scope has it, so this could never match. Write one of the declared names, or declare this one.",
    ),
    (
        "principal is User, action, resource) when { context.tier > 2 || principal has spiffe_id };",
        "?: unknown attribute `spiffe_id`; declared: issuer, sub: nothing in the policy's scope has it, so this could never match. Write one of the declared names, or declare this one.",
    ),
    (
        "principal, action == Action::\"mail.status\", resource) when { context.tier > 2 || resource has labels };",
        "?: unknown attribute `labels`: nothing in the policy's scope has it, so this could never match. No attribute is declared.",
    ),
    (
        "principal, action, resource) unless { context.tier > 2 || context.destination has hots };",
        "?: unknown attribute `hots`; declared: host, class, present, trusted: nothing in the policy's scope has it, so this could never match. Did you mean `host`?",
    ),
    (
        "principal, action, resource) when { context.tier > 2 || principal.hasTag(\"x\") };",
        "?: no entity has tags, so this could never match. Read an attribute, for instance `resource.labels`.",
    ),
    (
        "principal, action, resource) when { context.tier > 3 };",
        "?: `context.tier` is a number from 0 to 3, so this comparison is always true. Correct the number, or remove the comparison.",
    ),
    (
        "principal, action, resource) when { 101 == context.confidence };",
        "?: `context.confidence` is a number from 0 to 100, so this comparison is always false. Correct the number, or remove the comparison.",
    ),
    (
        "principal, action, resource) when { context.destination.host like \"*.Evil.example\" };",
        "?: `context.destination.host` is in lower case, so this comparison is always false. Write the host in lower case.",
    ),
    (
        "principal, action, resource) when { \"Evil.example\" == context.destination.host };",
        "?: `context.destination.host` is in lower case, so this comparison is always false. Write the host in lower case.",
    ),
];

#[test]
fn what_could_never_match_is_refused() {
    let mut wrong = Vec::new();
    for (policy, expected) in NEVER {
        let found = with_orders(&format!("@id(\"a\") forbid({policy}"));
        let fits = match (found.as_slice(), expected.strip_prefix('?')) {
            ([line], Some(end)) => line.ends_with(end),
            ([line], None) => line == expected,
            _ => false,
        };
        if !fits {
            wrong.push(format!("{policy}\n  wanted {expected}\n  found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for policy in [
        "principal, action, resource in Collection::\"customers\");",
        "principal, action, resource in Collection::\"orders\");",
        "principal, action in Action::\"effect:delete\", resource == Resource::\"customers/a/b\");",
        "principal, action, resource == Resource::\"customers\");",
        "principal, action, resource in System::\"authz\");",
        "principal, action in Action::\"effect:export\", resource) when { context.destination.class == DestinationClass::\"none\" };",
        "principal, action, resource) when { context.input has meta && context.input.meta has amount };",
        "principal, action, resource) when { context.tier >= 3 && context.confidence < 100 };",
        "principal, action, resource) when { context.destination.host like \"*.evil.example\" };",
        "principal, action, resource) when { principal has spiffe_id && principal.spiffe_id like \"*x\" };",
    ] {
        let found = with_orders(&format!("@id(\"a\") forbid({policy}"));
        assert_eq!(Vec::<String>::new(), found, "{policy}");
    }
}

#[test]
fn a_step_up_beside_what_always_holds_is_refused() {
    let lifted = |beside: &str| {
        refusals(&format!(
            "@id(\"a\") @stepup(\"approve\") forbid(principal, action, resource) unless {{ {beside} context.satisfied.contains(Kind::\"approve\") }};"
        ))
    };
    for beside in [
        "1 == 1 ||",
        "1 < 2 ||",
        "context.enforcer like \"*\" ||",
        "context.enforcer == context.enforcer ||",
        "context has tier ||",
        "context.destination has host ||",
        "context.tier == 0 || context.tier != 0 ||",
        "(context.chain.subject || 2 > 1) ||",
    ] {
        let lines = lifted(beside);
        assert!(
            lines.iter().any(|line| line.ends_with(": this condition is the same for every request, and with it the policy could never match. Correct or remove it.")),
            "{beside} {lines:?}"
        );
    }
    assert!(lifted("context.tier >= 0 ||")[0].contains("always"));
    assert_eq!(Vec::<String>::new(), lifted(""));
    assert_eq!(Vec::<String>::new(), lifted("context.tier == 0 || context.chain.subject ||"));
}
