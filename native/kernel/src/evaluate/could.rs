//! Possible results of a policy before the arguments are known: evaluated as far as principal, task and time decide.
//!
//! INVARIANT (over, never under): an unknown value counts as the value that lets the operation be permitted.

use std::sync::Arc;

use cedar_policy_core::ast::{
    BinaryOp, Context, EntityUID, EntityUIDEntry, Expr, ExprKind, Literal, PartialValue, Request,
    SlotEnv, UnaryOp, Unknown, Value, ValueKind, Var,
};
use cedar_policy_core::entities::Entities;
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;
use smallvec::SmallVec;

use super::{Base, Known, Rule, Scope, Words, uid};
use crate::decision::PolicyEffect;
use crate::schema::{Key, Keys};

/// Whether a policy fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Could {
    /// With no arguments.
    Never,
    /// With some, perhaps.
    Perhaps,
    /// With all; or, for a forbid, it fails with all, which denies too.
    Always,
}

impl Could {
    fn of(fires: bool) -> Self {
        if fires { Self::Always } else { Self::Never }
    }
}

/// What an operation acts on, as far as its catalog says.
#[derive(Debug)]
pub(crate) struct Aim {
    system: Known,
    /// The collection of its resource. `None`: it acts on the system.
    collection: Option<EntityUID>,
}

impl Words {
    /// What an operation acts on.
    pub(crate) fn aim(&self, system: &str, collection: Option<&str>) -> Aim {
        Aim {
            system: self.system(system),
            collection: collection.map(|name| uid(&self.types.collection, name)),
        }
    }
}

/// Judges the rules of one operation before its arguments are known.
pub(crate) struct Prospect<'a> {
    words: &'a Words,
    chain: &'a [Arc<Known>],
    aim: &'a Aim,
    evaluators: SmallVec<[Evaluator<'a>; 4]>,
    /// Context keys with a value that is not known.
    unsaid: Keys,
    /// The collection of the resource counts as known, where a condition tests it.
    is_precise: bool,
}

impl<'a> Prospect<'a> {
    /// Args:
    /// * `context`: the context, with any values for keys that the request gives.
    pub(crate) fn new(
        words: &'a Words,
        base: &Base,
        chain: &'a [Arc<Known>],
        aim: &'a Aim,
        context: &Context,
        entities: &'a Entities,
    ) -> Self {
        let entry =
            |uid: &Arc<EntityUID>| EntityUIDEntry::Known { euid: Arc::clone(uid), loc: None };
        let evaluators = chain
            .iter()
            .map(|principal| {
                let resource = match &aim.collection {
                    None => entry(&aim.system.uid),
                    Some(_) => {
                        EntityUIDEntry::unknown_with_type(words.types.resource.clone(), None)
                    }
                };
                let request = Request::new_unchecked(
                    entry(&principal.uid),
                    entry(&base.action),
                    resource,
                    Some(context.clone()),
                );
                Evaluator::new(request, entities, Extensions::all_available())
            })
            .collect();
        Self { words, chain, aim, evaluators, unsaid: Keys::default(), is_precise: false }
    }

    /// Takes these context keys for unknown.
    pub(crate) fn with_unsaid(self, unsaid: Keys) -> Self {
        Self { unsaid, ..self }
    }

    /// Takes for known what a condition asks of the resource's collection and system.
    pub(crate) fn with_precision(self, is_precise: bool) -> Self {
        Self { is_precise, ..self }
    }

    /// Judges a rule for the principal at `index`.
    ///
    /// INVARIANT (slice): the caller has proved the rule's action scope.
    pub(crate) fn judge(&self, rule: &Rule, index: usize) -> Could {
        let (Some(principal), Some(evaluator)) =
            (self.chain.get(index), self.evaluators.get(index))
        else {
            return Could::Never;
        };
        if !rule.principal.matches(principal) {
            return Could::Never;
        }
        let scope = self.scope(&rule.resource);
        let Some(body) = rule.body.as_ref().filter(|_| scope != Could::Never) else {
            return scope;
        };
        scope.min(self.body(rule, body, evaluator))
    }

    fn scope(&self, scope: &Scope) -> Could {
        let Some(collection) = &self.aim.collection else {
            return Could::of(scope.matches(&self.aim.system));
        };
        let system = self.aim.system.uid.as_ref();
        let resource = &self.words.types.resource;
        let named = |uid: &EntityUID| {
            let name: &str = uid.eid().as_ref();
            let of: &str = collection.eid().as_ref();
            let within =
                name.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if uid.entity_type() == resource && within { Could::Perhaps } else { Could::Never }
        };
        let within = |uid: &EntityUID| {
            if uid == collection || uid == system { Could::Always } else { named(uid) }
        };
        match scope {
            Scope::Any => Could::Always,
            Scope::Eq(uid) => named(uid),
            Scope::In(uid) => within(uid),
            Scope::Is(kind) => Could::of(kind.as_ref() == resource),
            Scope::IsIn(kind, uid) => Could::of(kind.as_ref() == resource).min(within(uid)),
            Scope::Never => Could::Never,
        }
    }

    /// The result of `resource in Collection::"…"` and of `resource in System::"…"`.
    fn of_collection(&self, expr: &Expr) -> Option<Expr> {
        let ExprKind::BinaryApp { op: BinaryOp::In, arg1, arg2 } = expr.expr_kind() else {
            return None;
        };
        let ExprKind::Lit(Literal::EntityUID(uid)) = arg2.expr_kind() else { return None };
        let types = &self.words.types;
        let is_group = [&types.collection, &types.system].contains(&uid.entity_type());
        let is_resource = matches!(arg1.expr_kind(), ExprKind::Var(Var::Resource));
        let is_within =
            Some(uid.as_ref()) == self.aim.collection.as_ref() || **uid == *self.aim.system.uid;
        (is_resource && is_group).then(|| Expr::val(is_within))
    }

    fn body(&self, rule: &Rule, body: &Expr, evaluator: &Evaluator<'_>) -> Could {
        let asks_collection = self.is_precise && self.aim.collection.is_some();
        let unsaid =
            Key::ALL.iter().any(|key| self.unsaid.contains(*key) && rule.keys.contains(*key));
        let slots = SlotEnv::new();
        let value = if unsaid || asks_collection {
            let mut replace = |expr: &Expr| {
                let known = if asks_collection { self.of_collection(expr) } else { None };
                known.or_else(|| unknown(expr, self.unsaid))
            };
            evaluator.partial_interpret(&super::syntax::bare(body, &mut replace), &slots)
        } else {
            evaluator.partial_interpret(body, &slots)
        };
        match value {
            Ok(PartialValue::Value(Value {
                value: ValueKind::Lit(Literal::Bool(fires)), ..
            })) => Could::of(fires),
            Ok(PartialValue::Residual(rest)) => {
                if is_never(&rest, true) {
                    Could::Never
                } else if is_never(&rest, false) {
                    Could::Always
                } else {
                    Could::Perhaps
                }
            }
            // A permit that fails has not fired, a forbid that fails denies.
            Ok(PartialValue::Value(_)) | Err(_) => Could::of(rule.effect == PolicyEffect::Forbid),
        }
    }
}

/// Keys of the context with a value that is known.
pub(crate) fn said(keys: Keys, unsaid: Keys) -> Keys {
    let mut said = Keys::default();
    for key in Key::ALL {
        if keys.contains(key) && !unsaid.contains(key) {
            said.insert(key);
        }
    }
    said
}

/// What stands for an expression that reads the context.
fn unknown(expr: &Expr, unsaid: Keys) -> Option<Expr> {
    let is_context = |expr: &Expr| matches!(expr.expr_kind(), ExprKind::Var(Var::Context));
    let is_unsaid = |name: &str| Key::parse(name).is_some_and(|key| unsaid.contains(key));
    let stands = |name: &str| Expr::unknown(Unknown::new_untyped(name.to_owned()));
    match expr.expr_kind() {
        ExprKind::GetAttr { expr: of, attr } if is_context(of) => {
            Some(if is_unsaid(attr) { stands(attr) } else { expr.clone() })
        }
        ExprKind::HasAttr { expr: of, attr } if is_context(of) => {
            // The context is total: what policies may read there is there.
            Some(if is_unsaid(attr) { Expr::val(true) } else { expr.clone() })
        }
        ExprKind::ExtHasAttr { expr: of, attrs } if is_context(of) => {
            let first: &str = attrs.first();
            Some(if is_unsaid(first) { stands(first) } else { expr.clone() })
        }
        ExprKind::Var(Var::Context) => Some(stands("context")),
        _ => None,
    }
}

/// Whether what is left of an expression never comes to `value`: to the other one, or to an error.
// Recursion is bounded by the depth of a policy's conditions, which is bounded at load.
pub(super) fn is_never(rest: &Expr, value: bool) -> bool {
    match rest.expr_kind() {
        ExprKind::Lit(Literal::Bool(literal)) => *literal != value,
        ExprKind::Lit(_) => true,
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => is_never(arg, !value),
        ExprKind::And { left, right } if value => is_never(left, true) || is_never(right, true),
        ExprKind::And { left, right } => is_never(left, false) && is_never(right, false),
        ExprKind::Or { left, right } if value => is_never(left, true) && is_never(right, true),
        ExprKind::Or { left, right } => is_never(left, false) || is_never(right, false),
        ExprKind::If { then_expr, else_expr, .. } => {
            is_never(then_expr, value) && is_never(else_expr, value)
        }
        _ => false,
    }
}
