//! Recipient lists: their entries count for as long as the file is fresh.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::recipient_lists::{Columns, RecipientListEntries};
use authz_lane::World;
use authz_lane::proto::authz::v1 as wire;
use serde_json::json;

use crate::support::*;

const FACTS: &str = "
catalog:
  post:
    kind: http
    origin: https://post.example
    operations: {send: {input: {type: object, properties: {to: {type: string}}, required: [to]}}}
classify: [{match: post.send, effects: [export], tier: low, destination: {from: [/to], type: email}}]
recipient_lists: {friends: {file: data/friends.txt, max_age: 1h}}
destinations: {friend: {recipient_list: friends, clearance: []}, other: {match: '*', clearance: []}}
";
const POLICIES: &str = r#"
@id("bots-post") permit(principal in Role::"bot", action == Action::"post.send", resource);
@id("staff-posts") permit(principal in Role::"staff", action == Action::"post.send", resource);
@id("friends-only") forbid(principal, action == Action::"post.send", resource)
when { !context.destination.trusted || context.destination.class != DestinationClass::"friend" };
"#;

#[test]
fn a_recipient_list_counts_while_it_is_fresh() {
    let served = unloaded(&json!({}));
    let more = [
        ("post.yaml", FACTS),
        ("policies/post.cedar", POLICIES),
        ("data/friends.txt", "bob@acme.example\n"),
    ];
    let plan = plan(&more);
    let send = |changed: Option<i64>, to: &str| {
        let recipient_lists: BTreeMap<String, Time> =
            changed.map(|at| ("friends".to_owned(), Time(at * 1_000))).into_iter().collect();
        served.engine.load(World { plan: plan.clone(), recipient_lists, ..world() }).unwrap();
        code(&served.check(&wire::CheckRequest {
            operation: "post.send".to_owned(),
            arguments_json: json!({"to": to}).to_string().into_bytes(),
            ..search()
        }))
    };
    assert_eq!("PERMITTED", send(Some(now()), "bob@acme.example"));
    assert_eq!("PERMITTED", send(Some(now() - 3_500), "bob@acme.example"));
    assert_eq!("FORBIDDEN", send(Some(now()), "eve@acme.example"));
    assert_eq!("FORBIDDEN", send(Some(now() - 3_600), "bob@acme.example"));
    assert_eq!("FORBIDDEN", send(None, "bob@acme.example"));
}

#[test]
fn a_recipient_list_that_is_fetched_counts_from_when_it_was() {
    let served = unloaded(&json!({}));
    let facts = FACTS.replace("file: data/friends.txt", "url: 'https://friends.example/list'");
    let plan = plan(&[("post.yaml", &facts), ("policies/post.cedar", POLICIES)]);
    let send = |fetched: Option<i64>, to: &str| {
        let entries = Arc::new(
            RecipientListEntries::read(b"bob@acme.example\n", Columns::default()).unwrap(),
        );
        let at = fetched.iter().map(|at| ("friends".to_owned(), Time(at * 1_000)));
        let world = World {
            plan: plan.clone(),
            recipient_lists: at.collect(),
            fetched: fetched.map(|_| ("friends".to_owned(), entries)).into_iter().collect(),
            ..world()
        };
        served.engine.load(world).unwrap();
        code(&served.check(&wire::CheckRequest {
            operation: "post.send".to_owned(),
            arguments_json: json!({"to": to}).to_string().into_bytes(),
            ..search()
        }))
    };
    assert_eq!("FORBIDDEN", send(None, "bob@acme.example"), "it was not fetched yet");
    assert_eq!("PERMITTED", send(Some(now() - 3_500), "bob@acme.example"));
    assert_eq!("FORBIDDEN", send(Some(now()), "eve@acme.example"));
    assert_eq!("FORBIDDEN", send(Some(now() - 3_600), "bob@acme.example"));
}
