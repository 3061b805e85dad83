//! Where events happen: in which task and session, by which agent, on behalf of whom; and what is known of each.

use std::collections::{BTreeMap, HashMap};

use authz_kernel::decide::decide;
use authz_kernel::decision::{Decision, Facts, Principal, Time};
use authz_kernel::history::{HistoryView, Holder, SessionHistory};
use authz_kernel::plan::Plan;
use authz_kernel::task::{
    AgentName, Names, RecordKey, Root, SubjectProof, Task, TaskKind, TaskSubject, TaskView, start,
    taskless,
};

use crate::common::{NOW, facts, request};

/// Task, session, agent, subject; none: the agent acts for itself. Without a task both are what it does so.
const PLACES: [(&str, &str, &str, Option<&str>); 7] = [
    ("t0", "s0", "bot", Some("alice")),
    ("t1", "s0", "bot", Some("alice")),
    ("t2", "s1", "bot", Some("carol")),
    ("t3", "s2", "aide", Some("alice")),
    ("t4", "s3", "bot", None),
    (TASKLESS, "n0", "bot", Some("alice")),
    (TASKLESS, "n1", "bot", None),
];
const TASKLESS: &str = "";

/// How many places there are.
pub(crate) const MANY: usize = PLACES.len();

/// Words of the scopes of rules.
pub(crate) const SCOPES: [&str; 4] = ["session", "task", "agent", "subject"];

/// Whether a rule of a scope takes two places for the same.
pub(crate) fn is_same(scope: &str, one: usize, other: usize) -> bool {
    let (one, other) = (PLACES[one], PLACES[other]);
    match scope {
        "session" => one.1 == other.1,
        "task" => (one.0, one.1) == (other.0, other.1),
        "agent" => one.2 == other.2,
        _ => one.3.unwrap_or(one.2) == other.3.unwrap_or(other.2),
    }
}

/// All that is remembered of a trace.
pub(crate) struct Past<'a> {
    plan: &'a Plan,
    tasks: Vec<Task>,
    sessions: HashMap<&'static str, SessionHistory>,
    parties: HashMap<RecordKey, SessionHistory>,
}

impl<'a> Past<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let tasks = PLACES.iter().map(|(id, session, agent, on_behalf)| {
            let subject = |sub: &str| TaskSubject {
                issuer: "corp".to_owned(),
                sub: sub.to_owned(),
                ..TaskSubject::default()
            };
            let root = Root {
                template: "desk",
                params: &BTreeMap::new(),
                scope: &[],
                kind: TaskKind::Root,
                assignee: AgentName::parse(&format!("spiffe://a.example/ns/desk/sa/{agent}"))
                    .unwrap(),
                subject: on_behalf.map(subject),
                subject_proof: SubjectProof::Itself,
                starter: String::new(),
                deadline: None,
                tier_cap: None,
                names: Names::default(),
                now: NOW,
                id: (*id).to_owned(),
                session: (*session).to_owned(),
            };
            if *id == TASKLESS {
                let agent = [root.assignee.principal()];
                let chain = root.subject.iter().map(TaskSubject::principal).chain(agent);
                return taskless(&chain.collect::<Vec<_>>(), "").unwrap();
            }
            // As if it were started anew, so that what ends is what is remembered.
            Task { deadline: Time(i64::MAX), ..start(plan, root).unwrap() }
        });
        Self { plan, tasks: tasks.collect(), sessions: HashMap::new(), parties: HashMap::new() }
    }

    /// Decides twice, since a replay gives the same, and remembers what the answer changes.
    pub(crate) fn ask(
        &mut self,
        place: usize,
        operation: &str,
        arguments: &str,
        now: Time,
    ) -> Decision {
        let task = &self.tasks[place];
        let chain = task.chain();
        let nothing = SessionHistory::new();
        let party = |holder: Holder| {
            let key = holder.key(&chain).unwrap();
            Some(self.parties.get(&key).unwrap_or(&nothing))
        };
        let view = HistoryView {
            agent: party(Holder::Agent),
            subject: party(Holder::Subject),
            pair: party(Holder::Pair),
            ..HistoryView::new(self.sessions.get(PLACES[place].1).unwrap_or(&nothing))
        };
        let facts = Facts {
            task: Some(TaskView { task, ancestors: &[] }),
            history: Some(view),
            ..facts(&chain)
        };
        let decision = decide(self.plan, &facts, &request(operation, arguments), now);
        let again = decide(self.plan, &facts, &request(operation, arguments), now);
        assert_eq!(
            (&decision.sequences, &decision.budgets, decision.changes(false)),
            (&again.sequences, &again.budgets, again.changes(false))
        );
        let now = view.now(now);
        self.remember(place, &chain, &decision, now);
        *decision
    }

    /// All that is remembered, as it is stored.
    pub(crate) fn known(&self) -> String {
        let sessions: BTreeMap<_, _> = self.sessions.iter().collect();
        let parties: BTreeMap<String, _> =
            self.parties.iter().map(|(key, party)| (format!("{key:?}"), party)).collect();
        serde_json::to_string(&(sessions, parties)).unwrap()
    }

    fn remember(&mut self, place: usize, chain: &[Principal], decision: &Decision, now: Time) {
        let changes = decision.changes(false);
        let session = self.sessions.entry(PLACES[place].1).or_default();
        session.apply(changes, "d", &decision.operation, now);
        reread(session);
        for holder in Holder::PARTIES {
            let party = self.parties.entry(holder.key(chain).unwrap()).or_default();
            party.apply_as(holder, changes, "d", &decision.operation, now);
            reread(party);
        }
    }
}

/// What is stored is what is read again.
fn reread(history: &mut SessionHistory) {
    let text = serde_json::to_string(history).unwrap();
    *history = serde_json::from_str(&text).unwrap();
}
