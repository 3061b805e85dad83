//! Our types of the arguments of real MCP tools against those of Cedar's own generator,
//! `cedar-policy-mcp-schema-generator`, as `make mcp-types` wrote them down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use authz_kernel::arguments::{ArgumentSchema, ArgumentType, Member, tame};
use serde_json::Value;

type Types = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

#[derive(serde::Deserialize)]
struct Peer {
    types: Types,
    refused: BTreeMap<String, BTreeMap<String, String>>,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data")
}

fn peer() -> Peer {
    serde_json::from_slice(&std::fs::read(data().join("cedar/mcp-types.json")).unwrap()).unwrap()
}

fn ours(server: &str, tool: &str) -> BTreeMap<String, String> {
    let file = std::fs::read(data().join("mcp").join(format!("{server}.json"))).unwrap();
    let listing: Value = serde_json::from_slice(&file).unwrap();
    let tools = listing["tools"].as_array().unwrap();
    let found = tools.iter().find(|each| each["name"] == tool).unwrap();
    let (schema, _) = tame(&found["inputSchema"]);
    members(ArgumentSchema::compile(&schema).unwrap().members())
}

fn members(all: &BTreeMap<String, Member>) -> BTreeMap<String, String> {
    let text = |member: &Member| {
        let optional = if member.required { "" } else { "?" };
        format!("{}{optional}", text(&member.kind))
    };
    all.iter().map(|(name, member)| (name.clone(), text(member))).collect()
}

fn text(kind: &ArgumentType) -> String {
    match kind {
        ArgumentType::Long => "Long".to_owned(),
        ArgumentType::Decimal => "decimal".to_owned(),
        ArgumentType::Text => "String".to_owned(),
        ArgumentType::Bool => "Bool".to_owned(),
        ArgumentType::Set(of) => format!("Set<{}>", text(of)),
        ArgumentType::Record(all) => {
            let mut told = String::new();
            for (name, kind) in members(all) {
                let comma = if told.is_empty() { "" } else { ", " };
                write!(told, "{comma}{name}: {kind}").unwrap();
            }
            format!("{{{told}}}")
        }
        ArgumentType::Opaque => "opaque".to_owned(),
    }
}

/// The peer's type as we would say it: its enums are texts to us, and what has no one type is opaque.
fn as_ours(peer: &str) -> String {
    peer.replace("Enum", "String").replace("Union", "opaque").replace("Tags", "opaque")
}

#[test]
fn types_are_those_of_cedars_own_generator() {
    let mut same = 0;
    let mut nullable = 0;
    let mut differ = Vec::new();
    for (server, tools) in &peer().types {
        for (tool, theirs) in tools {
            let ours = ours(server, tool);
            assert_eq!(
                ours.keys().collect::<Vec<_>>(),
                theirs.keys().collect::<Vec<_>>(),
                "{server} {tool}: names"
            );
            for (name, kind) in theirs {
                let said = &ours[name];
                if *said == as_ours(kind) {
                    same += 1;
                } else if kind == "Union?" && said == "String?" {
                    // `anyOf: [string, null]`: the peer sees a union, policies here a text that may be absent.
                    nullable += 1;
                } else {
                    differ.push(format!("{server}.{tool} {name}: {kind}, ours {said}"));
                }
            }
        }
    }
    assert_eq!((same, nullable, differ), (476, 10, Vec::<String>::new()));
}

#[test]
fn what_the_generator_refuses_is_not_refused_here() {
    let refused = peer().refused;
    assert_eq!(refused.values().map(BTreeMap::len).sum::<usize>(), 5);
    for (server, tools) in &refused {
        for tool in tools.keys() {
            assert!(!ours(server, tool).is_empty(), "{server} {tool}");
        }
    }
}
