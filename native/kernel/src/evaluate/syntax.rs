//! Cedar text as parsed policies, and the facts that each policy reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy_core::ast::{
    ActionConstraint, BinaryOp, EntityReference, EntityUID, Expr, ExprKind, Literal, PatternElem,
    Policy, PrincipalOrResourceConstraint, UnaryOp, Var,
};
use cedar_policy_core::parser::parse_policyset;
use miette::Diagnostic as _;

use super::origins::{self, OriginGap};
use crate::decision::PolicyEffect;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::Location;
use crate::schema::{Key, Keys, attributes_of_key};

/// How many nodes one policy may have.
const MAX_NODES: usize = 10_000;
/// How deep its conditions may nest: each `&&` of a row counts, since they nest to the left.
const MAX_DEPTH: usize = 200;
/// How deep brackets may nest in the text, and how many `if` a policy may have.
const MAX_BRACKETS: usize = 64;
/// How many `.` and `[` the text of one policy may have: attributes, methods, lists.
const MAX_ACCESSES: usize = 2_000;
/// How many `+`, `-` and `*`.
const MAX_SUMS: usize = 1_000;
/// How many `&&` and `||`, and the `when` and `unless` that are joined alike.
const MAX_JOINS: usize = 1_000;
/// The longest word that [`too_much`] looks for, in bytes.
const LONGEST_WORD: usize = 6;

/// A policy as it stands in a file.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    /// Cedar's form of it.
    pub(crate) policy: Policy,
    /// Its text, annotations included.
    pub(crate) text: Arc<str>,
    /// Where it starts.
    pub(crate) at: Location,
}

/// Parses a file; policies come in the order of the text.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Parsed>, Diagnostics> {
    let lines = Lines::new(text);
    if let Some((offset, what)) = too_much(text) {
        let at = lines.at(file, offset);
        return Err(Diagnostic::error(&at, what, "Split it.").into());
    }
    let set = parse_policyset(text).map_err(|errors| {
        let mut all = Diagnostics::new();
        for error in errors.iter() {
            let label = error.labels().and_then(|mut labels| labels.next());
            let offset = label.as_ref().map(|label| label.offset());
            let expected = label.as_ref().and_then(|label| label.label()?.strip_prefix("expected"));
            let fix = match (error.help(), expected) {
                (Some(help), _) => format!("{help}."),
                (None, Some(expected)) => format!("Expected{expected}."),
                (None, None) => "Fix the syntax.".to_owned(),
            };
            all.push(Diagnostic::error(
                &lines.at(file, offset.unwrap_or(0)),
                error.to_string(),
                fix,
            ));
        }
        all
    })?;
    let mut all = Diagnostics::new();
    for template in set.templates() {
        let offset = template.loc().map_or(0, |loc| loc.start());
        all.error(
            &lines.at(file, offset),
            "a template (`?principal` or `?resource`) is linked by nothing, so it would never be evaluated",
            "Write a policy that names the principal or resource, or a role or collection.",
        );
    }
    let mut policies: Vec<(usize, Parsed)> = Vec::new();
    for policy in set.policies() {
        let Some((offset, snippet)) =
            policy.loc().and_then(|loc| Some((loc.start(), loc.snippet()?)))
        else {
            all.error(&lines.at(file, 0), "a policy without a place in the text", "");
            continue;
        };
        let parsed =
            Parsed { policy: policy.clone(), text: snippet.into(), at: lines.at(file, offset) };
        policies.push((offset, parsed));
    }
    policies.sort_by_key(|(offset, _)| *offset);
    all.finish(policies.into_iter().map(|(_, parsed)| parsed).collect())
}

/// Where a text is longer or deeper than is safe to parse, and what of it there is too much.
///
/// Cedar's parser builds a row (`a.b.c`, `1 + 1 + 1`, `a || b || c`) as deep as it is long, and it and all that reads
/// its result recurse without a limit of their own: a stack that overflows ends the process. So rows are bounded here,
/// over each policy as a whole; far below, [`walk`] bounds how deep each really is.
fn too_much(text: &str) -> Option<(usize, String)> {
    let mut count = Count::default();
    let mut chars = text.char_indices().peekable();
    let mut word = String::new();
    while let Some((offset, character)) = chars.next() {
        if character.is_alphanumeric() || character == '_' {
            if word.len() <= LONGEST_WORD {
                word.push(character);
            }
            continue;
        }
        match word.as_str() {
            "if" => count.branches = count.branches.saturating_add(1),
            // All conditions of a policy are joined with `&&`.
            "when" | "unless" => count.joins = count.joins.saturating_add(1),
            _ => {}
        }
        word.clear();
        let next = chars.peek().map(|(_, next)| *next);
        match character {
            // As Cedar has it, a carriage return ends a comment too.
            '/' if next == Some('/') => {
                while chars.next_if(|(_, next)| !matches!(next, '\n' | '\r')).is_some() {}
            }
            '"' => {
                while let Some((_, inner)) = chars.next() {
                    match inner {
                        '"' => break,
                        '\\' => drop(chars.next()),
                        _ => {}
                    }
                }
            }
            '(' | '{' => count.depth = count.depth.saturating_add(1),
            '[' => {
                count.depth = count.depth.saturating_add(1);
                count.accesses = count.accesses.saturating_add(1);
            }
            ')' | ']' | '}' => count.depth = count.depth.saturating_sub(1),
            '.' => count.accesses = count.accesses.saturating_add(1),
            '+' | '-' | '*' => count.sums = count.sums.saturating_add(1),
            '&' | '|' if next == Some(character) => {
                chars.next();
                count.joins = count.joins.saturating_add(1);
            }
            ';' => count = Count::default(),
            _ => {}
        }
        if let Some(what) = count.too_much() {
            return Some((offset, what));
        }
    }
    None
}

/// What one policy has of everything that nests, by its text.
#[derive(Default)]
struct Count {
    depth: usize,
    branches: usize,
    accesses: usize,
    sums: usize,
    joins: usize,
}

impl Count {
    fn too_much(&self) -> Option<String> {
        let &Self { depth, branches, accesses, sums, joins } = self;
        if depth > MAX_BRACKETS || branches > MAX_BRACKETS {
            return Some(format!("the policy nests deeper than {MAX_BRACKETS}"));
        }
        let rows = [
            (accesses, MAX_ACCESSES, "`.` and `[`"),
            (sums, MAX_SUMS, "`+`, `-` and `*`"),
            (joins, MAX_JOINS, "`&&`, `||`, `when` and `unless`"),
        ];
        let (_, most, of) = rows.into_iter().find(|(count, most, _)| count > most)?;
        Some(format!("the policy has more than {most} of {of}"))
    }
}

/// Line starts of a text.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let breaks = text.match_indices('\n').map(|(index, _)| index.saturating_add(1));
        Self { text, starts: [0].into_iter().chain(breaks).collect() }
    }

    /// Line and column, from 1, of a byte offset; columns count characters.
    pub(crate) fn position(&self, offset: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |text| text.chars().count());
        (
            u32::try_from(line).unwrap_or(u32::MAX),
            u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
        )
    }

    fn at(&self, file: &str, offset: usize) -> Location {
        let (line, column) = self.position(offset);
        Location { file: file.to_owned(), line, column }
    }
}

/// A named entity in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyEntity {
    pub(crate) kind: String,
    pub(crate) id: String,
    /// Byte offset from the start of the policy.
    pub(crate) offset: usize,
}

/// A name read below `context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) name: String,
    /// Byte offset from the start of the policy.
    pub(crate) offset: usize,
}

/// A name read below the keys of `context`, or of the principal or resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) root: PathRoot,
    /// Attributes from the root on; at least one.
    pub(crate) names: Vec<String>,
    /// Byte offset from the start of the policy.
    pub(crate) offset: usize,
}

/// Where a [`Path`] starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathRoot {
    Principal,
    Resource,
    Context,
}

/// A comparison whose outcome no request changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// A number against something that it never reaches, or never leaves.
    Range { key: &'static str, from: i64, to: i64, outcome: bool },
    /// Upper case in a text for a host, which is lower case.
    UpperHost,
}

/// Which actions a policy's scope names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ActionScope {
    Any,
    /// Operations or groups, by id.
    Of(Vec<String>),
}

/// What a policy names and reads.
#[derive(Clone, Debug)]
pub(crate) struct PolicyReading {
    pub(crate) actions: ActionScope,
    /// Context keys.
    pub(crate) keys: Keys,
    /// Context keys by name, as they stand, also unknown ones.
    pub(crate) key_reads: Vec<Read>,
    /// Arguments read or tested by name.
    pub(crate) inputs: Vec<Read>,
    /// Attributes of the principal, of the resource and below the keys of `context`.
    pub(crate) paths: Vec<Path>,
    /// A use of entity tags.
    pub(crate) tags: Option<usize>,
    /// Comparisons whose outcome no request changes.
    pub(crate) idle: Vec<(Idle, usize)>,
    /// A condition that keeps the policy from firing for every request.
    pub(crate) never: Option<usize>,
    /// The type that the scope gives the principal.
    pub(crate) principal_type: Option<String>,
    /// The type that the scope gives the resource.
    pub(crate) resource_type: Option<String>,
    /// Uses of `context` other than by key.
    pub(crate) whole_context: Option<usize>,
    /// Every entity named, scope included.
    pub(crate) names: Vec<PolicyEntity>,
    /// Actions named in the body.
    pub(crate) body_actions: BTreeSet<String>,
    /// The body mentions `principal`.
    pub(crate) principal: bool,
    /// What the body can ask the entity store for.
    pub(crate) store: Asks,
    /// Kinds whose satisfaction keeps the policy from firing.
    pub(crate) lifted_by: BTreeSet<String>,
    /// A comparison of origins that lets a worse origin pass.
    pub(crate) origin_gap: Option<OriginGap>,
    /// The policy has more nodes, or nests deeper, than allowed.
    pub(crate) too_large: bool,
}

/// What a body can ask the entity store for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asks {
    #[default]
    Nothing,
    /// Attributes of the resource.
    Resource,
    Everything,
}

impl PolicyReading {
    fn empty() -> Self {
        Self {
            actions: ActionScope::Any,
            keys: Keys::default(),
            key_reads: Vec::new(),
            inputs: Vec::new(),
            paths: Vec::new(),
            tags: None,
            idle: Vec::new(),
            never: None,
            principal_type: None,
            resource_type: None,
            whole_context: None,
            names: Vec::new(),
            body_actions: BTreeSet::new(),
            principal: false,
            store: Asks::Nothing,
            lifted_by: BTreeSet::new(),
            origin_gap: None,
            too_large: false,
        }
    }
}

/// Permit or forbid.
pub(crate) fn effect(policy: &Policy) -> PolicyEffect {
    match policy.effect() {
        cedar_policy_core::ast::Effect::Permit => PolicyEffect::Permit,
        cedar_policy_core::ast::Effect::Forbid => PolicyEffect::Forbid,
    }
}

/// Annotations by name, with byte offsets from the start of the policy.
pub(crate) fn annotations(policy: &Policy) -> Vec<(String, String, usize)> {
    let start = policy.loc().map_or(0, |loc| loc.start());
    policy
        .annotations()
        .map(|(name, annotation)| {
            let offset = annotation.loc.as_ref().map_or(start, |loc| loc.start());
            (name.as_ref().to_owned(), annotation.val.to_string(), offset.saturating_sub(start))
        })
        .collect()
}

/// Reads a policy through.
pub(crate) fn reading(policy: &Policy) -> PolicyReading {
    let start = policy.loc().map_or(0, |loc| loc.start());
    let mut reading = PolicyReading::empty();
    let name = |uid: &EntityUID, names: &mut Vec<PolicyEntity>| {
        let offset = uid.loc().map_or(start, |loc| loc.start()).saturating_sub(start);
        names.push(PolicyEntity {
            kind: uid.entity_type().to_string(),
            id: AsRef::<str>::as_ref(uid.eid()).to_owned(),
            offset,
        });
    };
    let principal = policy.principal_constraint();
    let resource = policy.resource_constraint();
    for constraint in [principal.as_inner(), resource.as_inner()] {
        if let PrincipalOrResourceConstraint::In(EntityReference::EUID(uid))
        | PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid))
        | PrincipalOrResourceConstraint::IsIn(_, EntityReference::EUID(uid)) = constraint
        {
            name(uid, &mut reading.names);
        }
    }
    reading.principal_type = type_of(principal.as_inner());
    reading.resource_type = type_of(resource.as_inner());
    reading.actions = match policy.action_constraint() {
        ActionConstraint::Any => ActionScope::Any,
        ActionConstraint::Eq(uid) => {
            ActionScope::Of(vec![AsRef::<str>::as_ref(uid.eid()).to_owned()])
        }
        ActionConstraint::In(uids) => ActionScope::Of(
            uids.iter().map(|uid| AsRef::<str>::as_ref(uid.eid()).to_owned()).collect(),
        ),
    };
    for uid in policy.action_constraint().iter_euids() {
        name(uid, &mut reading.names);
    }
    let Some(body) = policy.non_scope_constraints() else { return reading };
    walk(body, start, &mut reading);
    if !reading.too_large {
        if reading.keys.contains(Key::Origins) {
            let is_forbid = effect(policy) == PolicyEffect::Forbid;
            reading.origin_gap = origins::gap(body, is_forbid, start);
        }
        lifts(body, &mut reading.lifted_by);
        reading.never = never(body)
            .and_then(|expr| expr.source_loc())
            .map(|loc| loc.start().saturating_sub(start));
    }
    reading
}

/// The type of entity that a scope admits; none where it admits several.
fn type_of(constraint: &PrincipalOrResourceConstraint) -> Option<String> {
    match constraint {
        PrincipalOrResourceConstraint::Is(kind) | PrincipalOrResourceConstraint::IsIn(kind, _) => {
            Some(kind.to_string())
        }
        PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid)) => {
            Some(uid.entity_type().to_string())
        }
        _ => None,
    }
}

fn walk(body: &Expr, start: usize, reading: &mut PolicyReading) {
    // A list of work instead of recursion: the depth of an expression is the author's.
    let mut work: Vec<(&Expr, usize)> = vec![(body, 0)];
    let mut nodes = 0_usize;
    while let Some((expr, depth)) = work.pop() {
        nodes = nodes.saturating_add(1);
        if nodes > MAX_NODES || depth > MAX_DEPTH {
            reading.too_large = true;
            return;
        }
        let offset = expr.source_loc().map_or(start, |loc| loc.start()).saturating_sub(start);
        if let Some(path) = context_path(expr) {
            if depth.saturating_add(path.len()) > MAX_DEPTH {
                reading.too_large = true;
                return;
            }
            let mut path = path.into_iter();
            let Some(key) = path.next() else {
                reading.whole_context.get_or_insert(offset);
                continue;
            };
            if let Some(key) = Key::parse(key) {
                reading.keys.insert(key);
            }
            reading.key_reads.push(Read { name: key.to_owned(), offset });
            let mut names = vec![key.to_owned()];
            names.extend(path.map(str::to_owned));
            let least = if key == Key::Input.as_str() {
                if let Some(input) = names.get(1) {
                    reading.inputs.push(Read { name: input.clone(), offset });
                }
                3
            } else {
                2
            };
            if names.len() >= least {
                reading.paths.push(Path { root: PathRoot::Context, names, offset });
            }
            continue;
        }
        if let Some(idle) = idle(expr) {
            reading.idle.push((idle, offset));
        }
        let mut below: Vec<&Expr> = Vec::new();
        match expr.expr_kind() {
            ExprKind::Lit(Literal::EntityUID(uid)) => {
                let kind = uid.entity_type().to_string();
                let id: &str = uid.eid().as_ref();
                if kind == "Action" {
                    reading.body_actions.insert(id.to_owned());
                }
                reading.names.push(PolicyEntity { kind, id: id.to_owned(), offset });
            }
            ExprKind::Lit(_) | ExprKind::Slot(_) | ExprKind::Unknown(_) => {}
            ExprKind::Var(Var::Principal) => {
                reading.principal = true;
                reading.store = Asks::Everything;
            }
            ExprKind::Var(_) => reading.store = Asks::Everything,
            ExprKind::If { test_expr, then_expr, else_expr } => {
                below.extend([test_expr.as_ref(), then_expr, else_expr]);
            }
            ExprKind::And { left, right } | ExprKind::Or { left, right } => {
                below.extend([left.as_ref(), right]);
            }
            ExprKind::UnaryApp { arg, .. } => below.push(arg),
            ExprKind::BinaryApp { op, arg1, arg2 } => {
                if matches!(op, BinaryOp::In | BinaryOp::GetTag | BinaryOp::HasTag) {
                    reading.store = Asks::Everything;
                }
                if matches!(op, BinaryOp::GetTag | BinaryOp::HasTag) {
                    reading.tags.get_or_insert(offset);
                }
                below.extend([arg1.as_ref(), arg2]);
            }
            ExprKind::ExtensionFunctionApp { args, .. } => below.extend(args.iter()),
            // An attribute of the resource itself needs no other entity: what is asked of its value is another expression,
            // and read as one.
            kind @ (ExprKind::GetAttr { expr, .. } | ExprKind::HasAttr { expr, .. })
                if matches!(expr.expr_kind(), ExprKind::Var(Var::Resource)) =>
            {
                reading.store = reading.store.max(Asks::Resource);
                reading.paths.extend(entity_path(expr, kind, offset));
            }
            // The expression below an attribute is not a plain path in `context`, so it may be an entity.
            kind @ (ExprKind::GetAttr { expr, .. }
            | ExprKind::HasAttr { expr, .. }
            | ExprKind::ExtHasAttr { expr, .. }) => {
                reading.store = Asks::Everything;
                reading.paths.extend(entity_path(expr, kind, offset));
                below.push(expr);
            }
            ExprKind::Like { expr, .. } | ExprKind::Is { expr, .. } => below.push(expr),
            ExprKind::Set(items) => below.extend(items.iter()),
            ExprKind::Record(members) => below.extend(members.values()),
        }
        work.extend(below.into_iter().map(|expr| (expr, depth.saturating_add(1))));
    }
}

/// The attribute names of `context.a.b…` or `context… has a.b`; none where the expression is something else.
pub(super) fn context_path(expr: &Expr) -> Option<Vec<&str>> {
    let mut path: Vec<&str> = Vec::new();
    let mut at = expr;
    loop {
        match at.expr_kind() {
            ExprKind::Var(Var::Context) => {
                path.reverse();
                return Some(path);
            }
            ExprKind::GetAttr { expr, attr } | ExprKind::HasAttr { expr, attr } => {
                path.push(attr);
                at = expr;
            }
            ExprKind::ExtHasAttr { expr, attrs } => {
                let mut names: Vec<&str> = attrs.iter().map(|attr| attr.as_str()).collect();
                names.reverse();
                path.extend(names);
                at = expr;
            }
            _ => return None,
        }
        if path.len() > MAX_NODES {
            return None;
        }
    }
}

/// The attribute of the principal or resource that an expression reads or tests.
fn entity_path(below: &Expr, kind: &ExprKind, offset: usize) -> Option<Path> {
    let root = match below.expr_kind() {
        ExprKind::Var(Var::Principal) => PathRoot::Principal,
        ExprKind::Var(Var::Resource) => PathRoot::Resource,
        _ => return None,
    };
    let names = match kind {
        ExprKind::GetAttr { attr, .. } | ExprKind::HasAttr { attr, .. } => vec![attr.to_string()],
        ExprKind::ExtHasAttr { attrs, .. } => attrs.iter().map(ToString::to_string).collect(),
        _ => return None,
    };
    Some(Path { root, names, offset })
}

/// The numbers of the context whose range is known: path, least, most.
const RANGES: [(&[&str], &str, i64, i64); 2] =
    [(&["tier"], "tier", 0, 3), (&["confidence"], "confidence", 0, 100)];

fn range(expr: &Expr) -> Option<(&'static str, i64, i64)> {
    let path = context_path(expr)?;
    let found = RANGES.into_iter().find(|(names, ..)| path == *names)?;
    Some((found.1, found.2, found.3))
}

fn long(expr: &Expr) -> Option<i64> {
    match expr.expr_kind() {
        ExprKind::Lit(Literal::Long(number)) => Some(*number),
        _ => None,
    }
}

/// The comparison that an expression is, where its outcome is the same for every request.
fn idle(expr: &Expr) -> Option<Idle> {
    if let ExprKind::Like { expr, pattern } = expr.expr_kind() {
        let upper = |elem: &PatternElem| matches!(elem, PatternElem::Char(c) if c.is_uppercase());
        return (is_host(expr) && pattern.iter().any(upper)).then_some(Idle::UpperHost);
    }
    let ExprKind::BinaryApp { op, arg1, arg2 } = expr.expr_kind() else { return None };
    let text = |expr: &Expr| match expr.expr_kind() {
        ExprKind::Lit(Literal::String(text)) => text.contains(char::is_uppercase),
        _ => false,
    };
    if *op == BinaryOp::Eq && ((is_host(arg1) && text(arg2)) || (is_host(arg2) && text(arg1))) {
        return Some(Idle::UpperHost);
    }
    let (key, from, to, outcome) = match (range(arg1), long(arg2), long(arg1), range(arg2)) {
        (Some((key, from, to)), Some(number), ..) => {
            let outcome = match op {
                BinaryOp::Less => decided(to < number, from >= number),
                BinaryOp::LessEq => decided(to <= number, from > number),
                BinaryOp::Eq => decided(false, number < from || number > to),
                _ => None,
            };
            (key, from, to, outcome?)
        }
        (.., Some(number), Some((key, from, to))) => {
            let outcome = match op {
                BinaryOp::Less => decided(number < from, number >= to),
                BinaryOp::LessEq => decided(number <= from, number > to),
                BinaryOp::Eq => decided(false, number < from || number > to),
                _ => None,
            };
            (key, from, to, outcome?)
        }
        _ => return None,
    };
    Some(Idle::Range { key, from, to, outcome })
}

const fn decided(always: bool, never: bool) -> Option<bool> {
    match (always, never) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

fn is_host(expr: &Expr) -> bool {
    context_path(expr).is_some_and(|path| path == ["destination", "host"])
}

/// What an expression is for every request, where that is plain to see.
// Recursion is bounded by `MAX_DEPTH`: the caller has checked.
fn constant(expr: &Expr) -> Option<bool> {
    match expr.expr_kind() {
        ExprKind::Lit(Literal::Bool(value)) => Some(*value),
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => constant(arg).map(|value| !value),
        ExprKind::And { left, right } => match (constant(left), constant(right)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
        ExprKind::Or { left, right } => match (constant(left), constant(right)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        ExprKind::If { test_expr, then_expr, else_expr } => match constant(test_expr) {
            Some(true) => constant(then_expr),
            Some(false) => constant(else_expr),
            None => constant(then_expr).filter(|value| constant(else_expr) == Some(*value)),
        },
        ExprKind::Like { pattern, .. } if !pattern.is_empty() => {
            pattern.iter().all(|elem| *elem == PatternElem::Wildcard).then_some(true)
        }
        // Every key of the context is always there, and every attribute below it; of arguments nothing is known.
        ExprKind::HasAttr { .. } | ExprKind::ExtHasAttr { .. } => {
            let always = match context_path(expr)?.as_slice() {
                [key] => Key::parse(key).is_some(),
                [key, name] => attributes_of_key(key).contains(name),
                _ => false,
            };
            always.then_some(true)
        }
        ExprKind::BinaryApp { op, arg1, arg2 } => match idle(expr) {
            Some(Idle::Range { outcome, .. }) => Some(outcome),
            Some(Idle::UpperHost) => Some(false),
            None => match (op, arg1.expr_kind(), arg2.expr_kind()) {
                (BinaryOp::Eq | BinaryOp::LessEq | BinaryOp::In, ..) if arg1.eq_shape(arg2) => {
                    Some(true)
                }
                (BinaryOp::Less, ..) if arg1.eq_shape(arg2) => Some(false),
                (BinaryOp::Eq, ExprKind::Lit(a), ExprKind::Lit(b)) => Some(a == b),
                (BinaryOp::Less, ..) => Some(long(arg1)? < long(arg2)?),
                (BinaryOp::LessEq, ..) => Some(long(arg1)? <= long(arg2)?),
                _ => None,
            },
        },
        _ => None,
    }
}

/// A conjunct of the body that is false for every request, or what makes it so.
fn never(body: &Expr) -> Option<&Expr> {
    let mut conjuncts = vec![body];
    while let Some(expr) = conjuncts.pop() {
        if let ExprKind::And { left, right } = expr.expr_kind() {
            conjuncts.extend([left.as_ref(), right]);
            continue;
        }
        if let ExprKind::UnaryApp { op: UnaryOp::Not, arg } = expr.expr_kind() {
            let mut all: Vec<&Expr> = Vec::new();
            let mut disjuncts = vec![arg.as_ref()];
            while let Some(expr) = disjuncts.pop() {
                match expr.expr_kind() {
                    ExprKind::Or { left, right } => disjuncts.extend([left.as_ref(), right]),
                    _ => all.push(expr),
                }
            }
            // One that is always true, or two of which one always is.
            let negated = |expr: &Expr| {
                all.iter().any(|other| match other.expr_kind() {
                    ExprKind::UnaryApp { op: UnaryOp::Not, arg } => arg.eq_shape(expr),
                    _ => false,
                })
            };
            let found = all.iter().find(|one| constant(one) == Some(true) || negated(one));
            if found.is_some() {
                return found.copied();
            }
        }
        if constant(expr) == Some(false) {
            return Some(expr);
        }
    }
    None
}

/// The kinds `k` for which the body has a conjunct `!(… || context.satisfied.contains(Kind::"k") || …)`.
fn lifts(body: &Expr, kinds: &mut BTreeSet<String>) {
    let mut conjuncts = vec![body];
    while let Some(expr) = conjuncts.pop() {
        match expr.expr_kind() {
            ExprKind::And { left, right } => conjuncts.extend([left.as_ref(), right]),
            ExprKind::UnaryApp { op: UnaryOp::Not, arg } => {
                let mut disjuncts = vec![arg.as_ref()];
                while let Some(expr) = disjuncts.pop() {
                    match expr.expr_kind() {
                        ExprKind::Or { left, right } => disjuncts.extend([left.as_ref(), right]),
                        ExprKind::BinaryApp { op: BinaryOp::Contains, arg1, arg2 } => {
                            let satisfied =
                                context_path(arg1).is_some_and(|path| path == ["satisfied"]);
                            if satisfied
                                && let ExprKind::Lit(Literal::EntityUID(uid)) = arg2.expr_kind()
                                && uid.entity_type().to_string() == "Kind"
                            {
                                kinds.insert(AsRef::<str>::as_ref(uid.eid()).to_owned());
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Copy of the conditions without source locations.
///
/// The evaluator copies the location of every node that it visits, which costs more than the evaluation. Messages name
/// the location of the policy instead.
///
/// `replace` returns the expression that replaces its argument, or `None` to keep it.
// Recursion is bounded by `MAX_DEPTH`: the caller has checked.
pub(crate) fn bare(expr: &Expr, replace: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Expr {
    if let Some(other) = replace(expr) {
        return other;
    }
    match expr.expr_kind() {
        ExprKind::Lit(literal) => Expr::val(literal.clone()),
        ExprKind::Var(variable) => Expr::var(*variable),
        ExprKind::Slot(slot) => Expr::slot(*slot),
        ExprKind::Unknown(unknown) => Expr::unknown(unknown.clone()),
        ExprKind::If { test_expr, then_expr, else_expr } => {
            Expr::ite(bare(test_expr, replace), bare(then_expr, replace), bare(else_expr, replace))
        }
        ExprKind::And { left, right } => Expr::and(bare(left, replace), bare(right, replace)),
        ExprKind::Or { left, right } => Expr::or(bare(left, replace), bare(right, replace)),
        ExprKind::UnaryApp { op, arg } => Expr::unary_app(*op, bare(arg, replace)),
        ExprKind::BinaryApp { op, arg1, arg2 } => {
            Expr::binary_app(*op, bare(arg1, replace), bare(arg2, replace))
        }
        ExprKind::ExtensionFunctionApp { fn_name, args } => {
            let args = args.iter().map(|arg| bare(arg, replace)).collect();
            Expr::call_extension_fn(fn_name.clone(), args)
        }
        ExprKind::GetAttr { expr, attr } => Expr::get_attr(bare(expr, replace), attr.clone()),
        ExprKind::HasAttr { expr, attr } => Expr::has_attr(bare(expr, replace), attr.clone()),
        ExprKind::ExtHasAttr { expr, attrs } => {
            Expr::extended_has_attr(bare(expr, replace), attrs.clone())
        }
        ExprKind::Like { expr, pattern } => Expr::like(bare(expr, replace), pattern.clone()),
        ExprKind::Is { expr, entity_type } => {
            Expr::is_entity_type(bare(expr, replace), entity_type.clone())
        }
        ExprKind::Set(items) => Expr::set(items.iter().map(|item| bare(item, replace))),
        ExprKind::Record(members) => {
            let members =
                members.iter().map(|(name, member)| (name.clone(), bare(member, replace)));
            Expr::record_arc(Arc::new(members.collect()))
        }
    }
}
