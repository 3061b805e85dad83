//! Trust sources as configured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{TrustDefect, TrustError};
use crate::facts::SubjectKind;
use crate::json;

/// Trust sources and limits, before they are checked; see [`crate::TrustStore::compile`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSpec {
    /// The `aud` values that name this service in a JWT-SVID.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Tolerated difference of clocks in seconds: default 5, at most 60.
    #[serde(default = "default_leeway")]
    pub leeway_seconds: u32,
    /// Longest token accepted, in bytes: default 8192, 256 to 65536.
    #[serde(default = "default_max_token")]
    pub max_token_bytes: u32,
    /// Longest lifetime accepted, in seconds from `iat` (and from now) to `exp`. Default: any.
    #[serde(default)]
    pub max_lifetime_seconds: Option<u64>,
    /// SPIFFE trust domains by name.
    #[serde(default)]
    pub domains: BTreeMap<String, DomainSpec>,
    /// Issuers of subject tokens by alias: letters, digits, `.`, `_`, `-`, at most 64 bytes.
    #[serde(default)]
    pub issuers: BTreeMap<String, IssuerSpec>,
    /// Guards whose confidence statements are believed, by name: letters, digits, `.`, `_`, `-`, at most 64 bytes. Default: no
    /// confidence statement is believed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guards: BTreeMap<String, GuardSpec>,
    /// The issuer of task credentials: Authz itself. Default: no task credentials are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnSpec>,
}

/// The issuer of task credentials: Authz itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OwnSpec {
    /// The exact `iss` of our credentials: an `https` URL; no other issuer has it.
    pub issuer: String,
    /// Our public keys, of every node: the JSON text of a JWK set (RFC 7517 §5). They sign with ES256
    /// or EdDSA, and the `kid` of each is its RFC 7638 thumbprint.
    pub keys: String,
}

/// A guard: a program that states how confident it is that a call is meant.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GuardSpec {
    /// Its keys: the JSON text of a JWK set (RFC 7517 §5). They sign with ES256 or EdDSA.
    pub keys: String,
    /// Source of the keys, for messages.
    pub from: String,
}

/// A SPIFFE trust domain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DomainSpec {
    /// Its bundle: the JSON text of a JWK set (SPIFFE Trust Domain and Bundle §4).
    pub bundle: String,
    /// Source of the bundle, for messages.
    pub from: String,
    /// `spiffe_sequence` of the newest bundle that any node has used, for example before a restart: an older bundle
    /// is refused. Default: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_sequence: Option<u64>,
}

/// An issuer of subject tokens.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSpec {
    /// The exact `iss`; compared byte by byte.
    pub issuer: String,
    /// The `aud` values of which a token must have one; required.
    #[serde(default)]
    pub audience: Vec<String>,
    /// The `aud` values of tokens that only the subject itself holds, never an agent or a tool server; none of them is in
    /// `audience` or among the trust domains' `audiences`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alone_audience: Vec<String>,
    /// The issuer binds tokens (`cnf`) only to keys that the subject itself holds, never to an agent's. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub alone_bound: bool,
    /// The signature algorithms accepted (RFC 7518 §3.1 and RFC 8037 names); required.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// Its keys: the JSON text of a JWK set (RFC 7517 §5).
    pub jwks: String,
    /// Source of the keys, for messages.
    pub from: String,
    /// Kind of its subjects. Default: `user`.
    #[serde(default)]
    pub subject: SubjectKind,
    /// The kind of its tokens: default `jwt`.
    #[serde(default)]
    pub profile: SubjectProfile,
    /// The `typ` values accepted under the profile `jwt`, without regard to case or a leading
    /// `application/`; the empty text stands for a token without `typ`. Default: `JWT`, none.
    #[serde(default)]
    pub typ: Option<Vec<String>>,
    /// Names of the claims kept for policy, at most 32.
    #[serde(default)]
    pub claims: Vec<String>,
}

/// Validation profile of an issuer's tokens; a token is valid under one profile at most.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectProfile {
    /// A JWT whose `typ` is not that of an OAuth access token (RFC 7519, RFC 8725), such as an OpenID
    /// Connect ID token.
    #[default]
    Jwt,
    /// The OAuth access token in JWT form (RFC 9068).
    AccessToken,
}

impl TrustSpec {
    /// Reads a specification from JSON of at most 16 MiB, without checking it.
    ///
    /// # Errors
    /// The JSON is malformed, has a member twice, an unknown or missing member, or a value of a wrong type.
    pub fn from_json(text: &[u8]) -> Result<Self, TrustError> {
        Self::parse(text).map_err(|defect| TrustError {
            place: "trust".to_owned(),
            defect,
            fix: "give one JSON object with the documented members".to_owned(),
        })
    }

    fn parse(text: &[u8]) -> Result<Self, TrustDefect> {
        if text.len() > MAX_SPEC_BYTES {
            return Err("the trust specification is longer than 16 MiB".into());
        }
        // serde keeps the last of two equal map members in silence; the strict reader refuses them.
        json::read_object(text, json::JsonLimits { depth: 16, nodes: 1 << 20 })
            .map_err(TrustDefect::Text)?;
        serde_json::from_slice(text).map_err(TrustDefect::Form)
    }
}

impl Default for TrustSpec {
    fn default() -> Self {
        Self {
            audiences: Vec::new(),
            leeway_seconds: default_leeway(),
            max_token_bytes: default_max_token(),
            max_lifetime_seconds: None,
            domains: BTreeMap::new(),
            issuers: BTreeMap::new(),
            guards: BTreeMap::new(),
            own: None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

const MAX_SPEC_BYTES: usize = 16 << 20;

fn default_leeway() -> u32 {
    5
}

fn default_max_token() -> u32 {
    8192
}
