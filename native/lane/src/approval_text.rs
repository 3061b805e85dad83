//! Texts for an agent about a call that waits for a person.
//!
//! `approval_texts.py` of the client has the same texts, so that an agent reads the same text behind a proxy and behind `authz mcp`.
//! They have nothing from the call.

use authz_kernel::reason::NextAction;
use sha2::{Digest as _, Sha256};

use crate::answer::challenge;
use crate::judgement::Judgement;

/// Prefix of a kind that people with a role can answer.
const ROLE: &str = "approve:";
/// Domain of the digest that an approval's code is taken from.
const CODE_DOMAIN: &[u8] = b"authz approval code\0";
/// Alphabet of base32 (RFC 4648 §6).
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Characters of a code.
const CODE_LENGTH: u32 = 6;

/// Returns the text that tells an agent how its call can pass, or `None` if no person is needed.
pub(crate) fn instructions(judgement: &Judgement) -> Option<String> {
    if let Some(challenge) = challenge(judgement) {
        let id = &challenge.id;
        let request = format!("request {id}, code {}", code(id));
        let place = if challenge.url.is_empty() {
            format!(
                "A person decides about exactly this call in Authz ({request}). Tell your user."
            )
        } else {
            let url = &challenge.url;
            format!(
                "Give your user this page, on which a person decides about exactly this call: {url} ({request})."
            )
        };
        let again =
            "Once it is approved, make the same call again with exactly the same arguments.";
        return Some(format!("{place} {again}"));
    }
    nobody(judgement)
}

/// Returns the text that a client shows beside the URL of the page. Only the code in it varies.
pub(crate) fn page_message(approval_id: &str) -> String {
    format!(
        "An AI agent asks to do something that a person must allow first. The page shows exactly what it is. \
         Open it only if you expect this, and compare the code: {}",
        code(approval_id)
    )
}

/// Returns the text for a step-up that people could answer, but that has no approval.
fn nobody(judgement: &Judgement) -> Option<String> {
    let kinds = judgement.decision().map_or(&[][..], |decision| decision.kinds.as_slice());
    let mut people: Vec<String> = Vec::new();
    for person in kinds.iter().filter_map(|kind| person(kind)) {
        if !people.contains(&person) {
            people.push(person);
        }
    }
    let asks =
        matches!(judgement.reason().row().next_action, NextAction::Confirm | NextAction::Approve);
    (asks && !people.is_empty()).then(|| {
        format!(
            "This needs approval by {}, and nobody can be asked here: tell your user to contact the owner of the system.",
            people.join(" and ")
        )
    })
}

fn person(kind: &str) -> Option<String> {
    if let Some(role) = kind.strip_prefix(ROLE) {
        return Some(format!("a person with the role {role}"));
    }
    let person = match kind {
        "approve" => "another person",
        "confirm" => "the user",
        "two_person" => "two other people",
        _ => return None,
    };
    Some(person.to_owned())
}

/// Returns the code by which a person recognises an approval in two places: the first 30 bits of a digest of its id, in base32.
fn code(approval_id: &str) -> String {
    let digest = Sha256::new().chain_update(CODE_DOMAIN).chain_update(approval_id).finalize();
    let bits = digest.iter().take(4).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    (0..CODE_LENGTH)
        .map(|place| {
            let index = bits >> (27 - 5 * place) & 31;
            char::from(*BASE32.get(index as usize).unwrap_or(&b'A'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::code;

    /// As `binding_code` of the client gives them.
    #[test]
    fn a_code_follows_from_the_id() {
        assert_eq!("GMNZS3", code("a1-1"));
        assert_eq!("CF6XWA", code("0123456789abcdef0123456789abcdef-7"));
    }
}
