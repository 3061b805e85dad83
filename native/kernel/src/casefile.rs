//! Tests of a bundle: who asks for what, and what must come of it.
//!
//! The same files run here, against the kernel alone, and over every surface of a server.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decide::decide;
use crate::decision::{
    Claim, Decision, Facts, Outcome, Principal, Proof, ProofMethod, Request, Subject, Time,
};
use crate::diagnostic::{Diagnostic, clip, unknown};
use crate::model::Location;
use crate::plan::Plan;
use crate::source::{At, Many, Mark, duration, pretty, read_yaml};

/// Failures that a report lists; the rest are counted.
const MOST_FAILURES: usize = 200;
/// Tests in one file, and steps in one test.
const MOST_TESTS: usize = 10_000;

/// A file of cases.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Authz case file")]
pub struct CaseFile {
    /// The bundle to load, for runs over a server; a bundle's own tests run under that bundle.
    bundle: Option<String>,
    /// Principals, by the names that the tests give them.
    #[serde(default)]
    fixtures: Fixtures,
    /// The tests.
    tests: Vec<At<Test>>,
}

/// Principals by name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fixtures {
    /// Subjects, by name; the name is the default of `sub`.
    #[serde(default)]
    subjects: BTreeMap<String, SubjectFixture>,
    /// SPIFFE ids, by name.
    #[serde(default)]
    agents: BTreeMap<String, String>,
}

/// A verified subject.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SubjectFixture {
    /// Alias of the issuer.
    issuer: String,
    /// What the issuer's tokens speak of; default `user`.
    #[serde(default)]
    kind: SubjectWord,
    /// `sub` of the token; default: the name of the fixture.
    sub: Option<String>,
    /// Kept claims.
    #[serde(default)]
    claims: BTreeMap<String, ClaimEntry>,
    /// `acr` of the token.
    #[serde(default)]
    acr: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SubjectWord {
    /// A person.
    #[default]
    User,
    /// A service.
    Service,
}

/// A claim: true or false, a whole number, a text, or a list of texts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum ClaimEntry {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Long(i64),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}

/// A single case, or a trace of steps by the same caller.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Test {
    /// Name of a test with `steps`.
    trace: Option<At<String>>,
    /// Name of a test with one `call`.
    case: Option<At<String>>,
    /// Who acts.
    r#as: Option<At<Chain>>,
    /// Name of the enforcer that asks; default: none, the caller asks about itself.
    #[serde(default)]
    enforcer: String,
    /// Not in this version.
    task: Option<At<serde_json::Value>>,
    /// For runs over a server: credentials that are to be refused. Such a test is not run here.
    evidence: Option<serde_json::Value>,
    /// The steps of a trace, in order.
    steps: Option<Vec<At<Step>>>,
    /// The operation of a single case.
    call: Option<At<String>>,
    /// Its arguments.
    input: Option<serde_json::Value>,
    /// Its resource, where the operation's rule names none.
    resource: Option<String>,
    /// Its destinations, where the operation's rule names no argument.
    #[serde(default)]
    destinations: Many<String>,
    /// Obligations that the enforcer can carry out.
    #[serde(default)]
    supported_obligations: Many<String>,
    /// What must come of it.
    expect: Option<Expect>,
}

/// Who acts: the agent for the subject, or one of them alone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Chain {
    /// A name of `fixtures.agents`, or a SPIFFE id.
    agent: Option<At<String>>,
    /// A name of `fixtures.subjects`.
    subject: Option<At<String>>,
    /// How old the caller's credential is: `30s`, `15m`; default: just issued.
    age: Option<At<String>>,
}

/// One call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Step {
    /// The operation.
    call: At<String>,
    /// Its arguments.
    input: Option<serde_json::Value>,
    /// Its resource, where the operation's rule names none.
    resource: Option<String>,
    /// Its destinations, where the operation's rule names no argument.
    #[serde(default)]
    destinations: Many<String>,
    /// Obligations that the enforcer can carry out.
    #[serde(default)]
    supported_obligations: Many<String>,
    /// What must come of it.
    expect: Expect,
}

/// What must come of a call: the outcome, or more. What is not said is not compared.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
enum Expect {
    /// The outcome.
    Outcome(OutcomeWord),
    /// The outcome and more.
    Object(Box<ExpectObject>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum OutcomeWord {
    /// May be performed.
    Permit,
    /// Not yet.
    StepUp,
    /// May not.
    Deny,
}

/// What must come of a call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpectObject {
    /// The outcome.
    outcome: OutcomeWord,
    /// The reason code, `FORBIDDEN`.
    code: Option<String>,
    /// All step-up kinds, in any order.
    kinds: Option<BTreeSet<String>>,
    /// One of the policies that determined the outcome, by `@id`.
    policy: Option<String>,
    /// All policies that determined the outcome, in any order.
    policies: Option<BTreeSet<String>>,
    /// All obligations, in any order.
    obligations: Option<BTreeSet<String>>,
    /// All controls, in any order.
    controls: Option<BTreeSet<String>>,
    /// What the agent sees, `DENIED`.
    public_code: Option<String>,
    /// What the agent can do, `NONE`.
    next_action: Option<String>,
    /// The effective tier.
    tier: Option<String>,
    /// The Cedar resource, `Resource::"customers/42"`.
    resource: Option<String>,
    /// The class of the worst destination.
    destination_class: Option<String>,
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Expect;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("PERMIT, STEP_UP, DENY, or a mapping with `outcome`")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Expect, E> {
                let word = serde::de::value::StrDeserializer::<E>::new(v);
                OutcomeWord::deserialize(word).map(Expect::Outcome)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Expect, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                ExpectObject::deserialize(map).map(|o| Expect::Object(Box::new(o)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Steps that came out as expected.
    pub passed: usize,
    /// Tests that only a server can run.
    pub skipped: usize,
    /// Steps that did not come out as expected, and files that could not be read; at most 200.
    pub failed: Vec<Failure>,
    /// Failures beyond those listed.
    pub omitted: usize,
}

impl Report {
    /// Whether nothing failed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failed.is_empty() && self.omitted == 0
    }

    fn fail(&mut self, failure: Failure) {
        if self.failed.len() < MOST_FAILURES {
            self.failed.push(failure);
        } else {
            self.omitted += 1;
        }
    }
}

/// A step that did not come out as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The file.
    pub file: String,
    /// The line of the step, from 1; 0 where unknown.
    pub line: u32,
    /// Name of the test.
    pub test: String,
    /// Which step, from 1; 0 where the file could not be read.
    pub step: usize,
    /// What was expected, `outcome: DENY, code: FORBIDDEN`.
    pub expected: String,
    /// What came instead, in the same fields.
    pub actual: String,
    /// What happened, from the decision; or what is wrong with the file.
    pub message: String,
}

/// Whoever can judge a request: a compiled bundle.
pub trait Judge {
    /// Judges one request.
    fn judge(&self, facts: &Facts<'_>, request: &Request<'_>, now: Time) -> Decision;

    /// What `${…}` stands for.
    fn vars(&self) -> &BTreeMap<String, String>;
}

impl Judge for Plan {
    fn judge(&self, facts: &Facts<'_>, request: &Request<'_>, now: Time) -> Decision {
        decide(self, facts, request, now)
    }

    fn vars(&self) -> &BTreeMap<String, String> {
        &self.model().vars
    }
}

/// JSON Schema (draft 2020-12) of case files.
#[must_use]
pub fn case_schema() -> String {
    pretty(&schemars::schema_for!(CaseFile))
}

/// Reads a case file, `${vars}` filled in.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(
    file: &str,
    bytes: &[u8],
    vars: &BTreeMap<String, String>,
) -> Result<CaseFile, Diagnostic> {
    let cases: CaseFile = read_yaml(file, bytes, vars)?;
    if cases.tests.len() > MOST_TESTS {
        let at = Mark::default().within(file);
        return Err(Diagnostic::error(
            &at,
            format!("more than {MOST_TESTS} tests"),
            "Split the file.",
        ));
    }
    for test in &cases.tests {
        cases.check(file, test)?;
    }
    Ok(cases)
}

/// Runs case files, by path, against a compiled bundle, as if it were `now`.
#[must_use]
pub fn run(judge: &impl Judge, files: &BTreeMap<String, Vec<u8>>, now: Time) -> Report {
    let mut report = Report::default();
    for (file, bytes) in files {
        match parse(file, bytes, judge.vars()) {
            Ok(cases) => cases.run(file, judge, now, &mut report),
            Err(error) => report.fail(Failure {
                file: file.clone(),
                line: error.line,
                test: String::new(),
                step: 0,
                expected: String::new(),
                actual: String::new(),
                message: error.to_string(),
            }),
        }
    }
    report
}

impl CaseFile {
    /// The bundle that the file asks for, where it does.
    #[must_use]
    pub fn bundle(&self) -> Option<&str> {
        self.bundle.as_deref()
    }

    fn check(&self, file: &str, test: &At<Test>) -> Result<(), Diagnostic> {
        let at = |mark: Mark| mark.within(file);
        let fail =
            |mark: Mark, what: &str, mend: &str| Err(Diagnostic::error(&at(mark), what, mend));
        let said = &test.value;
        let inline = said.call.is_some() || said.input.is_some() || said.expect.is_some();
        match (&said.trace, &said.case) {
            (Some(_), None) | (None, Some(_)) => {}
            _ => return fail(test.at, "a test has a name: either `trace` or `case`", "Add one."),
        }
        match &said.steps {
            Some(steps) if steps.is_empty() => {
                return fail(test.at, "`steps` is empty", "Add a step.");
            }
            Some(steps) if steps.len() > MOST_TESTS => {
                return fail(test.at, "too many steps", "Split the test.");
            }
            Some(_) if inline => {
                let what = "a test has either `steps`, or `call`, `input` and `expect` of its own";
                return fail(test.at, what, "Move the call into `steps`.");
            }
            Some(_) => {}
            None if said.call.is_none() || said.expect.is_none() => {
                let what = "a test needs `call` and `expect`, or `steps`";
                return fail(test.at, what, "Say what is called, and what must come of it.");
            }
            None => {}
        }
        if let Some(task) = &said.task {
            return fail(task.at, "`task` is not in this version", "Remove it.");
        }
        if said.evidence.is_none() {
            self.chain(file, test)?;
        }
        Ok(())
    }

    /// The chain of a test, how old the caller's credential is, and the `acr` of the subject's.
    fn chain(
        &self,
        file: &str,
        test: &At<Test>,
    ) -> Result<(Vec<Principal>, i64, &str), Diagnostic> {
        let at = test.value.r#as.as_ref().map_or(test.at, |who| who.at).within(file);
        let Some(who) = test.value.r#as.as_ref().map(|who| &who.value) else {
            return Err(Diagnostic::error(
                &at,
                "`as` is missing",
                "Add `as: {agent: …, subject: …}`.",
            ));
        };
        let mut chain = Vec::new();
        let mut acr = "";
        if let Some(name) = &who.subject {
            let Some(fixture) = self.fixtures.subjects.get(&name.value) else {
                return Err(unknown_name(file, "subject", name, self.fixtures.subjects.keys()));
            };
            acr = &fixture.acr;
            chain.push(fixture.principal(&name.value));
        }
        if let Some(name) = &who.agent {
            let id = match self.fixtures.agents.get(&name.value) {
                Some(id) => id,
                None if name.value.starts_with("spiffe://") => &name.value,
                None => return Err(unknown_name(file, "agent", name, self.fixtures.agents.keys())),
            };
            let domain = id.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
            let Some(domain) = domain.filter(|domain| !domain.is_empty()) else {
                let what = format!("`{}` is no SPIFFE id", clip(id));
                return Err(Diagnostic::error(&name.at.within(file), what, ""));
            };
            chain.push(Principal::Agent { spiffe_id: id.clone(), trust_domain: domain.to_owned() });
        }
        if chain.is_empty() {
            return Err(Diagnostic::error(
                &at,
                "`as` names nobody",
                "Add `agent`, `subject`, or both.",
            ));
        }
        let age = match &who.age {
            None => 0,
            Some(text) => match duration(&text.value) {
                Some(age) => i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
                None => {
                    let what = format!("`{}` is no duration", clip(&text.value));
                    return Err(Diagnostic::error(
                        &text.at.within(file),
                        what,
                        "Write 30s or 15m.",
                    ));
                }
            },
        };
        Ok((chain, age, acr))
    }

    fn run(&self, file: &str, judge: &impl Judge, now: Time, report: &mut Report) {
        for test in &self.tests {
            if test.value.evidence.is_some() {
                report.skipped += 1;
                continue;
            }
            // `parse` has checked this already; a failure here is reported all the same.
            let (chain, age, acr) = match self.chain(file, test) {
                Ok(chain) => chain,
                Err(error) => {
                    report.fail(Failure {
                        file: file.to_owned(),
                        line: error.line,
                        test: test.value.name().to_owned(),
                        step: 0,
                        expected: String::new(),
                        actual: String::new(),
                        message: error.to_string(),
                    });
                    continue;
                }
            };
            let method = match chain.last() {
                Some(Principal::Agent { .. }) => ProofMethod::JwtSvid,
                _ => ProofMethod::Jwt,
            };
            let facts = Facts {
                enforcer: &test.value.enforcer,
                chain: &chain,
                proof: Proof { method, bound: false, age: Some(age), acr },
                confidence: 0,
            };
            for (index, step) in test.value.calls(test.at).enumerate() {
                let decision = step.judge(judge, &facts, now);
                let (expected, actual) = step.expect.compare(&decision);
                if expected == actual {
                    report.passed += 1;
                    continue;
                }
                report.fail(Failure {
                    file: file.to_owned(),
                    line: step.at.line,
                    test: test.value.name().to_owned(),
                    step: index + 1,
                    expected: expected.join(", "),
                    actual: actual.join(", "),
                    message: decision.message,
                });
            }
        }
    }
}

/// One call of a test, wherever it is written.
struct Call<'a> {
    at: Mark,
    operation: &'a str,
    input: Option<&'a serde_json::Value>,
    resource: Option<&'a str>,
    destinations: &'a [String],
    obligations: &'a [String],
    expect: &'a Expect,
}

impl Call<'_> {
    fn judge(&self, judge: &impl Judge, facts: &Facts<'_>, now: Time) -> Decision {
        let arguments = self.input.map(ToString::to_string).unwrap_or_default();
        let destinations: Vec<&str> = self.destinations.iter().map(String::as_str).collect();
        let obligations: Vec<&str> = self.obligations.iter().map(String::as_str).collect();
        let request = Request {
            operation: self.operation,
            arguments: arguments.as_bytes(),
            resource: self.resource,
            destinations: &destinations,
            supported_obligations: &obligations,
        };
        judge.judge(facts, &request, now)
    }
}

impl Test {
    fn name(&self) -> &str {
        self.trace.as_ref().or(self.case.as_ref()).map_or("", |name| &name.value)
    }

    fn calls(&self, at: Mark) -> impl Iterator<Item = Call<'_>> {
        let steps = self.steps.iter().flatten().map(|step| Call {
            at: step.at,
            operation: &step.value.call.value,
            input: step.value.input.as_ref(),
            resource: step.value.resource.as_deref(),
            destinations: &step.value.destinations.0,
            obligations: &step.value.supported_obligations.0,
            expect: &step.value.expect,
        });
        let own = self.call.as_ref().zip(self.expect.as_ref()).map(|(call, expect)| Call {
            at,
            operation: &call.value,
            input: self.input.as_ref(),
            resource: self.resource.as_deref(),
            destinations: &self.destinations.0,
            obligations: &self.supported_obligations.0,
            expect,
        });
        steps.chain(own)
    }
}

impl SubjectFixture {
    fn principal(&self, name: &str) -> Principal {
        let claim = |entry: &ClaimEntry| match entry {
            ClaimEntry::Bool(v) => Claim::Bool(*v),
            ClaimEntry::Long(v) => Claim::Long(*v),
            ClaimEntry::Text(v) => Claim::Text(v.clone()),
            ClaimEntry::Texts(v) => Claim::Texts(v.clone()),
        };
        let subject = Subject {
            issuer: self.issuer.clone(),
            sub: self.sub.clone().unwrap_or_else(|| name.to_owned()),
            claims: self.claims.iter().map(|(n, c)| (n.clone(), claim(c))).collect(),
        };
        match self.kind {
            SubjectWord::User => Principal::User(subject),
            SubjectWord::Service => Principal::Service(subject),
        }
    }
}

impl OutcomeWord {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "PERMIT",
            Self::StepUp => "STEP_UP",
            Self::Deny => "DENY",
        }
    }
}

impl From<Outcome> for OutcomeWord {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Permit => Self::Permit,
            Outcome::StepUp => Self::StepUp,
            Outcome::Deny => Self::Deny,
        }
    }
}

impl Expect {
    /// The expected fields, and the same fields of the decision.
    fn compare(&self, decision: &Decision) -> (Vec<String>, Vec<String>) {
        let got = OutcomeWord::from(decision.outcome);
        let field = |name: &str, value: &str| format!("{name}: {value}");
        let said = match self {
            Self::Outcome(word) => {
                let mut actual = vec![field("outcome", got.as_str())];
                if *word != got {
                    actual.push(field("code", decision.reason.as_str()));
                    actual.push(set("policies", &decision.policies));
                }
                return (vec![field("outcome", word.as_str())], actual);
            }
            Self::Object(said) => said,
        };
        let mut expected = vec![field("outcome", said.outcome.as_str())];
        let mut actual = vec![field("outcome", got.as_str())];
        let row = decision.reason.row();
        let tier = decision.tier.map_or("", |tier| tier.as_str());
        for (name, wanted, got) in [
            ("code", &said.code, decision.reason.as_str()),
            ("public_code", &said.public_code, row.public_code.as_str()),
            ("next_action", &said.next_action, row.next_action.as_str()),
            ("tier", &said.tier, tier),
            ("resource", &said.resource, &decision.resource),
            ("destination_class", &said.destination_class, &decision.destination_class),
        ] {
            if let Some(wanted) = wanted {
                expected.push(field(name, wanted));
                actual.push(field(name, got));
            }
        }
        if let Some(policy) = &said.policy {
            expected.push(field("policy", policy));
            actual.push(if decision.policies.contains(policy) {
                field("policy", policy)
            } else {
                set("policies", &decision.policies)
            });
        }
        for (name, wanted, got) in [
            ("kinds", &said.kinds, &decision.kinds),
            ("policies", &said.policies, &decision.policies),
            ("obligations", &said.obligations, &decision.obligations),
            ("controls", &said.controls, &decision.controls),
        ] {
            if let Some(wanted) = wanted {
                expected.push(set(name, wanted));
                actual.push(set(name, got));
            }
        }
        (expected, actual)
    }
}

fn set<'a>(name: &str, values: impl IntoIterator<Item = &'a String>) -> String {
    let sorted: BTreeSet<&str> = values.into_iter().map(String::as_str).collect();
    format!("{name}: [{}]", sorted.into_iter().collect::<Vec<_>>().join(", "))
}

fn unknown_name<'a>(
    file: &str,
    kind: &str,
    name: &At<String>,
    declared: impl Iterator<Item = &'a String>,
) -> Diagnostic {
    let declared: Vec<(&str, Option<&Location>)> = declared.map(|n| (n.as_str(), None)).collect();
    let (what, mend) = unknown(kind, &name.value, declared);
    let mend = format!("{mend} Tests name their principals under `fixtures`.");
    Diagnostic::error(&name.at.within(file), what, mend.trim_start())
}
