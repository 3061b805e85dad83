//! How often JSON Schema looks at one place of a value.
//!
//! A union tries each branch. Where several branches lead back to the union, every level of nesting multiplies the
//! work: few bytes would hold a thread for hours. So the schema becomes a graph at load, and where nesting can multiply,
//! each request is counted through it, which is linear, before JSON Schema sees it.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value as Json;

use super::types::{MAX_NODES, SchemaError, escape};

/// How often one place may be looked at.
const MAX_AT_ONE_PLACE: u64 = 4096;
/// How often all places together may be looked at.
const MAX_IN_ALL: u64 = 1 << 20;
/// Depth of the argument reader: no value nests deeper.
const MAX_VALUE_DEPTH: usize = 32;

/// Keywords whose schema, or each of whose schemas, applies to the value itself.
const HERE: [&str; 8] = ["allOf", "anyOf", "else", "if", "not", "oneOf", "propertyNames", "then"];

/// A schema node: where it sends a value, and the value's members or items.
#[derive(Debug, Default)]
struct UnionNode {
    here: Vec<usize>,
    properties: BTreeMap<String, usize>,
    patterns: Vec<usize>,
    /// `additionalProperties`: members that are not in `properties`.
    others: Vec<usize>,
    prefix: Vec<usize>,
    /// `items`, `additionalItems`: items after the prefix.
    items: Vec<usize>,
    /// `contains`, and the other keywords that look at every item or member.
    every: Vec<usize>,
}

impl UnionNode {
    fn below(&self) -> impl Iterator<Item = usize> + '_ {
        let lists = [&self.patterns, &self.others, &self.prefix, &self.items, &self.every];
        self.properties.values().chain(lists.into_iter().flatten()).copied()
    }
}

/// The graph of a schema in which nesting multiplies the work.
#[derive(Debug)]
pub(super) struct Unions {
    nodes: Vec<UnionNode>,
    /// Every node before those to which it sends the same value.
    order: Vec<usize>,
}

/// Builds the graph.
///
/// Returns none where no value within the limits is looked at too often.
///
/// # Errors
/// A schema that leads back to itself without going into the value, which no checker ends; a nested `$id`, or a
/// `$ref` in a form that is not followed.
pub(super) fn compile(document: &Json) -> Result<Option<Unions>, SchemaError> {
    let nodes = Builder::build(document)?;
    let order = sorted(&nodes, |node| node.here.as_slice()).map_err(|()| {
        SchemaError::new(
            "",
            "a `$ref` leads back to itself without going into the value; put `properties` or `items` between",
        )
    })?;
    let unions = Unions { nodes, order };
    Ok(unions.multiplies().then_some(unions))
}

/// Every node before those that it points to; none where they form a circle.
fn sorted(nodes: &[UnionNode], next: impl Fn(&UnionNode) -> &[usize]) -> Result<Vec<usize>, ()> {
    let mut waits = vec![0_usize; nodes.len()];
    for to in nodes.iter().flat_map(&next) {
        if let Some(waits) = waits.get_mut(*to) {
            *waits = waits.saturating_add(1);
        }
    }
    let free = waits.iter().enumerate().filter(|(_, waits)| **waits == 0);
    let mut order: Vec<usize> = free.map(|(index, _)| index).collect();
    let mut done = 0;
    while let Some(index) = order.get(done).copied() {
        done = done.saturating_add(1);
        for to in nodes.get(index).into_iter().flat_map(&next) {
            if let Some(waits) = waits.get_mut(*to) {
                *waits = waits.saturating_sub(1);
                if *waits == 0 {
                    order.push(*to);
                }
            }
        }
    }
    if order.len() == nodes.len() { Ok(order) } else { Err(()) }
}

impl Unions {
    /// Whether some value within the depth limit could be looked at too often at one place.
    fn multiplies(&self) -> bool {
        // `paths[n]`: in how many ways node `n` can reach one place that is so many levels below.
        let mut below: Vec<u64> = vec![0; self.nodes.len()];
        for _ in 0..=MAX_VALUE_DEPTH {
            let mut paths = vec![0_u64; self.nodes.len()];
            for index in self.order.iter().rev() {
                let Some(node) = self.nodes.get(*index) else { continue };
                let sum = |list: &[usize], of: &[u64]| {
                    list.iter().filter_map(|n| of.get(*n)).fold(0_u64, |a, b| a.saturating_add(*b))
                };
                let most = |list: &mut dyn Iterator<Item = usize>| {
                    list.filter_map(|n| below.get(n)).copied().max().unwrap_or(0)
                };
                // A member is either in `properties` or another; an item in the prefix or after it.
                let one = most(&mut node.properties.values().copied())
                    .saturating_add(sum(&node.patterns, &below))
                    .max(sum(&node.others, &below).saturating_add(sum(&node.patterns, &below)))
                    .max(most(&mut node.prefix.iter().copied()).max(sum(&node.items, &below)))
                    .saturating_add(sum(&node.every, &below));
                let total = sum(&node.here, &paths).saturating_add(one).saturating_add(1);
                if let Some(slot) = paths.get_mut(*index) {
                    *slot = total;
                }
            }
            below = paths;
        }
        below.first().is_some_and(|root| *root > MAX_AT_ONE_PLACE)
    }

    /// Whether JSON Schema may look at a value: false where nesting would multiply the work beyond the limits.
    pub(super) fn bounded(&self, value: &Json) -> bool {
        let mut left = MAX_IN_ALL;
        let mut work: Vec<(&Json, BTreeMap<usize, u64>)> = vec![(value, BTreeMap::from([(0, 1)]))];
        while let Some((value, entered)) = work.pop() {
            let looks = self.here(&entered);
            let total = looks.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
            let Some(rest) = left.checked_sub(total) else { return false };
            if total > MAX_AT_ONE_PLACE {
                return false;
            }
            left = rest;
            match value {
                Json::Object(members) => {
                    for (name, member) in members {
                        let next = step(&looks, |node| {
                            let known = node.properties.get(name);
                            let others: &[usize] = if known.is_some() { &[] } else { &node.others };
                            let lists = [others, &node.patterns, &node.every];
                            known.into_iter().chain(lists.into_iter().flatten()).copied().collect()
                        });
                        let Some(rest) = left.checked_sub(next.len() as u64) else {
                            return false;
                        };
                        left = rest;
                        if !next.is_empty() {
                            work.push((member, next));
                        }
                    }
                }
                Json::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        let next = step(&looks, |node| {
                            let prefix = node.prefix.get(index);
                            let rest: &[usize] = if prefix.is_some() { &[] } else { &node.items };
                            prefix
                                .into_iter()
                                .chain([rest, node.every.as_slice()].into_iter().flatten())
                                .copied()
                                .collect()
                        });
                        let Some(rest) = left.checked_sub(next.len() as u64) else {
                            return false;
                        };
                        left = rest;
                        if !next.is_empty() {
                            work.push((item, next));
                        }
                    }
                }
                _ => {}
            }
        }
        true
    }

    /// The nodes that look at one place, and how often each does.
    fn here(&self, entered: &BTreeMap<usize, u64>) -> Vec<(&UnionNode, u64)> {
        let mut counts = vec![0_u64; self.nodes.len()];
        for (index, count) in entered {
            if let Some(slot) = counts.get_mut(*index) {
                *slot = slot.saturating_add(*count);
            }
        }
        let mut looks = Vec::new();
        for index in &self.order {
            let (Some(node), Some(count)) = (self.nodes.get(*index), counts.get(*index).copied())
            else {
                continue;
            };
            if count == 0 {
                continue;
            }
            looks.push((node, count));
            for next in &node.here {
                if let Some(slot) = counts.get_mut(*next) {
                    *slot = slot.saturating_add(count);
                }
            }
        }
        looks
    }
}

/// The nodes that look at one member or item.
fn step(
    looks: &[(&UnionNode, u64)],
    below: impl Fn(&UnionNode) -> Vec<usize>,
) -> BTreeMap<usize, u64> {
    let mut next = BTreeMap::new();
    for (node, count) in looks {
        for index in below(node) {
            let slot: &mut u64 = next.entry(index).or_default();
            *slot = slot.saturating_add(*count);
        }
    }
    next
}

struct Builder<'a> {
    document: &'a Json,
    known: HashMap<*const Json, usize>,
    /// Schemas in the order of their numbers, with where they stand.
    schemas: Vec<(&'a Json, String)>,
}

impl<'a> Builder<'a> {
    fn build(document: &'a Json) -> Result<Vec<UnionNode>, SchemaError> {
        let mut builder = Self { document, known: HashMap::new(), schemas: Vec::new() };
        builder.number(document, String::new())?;
        let mut nodes = Vec::new();
        while let Some((schema, at)) = builder.schemas.get(nodes.len()).cloned() {
            nodes.push(builder.node(schema, &at)?);
        }
        Ok(nodes)
    }

    fn number(&mut self, schema: &'a Json, at: String) -> Result<usize, SchemaError> {
        let next = self.schemas.len();
        if let Some(known) = self.known.get(&std::ptr::from_ref(schema)) {
            return Ok(*known);
        }
        if next >= MAX_NODES {
            return Err(SchemaError::new(&at, format!("has more than {MAX_NODES} nodes")));
        }
        self.known.insert(std::ptr::from_ref(schema), next);
        self.schemas.push((schema, at));
        Ok(next)
    }

    /// A schema, each of a list of them, or each of those under a name.
    fn all(&mut self, part: &'a Json, at: &str) -> Result<Vec<usize>, SchemaError> {
        match part {
            Json::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.number(item, format!("{at}/{index}")))
                .collect(),
            _ => Ok(vec![self.number(part, at.to_owned())?]),
        }
    }

    fn named(&mut self, part: &'a Json, at: &str) -> Result<BTreeMap<String, usize>, SchemaError> {
        let mut named = BTreeMap::new();
        for (name, schema) in part.as_object().into_iter().flatten() {
            // `dependencies` may list names instead of a schema.
            if schema.is_object() || schema.is_boolean() {
                named.insert(name.clone(), self.number(schema, format!("{at}/{}", escape(name)))?);
            }
        }
        Ok(named)
    }

    fn node(&mut self, schema: &'a Json, at: &str) -> Result<UnionNode, SchemaError> {
        let mut node = UnionNode::default();
        let Json::Object(map) = schema else { return Ok(node) };
        if !at.is_empty() && map.contains_key("$id") {
            return Err(SchemaError::new(at, "a nested `$id` would change what `$ref` means"));
        }
        for (key, part) in map {
            let below = format!("{at}/{}", escape(key));
            match key.as_str() {
                "$ref" => node.here.push(self.target(part, at)?),
                "$dynamicRef" | "$recursiveRef" => {
                    return Err(SchemaError::new(at, format!("`{key}` is not supported")));
                }
                "contains" => node.every.extend(self.all(part, &below)?),
                "dependentSchemas" | "dependencies" => {
                    node.here.extend(self.named(part, &below)?.into_values());
                }
                key if HERE.contains(&key) => node.here.extend(self.all(part, &below)?),
                "properties" => node.properties = self.named(part, &below)?,
                "patternProperties" => {
                    node.patterns.extend(self.named(part, &below)?.into_values());
                }
                "additionalProperties" => node.others.extend(self.all(part, &below)?),
                "prefixItems" => node.prefix.extend(self.all(part, &below)?),
                "items" if part.is_array() => node.prefix.extend(self.all(part, &below)?),
                "items" | "additionalItems" => node.items.extend(self.all(part, &below)?),
                "unevaluatedItems" | "unevaluatedProperties" => {
                    node.every.extend(self.all(part, &below)?);
                }
                _ => {}
            }
        }
        // What is left over is found by trying the branches once more.
        if map.keys().any(|key| key.starts_with("unevaluated")) {
            node.here.extend_from_within(..);
            let again: Vec<usize> = node.below().collect();
            node.every.extend(again);
        }
        Ok(node)
    }

    fn target(&mut self, reference: &'a Json, at: &str) -> Result<usize, SchemaError> {
        let text = reference.as_str().unwrap_or_default();
        let pointer =
            text.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(pointer) = pointer.filter(|pointer| !pointer.contains('%')) else {
            return Err(SchemaError::new(
                at,
                format!(
                    "`$ref: {text}` is no plain reference into the schema; only `#/…` is allowed"
                ),
            ));
        };
        let Some(target) = self.document.pointer(pointer) else {
            return Err(SchemaError::new(at, format!("`$ref: {text}` points to nothing")));
        };
        self.number(target, pointer.to_owned())
    }
}
