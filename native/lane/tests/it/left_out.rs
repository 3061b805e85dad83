//! An agent that leaves its subject out, or its own credential, gains nothing by that.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Principal, Subject};
use authz_kernel::task::{AgentName, taskless};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::proto::authz::v1::forget_request::Target as Forgotten;
use authz_lane::{Surface, World};
use serde_json::json;

use crate::support::*;
use crate::tasks::{agent, call, call_by, subject};

const FACTS: &str = "
agents:
  loose: {match: ['spiffe://a.example/ns/loose/sa/*'], subject: optional}
  plain: ['spiffe://a.example/ns/plain/sa/*']
templates:
  work: {purpose: work, deadline: 1h, max_depth: 1, starters: [loose, plain], scope: [{operation: crm.search}]}
budgets: {searches: {count: crm.search, most: 50}}
";
const POLICIES: &str = r#"
@id("agents") permit(principal, action, resource) when { principal in Role::"loose" || principal in Role::"plain" };
@id("staff-starts") permit(principal in Role::"staff", action in [Action::"task:work", Action::"give:work"], resource);
"#;
const LOOSE: &str = "spiffe://a.example/ns/loose/sa/one";
const PLAIN: &str = "spiffe://a.example/ns/plain/sa/one";

fn served() -> Served {
    let served = unloaded(&json!({}));
    let files = [
        ("bundle.yaml", "{name: desk, tasks: optional}"),
        ("work.yaml", FACTS),
        ("policies/work.cedar", POLICIES),
    ];
    served.engine.load(World { plan: plan(&files), ..world() }).unwrap();
    served
}

/// As [`served`], with denials that end what they are in: nobody reads cards or sends mail.
fn served_with_denials() -> Served {
    let served = unloaded(&json!({}));
    let facts = FACTS.replace("{operation: crm.search}", "{system: crm}");
    let no = r#"@id("no") forbid(principal, action in [Action::"crm.card", Action::"crm.mail"], resource);"#;
    let files = [
        ("bundle.yaml", "{name: desk, tasks: optional}"),
        ("work.yaml", &*facts),
        ("denials.yaml", "denials: {raise_after: 9, end_after: 2}"),
        ("policies/work.cedar", POLICIES),
        ("policies/no.cedar", no),
    ];
    served.engine.load(World { plan: plan(&files), ..world() }).unwrap();
    served
}

fn acting(id: &str) -> Principal {
    AgentName::parse(id).unwrap().principal()
}

fn alice_herself() -> Principal {
    let (issuer, sub) = ("corp".to_owned(), "alice".to_owned());
    Principal::User(Arc::new(Subject {
        issuer,
        sub,
        claims: BTreeMap::new(),
        narrowed: Vec::new(),
    }))
}

fn for_alice(id: &str) -> Vec<wire::Evidence> {
    vec![agent(id), subject("alice")]
}

fn searches(served: &Served, task: &str, evidence: Vec<wire::Evidence>) -> &'static str {
    code(&served.check(&wire::CheckRequest { task: task.to_owned(), evidence, ..search() }))
}

fn start(served: &Served, evidence: Vec<wire::Evidence>) -> Result<wire::Task, &'static str> {
    let request = wire::StartRequest {
        evidence,
        template: "work".to_owned(),
        ..wire::StartRequest::default()
    };
    let answer: wire::StartResponse = call(served, Surface::TaskStart, &request)?;
    Ok(answer.task.unwrap())
}

fn revoke(served: &Served, session: &str) {
    let target = Some(Target::Session(session.to_owned()));
    let request = wire::AdminRevokeRequest { target, ..Default::default() };
    let _: wire::AdminRevokeResponse = call_by(served, "admin", Surface::Revoke, &request).unwrap();
}

/// A task that an agent began for nobody ends its use once the agent has acted for a subject; one that somebody else gave it
/// goes on.
#[test]
fn an_earlier_task_frees_no_agent_of_its_subject() {
    let served = served();
    let early = start(&served, vec![agent(PLAIN)]).unwrap();
    let request = wire::StartRequest {
        evidence: vec![agent(LOOSE)],
        template: "work".to_owned(),
        assignee: PLAIN.to_owned(),
        ..wire::StartRequest::default()
    };
    let batch: wire::StartResponse = call(&served, Surface::TaskStart, &request).unwrap();
    let batch = batch.task.unwrap();
    assert_eq!("PERMITTED", searches(&served, &early.id, vec![agent(PLAIN)]));
    assert_eq!("PERMITTED", searches(&served, "", for_alice(PLAIN)));
    assert_eq!("NO_CREDENTIAL", searches(&served, &early.id, vec![agent(PLAIN)]));
    assert_eq!("TASK_CONFLICT", searches(&served, &early.id, for_alice(PLAIN)));
    let header = format!("Bearer {}", svid_with(PLAIN, "authz", now() + 60));
    let headers =
        [("authorization", &*header), ("authz-subject", "\0"), ("authz-task", &*early.id)];
    let answer = served.proxy(&http("GET", "/customers?q=a", &headers));
    let metadata = answer.dynamic_metadata.unwrap();
    let said = metadata.fields["reason_code"].kind.clone();
    assert_eq!(Some(prost_types::value::Kind::StringValue("NO_CREDENTIAL".to_owned())), said);
    let request = wire::DelegateRequest {
        evidence: vec![agent(PLAIN)],
        parent: early.id.clone(),
        assignee: PLAIN.to_owned(),
        ..wire::DelegateRequest::default()
    };
    let delegated = call::<wire::DelegateResponse>(&served, Surface::TaskDelegate, &request);
    assert_eq!(Err("NO_CREDENTIAL"), delegated.map(drop));
    let request = wire::ExtendRequest {
        evidence: vec![agent(PLAIN)],
        task: early.id.clone(),
        ..wire::ExtendRequest::default()
    };
    let extended = call::<wire::ExtendResponse>(&served, Surface::TaskExtend, &request);
    assert_eq!(Err("NO_CREDENTIAL"), extended.map(drop));
    assert_eq!("PERMITTED", searches(&served, &batch.id, vec![agent(PLAIN)]));
}

/// Of a call that was not judged nothing is known of the subject that it showed.
#[test]
fn only_a_judged_call_marks_an_agent() {
    let served = served();
    let request = wire::CheckRequest { evidence: for_alice(PLAIN), ..asking("crm.none") };
    assert_eq!("UNKNOWN_OPERATION", code(&served.check(&request)));
    assert_eq!("PERMITTED", searches(&served, "", vec![agent(PLAIN)]));
    assert_eq!("PERMITTED", searches(&served, "", for_alice(PLAIN)));
    assert_eq!("NO_CREDENTIAL", searches(&served, "", vec![agent(PLAIN)]));
}

/// A session with a subject that was revoked restricts the agent that leaves the subject out: without a task, in tasks that it
/// began before, and at the next start.
#[test]
fn a_revoked_session_restricts_the_agent_alone() {
    for in_task in [false, true] {
        let served = served();
        let alone = || vec![agent(LOOSE)];
        let early = start(&served, alone()).unwrap();
        let hers = start(&served, for_alice(LOOSE)).unwrap();
        let task = if in_task { hers.id.as_str() } else { "" };
        assert_eq!("PERMITTED", searches(&served, task, for_alice(LOOSE)));
        assert_eq!("PERMITTED", searches(&served, "", alone()));
        let without_task = taskless(&[alice_herself(), acting(LOOSE)], "").unwrap().session;
        let session = if in_task { hers.session.clone() } else { without_task };
        revoke(&served, &session);
        assert_eq!("REVOKED", searches(&served, task, for_alice(LOOSE)), "{in_task}");
        assert_eq!("REVOKED", searches(&served, "", alone()), "{in_task}");
        assert_eq!("REVOKED", searches(&served, &early.id, alone()), "{in_task}");
        assert_eq!(Err("REVOKED"), start(&served, alone()).map(drop), "{in_task}");
        assert_eq!("PERMITTED", searches(&served, "", vec![agent(LOOSE), subject("bob")]));
    }
}

fn forget(served: &Served, target: Forgotten, denials: bool) -> u32 {
    let request =
        wire::ForgetRequest { target: Some(target), reason: "reviewed".to_owned(), denials };
    let answer: wire::ForgetResponse = call_by(served, "admin", Surface::Forget, &request).unwrap();
    answer.records
}

/// An administrator who forgets the denials of an agent lets it begin anew, where it leaves the subject out as well, and without
/// a task. Tasks that the agent began before stay refused.
#[test]
fn forgetting_denials_lets_the_agent_alone_begin_anew() {
    let pair = |subject: &str| {
        Forgotten::Pair(wire::Pair { agent: LOOSE.to_owned(), subject: subject.to_owned() })
    };
    let alone = || vec![agent(LOOSE)];
    let denied = |in_task: bool| {
        let served = served_with_denials();
        let mine = start(&served, alone()).unwrap().id;
        let hers = match in_task {
            true => start(&served, for_alice(LOOSE)).unwrap().id,
            false => String::new(),
        };
        // The bar holds in tasks that began before it, counted in milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(5));
        for operation in ["crm.card", "crm.mail"] {
            let evidence = for_alice(LOOSE);
            let request = wire::CheckRequest { evidence, task: hers.clone(), ..asking(operation) };
            assert_eq!("FORBIDDEN", code(&served.check(&request)));
        }
        assert_eq!("REVOKED", searches(&served, &mine, alone()));
        assert_eq!("REVOKED", searches(&served, "", alone()));
        assert_eq!(Err("REVOKED"), start(&served, alone()).map(drop));
        (served, mine)
    };
    for in_task in [true, false] {
        let targets =
            [vec![Forgotten::Agent(LOOSE.to_owned())], vec![pair(""), pair("corp/alice")]];
        for targets in targets {
            let (served, mine) = denied(in_task);
            for target in &targets {
                forget(&served, target.clone(), false);
            }
            assert_eq!("REVOKED", searches(&served, "", alone()), "without `denials`");
            for target in targets {
                assert_ne!(0, forget(&served, target, true));
            }
            let anew = start(&served, alone()).unwrap();
            assert_eq!("PERMITTED", searches(&served, &anew.id, alone()));
            assert_eq!("PERMITTED", searches(&served, "", alone()));
            assert_eq!("PERMITTED", searches(&served, "", for_alice(LOOSE)));
            assert_eq!("REVOKED", searches(&served, &mine, alone()));
        }
    }
}

/// What was revoked, before denials ended it or afterwards, no administrator that forgets the denials gives back.
#[test]
fn forgetting_denials_undoes_no_revocation() {
    for is_revoked_first in [true, false] {
        let served = served_with_denials();
        let alone = || vec![agent(LOOSE)];
        let revokes = || {
            let hers = taskless(&[alice_herself(), acting(LOOSE)], "").unwrap();
            revoke(&served, &hers.session);
        };
        assert_eq!("PERMITTED", searches(&served, "", for_alice(LOOSE)));
        let task = start(&served, for_alice(LOOSE)).unwrap().id;
        if is_revoked_first {
            revokes();
        }
        for operation in ["crm.card", "crm.mail"] {
            let evidence = for_alice(LOOSE);
            let request = wire::CheckRequest { evidence, task: task.clone(), ..asking(operation) };
            assert_eq!("FORBIDDEN", code(&served.check(&request)));
        }
        if !is_revoked_first {
            revokes();
        }
        assert_ne!(0, forget(&served, Forgotten::Agent(LOOSE.to_owned()), true));
        for evidence in [alone(), for_alice(LOOSE)] {
            assert_eq!("REVOKED", searches(&served, "", evidence));
        }
    }
}

/// Labels of strangers that were carried over to the agent alone are forgotten with those that the agent carries.
#[test]
fn forgetting_labels_reaches_the_agent_alone() {
    let served = unloaded(&json!({}));
    let facts = FACTS.replace("budgets:", "labels: {untrusted: {kind: trust}}\nbudgets:");
    let facts = facts.replace("{operation: crm.search}", "{system: crm}");
    let reads = crate::support::FACTS.replace(
        "crm.card, effects: [read], tier: standard",
        "crm.card, effects: [read], tier: standard, yields: [untrusted]",
    );
    let no = r#"@id("no") forbid(principal, action == Action::"crm.search", resource)
        when { context.session.labels.contains(Label::"untrusted") };"#;
    let files = [
        ("bundle.yaml", "{name: desk, tasks: required}"),
        ("facts.yaml", &*reads),
        ("work.yaml", &*facts),
        ("policies/work.cedar", POLICIES),
        ("policies/no.cedar", no),
    ];
    served.engine.load(World { plan: plan(&files), ..world() }).unwrap();
    let hers = start(&served, for_alice(LOOSE)).unwrap().id;
    let card = wire::CheckRequest { evidence: for_alice(LOOSE), task: hers, ..asking("crm.card") };
    assert_eq!("PERMITTED", code(&served.check(&card)));
    let begins = || start(&served, vec![agent(LOOSE)]).unwrap().id;
    assert_eq!("FORBIDDEN", searches(&served, &begins(), vec![agent(LOOSE)]));
    assert_ne!(0, forget(&served, Forgotten::Agent(LOOSE.to_owned()), false));
    assert_eq!("PERMITTED", searches(&served, &begins(), vec![agent(LOOSE)]));
}
