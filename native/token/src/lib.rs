//! Verification of the credentials that callers present.
//!
//! [`verify`] turns [`Evidence`] (tokens as received) into [`VerifiedFacts`] (the verified caller), with a compiled
//! [`TrustStore`] and the time. It does no I/O, reads no clock, holds no globals and never panics. The
//! [`TokenCache`] changes only the time that an answer takes, never the answer.
//!
//! There is one validation profile per kind of token, and a token valid under one is invalid under
//! the others: the agent profile is the SPIFFE JWT-SVID; a subject's is the OAuth access token
//! (RFC 9068) or another JWT of a configured issuer, as that issuer is configured; a task credential
//! is an access token of our own. [`verify_peer`] is the profile of X.509-SVIDs, [`verify_proof`] that
//! of DPoP proofs. A profile of tokens checks, in this order: form and size, header, trust source,
//! signature, claims, time, and last the proof of the key to which the token is bound. The refusal of a token
//! whose signature is not valid reveals nothing of its claims: it is [`RefusalReason::BadCredential`] or
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
//! [`PrivateKey`] signs credentials of our own.
//!
//! In the order of a verification: `trust` (compiled from `spec`), `evidence`, `jws` and `json` (form), `jwk` and
//! `algorithm` (key and signature), then one module for each profile: `agent`, `subject`, `credential`, `relayed`, `peer`,
//! `dpop`, `confidence`; then `binding` and `cache`, and `facts` for the result. `refusal` and `error` are the errors of calls and of trust
//! sources. The crate depends on `authz-base` alone.

mod agent;
mod algorithm;
mod authority;
mod binding;
mod cache;
mod certificate;
mod claims;
mod confidence;
mod credential;
mod dpop;
mod ed25519;
mod error;
mod evidence;
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
pub use authz_base::spiffe::{SpiffeId, SpiffeIdError};
pub use binding::Presentation;
pub use cache::{PeerCache, TokenCache};
pub use confidence::verify_confidence;
pub use dpop::{Nonces, verify_proof};
pub use error::{CertificateError, KeyError, KeySetError, PointError, TrustDefect, TrustError};
pub use evidence::{Evidence, Role, Scheme};
pub use facts::{
    AgentFacts, AgentProof, ClaimValue, ConfidenceFacts, CredentialFacts, DerivedValue, KeyBinding,
    PeerFacts, ProofFacts, SubjectFacts, SubjectKind, UnixTime, VerifiedFacts,
};
pub use json::JsonTextError;
pub use jwk::thumbprint;
pub use peer::{MAX_CHAIN_BYTES, MAX_CHAIN_LENGTH, verify_certificate, verify_peer, verify_pem};
pub use refusal::{KeyOwner, Refusal, RefusalReason};
pub use relayed::verify_relayed;
pub use signing::{PrivateKey, SigningError};
pub use spec::{DomainSpec, GuardSpec, IssuerSpec, OwnSpec, SubjectProfile, TrustSpec};
pub use trust::{DomainStatus, IssuerStatus, OwnStatus, TrustStore, TrustWarning};
pub use verify::{verify, verify_credential};
