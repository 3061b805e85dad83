//! Policies judged on recorded facts, of which some are missing or are digests.
//!
//! INVARIANT (no guess): a policy whose result depends on a missing fact is [`Finding::Open`].

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::Arc;

use cedar_policy_core::ast::{
    BinaryOp, Context, EntityUID, EntityUIDEntry, Expr, ExprKind, Literal, PartialValue, Request,
    UnaryOp, Unknown, Value, Var,
};
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::could::is_never;
use super::stated::verdict;
use super::{
    Known, Rule, StoreFacts, Unready, Words, agents, all_known, boolean, call, known, long, put,
    record, text,
};
use crate::arguments::ArgumentValue;
use crate::decision::{PolicyEffect, Verdict};
use crate::digest::sha256;
use crate::hex::hex;
use crate::model::{OriginSets, ValueRole};
use crate::rfc3339;
use crate::schema::{Key, Keys};

/// Result of a policy on recorded facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The facts decide it.
    Known(Verdict),
    /// It depends on a missing fact.
    Open {
        /// The conditions are never false: the policy fires or fails.
        never_false: bool,
        /// The conditions may fail to evaluate. A step-up lifts a forbid that fires, but not a forbid that fails.
        can_fail: bool,
    },
}

/// A text of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PartialText<'a> {
    /// The text itself.
    Clear(&'a str),
    /// SHA-256 of the text, in lower-case hex.
    Digest(&'a str),
    /// The record does not have it.
    Missing,
}

/// Facts of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartialTask<'a> {
    pub(crate) kind: &'a str,
    pub(crate) template: &'a str,
    pub(crate) purpose: PartialText<'a>,
    pub(crate) depth: Option<i64>,
    pub(crate) age: Option<i64>,
}

/// Facts of one destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartialDestination<'a> {
    pub(crate) class: &'a str,
    pub(crate) is_present: bool,
    pub(crate) is_trusted: Option<bool>,
    pub(crate) host: PartialText<'a>,
}

/// Facts of the caller's proof.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartialProof<'a> {
    pub(crate) method: &'a str,
    pub(crate) is_bound: bool,
    pub(crate) age: i64,
    pub(crate) acr: &'a str,
}

/// Facts of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartialSession<'a> {
    pub(crate) labels: &'a [&'a str],
    pub(crate) sources: i64,
    pub(crate) calls: i64,
}

/// Arguments of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartialInput<'a> {
    pub(crate) values: &'a [(SmolStr, ArgumentValue)],
    /// Members that are digests or left out: path, and the digest if there is one.
    pub(crate) masked: &'a [(Vec<String>, Option<String>)],
}

/// Facts of a recorded call. `None`: the record does not have the fact, or the fact may differ in the bundle that judges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartialFacts<'a> {
    pub(crate) chain: &'a [Arc<Known>],
    pub(crate) has_subject: bool,
    pub(crate) input: Option<PartialInput<'a>>,
    pub(crate) tier: Option<i64>,
    /// `Some(None)`: no task.
    pub(crate) task: Option<Option<PartialTask<'a>>>,
    pub(crate) subject_proof: Option<&'a str>,
    pub(crate) enforcer: &'a str,
    pub(crate) confidence: Option<i64>,
    pub(crate) destination: Option<PartialDestination<'a>>,
    pub(crate) origins: Option<OriginSets>,
    pub(crate) unknown_literals: Option<i64>,
    pub(crate) proof: Option<PartialProof<'a>>,
    pub(crate) satisfied: Option<&'a [String]>,
    pub(crate) time: i64,
    pub(crate) session: Option<PartialSession<'a>>,
    pub(crate) uncleared_labels: Option<&'a [&'a str]>,
    pub(crate) sequences: Option<&'a [&'a str]>,
    pub(crate) budgets: Option<&'a [&'a str]>,
    pub(crate) remembered: Option<&'a [&'a str]>,
    pub(crate) exceptions: Option<&'a [&'a str]>,
}

/// Paths below `context` that are not known.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnknownFacts {
    keys: Keys,
    /// Path, and the digest of its text if the record has one.
    paths: Vec<(Vec<String>, Option<String>)>,
}

impl UnknownFacts {
    fn add(&mut self, key: Key, members: &[&str], digest: Option<String>) {
        self.keys.insert(key);
        let path = [key.as_str()].into_iter().chain(members.iter().copied());
        self.paths.push((path.map(str::to_owned).collect(), digest));
    }

    fn add_text(&mut self, key: Key, members: &[&str], text: PartialText<'_>) {
        match text {
            PartialText::Clear(_) => {}
            PartialText::Digest(digest) => self.add(key, members, Some(digest.to_owned())),
            PartialText::Missing => self.add(key, members, None),
        }
    }

    /// Whether the value at a path, or a value that holds it, is not known.
    fn covers(&self, path: &[&str]) -> bool {
        self.paths.iter().any(|(unknown, _)| {
            unknown.len() <= path.len() && unknown.iter().zip(path).all(|(one, other)| one == other)
        })
    }

    /// Whether a part of the value at a path is not known.
    fn is_below(&self, path: &[&str]) -> bool {
        self.paths.iter().any(|(unknown, _)| {
            unknown.len() > path.len() && unknown.iter().zip(path).all(|(one, other)| one == other)
        })
    }

    fn digest(&self, path: &[&str]) -> Option<&str> {
        let found = self.paths.iter().find(|(unknown, _)| {
            unknown.len() == path.len() && unknown.iter().zip(path).all(|(one, other)| one == other)
        });
        found.and_then(|(_, digest)| digest.as_deref())
    }

    /// Names of the missing facts that policies with these keys can read, each as `context.…`.
    pub(crate) fn names(&self, keys: Keys) -> impl Iterator<Item = String> + '_ {
        let read = move |path: &Vec<String>| {
            path.first().and_then(|key| Key::parse(key)).is_some_and(|key| keys.contains(key))
        };
        self.paths.iter().filter(move |(path, _)| read(path)).map(|(path, digest)| {
            let name = format!("context.{}", path.join("."));
            if digest.is_some() { format!("{name} (a digest)") } else { name }
        })
    }
}

impl Words {
    /// The resource of a record, as its `type` and `id`. `None`: it has not the form of an entity.
    pub(crate) fn read_uid(text: &str) -> Option<(String, String)> {
        let uid = EntityUID::from_str(text).ok()?;
        let id: &str = uid.eid().as_ref();
        Some((uid.entity_type().to_string(), id.to_owned()))
    }

    /// The context of recorded facts, of only the keys that the slice reads, and the facts that it lacks.
    pub(crate) fn recorded_context(
        &self,
        keys: Keys,
        facts: &PartialFacts<'_>,
    ) -> (Context, UnknownFacts) {
        let mut unknown = UnknownFacts::default();
        let mut map: BTreeMap<SmolStr, Value> = BTreeMap::new();
        for key in Key::ALL {
            if !keys.contains(key) {
                continue;
            }
            match self.recorded_value(key, facts, &mut unknown) {
                Some(Ok(value)) => put(&mut map, key.as_str(), value),
                // A name that the bundle lacks has no value that its policies could compare.
                Some(Err(_)) | None => unknown.add(key, &[], None),
            }
        }
        (Context::Value(Arc::new(map)), unknown)
    }

    fn recorded_value(
        &self,
        key: Key,
        facts: &PartialFacts<'_>,
        unknown: &mut UnknownFacts,
    ) -> Option<Result<Value, Unready>> {
        let shown = |text_: PartialText<'_>| match text_ {
            PartialText::Clear(clear) => text(clear),
            PartialText::Digest(_) | PartialText::Missing => text(""),
        };
        Some(match key {
            Key::Input => {
                let input = facts.input?;
                for (path, digest) in input.masked {
                    let members: Vec<&str> = path.iter().map(String::as_str).collect();
                    unknown.add(key, &members, digest.clone());
                }
                self.record_of(input.values)
            }
            Key::Tier => Ok(long(facts.tier?)),
            Key::Task => match facts.task? {
                None => Ok(self.no_task.clone()),
                Some(task) => {
                    unknown.add_text(key, &["purpose"], task.purpose);
                    for (name, number) in [("depth", task.depth), ("age", task.age)] {
                        if number.is_none() {
                            unknown.add(key, &[name], None);
                        }
                    }
                    let (kind, template) =
                        (known(&self.task_kinds, task.kind), known(&self.templates, task.template));
                    kind.and_then(|kind| {
                        Ok(record([
                            ("kind", kind.into()),
                            ("template", template?.into()),
                            ("purpose", shown(task.purpose)),
                            ("depth", long(task.depth.unwrap_or(0))),
                            ("age", long(task.age.unwrap_or(0))),
                        ]))
                    })
                }
            },
            Key::SubjectProof => known(&self.proofs, facts.subject_proof?).map(Value::from),
            Key::Chain => {
                let uids = agents(facts.chain).map(|known| Literal::EntityUID(known.uid.clone()));
                Ok(record([
                    ("depth", long(i64::try_from(facts.chain.len()).unwrap_or(i64::MAX))),
                    ("agents", self.set(uids.collect())),
                    ("subject", boolean(facts.has_subject)),
                ]))
            }
            Key::Enforcer => Ok(text(facts.enforcer)),
            Key::Confidence => Ok(long(facts.confidence?)),
            Key::Destination => {
                let of = facts.destination?;
                unknown.add_text(key, &["host"], of.host);
                if of.is_trusted.is_none() {
                    unknown.add(key, &["trusted"], None);
                }
                known(&self.classes, of.class).map(|class| {
                    record([
                        ("class", class.into()),
                        ("trusted", boolean(of.is_trusted.unwrap_or(false))),
                        ("host", shown(of.host)),
                        ("present", boolean(of.is_present)),
                    ])
                })
            }
            Key::Origins => {
                let origins = facts.origins?;
                Ok(record(ValueRole::ALL.map(|role| {
                    let set = self.origin_sets.get(origins.of(role).index());
                    (role.as_str(), set.unwrap_or(&self.empty).clone())
                })))
            }
            Key::Literals => Ok(record([("unknown", long(facts.unknown_literals?))])),
            Key::Proof => {
                let proof = facts.proof?;
                known(&self.methods, proof.method).map(|method| {
                    record([
                        ("method", method.into()),
                        ("bound", boolean(proof.is_bound)),
                        ("age", long(proof.age)),
                        ("acr", text(proof.acr)),
                    ])
                })
            }
            Key::Satisfied => {
                let kinds = facts.satisfied?.iter().filter_map(|kind| self.kinds.get(kind));
                Ok(self.set(kinds.cloned().collect()))
            }
            Key::Time => call(&self.datetime, &[text(&rfc3339::millis(facts.time))]),
            Key::Session => {
                let session = facts.session?;
                Ok(record([
                    ("labels", self.label_set(session.labels.iter().copied())),
                    ("sources", long(session.sources)),
                    ("calls", long(session.calls)),
                ]))
            }
            Key::UnclearedLabels => Ok(self.label_set(facts.uncleared_labels?.iter().copied())),
            Key::Remembered => Ok(self.label_set(facts.remembered?.iter().copied())),
            Key::Sequences => all_known(&self.sequences, facts.sequences?).map(|all| self.set(all)),
            Key::Budgets => all_known(&self.budgets, facts.budgets?).map(|all| self.set(all)),
            Key::Exception => {
                all_known(&self.exceptions, facts.exceptions?).map(|all| self.set(all))
            }
        })
    }
}

/// Judges the rules of one slice on recorded facts.
pub(crate) struct RecordedJudge<'a> {
    words: &'a Words,
    store: &'a StoreFacts<'a>,
    context: Context,
    unknown: UnknownFacts,
}

impl<'a> RecordedJudge<'a> {
    pub(crate) fn new(
        words: &'a Words,
        store: &'a StoreFacts<'a>,
        (context, unknown): (Context, UnknownFacts),
    ) -> Self {
        Self { words, store, context, unknown }
    }

    /// The facts that are not known.
    pub(crate) const fn unknown(&self) -> &UnknownFacts {
        &self.unknown
    }

    /// Judges a rule for the principal at `index`.
    ///
    /// INVARIANT (slice): the caller has proved the rule's action scope.
    ///
    /// # Errors
    /// The store that the rule's conditions ask cannot be made.
    pub(crate) fn judge(&self, rule: &Rule, index: usize) -> Result<Finding, Unready> {
        let Some(principal) = self.store.chain.get(index) else {
            return Ok(Finding::Known(Verdict::Failed("no such principal".to_owned())));
        };
        let resource = self.store.resource;
        if !rule.resource.matches(resource) || !rule.principal.matches(principal) {
            return Ok(Finding::Known(Verdict::NotFired));
        }
        let Some(body) = &rule.body else { return Ok(Finding::Known(Verdict::Fired)) };
        let entry =
            |uid: &Arc<EntityUID>| EntityUIDEntry::Known { euid: Arc::clone(uid), loc: None };
        let request = Request::new_unchecked(
            entry(&principal.uid),
            entry(&self.store.base.action),
            entry(&resource.uid),
            Some(self.context.clone()),
        );
        let entities = self.store.entities()?;
        let evaluator = Evaluator::new(request, entities, Extensions::all_available());
        let is_certain = !Key::ALL
            .iter()
            .any(|key| rule.keys.contains(*key) && self.unknown.keys.contains(*key));
        if is_certain {
            return Ok(Finding::Known(verdict(evaluator.interpret(body, &self.words.none))));
        }
        let body = super::syntax::bare(body, &mut |expr| self.replacement(expr));
        Ok(match evaluator.partial_interpret(&body, &self.words.none) {
            Ok(PartialValue::Value(value)) => Finding::Known(verdict(Ok(value))),
            Ok(PartialValue::Residual(rest)) => residual(rule.effect, &rest),
            Err(_) => Finding::Open { never_false: false, can_fail: true },
        })
    }

    /// Expression that stands for one that reads a missing fact. `None`: it reads none as a whole.
    fn replacement(&self, expr: &Expr) -> Option<Expr> {
        if let Some(known) = self.by_digest(expr) {
            return Some(Expr::val(known));
        }
        let stands = |path: &[&str]| Expr::unknown(Unknown::new_untyped(path.join(".")));
        match expr.expr_kind() {
            ExprKind::Var(Var::Context) => Some(stands(&["context"])),
            ExprKind::GetAttr { .. } => {
                let path = path_of(expr)?;
                let is_unknown = self.unknown.covers(&path) || self.unknown.is_below(&path);
                Some(if is_unknown { stands(&path) } else { expr.clone() })
            }
            ExprKind::HasAttr { expr: of, attr } => {
                let mut path = path_of(of)?;
                if path.is_empty() {
                    // Each key that policies may read is in the context.
                    return Some(Expr::val(Key::parse(attr).is_some()));
                }
                let is_unknown = self.unknown.covers(&path);
                path.push(attr);
                let is_unknown = is_unknown || self.may_be_absent(&path);
                Some(if is_unknown { stands(&path) } else { expr.clone() })
            }
            ExprKind::ExtHasAttr { expr: of, attrs } => {
                let mut path = path_of(of)?;
                let is_key = path.is_empty() && attrs.len() == 1;
                if is_key {
                    return Some(Expr::val(Key::parse(attrs.first()).is_some()));
                }
                let before_last = attrs.len().saturating_sub(1);
                path.extend(attrs.iter().take(before_last).map(SmolStr::as_str));
                // Shorter paths that are not known cover it, too.
                let is_unknown = self.unknown.covers(&path);
                path.extend(attrs.iter().skip(before_last).map(SmolStr::as_str));
                let is_unknown = is_unknown || self.may_be_absent(&path);
                Some(if is_unknown { stands(&path) } else { expr.clone() })
            }
            _ => None,
        }
    }

    /// Whether a member is not known and may be absent: a digest stands for a text, but nothing stands for a member that is left
    /// out.
    fn may_be_absent(&self, path: &[&str]) -> bool {
        self.unknown.covers(path) && self.unknown.digest(path).is_none()
    }

    /// The result of a comparison of a text with a literal, where the record has the digest of the text.
    fn by_digest(&self, expr: &Expr) -> Option<bool> {
        let ExprKind::BinaryApp { op, arg1, arg2 } = expr.expr_kind() else { return None };
        let digest = |expr: &Expr| {
            let path = path_of(expr)?;
            self.unknown.digest(&path).map(str::to_owned)
        };
        let is_text = |expr: &Expr, digest: &str| match expr.expr_kind() {
            ExprKind::Lit(Literal::String(text)) => Some(hex(&sha256(text.as_bytes())) == digest),
            _ => None,
        };
        match op {
            BinaryOp::Eq => match (digest(arg1), digest(arg2)) {
                (Some(digest), None) => is_text(arg2, &digest),
                (None, Some(digest)) => is_text(arg1, &digest),
                _ => None,
            },
            BinaryOp::Contains => {
                let digest = digest(arg2)?;
                let ExprKind::Set(items) = arg1.expr_kind() else { return None };
                let all: Option<Vec<bool>> =
                    items.iter().map(|item| is_text(item, &digest)).collect();
                all.map(|all| all.contains(&true))
            }
            _ => None,
        }
    }
}

/// Attributes that an expression reads below `context`, outermost first. `None`: it reads something else.
fn path_of(expr: &Expr) -> Option<SmallVec<[&str; 4]>> {
    match expr.expr_kind() {
        ExprKind::Var(Var::Context) => Some(SmallVec::new()),
        ExprKind::GetAttr { expr, attr } => {
            let mut path = path_of(expr)?;
            path.push(attr);
            Some(path)
        }
        _ => None,
    }
}

/// Result of a rule of which a residual is left.
fn residual(effect: PolicyEffect, rest: &Expr) -> Finding {
    let (never_true, never_false) = (is_never(rest, true), is_never(rest, false));
    let can_fail = !is_total(rest);
    match effect {
        // A permit that fails has not fired.
        PolicyEffect::Permit if never_true => Finding::Known(Verdict::NotFired),
        _ if never_true && !can_fail => Finding::Known(Verdict::NotFired),
        _ if never_false && !can_fail => Finding::Known(Verdict::Fired),
        _ => Finding::Open { never_false, can_fail },
    }
}

/// Whether an expression of a validated policy cannot fail for any values of the missing facts.
// Recursion is bounded by the depth of a policy's conditions, which is bounded at load.
fn is_total(rest: &Expr) -> bool {
    match rest.expr_kind() {
        ExprKind::Lit(_) | ExprKind::Unknown(_) | ExprKind::Var(_) => true,
        ExprKind::UnaryApp { op: UnaryOp::Not | UnaryOp::IsEmpty, arg } => is_total(arg),
        ExprKind::BinaryApp { op, arg1, arg2 } => {
            let is_safe = matches!(
                op,
                BinaryOp::Eq
                    | BinaryOp::Less
                    | BinaryOp::LessEq
                    | BinaryOp::In
                    | BinaryOp::Contains
                    | BinaryOp::ContainsAll
                    | BinaryOp::ContainsAny
            );
            is_safe && is_total(arg1) && is_total(arg2)
        }
        ExprKind::And { left, right } | ExprKind::Or { left, right } => {
            is_total(left) && is_total(right)
        }
        ExprKind::If { test_expr, then_expr, else_expr } => {
            is_total(test_expr) && is_total(then_expr) && is_total(else_expr)
        }
        ExprKind::Like { expr, .. } | ExprKind::Is { expr, .. } => is_total(expr),
        ExprKind::Set(items) => items.iter().all(is_total),
        _ => false,
    }
}
