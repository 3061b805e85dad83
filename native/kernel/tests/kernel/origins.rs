//! Origins of values: what policies read of them, and policies that let a worse origin pass.

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::decide::{CandidateValue, decide_traced, origin_of_candidate};
use authz_kernel::decision::{Decision, Facts, Outcome, ReasonCode, Verdict};
use authz_kernel::history::HistoryView;
use authz_kernel::model::{
    Coercion, CoercionRule, Model, ObjectRule, Operation, Origin, Spelling, Tier, ValueRole,
    ValueSpace,
};
use authz_kernel::model::{RecipientListRule, RecipientListSource};
use authz_kernel::plan::Plan;
use authz_kernel::recipient_lists::{
    Columns, RecipientListEntries, RecipientListState, RecipientLists,
};
use authz_kernel::task::{
    Part, PromptNames, Speaker, Task, TaskView, TaskWords, WordRecords, read_names, taskless,
};
use serde_json::json;

use crate::common::{NOTHING, NOW, PERMIT_ALL, alice, ask, bot, compile, facts, model, request};

const KEY: [u8; 32] = [3; 32];

fn object(from: &str, role: ValueRole, space: ValueSpace) -> ObjectRule {
    let from = vec![from.to_owned()];
    ObjectRule {
        nouns: ObjectRule::nouns_of(&from, &space),
        from,
        role,
        space,
        currency: None,
        scale: 1,
        when_absent: Origin::Unknown,
    }
}

fn customers(spelling: Spelling) -> ValueSpace {
    ValueSpace::Collection { name: "customers".to_owned(), spelling }
}

/// The support desk, whose refunds have a target and an amount, and whose mail has a body.
fn with(policies: &str, change: impl Fn(&mut Operation)) -> Model {
    let mut model = model(policies);
    for operation in &mut model.operations {
        if operation.id == "crm.refund" {
            operation.origins.objects = vec![
                object("/id", ValueRole::Target, customers(Spelling::Exact)),
                ObjectRule {
                    when_absent: Origin::Named,
                    ..object("/price", ValueRole::Amount, ValueSpace::Role(ValueRole::Amount))
                },
            ];
        }
        change(operation);
    }
    model
}

fn compiled(model: Model) -> Plan {
    compile(model, None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A permit for each origin of a role, so that the trace of a decision tells the set.
fn telling(role: &str) -> String {
    let permit = |origin: Origin| {
        let origin = origin.as_str();
        format!(
            "@id(\"{origin}\") permit(principal, action, resource) when {{ context.origins.{role}.contains(Origin::\"{origin}\") }};\n"
        )
    };
    [PERMIT_ALL.to_owned()].into_iter().chain(Origin::ALL.map(permit)).collect()
}

/// The origins that a decision tells.
fn told(decision: &Decision) -> Vec<&str> {
    assert_eq!(Outcome::Permit, decision.outcome, "{}", decision.message);
    let fired = decision.trace.iter().filter(|one| one.result == Verdict::Fired);
    let origins: BTreeSet<Origin> = fired.filter_map(|one| Origin::parse(&one.policy)).collect();
    origins.into_iter().map(Origin::as_str).collect()
}

fn named_by(by: Speaker, prompt: &str) -> PromptNames {
    read_names(&[Part::of_user(prompt)], &BTreeMap::new(), by, &KEY)
}

fn nobody() -> PromptNames {
    PromptNames::default()
}

/// A call of alice's bot with what a prompt names, whose words are kept in a record of their own.
struct Prompted {
    task: Task,
    words: TaskWords,
}

impl Prompted {
    fn new(prompt: PromptNames) -> Self {
        let task = Task { names: prompt.names, ..taskless(&[alice(), bot()], "").unwrap() };
        let words = TaskWords::new(&task, prompt.words);
        Self { task, words }
    }

    fn view(&self) -> TaskView<'_> {
        TaskView { task: &self.task, ancestors: &[] }
    }

    fn records(&self) -> WordRecords<'_> {
        WordRecords { task: Some(&self.words), root: Some(&self.words) }
    }
}

/// Asks as alice's bot, in a session with these names.
fn ask_in(plan: &Plan, names: PromptNames, operation: &str, arguments: &str) -> Decision {
    let own = Prompted::new(names);
    ask_with(plan, own.view(), own.records(), operation, arguments)
}

fn ask_with(
    plan: &Plan,
    task: TaskView<'_>,
    words: WordRecords<'_>,
    operation: &str,
    arguments: &str,
) -> Decision {
    let chain = [alice(), bot()];
    let history = Some(HistoryView { agent: Some(&NOTHING), ..HistoryView::new(&NOTHING) });
    let task = Some(task);
    let facts = Facts { task, history, words, literal_key: Some(&KEY), ..facts(&chain) };
    *decide_traced(plan, &facts, &request(operation, arguments), NOW)
}

fn origins(role: &str, names: PromptNames, operation: &str, arguments: &str) -> Vec<String> {
    let plan = compiled(with(&telling(role), |_| {}));
    told(&ask_in(&plan, names, operation, arguments)).into_iter().map(str::to_owned).collect()
}

const SEND: &str = r#"{"to": ["bob@corp.example"]}"#;
const BOTH: &str = r#"{"to": ["bob@corp.example"], "cc": "eve@evil.example"}"#;
const REFUND: &str = r#"{"id": "INV-4711", "amount": 1}"#;

/// The words stand in a record of their own. An earlier version kept them in the record of the task, where they still count.
#[test]
fn words_count_from_their_record_or_from_an_earlier_task() {
    let plan = compiled(with(&telling("target"), |_| {}));
    let own = Prompted::new(named_by(Speaker::Subject, "Refund Acme West"));
    let mut earlier = Task { names: own.task.names.clone(), ..own.task.clone() };
    earlier.names.words = own.words.words.clone();
    earlier.names.has_words = false;
    let stored = serde_json::to_string(&earlier).unwrap();
    assert!(stored.contains(r#""user_words":""#), "{stored}");
    let earlier: Task = serde_json::from_str(&stored).unwrap();
    let of_earlier = TaskView { task: &earlier, ancestors: &[] };
    let refund = r#"{"id": "Acme West", "amount": 1}"#;
    let nothing = WordRecords::default();
    let other = Prompted::new(named_by(Speaker::Subject, "Refund Acme East"));
    let root = std::sync::Arc::new(own.task.clone());
    let child = Task { ancestors: vec![root.id.clone()], ..other.task.clone() };
    let ancestors = [root];
    let below = TaskView { task: &child, ancestors: &ancestors };
    for (view, words, wanted) in [
        (own.view(), own.records(), "named"),
        // The record is lost, or of another task.
        (own.view(), nothing, "unknown"),
        (own.view(), other.records(), "unknown"),
        (of_earlier, nothing, "named"),
        // The record has the words of the earlier version, too.
        (of_earlier, other.records(), "unknown"),
        // A task below speaks by the words of its root, and by its own.
        (below, WordRecords { task: None, root: Some(&own.words) }, "named"),
        (below, WordRecords { task: Some(&own.words), root: None }, "named"),
        (below, WordRecords { task: Some(&other.words), root: None }, "unknown"),
    ] {
        let decision = ask_with(&plan, view, words, "crm.refund", refund);
        assert_eq!(vec![wanted], told(&decision), "{words:?}");
    }
}

#[test]
fn the_origin_of_a_value_is_that_of_its_best_speaker() {
    let user = |prompt| named_by(Speaker::Subject, prompt);
    let bob = "write to bob@corp.example";
    for (names, arguments, wanted) in [
        (user(bob), SEND, &["named"][..]),
        (named_by(Speaker::FrontEnd, bob), SEND, &["named"]),
        (named_by(Speaker::Agent, bob), SEND, &["claimed"]),
        (nobody(), SEND, &["unknown"]),
        (user("write to carol@corp.example"), SEND, &["unknown"]),
        // Over all destinations.
        (user(bob), BOTH, &["named", "unknown"]),
        (user(bob), "{}", &["unknown"]),
    ] {
        assert_eq!(wanted, origins("recipient", names, "mail.send", arguments), "{arguments}");
    }
    for (names, arguments, wanted) in [
        (user("refund `INV-4711`"), REFUND, &["named"][..]),
        (named_by(Speaker::Agent, "refund `INV-4711`"), REFUND, &["claimed"]),
        (user("refund `INV-4712`"), REFUND, &["unknown"]),
        // A mailbox in the prompt is no id of a customer, unless the id is the mailbox.
        (user(bob), REFUND, &["unknown"]),
    ] {
        assert_eq!(wanted, origins("target", names, "crm.refund", arguments), "{arguments}");
    }
    // Operations without a value of the role have no origin; without an argument `when_absent` counts.
    assert!(origins("target", user(bob), "mail.send", SEND).is_empty());
    assert!(origins("recipient", nobody(), "crm.refund", REFUND).is_empty());
    assert_eq!(vec!["named"], origins("amount", nobody(), "crm.refund", REFUND));
    let price = r#"{"id": "a", "amount": 1, "price": 870.5}"#;
    assert_eq!(vec!["unknown"], origins("amount", nobody(), "crm.refund", price));
    let null = r#"{"id": "a", "amount": 1, "price": null}"#;
    assert_eq!(vec!["named"], origins("amount", nobody(), "crm.refund", null));
}

/// Names that a harness relays are the user's up to tier standard, and a claim above.
#[test]
fn a_harness_names_up_to_tier_standard() {
    let names = || named_by(Speaker::Harness, "write to bob@corp.example");
    for (tier, wanted) in [(Tier::Low, "named"), (Tier::Standard, "named"), (Tier::High, "claimed")]
    {
        let plan = compiled(with(&telling("recipient"), |operation| {
            if operation.id == "mail.send" {
                operation.tier = tier;
            }
        }));
        let decision = ask_in(&plan, names(), "mail.send", SEND);
        let fired = decision.trace.iter().filter(|one| one.result == Verdict::Fired);
        let fired: Vec<&str> =
            fired.map(|one| one.policy.as_str()).filter(|id| *id != "all").collect();
        assert_eq!(wanted, fired[0], "{tier:?}");
        assert!(fired.iter().all(|id| *id == wanted), "{fired:?}");
    }
}

/// A list of values has the origins of all; those beyond the bound are unknown without a look.
#[test]
fn lists_of_values_are_bounded() {
    let list = json!({"type": "object", "properties": {
        "ids": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}}
    }});
    let plan = compiled(with(&telling("target"), |operation| {
        if operation.id == "mail.status" {
            operation.input = list.clone().into();
            operation.origins.objects =
                vec![object("/ids", ValueRole::Target, customers(Spelling::Exact))];
        }
    }));
    let user = || named_by(Speaker::Subject, "look at `INV-4711` and 123456");
    let ask = |ids: serde_json::Value| {
        let decision = ask_in(&plan, user(), "mail.status", &json!({ "ids": ids }).to_string());
        told(&decision).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(vec!["named"], ask(json!(["INV-4711", 123_456, null])));
    assert_eq!(vec!["named", "unknown"], ask(json!(["INV-4711", "INV-4712"])));
    assert_eq!(vec!["unknown"], ask(json!([])));
    assert_eq!(vec!["unknown"], ask(json!([null])));
    // Not in the one spelling of an id.
    assert_eq!(vec!["unknown"], ask(json!(["a//b"])));
    assert_eq!(vec!["named"], ask(json!(vec!["INV-4711"; 256])));
    assert_eq!(vec!["named", "unknown"], ask(json!(vec!["INV-4711"; 257])));
}

#[test]
fn addresses_in_texts_are_counted() {
    let strict = "@id(\"strange\") forbid(principal, action, resource) when { context.literals.unknown > 0 };";
    let plan = compiled(with(&format!("{PERMIT_ALL}{strict}"), |_| {}));
    let user = || named_by(Speaker::Subject, "write to bob@corp.example about https://a.example/x");
    let send = |body: &str| {
        let arguments = json!({"to": ["bob@corp.example"], "body": body}).to_string();
        ask_in(&plan, user(), "mail.send", &arguments).outcome
    };
    assert_eq!(Outcome::Permit, send("Hello Bob, see https://a.example/x"));
    assert_eq!(Outcome::Deny, send("Hello Bob, see https://evil.example/x"));
    assert_eq!(Outcome::Deny, send("Hello Bob, see evil.example"));
    assert_eq!(Outcome::Deny, send("answer to eve@evil.example"));
    assert_eq!(Outcome::Deny, send("pay DE89 3704 0044 0532 0130 00"));
    // A claim names nothing.
    let claimed = named_by(Speaker::Agent, "write to bob@corp.example");
    assert_eq!(Outcome::Deny, ask_in(&plan, claimed, "mail.send", SEND).outcome);
    assert_eq!(Outcome::Permit, ask(&plan, "mail.status", "{}").outcome);
}

/// What is judged is what the server takes; the digest is of what is sent.
#[test]
fn arguments_are_judged_as_the_server_takes_them() {
    let most = "@id(\"most\") forbid(principal, action == Action::\"crm.refund\", resource) when { context.input.amount > 100 };";
    let plan = compiled(with(&format!("{PERMIT_ALL}{most}"), |operation| {
        if operation.id == "crm.refund" {
            let rule = |from: &str, to| CoercionRule { from: from.to_owned(), to };
            operation.origins.coerces = vec![
                rule("/amount", Coercion::Integer),
                rule("/odd name", Coercion::Boolean),
                rule("/id", Coercion::Folder),
            ];
        }
    }));
    let refund = |arguments: &str| ask(&plan, "crm.refund", arguments);
    let sent = refund(r#"{"id": "a/b/", "amount": "100", "odd name": "true"}"#);
    assert_eq!(Outcome::Permit, sent.outcome, "{}", sent.message);
    assert_eq!("Resource::\"customers/a/b\"", sent.resource);
    let plain = refund(r#"{"id": "a/b", "amount": 100, "odd name": true}"#);
    let shown =
        |decision: &Decision| decision.arguments.as_ref().map(|arguments| arguments.json().clone());
    assert_eq!(shown(&plain), shown(&sent));
    assert_ne!(plain.arguments_digest, sent.arguments_digest);
    let again = refund(r#"{"amount": "100", "odd name": "true", "id": "a/b/"}"#);
    assert_eq!(again.arguments_digest, sent.arguments_digest);
    assert_eq!(vec!["most"], refund(r#"{"id": "a", "amount": "101"}"#).policies);
    assert_eq!("Resource::\"customers\"", refund(r#"{"id": "/", "amount": 1}"#).resource);
    for arguments in [
        r#"{"id": "a", "amount": "0100"}"#,
        r#"{"id": "a", "amount": "1e2"}"#,
        r#"{"id": "a", "amount": ["100"]}"#,
        r#"{"id": "a", "amount": 1, "odd name": "yes"}"#,
        r#"{"id": "a", "amount": 1, "note": 5}"#,
        r#"{"id": "//", "amount": 1}"#,
    ] {
        assert_eq!(ReasonCode::BadInput, refund(arguments).reason, "{arguments}");
    }
}

/// Each of these lets a worse origin pass.
#[test]
fn a_policy_that_forgets_a_worse_origin_is_refused() {
    let refused = |condition: &str| {
        let text = format!("@id(\"a\") forbid(principal, action, resource) {condition};");
        match compile(with(&text, |_| {}), None) {
            Ok(_) => None,
            Err(errors) => Some(errors.to_string()),
        }
    };
    let set = |origins: &str| {
        origins.split(' ').map(|one| format!("Origin::\"{one}\"")).collect::<Vec<_>>().join(", ")
    };
    let o = |text: &str| {
        let mut out = String::new();
        for (index, part) in text.split('#').enumerate() {
            out.push_str(&if index % 2 == 0 { part.to_owned() } else { set(part) });
        }
        out.replace("R.", "context.origins.recipient.").replace("T.", "context.origins.target.")
    };
    for good in [
        "when { R.contains(#unknown#) }",
        "when { R.containsAny([#claimed unknown#]) }",
        "when { R.contains(#claimed#) || R.contains(#unknown#) }",
        "when { R.contains(#claimed#) || context.tier > 1 || R.contains(#unknown#) }",
        "when { ![#named#].containsAll(context.origins.recipient) }",
        "when { ![#named known#].containsAll(context.origins.recipient) && context.tier > 1 }",
        "unless { [#named known made#].containsAll(context.origins.recipient) }",
        "when { R.contains(#unknown#) } unless { context.satisfied.contains(Kind::\"confirm\") }",
        "when { R.contains(#unknown#) && T.containsAny([#introduced claimed unknown#]) }",
        "when { if context.tier > 1 then R.contains(#unknown#) else ![#named#].containsAll(context.origins.target) }",
        "when { !R.isEmpty() && R.contains(#unknown#) }",
        "when { context.origins has target && T.contains(#unknown#) }",
        "when { context.literals.unknown > 0 }",
        "unless { (R.isEmpty() || [#named#].containsAll(context.origins.recipient)) && context.tier < 3 }",
    ] {
        assert_eq!(None, refused(&o(good)), "{good}");
    }
    for bad in [
        "when { R.contains(#claimed#) }",
        "when { R.containsAny([#introduced unknown#]) }",
        "when { R.contains(#claimed#) || context.tier > 1 }",
        "when { R.containsAll([#claimed unknown#]) }",
        "when { R.contains(#claimed#) && R.contains(#unknown#) }",
        "when { context.origins.recipient == [#unknown#] }",
        "when { !R.contains(#named#) }",
        "unless { R.contains(#named#) }",
        "unless { R.containsAny([#named known#]) }",
        "when { ![#named made#].containsAll(context.origins.recipient) }",
        "when { ![#named#].containsAny(context.origins.recipient) }",
        "when { R.contains(#unknown#) == (context.tier > 1) }",
        "when { if R.contains(#unknown#) then context.tier > 1 else context.tier > 2 }",
        "when { context.origins.recipient == context.origins.target }",
        "when { context.origins.recipient.containsAll(context.origins.target) }",
    ] {
        let message = refused(&o(bad));
        assert!(message.is_some_and(|one| one.contains("origins")), "{bad}");
    }
    assert_eq!(
        Some("policies/support.cedar:1:53: the forbid fires if the origins of `recipient` are claimed, but not if they are unknown, which is worse. List the good origins, and forbid the others: `![Origin::\"named\", Origin::\"known\"].containsAll(context.origins.recipient)`.".to_owned()),
        refused(&o("when { R.contains(#claimed#) }"))
    );
    // A permit is told apart: a forbid may cover what it lets pass.
    let permit = o("@id(\"a\") permit(principal, action, resource) when { R.contains(#named#) };");
    let plan = compiled(with(&permit, |_| {}));
    let warnings: Vec<String> = plan.warnings().iter().map(ToString::to_string).collect();
    assert!(
        warnings
            .iter()
            .any(|one| one.contains("the permit fires if the origins of `recipient` are")),
        "{warnings:?}"
    );
    let permit = o(
        "@id(\"a\") permit(principal, action, resource) when { [#named#].containsAll(context.origins.recipient) };",
    );
    assert!(
        compiled(with(&permit, |_| {}))
            .warnings()
            .iter()
            .all(|one| !one.to_string().contains("origins"))
    );
}

/// Ids by the words of the prompt, and amounts by their number.
#[test]
fn words_and_amounts_of_the_prompt_are_named() {
    let user = |prompt| named_by(Speaker::Subject, prompt);
    let refund = |id: &str| json!({"id": id, "amount": 1}).to_string();
    for (prompt, id, wanted) in [
        ("Refund customer 4711", "4711", "named"),
        ("Refund the customers 4710, 4711 and 4712.", "4712", "named"),
        ("Erstatte dem Kunden Nr. 4711", "4711", "named"),
        ("Refund order 4711", "4711", "unknown"),
        ("Refund it at 12", "12", "unknown"),
        ("Refund c-17.", "c-17", "named"),
        ("Refund c-17.", "C-17", "unknown"),
        ("Never refund c-17.", "c-17", "unknown"),
        ("Refund Acme Trading today", "Acme Trading", "named"),
        ("Refund acme today", "acme", "unknown"),
        ("Refund the customer acme today", "acme", "named"),
    ] {
        let told = origins("target", user(prompt), "crm.refund", &refund(id));
        assert_eq!(vec![wanted], told, "{prompt:?} {id:?}");
    }
    let claimed = named_by(Speaker::Agent, "Refund c-17");
    assert_eq!(vec!["claimed"], origins("target", claimed, "crm.refund", &refund("c-17")));
    for (prompt, price, wanted) in [
        ("Refund 870.50 euros", json!(870.5), "named"),
        ("Refund 870.50 euros", json!(87.05), "unknown"),
        ("Refund at a price of 12", json!(12), "unknown"),
        ("Refund, price 12", json!(12), "named"),
        ("Refund customer 10020030", json!(10_020_030), "unknown"),
        ("Never refund 12 euros", json!(12), "unknown"),
    ] {
        let call = json!({"id": "a", "amount": 1, "price": price}).to_string();
        let told = origins("amount", user(prompt), "crm.refund", &call);
        assert_eq!(vec![wanted], told, "{prompt:?} {price}");
    }
}

/// "Ask Mark" names Mark's mailbox, if no other entry of any list could be meant.
#[test]
fn an_alias_names_the_only_entry_that_it_fits() {
    const TEAM: &str = "mail,name\nmark@corp.example,Mark Jones\nwill@corp.example,Will\n";
    let list = |trusted| RecipientListRule {
        from: RecipientListSource::File("data/x.csv".to_owned()),
        column: Some("mail".to_owned()),
        alias: Some("name".to_owned()),
        max_age: None,
        trusted,
        at: crate::common::at(1),
    };
    let mut model = with(&telling("recipient"), |_| {});
    model.recipient_lists.insert("team".to_owned(), list(true));
    model.recipient_lists.insert("others".to_owned(), list(false));
    let plan = compiled(model);
    let state = |text: &str, fresh_until| RecipientListState {
        entries: RecipientListEntries::read(
            text.as_bytes(),
            Columns { entry: Some("mail"), alias: Some("name") },
        )
        .unwrap()
        .into(),
        fresh_until,
    };
    let smith = "mail,name\nm@evil.example,Mark Smith\n";
    for (others, prompt, to, wanted) in [
        (Some("mail,name\n"), "Ask Mark about invoices", "mark@corp.example", "named"),
        (Some("mail,name\n"), "Ask Mark Jones", "mark@corp.example", "named"),
        (Some("mail,name\n"), "Ask Mark Smith", "mark@corp.example", "known"),
        (Some("mail,name\n"), "Ask Jones", "mark@corp.example", "known"),
        (Some("mail,name\n"), "Then mark it as paid", "mark@corp.example", "known"),
        (Some("mail,name\n"), "Never ask Mark", "mark@corp.example", "known"),
        (Some("mail,name\n"), "> Ask Mark", "mark@corp.example", "known"),
        (Some("mail,name\n"), "Will it rain?", "will@corp.example", "known"),
        // Colliding aliases name nobody, whoever wrote the list; both words of one tell them apart.
        (Some(smith), "Ask Mark about invoices", "mark@corp.example", "known"),
        (Some(smith), "Ask Mark Jones", "mark@corp.example", "named"),
        (Some(smith), "Ask Mark", "m@evil.example", "unknown"),
        (Some(smith), "Ask Mark Smith", "m@evil.example", "unknown"),
        (Some("mail,name\nm@evil.example,Mark\n"), "Ask Mark", "mark@corp.example", "known"),
        (
            Some("mail,name\nm@evil.example,mark jones\n"),
            "Ask Mark Jones",
            "mark@corp.example",
            "known",
        ),
        (Some("mail,name\nmark@corp.example,Mark\n"), "Ask Mark", "mark@corp.example", "named"),
        // The other list was never read.
        (None, "Ask Mark about invoices", "mark@corp.example", "known"),
    ] {
        for is_stale in [false, true] {
            let mut lists = RecipientLists::default();
            lists.set("team", Some(state(TEAM, None)));
            // A stale list contests, too.
            let until = is_stale.then_some(authz_kernel::decision::Time(0));
            lists.set("others", others.map(|text| state(text, until)));
            let chain = [alice(), bot()];
            let own = Prompted::new(named_by(Speaker::Subject, prompt));
            let facts = Facts {
                task: Some(own.view()),
                words: own.records(),
                history: Some(HistoryView { agent: Some(&NOTHING), ..HistoryView::new(&NOTHING) }),
                literal_key: Some(&KEY),
                recipient_lists: Some(&lists),
                ..facts(&chain)
            };
            let call = json!({"to": [to]}).to_string();
            let decision = decide_traced(&plan, &facts, &request("mail.send", &call), NOW);
            assert_eq!(vec![wanted], told(&decision), "{prompt:?} {to} {is_stale}");
        }
    }
    // A trusted list that is stale gives nothing.
    let mut lists = RecipientLists::default();
    lists.set("team", Some(state(TEAM, Some(authz_kernel::decision::Time(0)))));
    lists.set("others", Some(state("mail,name\n", None)));
    let chain = [alice(), bot()];
    let own = Prompted::new(named_by(Speaker::Subject, "Ask Mark"));
    let facts = Facts {
        task: Some(own.view()),
        words: own.records(),
        history: Some(HistoryView { agent: Some(&NOTHING), ..HistoryView::new(&NOTHING) }),
        literal_key: Some(&KEY),
        recipient_lists: Some(&lists),
        ..facts(&chain)
    };
    let call = json!({"to": ["mark@corp.example"]}).to_string();
    let decision = decide_traced(&plan, &facts, &request("mail.send", &call), NOW);
    assert_eq!(vec!["unknown"], told(&decision));
}

/// A candidate value has the origin that a call with the value has, and says what speaks for it or what it lacks.
#[test]
fn a_candidate_has_the_origin_that_its_call_has() {
    let plan = compiled(with(&telling("target"), |_| {}));
    let (user, agent) = (Speaker::Subject, Speaker::Agent);
    for (by, prompt, id, origin, text) in [
        (user, "Refund Acme West", "Acme West", "named", "the user's prompt"),
        (Speaker::Harness, "Refund Acme West", "Acme West", "named", "harness"),
        (agent, "Refund Acme West", "Acme West", "claimed", "an agent claims"),
        (user, "Refund Acme West", "Acme East", "unknown", "no prompt"),
        (user, "Refund customer 4711", "4711", "named", "the user's prompt"),
        (user, "Refund it at 12 today", "12", "unknown", "without its noun"),
        (user, "Refund the people in west", "west", "unknown", "quotation marks"),
        (user, "Refund the customer `west`", "west", "named", "the user's prompt"),
        (user, "", "west", "unknown", "no prompt"),
    ] {
        let own = Prompted::new(named_by(by, prompt));
        let call = json!({"id": id, "amount": 1}).to_string();
        let decided = ask_with(&plan, own.view(), own.records(), "crm.refund", &call);
        let chain = [alice(), bot()];
        let facts = Facts {
            task: Some(own.view()),
            history: Some(HistoryView::new(&NOTHING)),
            words: own.records(),
            literal_key: Some(&KEY),
            ..facts(&chain)
        };
        let slashed = format!("customers/{id}");
        for (value, system, collection) in [
            (slashed.as_str(), None, None),
            (slashed.as_str(), Some("crm"), None),
            (id, Some("crm"), Some("customers")),
        ] {
            let candidate = CandidateValue { value, system, collection };
            let found = origin_of_candidate(&plan, &facts, &candidate, NOW).unwrap();
            assert_eq!(vec![found.origin.as_str()], told(&decided), "{prompt:?} {id}");
            assert_eq!(origin, found.origin.as_str(), "{prompt:?} {id}");
            assert_eq!(origin == "named", found.missing.is_empty(), "{found:?}");
            assert_eq!(origin == "unknown", found.why.is_empty(), "{found:?}");
            let said = format!("{} {}", found.why, found.missing);
            assert!(said.contains(text), "{prompt:?} {id}: {said}");
        }
    }
    let own = Prompted::new(named_by(user, "Pay 870 euros to bob@corp.example, and 12 later"));
    let chain = [alice(), bot()];
    let facts = Facts {
        task: Some(own.view()),
        history: Some(HistoryView::new(&NOTHING)),
        words: own.records(),
        literal_key: Some(&KEY),
        ..facts(&chain)
    };
    let find = |value: &str, system: Option<&str>, collection: Option<&str>| {
        let candidate = CandidateValue { value, system, collection };
        origin_of_candidate(&plan, &facts, &candidate, NOW)
    };
    for (value, origin, text) in [
        ("email:bob@corp.example", "named", "have it as a name"),
        ("email:eve@corp.example", "unknown", "no prompt"),
        ("amount:EUR 870", "named", "have it as a name"),
        ("amount:USD 870", "unknown", "it needs its currency"),
        ("amount:12", "unknown", "it needs its currency"),
        ("amount:13", "unknown", "no prompt or parameter of the task has this amount"),
    ] {
        let found = find(value, None, None).unwrap();
        assert_eq!(origin, found.origin.as_str(), "{value}: {found:?}");
        let said = format!("{} {}", found.why, found.missing);
        assert!(said.contains(text), "{value}: {said}");
    }
    for (value, system, collection, text) in [
        ("bob", None, None, "neither `<kind>:<value>`"),
        ("email:bob", None, None, ""),
        ("orders/1", None, None, "no operation has a value of the collection `orders`"),
        ("1", None, Some("orders"), "collections with values: "),
        ("customers/1", Some("crn"), None, "no operation of a system `crn`"),
    ] {
        let error = find(value, system, collection).unwrap_err().to_string();
        assert!(error.contains(text), "{value}: {error}");
    }
}
