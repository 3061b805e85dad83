//! Callers that a test states are refused as callers that prove the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use authz_kernel::recipient_lists::RecipientLists;
use authz_kernel::task::AgentName;
use authz_lane::SystemClock;
use authz_lane::offline::{OfflineEngine, OfflineWorld, StatedCaller, StatedSubject};
use authz_lane::proto::authz::v1 as wire;
use authz_token::SubjectKind;
use prost::Message;

use crate::support::*;

fn offline() -> OfflineEngine {
    let world = OfflineWorld {
        plan: plan(&[]),
        recipient_lists: RecipientLists::default(),
        issuers: BTreeSet::from(["corp".to_owned()]),
    };
    OfflineEngine::new(world, Arc::new(SystemClock)).unwrap()
}

/// Alice, an employee.
fn stated(is_alone: bool, agent: Option<&str>) -> StatedCaller {
    let groups = authz_kernel::decision::Claim::Texts(vec!["employees".to_owned()]);
    let subject = StatedSubject {
        issuer: "corp".to_owned(),
        sub: "alice".to_owned(),
        kind: SubjectKind::User,
        claims: [("groups".to_owned(), groups)].into(),
        acr: String::new(),
        is_alone,
    };
    StatedCaller {
        agent: agent.map(|id| AgentName::parse(id).unwrap()),
        subject: Some(subject),
        enforcer: "tests".to_owned(),
        ..StatedCaller::default()
    }
}

fn served_code(token: String) -> &'static str {
    let evidence = vec![evidence(wire::EvidenceRole::Subject, token)];
    code(&served().check(&wire::CheckRequest { evidence, ..search() }))
}

/// A subject without an agent is believed where its token is for no agent, and otherwise refused, as by a server.
#[test]
fn a_bearer_alone() {
    let offline = offline();
    let check = |caller: &StatedCaller| offline.check(&search(), caller).reason.as_str();
    assert_eq!("PERMITTED", served_code(alone_alice()));
    assert_eq!("PERMITTED", check(&stated(true, None)));
    assert_eq!("NO_CREDENTIAL", served_code(alice()));
    assert_eq!("NO_CREDENTIAL", check(&stated(false, None)));
    assert_eq!("PERMITTED", check(&stated(false, Some(BOT))));
    let front_end = StatedCaller { is_front_end: true, ..stated(false, None) };
    assert_eq!("PERMITTED", check(&front_end));
}

/// A proxy's request needs an agent, as by a server.
#[test]
fn an_http_request_without_an_agent() {
    let offline = offline();
    let request = http("GET", "/customers?q=who", &[]).encode_to_vec();
    let check = |caller: &StatedCaller| {
        let decision = offline.check_http(&request, caller);
        (decision.reason.as_str(), decision.chain.len())
    };
    assert_eq!(("PERMITTED", 2), check(&stated(false, Some(BOT))));
    // The record of the refusal names the subject, as the served one does.
    assert_eq!(("NO_CREDENTIAL", 1), check(&stated(true, None)));
}

/// Every enforcer that a test can state relays contexts of sessions, so none is refused for one.
#[test]
fn a_context_of_the_session() {
    let offline = offline();
    let request = wire::CheckRequest { session_context: "tab-1".to_owned(), ..search() };
    assert_eq!("PERMITTED", offline.check(&request, &stated(false, Some(BOT))).reason.as_str());
}
