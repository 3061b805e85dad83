//! Step-up kinds: the evidence that lets a held call run.

use std::collections::BTreeMap;

use super::RoleMembers;

/// Step-up kinds that every bundle has.
pub const BUILT_IN_KINDS: [&str; 6] =
    ["confirm", "approve", "two_person", "fresh_credential", "bound_token", "confidence"];
/// Bytes of a kind.
const LONGEST_KIND: usize = 128;

/// Whether a bundle with these roles has a step-up kind: a built-in one, `approve:ROLE`, or `reauth:ACR`.
pub(crate) fn is_step_up_kind(kind: &str, roles: &BTreeMap<String, RoleMembers>) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    BUILT_IN_KINDS.contains(&kind)
        || kind.strip_prefix("approve:").is_some_and(|role| roles.contains_key(role))
        || kind.strip_prefix("reauth:").is_some_and(|acr| {
            !acr.is_empty() && kind.len() <= LONGEST_KIND && acr.chars().all(is_plain)
        })
}
