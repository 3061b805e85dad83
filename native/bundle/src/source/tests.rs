//! Each kind of error has one message; these are all of them.

use std::collections::BTreeMap;

use super::*;
use crate::model::{
    ClaimTest, DestinationKind, DestinationPattern, Effect, SuppressedFindings, Tier,
};

const BASE: &str = "
catalog:
  crm: {kind: http, operations: {get: {input: {type: object, properties: {id: {type: string}, n: {type: integer}, o: {type: object}}}}, mail: {input: {type: object, properties: {to: {type: array, items: {type: string}}}}}}}
labels: {pii: {kind: confidentiality}, untrusted: {kind: trust}}
resources: {customers: {labels: [pii]}}
destinations: {internal: {match: '*@corp.example', clearance: [pii]}, external: {match: '*', clearance: []}}
";

fn accept(_: &str, _: &[u8], _: &BTreeMap<String, String>) -> Result<(), Diagnostic> {
    Ok(())
}

fn load(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
) -> Result<Model, Diagnostics> {
    BundleReader::new(files, vars, accept).read().map(|bundle| bundle.model().clone())
}

fn load_at(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
    now: Time,
    previous: Option<&Bundle>,
) -> Result<Bundle, Diagnostics> {
    BundleReader::new(files, vars, accept).at(now).after(previous).read()
}

fn read(files: &[(&str, &str)]) -> Result<Model, String> {
    let mut all: BTreeMap<String, Vec<u8>> =
        files.iter().map(|(n, t)| ((*n).to_owned(), t.as_bytes().to_vec())).collect();
    all.entry("bundle.yaml".into()).or_insert_with(|| b"{name: test, tasks: optional}".to_vec());
    let vars = BTreeMap::from([("domain".to_owned(), "a.example".to_owned())]);
    load(&all, &vars).map_err(|e| e.to_string())
}

/// The messages about a file `x.yaml` beside the base.
fn about(text: &str) -> String {
    match read(&[("base.yaml", BASE), ("x.yaml", text)]) {
        Ok(model) => format!("loaded with {:?}", model.warnings),
        Err(message) => message,
    }
}

#[test]
fn each_fault_of_a_key_has_its_message() {
    let mut wrong = Vec::new();
    for (text, message) in [
        (
            "clasify: []",
            "x.yaml:1:1: unknown key `clasify`; known: agents, subjects, catalog, classify, accepted, resources, recipient_lists, destinations, labels, templates, tiers, sequences, budgets, denials, exceptions, approvals, routes, mode, analysis, bundle. Did you mean `classify`?",
        ),
        (
            "labels: {pii: {kind: trust}}",
            "x.yaml:1:10: label `pii` is declared twice; first in base.yaml:4. Keep one of the two.",
        ),
        (
            "labels: {a: {kind: confidentialty}}",
            "x.yaml:1:20: unknown value `confidentialty`; known: confidentiality, trust. Did you mean `confidentiality`?",
        ),
        (
            "labels: {a b: {kind: trust}}",
            "x.yaml:1:10: bad label `a b`: letters, digits, `.`, `_` and `-`, a letter or digit first. Rename it.",
        ),
        ("labels: {a: {}}", "x.yaml:1:13: `kind` is missing. Add it."),
        (
            "labels: [a]",
            "x.yaml:1:9: `labels`: expected a mapping, found a list. Write `{name: value}`, or one `name: value` a line, indented below the key.",
        ),
        (
            "labels: {a: {kind: trust}, a: {kind: trust}}",
            "x.yaml:1:28: `a` is named twice. Keep one of the two.",
        ),
        ("labels: {a: {kind: trust, derive: {}}}", "x.yaml:1:35: `from` is missing. Add it."),
        (
            "labels: {a: {kind: trust, derive: {from: pii}}}",
            "x.yaml:1:35: `derive` has `from`, and either `sources` or `resources`. Write `derive: {from: pii, resources: 100}`.",
        ),
        (
            "labels: {a: {kind: trust, derive: {from: pii, sources: 1}}}",
            "x.yaml:1:56: a label is derived from 2 to 256, not from 1. Write another number.",
        ),
        (
            "labels: {a: {kind: trust, derive: {from: b, sources: 2}}, b: {kind: trust, derive: {from: pii, sources: 2}}}",
            "x.yaml:1:42: `b` is derived itself. Name the label that it is derived from.",
        ),
        ("templates: {a: {}}", "x.yaml:1:16: `purpose` is missing. Add it."),
        (
            "approvals: {confirm_without_person: confirm, limits: {open_per_task: 0}}",
            "x.yaml:1:37: `confirm` is the queue of the person, who is missing. Name the queue of another person, for example `approve`.\nx.yaml:1:70: 0 is not within 1 to 10000. Write another number.",
        ),
        (
            "approvals: {queues: {reauth: {}, approve:bot: {escalate_after: 1h}, confirm: {escalate_after: soon, deputies: nobody}}}",
            "x.yaml:1:22: `reauth` is no queue of people. Write `confirm`, `approve`, `two_person`, or `approve:ROLE` with a role.\nx.yaml:1:34: `bot` is no role of people. Declare it under `subjects`, or write another role.\nx.yaml:1:69: only a queue `approve:ROLE` has deputies. Remove `escalate_after` and `deputies`.\nx.yaml:1:95: `soon` is no duration. Write 15m, 1h or 4h.\nx.yaml:1:111: `nobody` is no role of people. Declare it under `subjects`, or write another role.",
        ),
        (
            "denials: {raise_after: 0, end_after: 65}",
            "x.yaml:1:24: a run is of 1 to 64 denials, not of 0. Write another number.\nx.yaml:1:38: a run is of 1 to 64 denials, not of 65. Write another number.",
        ),
        (
            "analysis: {assertions: [{id: a, never: {}}, {id: a, never: {effect: grant}}, {id: b, never: {label: pii}}, {id: c d, never: {effect: grant}}]}",
            "x.yaml:1:40: the assertion covers every call. Say which calls must never happen: agent, subject, operation, effect, tier, label, destination or after.\nx.yaml:1:50: assertion `a` is declared twice; first in x.yaml:1. Keep one of the two.\nx.yaml:1:93: `label` needs a destination. Add `destination`: a class, or `any`. To speak of data that was read before a call, write `after`.\nx.yaml:1:113: bad assertion `c d`: letters, digits, `.`, `_` and `-`, a letter or digit first. Rename it.",
        ),
        (
            "analysis: {assertions: [{id: a, never: {agent: bot, subject: staff, operation: crm.gte, label: pi, destination: extern, after: odd, without: [aprove, 'approve:boss']}}]}",
            "x.yaml:1:48: unknown role of agents `bot`. No role of agents is declared. Or write `any`.\nx.yaml:1:62: unknown role of people `staff`. No role of people is declared. Or write `any`.\nx.yaml:1:80: unknown operation `crm.gte`; declared: crm.get (base.yaml:3), crm.mail (base.yaml:3). Did you mean `crm.get`?\nx.yaml:1:96: unknown label `pi`; declared: pii (base.yaml:4), untrusted (base.yaml:4). Did you mean `pii`?\nx.yaml:1:113: unknown class of destinations `extern`; declared: external (base.yaml:6), internal (base.yaml:6). Did you mean `external`? Or write `any`.\nx.yaml:1:128: unknown label `odd`; declared: pii (base.yaml:4), untrusted (base.yaml:4). Write one of the declared names, or declare this one.\nx.yaml:1:143: people do not answer a step-up of the kind `aprove`. Write `person`, `confirm`, `approve`, `two_person`, or `approve:ROLE` with a role.\nx.yaml:1:151: people do not answer a step-up of the kind `approve:boss`. Write `person`, `confirm`, `approve`, `two_person`, or `approve:ROLE` with a role.",
        ),
        (
            "analysis: {suppressions: [{owner: a, reason: b, until: 2027-01-01}, {finding: 'ab', owner: '', reason: ' ', until: soon}, {finding: 0123456789abcdef, rule: label-lost, owner: a, reason: b, until: 2027-01-01}]}",
            "x.yaml:1:27: the suppression names no finding. Write `finding: <id>` for one finding, or `rule: <name>` with or without `subject`.\nx.yaml:1:79: `ab` is no id of a finding. Copy the 16 digits that `authz analyze` prints.\nx.yaml:1:92: `owner` is one line of 1 to 256 bytes. Name a team or a person.\nx.yaml:1:104: `reason` is one line of 1 to 512 bytes. Say in a few words why the finding is accepted.\nx.yaml:1:116: `soon` is no end. Write a date, `2027-01-31`, or a time, `2027-01-31T18:00:00Z`.\nx.yaml:1:123: `finding` and `rule` exclude each other. Write `finding: <id>` for one finding, or `rule: <name>` with or without `subject`.",
        ),
        (
            "analysis: {assertions: [{id: a, never: {effect: grant}}], suppressions: [{rule: label-lsot, owner: a, reason: b, until: 2027-01-01}, {rule: 'assertion:b', owner: a, reason: b, until: 2027-01-01}, {finding: 0123456789abcdef, subject: x, owner: a, reason: b, until: 2027-01-01}, {rule: 'assertion:a', subject: '', owner: a, reason: b, until: 2027-01-01}]}",
            "x.yaml:1:81: unknown rule of the analysis `label-lsot`; declared: label-lost, policy-never-matches, policy-always-matches, policy-may-error, policy-redundant and 12 more. Did you mean `label-lost`?\nx.yaml:1:141: unknown rule of the analysis `assertion:b`; declared: assertion:a, policy-never-matches, policy-always-matches, policy-may-error, policy-redundant and 12 more. Did you mean `assertion:a`?\nx.yaml:1:234: `subject` goes with `rule`. Remove it: the id of a finding names its subject.\nx.yaml:1:309: `subject` is one line of 1 to 256 bytes. Copy it from the finding.",
        ),
        (
            "analysis: {assertions: [{id: a, nver: {}}], supressions: []}",
            "x.yaml:1:33: unknown key `nver`; known: id, never. Did you mean `never`?",
        ),
        ("exceptions: {a: {}}", "x.yaml:1:17: `who` is missing. Add it."),
        (
            "exceptions: {a: {who: nobody, operations: ['*.get', crm.gte, crm], owner: '', reason: ' ', ticket: '', expires: soon, resources: {collections: [custmers], ids: [a//b]}, obligations: ['redact card']}}",
            "x.yaml:1:23: unknown role `nobody`. No role is declared. Or write the SPIFFE id of an agent.\nx.yaml:1:44: `*.get` does not name its system. Write an id, `erp.post_journal`, or a glob of one system, `erp.read_*`.\nx.yaml:1:53: unknown operation `crm.gte`; declared: crm.get (base.yaml:3), crm.mail (base.yaml:3). Did you mean `crm.get`?\nx.yaml:1:62: `crm` does not name its system. Write an id, `erp.post_journal`, or a glob of one system, `erp.read_*`.\nx.yaml:1:75: `owner` is one line of 1 to 256 bytes. Name a team or a person.\nx.yaml:1:87: `reason` is one line of 1 to 512 bytes. Say in a few words why it exists.\nx.yaml:1:100: `ticket` is one line of 1 to 256 bytes. Name the ticket in which it was granted.\nx.yaml:1:113: `soon` is no end. Write a date, `2027-01-31`, or a time, `2027-01-31T18:00:00Z`.\nx.yaml:1:145: unknown collection `custmers`; declared: customers (base.yaml:5). Did you mean `customers`?\nx.yaml:1:162: bad id `a//b`: it has an empty segment, or ends in a slash. Write one `/` between segments, and none at the end.\nx.yaml:1:184: `redact card` is no obligation: there is no obligation of the name. Write `redact:NAME`, `redact:/POINTER`, `mask_arguments:/POINTER`, `log_full`, `max_uses:NUMBER` or `custom:NAME`.",
        ),
        (
            "exceptions: {breakglass: {who: 'spiffe://a.example/x', operations: [crm.get], owner: a, reason: b, ticket: c, expires: 2027-01-01}}",
            "x.yaml:1:14: `breakglass` is the exception that administrators open at run time. Rename it.",
        ),
        (
            "recipient_lists: {a: {}, b: {file: data/b.csv, url: https://b.example}, c: {file: data/c.csv}}",
            "x.yaml:1:19: the recipient list `a` comes from nowhere. Add `file: data/<name>.csv`, or `url: https://…`.\nx.yaml:1:53: the recipient list `b` comes from two places. Remove `file` or `url`.\nx.yaml:1:83: the bundle has no file `data/c.csv` under data/. Add it.",
        ),
        (
            "recipient_lists: {a: {url: https://a.example}, b: {url: http://b.example/x, max_age: 1h}, c: {url: 'https://me:pw@c.example', max_age: 1h}}",
            "x.yaml:1:28: the recipient list `a` would never be too old. Say how long what was fetched last may count: `max_age: 24h`.\nx.yaml:1:57: what the recipient list `b` has as `url` is no https URL. Write `https://host/path`, without a user or a fragment.\nx.yaml:1:100: what the recipient list `c` has as `url` is no https URL. Write `https://host/path`, without a user or a fragment.",
        ),
        (
            "recipient_lists: {a: {file: base.yaml, column: '', max_age: soon}}",
            "x.yaml:1:29: the bundle has no file `base.yaml` under data/. Add it.\nx.yaml:1:48: `` is no name of a column. Write 1 to 256 bytes.\nx.yaml:1:61: `soon` is no duration. Write 30s, 15m, 24h or 7d.",
        ),
        (
            "destinations: {a: {recipient_list: customers, clearance: []}}",
            "x.yaml:1:36: unknown recipient list `customers`. No recipient list is declared.",
        ),
        (
            "mode: observe",
            "x.yaml:1:7: `observe` without an end. Add `until: 2027-01-31`, at most 90 days ahead.\nx.yaml:1:7: `observe` without an owner. Add `owner: team@corp.example`: who is asked about it.",
        ),
        (
            "mode: obsrve",
            "x.yaml:1:7: unknown value `obsrve`; known: enforce, observe. Did you mean `observe`?",
        ),
        (
            "mode: {default: observe, owner: sec}",
            "x.yaml:1:17: `observe` without an end. Add `until: 2027-01-31`, at most 90 days ahead.",
        ),
        (
            "mode: {owner: ' ', until: soon, systems: {crm: observe}}",
            "x.yaml:1:15: an owner is one line of at most 256 bytes. Name a team or a person.\nx.yaml:1:27: `soon` is no end. Write a date, `2027-01-31`, or a moment, `2027-01-31T18:00:00Z`.",
        ),
        (
            "mode: {systems: {crn: enforce}}",
            "x.yaml:1:18: unknown system `crn`; declared: crm (base.yaml:3). Did you mean `crm`?",
        ),
        (
            "mode: {agents: {bot: enforce}}",
            "x.yaml:1:17: bad SPIFFE id `bot`: it is not spiffe://<trust domain>/<path>. Write `spiffe://trust.domain/ns/*/sa/name`.",
        ),
        (
            "mode: {tiers: {hihg: {mode: observe, owner: sec, until: 2026-01-31}}}",
            "x.yaml:1:16: unknown tier `hihg`; known: high, low, standard, critical. Did you mean `high`?",
        ),
        (
            "mode: {tiers: {high: {owner: sec, until: 2026-01-31}}}",
            "x.yaml:1:22: `mode` is missing. Add it.",
        ),
        (
            "agents: {bot: {match: spiffe://a.example/x, limits: {}}}",
            "x.yaml:1:53: `limits` is not in this version. Remove it.",
        ),
        (
            "agents: {bot: ['spiffe://A.example/x']}",
            "x.yaml:1:16: bad SPIFFE id `spiffe://A.example/x`: its trust domain is not of lower-case letters, digits, `.`, `_` and `-`. Write `spiffe://trust.domain/ns/*/sa/name`.",
        ),
        (
            "agents: {bot: ['spiffe://a.example/b*']}",
            "x.yaml:1:16: bad SPIFFE id `spiffe://a.example/b*`: a path segment is letters, digits, `.`, `_` and `-`, or a whole `*`. Write `spiffe://trust.domain/ns/*/sa/name`.",
        ),
        (
            "agents: {bot: ['spiffe://${domian}/b']}",
            "x.yaml:1:16: unknown variable `domian`; declared: domain. Did you mean `domain`? Variables are set under `vars` in the configuration.",
        ),
        (
            "subjects: {staff: {issuer: corp, claim: groups}}",
            "x.yaml:1:19: a condition has `claim` with either `contains` or `equals`, or none of them. Write `{issuer: corp, claim: groups, contains: staff}`.",
        ),
        (
            "subjects: {staff: {issuer: corp, claim: sub, contains: a}}",
            "x.yaml:1:19: `sub` is a text, not a list. Write `equals` instead of `contains`.",
        ),
        (
            "catalog: {Crm: {kind: http}}",
            "x.yaml:1:11: bad system `Crm`: lower-case letters, digits, `_` and `-`, a letter or digit first. Rename it.",
        ),
        (
            "catalog: {authz: {kind: http}}",
            "x.yaml:1:11: bad system `authz`: `authz` is this server itself. Rename it.",
        ),
        (
            "catalog: {wiki: {kind: mcp}}",
            "x.yaml:1:11: there is no catalog/wiki.mcp.yaml. Run `authz catalog import-mcp wiki`.",
        ),
        (
            "catalog: {wiki: {kind: http, origin: 'https://Wiki.example/x'}}",
            "x.yaml:1:38: `https://Wiki.example/x` is no origin. Write `https://host` or `https://host:port`, in lower case, without a path.",
        ),
        (
            "catalog: {wiki: {kind: http, operations: {read: {input: {type: string}}}}}",
            "x.yaml:1:57: the input of `wiki.read` is no object schema. Write `input: {type: object, properties: {…}}`.",
        ),
        (
            "catalog: {wiki: {kind: http, operations: {read: {input: {type: object, properties: {page: {}}, required: [pge]}}}}}",
            "x.yaml:1:57: `required` of `wiki.read`: unknown argument `pge`; declared: page. Did you mean `page`?",
        ),
        (
            "classify: [{match: crm.gte, effects: [read]}]",
            "x.yaml:1:20: `crm.gte` matches no operation. Did you mean `crm.get`?",
        ),
        (
            "classify: [{match: crm.get, effects: []}]",
            "x.yaml:1:38: `effects` is empty. Say what the operation does: read, write, …",
        ),
        (
            "classify: [{match: crm.get, effects: [raed]}]",
            "x.yaml:1:39: unknown value `raed`; known: read, write, delete, export, execute, grant. Did you mean `read`?",
        ),
        (
            "classify: [{match: crm.mail, effects: [export]}]",
            "x.yaml:1:20: `crm.mail` exports, but has no destination. Add `destination: {from: [/argument], type: …}`.",
        ),
        (
            "classify: [{match: crm.get, effects: [read], yields: [pi]}]",
            "x.yaml:1:55: unknown label `pi`; declared: pii (base.yaml:4), untrusted (base.yaml:4). Did you mean `pii`?",
        ),
        (
            "classify: [{match: crm.get, effects: [read], yields: {minimum: [pii], maximum: []}}]",
            "x.yaml:1:65: `pii` is in `minimum` but not in `maximum`. Add it to `maximum`.",
        ),
        (
            "classify: [{match: crm.get, effects: [read], resource: {collection: custmers}}]",
            "x.yaml:1:69: unknown collection `custmers`; declared: customers (base.yaml:5). Did you mean `customers`?",
        ),
        (
            "classify: [{match: crm.get, effects: [read], resource: {collection: customers, id: /di}}]",
            "x.yaml:1:84: `/di` names no argument of `crm.get`: unknown argument `di`; declared: id, n, o. Did you mean `id`?",
        ),
        (
            "classify: [{match: crm.get, effects: [read], resource: {collection: customers, id: /o}}]",
            "x.yaml:1:84: `/o` of `crm.get` is not declared as string or integer. Give the argument `type: string` in the catalog.",
        ),
        (
            "classify: [{match: crm.mail, effects: [export], destination: {from: to, type: email}}]",
            "x.yaml:1:69: `to` is no JSON pointer to an argument. Write `/argument`, or `/argument/member`.",
        ),
        (
            "classify: [{match: crm.mail, effects: [export], destination: {from: /to, type: email, when_absent: externl}}]",
            "x.yaml:1:100: unknown destination class `externl`; declared: external (base.yaml:6), internal (base.yaml:6). Did you mean `external`?",
        ),
        (
            "classify: [{match: crm.get}]",
            "x.yaml:1:20: `effects` is missing. Say what the operation does: read, write, …",
        ),
        (
            "classify: [{match: crm.get, split: {on: /n, cases: {a: {effects: [read]}}}}]",
            "x.yaml:1:41: `/n` of `crm.get` is not declared as string. Give the argument `type: string` in the catalog.",
        ),
        (
            "classify: [{match: crm.get, split: {on: /id, cases: {}}}]",
            "x.yaml:1:36: `split` of `crm.get` has no cases. Add `cases: {value: {effects: […]}}`.",
        ),
        (
            "classify: [{match: crm.get, split: {on: /id, cases: {a: {}}}}]",
            "x.yaml:1:54: `effects` is missing. Say what the operation does: read, write, …",
        ),
        (
            "classify: [{match: crm.get, effects: [read], split: {on: /id, cases: {a b: {}, a_b: {}}, when_absent: ab}}]",
            "x.yaml:1:80: operation `crm.get.a_b` is declared twice; first in x.yaml:1. Keep one of the two.\nx.yaml:1:103: unknown case `ab`; declared: a b. Did you mean `a b`?",
        ),
        (
            "classify: [{match: crm.get, effects: [read]}, {match: crm.get, effects: [write]}]",
            "x.yaml:1:55: `crm.get` is classified twice; first in x.yaml:1. Keep one of the two.",
        ),
        (
            "resources: {a: {patterns: [{match: 'x*/y', labels: [pii]}]}}",
            "x.yaml:1:36: bad pattern `x*/y`. `*` stands for one whole segment between `/`, a last `**` for any number of them.",
        ),
        (
            "destinations: {lab: {match: '*@corp.example', clearance: []}}",
            "x.yaml:1:29: destination pattern `*@corp.example` stands twice; first in base.yaml:6. Keep one of the two.",
        ),
        (
            "destinations: {lab: {match: 'bob.smither@*', clearance: []}, l2: {match: '*@acm.example', clearance: []}}",
            "x.yaml:1:74: `*@acm.example` is as specific as `bob.smither@*` (x.yaml:1), and both match some destinations. Make one of the two more specific.",
        ),
        (
            "destinations: {lab: {match: 'a', clearance: [untrusted]}}",
            "x.yaml:1:46: `untrusted` is a trust label. A clearance lists confidentiality labels.",
        ),
        (
            "routes: [{path: /x, operation: crm.get}]",
            "x.yaml:1:10: a route has `method` and `operation`, or `mcp` and no `arguments`. Write `{method: GET, path: …, operation: …}` or `{path: …, mcp: system}`.",
        ),
        (
            "routes: [{path: /mcp, mcp: crm}]",
            "x.yaml:1:28: unknown MCP system `crm`. No MCP system is declared.",
        ),
        (
            "tiers: {hihg: {}}",
            "x.yaml:1:9: unknown tier `hihg`; known: high, low, standard, critical. Did you mean `high`?",
        ),
        (
            "tiers: {high: {max_age: 5x}}",
            "x.yaml:1:25: `5x` is no duration. Write a whole number and a unit: 30s, 15m, 24h or 7d, at most 3650d.",
        ),
        (
            "tiers: {low: {durable_audit: false}, high: {durable_audit: false}}",
            "x.yaml:1:60: records of tier `high` are always durable. Remove `durable_audit`.",
        ),
        (
            "tiers: {high: {confidence: 101}}",
            "x.yaml:1:28: confidence 101 is above 100. Write 0 to 100.",
        ),
        (
            "a: &a [1]\nb: *a",
            "x.yaml:1:1: unknown key `a`; known: agents, subjects, catalog, classify, accepted, resources, recipient_lists, destinations, labels, templates, tiers, sequences, budgets, denials, exceptions, approvals, routes, mode, analysis, bundle. Remove it, or write one of the known keys.",
        ),
        ("", "x.yaml: the file says nothing. Fill it, or remove it."),
    ] {
        let got = about(text);
        if message != got {
            wrong.push(format!("{text}\n  expected {message}\n  actual   {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_fault_of_a_file_has_its_message() {
    let bundle = |text: &str| match read(&[("bundle.yaml", text), ("base.yaml", BASE)]) {
        Ok(_) => "loaded".to_owned(),
        Err(message) => message,
    };
    for (text, message) in [
        ("{name: a, tasks: required}", "loaded"),
        ("{name: a}", "loaded"),
        (
            "{name: a, tasks: requierd}",
            "bundle.yaml:1:18: unknown value `requierd`; known: optional, required. Did you mean `required`?",
        ),
        ("{name: a, taskless_tier: low}", "loaded"),
        (
            "{name: a, tasks: optional, taskless_tier: low}",
            "bundle.yaml:1:43: `taskless_tier` says nothing beside `tasks: optional`. Remove one of the two.",
        ),
        ("{tasks: optional}", "bundle.yaml:1:1: `name` is missing. Add it."),
        (
            "{name: a, sequence: 7, tasks: optional}",
            "bundle.yaml:1:21: `sequence` is not in this version. Remove it.",
        ),
        (
            "{name: a, tasks: optional, mcp: {deny_as: tool_reslut}}",
            "bundle.yaml:1:43: unknown value `tool_reslut`; known: tool_result, jsonrpc_error, http. Did you mean `tool_result`?",
        ),
        (
            "{name: a, tasks: optional, implicit_tasks: {}}",
            "bundle.yaml:1:44: `template` is missing. Add it.",
        ),
        (
            "{name: a, implicit_tasks: {agents: [bots], template: read}}",
            "bundle.yaml: warning: every operation needs a task, and there is no template to start one from. Add `templates`, or say `tasks: optional`.\nbundle.yaml:1:37: unknown role of agents `bots`. No role of agents is declared.\nbundle.yaml:1:54: unknown template `read`. No template is declared.",
        ),
        (
            "{name: a, tasks: optional, show_reason: [cmr]}",
            "bundle.yaml:1:42: unknown system `cmr`; declared: crm (base.yaml:3). Did you mean `crm`?",
        ),
        ("{name: a, tasks: optional, show_reason: crm}", "loaded"),
    ] {
        assert_eq!(message, bundle(text), "{text}");
    }
    for (path, message) in [
        (
            "policies/a.txt",
            "policies/a.txt: a bundle holds no files of this kind. policies/ holds *.cedar only.",
        ),
        (
            "a.cedar",
            "a.cedar: a bundle holds no files of this kind. Call it policy.cedar, or move it under policies/.",
        ),
        (
            "x/policy.cedar",
            "x/policy.cedar: a bundle holds no files of this kind. Move it under policies/.",
        ),
        ("a.yml", "a.yml: a bundle holds no files of this kind. Rename it to *.yaml."),
        (
            "a.csv",
            "a.csv: a bundle holds no files of this kind. It may hold bundle.yaml, policy.cedar, policies/**/*.cedar, tests/**/*.yaml, other *.yaml, *.md, and anything under data/.",
        ),
        ("catalog/x.mcp.yaml", "catalog/x.mcp.yaml: the file says nothing. Import it again."),
        ("../a.yaml", "../a.yaml: not a plain path within the bundle. Rename the file."),
    ] {
        assert_eq!(Err(message.to_owned()), read(&[(path, "")]).map(|_| ()), "{path}");
    }
    let none = load(&BTreeMap::new(), &BTreeMap::new()).map_err(|e| e.to_string()).map(|_| ());
    assert_eq!(
        Err("bundle.yaml: the bundle has no bundle.yaml. Add one that says `name: <name>`."
            .to_owned()),
        none
    );
    let cedar = read(&[("policies/a.cedar", "// ok\n  ${nope}")]).map(|_| ());
    assert_eq!(Err("policies/a.cedar:2:3: unknown variable `nope`; declared: domain. Write one of the declared names, or declare this one. Variables are set under `vars` in the configuration.".to_owned()), cedar);
}

#[test]
fn a_bundle_within_its_bounds_is_read_and_one_beyond_is_not() {
    let deep = format!("labels: {}{}", "[".repeat(60), "]".repeat(60));
    assert!(
        about(&deep).contains("too large: more than 1000000 values, or nested deeper than 48"),
        "{}",
        about(&deep)
    );
    let long = format!("labels: {{{}: {{kind: trust}}}}", "a".repeat(257));
    assert!(about(&long).contains("at most 256 bytes"), "{}", about(&long));
    let bomb = "labels: &a [x, x, x, x, x, x, x, x, x, x]\nroutes: [&b [*a, *a, *a, *a, *a, *a, *a, *a], &c [*b, *b, *b, *b, *b, *b], [*c, *c, *c, *c, *c, *c, *c, *c, *c]]";
    assert!(about(bomb).starts_with("x.yaml:"), "{}", about(bomb));
    let many: BTreeMap<String, Vec<u8>> =
        (0..10_001).map(|i| (format!("{i}.md"), Vec::new())).collect();
    let message = load(&many, &BTreeMap::new()).map_err(|e| e.to_string()).map(|_| ());
    assert!(
        message.is_err_and(|m| m.starts_with("bundle.yaml: the bundle has more than 10000 files"))
    );
}

#[test]
fn a_glob_gives_way_to_an_exact_id_and_to_an_earlier_glob() {
    let model = read(&[
        ("base.yaml", BASE),
        (
            "x.yaml",
            "classify: [{match: 'crm.*', effects: [write]}, {match: crm.get, effects: [read], tier: low}, {match: 'crm.m*', effects: [delete]}]",
        ),
    ]);
    let model = model.unwrap_or_default();
    let of = |id: &str| {
        model.operations.iter().find(|o| o.id == id).map(|o| (o.tier, o.effects.clone()))
    };
    assert_eq!(Some((Tier::Low, [Effect::Read].into())), of("crm.get"));
    assert_eq!(Some((Tier::Standard, [Effect::Write].into())), of("crm.mail"));
    assert_eq!(
        vec![
            "x.yaml:1:102: warning: `crm.m*` decides about no operation: each that it matches has an earlier rule or an exact one. Move it up, or remove it."
        ],
        model.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    );
}

#[test]
fn globs_of_two_files_on_one_operation_are_refused() {
    let text = "classify: [{match: 'crm.*', effects: [read]}]";
    let both = read(&[("base.yaml", BASE), ("x.yaml", text), ("y.yaml", text)]).map(|_| ());
    let message = "y.yaml:1:20: `crm.*` matches `crm.get`, and so does `crm.*` (x.yaml:1). Globs of two files have no order: classify `crm.get` by its exact id.";
    assert!(both.as_ref().is_err_and(|m| m.contains(message)), "{both:?}");
}

#[test]
fn an_operation_that_no_rule_matches_stays_unreviewed() {
    let model = read(&[("base.yaml", BASE)]).unwrap_or_default();
    assert_eq!(2, model.operations.len());
    assert!(model.operations.iter().all(|o| !o.reviewed && o.tier == Tier::Critical));
}

#[test]
fn a_destination_without_a_class_for_its_absence_is_the_least_trusted() {
    let text =
        "classify: [{match: crm.mail, effects: [export], destination: {from: /to, type: email}}]";
    let model = read(&[("base.yaml", BASE), ("x.yaml", text)]).unwrap_or_default();
    let rule = model.operations.iter().find_map(|o| o.destination.clone());
    assert_eq!(
        Some(("external", DestinationKind::Email)),
        rule.as_ref().map(|r| (&*r.when_absent, r.kind))
    );
}

#[test]
fn members_of_a_role_join_from_agents_and_subjects() {
    let text = "agents: {a: ['spiffe://${domain}/x']}\nsubjects: {a: [{issuer: corp}, {issuer: corp, claim: sub, equals: me}]}";
    let model = read(&[("x.yaml", text)]).unwrap_or_default();
    let roles = crate::roles::RoleIndex::compile(&model);
    assert_eq!(vec!["a"], roles.agent_roles("spiffe://a.example/x").to_vec());
    let tests: Vec<_> =
        model.roles.values().flat_map(|r| r.subjects.iter().map(|s| s.test.clone())).collect();
    assert_eq!(vec![ClaimTest::Any, ClaimTest::Equals("sub".into(), "me".into())], tests);
}

#[test]
fn the_digest_is_over_the_files_and_not_over_the_variables() {
    let files = BTreeMap::from([
        ("bundle.yaml".to_owned(), b"{name: test, tasks: optional}".to_vec()),
        ("policies/a.cedar".to_owned(), b"// ${domain}".to_vec()),
    ]);
    let with = |value: &str| {
        load(&files, &BTreeMap::from([("domain".to_owned(), value.to_owned())])).unwrap_or_default()
    };
    let (a, b) = (with("a.example"), with("b.example"));
    assert_eq!((a.digest, &a.revision), (b.digest, &b.revision));
    assert_ne!(a.policies, b.policies);
    assert_eq!(12, a.revision.len());
    // Moving a byte from the path to the content is another bundle.
    let of = |path: &str, text: &str| {
        let files = BTreeMap::from([(path.to_owned(), text.as_bytes().to_vec())]);
        digest(contents(&files), &mut Pause::default())
    };
    assert_ne!(of("ab", "c"), of("a", "bc"));
}

/// Files that are put in, or taken out.
type Changes<'a> = &'a [(&'a str, Option<&'a [u8]>)];

#[test]
fn other_policies_beside_the_same_facts_are_read_as_if_all_was() {
    let vars = BTreeMap::from([("limit".to_owned(), "9".to_owned())]);
    let facts: &[u8] =
        b"agents: {bot: [\"spiffe://a.example/bot\"]}\nlabels: {pii: {kind: confidentiality}}\n\
        catalog: {crm: {kind: http, operations: {search: {}}}}\n\
        classify: [{match: crm.search, effects: [read], tier: low}]\n\
        mode: {default: observe, owner: sec@corp.example, until: 2026-01-02}\n";
    let permit: &[u8] = b"permit (principal, action, resource) when { 1 < ${limit} };";
    let files = |changes: Changes<'_>| {
        let mut files = BTreeMap::from([
            ("bundle.yaml".to_owned(), b"{name: test, tasks: optional}".to_vec()),
            ("facts.yaml".to_owned(), facts.to_vec()),
            ("policies/a.cedar".to_owned(), permit.to_vec()),
            ("policies/b.cedar".to_owned(), permit.to_vec()),
        ]);
        for (path, bytes) in changes {
            match bytes {
                Some(bytes) => drop(files.insert((*path).to_owned(), bytes.to_vec())),
                None => drop(files.remove(*path)),
            }
        }
        files
    };
    let shown = |read: Result<Bundle, Diagnostics>| {
        read.map(|bundle| format!("{:?}", bundle.model())).map_err(|found| format!("{found:?}"))
    };
    let now = Time(1_767_225_600_000);
    let before = load_at(&files(&[]), &vars, now, None);
    assert!(before.is_ok(), "{before:?}");
    let before = before.unwrap_or_default();
    let other: &[u8] = b"forbid (principal, action, resource);";
    let named: &[u8] = b"{name: test, revision: r7, tasks: optional}";
    let unknown: &[u8] = b"permit (principal, action, resource) when { ${nothing} };";
    let changes: [Changes<'_>; 9] = [
        &[],
        &[("policies/a.cedar", Some(other))],
        &[("policies/a.cedar", None), ("policies/c.cedar", Some(other))],
        &[("policies/a.cedar", Some(unknown))],
        &[("policies/a.cedar", Some(b"\xff"))],
        &[("policies/notes.txt", Some(other))],
        &[("bundle.yaml", Some(named)), ("policies/a.cedar", Some(other))],
        &[("facts.yaml", Some(b"labels: {pii: {kind: integrity}}"))],
        &[("facts.yaml", None)],
    ];
    for changed in changes {
        let files = files(changed);
        let anew = shown(load_at(&files, &vars, now, None));
        assert_eq!(anew, shown(load_at(&files, &vars, now, Some(&before))), "{changed:?}");
    }
    // What is as before is kept once, and others are let run.
    let mut rests = 0;
    let files_of_one = files(&[("policies/a.cedar", Some(other))]);
    let mut rest = || rests += 1;
    let reader = BundleReader::new(&files_of_one, &vars, accept).at(now).after(Some(&before));
    let beside = reader.pausing(&mut rest).read().unwrap_or_default();
    let is_kept = |(known, one): (&PolicyFile, &PolicyFile)| Arc::ptr_eq(&known.text, &one.text);
    let kept: Vec<bool> =
        before.model().policies.iter().zip(&beside.model().policies).map(is_kept).collect();
    assert_eq!([false, true], *kept);
    assert!(rests > files_of_one.len(), "it rests more often than {rests} times");
    // Unchanged parts are kept also of a bundle with a revision of its own, and with other variables.
    let own = load_at(&files(&[("bundle.yaml", Some(named))]), &vars, now, None);
    let own = own.unwrap_or_default();
    assert_eq!("r7", own.model().revision);
    let files = files(&[("bundle.yaml", Some(named)), ("policies/b.cedar", None)]);
    for vars in [vars, BTreeMap::from([("limit".to_owned(), "8".to_owned())])] {
        let anew = shown(load_at(&files, &vars, now, None));
        assert!(anew.as_ref().is_ok_and(|model| model.contains("\"r7\"")));
        assert_eq!(anew, shown(load_at(&files, &vars, now, Some(&own))));
    }
}

#[test]
fn the_meaning_of_an_operation_may_stand_beside_its_schema() {
    let rest = "
labels: {pii: {kind: confidentiality}}
resources: {customers: {}}
destinations: {external: {match: '*', clearance: []}}
";
    let apart = format!(
        "{rest}
catalog:
  crm:
    kind: http
    operations:
      get: {{input: {{type: object, properties: {{id: {{type: string}}}}}}}}
      mail: {{input: {{type: object, properties: {{to: {{type: string}}}}}}}}
      act: {{input: {{type: object, properties: {{do: {{type: string, enum: [look, drop]}}}}, required: [do]}}}}
classify:
  - {{match: crm.get, effects: [read], tier: low, yields: [pii], resource: {{collection: customers, id: /id}}}}
  - {{match: crm.mail, effects: [export], abortable: true, destination: {{from: [/to], type: email}}}}
  - {{match: crm.act, split: {{on: /do, cases: {{look: {{effects: [read]}}, drop: {{effects: [delete]}}}}}}}}
"
    );
    let beside = format!(
        "{rest}
catalog:
  crm:
    kind: http
    operations:
      get: {{effects: [read], tier: low, yields: [pii], resource: {{collection: customers, id: /id}}, input: {{type: object, properties: {{id: {{type: string}}}}}}}}
      mail: {{effects: [export], abortable: true, destination: {{from: [/to], type: email}}, input: {{type: object, properties: {{to: {{type: string}}}}}}}}
      act: {{split: {{on: /do, cases: {{look: {{effects: [read]}}, drop: {{effects: [delete]}}}}}}, input: {{type: object, properties: {{do: {{type: string, enum: [look, drop]}}}}, required: [do]}}}}
"
    );
    let meaning = |text: &str| {
        let mut model = read(&[("x.yaml", text)]).unwrap_or_default();
        model.operations.iter_mut().for_each(|operation| operation.at = whole("x.yaml"));
        for split in model.splits.values_mut() {
            split.operation.at = whole("x.yaml");
        }
        format!("{:?} {:?} {:?}", model.operations, model.splits, model.classified)
    };
    assert!(meaning(&apart).contains("crm.act.drop"));
    assert_eq!(meaning(&apart), meaning(&beside));

    let get = "{type: object, properties: {id: {type: string}}}";
    for (operation, more, message) in [
        ("{}", "", "loaded with"),
        (
            "{effects: [read]}",
            ", classify: [{match: crm2.get, effects: [write]}]",
            "x.yaml:1:44: `crm2.get` is classified twice; first in x.yaml:1.",
        ),
        ("{tier: low}", "", "x.yaml:1:44: `effects` is missing. Say what the operation does: read"),
        ("{abortable: false}", "", "x.yaml:1:44: `effects` is missing."),
        ("{effects: []}", "", "x.yaml:1:59: `effects` is empty."),
        ("{effects: [read], yields: [secret]}", "", "x.yaml:1:76: unknown label `secret`"),
        ("{effects: [export]}", "", "x.yaml:1:44: `crm2.get` exports, but has no destination."),
        ("{effects: [read], rows: 1}", "", "x.yaml:1:67: unknown key `rows`"),
    ] {
        let operation = operation.replace('}', &format!(", input: {get}}}")).replace("{,", "{");
        let text = format!(
            "{{catalog: {{crm2: {{kind: http, operations: {{get: {operation}}}}}}}{more}}}"
        );
        let shown = about(&text);
        assert!(shown.starts_with(message), "{text}: {shown}");
    }
}

#[test]
fn the_settings_of_a_bundle_stand_in_one_file() {
    let base = ("base.yaml", BASE);
    let vars = BTreeMap::new();
    let files = |files: &[(&str, &str)]| -> BTreeMap<String, Vec<u8>> {
        files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    };
    let people = ("people.yaml", "bundle: {name: desk, tasks: optional, show_reason: crm}");
    let policy = ("policy.cedar", "permit (principal, action, resource);");
    let model = load(&files(&[base, people, policy]), &vars).unwrap_or_default();
    assert_eq!(("desk", true), (model.name.as_str(), model.tasks.optional));
    assert_eq!(vec!["policy.cedar"], model.policies.iter().map(|p| &*p.file).collect::<Vec<_>>());

    for (more, message) in [
        (
            vec![people, ("bundle.yaml", "name: other")],
            "people.yaml:1:9: the bundle has its settings twice; first in bundle.yaml. Keep one of the two.",
        ),
        (
            vec![people, ("systems.yaml", "bundle: {name: desk}")],
            "systems.yaml:1:9: the bundle has its settings twice; first in people.yaml:1. Keep one of the two.",
        ),
        (
            vec![("people.yaml", "bundle: {tasks: optional}")],
            "people.yaml:1:9: `name` is missing. Add it.",
        ),
        (
            vec![("people.yaml", "bundle: {name: desk, tasks: optional, show_reason: cmr}")],
            "people.yaml:1:52: unknown system `cmr`; declared: crm (base.yaml:3). Did you mean `crm`?",
        ),
        (
            vec![("people.yaml", "bundle: {name: desk, taskless_tier: low, tasks: optional}")],
            "people.yaml:1:37: `taskless_tier` says nothing beside `tasks: optional`. Remove one of the two.",
        ),
        (
            Vec::new(),
            "bundle.yaml: the bundle has no bundle.yaml. Add one that says `name: <name>`.",
        ),
    ] {
        let more: Vec<_> = more.into_iter().chain([base]).collect();
        let shown = load(&files(&more), &vars).map(|_| ()).map_err(|found| found.to_string());
        assert_eq!(Err(message.to_owned()), shown);
    }
}

#[test]
fn the_schemas_name_every_key() {
    let schema = bundle_schema();
    for key in [
        "agents",
        "recipient_lists",
        "implicit_tasks",
        "when_absent",
        "max_age",
        "ignore",
        "derive",
    ] {
        assert!(schema.contains(&format!("\"{key}\"")), "{key}");
    }
    assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
}

/// A system with a result and arguments of each kind, and a rule with the given keys for its one operation.
fn about_origins(keys: &str) -> String {
    let base = "
catalog:
  shop:
    kind: http
    operations:
      buy:
        input:
          type: object
          properties:
            id: {type: string}
            ids: {type: array, items: {anyOf: [{type: integer}, {type: 'null'}]}}
            amount: {type: number}
            currency: {type: string}
            flag: {type: boolean}
            meta: {type: object}
            page: {type: string}
resources: {orders: {}, items: {spelling: fold}}
";
    let rule = format!("classify: [{{match: shop.buy, effects: [write], {keys}}}]");
    match read(&[("base.yaml", base), ("x.yaml", &rule)]) {
        Ok(model) => {
            format!("{:?}", model.operations.iter().map(|o| &o.origins).collect::<Vec<_>>())
        }
        Err(message) => message.replace("x.yaml:1:", ""),
    }
}

#[test]
fn each_fault_of_an_origin_has_its_message() {
    let mut wrong = Vec::new();
    for (keys, message) in [
        (
            "objects: {from: /idd, role: target, collection: orders}",
            "64: `/idd` names no argument of `shop.buy`: unknown argument `idd`; declared: id, ids, amount, currency, flag and 2 more. Did you mean `id`?",
        ),
        (
            "objects: {from: /meta, role: target, collection: orders}",
            "64: `/meta` of `shop.buy` is not declared as string or integer or number or boolean. Give the argument `type: string` in the catalog.",
        ),
        (
            "objects: {from: /amount, role: target, type: email}",
            "64: `/amount` of `shop.buy` is not declared as string. Give the argument `type: string` in the catalog.",
        ),
        (
            "objects: {from: /id, role: target, collection: order}",
            "95: unknown collection `order`; declared: orders (base.yaml:17), items (base.yaml:17). Did you mean `orders`?",
        ),
        (
            "objects: {from: /id, role: targt, collection: orders}",
            "75: unknown value `targt`; known: recipient, target, amount, command, credential. Did you mean `target`?",
        ),
        (
            "objects: {from: /id, role: target}",
            "57: an object with the role `target` has neither `collection` nor `type`. Say what its values are: `collection: …` for ids, or `type: email`, `url`, …",
        ),
        (
            "objects: {from: /id, role: target, collection: orders, type: url}",
            "109: `collection` and `type` stand side by side. Keep `collection` for ids of a system, or `type` for destinations.",
        ),
        (
            "objects: {from: /amount, role: amount, collection: orders}",
            "57: an object with the role `amount` has a `collection` or a `type`. Remove it, or correct the role.",
        ),
        (
            "objects: {from: /id, role: target, collection: orders, currency: /currency, scale: 100}",
            "113: `currency` stands in an object with the role `target`. Remove it: only an object with the role `amount` has `currency`.\n131: `scale` stands in an object with the role `target`. Remove it: only an object with the role `amount` has `scale`.",
        ),
        (
            "objects: {from: /amount, role: amount, scale: 60}",
            "94: `scale` is 60, which is no power of ten up to 1000000. Write `scale: 100` for an amount in hundredths.",
        ),
        (
            "objects: {from: /amount, role: amount, currency: /flag}",
            "97: `/flag` of `shop.buy` is not declared as string. Give the argument `type: string` in the catalog.",
        ),
        (
            "objects: [{from: [], role: command}, {from: [/id, /id], role: command}]",
            "58: `from` names 1 to 16 arguments, not 0. Write `from: [/argument]`.\n98: `/id` has the role `command` twice. Keep one of the two.",
        ),
        ("objects: {from: /id}", "57: `role` is missing. Add it."),
        (
            "creates: {id: id, collection: orders}",
            "62: `id` is no JSON pointer into a result of at most 16 members. Write `/member`, or `/items/*/member` for each element of a list.",
        ),
        ("creates: {id: /id}", "57: `collection` is missing. Add it."),
        (
            "introduces: {from: /items/*/id}",
            "60: `/items/*/id` has neither `collection` nor `type`. Say what its values are: `collection: …` for ids, or `type: email`, `url`, …",
        ),
        (
            "introduces: {from: /items/*/id, collection: orders, by: me}",
            "104: unknown value `me`; known: owner, anybody. Write one of the known values.",
        ),
        (
            "introduces: {from: /items/*/to, type: email, author: /from}",
            "101: `author: /from` is of another item than `/items/*/to`. Write a member of the same item: `/items/*/…`.",
        ),
        (
            "introduces: {from: /items/*/to, type: email, author: /others/*/from}",
            "101: `author: /others/*/from` is of another item than `/items/*/to`. Write a member of the same item: `/items/*/…`.",
        ),
        (
            "introduces: {from: /to, type: email, author: /to}",
            "93: `author` names the value itself. Write a member of the same item: `/…`.",
        ),
        (
            "introduces: {from: /to, type: email, author: /from, by: owner}",
            "104: `by` and `author` stand side by side. Keep `author` where the field has the rights of its author, or `by` where all values have one writer.",
        ),
        (
            "pairs: {id: /items/*/id, name: /title, collection: orders}",
            "79: `name: /title` is of another item than `/items/*/id`. Write a member of the same item: `/items/*/…`.",
        ),
        (
            "coerces: {from: /id, to: integer}",
            "64: `/id` of `shop.buy` is not declared as integer or number. Give the argument `type: integer` in the catalog.",
        ),
        (
            "coerces: {from: /id, to: text}",
            "73: unknown value `text`; known: integer, number, boolean, url, folder. Write one of the known values.",
        ),
        (
            "coerces: [{from: /id, to: url}, {from: /id, to: folder}]",
            "87: `/id` is coerced twice. Keep one of the two.",
        ),
    ] {
        let found = about_origins(keys);
        if found != message {
            wrong.push(format!("{keys}\n  expected {message}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let entry = "{from: /id, role: command}";
    let many = format!("objects: [{}]", vec![entry; 17].join(", "));
    assert!(
        about_origins(&many)
            .contains("more than 16 entries in `objects` of `shop.buy`. Remove some.")
    );
    let deep = format!("creates: {{id: {}, collection: orders}}", "/a".repeat(17));
    assert!(
        about_origins(&deep).contains("is no JSON pointer into a result of at most 16 members")
    );
    let reads = about_origins("creates: {id: /id, collection: orders}").replace("write", "read");
    assert!(reads.starts_with("[OriginRules"), "{reads}");
}

#[test]
fn origins_are_read_as_they_are_written() {
    use crate::model::*;
    let base = "
catalog:
  shop:
    kind: http
    operations:
      buy:
        effects: [write]
        objects:
          - {from: [/ids, /id], role: target, collection: items}
          - {from: /amount, role: amount, currency: /currency, scale: 100, when_absent: named}
          - {from: /page, role: target, type: url}
          - {from: /id, role: command}
        creates: {id: /id, collection: orders}
        introduces:
          - {from: /items/*/id, collection: items, by: owner}
          - {from: /items/*/organizer, type: email}
          - {from: /items/*/reply_to, type: email, author: /items/*/from}
        pairs: {id: /items/*/id, name: /items/*/title, collection: items, by: owner}
        coerces: [{from: /amount, to: number}, {from: /page, to: url}]
        input: {type: object, properties: {id: {type: string}, ids: {type: array, items: {type: integer}}, amount: {anyOf: [{type: number}, {type: 'null'}]}, currency: {type: string}, page: {type: [string, 'null']}}}
      list: {effects: [read], input: {type: object, properties: {kind: {type: string}}}}
resources: {orders: {}, items: {spelling: fold}}
classify:
  - match: shop.split
    effects: [read]
    introduces: {from: /a, collection: orders, by: owner}
    split: {on: /kind, cases: {a: {}, b: {introduces: [], effects: [write], creates: {id: /b, collection: orders}}}}
";
    let base = base.replace("      list: {effects: [read], ", "      split: {");
    let read = read(&[("base.yaml", &base)]);
    assert_eq!(None, read.as_ref().err());
    let model = read.unwrap_or_default();
    let rules = |id: &str| {
        let found = model.operations.iter().find(|operation| operation.id == id);
        found.map(|operation| operation.origins.clone()).unwrap_or_default()
    };
    let items = || ValueSpace::Collection { name: "items".to_owned(), spelling: Spelling::Fold };
    let Some((of_object, of_copy, from, title)) = (|| {
        let pointer = ResultPointer::parse;
        Some((
            pointer("/id")?,
            pointer("/b")?,
            pointer("/items/*/from")?,
            pointer("/items/*/title")?,
        ))
    })() else {
        return assert_eq!("", "a pointer was not read");
    };
    let object = |from: &[&str], role, space| {
        let from: Vec<String> = from.iter().map(|text| (*text).to_owned()).collect();
        ObjectRule {
            nouns: ObjectRule::nouns_of(&from, &space),
            from,
            role,
            space,
            currency: None,
            scale: 1,
            when_absent: Origin::Unknown,
        }
    };
    let bought = rules("shop.buy");
    assert_eq!(
        vec![
            object(&["/ids", "/id"], ValueRole::Target, items()),
            ObjectRule {
                currency: Some("/currency".to_owned()),
                scale: 100,
                when_absent: Origin::Named,
                ..object(&["/amount"], ValueRole::Amount, ValueSpace::Role(ValueRole::Amount))
            },
            object(
                &["/page"],
                ValueRole::Target,
                ValueSpace::Destination(DestinationKind::UrlHost)
            ),
            object(&["/id"], ValueRole::Command, ValueSpace::Role(ValueRole::Command)),
        ],
        bought.objects
    );
    let of_items = bought.introduces.iter().map(|rule| (rule.from.to_string(), rule.by.clone()));
    assert_eq!(
        vec![
            ("/items/*/id".to_owned(), IntroducedBy::Owner),
            ("/items/*/organizer".to_owned(), IntroducedBy::Anybody),
            ("/items/*/reply_to".to_owned(), IntroducedBy::Author(from)),
        ],
        of_items.collect::<Vec<_>>()
    );
    let made = |id: &ResultPointer| CreatesRule {
        id: id.clone(),
        collection: "orders".to_owned(),
        spelling: Spelling::Exact,
    };
    assert_eq!(vec![made(&of_object)], bought.creates);
    assert!(bought.pairs.iter().all(|pair| pair.by_owner && pair.name == title));
    assert_eq!(
        vec![("/amount", Coercion::Number), ("/page", Coercion::Url)],
        bought.coerces.iter().map(|rule| (rule.from.as_str(), rule.to)).collect::<Vec<_>>()
    );
    // A case has the keys of its rule, but for those that it says itself.
    assert_eq!(1, rules("shop.split.a").introduces.len());
    assert_eq!(
        (0, vec![made(&of_copy)]),
        (rules("shop.split.b").introduces.len(), rules("shop.split.b").creates)
    );
}

#[test]
fn an_analysis_is_read_from_all_files() -> Result<(), String> {
    let one = "analysis: {assertions: [{id: a, never: {label: pii, destination: external, without: approve}}]}";
    let two = "analysis: {assertions: [{id: b, never: {agent: any, operation: any, tier: critical, after: untrusted, destination: any, without: [person]}}], \
               suppressions: [{rule: 'assertion:a', subject: crm.mail, owner: sec, reason: known, until: 2027-01-31}, {finding: 00ff00ff00ff00ff, owner: sec, reason: known, until: 2027-01-31}]}";
    let model = read(&[("base.yaml", BASE), ("x.yaml", one), ("y.yaml", two)])?;
    let [a, b] = model.analysis.assertions.as_slice() else {
        return Err(format!("{:?}", model.analysis));
    };
    assert_eq!(a.never.label.as_deref(), Some("pii"));
    assert_eq!(a.never.destination, Some(DestinationPattern::Class("external".to_owned())));
    for (kind, lifts) in
        [("approve", true), ("approve:boss", true), ("two_person", true), ("confirm", false)]
    {
        assert_eq!(lifts, a.never.is_lifted_by(kind), "{kind}");
    }
    assert_eq!((b.never.agent.as_ref(), b.never.operation.as_ref()), (None, None));
    assert_eq!(b.never.destination, Some(DestinationPattern::Any));
    assert_eq!((b.never.tier, b.never.after.as_deref()), (Some(Tier::Critical), Some("untrusted")));
    assert!(b.never.is_lifted_by("confirm") && b.never.is_lifted_by("approve:boss"));
    assert!(!b.never.is_lifted_by("bound_token"));
    assert_eq!(
        model.analysis.suppressions.iter().map(|one| &one.of).collect::<Vec<_>>(),
        [
            &SuppressedFindings::Rule {
                rule: "assertion:a".to_owned(),
                subject: Some("crm.mail".to_owned())
            },
            &SuppressedFindings::Finding("00ff00ff00ff00ff".to_owned()),
        ]
    );
    Ok(())
}
