//! Verification of the credentials that callers present.
//!
//! [`verify`] turns evidence (tokens as received) into [`Facts`] (who is calling, and for whom),
//! given a compiled [`TrustStore`] and the time. It does no I/O, reads no clock, holds no globals
//! and never panics; the [`TokenCache`] that it is given changes only how long the answer takes,
//! never the answer.
//!
//! There is one validation profile per kind of token, and a token valid under one is invalid under
//! the others: the agent profile is the SPIFFE JWT-SVID; a subject's is the OAuth access token
//! (RFC 9068) or another JWT of a configured issuer, as that issuer is configured; a task credential
//! is an access token of our own. [`verify_peer`] is the profile of X.509-SVIDs, [`verify_proof`] that
//! of DPoP proofs. A profile of tokens checks, in this order: form and size, header, trust source,
//! signature, claims, time, and last that the key that the token is bound to was proved. Nothing that only the claims could tell is revealed of a token whose
//! signature is not valid: it is refused as [`RefusalReason::BadCredential`] or
//! [`RefusalReason::UntrustedIssuer`].
//!
//! ```
//! use authz_token::{
//!     Presentation, RefusalReason, TokenCache, TrustSpec, TrustStore, UnixTime, verify,
//! };
//!
//! let trust = TrustStore::compile(&TrustSpec::default()).map_err(|errors| errors[0].to_string())?;
//! let called = Presentation::default();
//! let refusal = verify(&[], &called, &trust, &TokenCache::new(0), UnixTime(0)).unwrap_err();
//! assert_eq!(RefusalReason::NoCredential, refusal.reason);
//! # Ok::<(), String>(())
//! ```
//!
//! [`SigningKey`] signs credentials of our own.
//!
//! In the order of a verification: `trust` (compiled from `spec`), `jws` and `json` (form), `jwk` and `algorithm` (key and
//! signature), then one module for each profile: `agent`, `subject`, `credential`, `relayed`, `peer`, `dpop`; last `binding`
//! and `cache`. The crate depends on `authz-base` alone.

mod agent;
mod algorithm;
mod authority;
mod binding;
mod cache;
mod certificate;
mod claims;
mod credential;
mod dpop;
mod ed25519;
mod facts;
#[cfg(feature = "test-support")]
pub mod fuzz;

mod json;
mod jwk;
mod jws;
#[cfg(feature = "test-support")]
pub mod mint;
mod peer;
mod refusal;
mod relayed;
mod signing;
mod spec;
mod subject;
mod trust;
mod verify;

pub use algorithm::AcceptedAlgorithms;
pub use authz_base::spiffe::{InvalidSpiffeId, SpiffeId};
pub use binding::Presentation;
pub use cache::{PeerCache, TokenCache};
pub use dpop::{Nonces, ProofFacts, verify_proof};
pub use facts::{
    AgentFacts, AgentProof, Binding, ClaimValue, CredentialFacts, Evidence, Facts, Made, Role,
    Scheme, SubjectFacts, SubjectKind, UnixTime,
};
pub use jwk::thumbprint;
pub use peer::{
    MAX_CHAIN_BYTES, MAX_CHAIN_LENGTH, PeerFacts, verify_certificate, verify_peer, verify_pem,
};
pub use refusal::{KeyOwner, Refusal, RefusalReason};
pub use relayed::verify_relayed;
pub use signing::{SigningError, SigningKey};
pub use spec::{DomainSpec, IssuerSpec, OwnSpec, SubjectProfile, TrustSpec};
pub use trust::{DomainStatus, IssuerStatus, OwnStatus, TrustError, TrustStore, TrustWarning};
pub use verify::{verify, verify_credential};
