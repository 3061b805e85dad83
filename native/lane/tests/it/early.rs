//! `mode: observe` and requests that stop before they are judged: a malformed request is never better off than a clean one.

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::{Surface, Transport, World};
use proptest::prelude::*;
use prost::Message;
use serde_json::json;

use crate::support::*;
use crate::tasks::{agent, delegate, delegating, end, start};

const OBSERVE: &str = "mode: {default: observe, owner: sec, until: 2999-01-01}";
const PLANNER: &str = "spiffe://a.example/ns/support/sa/planner";
/// A task that no node has.
const NOWHERE: &str = "0190a0a0-0000-7000-8000-000000000000";

const FILES: [(&str, &str); 3] = [
    ("bundle.yaml", "{name: early, tasks: required}"),
    (
        "facts.yaml",
        r#"
catalog:
  hr:
    kind: http
    origin: https://hr.example
    operations:
      look: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      send: {input: {type: object, properties: {to: {type: string}}, required: [to]}}
  notes:
    kind: http
    operations:
      read: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
labels: {pii: {kind: confidentiality}}
destinations:
  internal: {match: "*@corp.example", clearance: [pii]}
  external: {match: "*", clearance: [], tier: critical}
classify:
  - {match: hr.look, effects: [read], tier: low}
  - {match: hr.send, effects: [export], tier: standard, destination: {from: /to, type: email}}
  - {match: notes.read, effects: [read], tier: high}
agents: {bot: ["spiffe://a.example/ns/support/sa/*"]}
subjects: {staff: {issuer: corp, claim: groups, contains: employees}}
templates:
  work:
    purpose: work
    deadline: 1h
    max_depth: 1
    tier_cap: critical
    starters: [bot]
    scope: [{operation: hr.look}, {operation: hr.send}, {operation: notes.read}]
routes:
  - {host: hr.example, method: GET, path: "/people/{id}", operation: hr.look, arguments: {id: {path: id}}}
  - {host: hr.example, method: POST, path: /mail, operation: hr.send, arguments: {to: {json: /to}}}
  - {host: notes.example, method: GET, path: "/notes/{id}", operation: notes.read, arguments: {id: {path: id}}}
"#,
    ),
    (
        "policies/all.cedar",
        r#"
@id("start") permit(principal, action == Action::"task:work", resource);
@id("give") permit(principal, action in Action::"authz.task.give", resource);
"#,
    ),
];

fn world_of(mode: &str) -> World {
    let listeners = json!([
        {"name": "dev", "insecure_dev": true},
        {"name": "notes", "enforcer": {"name": "notes-server", "asks": ["system:notes"]}},
        {"name": "hr", "enforcer": {"name": "hr-server", "asks": ["system:hr"]}},
        {"name": "admin", "admin": true},
    ]);
    let files: Vec<(&str, &str)> = FILES.into_iter().chain([("mode.yaml", mode)]).collect();
    World { plan: plan(&files), listeners: listeners_of(&listeners), ..world() }
}

fn served_by(mode: &str) -> Served {
    let served = unloaded(&json!({}));
    served.engine.load(world_of(mode)).unwrap();
    served
}

fn task_of(served: &Served, who: &str) -> wire::Task {
    let request = wire::StartRequest {
        evidence: vec![agent(who), evidence(wire::EvidenceRole::Subject, alice())],
        template: "work".to_owned(),
        ..wire::StartRequest::default()
    };
    start(served, &request).unwrap()
}

fn revoke(served: &Served, target: Target) {
    let request = wire::AdminRevokeRequest {
        target: Some(target),
        reason: "x".to_owned(),
        ..Default::default()
    };
    let by = Transport::by("admin");
    served.engine.call(Surface::Revoke, &request.encode_to_vec(), &by).unwrap();
}

/// A call on some surface.
#[derive(Clone, Debug)]
enum Call {
    Own(Box<wire::CheckRequest>),
    Proxy(Box<ext::CheckRequest>),
}

/// Whether it is let through, and what it is refused for.
fn ask(served: &Served, listener: &str, asked: &Call) -> (bool, String) {
    let by = Transport::by(listener);
    match asked {
        Call::Own(request) => {
            let decision = own(&served.engine.check(&request.encode_to_vec(), &by));
            let observed =
                decision.observed.as_ref().map_or(decision.reason_code, |o| o.reason_code);
            let code = wire::ReasonCode::try_from(observed).unwrap().as_str_name();
            (decision.outcome == wire::Outcome::Permit as i32, code.replace("REASON_CODE_", ""))
        }
        Call::Proxy(request) => {
            let bytes = served.engine.envoy_check(&request.encode_to_vec(), &by);
            let answer = ext::CheckResponse::decode(bytes.as_slice()).unwrap();
            let fields = &answer.dynamic_metadata.as_ref().unwrap().fields;
            let text = |name: &str| match fields.get(name).and_then(|value| value.kind.clone()) {
                Some(prost_types::value::Kind::StringValue(text)) => text,
                _ => String::new(),
            };
            let observed = text("observed_reason_code");
            let code = if observed.is_empty() { text("reason_code") } else { observed };
            (answer.status.is_none_or(|status| status.code == 0), code)
        }
    }
}

/// Who calls, and in which task.
#[derive(Clone, Debug, Default)]
struct Who {
    agent: Option<String>,
    subject: Option<String>,
    task: String,
}

impl Who {
    fn bot(task: &str) -> Self {
        Self { agent: Some(svid()), subject: Some(alice()), task: task.to_owned() }
    }

    fn asks(&self, operation: &str, arguments: &str) -> Call {
        let agent = self.agent.clone().map(|token| evidence(wire::EvidenceRole::Agent, token));
        let subject =
            self.subject.clone().map(|token| evidence(wire::EvidenceRole::Subject, token));
        Call::Own(Box::new(wire::CheckRequest {
            evidence: agent.into_iter().chain(subject).collect(),
            operation: operation.to_owned(),
            arguments_json: arguments.as_bytes().to_vec(),
            task: self.task.clone(),
            ..wire::CheckRequest::default()
        }))
    }

    fn sends(&self, method: &str, host: &str, path: &str, body: &str, cut: bool) -> Call {
        let bearer = self.agent.as_ref().map(|token| format!("Bearer {token}"));
        let of = |value: &Option<String>| value.clone().unwrap_or_else(|| "\0".to_owned());
        let (bearer, subject) = (of(&bearer), of(&self.subject));
        let task = if self.task.is_empty() { "\0" } else { &self.task };
        let mut headers = vec![
            (":authority", host),
            ("authorization", &bearer),
            ("authz-subject", &subject),
            ("authz-task", task),
        ];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        if cut {
            headers.push(("x-envoy-auth-partial-body", "true"));
        }
        Call::Proxy(Box::new(edit(http(method, path, &headers), |http| {
            host.clone_into(&mut http.host);
            body.clone_into(&mut http.body);
        })))
    }

    /// The same call, clean and with each defect that might be only noted.
    fn looks(&self) -> Vec<(&'static str, Call)> {
        vec![
            ("clean", self.asks("hr.look", r#"{"id":"1"}"#)),
            ("undeclared argument", self.asks("hr.look", r#"{"id":"1","x":1}"#)),
            ("missing argument", self.asks("hr.look", "{}")),
            ("argument of another type", self.asks("hr.look", r#"{"id":1}"#)),
            ("unknown operation", self.asks("hr.lookX", r#"{"id":"1"}"#)),
            ("member twice", self.asks("hr.look", r#"{"id":"1","id":"2"}"#)),
            ("clean", self.sends("GET", "hr.example", "/people/1", "", false)),
            ("extra query", self.sends("GET", "hr.example", "/people/1?x=1", "", false)),
            ("slash at the end", self.sends("GET", "hr.example", "/people/1/", "", false)),
            ("another case", self.sends("GET", "hr.example", "/People/1", "", false)),
            ("another method", self.sends("PUT", "hr.example", "/people/1", "", false)),
            ("port", self.sends("GET", "hr.example:8443", "/People/1", "", false)),
            ("host in capitals", self.sends("GET", "HR.example", "/People/1", "", false)),
            ("dot after the host", self.sends("GET", "hr.example.", "/people/1", "", false)),
            ("no host", self.sends("GET", "", "/people/1", "", false)),
            ("host that is none", self.sends("GET", "a@hr.example", "/people/1", "", false)),
            ("cut body, no route", self.sends("POST", "hr.example", "/People", r#"{"#, true)),
            ("cut body", self.sends("GET", "hr.example", "/people/1", r#"{"#, true)),
            ("body", self.sends("GET", "hr.example", "/people/1", r#"{"a":1}"#, false)),
            ("dot segment", self.sends("GET", "hr.example", "/x/../people/1", "", false)),
        ]
    }
}

/// Nothing hides that something was revoked, has ended, or is another's. Naive way: the defect is found first, and is only
/// noted.
#[test]
fn no_defect_hides_what_is_never_softened() {
    let served = served_by(OBSERVE);
    let task = task_of(&served, BOT).id;
    let passed = Who::bot(&task).looks().into_iter().filter(|(_, one)| ask(&served, "dev", one).0);
    let passed: Vec<&str> = passed.map(|(what, _)| what).collect();
    assert!(passed.len() >= 10 && passed.contains(&"extra query"), "it observes: {passed:?}");
    let holds = |what: &str, served: &Served, who: &Who| {
        for (defect, one) in who.looks() {
            let (is_passed, code) = ask(served, "dev", &one);
            assert!(!is_passed, "{what}, {defect}: {code}");
        }
    };
    let ended = task_of(&served, BOT).id;
    end(&served, &ended, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    holds("ended task", &served, &Who::bot(&ended));
    holds("another agent's task", &served, &Who::bot(&task_of(&served, PLANNER).id));
    holds("unknown task", &served, &Who::bot(NOWHERE));
    let expired = svid_with(BOT, "authz", now() - 60);
    holds("expired", &served, &Who { agent: Some(expired), ..Who::bot(&task) });
    holds("forged", &served, &Who { agent: Some(forged()), ..Who::bot(&task) });
    let eve = Some(user("eve", json!(["employees"])));
    holds("another subject", &served, &Who { subject: eve, ..Who::bot(&task) });
    let revoked = task_of(&served, BOT).id;
    revoke(&served, Target::Task(revoked.clone()));
    holds("revoked task", &served, &Who::bot(&revoked));
    for target in [
        Target::Operation("hr.look".to_owned()),
        Target::System("hr".to_owned()),
        Target::Agent(BOT.to_owned()),
        Target::Issuer("corp".to_owned()),
        Target::Key("d1".to_owned()),
    ] {
        let served = served_by(OBSERVE);
        let task = task_of(&served, BOT).id;
        revoke(&served, target.clone());
        for task in ["", &task] {
            holds(&format!("{target:?} {task}"), &served, &Who::bot(task));
        }
        if matches!(target, Target::Operation(_) | Target::System(_)) {
            holds(&format!("{target:?}, nobody"), &served, &Who::default());
        }
        let elsewhere = Who::bot(&task).sends("GET", "notes.example", "/nothing", "", false);
        let expected = matches!(target, Target::Operation(_) | Target::System(_));
        assert_eq!(expected, ask(&served, "dev", &elsewhere).0, "{target:?}");
    }
}

/// A limited enforcer asks only where everything that the request could be for is its own.
#[test]
fn a_limited_enforcer_is_refused_where_the_system_is_not_certain() {
    let served = served_by(OBSERVE);
    let who = Who::bot(&task_of(&served, BOT).id);
    for who in [&who, &Who::default()] {
        for (defect, one) in who.looks() {
            let (is_passed, code) = ask(&served, "notes", &one);
            assert!(!is_passed, "{defect}: {code}");
        }
    }
    let missed = |host: &str| who.sends("GET", host, "/nothing", "", false);
    for (listener, one, expected) in [
        ("notes", missed("notes.example"), (true, "NO_ROUTE")),
        ("notes", missed("hr.example"), (false, "ENFORCER_REFUSED")),
        ("notes", missed("elsewhere.example"), (false, "ENFORCER_REFUSED")),
        ("hr", missed("hr.example:80"), (true, "NO_ROUTE")),
        ("hr", missed(""), (false, "ENFORCER_REFUSED")),
        ("notes", who.asks("notes.nothing", "{}"), (true, "UNKNOWN_OPERATION")),
        ("notes", who.asks("nothing.read", "{}"), (false, "ENFORCER_REFUSED")),
    ] {
        let (is_passed, code) = ask(&served, listener, &one);
        assert_eq!(expected, (is_passed, code.as_str()), "{listener} {one:?}");
    }
}

/// What the request could have become decides: its operation's tiers, the systems of its host, whoever could have sent it.
#[test]
fn what_stopped_early_is_as_strict_as_what_it_could_have_been() {
    let of =
        |more: &str| format!("mode: {{default: observe, owner: sec, until: 2999-01-01{more}}}");
    let sent = |to: &str| format!(r#"{{"to":"{to}"}}"#);
    type Asks = fn(&Who) -> Call;
    let stray: Asks = |who| who.asks("hr.send", r#"{"to":"a@corp.example","x":1}"#);
    let lost: Asks = |who| who.sends("GET", "hr.example", "/nothing", "", false);
    let elsewhere: Asks = |who| who.sends("GET", "elsewhere.example", "/nothing", "", false);
    let notes: Asks = |who| who.sends("GET", "notes.example", "/nothing", "", false);
    let unknown: Asks = |who| who.asks("hr.nothing", "{}");
    let critical = of(", tiers: {critical: enforce}");
    let high = of(", tiers: {high: enforce}");
    let hr = of(", systems: {hr: enforce}");
    let planner = of(&format!(", agents: {{'{PLANNER}': enforce}}"));
    for (what, mode, asks, in_task, without, nobody) in [
        ("an argument of what could be critical", &critical, stray, false, false, false),
        ("no route, where something could be critical", &critical, lost, false, false, false),
        ("no operation, the same", &critical, unknown, false, false, false),
        ("no route, where nothing could", &critical, notes, true, true, true),
        ("a host of no system", &critical, elsewhere, true, true, true),
        ("another tier is enforced", &high, stray, true, true, true),
        ("no route, of a system of that tier", &high, notes, false, false, false),
        ("no route of an enforced system", &hr, lost, false, false, false),
        ("no route of another", &hr, notes, true, true, true),
        ("a host of no system", &hr, elsewhere, true, true, true),
        // In its own task it is nobody else's call.
        ("another agent is enforced", &planner, stray, true, false, false),
        ("another agent is enforced", &planner, lost, true, false, false),
    ] {
        let served = served_by(mode);
        let own = Who::bot(&task_of(&served, BOT).id);
        let got = [own.clone(), Who { task: String::new(), ..own }, Who::default()]
            .map(|who| ask(&served, "dev", &asks(&who)).0);
        assert_eq!([in_task, without, nobody], got, "{what}: {mode}");
    }
    // A call that was judged whole has one tier.
    let served = served_by(&critical);
    let who = Who::bot(&task_of(&served, BOT).id);
    for (to, expected) in [("a@corp.example", true), ("a@evil.example", false)] {
        assert_eq!(expected, ask(&served, "dev", &who.asks("hr.send", &sent(to))).0, "{to}");
    }
    // Of a chain all agents count.
    let served = served_by(&planner);
    let child = task_of(&served, PLANNER);
    let child = delegate(&served, &delegating(&child, PLANNER, BOT)).unwrap();
    for (what, one) in Who::bot(&child.id).looks() {
        assert!(!ask(&served, "dev", &one).0, "{what}");
    }
}

/// The defects that an agent can give a call.
fn worse(who: &Who, operation: &str, arguments: &str) -> Vec<Call> {
    let (system, _) = operation.split_once('.').unwrap();
    let open = arguments.strip_suffix('}').unwrap();
    let host = format!("{system}.example");
    let mut all = Vec::new();
    let people = [
        who.clone(),
        Who { task: String::new(), ..who.clone() },
        Who { agent: None, ..who.clone() },
        Who { agent: None, task: String::new(), ..who.clone() },
        Who { subject: None, ..who.clone() },
        Who::default(),
    ];
    for (nth, who) in people.iter().enumerate() {
        if nth > 0 {
            all.push(who.asks(operation, arguments));
        }
        all.push(who.asks(operation, &format!("{open},\"x\":1}}")));
        all.push(who.asks(operation, "{}"));
        all.push(who.asks(operation, &arguments.replace("evil.example", "evil.example.")));
        all.push(who.asks(&format!("{operation}X"), arguments));
        all.push(who.sends("GET", &host, "/nothing", "", false));
        all.push(who.sends("POST", &format!("{host}.:443"), "/mail/", arguments, false));
        all.push(who.sends("POST", &host, "/mail", arguments, true));
        if operation == "hr.send" {
            all.push(who.sends("POST", &host, "/mail?x=1", arguments, false));
        }
        all.push(who.sends("GET", &host, "/people/1/", "", false));
        all.push(who.sends("GET", "a@b", "/people/1", "", false));
    }
    all
}

fn word() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("observe"), Just("enforce")]
}

fn some_mode() -> impl Strategy<Value = String> {
    let entries = |names: &'static [&'static str]| {
        prop::collection::btree_map(prop::sample::select(names), word(), 0..3)
    };
    let systems = entries(&["hr", "notes"]);
    let tiers = entries(&["low", "standard", "high", "critical"]);
    let agents = entries(&[
        BOT,
        PLANNER,
        "spiffe://a.example/ns/support/sa/*",
        "spiffe://a.example/ns/*/sa/bot",
        "spiffe://a.example/other",
    ]);
    (prop_oneof![3 => Just("observe"), 1 => Just("enforce")], systems, tiers, agents).prop_map(
        |(default, systems, tiers, agents)| {
            json!({"mode": {
                "default": default, "owner": "sec", "until": "2999-01-01",
                "systems": systems, "tiers": tiers, "agents": agents,
            }})
            .to_string()
        },
    )
}

/// The mode of a call of known system, tier and agents: in the slowest words.
fn is_observed(mode: &str, system: &str, tier: &str, agents: &[&str]) -> bool {
    let mode: serde_json::Value = serde_json::from_str(mode).unwrap();
    let mode = &mode["mode"];
    let segments = |id: &str| id.split('/').map(str::to_owned).collect::<Vec<_>>();
    let matches = |pattern: &str, id: &str| {
        let (pattern, id) = (segments(pattern), segments(id));
        pattern.len() == id.len() && pattern.iter().zip(&id).all(|(p, i)| p == "*" || p == i)
    };
    let mut words: Vec<String> = Vec::new();
    let mut add = |word: &serde_json::Value| words.extend(word.as_str().map(str::to_owned));
    add(&mode["systems"][system]);
    add(&mode["tiers"][tier]);
    for agent in agents {
        let all = mode["agents"].as_object().unwrap();
        let matching: Vec<&String> = all.keys().filter(|pattern| matches(pattern, agent)).collect();
        for pattern in &matching {
            let narrower = |other: &&String| other != pattern && matches(pattern, other);
            if !matching.iter().any(narrower) {
                add(&all[*pattern]);
            }
        }
    }
    match words.is_empty() {
        true => mode["default"] == "observe",
        false => words.iter().all(|word| word == "observe"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Under any mode: a clean call is let through as the slow words say, and where it is not, none of its defects is.
    #[test]
    fn a_defect_never_helps(mode in some_mode()) {
        let served = served_by(&mode);
        let own = task_of(&served, BOT).id;
        let child = task_of(&served, PLANNER);
        let child = delegate(&served, &delegating(&child, PLANNER, BOT)).unwrap().id;
        for (operation, arguments, system, tier) in [
            ("hr.look", r#"{"id":"1"}"#, "hr", "low"),
            ("hr.send", r#"{"to":"a@corp.example"}"#, "hr", "standard"),
            ("hr.send", r#"{"to":"a@evil.example"}"#, "hr", "critical"),
            ("notes.read", r#"{"id":"1"}"#, "notes", "high"),
        ] {
            for (task, agents) in [(&own, &[BOT][..]), (&child, &[PLANNER, BOT][..])] {
                let who = Who::bot(task);
                let (is_passed, code) = ask(&served, "dev", &who.asks(operation, arguments));
                prop_assert_eq!("CHAIN_NOT_PERMITTED", code.as_str());
                prop_assert_eq!(is_observed(&mode, system, tier, agents), is_passed, "{}", operation);
                if is_passed {
                    continue;
                }
                for one in worse(&who, operation, arguments) {
                    let (is_passed, code) = ask(&served, "dev", &one);
                    prop_assert!(!is_passed, "{} {:?} {}: {:?}", operation, agents, code, one);
                }
            }
        }
    }
}
