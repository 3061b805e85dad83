//! The truth of conditions that only compare what the context holds, or the resource's own attributes, as most do.
//!
//! Cedar's evaluator makes a value of every step on the way, `context`, `context.input`, `context.input.amount`, each time
//! anew, and asks a store for attributes, which would have to be made first; here the same is looked at where it stands.
//! Nothing is decided that could be an error: whatever is missing, of another type, or not one of the few forms below is left
//! to the evaluator. A property test holds both equal.

use std::collections::BTreeMap;

use cedar_policy_core::ast::{
    BinaryOp, EntityUID, Expr, ExprKind, Literal, Set, UnaryOp, Value, ValueKind, Var,
};
use smol_str::SmolStr;

use super::{Attributes, ID, LABELS, same};

/// A record of Cedar's.
type Record = BTreeMap<SmolStr, Value>;

/// What an expression stands for.
enum Found<'a> {
    Literal(&'a Literal),
    Set(&'a Set),
    /// A text of the resource.
    Text(&'a SmolStr),
    /// Labels of the resource.
    Labels(&'a [EntityUID]),
}

/// Whether the condition holds; none where the evaluator must tell.
///
/// Args: `resource`: its attributes. What the principal has is not looked at here: two principals may have one uid, of which
/// the store has the first.
// Recursion is bounded by the depth limit of policies.
pub(super) fn truth(expr: &Expr, context: &Record, resource: &Attributes) -> Option<bool> {
    match expr.expr_kind() {
        ExprKind::And { left, right } => match truth(left, context, resource)? {
            true => truth(right, context, resource),
            false => Some(false),
        },
        ExprKind::Or { left, right } => match truth(left, context, resource)? {
            true => Some(true),
            false => truth(right, context, resource),
        },
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => {
            truth(arg, context, resource).map(|holds| !holds)
        }
        ExprKind::UnaryApp { op: UnaryOp::IsEmpty, arg } => match found(arg, context, resource)? {
            Found::Set(set) => Some(set.is_empty()),
            Found::Labels(labels) => Some(labels.is_empty()),
            Found::Literal(_) | Found::Text(_) => None,
        },
        ExprKind::BinaryApp { op, arg1, arg2 } => {
            match (op, found(arg1, context, resource)?, found(arg2, context, resource)?) {
                (BinaryOp::Eq, Found::Literal(one), Found::Literal(other)) => Some(one == other),
                (BinaryOp::Eq, Found::Text(text), Found::Literal(Literal::String(other)))
                | (BinaryOp::Eq, Found::Literal(Literal::String(other)), Found::Text(text)) => {
                    Some(text == other)
                }
                (
                    BinaryOp::Less,
                    Found::Literal(Literal::Long(one)),
                    Found::Literal(Literal::Long(other)),
                ) => Some(one < other),
                (
                    BinaryOp::LessEq,
                    Found::Literal(Literal::Long(one)),
                    Found::Literal(Literal::Long(other)),
                ) => Some(one <= other),
                (BinaryOp::Contains, Found::Set(set), Found::Literal(item)) => {
                    // Of a set of literals alone; another is searched by the evaluator.
                    set.fast.as_ref().map(|items| items.contains(item))
                }
                (
                    BinaryOp::Contains,
                    Found::Labels(labels),
                    Found::Literal(Literal::EntityUID(item)),
                ) => Some(labels.iter().any(|label| same(label, item))),
                _ => None,
            }
        }
        _ => match found(expr, context, resource)? {
            Found::Literal(Literal::Bool(holds)) => Some(*holds),
            _ => None,
        },
    }
}

fn found<'a>(expr: &'a Expr, context: &'a Record, resource: &'a Attributes) -> Option<Found<'a>> {
    match expr.expr_kind() {
        ExprKind::Lit(literal) => Some(Found::Literal(literal)),
        ExprKind::GetAttr { expr, attr }
            if matches!(expr.expr_kind(), ExprKind::Var(Var::Resource)) =>
        {
            match (resource, attr.as_str()) {
                (Attributes::Resource { id, .. }, ID) => Some(Found::Text(id)),
                (Attributes::Resource { labels, .. }, LABELS) => Some(Found::Labels(labels)),
                _ => None,
            }
        }
        ExprKind::GetAttr { expr, attr } => match &record(expr, context)?.get(attr)?.value {
            ValueKind::Lit(literal) => Some(Found::Literal(literal)),
            ValueKind::Set(set) => Some(Found::Set(set)),
            ValueKind::Record(_) | ValueKind::ExtensionValue(_) => None,
        },
        _ => None,
    }
}

fn record<'a>(expr: &Expr, context: &'a Record) -> Option<&'a Record> {
    match expr.expr_kind() {
        ExprKind::Var(Var::Context) => Some(context),
        ExprKind::GetAttr { expr, attr } => match &record(expr, context)?.get(attr)?.value {
            ValueKind::Record(members) => Some(members),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use cedar_policy_core::ast::{
        Context, Eid, EntityType, EntityUID, EntityUIDEntry, Name, Request, SlotEnv,
    };
    use cedar_policy_core::entities::Entities;
    use cedar_policy_core::evaluator::Evaluator;
    use cedar_policy_core::extensions::Extensions;
    use proptest::prelude::*;

    use super::*;
    use crate::evaluate::{Asks, Base, Known, store};

    fn uid(id: &str) -> EntityUID {
        let kind = EntityType::EntityType(Name::parse_unqualified_name("Agent").unwrap());
        EntityUID::from_components(kind, Eid::new(id), None)
    }

    fn entity(id: &str) -> Literal {
        Literal::EntityUID(Arc::new(uid(id)))
    }

    fn record(members: &[(&str, Value)]) -> Arc<Record> {
        Arc::new(members.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
    }

    fn long(number: i64) -> Value {
        Literal::Long(number).into()
    }

    /// A value of each kind, and a record that has them too.
    fn context() -> Arc<Record> {
        let members = [
            ("long", long(2)),
            ("other", long(3)),
            ("bool", Literal::Bool(true).into()),
            ("text", Literal::String("two".into()).into()),
            ("agent", entity("a").into()),
            ("set", Value::set_of_lits([Literal::Long(2), Literal::String("two".into())], None)),
            ("agents", Value::set_of_lits([entity("a"), entity("b")], None)),
            ("none", Value::set_of_lits([], None)),
            ("sets", Value::set([Value::set_of_lits([Literal::Long(2)], None), long(2)], None)),
        ];
        let inner = Value::record_arc(record(&members), None);
        let mut outer = members.to_vec();
        outer.push(("input", inner));
        record(&outer)
    }

    /// A resource with attributes, one whose attributes hold nothing, and one that has none.
    fn resources() -> [Known; 3] {
        let of = |attributes| Known {
            uid: Arc::new(uid("r")),
            ancestors: Vec::new(),
            attributes,
            alone: None,
        };
        [
            of(Attributes::Resource { id: "two".into(), labels: vec![uid("a"), uid("b")] }),
            of(Attributes::Resource { id: SmolStr::default(), labels: Vec::new() }),
            of(Attributes::None),
        ]
    }

    /// What Cedar makes of it; none: an error, or no truth value.
    fn judged(expr: &Expr, context: &Arc<Record>, resource: &Known) -> Option<bool> {
        let entry = |id| EntityUIDEntry::Known { euid: Arc::new(uid(id)), loc: None };
        let context = Some(Context::Value(Arc::clone(context)));
        let request = Request::new_unchecked(entry("p"), entry("do"), entry("r"), context);
        let base = Base { action: Arc::new(uid("do")), entities: Entities::new() };
        let entities = store(Asks::Resource, &base, &[], resource).unwrap();
        let evaluator = Evaluator::new(request, &entities, Extensions::all_available());
        match evaluator.interpret(expr, &SlotEnv::new()).ok()?.value {
            ValueKind::Lit(Literal::Bool(holds)) => Some(holds),
            _ => None,
        }
    }

    fn attribute(path: &[&str]) -> Expr {
        attribute_of(Var::Context, path)
    }

    fn attribute_of(var: Var, path: &[&str]) -> Expr {
        path.iter().fold(Expr::var(var), |expr, name| Expr::get_attr(expr, SmolStr::new(*name)))
    }

    fn any_expr() -> impl Strategy<Value = Expr> {
        let literals = prop_oneof![
            (1_i64..5).prop_map(Expr::val),
            any::<bool>().prop_map(Expr::val),
            prop_oneof![Just("two"), Just("")].prop_map(|text| Expr::val(SmolStr::new(text))),
            prop_oneof![Just("a"), Just("p")].prop_map(|id| Expr::val(entity(id))),
        ];
        let names = || {
            let all = [
                "long", "other", "bool", "text", "agent", "set", "agents", "none", "sets", "input",
                "missing",
            ];
            prop::sample::select(all.to_vec())
        };
        let attributes = prop::collection::vec(names(), 1..4);
        let attributes = (any::<bool>(), attributes).prop_map(|(deep, mut path)| {
            if deep {
                path.insert(0, "input");
            }
            attribute(&path)
        });
        let of_resource = prop::sample::select(vec!["id", "labels", "missing"])
            .prop_map(|name| attribute_of(Var::Resource, &[name]));
        let vars = vec![Var::Context, Var::Principal, Var::Resource];
        let vars = prop::sample::select(vars).prop_map(Expr::var);
        let leaves = prop_oneof![4 => literals, 6 => attributes, 3 => of_resource, 1 => vars];
        leaves.prop_recursive(4, 24, 3, move |inner| {
            let two = (inner.clone(), inner.clone());
            let ops = prop::sample::select(vec![
                BinaryOp::Less,
                BinaryOp::LessEq,
                BinaryOp::Eq,
                BinaryOp::Contains,
                BinaryOp::ContainsAny,
                BinaryOp::Add,
            ]);
            prop_oneof![
                2 => two.clone().prop_map(|(one, other)| Expr::and(one, other)),
                2 => two.clone().prop_map(|(one, other)| Expr::or(one, other)),
                1 => inner.clone().prop_map(Expr::not),
                1 => inner.clone().prop_map(Expr::is_empty),
                4 => (ops, two).prop_map(|(op, (one, other))| Expr::binary_app(op, one, other)),
                1 => (inner.clone(), inner.clone(), inner.clone())
                    .prop_map(|(test, then, other)| Expr::ite(test, then, other)),
                1 => (inner, names())
                    .prop_map(|(expr, name)| Expr::has_attr(expr, SmolStr::new(name))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Where something is told here, Cedar's evaluator tells the same.
        #[test]
        fn what_is_told_is_what_cedar_tells(expr in any_expr()) {
            let context = context();
            for resource in resources() {
                if let Some(holds) = truth(&expr, &context, &resource.attributes) {
                    prop_assert_eq!(Some(holds), judged(&expr, &context, &resource), "{}", expr);
                }
            }
        }
    }

    /// What is told here, and what is left to Cedar's evaluator.
    #[test]
    fn simple_comparisons_are_told() {
        let context = context();
        let less = |one, other| Expr::binary_app(BinaryOp::Less, one, other);
        let contains = |one, other| Expr::binary_app(BinaryOp::Contains, one, other);
        let (long, agents) = (attribute(&["input", "long"]), attribute(&["input", "agents"]));
        let missing = attribute(&["input", "missing"]);
        let (id, labels) =
            (attribute_of(Var::Resource, &["id"]), attribute_of(Var::Resource, &["labels"]));
        let is = |one, other| Expr::binary_app(BinaryOp::Eq, one, other);
        let two = || Expr::val(SmolStr::new("two"));
        let [resource, without, bare] = resources();
        for (expr, told) in [
            (less(long.clone(), Expr::val(3)), Some(true)),
            (less(Expr::val(3), long.clone()), Some(false)),
            (contains(agents.clone(), Expr::val(entity("a"))), Some(true)),
            (Expr::not(contains(agents, Expr::val(entity("c")))), Some(true)),
            (Expr::is_empty(attribute(&["input", "none"])), Some(true)),
            (Expr::is_empty(attribute(&["sets"])), Some(false)),
            (Expr::is_empty(attribute(&["text"])), None),
            (attribute(&["bool"]), Some(true)),
            (Expr::or(attribute(&["bool"]), missing.clone()), Some(true)),
            (Expr::and(Expr::val(false), missing.clone()), Some(false)),
            (Expr::and(attribute(&["bool"]), missing.clone()), None),
            (less(missing, Expr::val(3)), None),
            (less(attribute(&["text"]), Expr::val(3)), None),
            (attribute(&["long"]), None),
            (Expr::and(Expr::val(true), long), None),
            (is(id.clone(), two()), Some(true)),
            (is(Expr::val(SmolStr::new("three")), id.clone()), Some(false)),
            (is(id.clone(), Expr::val(2)), None),
            (id.clone(), None),
            (contains(labels.clone(), Expr::val(entity("a"))), Some(true)),
            (contains(labels.clone(), Expr::val(entity("c"))), Some(false)),
            (contains(labels.clone(), Expr::val(2)), None),
            (Expr::is_empty(labels.clone()), Some(false)),
            (Expr::is_empty(id.clone()), None),
            (is(attribute_of(Var::Resource, &["missing"]), two()), None),
            (is(attribute_of(Var::Principal, &["id"]), two()), None),
            (contains(attribute_of(Var::Principal, &["labels"]), Expr::val(entity("a"))), None),
        ] {
            assert_eq!(told, truth(&expr, &context, &resource.attributes), "{expr}");
            if told.is_some() {
                assert_eq!(told, judged(&expr, &context, &resource), "{expr}");
            }
        }
        let empty = Expr::is_empty(labels.clone());
        assert_eq!(Some(true), truth(&empty, &context, &without.attributes));
        assert_eq!(Some(true), judged(&empty, &context, &without));
        for expr in [empty, is(id, two()), contains(labels, Expr::val(entity("a")))] {
            assert_eq!(None, truth(&expr, &context, &bare.attributes), "{expr}");
            assert_eq!(None, judged(&expr, &context, &bare), "{expr}");
        }
    }
}
