//! A small bundle as a typed model, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use authz_kernel::bundle::Bundle;
use authz_kernel::decision::{
    CallerProof, Claim, Decision, Facts, Principal, ProofMethod, Request, Subject, Time,
};
use authz_kernel::diagnostic::Diagnostics;
use authz_kernel::history::{HistoryView, KEPT_MS, SessionHistory};
use authz_kernel::mcp::ServerTask;
use authz_kernel::model::{
    AgentMemory, ClaimTest, Collection, Declared, DestinationClass, DestinationKind,
    DestinationRule, Effect, LabelKind, Location, Model, Operation, OriginRules, PolicyFile,
    Reports, ResourcePattern, ResourceRule, RoleMembers, Spelling, SubjectMatch, System,
    SystemKind, Tier, TierApproval, TierRequirements, ValueRole,
};
use authz_kernel::plan::Plan;
use authz_kernel::task::{TaskView, WordRecords, taskless};
use serde_json::json;

/// The time of every test: 2026-11-25T00:00:00Z.
pub(crate) const NOW: Time = Time(1_795_564_800_000);
/// What a session did in which nothing has happened yet.
pub(crate) static NOTHING: LazyLock<SessionHistory> = LazyLock::new(SessionHistory::new);
pub(crate) const BOT: &str = "spiffe://a.example/ns/support/sa/bot";

pub(crate) fn at(line: u32) -> Location {
    Location { file: "support.yaml".to_owned(), line, column: 3 }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn operation(
    id: &str,
    effects: &[Effect],
    tier: Tier,
    input: serde_json::Value,
) -> Operation {
    let (system, name) = id.split_once('.').unwrap();
    Operation {
        id: id.to_owned(),
        system: system.to_owned(),
        name: name.to_owned(),
        effects: effects.iter().copied().collect(),
        tier,
        reviewed: true,
        drifted: false,
        yields: (BTreeSet::new(), BTreeSet::new()),
        resource: None,
        destination: None,
        origins: OriginRules::default(),
        input: input.into(),
        abortable: false,
        at: at(40),
    }
}

/// A support desk: a CRM and mail; staff and a bot.
pub(crate) fn model(policies: &str) -> Model {
    let mut model =
        Model { name: "support".to_owned(), revision: "1".to_owned(), ..Model::default() };
    model.tasks.optional = true;
    model.policies =
        vec![PolicyFile { file: "policies/support.cedar".to_owned(), text: policies.into() }];
    for system in ["crm", "mail"] {
        model.systems.insert(
            system.to_owned(),
            System {
                kind: SystemKind::Http,
                origin: String::new(),
                headers: Vec::new(),
                reports: Reports::Never,
                at: at(1),
            },
        );
    }
    for (label, kind) in [("pii", LabelKind::Confidentiality), ("vip", LabelKind::Confidentiality)]
    {
        model.labels.insert(label.to_owned(), Declared { value: kind, at: at(5) });
    }
    model.collections.insert(
        "customers".to_owned(),
        Collection {
            labels: set(&["pii"]),
            keeps_ms: Some(KEPT_MS),
            keeps_at: None,
            spelling: Spelling::Exact,
            at: at(7),
        },
    );
    model.resource_patterns = vec![ResourcePattern {
        collection: "customers".to_owned(),
        pattern: "gold/*".to_owned(),
        labels: set(&["vip"]),
    }];
    for (class, patterns, clearance) in
        [("internal", ["*@corp.example"], &["pii", "vip"][..]), ("external", ["*"], &[])]
    {
        model.destinations.insert(
            class.to_owned(),
            DestinationClass {
                patterns: patterns.iter().map(|p| (*p).to_owned()).collect(),
                recipient_lists: BTreeSet::new(),
                clearance: set(clearance),
                at: at(9),
            },
        );
    }
    model.roles.insert(
        "staff".to_owned(),
        RoleMembers {
            memory: AgentMemory::default(),
            harness: false,
            is_implicit: false,
            subject: None,
            has_controls: false,
            agents: Vec::new(),
            subjects: vec![SubjectMatch {
                issuer: "corp".to_owned(),
                test: ClaimTest::Contains("groups".to_owned(), "employees".to_owned()),
                at: at(11),
            }],
            at: at(11),
        },
    );
    model.roles.insert(
        "support-agent".to_owned(),
        RoleMembers {
            memory: AgentMemory::default(),
            harness: false,
            is_implicit: false,
            subject: None,
            has_controls: false,
            agents: vec![Declared {
                value: "spiffe://a.example/ns/support/sa/*".to_owned(),
                at: at(12),
            }],
            subjects: Vec::new(),
            at: at(12),
        },
    );
    model.tiers = [
        TierRequirements::default(),
        TierRequirements::default(),
        TierRequirements { bound: true, ..TierRequirements::default() },
        TierRequirements {
            bound: true,
            approval: TierApproval::Approve,
            ..TierRequirements::default()
        },
    ];
    let rule = |id: Option<&str>| {
        Some(ResourceRule {
            collection: "customers".to_owned(),
            id: id.map(str::to_owned),
            spelling: Spelling::Exact,
        })
    };
    let get = Operation {
        resource: rule(Some("/id")),
        ..operation(
            "crm.get",
            &[Effect::Read],
            Tier::Low,
            json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}),
        )
    };
    let search = Operation {
        resource: rule(None),
        ..operation(
            "crm.search",
            &[Effect::Read],
            Tier::Low,
            json!({"type": "object", "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}}),
        )
    };
    let refund = Operation {
        resource: rule(Some("/id")),
        ..operation(
            "crm.refund",
            &[Effect::Write],
            Tier::Standard,
            json!({"type": "object", "required": ["id", "amount"], "properties": {
                "id": {"type": "string"}, "amount": {"type": "integer"}, "price": {"type": "number"},
                "note": {"type": "string", "maxLength": 8}, "extra": {"type": "object"},
                "odd name": {"type": "boolean"}
            }}),
        )
    };
    let delete = Operation {
        resource: rule(Some("/id")),
        ..operation(
            "crm.delete",
            &[Effect::Delete],
            Tier::High,
            json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}),
        )
    };
    let send = Operation {
        destination: Some(DestinationRule {
            from: vec!["/to".to_owned(), "/cc".to_owned()],
            kind: DestinationKind::Email,
            role: ValueRole::Recipient,
            when_absent: "external".to_owned(),
        }),
        ..operation(
            "mail.send",
            &[Effect::Export],
            Tier::Standard,
            json!({"type": "object", "properties": {
                "to": {"type": "array", "items": {"type": "string"}}, "cc": {"type": "string"},
                "body": {"type": "string"}
            }}),
        )
    };
    let status = operation(
        "mail.status",
        &[Effect::Read],
        Tier::Low,
        json!({"type": "object", "properties": {}}),
    );
    let drop = Operation {
        reviewed: false,
        ..operation("mail.drop", &[], Tier::High, json!({"type": "object", "properties": {}}))
    };
    model.operations = vec![delete, get, refund, search, drop, send, status];
    model
}

pub(crate) const PERMIT_ALL: &str = "@id(\"all\") permit(principal, action, resource);\n";

/// Compiles a model that was made by hand.
pub(crate) fn compile(model: Model, previous: Option<&Plan>) -> Result<Plan, Diagnostics> {
    Plan::compile(Bundle::of(model)?, previous)
}

/// The plan of the support desk.
pub(crate) fn plan(policies: &str) -> Plan {
    compile(model(policies), None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// What is wrong with policies, one line each.
pub(crate) fn refusals(policies: &str) -> Vec<String> {
    match compile(model(policies), None) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

pub(crate) fn bot() -> Principal {
    Principal::Agent { spiffe_id: BOT.to_owned(), trust_domain: "a.example".to_owned() }
}

pub(crate) fn alice() -> Principal {
    let groups = Claim::Texts(vec!["employees".to_owned()]);
    Principal::User(Arc::new(Subject {
        issuer: "corp".to_owned(),
        sub: "alice".to_owned(),
        claims: BTreeMap::from([("groups".to_owned(), groups)]),
        narrowed: Vec::new(),
    }))
}

pub(crate) fn facts(chain: &[Principal]) -> Facts<'_> {
    Facts {
        enforcer: "envoy",
        chain,
        proof: CallerProof {
            method: ProofMethod::JwtSvid,
            bound: false,
            age: Some(60),
            acr: "",
            satisfied: &[],
        },
        confidence: 0,
        task: None,
        subject_proof: None,
        history: Some(HistoryView::new(&NOTHING)),
        words: WordRecords::default(),
        literal_key: None,
        value_key: None,
        endorsed: &[],
        recipient_lists: None,
        granted: None,
        breakglass: None,
    }
}

pub(crate) fn request<'a>(operation: &'a str, arguments: &'a str) -> Request<'a> {
    Request {
        operation,
        arguments: arguments.as_bytes().into(),
        resource: None,
        destinations: &[],
        supported_obligations: &[],
        labels: &[],
        server_task: ServerTask::None,
    }
}

/// Asks as alice's bot.
pub(crate) fn ask(plan: &Plan, operation: &str, arguments: &str) -> Decision {
    let chain = [alice(), bot()];
    let own = taskless(&chain, "").unwrap();
    let task = Some(TaskView { task: &own, ancestors: &[] });
    let history = Some(HistoryView { agent: Some(&NOTHING), ..HistoryView::new(&NOTHING) });
    let facts = Facts { task, history, ..facts(&chain) };
    *authz_kernel::decide::decide_traced(plan, &facts, &request(operation, arguments), NOW)
}
