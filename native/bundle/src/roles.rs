//! Roles of principals.

use std::collections::BTreeMap;

use authz_base::principal::{Claim, Principal, Subject};
use authz_base::record::history::{Holder, Remembering};
use authz_base::record::task::{Speaker, Task};
use authz_base::spiffe::{MOST_SEGMENTS, segments};
use authz_base::table::Table;
use smallvec::SmallVec;

use crate::model::{AgentMemory, ClaimTest, Isolation, Model, OnBehalf};

/// The roles of one principal: sorted, each once.
pub type Roles<'a> = SmallVec<[&'a str; 4]>;

/// Look-up table of the roles of a bundle, by agent and by subject.
#[derive(Clone, Debug, Default)]
pub struct RoleIndex {
    /// The roles, sorted by name; the lists below hold positions in it.
    roles: Vec<RoleRules>,
    /// Some role has a subject rule.
    has_subject_rules: bool,
    /// Agents of some role work without tasks.
    has_implicit_roles: bool,
    /// Agents of some role steer a browser, a desktop or a shell.
    has_controlling_roles: bool,
    /// Roles of agents by SPIFFE id.
    exact: Table<String, Vec<usize>>,
    /// A tree over the segments of SPIFFE patterns; the first node is the root.
    tree: Vec<SegmentNode>,
    issuers: Table<String, IssuerRoles>,
}

/// Rules of one role about its agents.
#[derive(Clone, Debug)]
struct RoleRules {
    name: String,
    memory: AgentMemory,
    is_harness: bool,
    is_implicit: bool,
    has_controls: bool,
    subject_rule: Option<OnBehalf>,
}

/// Positions of roles.
type Positions = SmallVec<[usize; 8]>;

#[derive(Clone, Debug, Default)]
struct SegmentNode {
    literal: Table<String, usize>,
    any: Option<usize>,
    roles: Vec<usize>,
}

/// Roles of the subjects of one issuer.
#[derive(Clone, Debug, Default)]
struct IssuerRoles {
    every: Vec<usize>,
    equals: Table<String, Table<String, Vec<usize>>>,
    contains: Table<String, Table<String, Vec<usize>>>,
}

impl RoleIndex {
    /// Compiles the roles of a bundle.
    #[must_use]
    pub fn compile(model: &Model) -> Self {
        let mut index = Self { tree: vec![SegmentNode::default()], ..Self::default() };
        for (role, (name, members)) in model.roles.iter().enumerate() {
            index.roles.push(RoleRules {
                name: name.clone(),
                memory: members.memory,
                is_harness: members.harness,
                is_implicit: members.is_implicit && model.tasks.implicit.is_some(),
                has_controls: members.has_controls,
                subject_rule: members.subject,
            });
            index.has_subject_rules |= members.subject.is_some();
            index.has_controlling_roles |= members.has_controls;
            index.has_implicit_roles |= members.is_implicit && model.tasks.implicit.is_some();
            for agent in &members.agents {
                if agent.value.contains('*') {
                    index.insert_pattern(&agent.value, role);
                } else {
                    index.exact.entry(agent.value.clone()).or_default().push(role);
                }
            }
            for subject in &members.subjects {
                let issuer = index.issuers.entry(subject.issuer.clone()).or_default();
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
        index
    }

    fn insert_pattern(&mut self, pattern: &str, role: usize) {
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
                self.tree.push(SegmentNode::default());
            }
            at = next;
        }
        if let Some(node) = self.tree.get_mut(at) {
            node.roles.push(role);
        }
    }

    fn positions_of_agent(&self, spiffe_id: &str) -> Positions {
        let mut found = Positions::new();
        found.extend(self.exact.get(spiffe_id).into_iter().flatten().copied());
        let mut reached: SmallVec<[&SegmentNode; 8]> = self.tree.first().into_iter().collect();
        // An id with more segments than any pattern leaves the tree. The bound makes this independent of the tree.
        for (i, segment) in segments(spiffe_id).enumerate() {
            if i >= MOST_SEGMENTS || segment.is_empty() {
                return found;
            }
            let mut next: SmallVec<[&SegmentNode; 8]> = SmallVec::new();
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

    fn positions_of_subject(&self, subject: &Subject) -> Positions {
        let mut found = self.positions_by_claims(subject, &subject.claims);
        for narrowing in &subject.narrowed {
            let before =
                narrowing.from.as_ref().map(|claims| self.positions_by_claims(subject, claims));
            let after = self.positions_by_claims(subject, &narrowing.to);
            found.retain(|role| {
                after.contains(role) || before.as_ref().is_some_and(|had| !had.contains(role))
            });
        }
        found
    }

    /// The roles of a subject with these claims.
    fn positions_by_claims(
        &self,
        subject: &Subject,
        claims: &BTreeMap<String, Claim>,
    ) -> Positions {
        let mut found = Positions::new();
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
                // `sub` is the field of the subject. A claim with that name does not count.
                Claim::Text(_) if claim == "sub" => {}
                Claim::Text(text) => take(&issuer.equals, claim, text),
                Claim::Texts(texts) => texts.iter().for_each(|t| take(&issuer.contains, claim, t)),
                Claim::Bool(_) | Claim::Long(_) => {}
            }
        }
        found
    }

    /// The names of roles at these positions.
    fn names_at(&self, mut positions: Positions) -> Roles<'_> {
        positions.sort_unstable();
        positions.dedup();
        let roles = positions.iter().filter_map(|role| self.roles.get(*role));
        roles.map(|role| role.name.as_str()).collect()
    }

    /// The rules of each role of an agent.
    fn rules_of(&self, spiffe_id: &str) -> impl Iterator<Item = &RoleRules> {
        self.positions_of_agent(spiffe_id).into_iter().filter_map(|role| self.roles.get(role))
    }

    /// The roles of an agent: sorted, each once; empty for an id that no registration names.
    #[must_use]
    pub fn agent_roles(&self, spiffe_id: &str) -> Roles<'_> {
        self.names_at(self.positions_of_agent(spiffe_id))
    }

    /// The memory that an agent has of tasks that ended, over all its roles. An agent without a role is not isolated.
    #[must_use]
    pub fn memory_of(&self, spiffe_id: &str) -> AgentMemory {
        let memories = self.rules_of(spiffe_id).map(|role| role.memory);
        memories.reduce(AgentMemory::join).unwrap_or_default()
    }

    /// The record that remembers the labels of a call in a task, and the time for which it does.
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

    /// The speaker of a user's words that an agent relays: a harness if the agent has the role of one and the user is proved,
    /// otherwise the agent itself.
    #[must_use]
    pub fn speaker_of(&self, spiffe_id: &str, is_subject_proved: bool) -> Speaker {
        match is_subject_proved && self.rules_of(spiffe_id).any(|role| role.is_harness) {
            true => Speaker::Harness,
            false => Speaker::Agent,
        }
    }

    /// Whether an agent works without tasks, by one of its roles.
    #[must_use]
    pub fn is_implicit(&self, spiffe_id: &str) -> bool {
        self.has_implicit_roles && self.rules_of(spiffe_id).any(|role| role.is_implicit)
    }

    /// Whether an agent steers a browser, a desktop or a shell, by one of its roles.
    #[must_use]
    pub fn has_controls(&self, spiffe_id: &str) -> bool {
        self.has_controlling_roles && self.rules_of(spiffe_id).any(|role| role.has_controls)
    }

    /// Whether an agent names a subject in calls without a task. `None`: no role of the agent has a rule about it.
    #[must_use]
    pub fn subject_rule(&self, spiffe_id: &str) -> Option<OnBehalf> {
        if !self.has_subject_rules {
            return None;
        }
        self.rules_of(spiffe_id).filter_map(|role| role.subject_rule).min()
    }

    /// The roles of a subject: sorted, each once. A claim that is one text never counts as a list.
    #[must_use]
    pub fn subject_roles(&self, subject: &Subject) -> Roles<'_> {
        self.names_at(self.positions_of_subject(subject))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Declared, Location, SubjectMatch};
    use authz_base::principal::Narrowing;

    fn index(agents: &[(&str, &str)], subjects: &[(&str, ClaimTest)]) -> RoleIndex {
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
        RoleIndex::compile(&model)
    }

    #[test]
    fn a_star_stands_for_exactly_one_segment() {
        let index = index(
            &[
                ("bot", "spiffe://a.example/ns/*/sa/bot"),
                ("any", "spiffe://a.example/ns/support/sa/*"),
                ("one", "spiffe://a.example/ns/support/sa/bot"),
            ],
            &[],
        );
        let roles = |id| index.agent_roles(id).to_vec();
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
        let index = index(
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
            index.subject_roles(&subject).to_vec()
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
        let index = index(
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
            index
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
