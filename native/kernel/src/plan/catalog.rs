//! Operations of a bundle and of Authz, and the names under which policies know them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::arguments::{ArgumentSchema, Member};
use crate::mcp;
use crate::model::{Effect, Location, Model, Operation, ParamType, SystemKind, Template, Tier};
use crate::policy::{Catalog, Placed, SchemaTexts, Target};
use crate::schema::{
    self, APPROVE, GIVE, GIVE_GROUP, OWN_OPERATIONS, OWN_SYSTEM, START, SchemaNames,
};

/// Authz's own operations, with those that start and give the tasks of each template.
pub(super) fn own_operations(model: &Model) -> Vec<Operation> {
    let of_templates = model.templates.iter().flat_map(|(name, template)| {
        [START, GIVE].map(|prefix| template_operation(prefix, name, template))
    });
    OWN_OPERATIONS.iter().map(|name| own_operation(name)).chain(of_templates).collect()
}

fn own_operation(name: &str) -> Operation {
    Operation {
        id: format!("{OWN_SYSTEM}.{name}"),
        system: OWN_SYSTEM.to_owned(),
        name: name.to_owned(),
        effects: BTreeSet::from([Effect::Read]),
        tier: Tier::Low,
        reviewed: true,
        drifted: false,
        yields: (BTreeSet::new(), BTreeSet::new()),
        resource: None,
        destination: None,
        origins: Default::default(),
        input: Arc::new(own_input(name)),
        abortable: false,
        at: Location::default(),
    }
}

/// Argument schema of an operation of Authz. That of `approve` says which call the person answers, and for which queue.
fn own_input(name: &str) -> serde_json::Value {
    if name != APPROVE {
        return serde_json::json!({"type": "object", "properties": {}});
    }
    let text = || serde_json::json!({"type": "string"});
    serde_json::json!({
        "type": "object", "additionalProperties": false,
        "required": ["operation", "queue", "system", "tier"],
        "properties": {
            "operation": text(), "queue": text(), "system": text(),
            "tier": {"type": "string", "enum": ["low", "standard", "high", "critical"]},
        },
    })
}

/// The operation that starts or gives the tasks of a template. Its arguments are the template's parameters.
fn template_operation(prefix: &str, name: &str, template: &Template) -> Operation {
    let kind = |kind: &ParamType| match kind {
        ParamType::String => "string",
        ParamType::Long => "integer",
        ParamType::Bool => "boolean",
    };
    let properties: serde_json::Map<String, serde_json::Value> = template
        .params
        .iter()
        .map(|(name, of)| (name.clone(), serde_json::json!({"type": kind(of)})))
        .collect();
    let required: Vec<&String> = template.params.keys().collect();
    Operation {
        id: format!("{prefix}{name}"),
        name: format!("{prefix}{name}"),
        input: Arc::new(serde_json::json!({
            "type": "object", "required": required, "properties": properties,
            "additionalProperties": false,
        })),
        at: template.at.clone(),
        ..own_operation("")
    }
}

/// Action groups of an operation.
pub(crate) fn groups_of(operation: &Operation) -> Vec<String> {
    let system = format!("system:{}", operation.system);
    // Authz's own operations have no effect outside, so a policy on an effect is not meant for them.
    let effects = operation.effects.iter().filter(|_| operation.system != OWN_SYSTEM);
    let gives = operation.system == OWN_SYSTEM && operation.id.starts_with(GIVE);
    [system]
        .into_iter()
        .chain(gives.then(|| GIVE_GROUP.to_owned()))
        .chain(effects.map(|effect| format!("effect:{}", effect.as_str())))
        .collect()
}

/// Cedar type of the resource of an operation.
pub(crate) fn resource_type(operation: &Operation) -> &'static str {
    match operation.resource {
        Some(_) => "Resource",
        None if operation.id.starts_with(START) => "Template",
        None if operation.id.starts_with(GIVE) => "Agent",
        None => "System",
    }
}

/// All action groups, also groups of effects that no operation has.
pub(super) fn all_groups(groups: &[Vec<String>]) -> BTreeSet<&str> {
    const EFFECTS: [&str; 6] = [
        "effect:read",
        "effect:write",
        "effect:delete",
        "effect:export",
        "effect:execute",
        "effect:grant",
    ];
    EFFECTS.into_iter().chain(groups.iter().flatten().map(String::as_str)).collect()
}

/// Step-up kinds `reauth:…` that policies name.
pub(super) fn reauth_kinds(policies: &[Placed]) -> BTreeSet<String> {
    let kinds = policies.iter().filter_map(|placed| placed.policy.stepup.as_ref());
    let named = kinds.filter(|kind| {
        kind.strip_prefix("reauth:").is_some_and(|acr| {
            !acr.is_empty() && acr.len() <= 256 && !acr.contains(char::is_control)
        })
    });
    named.cloned().collect()
}

/// The catalog as policies name it.
pub(super) fn catalog<'a>(
    all: &[&'a Operation],
    groups: &'a [Vec<String>],
    arguments: &'a [Arc<ArgumentSchema>],
) -> Catalog<'a> {
    let mut catalog = Catalog::default();
    for group in all_groups(groups) {
        catalog.groups.insert(group, Vec::new());
    }
    for (position, (operation, groups)) in all.iter().zip(groups).enumerate() {
        catalog.operations.insert(&operation.id, position);
        for group in groups {
            catalog.groups.entry(group).or_default().push(position);
        }
    }
    let target = |operation: &&'a Operation| Target {
        system: &operation.system,
        is_given: operation.system == OWN_SYSTEM && operation.id.starts_with(GIVE),
        collection: operation.resource.as_ref().map(|rule| rule.collection.as_str()),
        destination: operation.destination.is_some(),
    };
    catalog.targets = all.iter().map(target).collect();
    catalog.inputs = arguments.iter().map(|schema| schema.members()).collect();
    let names = catalog.inputs.iter().flat_map(|input| input.keys());
    catalog.arguments = names.map(String::as_str).collect();
    catalog
}

/// The Cedar schema of a bundle.
///
/// `operations` are all operations, each with the members of its arguments, and `groups` the action groups of each.
pub(super) fn schema_texts<'a>(
    names: &SchemaNames,
    groups: &[Vec<String>],
    operations: impl Iterator<Item = (&'a Operation, &'a BTreeMap<String, Member>)>,
) -> SchemaTexts {
    let mut prelude = names.prelude();
    all_groups(groups).into_iter().for_each(|group| prelude.push_str(&schema::group(group)));
    let actions = operations.zip(groups).map(|((operation, input), groups)| {
        schema::action(&operation.id, groups, resource_type(operation), input)
    });
    SchemaTexts { prelude, actions: actions.collect() }
}

/// Whether an operation names a resource of an MCP server by its URI: `resources/read`, and a subscription.
pub(super) fn takes_uri(model: &Model, operation: &Operation) -> bool {
    let name = operation
        .id
        .strip_prefix(operation.system.as_str())
        .and_then(|rest| rest.strip_prefix('.'));
    is_of_mcp(model, operation) && matches!(name, Some(mcp::READ | mcp::OWN))
}

/// Whether an operation belongs to an MCP system.
pub(super) fn is_of_mcp(model: &Model, operation: &Operation) -> bool {
    let system = model.systems.get(&operation.system);
    system.is_some_and(|system| system.kind == SystemKind::Mcp)
}
