//! Random trees of tasks against a slow, obvious reader of scopes: what a child can do its parent can, and a decision
//! on a task is the meet of all tasks on the way to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decide::decide;
use authz_kernel::decision::{
    CallerProof, Facts, Outcome, Principal, ProofMethod, ReasonCode, Request, Time,
};
use authz_kernel::history::HistoryView;
use authz_kernel::mcp::ServerTask;
use authz_kernel::model::Tier;
use authz_kernel::plan::Plan;
use authz_kernel::task::{
    AgentName, Child, Limit, Names, Root, ScopeEntry, Selector, SubjectProof, Task, TaskKind,
    TaskView, WordRecords, delegate, start,
};

use crate::common::{NOTHING, NOW};
use crate::tasks::plan_of;

const TREES: u64 = 400;

/// One thing that could be asked.
#[derive(Clone, Debug)]
struct Ask {
    operation: &'static str,
    collection: Option<&'static str>,
    id: String,
    labels: &'static [&'static str],
    tier: Tier,
    arguments: serde_json::Value,
}

const IDS: [&str; 6] = ["a", "a/b", "a/b/c", "ab", "acme/sealed/1", "z"];
const TEXTS: [&str; 5] = ["x", "xy", "x/z", "y", "7"];

const WIDE: &str = r#"
templates:
  wide:
    purpose: everything
    deadline: 24h
    max_depth: 6
    tier_cap: critical
    scope:
      - {operations: [crm.get, crm.search, crm.order, crm.refund, crm.drop, crm.status, mail.send]}
      - {operation: crm.edit}
  capped: {purpose: most of it, deadline: 1h, max_depth: 6, scope: [{system: crm}, {operation: mail.send}]}
  asking:
    purpose: all of it, and a question for the rest
    deadline: 24h
    max_depth: 6
    tier_cap: standard
    beyond: step_up
    scope:
      - {operations: [crm.get, crm.search, crm.order, crm.refund, crm.status, mail.send]}
      - {operation: crm.edit}
"#;

fn universe() -> Vec<Ask> {
    let mut all = Vec::new();
    let labels = |id: &str| -> &'static [&'static str] {
        if id.starts_with("acme/sealed/") { &["pii", "sealed"] } else { &["pii"] }
    };
    for id in IDS {
        all.push(Ask {
            operation: "crm.get",
            collection: Some("customers"),
            id: id.to_owned(),
            labels: labels(id),
            tier: Tier::Low,
            arguments: serde_json::json!({ "id": id }),
        });
        for (action, operation, tier) in
            [("see", "crm.edit.see", Tier::Low), ("change", "crm.edit.change", Tier::Standard)]
        {
            let arguments = serde_json::json!({ "id": id, "action": action });
            let id = id.to_owned();
            let labels = labels(&id);
            all.push(Ask { operation, collection: Some("customers"), id, labels, tier, arguments });
        }
        for amount in [None, Some(0), Some(1), Some(7)] {
            for tags in
                [None, Some(vec![]), Some(vec!["x"]), Some(vec!["x", "xy"]), Some(vec!["7"])]
            {
                let mut arguments = serde_json::json!({ "id": id });
                if let Some(amount) = amount {
                    arguments["amount"] = amount.into();
                }
                if let Some(tags) = &tags {
                    arguments["tags"] = serde_json::json!(tags);
                }
                all.push(Ask {
                    operation: "crm.refund",
                    collection: Some("customers"),
                    id: id.to_owned(),
                    labels: labels(id),
                    tier: Tier::Standard,
                    arguments,
                });
            }
        }
    }
    all.push(Ask {
        operation: "crm.search",
        collection: Some("customers"),
        id: String::new(),
        labels: &["pii", "sealed"],
        tier: Tier::Standard,
        arguments: serde_json::json!({}),
    });
    for id in [1, 7] {
        all.push(Ask {
            operation: "crm.order",
            collection: Some("orders"),
            id: id.to_string(),
            labels: &[],
            tier: Tier::Standard,
            arguments: serde_json::json!({ "id": id }),
        });
    }
    for (operation, tier) in [("crm.drop", Tier::High), ("crm.status", Tier::Low)] {
        let (collection, id, arguments) = (None, String::new(), serde_json::json!({}));
        all.push(Ask { operation, collection, id, labels: &[], tier, arguments });
    }
    for text in [None].into_iter().chain(TEXTS.map(Some)) {
        let mut arguments = serde_json::json!({ "to": ["a@x.example"] });
        if let Some(text) = text {
            arguments["text"] = text.into();
        }
        all.push(Ask {
            operation: "mail.send",
            collection: None,
            id: String::new(),
            labels: &[],
            tier: Tier::Standard,
            arguments,
        });
    }
    all
}

/// Whether a limit allows a value, read as the documentation says it.
fn obviously_allows(limit: &Limit, value: Option<&serde_json::Value>) -> bool {
    use serde_json::Value;
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Array(items)) => {
            !items.is_empty() && items.iter().all(|item| obviously_allows(limit, Some(item)))
        }
        Some(value) => match limit {
            Limit::OneOf(all) => match value {
                Value::String(text) => all.contains(text),
                other => all.contains(&other.to_string()),
            },
            Limit::Range(least, most) => {
                value.as_i64().is_some_and(|number| *least <= number && number <= *most)
            }
            Limit::Prefix(prefix) => {
                let prefix: Vec<&str> = prefix.split('/').collect();
                value
                    .as_str()
                    .is_some_and(|text| text.split('/').collect::<Vec<_>>().starts_with(&prefix))
            }
        },
    }
}

/// Whether an entry is about an ask, field by field.
fn obviously_fits(entry: &ScopeEntry, ask: &Ask) -> bool {
    let Selector { collections, ids, path_prefix, label_ceiling } = &entry.resources;
    let collection = ask.collection.map(str::to_owned);
    let segments = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    entry.operation == ask.operation
        && collections.as_ref().is_none_or(|all| collection.is_some_and(|one| all.contains(&one)))
        && ids.as_ref().is_none_or(|all| all.iter().any(|id| *id == ask.id && !id.is_empty()))
        && path_prefix.as_ref().is_none_or(|prefix| {
            let (prefix, id) = (segments(prefix), segments(&ask.id));
            id.len() >= prefix.len() && id[..prefix.len()] == prefix
        })
        && label_ceiling.as_ref().is_none_or(|all| {
            ask.collection.is_some() && ask.labels.iter().all(|label| all.contains(*label))
        })
        && entry
            .arguments
            .iter()
            .all(|(pointer, limit)| obviously_allows(limit, ask.arguments.pointer(pointer)))
}

/// What one task says of an ask: beyond it, used up, or within.
fn obviously(task: &Task, ask: &Ask) -> ReasonCode {
    let fitting: Vec<usize> =
        (0..task.scope.len()).filter(|index| obviously_fits(&task.scope[*index], ask)).collect();
    if ask.tier > task.tier_cap || fitting.is_empty() {
        return ReasonCode::OutOfScope;
    }
    let left = |index: &usize| {
        task.scope[*index].uses.is_none_or(|uses| task.uses[*index] < u64::from(uses))
    };
    if fitting.iter().any(left) { ReasonCode::Permitted } else { ReasonCode::UsesExhausted }
}

/// What one task says of an ask that no entry fits, where its template asks: beyond what no step-up lifts, used up, or held.
fn obviously_beyond(task: &Task, ask: &Ask) -> ReasonCode {
    let has_only = |ceiling: &BTreeSet<String>| ask.labels.iter().all(|one| ceiling.contains(*one));
    let of_operation =
        |index: &usize| task.scope.get(*index).is_some_and(|one| one.operation == ask.operation);
    let own: Vec<usize> = (0..task.scope.len()).filter(of_operation).collect();
    if own.is_empty() {
        let all: Vec<&BTreeSet<String>> =
            task.scope.iter().filter_map(|one| one.resources.label_ceiling.as_ref()).collect();
        let is_allowed = all.is_empty() || all.into_iter().any(has_only);
        return if is_allowed { ReasonCode::ConfirmRequired } else { ReasonCode::OutOfScope };
    }
    let bounded = |index: &&usize| match &task.scope[**index].resources.label_ceiling {
        None => true,
        Some(ceiling) => ask.collection.is_some() && has_only(ceiling),
    };
    let under: Vec<usize> = own.iter().filter(bounded).copied().collect();
    if under.is_empty() {
        return ReasonCode::OutOfScope;
    }
    let left = |index: &usize| {
        task.scope[*index].uses.is_none_or(|uses| task.uses[*index] < u64::from(uses))
    };
    if under.iter().any(left) { ReasonCode::ConfirmRequired } else { ReasonCode::UsesExhausted }
}

/// What all tasks of a path say of an ask: the first denial, else a question, else yes.
fn obviously_all(path: &[&Task], ask: &Ask) -> ReasonCode {
    let is_asking = path.iter().all(|task| task.template == "asking");
    let reasons: Vec<ReasonCode> = path
        .iter()
        .map(|task| match obviously(task, ask) {
            ReasonCode::OutOfScope if is_asking && ask.tier <= task.tier_cap => {
                obviously_beyond(task, ask)
            }
            reason => reason,
        })
        .collect();
    let denials = reasons
        .iter()
        .filter(|reason| matches!(reason, ReasonCode::OutOfScope | ReasonCode::UsesExhausted));
    let is_held = reasons.contains(&ReasonCode::ConfirmRequired);
    denials.min().copied().unwrap_or(match is_held {
        true => ReasonCode::ConfirmRequired,
        false => ReasonCode::Permitted,
    })
}

/// Small numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % sides
    }

    fn some<T: Ord + Clone>(&mut self, all: &[T]) -> BTreeSet<T> {
        all.iter().filter(|_| self.roll(2) == 0).cloned().collect()
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.roll(all.len())]
    }

    fn texts(&mut self, all: &[&str]) -> BTreeSet<String> {
        self.some(all).into_iter().map(str::to_owned).collect()
    }

    fn limit(&mut self, pointer: &str) -> Limit {
        let amount = pointer == "/amount";
        match self.roll(3) {
            0 => Limit::OneOf(self.texts(if amount { &["0", "1", "7", "07"] } else { &TEXTS })),
            1 if amount => {
                let least = i64::try_from(self.roll(4)).unwrap_or(0);
                Limit::Range(least, least + i64::try_from(self.roll(8)).unwrap_or(0))
            }
            _ if amount => Limit::Range(0, 7),
            _ => Limit::Prefix(self.of(&["x", "x/z", "y"]).to_owned()),
        }
    }

    fn entry(&mut self) -> ScopeEntry {
        const OPERATIONS: [&str; 10] = [
            "crm.get",
            "crm.search",
            "crm.order",
            "crm.refund",
            "crm.refund",
            "crm.drop",
            "crm.status",
            "mail.send",
            "crm.edit.see",
            "crm.edit",
        ];
        let operation = self.of(&OPERATIONS);
        let mut entry = ScopeEntry { operation: operation.to_owned(), ..ScopeEntry::default() };
        for _ in 0..self.roll(3) {
            self.restrict(&mut entry);
        }
        entry
    }

    /// Says one more thing of an entry, or another thing, or nothing more.
    fn restrict(&mut self, entry: &mut ScopeEntry) {
        let resources = &mut entry.resources;
        match self.roll(8) {
            0 => resources.collections = Some(self.texts(&["customers", "orders"])),
            1 => resources.ids = Some(self.texts(&IDS)),
            2 => resources.path_prefix = Some(self.of(&["a", "a/b", "ab", "acme"]).to_owned()),
            3 => resources.label_ceiling = Some(self.texts(&["pii", "sealed"])),
            4 if entry.operation != "crm.edit" => {
                entry.uses = Some(u32::try_from(self.roll(3)).unwrap_or(0) + 1);
            }
            5 => *resources = Selector::default(),
            6 => entry.arguments.clear(),
            _ => {
                let pointer = match entry.operation.as_str() {
                    "crm.refund" => self.of(&["/amount", "/tags"]),
                    "mail.send" => "/text",
                    _ => return,
                };
                let limit = self.limit(pointer);
                entry.arguments.insert(pointer.to_owned(), limit);
            }
        }
    }

    /// A scope near another: some of its entries, changed here and there, and rarely one of no relation.
    fn near(&mut self, scope: &[ScopeEntry]) -> Vec<ScopeEntry> {
        let mut near: Vec<ScopeEntry> = Vec::new();
        for entry in scope {
            if self.roll(2) == 0 {
                let mut entry = entry.clone();
                if self.roll(2) == 0 {
                    self.restrict(&mut entry);
                }
                near.push(entry);
            }
        }
        if near.is_empty() || self.roll(8) == 0 {
            near.push(self.entry());
        }
        near
    }
}

fn agent(name: &str) -> AgentName {
    AgentName::parse(&format!("spiffe://a.example/ns/desk/sa/{name}")).unwrap()
}

fn asked(
    plan: &Plan,
    task: &Task,
    above: &[Arc<Task>],
    ask: &Ask,
    satisfied: &[String],
) -> authz_kernel::decision::Decision {
    let chain: Vec<Principal> = task.chain();
    let facts = Facts {
        enforcer: "",
        chain: &chain,
        proof: CallerProof {
            method: ProofMethod::JwtSvid,
            bound: true,
            age: Some(0),
            acr: "",
            satisfied,
        },
        confidence: 0,
        task: Some(TaskView { task, ancestors: above }),
        subject_proof: None,
        history: Some(HistoryView::new(&NOTHING)),
        words: WordRecords::default(),
        literal_key: None,
        value_key: None,
        endorsed: &[],
        recipient_lists: None,
        granted: None,
        breakglass: None,
    };
    let text = ask.arguments.to_string();
    let request = Request {
        operation: ask.operation,
        arguments: text.as_bytes().into(),
        resource: None,
        destinations: &[],
        supported_obligations: &[],
        labels: &[],
        server_task: ServerTask::None,
    };
    *decide(plan, &facts, &request, Time(NOW.0 + 1))
}

/// Grows one path of tasks, and holds every step of it against the reference. Returns how many children
/// there were, and how many asks were held for a step-up.
fn grow(plan: &Plan, seed: u64, universe: &[Ask]) -> (usize, usize) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let none = BTreeMap::new();
    let scope: Vec<ScopeEntry> = (0..=dice.roll(6)).map(|_| dice.entry()).collect();
    let root = Root {
        template: ["capped", "wide", "wide", "asking", "asking"][dice.roll(5)],
        params: &none,
        scope: if dice.roll(6) == 0 { &[] } else { &scope },
        kind: TaskKind::Root,
        assignee: agent("a"),
        subject: None,
        subject_proof: SubjectProof::Itself,
        starter: "x".to_owned(),
        deadline: None,
        tier_cap: None,
        names: Names::default(),
        now: NOW,
        id: "t-0".to_owned(),
        session: "s".to_owned(),
    };
    let Ok(mut task) = start(plan, root) else { return (0, 0) };
    let mut above: Vec<Arc<Task>> = Vec::new();
    let (mut children, mut held) = (0, 0);
    for depth in 1..=5 {
        for uses in &mut task.uses {
            *uses = u64::try_from(dice.roll(3)).unwrap_or(0);
        }
        for ask in universe {
            let path: Vec<&Task> = above.iter().map(AsRef::as_ref).chain([&task]).collect();
            let expected = obviously_all(&path, ask);
            let decision = asked(plan, &task, &above, ask, &[]);
            assert_eq!(expected, decision.reason, "seed {seed}, {ask:?}\n{:#?}", task.scope);
            charged(&decision, &path, ask, seed);
            // A step-up that is met lifts what was held, and nothing else. Asking twice takes time, so not always.
            if dice.roll(4) != 0 {
                continue;
            }
            let confirmed = asked(plan, &task, &above, ask, &["confirm".to_owned()]);
            let lifted = match expected {
                ReasonCode::ConfirmRequired => ReasonCode::Permitted,
                reason => reason,
            };
            assert_eq!(lifted, confirmed.reason, "seed {seed}, {ask:?}\n{:#?}", task.scope);
            charged(&confirmed, &path, ask, seed);
            held += usize::from(expected == ReasonCode::ConfirmRequired);
        }
        let near = dice.near(&task.scope);
        let child = Child {
            template: [Some("wide"), Some("asking"), None, None, None, None][dice.roll(6)],
            params: &none,
            scope: if dice.roll(6) == 0 { &[] } else { &near },
            assignee: agent("b"),
            starter: "x".to_owned(),
            deadline: None,
            now: NOW,
            id: format!("t-{depth}"),
        };
        let Ok(child) = delegate(plan, &task, child) else { continue };
        children += 1;
        let fresh = |task: &Task| Task { uses: vec![0; task.scope.len()], ..task.clone() };
        let (narrow, wide) = (fresh(&child), fresh(&task));
        for ask in universe {
            let can = |task: &Task| obviously(task, ask) == ReasonCode::Permitted;
            assert!(
                !can(&narrow) || can(&wide),
                "seed {seed}: a child may do what its parent may not: {ask:?}\n{:#?}\n{:#?}",
                child.scope,
                task.scope
            );
        }
        assert!(child.deadline <= task.deadline && child.tier_cap <= task.tier_cap);
        assert!(child.max_depth <= task.max_depth);
        above.push(Arc::new(task));
        task = child;
    }
    (children, held)
}

/// A permit counts on exactly one fitting entry with uses left of each task where each fitting entry counts. Where none fits
/// because the call is beyond the scope, the entries of its operation stand for those that fit.
fn charged(decision: &authz_kernel::decision::Decision, path: &[&Task], ask: &Ask, seed: u64) {
    if decision.outcome != Outcome::Permit {
        assert!(decision.charges.is_empty());
        return;
    }
    let mut charges = decision.charges.iter();
    for task in path {
        let fits = |entry: &&ScopeEntry| obviously_fits(entry, ask);
        let is_beyond = !task.scope.iter().any(|entry| fits(&entry));
        let has_ceiling = |entry: &&ScopeEntry| {
            entry.resources.label_ceiling.as_ref().is_some_and(|all| {
                ask.collection.is_none() || !ask.labels.iter().all(|one| all.contains(*one))
            })
        };
        let stands = |entry: &&ScopeEntry| match is_beyond {
            true => entry.operation == ask.operation && !has_ceiling(entry),
            false => fits(entry),
        };
        let fitting: Vec<&ScopeEntry> = task.scope.iter().filter(stands).collect();
        if fitting.is_empty() || fitting.iter().any(|entry| entry.uses.is_none()) {
            continue;
        }
        let (id, index) = charges.next().unwrap_or_else(|| panic!("seed {seed}: not charged"));
        let index = usize::try_from(*index).unwrap();
        assert_eq!(&task.id, id);
        assert!(stands(&&task.scope[index]));
        assert!(task.uses[index] < u64::from(task.scope[index].uses.unwrap()));
    }
    assert_eq!(None, charges.next(), "seed {seed}");
}

#[test]
fn no_child_can_what_its_parent_cannot_and_a_decision_is_the_meet_of_all() {
    let policies = r#"@id("all") permit(principal, action, resource);"#;
    let plan = plan_of("name: a", WIDE, policies).unwrap_or_else(|errors| panic!("{errors}"));
    let universe = universe();
    let grown: Vec<(usize, usize)> = (0..TREES).map(|seed| grow(&plan, seed, &universe)).collect();
    let children: usize = grown.iter().map(|(children, _)| children).sum();
    let held: usize = grown.iter().map(|(_, held)| held).sum();
    // Else the test would hold of nothing.
    assert!(children > 200, "only {children} children came to be");
    assert!(held > 1_000, "only {held} asks were held");
}
