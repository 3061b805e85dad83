//! Example principals: for each pattern and claim by which a bundle gives roles, a principal that has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_base::spiffe::segments;

use crate::decision::{Claim, Principal, Subject};
use crate::model::{ClaimTest, Model};

/// Stands for any segment of a SPIFFE id, and for the name of any person.
const ANY: &str = "example";

/// A principal that holds a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExamplePrincipal {
    /// The role.
    pub role: String,
    /// The principal. It may hold other roles, too.
    pub principal: Principal,
}

/// An agent for each pattern of each role, in the order of the roles.
#[must_use]
pub fn example_agents(model: &Model) -> Vec<ExamplePrincipal> {
    let of_role = |(role, members): (&String, &crate::model::RoleMembers)| {
        let role = role.clone();
        let patterns = members.agents.iter().map(|agent| agent.value.clone());
        patterns
            .map(move |pattern| ExamplePrincipal { role: role.clone(), principal: agent(&pattern) })
            .collect::<Vec<_>>()
    };
    model.roles.iter().flat_map(of_role).collect()
}

/// A person for each claim that gives a role, in the order of the roles.
#[must_use]
pub fn example_subjects(model: &Model) -> Vec<ExamplePrincipal> {
    let mut examples = Vec::new();
    for (role, members) in &model.roles {
        for member in &members.subjects {
            let mut claims = BTreeMap::new();
            add(&mut claims, &member.test);
            let principal = person(&member.issuer, claims);
            examples.push(ExamplePrincipal { role: role.clone(), principal });
        }
    }
    examples
}

/// For each issuer, a person whose claims give every role that the bundle gives to people of the issuer, as far as one person can
/// have them all.
#[must_use]
pub fn versatile_subjects(model: &Model) -> Vec<Principal> {
    let mut by_issuer: BTreeMap<&str, BTreeMap<String, Claim>> = BTreeMap::new();
    for member in model.roles.values().flat_map(|members| &members.subjects) {
        add(by_issuer.entry(&member.issuer).or_default(), &member.test);
    }
    by_issuer.into_iter().map(|(issuer, claims)| person(issuer, claims)).collect()
}

/// Adds a claim that passes a test. A claim has one text, so the first test for equality wins.
fn add(claims: &mut BTreeMap<String, Claim>, test: &ClaimTest) {
    match test {
        ClaimTest::Any => {}
        ClaimTest::Equals(name, value) => {
            claims.entry(name.clone()).or_insert_with(|| Claim::Text(value.clone()));
        }
        ClaimTest::Contains(name, value) => {
            let texts = match claims.remove(name) {
                Some(Claim::Texts(texts)) => texts,
                Some(Claim::Text(text)) => [text].into(),
                _ => Default::default(),
            };
            let texts: BTreeSet<String> = texts.into_iter().chain([value.clone()]).collect();
            claims.insert(name.clone(), Claim::Texts(texts.into_iter().collect()));
        }
    }
}

fn person(issuer: &str, claims: BTreeMap<String, Claim>) -> Principal {
    let (issuer, sub) = (issuer.to_owned(), ANY.to_owned());
    Principal::User(Arc::new(Subject { issuer, sub, claims, ..Subject::default() }))
}

/// An agent that a pattern matches.
fn agent(pattern: &str) -> Principal {
    let filled: Vec<&str> =
        segments(pattern).map(|segment| if segment == "*" { ANY } else { segment }).collect();
    let spiffe_id = match pattern.contains('*') {
        true => format!("spiffe://{}", filled.join("/")),
        false => pattern.to_owned(),
    };
    let trust_domain = filled.first().copied().unwrap_or_default().to_owned();
    Principal::Agent { spiffe_id, trust_domain }
}
