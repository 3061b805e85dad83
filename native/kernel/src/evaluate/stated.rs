//! Policies as texts for a solver, and their verdicts on a stated request.

use cedar_policy_core::ast::{EntityUID, Expr, ExprKind, Policy, Value, Var};
use cedar_policy_core::entities::Dereference;

use super::{
    Attributes, Base, Context, Entities, EvaluationError, Evaluator, Extensions, Known, Literal,
    NoEntitiesSchema, Rule, SlotEnv, TCComputation, Unready, ValueKind, Verdict,
};

/// Scope of a policy for principal and resource as a Cedar expression. The slice that a policy stands in proves its scope for the
/// action.
pub(crate) fn scope(policy: &Policy) -> String {
    let principal = policy.principal_constraint().as_expr();
    let resource = policy.resource_constraint().as_expr();
    let is_true = |expr: &Expr| matches!(expr.expr_kind(), ExprKind::Lit(Literal::Bool(true)));
    let parts = [principal, resource].into_iter().filter(|expr| !is_true(expr));
    let parts: Vec<String> = parts.map(|expr| format!("({expr})")).collect();
    if parts.is_empty() { "true".to_owned() } else { parts.join(" && ") }
}

/// Body of a policy as a Cedar expression; `None` without conditions.
pub(crate) fn body(policy: &Policy) -> Option<String> {
    policy.non_scope_constraints().map(ToString::to_string)
}

/// True where scope or body of a policy mention `resource`.
pub(crate) fn reads_resource(policy: &Policy) -> bool {
    let is_resource = |expr: &Expr| matches!(expr.expr_kind(), ExprKind::Var(Var::Resource));
    policy.resource_constraint().as_expr().subexpressions().any(is_resource)
        || policy.non_scope_constraints().is_some_and(|body| body.subexpressions().any(is_resource))
}

/// True where the body of a policy mentions `action`.
pub(crate) fn reads_action(policy: &Policy) -> bool {
    let is_action = |expr: &Expr| matches!(expr.expr_kind(), ExprKind::Var(Var::Action));
    policy.non_scope_constraints().is_some_and(|body| body.subexpressions().any(is_action))
}

/// A stated request, ready for the rules of one operation.
pub(crate) struct StatedJudge {
    principal: Known,
    resource: Known,
    entities: Entities,
    request: cedar_policy_core::ast::Request,
}

impl StatedJudge {
    /// Args: `base`: action and groups of the operation; they stand in for those of the request.
    ///
    /// # Errors
    /// The request leaves a part open, or its entities contradict each other.
    pub(crate) fn new(
        base: &Base,
        request: &cedar_policy::Request,
        entities: &cedar_policy::Entities,
    ) -> Result<Self, Unready> {
        let request = request.as_ref();
        let open = || Unready("the request leaves a part open".to_owned());
        let principal = request.principal().uid().ok_or_else(open)?;
        let resource = request.resource().uid().ok_or_else(open)?;
        let context: &Context = request.context().ok_or_else(open)?;
        let stated = entities.as_ref();
        let known = |uid: &EntityUID| Known {
            uid: uid.clone().into(),
            ancestors: match stated.entity(uid) {
                Dereference::Data(entity) => entity.ancestors().cloned().collect(),
                Dereference::NoSuchEntity | Dereference::Residual(_) => Vec::new(),
            },
            attributes: Attributes::None,
            alone: None,
        };
        let is_action = |uid: &EntityUID| uid.entity_type().is_action();
        let others = stated.iter().filter(|entity| !is_action(entity.uid())).cloned();
        let entities = base
            .entities
            .clone()
            .add_entities(
                others.map(std::sync::Arc::new),
                None::<&NoEntitiesSchema>,
                TCComputation::ComputeNow,
                Extensions::all_available(),
            )
            .map_err(|error| Unready(error.to_string()))?;
        let entry =
            |uid: &EntityUID| super::EntityUIDEntry::Known { euid: uid.clone().into(), loc: None };
        let request = super::Request::new_unchecked(
            entry(principal),
            entry(&base.action),
            entry(resource),
            Some(context.clone()),
        );
        Ok(Self { principal: known(principal), resource: known(resource), entities, request })
    }

    /// Judges a rule, as [`super::Judge::judge`] does.
    pub(crate) fn judge(&self, rule: &Rule) -> Verdict {
        if !rule.resource.matches(&self.resource) || !rule.principal.matches(&self.principal) {
            return Verdict::NotFired;
        }
        let Some(body) = &rule.body else { return Verdict::Fired };
        let evaluator =
            Evaluator::new(self.request.clone(), &self.entities, Extensions::all_available());
        verdict(evaluator.interpret(body, &SlotEnv::new()))
    }
}

/// Verdict of the value of a body.
pub(super) fn verdict(value: Result<Value, EvaluationError>) -> Verdict {
    match value {
        Ok(Value { value: ValueKind::Lit(Literal::Bool(true)), .. }) => Verdict::Fired,
        Ok(Value { value: ValueKind::Lit(Literal::Bool(false)), .. }) => Verdict::NotFired,
        Ok(_) => Verdict::Failed("the conditions are no boolean".to_owned()),
        // Its own text repeats the numbers, which may be arguments.
        Err(EvaluationError::IntegerOverflow(_)) => Verdict::Failed("integer overflow".to_owned()),
        Err(error) => Verdict::Failed(error.to_string()),
    }
}
