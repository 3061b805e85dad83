//! Comparisons of origins in policies: whether a policy that reacts to an origin reacts to every worse one too.
//!
//! A forbid that fires for an origin and not for a worse one lets an attacker's value pass. So whether a policy fires may only
//! grow as origins get worse or values are added (of a permit: shrink). Each comparison with a list is tried with all sets of
//! origins, in the direction that its place in the condition gives it.

use std::collections::BTreeSet;

use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, Literal, UnaryOp};

use super::syntax::context_path;
use crate::model::{Origin, OriginSet, ValueRole};
use crate::schema::Key;

/// A comparison of origins that lets a worse origin pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginGap {
    /// Byte offset from the start of the policy.
    pub(crate) offset: usize,
    /// Origins for which a forbid fires, and worse ones for which it does not; of a permit the other way round. `None`: the
    /// comparison is with something else than a list.
    pub(crate) witness: Option<(ValueRole, OriginSet, OriginSet)>,
}

/// The first comparison of a policy's conditions that lets a worse origin pass.
///
/// Args: `is_forbid`: the policy must fire for every worse origin; a permit must not.
// Recursion is bounded by `MAX_DEPTH`: the caller has checked.
pub(super) fn gap(body: &Expr, is_forbid: bool, start: usize) -> Option<OriginGap> {
    OriginReader { start }.check(body, if is_forbid { Wanted::Grows } else { Wanted::Shrinks })
}

/// Change of an expression's value that is safe as origins get worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// From false to true.
    Grows,
    /// From true to false.
    Shrinks,
    /// None.
    Constant,
}

impl Wanted {
    const fn negated(self) -> Self {
        match self {
            Self::Grows => Self::Shrinks,
            Self::Shrinks => Self::Grows,
            Self::Constant => Self::Constant,
        }
    }

    const fn allows(self, before: bool, after: bool) -> bool {
        before == after
            || match self {
                Self::Grows => after,
                Self::Shrinks => before,
                Self::Constant => false,
            }
    }
}

#[derive(Clone, Copy)]
struct OriginReader {
    start: usize,
}

impl OriginReader {
    fn offset(self, expr: &Expr) -> usize {
        expr.source_loc().map_or(self.start, |loc| loc.start()).saturating_sub(self.start)
    }

    fn check(self, expr: &Expr, wanted: Wanted) -> Option<OriginGap> {
        let mut roles = BTreeSet::new();
        if !mentions(expr, &mut roles) {
            return None;
        }
        if let Some(role) = only(&roles)
            && let Some(found) = self.try_joined(&[expr], true, role, wanted)
        {
            return found;
        }
        match expr.expr_kind() {
            ExprKind::And { .. } => self.chain(expr, true, wanted),
            ExprKind::Or { .. } => self.chain(expr, false, wanted),
            ExprKind::UnaryApp { op: UnaryOp::Not, arg } => self.check(arg, wanted.negated()),
            ExprKind::If { test_expr, then_expr, else_expr } => self
                .check(test_expr, Wanted::Constant)
                .or_else(|| self.check(then_expr, wanted))
                .or_else(|| self.check(else_expr, wanted)),
            _ => Some(OriginGap { offset: self.offset(expr), witness: None }),
        }
    }

    /// Checks the operands of a row of `&&` or `||`. Those that compare one role with lists are tried together, so that the
    /// lists of a row may complete each other.
    fn chain(self, expr: &Expr, is_and: bool, wanted: Wanted) -> Option<OriginGap> {
        let mut operands: Vec<&Expr> = Vec::new();
        let mut work = vec![expr];
        while let Some(one) = work.pop() {
            match one.expr_kind() {
                ExprKind::And { left, right } if is_and => work.extend([right.as_ref(), left]),
                ExprKind::Or { left, right } if !is_and => work.extend([right.as_ref(), left]),
                _ => operands.push(one),
            }
        }
        for role in ValueRole::ALL {
            let of_role: Vec<&Expr> = operands
                .iter()
                .copied()
                .filter(|operand| {
                    let mut roles = BTreeSet::new();
                    mentions(operand, &mut roles)
                        && only(&roles) == Some(role)
                        && holds(operand, role, OriginSet::default()).is_some()
                })
                .collect();
            let found =
                of_role.first().and_then(|_| self.try_joined(&of_role, is_and, role, wanted));
            if let Some(Some(gap)) = found {
                return Some(gap);
            }
            operands.retain(|operand| !of_role.iter().any(|one| std::ptr::eq(*one, *operand)));
        }
        operands.into_iter().find_map(|operand| self.check(operand, wanted))
    }

    /// Tries expressions, joined by `&&` or `||`, with all sets of origins of a role. The outer `None`: they are not of lists alone.
    #[expect(clippy::option_option, reason = "without a result, and without a gap")]
    fn try_joined(
        self,
        exprs: &[&Expr],
        is_and: bool,
        role: ValueRole,
        wanted: Wanted,
    ) -> Option<Option<OriginGap>> {
        let mut results = Vec::new();
        for set in OriginSet::all() {
            let each: Option<Vec<bool>> = exprs.iter().map(|expr| holds(expr, role, set)).collect();
            let mut each = each?.into_iter();
            results.push(if is_and { each.all(|one| one) } else { each.any(|one| one) });
        }
        let of = |set: OriginSet| results.get(set.index()).copied().unwrap_or_default();
        // A role that the operation declares has an origin in every call; another has none.
        for set in OriginSet::all().filter(|set| !set.is_empty()) {
            for worse in worse_than(set) {
                if !wanted.allows(of(set), of(worse)) {
                    let offset = exprs.first().map_or(0, |expr| self.offset(expr));
                    return Some(Some(OriginGap { offset, witness: Some((role, set, worse)) }));
                }
            }
        }
        Some(None)
    }
}

/// The sets that are worse than one by a step: with one more origin, or with a worse one in the place of another.
fn worse_than(set: OriginSet) -> Vec<OriginSet> {
    let mut all = Vec::new();
    for origin in set.origins() {
        for worse in Origin::ALL.into_iter().filter(|other| *other > origin) {
            let rest = set.origins().filter(|one| *one != origin);
            all.push(rest.chain([worse]).collect());
        }
    }
    let more = Origin::ALL.into_iter().filter(|origin| !set.contains(*origin));
    all.extend(more.map(|origin| set.origins().chain([origin]).collect::<OriginSet>()));
    all
}

fn only(roles: &BTreeSet<Option<ValueRole>>) -> Option<ValueRole> {
    match roles.len() {
        1 => roles.first().copied().flatten(),
        _ => None,
    }
}

/// Whether an expression reads origins; gathers the roles, where `None` stands for all of them.
fn mentions(expr: &Expr, roles: &mut BTreeSet<Option<ValueRole>>) -> bool {
    for below in expr.subexpressions() {
        if let Some(path) = context_path(below)
            && let [key, rest @ ..] = path.as_slice()
            && *key == Key::Origins.as_str()
        {
            let role = rest.first().and_then(|name| role_of(name));
            // The paths below a longer one are its parts.
            if role.is_some() || !is_part_of_path(expr, below) {
                roles.insert(role);
            }
        }
    }
    !roles.is_empty()
}

/// Whether an expression stands below an attribute of itself.
fn is_part_of_path(whole: &Expr, part: &Expr) -> bool {
    whole.subexpressions().any(|one| match one.expr_kind() {
        ExprKind::GetAttr { expr, .. }
        | ExprKind::HasAttr { expr, .. }
        | ExprKind::ExtHasAttr { expr, .. } => std::ptr::eq(expr.as_ref(), part),
        _ => false,
    })
}

fn role_of(name: &str) -> Option<ValueRole> {
    ValueRole::ALL.into_iter().find(|role| role.as_str() == name)
}

/// The value of an expression for one set of origins of a role. `None`: it reads something else.
fn holds(expr: &Expr, role: ValueRole, set: OriginSet) -> Option<bool> {
    let value = |expr: &Expr| holds(expr, role, set);
    match expr.expr_kind() {
        ExprKind::Lit(Literal::Bool(value)) => Some(*value),
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => value(arg).map(|value| !value),
        ExprKind::UnaryApp { op: UnaryOp::IsEmpty, arg } => {
            origins(arg, role, set).map(OriginSet::is_empty)
        }
        ExprKind::And { left, right } => Some(value(left)? & value(right)?),
        ExprKind::Or { left, right } => Some(value(left)? | value(right)?),
        ExprKind::If { test_expr, then_expr, else_expr } => {
            let (test, then, other) = (value(test_expr)?, value(then_expr)?, value(else_expr)?);
            Some(if test { then } else { other })
        }
        // Every key is always there.
        ExprKind::HasAttr { .. } | ExprKind::ExtHasAttr { .. } => {
            let path = context_path(expr)?;
            let is_there = match path.as_slice() {
                [key] => *key == Key::Origins.as_str(),
                [key, name] => *key == Key::Origins.as_str() && role_of(name).is_some(),
                _ => false,
            };
            is_there.then_some(true)
        }
        ExprKind::BinaryApp { op, arg1, arg2 } => {
            let one = || origins(arg1, role, set);
            let other = || origins(arg2, role, set);
            match op {
                BinaryOp::Contains => Some(one()?.contains(origin(arg2)?)),
                BinaryOp::ContainsAll => Some(one()?.contains_all(other()?)),
                BinaryOp::ContainsAny => Some(one()?.contains_any(other()?)),
                BinaryOp::Eq => Some(one()? == other()?),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The set that an expression is: the origins of the role, or a list.
fn origins(expr: &Expr, role: ValueRole, set: OriginSet) -> Option<OriginSet> {
    if let ExprKind::Set(items) = expr.expr_kind() {
        return items.iter().map(origin).collect();
    }
    match context_path(expr)?.as_slice() {
        [key, name] if *key == Key::Origins.as_str() && role_of(name) == Some(role) => Some(set),
        _ => None,
    }
}

fn origin(expr: &Expr) -> Option<Origin> {
    match expr.expr_kind() {
        ExprKind::Lit(Literal::EntityUID(uid)) if uid.entity_type().to_string() == "Origin" => {
            Origin::parse(uid.eid().as_ref())
        }
        _ => None,
    }
}
