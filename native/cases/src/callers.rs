//! The callers that a case file states: names of its fixtures become identities.

use std::collections::BTreeMap;

use authz_bundle::source::{At, Mark, duration};
use authz_kernel::decision::Claim;
use authz_kernel::diagnostic::{Diagnostic, clip, unknown};
use authz_kernel::model::Location;
use authz_kernel::task::AgentName;
use authz_lane::offline::{StatedCaller, StatedSubject};
use authz_token::SubjectKind;

use crate::case_file::{CallerForm, CaseFile, ClaimEntry, StartForm, SubjectFixture, SubjectWord};
use crate::steps::TestStep;

/// Step-up kinds that people meet, besides `approve:ROLE`.
const MET_BY_PEOPLE: [&str; 3] = ["confirm", "approve", "two_person"];

/// The parties of a task that is started.
pub(crate) struct StartParties {
    pub(crate) assignee: AgentName,
    pub(crate) subject: Option<StatedSubject>,
    /// The agent that starts the task. `None`: the subject starts it.
    pub(crate) starter: Option<AgentName>,
    /// Lifetime of the task, in milliseconds. `None`: the longest that is allowed.
    pub(crate) lifetime_ms: Option<i64>,
}

impl CaseFile {
    /// The caller that a step names; none where it names nobody.
    pub(crate) fn caller(
        &self,
        file: &str,
        step: &TestStep<'_>,
    ) -> Result<Option<StatedCaller>, Diagnostic> {
        let Some(form) = step.caller.map(|form| &form.value) else { return Ok(None) };
        let CallerForm { agent, subject, age, bound, confidence, satisfied } = form;
        let satisfied =
            satisfied.0.iter().map(|kind| met_by_people(file, kind)).collect::<Result<_, _>>()?;
        let mut caller = StatedCaller {
            is_bound: *bound,
            confidence: *confidence,
            satisfied,
            ..StatedCaller::default()
        };
        if let Some(name) = subject {
            caller.subject = Some(self.subject(file, name)?);
        }
        if let Some(name) = agent {
            caller.agent = Some(self.caller_agent(file, name)?);
        } else if let Some(subject) = &mut caller.subject {
            subject.is_alone = true;
        }
        if let Some(text) = age {
            let Some(age) = duration(&text.value) else {
                return Err(not_a_duration(file, text));
            };
            caller.age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        }
        Ok((caller.agent.is_some() || caller.subject.is_some()).then_some(caller))
    }

    /// The agent that calls, of which only the trust domain is read.
    fn caller_agent(&self, file: &str, name: &At<String>) -> Result<AgentName, Diagnostic> {
        let id = self.spiffe_id(file, name)?;
        let domain = id.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
        let Some(domain) = domain.filter(|domain| !domain.is_empty()) else {
            let problem = format!("`{}` is no SPIFFE id", clip(id));
            let fix = "Write `spiffe://trust.domain/path`.";
            return Err(Diagnostic::error(&name.at.within(file), problem, fix));
        };
        Ok(AgentName { spiffe_id: id.to_owned(), trust_domain: domain.to_owned() })
    }

    /// An agent that gets or starts a task.
    pub(crate) fn agent(&self, file: &str, name: &At<String>) -> Result<AgentName, Diagnostic> {
        let id = self.spiffe_id(file, name)?;
        AgentName::parse(id).map_err(|why| {
            let problem = format!("`{}` is no SPIFFE id: {why}", clip(id));
            let fix = "Write `spiffe://trust.domain/path`.";
            Diagnostic::error(&name.at.within(file), problem, fix)
        })
    }

    fn spiffe_id<'a>(&'a self, file: &str, name: &'a At<String>) -> Result<&'a str, Diagnostic> {
        match self.fixtures.agents.get(&name.value) {
            Some(id) => Ok(id),
            None if name.value.starts_with("spiffe://") => Ok(&name.value),
            None => Err(unknown_name(file, "agent", name, self.fixtures.agents.keys())),
        }
    }

    pub(crate) fn subject(
        &self,
        file: &str,
        name: &At<String>,
    ) -> Result<StatedSubject, Diagnostic> {
        match self.fixtures.subjects.get(&name.value) {
            Some(fixture) => Ok(fixture.stated(&name.value)),
            None => Err(unknown_name(file, "subject", name, self.fixtures.subjects.keys())),
        }
    }

    /// The parties of a task that is started.
    ///
    /// Args: `caller`: the caller of the test; `at`: place of the start.
    pub(crate) fn start_parties(
        &self,
        file: &str,
        form: &StartForm,
        caller: Option<&CallerForm>,
        at: Mark,
    ) -> Result<StartParties, Diagnostic> {
        let agent = form.agent.as_ref().or(caller.and_then(|caller| caller.agent.as_ref()));
        let Some(agent) = agent else {
            let fix = "Say `agent`, the one that gets it.";
            return Err(Diagnostic::error(&at.within(file), "nobody gets the task", fix));
        };
        let assignee = self.agent(file, agent)?;
        let subject = form.subject.as_ref().or(caller.and_then(|caller| caller.subject.as_ref()));
        let subject = subject.map(|name| self.subject(file, name)).transpose()?;
        let starter = match &form.by {
            Some(name) => Some(self.agent(file, name)?),
            None => subject.is_none().then(|| assignee.clone()),
        };
        if form.asserted && (form.by.is_none() || subject.is_none()) {
            let fix = "Say `by`, the agent that says so, and `subject`.";
            return Err(Diagnostic::error(&at.within(file), "nobody asserts a subject", fix));
        }
        let lifetime_ms = milliseconds(file, form.deadline.as_ref())?;
        Ok(StartParties { assignee, subject, starter, lifetime_ms })
    }
}

/// A step-up kind that people meet.
///
/// # Errors
/// No person meets a step-up of this kind.
fn met_by_people(file: &str, kind: &At<String>) -> Result<String, Diagnostic> {
    let role = kind.value.strip_prefix("approve:").unwrap_or_default();
    if MET_BY_PEOPLE.contains(&kind.value.as_str()) || !role.is_empty() {
        return Ok(kind.value.clone());
    }
    let problem = format!("people do not meet a step-up of the kind `{}`", clip(&kind.value));
    let fix = format!(
        "Known are {}, approve:ROLE. A better proof is said by `bound`, `age`, and `acr` of the subject.",
        MET_BY_PEOPLE.join(", ")
    );
    Err(Diagnostic::error(&kind.at.within(file), problem, fix))
}

impl SubjectFixture {
    /// Args: `name`: name of the fixture.
    fn stated(&self, name: &str) -> StatedSubject {
        let claim = |entry: &ClaimEntry| match entry {
            ClaimEntry::Bool(value) => Claim::Bool(*value),
            ClaimEntry::Long(value) => Claim::Long(*value),
            ClaimEntry::Text(value) => Claim::Text(value.clone()),
            ClaimEntry::Texts(value) => Claim::Texts(value.clone()),
        };
        let claims: BTreeMap<String, Claim> =
            self.claims.iter().map(|(name, entry)| (name.clone(), claim(entry))).collect();
        StatedSubject {
            issuer: self.issuer.clone(),
            sub: self.sub.clone().unwrap_or_else(|| name.to_owned()),
            kind: match self.kind {
                SubjectWord::User => SubjectKind::User,
                SubjectWord::Service => SubjectKind::Service,
            },
            claims,
            acr: self.acr.clone(),
            is_alone: false,
        }
    }
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(
    file: &str,
    text: Option<&At<String>>,
) -> Result<Option<i64>, Diagnostic> {
    let Some(text) = text else { return Ok(None) };
    match duration(&text.value).and_then(|span| i64::try_from(span.as_millis()).ok()) {
        Some(span) => Ok(Some(span)),
        None => Err(not_a_duration(file, text)),
    }
}

fn not_a_duration(file: &str, text: &At<String>) -> Diagnostic {
    let problem = format!("`{}` is no duration", clip(&text.value));
    Diagnostic::error(&text.at.within(file), problem, "Write 30s or 15m.")
}

fn unknown_name<'a>(
    file: &str,
    kind: &str,
    name: &At<String>,
    declared: impl Iterator<Item = &'a String>,
) -> Diagnostic {
    let declared: Vec<(&str, Option<&Location>)> = declared.map(|n| (n.as_str(), None)).collect();
    let (problem, fix) = unknown(kind, &name.value, declared);
    let fix = format!("{fix} Tests name their principals under `fixtures`.");
    Diagnostic::error(&name.at.within(file), problem, fix.trim_start())
}
