//! The chain of a call, and its TLS peer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::decision::{Principal, ProofMethod};
use authz_kernel::plan::HeldRoles;
use authz_token::{ClaimValue, PeerFacts};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::digest::{Hash, Hex};
use super::masking::Masking;
use crate::judgement::{Judgement, method_of, name_of, principal_of};

/// Roles of a principal that a record repeats.
const MAX_ROLES: usize = 64;

#[derive(Serialize)]
struct ChainLink<'a> {
    kind: &'a str,
    id: Cow<'a, str>,
    /// Alias of the issuer of the subject's token, or trust domain of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    /// In the bundle that judged.
    roles: RolesMember,
    proof: &'a str,
    claims: ClaimsMember<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_sha256: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
}

/// Principals that act, the caller last.
pub(super) struct ChainMember<'a> {
    pub(super) judgement: &'a Judgement,
    pub(super) notes: &'a Masking<'a>,
}

impl Serialize for ChainMember<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { judgement, notes } = *self;
        let mut links = serializer.serialize_seq(None)?;
        let caller = &judgement.caller;
        let refused = caller.refused_agent.as_deref().filter(|_| caller.chain.is_empty());
        let refused_chain = refused.map(|agent| [principal_of(agent)]);
        let chain = refused_chain.as_ref().map_or(caller.chain.as_slice(), <[_; 1]>::as_slice);
        let agent = refused.or(caller.facts.agent.as_deref());
        for (index, principal) in chain.iter().enumerate() {
            let roles =
                judgement.arrival.world.as_ref().map(|world| world.plan.roles_of(principal));
            if roles.as_ref().is_some_and(|roles| roles.iter().len() > MAX_ROLES) {
                notes.mask(format!("/input/chain/{index}/roles"));
            }
            let kind = match principal {
                Principal::Agent { .. } => "Agent",
                Principal::User(_) => "User",
                Principal::Service(_) => "Service",
            };
            // Proved when the task was started or delegated.
            let link = ChainLink {
                kind,
                id: name_of(principal),
                issuer: None,
                roles: RolesMember(roles),
                proof: "task",
                claims: ClaimsMember { all: None, index, notes },
                token_sha256: None,
                certificate_sha256: None,
                kid: None,
                issued_at: None,
                expires_at: None,
            };
            let is_caller = index.saturating_add(1) == chain.len();
            let link = match (principal, agent, &caller.facts.subject) {
                (Principal::Agent { .. }, Some(agent), _) if is_caller => ChainLink {
                    issuer: Some(&agent.trust_domain),
                    proof: method_of(agent.proof).as_str(),
                    token_sha256: agent.token_digest.as_ref().map(Hex::from),
                    certificate_sha256: agent.certificate_digest.as_ref().map(Hex::from),
                    kid: agent.kid.as_deref(),
                    issued_at: agent.issued_at,
                    expires_at: agent.expires_at,
                    ..link
                },
                (Principal::User(_) | Principal::Service(_), _, Some(subject)) => ChainLink {
                    issuer: Some(&subject.issuer),
                    proof: ProofMethod::Jwt.as_str(),
                    kid: subject.kid.as_deref(),
                    claims: ClaimsMember { all: Some(&subject.claims), index, notes },
                    token_sha256: Some(Hex::from(&subject.token_digest)),
                    issued_at: subject.issued_at,
                    expires_at: Some(subject.expires_at),
                    ..link
                },
                _ => link,
            };
            links.serialize_element(&link)?;
        }
        links.end()
    }
}

/// The roles of a link, as far as they are written.
struct RolesMember(Option<HeldRoles>);

impl Serialize for RolesMember {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().flat_map(HeldRoles::iter).take(MAX_ROLES))
    }
}

/// A verified TLS peer.
pub(super) struct PeerMember<'a>(pub(super) &'a PeerFacts);

impl Serialize for PeerMember<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(facts) = *self;
        let mut peer = serializer.serialize_map(Some(3))?;
        peer.serialize_entry("id", &facts.spiffe_id)?;
        peer.serialize_entry("certificate_sha256", &Hex::from(&facts.certificate_digest))?;
        peer.serialize_entry("expires_at", &facts.expires_at)?;
        peer.end()
    }
}

/// Claims of a link, texts as digests.
struct ClaimsMember<'a> {
    all: Option<&'a BTreeMap<String, ClaimValue>>,
    /// Position of the link in its chain.
    index: usize,
    notes: &'a Masking<'a>,
}

impl Serialize for ClaimsMember<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_map(None)?;
        for (name, claim) in self.all.into_iter().flatten() {
            match claim {
                ClaimValue::Bool(value) => shown.serialize_entry(name, value)?,
                ClaimValue::Long(value) => shown.serialize_entry(name, value)?,
                ClaimValue::String(text) => shown.serialize_entry(name, &Hash::of(text))?,
                ClaimValue::Set(texts) => shown.serialize_entry(name, &Hashes(texts))?,
            }
            if matches!(claim, ClaimValue::String(_) | ClaimValue::Set(_)) {
                self.notes.mask(format!("/input/chain/{}/claims/{name}", self.index));
            }
        }
        shown.end()
    }
}

/// The digests of texts.
struct Hashes<'a>(&'a BTreeSet<String>);

impl Serialize for Hashes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|text| Hash::of(text)))
    }
}
