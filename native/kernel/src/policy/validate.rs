//! Strict validation by Cedar, each policy against the part of the schema that its scope covers.
//!
//! A policy on one operation is validated against that operation alone: against all of them, Cedar would compare its
//! scope with every action, which made 10,000 policies take seconds. The result is the same, since an action outside
//! the scope types the policy as false. And a change to one operation invalidates only what covers it.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr as _;

use authz_bundle::pause::Pause;
use cedar_policy::{PolicySet, Schema, SchemaFragment, ValidationMode, Validator};
use miette::Diagnostic as _;
use sha2::{Digest as _, Sha256};

use super::{Catalog, Covered, Placed};
use crate::diagnostic::Diagnostics;
use crate::table::Table;
use crate::work::CompileProgress;

/// Attributes of principal, action, resource and context may be read; those of entities found there may not.
const LEVEL: u32 = 1;

/// Cedar schema of a bundle, in parts.
pub(crate) struct SchemaTexts {
    /// Entity types and action groups.
    pub(crate) prelude: String,
    /// Declaration of each operation, by position.
    pub(crate) actions: Vec<String>,
}

/// Validates each policy, unless it was valid under the same part of the schema before.
///
/// `covered`: the operations that each policy's scope covers, by position; `None` for a policy with an error.
pub(crate) fn validate(
    policies: &mut [Placed],
    covered: &[Option<Covered>],
    catalog: &Catalog<'_>,
    texts: &SchemaTexts,
    work: &mut CompileProgress<'_>,
) {
    let SchemaTexts { prelude, actions } = texts;
    let base: [u8; 32] = Sha256::digest(prelude).into();
    let digests: Vec<[u8; 32]> = actions.iter().map(|text| Sha256::digest(text).into()).collect();
    let mut parts: Table<Covered, Vec<usize>> = Table::default();
    for (index, (placed, covered)) in policies.iter().zip(covered).enumerate() {
        work.pause.rest();
        if let Some(covered) = covered {
            parts.entry(widened(placed, covered, catalog)).or_default().push(index);
        }
    }
    // In a fixed order, so that messages come in the same order each time.
    let mut parts: Vec<(Covered, Vec<usize>)> = parts.into_iter().collect();
    parts.sort_by_key(|(_, members)| members.first().copied());
    let mut shared = None;
    for (part, members) in parts {
        work.pause.rest();
        let mut digest = Sha256::new();
        digest.update(base);
        let list: Vec<usize> = match part {
            Covered::All => (0..actions.len()).collect(),
            Covered::Of(list) => list,
        };
        for index in &list {
            digest.update(digests.get(*index).copied().unwrap_or_default());
        }
        let digest: [u8; 32] = digest.finalize().into();
        let stale: Vec<usize> = members
            .into_iter()
            .filter(|index| {
                policies.get(*index).is_some_and(|placed| placed.validated != Some(digest))
            })
            .collect();
        if stale.is_empty() {
            continue;
        }
        let own = list.iter().filter_map(|index| actions.get(*index)).map(String::as_str);
        let schema = schema(&mut shared, prelude, &own.collect::<String>(), &mut work.pause);
        work.pause.rest();
        for (index, valid) in judge(policies, &stale, schema, &mut work.found) {
            if let Some(placed) = policies.get_mut(index) {
                placed.validated = valid.then_some(digest);
            }
        }
    }
}

/// The scope, and the operations that the body names: they must be declared too.
fn widened(placed: &Placed, covered: &Covered, catalog: &Catalog<'_>) -> Covered {
    let Covered::Of(list) = covered else { return Covered::All };
    let named = placed.policy.reading.body_actions.iter();
    let named = named.filter_map(|id| catalog.operations.get(id.as_str()).copied());
    let mut all: Vec<usize> = list.iter().copied().chain(named).collect();
    all.sort_unstable();
    all.dedup();
    Covered::Of(all)
}

/// The schema of some operations.
///
/// `shared`: the prelude, once it was read.
fn schema(
    shared: &mut Option<SchemaFragment>,
    prelude: &str,
    actions: &str,
    pause: &mut Pause<'_>,
) -> Result<Schema, String> {
    let read = |text: &str| SchemaFragment::from_str(text).map_err(|error| error.to_string());
    let prelude = match shared {
        Some(prelude) => prelude.clone(),
        None => shared.insert(read(prelude)?).clone(),
    };
    pause.rest();
    let actions = read(actions)?;
    pause.rest();
    Schema::from_schema_fragments([prelude, actions]).map_err(|error| error.to_string())
}

fn judge(
    policies: &[Placed],
    stale: &[usize],
    schema: Result<Schema, String>,
    diagnostics: &mut Diagnostics,
) -> Vec<(usize, bool)> {
    let mut valid: BTreeMap<usize, bool> = stale.iter().map(|index| (*index, true)).collect();
    let none = || stale.iter().map(|index| (*index, false)).collect();
    let first =
        stale.first().and_then(|index| policies.get(*index)).map(|placed| placed.at.clone());
    let at = first.unwrap_or_default();
    let schema = match schema {
        Ok(schema) => schema,
        Err(error) => {
            diagnostics.error(&at, format!("the bundle gives no valid Cedar schema: {error}"), "");
            return none();
        }
    };
    let mut set = PolicySet::new();
    let mut positions: HashMap<&str, usize> = HashMap::new();
    for index in stale {
        let Some(placed) = policies.get(*index) else { continue };
        positions.insert(&placed.policy.id, *index);
        if let Err(error) = set.add(placed.policy.parsed.clone()) {
            // A repeated id has been reported with both places.
            if !diagnostics.has_errors() {
                diagnostics.error(&placed.at, error.to_string(), "");
            }
            valid.insert(*index, false);
        }
    }
    let result = Validator::new(schema).validate_with_level(&set, ValidationMode::Strict, LEVEL);
    let mut refuse = |id: &str, offset: Option<usize>, what: String, fix: String| {
        let found = positions.get(id).and_then(|index| Some((*index, policies.get(*index)?)));
        match found {
            Some((index, placed)) => {
                let offset =
                    offset.unwrap_or(placed.policy.start).saturating_sub(placed.policy.start);
                diagnostics.error(&placed.place(offset), what, fix);
                valid.insert(index, false);
            }
            // An error that names no policy of ours refuses them all.
            None => {
                diagnostics.error(&at, what, fix);
                valid.values_mut().for_each(|valid| *valid = false);
            }
        }
    };
    for error in result.validation_errors() {
        let offset =
            error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
        let fix = error.help().map_or_else(
            || "Fix the policy, or the declaration that it reads.".to_owned(),
            |help| format!("{help}."),
        );
        refuse(error.policy_id().as_ref(), offset, error.to_string(), fix);
    }
    for warning in result.validation_warnings() {
        let offset =
            warning.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
        let help = warning.help().map(|help| format!("{help}.")).unwrap_or_default();
        let fix = if help.is_empty() {
            "A warning refuses the bundle too: fix the policy.".to_owned()
        } else {
            help
        };
        refuse(warning.policy_id().as_ref(), offset, warning.to_string(), fix);
    }
    valid.into_iter().collect()
}
