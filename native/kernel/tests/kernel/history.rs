//! What a session did before: labels, where they came from, and what they let through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decide::decide;
use authz_kernel::decision::{Decision, Facts, Outcome, Principal, Request, Time};
use authz_kernel::history::{HistoryChanges, HistoryView, MAX_LABELS, SessionHistory};
use authz_kernel::mcp::ServerTask;
use authz_kernel::plan::Plan;
use authz_kernel::source;
use authz_kernel::task::{
    AgentName, Names, Root, Session, SubjectProof, Task, TaskKind, TaskStatus, TaskView, start,
    taskless, taskless_of,
};

use crate::common::{NOW, facts, request};

const FACTS: &str = include_str!("../facts/history.yaml");
const MAY: &str = r#"@id("may") permit(principal in Role::"bots", action, resource);"#;

/// The plan of a bundle, or what is wrong with it.
pub(crate) fn compiled(manifest: &str, facts: &str, policies: &str) -> Result<Plan, String> {
    let files: BTreeMap<String, Vec<u8>> =
        [("bundle.yaml", manifest), ("facts.yaml", facts), ("policies/a.cedar", policies)]
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
            .collect();
    let model = source::load(&files, &BTreeMap::new()).map_err(|error| error.to_string())?;
    Plan::compile(model, None).map_err(|error| error.to_string())
}

fn bot() -> Principal {
    AgentName::parse("spiffe://a.example/ns/desk/sa/bot").unwrap().principal()
}

/// Asks without a task.
fn decided(plan: &Plan, operation: &str, arguments: &str, who: Principal) -> Decision {
    let chain = [who];
    *decide(plan, &facts(&chain), &request(operation, arguments), NOW)
}

/// Asks in a task, of which the session did this before.
pub(crate) fn decided_in(
    plan: &Plan,
    operation: &str,
    arguments: &str,
    history: Option<HistoryView<'_>>,
) -> Decision {
    decided_by(plan, &request(operation, arguments), history, TaskKind::Root)
}

/// Asks in a task of a kind.
pub(crate) fn decided_as(
    plan: &Plan,
    operation: &str,
    arguments: &str,
    history: HistoryView<'_>,
    kind: TaskKind,
) -> Decision {
    decided_by(plan, &request(operation, arguments), Some(history), kind)
}

/// Asks at a time, in a task that has just begun.
pub(crate) fn decided_at(
    plan: &Plan,
    operation: &str,
    arguments: &str,
    history: HistoryView<'_>,
    now: Time,
) -> Decision {
    let request = request(operation, arguments);
    decided_by_at(plan, &request, Some(history), (TaskKind::Root, now))
}

/// Asks a request in a task of a kind.
pub(crate) fn decided_by(
    plan: &Plan,
    request: &Request<'_>,
    history: Option<HistoryView<'_>>,
    kind: TaskKind,
) -> Decision {
    decided_by_at(plan, request, history, (kind, NOW))
}

fn decided_by_at(
    plan: &Plan,
    request: &Request<'_>,
    history: Option<HistoryView<'_>>,
    (kind, now): (TaskKind, Time),
) -> Decision {
    let task = start(
        plan,
        Root {
            template: "desk",
            params: &BTreeMap::new(),
            scope: &[],
            kind,
            assignee: AgentName::parse("spiffe://a.example/ns/desk/sa/bot").unwrap(),
            subject: None,
            subject_proof: SubjectProof::Itself,
            starter: String::new(),
            deadline: None,
            tier_cap: None,
            names: Names::default(),
            now,
            id: "t".to_owned(),
            session: "s".to_owned(),
        },
    )
    .unwrap();
    let chain = task.chain();
    let view = TaskView { task: &task, ancestors: &[] };
    let facts = Facts { task: Some(view), history, ..facts(&chain) };
    *decide(plan, &facts, request, now)
}

fn labels(names: &[&str]) -> HistoryChanges {
    let labels: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    HistoryChanges { labels, ..HistoryChanges::NONE }
}

#[test]
fn a_label_is_kept_with_the_decision_that_brought_it_first() {
    let mut session = SessionHistory::new();
    assert!(session.is_empty());
    session.apply(&labels(&["pii"]), "d1", "crm.get", Time(5));
    session.apply(&labels(&["pii", "vip"]), "d2", "crm.list", Time(7));
    let origin = |label: &str| session.labels.get(label).map(|from| from.decision_id.as_str());
    assert_eq!((Some("d1"), Some("d2")), (origin("pii"), origin("vip")));
}

#[test]
fn time_never_goes_back() {
    let mut session = SessionHistory::new();
    session.apply(&labels(&["a"]), "d1", "crm.get", Time(9));
    session.apply(&labels(&["b"]), "d2", "crm.get", Time(4));
    assert_eq!(Some(Time(9)), session.latest);
    assert_eq!((Time(9), Time(10)), (session.now(Time(1)), session.now(Time(10))));
}

#[test]
fn what_a_node_does_not_know_is_kept() {
    let text = r#"{"labels":{"x":{"decision_id":"d","operation":"a.b","at":3}},"latest":3,"later":{"n":[1]}}"#;
    let mut session: SessionHistory = serde_json::from_str(text).unwrap();
    session.apply(&labels(&["pii"]), "d2", "crm.get", Time(4));
    let written = serde_json::to_value(&session).unwrap();
    assert_eq!(serde_json::json!({"n": [1]}), written["later"]);
    assert_eq!("d", written["labels"]["x"]["decision_id"]);
    let plain = serde_json::to_string(&SessionHistory::new()).unwrap();
    assert_eq!("{}", plain, "a session without history costs nothing");
}

/// A cell of the table "what an answer changes".
fn changed(outcome: Outcome, is_let_through: bool) -> bool {
    let plan = compiled("{name: a, tasks: optional}", FACTS, MAY).unwrap();
    let mut decision: Decision = decided(&plan, "crm.get", "{}", bot());
    decision.passage = labels(&["pii"]);
    decision.outcome = outcome;
    !decision.changes(is_let_through).is_empty()
}

#[test]
fn a_permit_changes_what_is_carried() {
    assert!(changed(Outcome::Permit, false));
}

#[test]
fn a_step_up_changes_nothing() {
    assert!(!changed(Outcome::StepUp, false));
}

#[test]
fn a_denial_changes_nothing() {
    assert!(!changed(Outcome::Deny, false));
}

#[test]
fn what_is_let_through_all_the_same_changes_what_a_permit_would() {
    assert!(changed(Outcome::StepUp, true) && changed(Outcome::Deny, true));
}

#[test]
fn a_session_that_is_full_lets_nothing_through_that_it_would_have_to_remember() {
    let plan = compiled("{name: a, tasks: required}", FACTS, MAY).unwrap();
    let mut session = SessionHistory::new();
    for number in 0..MAX_LABELS {
        session.apply(&labels(&[&format!("l{number}")]), "d", "crm.get", NOW);
    }
    let judged = |session: &SessionHistory| {
        decided_in(&plan, "crm.get", "{}", Some(HistoryView::new(session)))
    };
    let decision = judged(&session);
    assert_eq!("WINDOW_FULL", decision.reason.as_str(), "{}", decision.message);
    let known = session.labels["l1"].clone();
    session.labels.insert("pii".to_owned(), known);
    session.sources.insert("crm".to_owned());
    assert_eq!("PERMITTED", judged(&session).reason.as_str(), "there is nothing new to remember");
}

#[test]
fn what_was_not_recalled_is_refused() {
    let plan = compiled("{name: a, tasks: required}", FACTS, MAY).unwrap();
    let code = |call: &str| decided_in(&plan, call, "{}", None).reason.as_str();
    assert_eq!(("STATE_UNAVAILABLE", "PERMITTED"), (code("crm.get"), code("crm.status")));
}

#[test]
fn a_label_that_the_bundle_does_not_have_may_be_confidential() {
    let flow = "@id(\"flow\") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };";
    let plan = compiled("{name: a}", FACTS, &format!("{MAY}\n{flow}")).unwrap();
    let mut session = SessionHistory::new();
    session.apply(&labels(&["untrusted"]), "d", "crm.get", NOW);
    let send = |session: &SessionHistory| {
        let history = Some(HistoryView::new(session));
        decided_in(&plan, "mail.send", r#"{"to": ["a@b.example"]}"#, history)
    };
    assert_eq!(Outcome::Permit, send(&session).outcome, "trust is not what a clearance is about");
    session.apply(&labels(&["of-another-revision"]), "d", "crm.get", NOW);
    let decision = send(&session);
    assert_eq!(
        (Outcome::Deny, ["of-another-revision".to_owned()].as_slice()),
        (decision.outcome, decision.uncleared_labels.as_slice())
    );
}

#[test]
fn what_depends_on_the_past_is_not_stateless() {
    let session = "@id(\"s\") forbid(principal, action == Action::\"crm.status\", resource) when { context.session.sources >= 1 };";
    let flow = "@id(\"f\") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };";
    for (facts, policy, stateless) in [
        (FACTS.to_owned(), "", true),
        (FACTS.to_owned(), session, false),
        // Without a destination there are no uncleared labels.
        (FACTS.to_owned(), flow, true),
        (
            FACTS.replace(
                "pii: {kind: confidentiality}",
                "pii: {kind: confidentiality, tier: high}",
            ),
            "",
            false,
        ),
    ] {
        let plan = compiled("{name: a}", &facts, &format!("{MAY}\n{policy}")).unwrap();
        assert_eq!(stateless, plan.is_stateless("crm.status", None), "{policy}");
        assert!(plan.leaves_nothing("crm.status", None));
        assert!(!plan.is_stateless("crm.get", None) && !plan.leaves_nothing("crm.get", None));
    }
}

#[test]
fn where_tasks_are_optional_what_must_be_remembered_is_at_hand() {
    let flow = "@id(\"flow\") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };";
    let (none, told): (&[&str], &[&str]) = (&[], &["pii"]);
    for (policy, call, labels, is_recalled) in [
        ("", "crm.get", none, false),
        ("", "crm.get", told, false),
        (flow, "crm.get", none, true),
        (flow, "mail.send", none, true),
        (flow, "crm.status", none, false),
        (flow, "crm.status", told, true),
    ] {
        let plan =
            compiled("{name: a, tasks: optional}", FACTS, &format!("{MAY}\n{policy}")).unwrap();
        assert_eq!(is_recalled, plan.recalls_taskless(call, !labels.is_empty()), "{policy} {call}");
        let request = Request { labels, ..request(call, "{}") };
        let chain = [bot()];
        let own = taskless(&chain, "").unwrap();
        let task = Some(TaskView { task: &own, ancestors: &[] });
        let (nobodys, known) = (SessionHistory::new(), facts(&chain));
        let view = HistoryView { agent: Some(&nobodys), ..HistoryView::new(&nobodys) };
        let code = |task, history| {
            decide(&plan, &Facts { task, history, ..known }, &request, NOW).reason.as_str()
        };
        assert_eq!("PERMITTED", code(task, Some(view)), "{policy} {call}");
        let unknown = if is_recalled { "STATE_UNAVAILABLE" } else { "PERMITTED" };
        assert_eq!(unknown, code(None, None), "{policy} {call}");
        if is_recalled {
            assert_eq!(unknown, code(task, None), "{policy} {call}");
        }
        let required = compiled("name: a", FACTS, &format!("{MAY}\n{policy}")).unwrap();
        let facts = Facts { task, history: Some(view), ..known };
        assert_eq!("NO_TASK", decide(&required, &facts, &request, NOW).reason.as_str());
    }
}

/// What is done without a task gives nothing: what a server runs as a task of its own needs one, and so does a credential.
#[test]
fn without_a_task_nothing_of_one_is_given() {
    let plan = compiled("{name: a, tasks: optional}", FACTS, MAY).unwrap();
    let chain = [bot()];
    let own = taskless(&chain, "").unwrap();
    let nothing = SessionHistory::new();
    let view = HistoryView { agent: Some(&nothing), ..HistoryView::new(&nothing) };
    let task = Some(TaskView { task: &own, ancestors: &[] });
    let known = Facts { task, history: Some(view), ..facts(&chain) };
    let code = |facts: &Facts<'_>, server_task| {
        let request = Request { server_task, ..request("crm.get", "{}") };
        decide(&plan, facts, &request, NOW).reason.as_str()
    };
    assert_eq!("PERMITTED", code(&known, ServerTask::None));
    for server_task in [ServerTask::Begins, ServerTask::Follows] {
        assert_eq!("NO_TASK", code(&known, server_task));
    }
    assert_eq!("NO_TASK", code(&Facts { granted: Some(&[]), ..known }, ServerTask::None));
    let other = AgentName::parse("spiffe://a.example/ns/desk/sa/other").unwrap().principal();
    let others = [other];
    assert_eq!("TASK_CONFLICT", code(&Facts { chain: &others, ..known }, ServerTask::None));
    let over = Task { status: TaskStatus::Revoked, ..own.clone() };
    let over = Some(TaskView { task: &over, ancestors: &[] });
    assert_eq!("REVOKED", code(&Facts { task: over, ..known }, ServerTask::None));
}

/// The record of a chain is its own, begins with the same words for one caller, and lasts for a day after its last use, and
/// for a week at most.
#[test]
fn what_is_done_without_a_task_is_remembered_by_its_chain_for_a_while() {
    let user = |sub: &str| {
        Principal::User(Arc::new(authz_kernel::decision::Subject {
            issuer: "corp".to_owned(),
            sub: sub.to_owned(),
            ..Default::default()
        }))
    };
    let of = |chain: &[Principal]| taskless(chain, "").unwrap();
    let own = of(&[user("ann"), bot()]);
    assert_eq!(own, of(&[user("ann"), bot()]));
    assert_eq!(vec![user("ann"), bot()], own.chain());
    let others = [of(&[user("bob"), bot()]), of(&[bot()]), of(&[user("ann")])];
    for other in &others {
        assert_ne!(own.id, other.id);
    }
    assert!(others[..2].iter().all(|other| other.id.starts_with(&taskless_of(&bot()))));
    assert!(!others[2].id.starts_with(&taskless_of(&bot())));
    assert!(taskless(&[], "").is_none());

    let day = 24 * 3_600 * 1_000;
    let mut session = Session::taskless(&own, NOW);
    assert!(session.is_taskless() && session.lasts(Time(NOW.0 + day)));
    assert!(!session.lasts(Time(NOW.0 + day + day / 5)));
    assert!(!session.prolong(Time(NOW.0 + 1)), "it is written no more often than it must be");
    for hour in 1..=7 * 24 {
        let now = Time(NOW.0 + hour * 3_600 * 1_000);
        assert_eq!(hour < 7 * 24, session.lasts(now), "{hour}");
        session.prolong(now);
        let last = (now.0 + day).min(NOW.0 + 7 * day);
        assert!(session.lasts(Time(last - 1)), "{hour}");
    }
    session.end(NOW);
    assert!(session.ended_at.is_some() && session.lasts(Time(NOW.0 + 30 * day - 1)));
    assert!(!session.lasts(Time(NOW.0 + 30 * day)));
}

#[test]
fn a_flow_rule_with_a_hole_is_refused() {
    let narrow = "@id(\"flow\")\nforbid(principal, action in Action::\"effect:export\", resource) when { !context.uncleared_labels.isEmpty() };";
    let error = compiled("{name: a}", FACTS, &format!("{MAY}\n{narrow}")).unwrap_err();
    assert_eq!(
        "policies/a.cedar:3:29: the forbid reads `context.uncleared_labels`, but speaks of `effect:export` only: any operation with \
         a destination carries data out, also one that reads. Write `action` alone: `uncleared_labels` is empty where an operation \
         has no destination.",
        error
    );
}

#[test]
fn a_label_that_nothing_reads_is_warned_of() {
    let warned = |policies: &str| {
        let plan = compiled("{name: a}", FACTS, policies).unwrap();
        plan.warnings()
            .iter()
            .map(ToString::to_string)
            .filter(|text| text.contains("nothing reads"))
            .count()
    };
    assert_eq!(2, warned(MAY));
    let flow = "@id(\"flow\") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };";
    assert_eq!(1, warned(&format!("{MAY}\n{flow}")), "a clearance is about confidentiality only");
    let named = "@id(\"n\") forbid(principal, action, resource) when { context.session.labels.contains(Label::\"untrusted\") };";
    assert_eq!(0, warned(&format!("{MAY}\n{flow}\n{named}")));
}

/// Fills a session to its brim, with what another revision of the bundle keeps.
fn fill(session: &mut SessionHistory) {
    use authz_kernel::history::{MAX_ENTRIES, Progress, RuleProgress};
    let of_another_revision = |number: usize| {
        let progress = Progress { step: 1, at: NOW };
        let instances = (0..64).map(|key| (format!("{number}/{key}"), progress)).collect();
        RuleProgress { instances, ..RuleProgress::default() }
    };
    for number in 0..MAX_ENTRIES / 64 {
        session.rules.insert(format!("r{number}#0"), of_another_revision(number));
    }
    assert!(session.entries() >= MAX_ENTRIES);
}

#[test]
fn a_session_keeps_so_much_in_all() {
    let plan = compiled("{name: a, tasks: required}", FACTS, MAY).unwrap();
    let mut session = SessionHistory::new();
    fill(&mut session);
    let judged = |call: &str| decided_in(&plan, call, "{}", Some(HistoryView::new(&session)));
    assert_eq!("WINDOW_FULL", judged("crm.get").reason.as_str());
    assert_eq!("PERMITTED", judged("crm.status").reason.as_str(), "it has nothing to remember");
}

#[test]
fn a_full_session_sees_a_step_again() {
    let facts =
        format!("{FACTS}\nsequences: {{s: {{never: mail.send, after: crm.status, within: 1h}}}}");
    let policies = format!(
        "{MAY}\n@id(\"s\") forbid(principal, action, resource) when {{ context.sequences.contains(Sequence::\"s\") }};"
    );
    let plan = compiled("{name: a, tasks: required}", &facts, &policies).unwrap();
    let (mut fresh, mut seen) = (SessionHistory::new(), SessionHistory::new());
    let judged = |session: &SessionHistory| {
        decided_in(&plan, "crm.status", "{}", Some(HistoryView::new(session)))
    };
    let first = judged(&seen);
    seen.apply(&first.passage, "d1", "crm.status", NOW);
    for session in [&mut fresh, &mut seen] {
        fill(session);
    }
    assert_eq!("WINDOW_FULL", judged(&fresh).reason.as_str());
    seen.latest = Some(Time(NOW.0 + 1));
    let again = judged(&seen);
    assert_eq!("PERMITTED", again.reason.as_str(), "it keeps no more than before");
    assert!(!again.passage.advances.is_empty());
    let before = seen.entries();
    seen.apply(&again.passage, "d2", "crm.status", NOW);
    assert_eq!(before, seen.entries());
}
