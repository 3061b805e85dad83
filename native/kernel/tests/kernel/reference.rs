//! Parts of the documentation that follow from the code. `make reference` writes them anew.
//!
//! `docs/reference/policies.md` is prose between tables; the tables stand between marks, and this test writes them. The
//! meanings of names that are no row of `context_keys!` stand here: a name without a meaning, or a meaning without a name,
//! fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use authz_kernel::decision::ProofMethod;
use authz_kernel::schema::{ANNOTATIONS, BUILT_IN_KINDS, Key, OWN_OPERATIONS, OWN_SYSTEM};

use crate::common::plan;

/// Entity types: name, identifier, meaning.
const ENTITIES: &[(&str, &str, &str)] = &[
    (
        "Agent",
        "SPIFFE id: `Agent::\"spiffe://corp.example/ns/support/sa/bot\"`",
        "a workload that calls; a principal",
    ),
    (
        "User",
        "issuer alias and `sub`: `User::\"corp/alice\"`",
        "a person on whose behalf an agent calls; a principal",
    ),
    (
        "Service",
        "issuer alias and `sub`: `Service::\"corp/billing\"`",
        "a service on whose behalf an agent calls; a principal",
    ),
    (
        "Role",
        "name in [`agents`](bundle/agents.md) or [`subjects`](bundle/subjects.md)",
        "group of principals",
    ),
    (
        "Resource",
        "collection and id: `Resource::\"customers/c-42\"`; the collection alone for operations without an id",
        "the object of the operation, where `classify` names a collection",
    ),
    ("Collection", "name in [`resources`](bundle/resources.md)", "group of resources"),
    (
        "System",
        "name in [`catalog`](bundle/catalog.md), or `authz`",
        "group of a system's resources; itself the resource of operations without a collection",
    ),
    (
        "Template",
        "name in [`templates`](bundle/templates.md), or `none`",
        "contract of a task; the resource of `task:TEMPLATE`",
    ),
    ("Label", "name in [`labels`](bundle/labels.md)", "mark on data"),
    (
        "DestinationClass",
        "name in [`destinations`](bundle/destinations.md), or `none`",
        "class of recipients",
    ),
    ("Sequence", "name in [`sequences`](bundle/sequences.md)", "rule over the order of calls"),
    ("Budget", "name in [`budgets`](bundle/budgets.md)", "counted limit"),
    (
        "Exception",
        "name in [`exceptions`](bundle/exceptions.md), or `breakglass`",
        "standing exception that a policy may accept; [break-glass](../concepts/exceptions.md#break-glass)",
    ),
    (
        "Effect",
        "one of the names below",
        "effect of an operation; policies use the action group `effect:…`",
    ),
    ("Origin", "one of the names below", "who chose a value"),
    (
        "Kind",
        "one of the [step-up kinds](#step-up-kinds)",
        "kind of evidence that lifts a `@stepup`",
    ),
    ("TaskKind", "one of the names below", "kind of the task in which a call is made"),
    ("SubjectProof", "one of the names below", "proof of the subject"),
    ("ProofMethod", "one of the names below", "kind of credential that proved the caller"),
];

/// Enumerations whose members Authz sets, with the meaning of each member.
const MEMBERS: &[(&str, &str, &str)] = &[
    ("Effect", "read", "reads data"),
    ("Effect", "write", "creates or changes data"),
    ("Effect", "delete", "deletes data"),
    ("Effect", "export", "sends data to a destination"),
    ("Effect", "execute", "runs code or a command"),
    ("Effect", "grant", "gives rights"),
    ("Origin", "named", "the user: the prompt, or the `names` of the template"),
    ("Origin", "known", "a trusted and fresh [recipient list](bundle/recipient_lists.md)"),
    ("Origin", "made", "the session: an earlier call made the object"),
    ("Origin", "introduced", "a [declared field](bundle/classify.md#results) of a result"),
    ("Origin", "claimed", "an agent, which relays the value as the user's"),
    ("Origin", "unknown", "anybody"),
    ("TaskKind", "none", "no task"),
    ("TaskKind", "root", "a task that a subject, a front end or an agent started"),
    ("TaskKind", "child", "a task that another task delegated"),
    (
        "TaskKind",
        "implicit",
        "the session of an agent [without tasks](../concepts/tasks.md#agents-without-tasks)",
    ),
    ("SubjectProof", "verified", "the subject's own token, or an enforcer that may speak for it"),
    ("SubjectProof", "asserted", "only the caller names the subject"),
    ("SubjectProof", "self", "no subject: the agent acts for itself"),
    ("ProofMethod", "jwt-svid", "a JWT-SVID"),
    ("ProofMethod", "x509-svid", "an X.509-SVID, by mutual TLS"),
    ("ProofMethod", "jwt", "a token of a configured issuer"),
    ("ProofMethod", "relayed", "evidence that an enforcer verified"),
    ("ProofMethod", "task-credential", "a [task credential](credentials.md)"),
    ("ProofMethod", "none", "no proof, for example a subject that is only asserted"),
];

/// Members of records and attributes of entities: type, member, meaning with its unit and its value where there is nothing.
const ATTRIBUTES: &[(&str, &str, &str)] = &[
    ("Agent", "trust_domain", "Trust domain of the SPIFFE id: `corp.example`."),
    ("Agent", "spiffe_id", "The whole SPIFFE id."),
    ("User", "issuer", "Alias of the issuer in the configuration."),
    ("User", "sub", "`sub` of the token."),
    ("Service", "issuer", "Alias of the issuer in the configuration."),
    ("Service", "sub", "`sub` of the token."),
    (
        "Resource",
        "labels",
        "Labels of the resource: of its collection, of patterns that match, and those that its writers carried.",
    ),
    ("Resource", "id", "Id within the collection; empty for the whole collection."),
    ("TaskFacts", "kind", "Kind of the task; `none` without a task."),
    ("TaskFacts", "template", "Template of the task; `none` without a task."),
    ("TaskFacts", "purpose", "`purpose` of the template; empty without a task."),
    ("TaskFacts", "depth", "Number of tasks above it: 0 is a root."),
    ("TaskFacts", "age", "Seconds since the task started; 0 without a task."),
    ("ChainFacts", "depth", "Number of principals of the chain; 2 for a subject and one agent."),
    ("ChainFacts", "agents", "All agents of the chain, also those that delegated to the caller."),
    ("ChainFacts", "subject", "True if the chain begins with a subject."),
    (
        "DestinationFacts",
        "class",
        "Class of the destination; `none` if the operation has no destination.",
    ),
    (
        "DestinationFacts",
        "trusted",
        "True if *every* destination was [named by the user](prompt.md), is in `names` of the template, or is in a trusted and fresh [recipient list](bundle/recipient_lists.md). It says that the recipient is intended or known, not that it may see the data.",
    ),
    (
        "DestinationFacts",
        "host",
        "Host of a URL, or domain of a mailbox, in lower case; empty otherwise.",
    ),
    ("DestinationFacts", "present", "False if the operation has no destination."),
    (
        "OriginFacts",
        "recipient",
        "Origins of the values that receive the data, over all destinations of the call.",
    ),
    (
        "OriginFacts",
        "target",
        "Origins of the values that are changed, deleted, bought or entered.",
    ),
    ("OriginFacts", "amount", "Origins of the amounts."),
    ("OriginFacts", "command", "Origins of the commands that are run."),
    ("OriginFacts", "credential", "Origins of the credentials."),
    ("LiteralFacts", "unknown", "Number of different unknown addresses, 0 to 256."),
    ("ProofFacts", "method", "Kind of credential that proved the caller."),
    (
        "ProofFacts",
        "bound",
        "True if the caller proved the key of its credential, by mutual TLS or DPoP.",
    ),
    (
        "ProofFacts",
        "age",
        "Seconds since the credential was issued; 2^53 if the credential does not say.",
    ),
    ("ProofFacts", "acr", "`acr` of the subject's token; empty without one."),
    (
        "SessionFacts",
        "labels",
        "Labels that the call carries: those of the session, of the agent's memory where data goes out, and those that the caller reported.",
    ),
    ("SessionFacts", "sources", "Number of collections and systems from which labelled data came."),
    ("SessionFacts", "calls", "Number of permitted calls of the session."),
];

/// Operations of Authz itself.
const OPERATIONS: &[(&str, &str)] = &[
    ("probe", "try out a call without making it: a `Check` in mode PROBE"),
    ("explain", "see how a decision was made"),
    ("status", "see the status of a node"),
    ("reload", "load the bundle anew"),
    ("revoke", "revoke, and lift revocations"),
    ("task.start_for", "start a task for a subject that the caller only asserts"),
    ("task.read", "read another caller's task"),
    ("task.end", "end another caller's task"),
    (
        "approve",
        "approve or reject another person's call that stepped up. `context.input` has the texts `operation`, `system`, `queue` and `tier` of the call",
    ),
];

/// Step-up kinds: name, what lifts it, whether this version can lift it.
const KINDS: &[(&str, &str)] = &[
    ("confirm", "the user of the call confirms it"),
    ("approve", "another person approves the call"),
    ("two_person", "two other people approve the call"),
    (
        "fresh_credential",
        "the caller's credential is at most as old as [`tiers`](bundle/tiers.md) allows for the tier of the call",
    ),
    ("bound_token", "the caller proves the key of its credential, by mutual TLS or DPoP"),
    (
        "confidence",
        "confidence in the caller reaches that of [`tiers`](bundle/tiers.md). A [guard](configuration/guards.md) states it",
    ),
];

/// Annotations: name, place, form, meaning, example.
const NOTES: &[(&str, &str, &str, &str)] = &[
    (
        "id",
        "every policy; required",
        "letters, digits and `-_.:/`, at most 128 characters; each id once in a bundle. Name of the policy in decisions, tests and the audit",
        "@id(\"small-refunds-only\")",
    ),
    (
        "reason",
        "every policy",
        "one line of at most 512 characters, for people: the enforcer, the audit and `authz why` show it; the agent sees it where [`show_reason`](bundle/bundle-yaml.md) lists the system",
        "@reason(\"a refund above 100 is not for this desk\")",
    ),
    (
        "stepup",
        "`forbid`",
        "a [step-up kind](#step-up-kinds). The policy holds the call instead of denying it. Needs `unless { context.satisfied.contains(Kind::\"…\") }` with the same kind",
        "@stepup(\"approve\")",
    ),
    (
        "obligation",
        "`permit`",
        "list of at most 16 [obligations](obligations.md), separated by commas: what is done with a permit of this policy. Authz denies the call if an obligation is due to the enforcer, and the enforcer does not declare that it can carry it out",
        "@obligation(\"redact:card\")",
    ),
    (
        "control",
        "every policy",
        "list of at most 16 ids of your catalogue of controls, separated by commas; each begins with a capital letter. Decisions and the audit carry them, so that a report can count what each control stopped. Authz gives them no meaning",
        "@control(\"ASI01,AML.T0086\")",
    ),
    (
        "covers",
        "`forbid` with `@stepup`",
        "list of at most 16 operations of one system, separated by commas, all in the scope of the policy. A person who approves a call may [endorse its values](../concepts/approvals.md#endorsed-values): they then count as `named` in `context.origins` of these operations, in the same task. After semicolons: `uses`, the number of calls for each value, 1 to 100, default 20, and `within`, the longest time, at most and by default `1h`. Needs a step-up kind that people answer, and a condition that reads `context.origins`",
        "@covers(\"mail.send, mail.reply; uses=5; within=30m\")",
    ),
    (
        "mode",
        "every policy",
        "`observe`: Authz evaluates the policy, and tells which answers it would have changed, but [changes no answer](bundle/mode.md#one-policy). After semicolons: `owner` and `until`, as in `mode` of the bundle, whose `owner` and `until` are the defaults",
        "@mode(\"observe; owner=sec@corp.example; until=2027-01-31\")",
    ),
];

/// A declaration of a schema: the names of its members with their types.
type Members = Vec<(String, String)>;

/// The entity and record types of a Cedar schema in Cedar's own syntax, one declaration a line.
struct Declarations {
    /// Members of entities and records.
    members: BTreeMap<String, Members>,
    /// Names of enumerated entity types, and their values.
    enumerations: BTreeMap<String, BTreeSet<String>>,
    /// Groups of each entity type.
    parents: BTreeMap<String, String>,
}

fn declarations(schema: &str) -> Declarations {
    let mut read = Declarations {
        members: BTreeMap::new(),
        enumerations: BTreeMap::new(),
        parents: BTreeMap::new(),
    };
    for line in schema.lines() {
        let mut words = line.split(' ');
        let (Some("entity" | "type"), Some(name)) = (words.next(), words.next()) else { continue };
        let name = name.to_owned();
        if let Some((_, values)) = line.split_once(" enum [") {
            let values = values.trim_end_matches("];").split(", ");
            let values = values.map(|value| value.trim_matches('"').to_owned());
            read.enumerations.insert(name, values.collect());
            continue;
        }
        if let Some((_, rest)) = line.split_once(" in [") {
            let parents = rest.split_once(']').unwrap().0;
            read.parents.insert(name.clone(), parents.to_owned());
        }
        let members = line.split_once('{').unwrap().1.split_once('}').unwrap().0;
        let members = members.split(',').map(|member| member.split_once(':').unwrap());
        let members = members.map(|(name, kind)| (name.trim().to_owned(), kind.trim().to_owned()));
        read.members.insert(name, members.collect());
    }
    read
}

fn row(text: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn header(cells: &[&str]) -> String {
    let mut text = String::new();
    row(&mut text, cells);
    text.push_str(&"|---".repeat(cells.len()));
    text.push_str("|\n");
    text
}

/// Meaning of a member; every member has one.
fn meaning(kind: &str, member: &str) -> &'static str {
    let found = ATTRIBUTES.iter().find(|(of, name, _)| (*of, *name) == (kind, member));
    found.unwrap_or_else(|| panic!("`ATTRIBUTES` has no meaning of `{kind}.{member}`; add a row")).2
}

fn entities(declared: &Declarations) -> String {
    let mut text = header(&["entity type", "identifier", "stands for", "is in"]);
    for (name, identifier, meaning) in ENTITIES {
        let groups = declared.parents.get(*name).map(|groups| format!("`{groups}`"));
        row(&mut text, &[&format!("`{name}`"), identifier, meaning, &groups.unwrap_or_default()]);
    }
    text.push_str("\nAttributes:\n\n");
    text.push_str(&header(&["attribute", "Cedar type", "meaning"]));
    for (name, ..) in ENTITIES {
        for (member, kind) in declared.members.get(*name).into_iter().flatten() {
            let spelled = match *name {
                "Resource" => format!("`resource.{member}`"),
                other => format!("`principal.{member}` of `{other}`"),
            };
            row(&mut text, &[&spelled, &format!("`{kind}`"), meaning(name, member)]);
        }
    }
    text.push_str("\nNames that Authz sets:\n\n");
    text.push_str(&header(&["name", "meaning"]));
    for (kind, member, meaning) in MEMBERS {
        row(&mut text, &[&format!("`{kind}::\"{member}\"`"), meaning]);
    }
    text
}

fn operations() -> String {
    let mut text = header(&["action", "permits to"]);
    for (name, meaning) in OPERATIONS {
        row(&mut text, &[&format!("`Action::\"{OWN_SYSTEM}.{name}\"`"), meaning]);
    }
    text
}

fn kinds() -> String {
    let mut text = header(&["kind", "the hold is lifted if"]);
    for (name, meaning) in KINDS {
        row(&mut text, &[&format!("`{name}`"), meaning]);
    }
    row(&mut text, &["`approve:ROLE`", "a person with this role approves the call"]);
    row(
        &mut text,
        &[
            "`reauth:ACR`",
            "`acr` of the subject's token is ACR, after the subject logged in anew, for example `reauth:urn:corp:mfa`",
        ],
    );
    text
}

fn annotations() -> String {
    let mut text = header(&["annotation", "on", "value and meaning", "example"]);
    for (name, place, meaning, example) in NOTES {
        let example = if example.is_empty() { String::new() } else { format!("`{example}`") };
        row(&mut text, &[&format!("`@{name}`"), place, meaning, &example]);
    }
    text
}

/// Each key of the context, and below it each member of its record.
fn context(declared: &Declarations) -> String {
    let mut text = header(&["key", "Cedar type", "meaning"]);
    for key in Key::ALL {
        let name = key.as_str();
        let members = declared.members.get(key.cedar_type());
        let kind = match (key, members) {
            (Key::Input, _) | (_, Some(_)) => "record",
            (_, None) => key.cedar_type(),
        };
        row(&mut text, &[&format!("`context.{name}`"), &format!("`{kind}`"), key.meaning()]);
        for (member, kind) in members.into_iter().flatten() {
            let spelled = format!("`context.{name}.{member}`");
            row(&mut text, &[&spelled, &format!("`{kind}`"), meaning(key.cedar_type(), member)]);
        }
    }
    text
}

/// Replaces the text between `<!-- generated: NAME -->` and `<!-- /generated -->` of each part.
fn with_parts(page: &str, parts: &BTreeMap<&str, String>) -> String {
    let mut written = String::with_capacity(page.len());
    let mut rest = page;
    let mut names = BTreeSet::new();
    while let Some((before, after)) = rest.split_once("<!-- generated: ") {
        let (name, after) = after.split_once(" -->").unwrap();
        let (_, after) = after.split_once("<!-- /generated -->").unwrap();
        let part = parts.get(name).unwrap_or_else(|| panic!("no part is called `{name}`"));
        let _ =
            write!(written, "{before}<!-- generated: {name} -->\n\n{part}\n<!-- /generated -->");
        names.insert(name);
        rest = after;
    }
    written.push_str(rest);
    assert_eq!(parts.keys().copied().collect::<BTreeSet<_>>(), names, "parts without a place");
    written
}

#[test]
fn the_page_of_policies_is_that_of_the_code() {
    let declared = declarations(&plan("").cedar_schema());
    let parts = BTreeMap::from([
        ("entities", entities(&declared)),
        ("operations", operations()),
        ("annotations", annotations()),
        ("kinds", kinds()),
        ("context", context(&declared)),
    ]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("docs/reference/policies.md");
    let page = fs::read_to_string(&path).unwrap();
    let expected = with_parts(&page, &parts);
    if env::var_os("AUTHZ_WRITE_REFERENCE").is_some() {
        fs::write(&path, &expected).unwrap();
        return;
    }
    assert_eq!(expected, page, "run `make reference` and commit the result");
}

/// The tables above are complete, and describe nothing that is not there.
#[test]
fn every_name_has_a_meaning() {
    let declared = declarations(&plan("").cedar_schema());
    let names =
        |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let entities: BTreeSet<String> = declared
        .members
        .keys()
        .filter(|name| !name.ends_with("Facts"))
        .chain(declared.enumerations.keys())
        .cloned()
        .collect();
    assert_eq!(entities, ENTITIES.iter().map(|(name, ..)| (*name).to_owned()).collect());
    let attributes: BTreeSet<(&str, &str)> = declared
        .members
        .iter()
        .flat_map(|(kind, members)| members.iter().map(|(name, _)| (kind.as_str(), name.as_str())))
        .collect();
    assert_eq!(attributes, ATTRIBUTES.iter().map(|(kind, name, _)| (*kind, *name)).collect());
    for kind in ["Effect", "TaskKind", "SubjectProof", "ProofMethod"] {
        let described = MEMBERS.iter().filter(|(of, ..)| *of == kind);
        let described = described.map(|(_, name, _)| (*name).to_owned()).collect();
        assert_eq!(declared.enumerations[kind], described, "{kind}");
    }
    assert_eq!(names(&ProofMethod::NAMES), declared.enumerations["ProofMethod"]);
    assert_eq!(
        names(&OWN_OPERATIONS),
        OPERATIONS.iter().map(|(name, _)| (*name).to_owned()).collect()
    );
    assert_eq!(names(&BUILT_IN_KINDS), KINDS.iter().map(|(name, _)| (*name).to_owned()).collect());
    assert_eq!(names(&ANNOTATIONS), NOTES.iter().map(|(name, ..)| (*name).to_owned()).collect());
}
