//! Which roles a principal holds.

use std::collections::BTreeMap;

use authz_base::principal::{Claim, Principal, Subject};
use authz_base::record::history::{Holder, Remembering};
use authz_base::record::task::{Speaker, Task};
use authz_base::spiffe::{MOST_SEGMENTS, segments};
use authz_base::table::Table;
use smallvec::SmallVec;

use crate::model::{AgentMemory, ClaimTest, Isolation, Model, OnBehalf, RoleMembers};

/// The roles of one principal: sorted, each once.
pub type Roles<'a> = SmallVec<[&'a str; 4]>;

/// Role members, arranged for look-up.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// Role names; the lists below hold positions in it.
    names: Vec<String>,
    /// What the agents of each remember.
    memories: Vec<AgentMemory>,
    /// Whether the agents of each are their users' front ends too.
    harness: Vec<bool>,
    /// Whether the agents of each work without tasks.
    implicit: Vec<bool>,
    /// On whose behalf the agents of each act where no task says so.
    subject_rules: Vec<Option<OnBehalf>>,
    /// Whether any of them says so.
    has_subject_rules: bool,
    exact: Table<String, Vec<usize>>,
    /// A tree over the segments of SPIFFE patterns; the first node is the root.
    tree: Vec<Node>,
    issuers: Table<String, Issuer>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    literal: Table<String, usize>,
    any: Option<usize>,
    roles: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Issuer {
    every: Vec<usize>,
    equals: Table<String, Table<String, Vec<usize>>>,
    contains: Table<String, Table<String, Vec<usize>>>,
}

impl Members {
    /// Arranges the members of a bundle's roles.
    #[must_use]
    pub fn compile(roles: &BTreeMap<String, RoleMembers>) -> Self {
        let mut members = Self { tree: vec![Node::default()], ..Self::default() };
        for (role, (name, who)) in roles.iter().enumerate() {
            members.names.push(name.clone());
            members.memories.push(who.memory);
            members.harness.push(who.harness);
            members.implicit.push(who.is_implicit);
            members.subject_rules.push(who.subject);
            members.has_subject_rules |= who.subject.is_some();
            for agent in &who.agents {
                if agent.value.contains('*') {
                    members.insert(&agent.value, role);
                } else {
                    members.exact.entry(agent.value.clone()).or_default().push(role);
                }
            }
            for subject in &who.subjects {
                let issuer = members.issuers.entry(subject.issuer.clone()).or_default();
                let (map, claim, value) = match &subject.test {
                    ClaimTest::Any => {
                        issuer.every.push(role);
                        continue;
                    }
                    ClaimTest::Equals(claim, value) => (&mut issuer.equals, claim, value),
                    ClaimTest::Contains(claim, value) => (&mut issuer.contains, claim, value),
                };
                let values = map.entry(claim.clone()).or_default();
                values.entry(value.clone()).or_default().push(role);
            }
        }
        members
    }

    fn insert(&mut self, pattern: &str, role: usize) {
        let mut at = 0;
        for segment in segments(pattern) {
            let new = self.tree.len();
            let Some(node) = self.tree.get_mut(at) else {
                return;
            };
            let next = match segment {
                "*" => *node.any.get_or_insert(new),
                literal => *node.literal.entry(literal.to_owned()).or_insert(new),
            };
            if next == new {
                self.tree.push(Node::default());
            }
            at = next;
        }
        if let Some(node) = self.tree.get_mut(at) {
            node.roles.push(role);
        }
    }

    fn agent(&self, spiffe_id: &str) -> SmallVec<[usize; 8]> {
        let mut found: SmallVec<[usize; 8]> = SmallVec::new();
        found.extend(self.exact.get(spiffe_id).into_iter().flatten().copied());
        let mut reached: SmallVec<[&Node; 8]> = self.tree.first().into_iter().collect();
        // An id with more segments than any pattern leaves the tree; the bound only keeps this true.
        for (i, segment) in segments(spiffe_id).enumerate() {
            if i >= MOST_SEGMENTS || segment.is_empty() {
                return found;
            }
            let mut next: SmallVec<[&Node; 8]> = SmallVec::new();
            for node in reached {
                let ways = [node.literal.get(segment).copied(), node.any].into_iter().flatten();
                next.extend(ways.filter_map(|way| self.tree.get(way)));
            }
            reached = next;
            if reached.is_empty() {
                return found;
            }
        }
        found.extend(reached.iter().flat_map(|node| node.roles.iter().copied()));
        found
    }

    fn subject(&self, subject: &Subject) -> SmallVec<[usize; 8]> {
        let mut found = self.subject_by(subject, &subject.claims);
        for narrowing in &subject.narrowed {
            let before = narrowing.from.as_ref().map(|claims| self.subject_by(subject, claims));
            let after = self.subject_by(subject, &narrowing.to);
            found.retain(|role| {
                after.contains(role) || before.as_ref().is_some_and(|had| !had.contains(role))
            });
        }
        found
    }

    /// The roles of a subject by some claims.
    fn subject_by(
        &self,
        subject: &Subject,
        claims: &BTreeMap<String, Claim>,
    ) -> SmallVec<[usize; 8]> {
        let mut found: SmallVec<[usize; 8]> = SmallVec::new();
        let Some(issuer) = self.issuers.get(&subject.issuer) else {
            return found;
        };
        found.extend(issuer.every.iter().copied());
        let mut take = |map: &Table<String, Table<String, Vec<usize>>>,
                        claim: &str,
                        value: &str| {
            found.extend(map.get(claim).and_then(|m| m.get(value)).into_iter().flatten().copied());
        };
        take(&issuer.equals, "sub", &subject.sub);
        for (claim, value) in claims {
            match value {
                // `sub` is the field, whatever a claim of that name says.
                Claim::Text(_) if claim == "sub" => {}
                Claim::Text(text) => take(&issuer.equals, claim, text),
                Claim::Texts(texts) => texts.iter().for_each(|t| take(&issuer.contains, claim, t)),
                Claim::Bool(_) | Claim::Long(_) => {}
            }
        }
        found
    }

    fn name(&self, mut found: SmallVec<[usize; 8]>) -> Roles<'_> {
        found.sort_unstable();
        found.dedup();
        found.iter().filter_map(|role| self.names.get(*role)).map(String::as_str).collect()
    }
}

impl Model {
    /// The roles of an agent: sorted, each once; none for an id that no registration names.
    #[must_use]
    pub fn agent_roles(&self, spiffe_id: &str) -> Roles<'_> {
        self.index.members.name(self.index.members.agent(spiffe_id))
    }

    /// What an agent remembers of tasks that ended, over all its roles. An agent without a role is not isolated.
    #[must_use]
    pub fn memory_of(&self, spiffe_id: &str) -> AgentMemory {
        let members = &self.index.members;
        let roles = members.agent(spiffe_id);
        let memories = roles.iter().filter_map(|role| members.memories.get(*role)).copied();
        memories.reduce(AgentMemory::join).unwrap_or_default()
    }

    /// Where the labels that a call in a task brings are remembered, and for how long.
    #[must_use]
    pub fn remembering(&self, task: &Task) -> Remembering {
        let AgentMemory { isolated, ms } = self.memory_of(task.assignee());
        let holder = match isolated {
            Isolation::None => Some(Holder::Agent),
            Isolation::PerSubject => Some(Holder::Pair),
            Isolation::PerTask if !task.is_own() => None,
            // The run that started the task outlives it.
            Isolation::PerTask => Some(Holder::Agent),
        };
        Remembering { holder, ms }
    }

    /// Who says what an agent relays of a user: a harness where one of its roles says so and the user is proved, else the
    /// agent itself.
    #[must_use]
    pub fn speaker_of(&self, spiffe_id: &str, is_subject_proved: bool) -> Speaker {
        let members = &self.index.members;
        let is = |role: &usize| members.harness.get(*role).copied().unwrap_or(false);
        match is_subject_proved && members.agent(spiffe_id).iter().any(is) {
            true => Speaker::Harness,
            false => Speaker::Agent,
        }
    }

    /// The roles whose agents are their users' front ends too, sorted.
    pub fn harnesses(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().filter(|(_, who)| who.harness).map(|(name, _)| name.as_str())
    }

    /// Whether an agent works without tasks, as one of its roles says.
    #[must_use]
    pub fn is_implicit(&self, spiffe_id: &str) -> bool {
        if self.tasks.implicit.is_none() {
            return false;
        }
        let members = &self.index.members;
        let is = |role: &usize| members.implicit.get(*role).copied().unwrap_or(false);
        members.agent(spiffe_id).iter().any(is)
    }

    /// On whose behalf an agent acts where no task says so; none: no role of the agent says so.
    #[must_use]
    pub fn subject_rule(&self, spiffe_id: &str) -> Option<OnBehalf> {
        let members = &self.index.members;
        if !members.has_subject_rules {
            return None;
        }
        let rule = |role: &usize| members.subject_rules.get(*role).copied().flatten();
        members.agent(spiffe_id).iter().filter_map(rule).min()
    }

    /// The roles of a subject: sorted, each once. A claim that is one text is never searched as a list.
    #[must_use]
    pub fn subject_roles(&self, subject: &Subject) -> Roles<'_> {
        self.index.members.name(self.index.members.subject(subject))
    }

    /// The roles of a principal: sorted, each once.
    #[must_use]
    pub fn roles_of(&self, principal: &Principal) -> Roles<'_> {
        match principal {
            Principal::User(subject) | Principal::Service(subject) => self.subject_roles(subject),
            Principal::Agent { spiffe_id, .. } => self.agent_roles(spiffe_id),
        }
    }
}

pub use authz_base::spiffe::{check_pattern, covers, overlap};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Declared, Location, SubjectMatch};
    use authz_base::principal::Narrowing;

    fn model(agents: &[(&str, &str)], subjects: &[(&str, ClaimTest)]) -> Model {
        let mut model = Model::default();
        for (role, id) in agents {
            let members = model.roles.entry((*role).to_owned()).or_default();
            members.agents.push(Declared { value: (*id).to_owned(), at: Location::default() });
        }
        for (role, test) in subjects {
            let members = model.roles.entry((*role).to_owned()).or_default();
            let (issuer, at) = ("corp".to_owned(), Location::default());
            members.subjects.push(SubjectMatch { issuer, test: test.clone(), at });
        }
        model.build_index();
        model
    }

    #[test]
    fn a_star_stands_for_exactly_one_segment() {
        let model = model(
            &[
                ("bot", "spiffe://a.example/ns/*/sa/bot"),
                ("any", "spiffe://a.example/ns/support/sa/*"),
                ("one", "spiffe://a.example/ns/support/sa/bot"),
            ],
            &[],
        );
        let roles = |id| model.agent_roles(id).to_vec();
        assert_eq!(vec!["any", "bot", "one"], roles("spiffe://a.example/ns/support/sa/bot"));
        assert_eq!(vec!["bot"], roles("spiffe://a.example/ns/sales/sa/bot"));
        for none in [
            "spiffe://a.example/ns/sales/x/sa/bot",
            "spiffe://a.example/ns/sales/sa/bot/x",
            "spiffe://a.example/ns/sales/sa/bots",
            "spiffe://b.example/ns/sales/sa/bot",
            "spiffe://a.example/ns//sa/bot",
            "spiffe://a.example/ns",
            "a.example/ns/sales/sa/bot",
            "",
        ] {
            assert!(roles(none).is_empty(), "{none}");
        }
    }

    /// A role is held where the first claims give it, and no newer token of the same stream lost it.
    #[test]
    fn roles_are_taken_away() {
        let contains = |value: &str| ClaimTest::Contains("groups".into(), value.into());
        let model = model(
            &[],
            &[
                ("staff", contains("eu")),
                ("staff", contains("us")),
                ("boss", contains("bosses")),
                ("all", ClaimTest::Any),
            ],
        );
        let claims = |groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            BTreeMap::from([("groups".to_owned(), Claim::Texts(groups))])
        };
        let roles = |narrowed: Vec<Narrowing>| {
            let subject = Subject {
                issuer: "corp".into(),
                sub: "bob".into(),
                claims: claims(&["eu", "bosses"]),
                narrowed,
            };
            model.subject_roles(&subject).to_vec()
        };
        let to = |groups: &[&str]| Narrowing { from: None, to: claims(groups) };
        let lost = |from: &[&str], groups: &[&str]| Narrowing {
            from: Some(claims(from)),
            to: claims(groups),
        };
        assert_eq!(vec!["all", "boss", "staff"], roles(vec![]));
        assert_eq!(vec!["all", "staff"], roles(vec![to(&["us"])]), "another group, the same role");
        assert_eq!(vec!["all"], roles(vec![to(&["us"]), to(&["bosses"])]));
        assert_eq!(vec!["all", "boss", "staff"], roles(vec![lost(&[], &[])]));
        assert_eq!(vec!["all", "staff"], roles(vec![lost(&["bosses"], &["eu"])]));
        assert_eq!(vec!["all", "boss", "staff"], roles(vec![lost(&["eu"], &["us"])]));
    }

    #[test]
    fn a_claim_must_have_the_form_that_its_rule_names() {
        let contains = ClaimTest::Contains("groups".into(), "staff".into());
        let equals = ClaimTest::Equals("groups".into(), "boss".into());
        let by_sub = ClaimTest::Equals("sub".into(), "alice".into());
        let model = model(
            &[],
            &[("staff", contains), ("boss", equals), ("alice", by_sub), ("all", ClaimTest::Any)],
        );
        let roles = |issuer: &str, sub: &str, claims: &[(&str, Claim)]| {
            let claims = claims.iter().map(|(n, c)| ((*n).to_owned(), c.clone())).collect();
            let subject = Arc::new(Subject {
                issuer: issuer.into(),
                sub: sub.into(),
                claims,
                narrowed: Vec::new(),
            });
            model
                .roles_of(&Principal::User(subject))
                .iter()
                .map(|r| (*r).to_owned())
                .collect::<Vec<_>>()
        };
        let texts = |t: &str| Claim::Texts(vec![t.into()]);
        assert_eq!(vec!["all", "staff"], roles("corp", "bob", &[("groups", texts("staff"))]));
        assert_eq!(vec!["all"], roles("corp", "bob", &[("groups", Claim::Text("staff".into()))]));
        assert_eq!(vec!["all"], roles("corp", "bob", &[("groups", texts("boss"))]));
        assert_eq!(vec!["alice", "all"], roles("corp", "alice", &[]));
        assert_eq!(vec!["all"], roles("corp", "bob", &[("sub", Claim::Text("alice".into()))]));
        assert!(roles("other", "alice", &[("groups", texts("staff"))]).is_empty());
    }
}
