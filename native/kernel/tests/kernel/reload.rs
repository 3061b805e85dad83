//! A new bundle beside the one that serves.

use authz_kernel::bundle::Bundle;
use authz_kernel::decision::{Outcome, ReasonCode};
use authz_kernel::format::format_policy;
use authz_kernel::model::Model;
use authz_kernel::pause::Pause;
use authz_kernel::plan::PlanCompiler;

use crate::common::{PERMIT_ALL, ask, compile, model, plan};

const STAFF: &str = "@id(\"s\") permit(principal in Role::\"staff\", action in Action::\"system:crm\", resource);\n";

#[test]
fn a_reload_gives_what_a_first_load_gives() {
    let first = compile(model(&format!("{PERMIT_ALL}{STAFF}")), None).unwrap();
    let forbid = "\n\n@id(\"no\") forbid(principal, action, resource);";
    let text = format!("{STAFF}{PERMIT_ALL}{forbid}");
    let cold = plan(&text);
    // Read anew, and with the schemas that serve.
    let shared = Model { policies: model(&text).policies, ..first.model().clone() };
    for model in [model(&text), shared] {
        let mut rests = 0;
        let mut rest = || rests += 1;
        let compiler = PlanCompiler::new().after(Some(&first)).pausing(&mut rest);
        let again = compiler.compile(Bundle::of(model).unwrap()).unwrap();
        let operations = again.model().operations.len();
        assert!(rests > operations, "it rests more often than {rests} times");
        for (operation, arguments) in
            [("crm.get", r#"{"id": "1"}"#), ("mail.status", ""), ("mail.send", "{}")]
        {
            let warm = ask(&again, operation, arguments);
            assert_eq!(format!("{:?}", ask(&cold, operation, arguments)), format!("{warm:?}"));
            assert_eq!(ReasonCode::Forbidden, warm.reason);
            assert!(warm.message.contains("support.cedar:5"), "{}", warm.message);
        }
        let mut rests = 0;
        let mut rest = || rests += 1;
        again.free(Pause::by(&mut rest));
        assert!(rests > operations, "it rests more often than {rests} times");
    }
}

#[test]
fn a_change_of_the_catalog_judges_the_cached_policies_anew() {
    let reads = "@id(\"a\") permit(principal, action == Action::\"crm.search\", resource) when { context.input has limit && context.input.limit < 9 };";
    let first = compile(model(reads), None).unwrap();
    let mut changed = model(reads);
    let search =
        changed.operations.iter_mut().find(|operation| operation.id == "crm.search").unwrap();
    search.input =
        serde_json::json!({"type": "object", "properties": {"limit": {"type": "string"}}}).into();
    let errors = compile(changed, Some(&first)).unwrap_err();
    assert!(errors.to_string().starts_with("policies/support.cedar:1:"), "{errors}");
}

#[test]
fn a_role_that_goes_takes_its_policies_with_it() {
    let first = compile(model(STAFF), None).unwrap();
    let mut changed = model(STAFF);
    changed.roles.remove("staff");
    let errors = compile(changed, Some(&first)).unwrap_err().to_string();
    assert!(errors.contains("unknown role `staff`"), "{errors}");
}

#[test]
fn a_bad_bundle_leaves_the_one_that_serves() {
    let serving = plan(PERMIT_ALL);
    assert!(compile(model("@id(\"x\") permit("), Some(&serving)).is_err());
    assert_eq!(Outcome::Permit, ask(&serving, "mail.status", "").outcome);
}

#[test]
fn odd_argument_names_are_read_by_their_name() {
    let odd = plan(
        "@id(\"odd\") permit(principal, action == Action::\"crm.refund\", resource) when { context.input has \"odd name\" && context.input[\"odd name\"] };",
    );
    let of = |arguments: &str| ask(&odd, "crm.refund", arguments).outcome;
    assert_eq!(Outcome::Permit, of(r#"{"id": "1", "amount": 1, "odd name": true}"#));
    assert_eq!(Outcome::Deny, of(r#"{"id": "1", "amount": 1, "odd name": false}"#));
    assert_eq!(Outcome::Deny, of(r#"{"id": "1", "amount": 1}"#));
}

#[test]
fn the_schema_can_be_printed_and_is_cedar() {
    use std::str::FromStr as _;
    let text = plan(PERMIT_ALL).cedar_schema();
    cedar_policy::Schema::from_str(&text).unwrap();
    assert!(text.contains("entity Role enum [\"staff\", \"support-agent\"];"), "{text}");
}

#[test]
fn formatting_keeps_comments_and_meaning_and_is_stable() {
    let ugly =
        "// why\n@id(\"a\")   permit(principal,action,\nresource) // tail\nwhen{context.tier==0};";
    let once = format_policy("a.cedar", ugly).unwrap();
    assert!(once.contains("// why") && once.contains("// tail"), "{once}");
    assert_eq!(once, format_policy("a.cedar", &once).unwrap());
    let error = format_policy("a.cedar", "permit(principal").unwrap_err().to_string();
    assert!(error.starts_with("a.cedar:1:"), "{error}");
}
