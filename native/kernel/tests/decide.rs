//! What a decision says.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use authz_kernel::decision::{Outcome, ReasonCode};
use common::{PERMIT_ALL, ask, plan, refusals};

#[test]
fn without_a_permit_nothing_is_permitted() {
    let decision = ask(&plan(""), "crm.get", r#"{"id": "42"}"#);
    assert_eq!((Outcome::Deny, ReasonCode::ChainNotPermitted), (decision.outcome, decision.reason));
}

#[test]
fn a_permit_for_all_permits() {
    let decision = ask(&plan(PERMIT_ALL), "crm.get", r#"{"id": "42"}"#);
    assert_eq!((Outcome::Permit, ReasonCode::Permitted), (decision.outcome, decision.reason));
    assert_eq!(vec!["all"], decision.policies);
    assert_eq!("Resource::\"customers/42\"", decision.resource);
}

#[test]
fn a_typo_is_refused() {
    println!(
        "{:#?}",
        refusals("@id(\"x\") forbid(principal in Role::\"stafff\", action, resource);")
    );
}
