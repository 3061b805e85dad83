//! Task credentials: what one was issued for, and nothing else, is permitted with it, and counted once.

use std::fmt::Write as _;

use authz_kernel::decide::decide;
use authz_kernel::decision::{Decision, Facts, Grant, Outcome, ReasonCode, Request};
use authz_kernel::plan::Plan;
use authz_kernel::task::{Task, TaskView, start};

use crate::common::NOW;
use crate::tasks::{TEMPLATES, acme, facts, plan, request, root};

const ALL: &str = r#"@id("all") permit(principal, action, resource);"#;
const SEND: &str = r#"{"to": ["bob@a.example"], "text": "re/hello"}"#;
const REFUND: &str = r#"{"id": "acme", "amount": 5, "tags": ["a"]}"#;

/// What a credential says that was issued of a permit.
#[derive(Clone, Debug, Default)]
struct Issued {
    operation: String,
    resource: Option<String>,
    arguments_digest: Option<String>,
    destinations: Vec<String>,
    is_redeemed: bool,
    charged: Vec<(String, u32)>,
}

impl Issued {
    fn of(decision: &Decision) -> Self {
        let digest = decision.arguments_digest.map(|digest| {
            digest.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            })
        });
        let named = decision.resource.strip_prefix("Resource::\"");
        Self {
            operation: decision.operation.clone(),
            resource: named.map(|named| named.trim_end_matches('"').to_owned()),
            arguments_digest: digest,
            destinations: decision.destinations.clone(),
            is_redeemed: false,
            charged: decision.charges.clone(),
        }
    }

    fn grant(&self) -> Grant<'_> {
        Grant {
            operation: &self.operation,
            resource: self.resource.as_deref(),
            arguments_digest: self.arguments_digest.as_deref(),
            destinations: &self.destinations,
            is_redeemed: self.is_redeemed,
            charged: &self.charged,
        }
    }
}

fn task(plan: &Plan) -> Task {
    start(plan, root("answer", &acme())).unwrap()
}

fn ask(plan: &Plan, task: &Task, issued: Option<&[Issued]>, request: &Request<'_>) -> Decision {
    let chain = task.chain();
    let grants: Option<Vec<Grant<'_>>> =
        issued.map(|issued| issued.iter().map(Issued::grant).collect());
    let view = TaskView { task, ancestors: &[] };
    let facts = Facts { task: Some(view), granted: grants.as_deref(), ..facts(&chain) };
    *decide(plan, &facts, request, NOW)
}

/// A permit, what it counted on, and the credential of it.
fn issue(plan: &Plan, task: &mut Task, operation: &str, arguments: &str) -> Issued {
    let decision = ask(plan, task, None, &request(operation, arguments));
    assert_eq!(Outcome::Permit, decision.outcome, "{}", decision.message);
    task.charge(&decision.charges);
    Issued::of(&decision)
}

fn reason(plan: &Plan, task: &Task, issued: &[Issued], operation: &str, arguments: &str) -> String {
    let decision = ask(plan, task, Some(issued), &request(operation, arguments));
    assert_eq!(decision.outcome == Outcome::Permit, decision.reason == ReasonCode::Permitted);
    assert!(decision.charges.is_empty(), "what was issued is counted already");
    decision.reason.as_str().to_owned()
}

/// The last use of an entry is the credential's own: with it the operation is permitted, without it no more.
#[test]
fn what_was_charged_does_not_stand_against_its_own_credential() {
    let plan = plan(ALL);
    let mut task = task(&plan);
    let first = issue(&plan, &mut task, "crm.refund", REFUND);
    let second = issue(&plan, &mut task, "crm.refund", REFUND);
    assert_eq!(1, second.charged.len());
    let without = ask(&plan, &task, None, &request("crm.refund", REFUND));
    assert_eq!(ReasonCode::UsesExhausted, without.reason);
    for one in [&first, &second] {
        assert_eq!(
            "PERMITTED",
            reason(&plan, &task, std::slice::from_ref(one), "crm.refund", REFUND)
        );
    }
    let redeemed = Issued { is_redeemed: true, ..first };
    let used = reason(&plan, &task, std::slice::from_ref(&redeemed), "crm.refund", REFUND);
    assert_eq!("USES_EXHAUSTED", used);
    let both = ask(&plan, &task, Some(&[redeemed, second]), &request("crm.refund", REFUND));
    assert_eq!((Outcome::Permit, Some(1)), (both.outcome, both.redeems));
}

/// Every member that was decided is compared, in either direction.
#[test]
fn a_credential_is_for_exactly_what_was_decided() {
    let plan = plan(ALL);
    let mut task = task(&plan);
    let refund = issue(&plan, &mut task, "crm.refund", REFUND);
    let send = issue(&plan, &mut task, "mail.send", SEND);
    let status = Issued { operation: "crm.status".to_owned(), ..Issued::default() };
    assert_eq!(vec!["bob@a.example".to_owned()], send.destinations);
    assert_eq!(None, send.resource);
    let issued = [refund.clone(), send.clone()];
    assert_eq!("PERMITTED", reason(&plan, &task, &issued, "crm.refund", REFUND));
    assert_eq!("PERMITTED", reason(&plan, &task, &issued, "mail.send", SEND));
    // Members in another order are the same arguments.
    let turned = r#"{"tags": ["a"], "amount": 5, "id": "acme"}"#;
    assert_eq!("PERMITTED", reason(&plan, &task, &issued, "crm.refund", turned));
    for (operation, arguments) in [
        ("crm.get", r#"{"id": "acme"}"#),
        ("crm.search", "{}"),
        ("crm.refund", r#"{"id": "acme", "amount": 6, "tags": ["a"]}"#),
        ("mail.send", r#"{"to": ["eve@a.example"], "text": "re/hello"}"#),
        ("mail.send", r#"{"to": ["bob@a.example", "eve@a.example"], "text": "re/hello"}"#),
    ] {
        assert_eq!("OUT_OF_SCOPE", reason(&plan, &task, &issued, operation, arguments));
    }
    for other in [
        Issued { resource: None, ..refund.clone() },
        Issued { resource: Some("customers/eve".to_owned()), ..refund.clone() },
        Issued { arguments_digest: None, ..refund.clone() },
        Issued { destinations: vec!["bob@a.example".to_owned()], ..refund.clone() },
        Issued { operation: "crm.edit".to_owned(), ..refund },
        status,
    ] {
        assert_eq!("OUT_OF_SCOPE", reason(&plan, &task, &[other], "crm.refund", REFUND));
    }
    let unsent = Issued { destinations: Vec::new(), ..send };
    assert_eq!("OUT_OF_SCOPE", reason(&plan, &task, &[unsent], "mail.send", SEND));
    assert_eq!("OUT_OF_SCOPE", reason(&plan, &task, &[], "crm.refund", REFUND));
}

/// A credential adds nothing to what policy and the task allow now.
#[test]
fn what_is_presented_is_judged_anew() {
    let before = plan(ALL);
    let mut task = task(&before);
    let issued = [issue(&before, &mut task, "crm.refund", REFUND)];
    let forbids = format!(
        "{ALL} @id(\"none\") forbid(principal, action == Action::\"crm.refund\", resource);"
    );
    assert_eq!("FORBIDDEN", reason(&plan(&forbids), &task, &issued, "crm.refund", REFUND));
    let decision =
        ask(&plan(&forbids), &task, Some(&issued), &request("crm.get", r#"{"id": "acme"}"#));
    assert_eq!((ReasonCode::OutOfScope, None), (decision.reason, decision.redeems));
    // What is beyond it is not judged: no policy is named, and nothing comes of the denial.
    let more = request("crm.refund", r#"{"id": "acme", "amount": 6, "tags": ["a"]}"#);
    let used = [Issued { is_redeemed: true, ..issued[0].clone() }];
    for (presented, request, reason) in [
        (&issued, &more, ReasonCode::OutOfScope),
        (&used, &request("crm.refund", REFUND), ReasonCode::UsesExhausted),
    ] {
        let decision = ask(&plan(&forbids), &task, Some(presented), request);
        assert_eq!((reason, false), (decision.reason, decision.is_judged));
        assert!(decision.policies.is_empty() && decision.changes(true).is_empty());
        assert!(decision.changes(false).is_empty());
    }
    let other = Task { scope: Vec::new(), ..task.clone() };
    assert_eq!("OUT_OF_SCOPE", reason(&before, &other, &issued, "crm.refund", REFUND));
    let ended = Task { deadline: NOW, ..task };
    assert_eq!("TASK_ENDED", reason(&before, &ended, &issued, "crm.refund", REFUND));
}

/// A naive check that takes the operation alone would permit; and what is asked of this server is never a credential's.
#[test]
fn a_credential_without_a_task_permits_nothing() {
    let plan = crate::tasks::plan_of("name: desk\ntasks: optional", TEMPLATES, ALL).unwrap();
    let task = task(&crate::tasks::plan(ALL));
    let chain = task.chain();
    let status = Issued { operation: "crm.status".to_owned(), ..Issued::default() };
    let grants = [status.grant()];
    let facts = Facts { granted: Some(&grants), ..facts(&chain) };
    let decided = |facts: &Facts<'_>, operation| decide(&plan, facts, &request(operation, ""), NOW);
    assert_eq!(ReasonCode::NoTask, decided(&facts, "crm.status").reason);
    assert_eq!(Outcome::Permit, decided(&facts, "authz.probe").outcome);
    let naive = Facts { granted: None, ..facts };
    assert_eq!(Outcome::Permit, decided(&naive, "crm.status").outcome);
}
