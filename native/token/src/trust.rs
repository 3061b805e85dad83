//! The compiled trust store.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::algorithm::Algorithm;
use crate::claims::TimeLimits;
use crate::error::{TrustDefect, TrustError};
use crate::facts::SubjectKind;
use crate::jwk::{KeySet, Purpose};
use crate::spec::{DomainSpec, GuardSpec, IssuerSpec, OwnSpec, SubjectProfile, TrustSpec};
use authz_base::spiffe::is_trust_domain;
use authz_base::uri;

/// Peculiarity of a [`TrustSpec`] that its owner should know of; the specification is used all the same.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TrustWarning {
    /// Path of the setting, with the source of its keys.
    pub place: String,
    /// The peculiarity and its consequence.
    pub what: String,
}

impl fmt::Display for TrustWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// State of a trust domain's bundle.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DomainStatus {
    /// The trust domain.
    pub domain: String,
    /// Source of its bundle.
    pub from: String,
    /// Usable JWT-SVID keys; with none, each token of the domain is refused.
    pub keys: usize,
    /// Usable X.509-SVID authorities; with none, each certificate of the domain is refused.
    pub authorities: usize,
    /// `spiffe_sequence` of the bundle in use.
    pub sequence: Option<u64>,
    /// The given bundle was refused as older, so that the bundle before stays in use.
    pub rolled_back: bool,
    /// `spiffe_refresh_hint`: suggested seconds between fetches.
    pub refresh_hint: Option<u64>,
}

/// State of an issuer's key set.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct IssuerStatus {
    /// The configured alias.
    pub alias: String,
    /// Source of its keys.
    pub from: String,
    /// Usable keys; with none, each token of the issuer is refused.
    pub keys: usize,
}

pub(crate) struct TrustedIssuer {
    pub(crate) alias: String,
    pub(crate) kind: SubjectKind,
    pub(crate) audience: Vec<String>,
    /// Disjoint from `audience`.
    pub(crate) alone_audience: Vec<String>,
    /// The keys to which its tokens are bound are the subjects' own.
    pub(crate) alone_bound: bool,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) profile: SubjectProfile,
    /// Accepted media types in the form of [`media_type`]; the empty text is a token without `typ`.
    pub(crate) typ: Vec<String>,
    pub(crate) claims: Vec<String>,
    pub(crate) keys: KeySet,
    from: String,
}

struct Domain {
    keys: KeySet,
    /// The text of the bundle in use, from which the next compilation keeps it.
    bundle: String,
    from: String,
    rolled_back: bool,
}

/// State of our own keys.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct OwnStatus {
    /// The `iss` of our task credentials.
    pub issuer: String,
    /// Ids of the usable keys; with none, each task credential is refused.
    pub kids: Vec<String>,
}

/// The issuer of task credentials: Authz itself.
pub(crate) struct OwnIssuer {
    pub(crate) issuer: String,
    pub(crate) keys: KeySet,
}

/// Trust sources: checked, immutable, with their keys ready for use.
pub struct TrustStore {
    audiences: Vec<String>,
    max_token_bytes: usize,
    time_limits: TimeLimits,
    domains: BTreeMap<String, Domain>,
    /// By exact `iss`.
    issuers: BTreeMap<String, TrustedIssuer>,
    /// Keys of guards, by name.
    guards: BTreeMap<String, KeySet>,
    own: Option<OwnIssuer>,
    revision: [u8; 32],
    revision_text: String,
    warnings: Vec<TrustWarning>,
}

impl TrustStore {
    /// Checks a specification and prepares its keys.
    ///
    /// A bundle or key set without a usable key compiles with a warning: every token of that domain
    /// or issuer is refused (SPIFFE Trust Domain and Bundle §4).
    ///
    /// # Errors
    /// All defects of the specification, at least one.
    pub fn compile(spec: &TrustSpec) -> Result<Self, Vec<TrustError>> {
        Self::compile_after(spec, None)
    }

    /// Checks a specification that takes the place of another, as [`TrustStore::compile`] does.
    ///
    /// A bundle whose `spiffe_sequence` is lower than that of the same domain in `previous`, or gone,
    /// is refused: the domain keeps its previous bundle, and a warning and its status say so
    /// (SPIFFE Trust Domain and Bundle §4.1.1). If it is lower than [`DomainSpec::min_sequence`] and
    /// the domain has no previous bundle, the domain gets no keys. A bundle with the same number and another
    /// content is taken, with a warning: publishers forget to count. The store's revision is that of the bundles in use.
    ///
    /// # Errors
    /// All defects of the specification, at least one.
    pub fn compile_after(
        spec: &TrustSpec,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<TrustError>> {
        let mut compiler = Compiler::default();
        let max_token_bytes = compiler.settings(spec);
        let domains: BTreeMap<String, Domain> = spec
            .domains
            .iter()
            .filter_map(|(name, domain)| {
                let before = previous.and_then(|previous| previous.domains.get(name));
                Some((name.clone(), compiler.domain(name, domain, before)?))
            })
            .collect();
        let mut issuers = BTreeMap::new();
        for (alias, issuer) in &spec.issuers {
            let Some(compiled) = compiler.issuer(alias, issuer) else {
                continue;
            };
            compiler.alone(alias, issuer, &spec.audiences);
            if let Some(other) = issuers.insert(issuer.issuer.clone(), compiled) {
                compiler.error(
                    &format!("issuers.{alias}.issuer"),
                    format!("issuer `{}` has the same `issuer`", other.alias),
                    "give each issuer once; a token must belong to exactly one",
                );
            }
        }
        let guards = spec.guards.iter().filter_map(|(name, guard)| compiler.guard(name, guard));
        let guards = guards.collect();
        let own = spec.own.as_ref().and_then(|own| compiler.own(own));
        if let Some(other) = own.as_ref().and_then(|own| issuers.get(&own.issuer)) {
            compiler.error(
                "own.issuer",
                format!("issuer `{}` has the same `issuer`", other.alias),
                "leave that issuer out; our credentials are no subject tokens",
            );
        }
        let mut in_use = Cow::Borrowed(spec);
        for (name, domain) in domains.iter().filter(|(_, domain)| domain.rolled_back) {
            if let Some(spec) = in_use.to_mut().domains.get_mut(name) {
                spec.bundle.clone_from(&domain.bundle);
            }
        }
        let encoded = serde_json::to_vec(in_use.as_ref()).unwrap_or_else(|error| {
            compiler.error("trust", TrustDefect::Encoding(error), "give another specification");
            Vec::new()
        });
        if !compiler.errors.is_empty() {
            return Err(compiler.errors);
        }
        // The digest covers the whole specification and not the keys alone: the audiences, algorithms and claims
        // change the facts of a token, so they must end the entries of the cache.
        let revision: [u8; 32] = Sha256::new()
            .chain_update(b"authz.token.trust.1\0")
            .chain_update(encoded)
            .finalize()
            .into();
        Ok(Self {
            audiences: spec.audiences.clone(),
            max_token_bytes,
            time_limits: TimeLimits {
                leeway: i64::from(spec.leeway_seconds),
                max_lifetime: spec
                    .max_lifetime_seconds
                    .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
            },
            domains,
            issuers,
            guards,
            own,
            revision,
            revision_text: revision.iter().map(|byte| format!("{byte:02x}")).collect(),
            warnings: compiler.warnings,
        })
    }

    /// Digest of all keys and settings, as 64 hexadecimal digits.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision_text
    }

    /// Warnings for the owner, in the order of the specification.
    #[must_use]
    pub fn warnings(&self) -> &[TrustWarning] {
        &self.warnings
    }

    /// State of each trust domain, by name.
    #[must_use]
    pub fn domains(&self) -> Vec<DomainStatus> {
        self.domains
            .iter()
            .map(|(name, domain)| DomainStatus {
                domain: name.clone(),
                from: domain.from.clone(),
                keys: domain.keys.keys.len(),
                authorities: domain.keys.authorities.len(),
                sequence: domain.keys.sequence,
                rolled_back: domain.rolled_back,
                refresh_hint: domain.keys.refresh_hint,
            })
            .collect()
    }

    /// State of each issuer, by `iss`.
    #[must_use]
    pub fn issuers(&self) -> Vec<IssuerStatus> {
        self.issuers
            .values()
            .map(|issuer| IssuerStatus {
                alias: issuer.alias.clone(),
                from: issuer.from.clone(),
                keys: issuer.keys.keys.len(),
            })
            .collect()
    }

    /// State of Authz's own keys. `None` if no task credentials are accepted.
    #[must_use]
    pub fn own(&self) -> Option<OwnStatus> {
        self.own.as_ref().map(|own| OwnStatus {
            issuer: own.issuer.clone(),
            kids: own.keys.keys.iter().filter_map(|key| key.kid.clone()).collect(),
        })
    }

    /// Returns whether tokens with that exact `iss` are our own task credentials.
    #[must_use]
    pub fn is_own(&self, iss: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.issuer == iss)
    }

    /// Whether the confidence statement of any guard is believed.
    #[must_use]
    pub fn has_guards(&self) -> bool {
        !self.guards.is_empty()
    }

    /// Keys of a guard.
    pub(crate) fn guard(&self, name: &str) -> Option<&KeySet> {
        self.guards.get(name)
    }

    pub(crate) fn own_keys(&self) -> Option<&OwnIssuer> {
        self.own.as_ref()
    }

    pub(crate) fn domain(&self, name: &str) -> Option<&KeySet> {
        self.domains.get(name).map(|domain| &domain.keys)
    }

    /// Returns whether tokens with that exact `iss` are a configured issuer's.
    #[must_use]
    pub fn has_issuer(&self, iss: &str) -> bool {
        self.issuers.contains_key(iss)
    }

    pub(crate) fn issuer(&self, iss: &str) -> Option<&TrustedIssuer> {
        self.issuers.get(iss)
    }

    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub(crate) fn max_token_bytes(&self) -> usize {
        self.max_token_bytes
    }

    pub(crate) fn time_limits(&self) -> &TimeLimits {
        &self.time_limits
    }

    pub(crate) fn revision_bytes(&self) -> &[u8; 32] {
        &self.revision
    }
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustStore").field("revision", &self.revision_text).finish_non_exhaustive()
    }
}

/// A `typ` in one form: lower case, without a leading `application/` (RFC 7515 §4.1.9).
pub(crate) fn media_type(typ: &str) -> String {
    let typ = typ.to_ascii_lowercase();
    match typ.strip_prefix("application/") {
        Some(short) if !short.contains('/') => short.to_owned(),
        _ => typ,
    }
}

/// Whether a text may name an issuer or a guard.
fn is_alias(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=MAX_ALIAS_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

#[derive(Default)]
struct Compiler {
    errors: Vec<TrustError>,
    warnings: Vec<TrustWarning>,
}

impl Compiler {
    fn error(&mut self, place: &str, defect: impl Into<TrustDefect>, fix: &str) {
        self.errors.push(TrustError {
            place: place.to_owned(),
            defect: defect.into(),
            fix: fix.to_owned(),
        });
    }

    fn settings(&mut self, spec: &TrustSpec) -> usize {
        if spec.leeway_seconds > MAX_LEEWAY {
            self.error(
                "leeway_seconds",
                format!("{} is more than {MAX_LEEWAY}", spec.leeway_seconds),
                "keep the clocks in step and give at most 60",
            );
        }
        if !(256..=65_536).contains(&spec.max_token_bytes) {
            self.error(
                "max_token_bytes",
                format!("{} is not 256 to 65536", spec.max_token_bytes),
                "give a number in that range; 8192 is the default",
            );
        }
        if spec.max_lifetime_seconds == Some(0) {
            self.error("max_lifetime_seconds", "0 refuses every token", "give at least 1 or none");
        }
        if spec.domains.is_empty() {
            if !spec.audiences.is_empty() {
                self.texts("audiences", &spec.audiences, MAX_AUDIENCES);
            }
        } else if spec.audiences.is_empty() {
            self.error(
                "audiences",
                "there are trust domains but no audience, so every JWT-SVID would be refused",
                "give the `aud` values that name this service",
            );
        } else {
            self.texts("audiences", &spec.audiences, MAX_AUDIENCES);
        }
        if spec.domains.len() > MAX_SOURCES
            || spec.issuers.len() > MAX_SOURCES
            || spec.guards.len() > MAX_SOURCES
        {
            self.error("trust", "more than 1024 trust domains, issuers or guards", "give fewer");
        }
        usize::try_from(spec.max_token_bytes).unwrap_or_default()
    }

    fn domain(
        &mut self,
        name: &str,
        spec: &DomainSpec,
        previous: Option<&Domain>,
    ) -> Option<Domain> {
        let place = format!("domains.{name}.bundle ({})", spec.from);
        if !is_trust_domain(name) {
            self.error(
                &format!("domains.{name}"),
                "this is no trust domain name",
                "use 1 to 255 of `a-z 0-9 . - _`",
            );
            return None;
        }
        let mut keys = self.bundle(&place, &spec.bundle)?;
        let mut bundle = &spec.bundle;
        let mut rolled_back = false;
        let used = previous.and_then(|previous| previous.keys.sequence);
        let (old, new) = (used.max(spec.min_sequence), keys.sequence);
        let mut warn = |what: &str| {
            self.warnings.push(TrustWarning { place: place.clone(), what: what.to_owned() });
        };
        // An empty bundle takes every key away. That is never a way in, so its sequence is not checked.
        if new < old && !keys.is_empty() {
            rolled_back = true;
            match previous {
                Some(previous) => {
                    warn(
                        "its `spiffe_sequence` is lower than that of the bundle in use, or gone: \
                         refused; the bundle in use stays",
                    );
                    bundle = &previous.bundle;
                }
                None => warn(
                    "its `spiffe_sequence` is lower than that of a bundle that was used before, \
                     or gone: refused; every SVID of this domain is refused until a newer one comes",
                ),
            }
        } else if let Some(previous) = previous
            && new.is_some()
            && new == used
            && spec.bundle != previous.bundle
            && !keys.is_empty()
            && !previous.keys.is_empty()
        {
            warn("its content changed and its `spiffe_sequence` did not");
        }
        let emptied = String::from(r#"{"keys":[]}"#);
        if rolled_back {
            if previous.is_none() {
                bundle = &emptied;
            }
            keys = self.bundle(&place, bundle)?;
        }
        if keys.is_empty() {
            // The bundle after an empty one is compared with the bundle before it.
            keys.sequence = keys.sequence.max(old);
        }
        self.note_keys(
            &place,
            &keys,
            "no usable key with `use: jwt-svid`: every JWT-SVID of this domain is refused",
        );
        if keys.is_empty() {
            self.warnings.push(TrustWarning {
                place: place.clone(),
                what: "no usable entry at all: every SVID of this domain is refused".to_owned(),
            });
        }
        Some(Domain { keys, bundle: bundle.clone(), from: spec.from.clone(), rolled_back })
    }

    fn bundle(&mut self, place: &str, text: &str) -> Option<KeySet> {
        KeySet::read(text, Purpose::Svid, &Algorithm::JWT_SVID)
            .map_err(|error| {
                self.error(place, error, "give the domain's SPIFFE bundle, a JWK set");
            })
            .ok()
    }

    fn issuer(&mut self, alias: &str, spec: &IssuerSpec) -> Option<TrustedIssuer> {
        let before = self.errors.len();
        let at = |member: &str| format!("issuers.{alias}.{member}");
        if !is_alias(alias) {
            self.error(
                &format!("issuers.{alias}"),
                "this is no alias",
                "use 1 to 64 of `A-Z a-z 0-9 . - _`",
            );
        }
        let printable = |character: char| !character.is_control() && !character.is_whitespace();
        if !(1..=MAX_TEXT_BYTES).contains(&spec.issuer.len()) || !spec.issuer.chars().all(printable)
        {
            self.error(
                &at("issuer"),
                "empty, too long or with spaces, so no token would match",
                "give the exact `iss` of its tokens",
            );
        }
        if spec.audience.is_empty() {
            self.error(
                &at("audience"),
                format!(
                    "issuer `{alias}` has no audience: a token for any service would be accepted"
                ),
                "add audience: [...]",
            );
        } else {
            self.texts(&at("audience"), &spec.audience, MAX_AUDIENCES);
        }
        if spec.algorithms.is_empty() {
            self.error(
                &at("algorithms"),
                format!("issuer `{alias}` has no algorithms: none or any would be accepted"),
                "add algorithms: [ES256] or those that it signs with",
            );
        }
        let mut algorithms = Vec::new();
        for name in &spec.algorithms {
            match Algorithm::parse(name) {
                Some(algorithm) if !algorithms.contains(&algorithm) => algorithms.push(algorithm),
                Some(_) => {}
                None => self.error(
                    &at("algorithms"),
                    format!("`{name}` is no supported signature algorithm"),
                    "use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA",
                ),
            }
        }
        let typ: Vec<String> = match (spec.profile, &spec.typ) {
            (SubjectProfile::Jwt, None) => ["jwt", ""].map(str::to_owned).to_vec(),
            (SubjectProfile::Jwt, Some(listed)) => {
                listed.iter().map(|typ| media_type(typ)).collect()
            }
            (SubjectProfile::AccessToken, _) => vec![ACCESS_TOKEN.to_owned()],
        };
        if spec.profile == SubjectProfile::AccessToken && spec.typ.is_some() {
            self.error(
                &at("typ"),
                "the profile `access_token` has one `typ`, `at+jwt`",
                "leave `typ` out",
            );
        }
        if spec.profile == SubjectProfile::Jwt && typ.iter().any(|typ| typ == ACCESS_TOKEN) {
            self.error(
                &at("typ"),
                "an access token would be taken without the checks of its own profile",
                "say `profile: access_token` instead of `typ: [at+jwt]`",
            );
        }
        if typ.is_empty() || typ.len() > MAX_TYPES {
            self.error(
                &at("typ"),
                "empty, so no token would match, or more than 16",
                "list the `typ` values of its tokens; the empty text is a token without `typ`",
            );
        }
        self.claims(&at("claims"), &spec.claims);
        let place = format!("issuers.{alias}.jwks ({})", spec.from);
        let keys = match KeySet::read(&spec.jwks, Purpose::Signature, &algorithms) {
            Ok(keys) => keys,
            Err(error) => {
                self.error(&place, error, "give the issuer's JWK set of public keys");
                return None;
            }
        };
        if self.errors.len() > before {
            return None;
        }
        self.note_keys(
            &place,
            &keys,
            "no usable key for its algorithms: every token of this issuer is refused",
        );
        Some(TrustedIssuer {
            alias: alias.to_owned(),
            kind: spec.subject,
            audience: spec.audience.clone(),
            alone_audience: spec.alone_audience.clone(),
            alone_bound: spec.alone_bound,
            algorithms,
            profile: spec.profile,
            typ,
            claims: spec.claims.clone(),
            keys,
            from: spec.from.clone(),
        })
    }

    /// Refuses an `alone_audience` whose tokens agents may hold.
    fn alone(&mut self, alias: &str, spec: &IssuerSpec, audiences: &[String]) {
        let place = format!("issuers.{alias}.alone_audience");
        self.texts(&place, &spec.alone_audience, MAX_AUDIENCES);
        let shared = spec.audience.iter().chain(audiences);
        for value in spec.alone_audience.iter().filter(|value| shared.clone().any(|s| s == *value))
        {
            self.error(
                &place,
                format!(
                    "`{value}` is an audience of tokens that agents hold too, so a token for it does not prove that the \
                     subject is alone"
                ),
                "give an audience that no agent and no tool server gets tokens for",
            );
        }
    }

    fn guard(&mut self, name: &str, spec: &GuardSpec) -> Option<(String, KeySet)> {
        let place = format!("guards.{name} ({})", spec.from);
        if !is_alias(name) {
            self.error(&place, "this is no name of a guard", "use 1 to 64 of `A-Z a-z 0-9 . - _`");
        }
        match KeySet::read(&spec.keys, Purpose::Signature, &Algorithm::CREDENTIAL) {
            Ok(keys) => {
                self.note_keys(
                    &place,
                    &keys,
                    "no usable key for ES256 or EdDSA: no statement of this guard is believed",
                );
                Some((name.to_owned(), keys))
            }
            Err(error) => {
                self.error(&place, error, "give the guard's JWK set of public keys");
                None
            }
        }
    }

    fn own(&mut self, spec: &OwnSpec) -> Option<OwnIssuer> {
        if !is_issuer(&spec.issuer) {
            self.error(
                "own.issuer",
                "this is no `https` URL without user, query and fragment, in normal form",
                "give the URL at which our keys are published, for example https://authz.example",
            );
        }
        match KeySet::read(&spec.keys, Purpose::Own, &Algorithm::CREDENTIAL) {
            Ok(keys) => {
                self.note_keys(
                    "own.keys",
                    &keys,
                    "no usable key: every task credential is refused",
                );
                Some(OwnIssuer { issuer: spec.issuer.clone(), keys })
            }
            Err(error) => {
                self.error("own.keys", error, "give the JWK set of our public keys");
                None
            }
        }
    }

    fn claims(&mut self, place: &str, claims: &[String]) {
        if claims.len() > MAX_CLAIMS {
            self.error(place, "more than 32 claims", "keep those that policies read");
        }
        let mut seen = BTreeSet::new();
        for claim in claims {
            if !(1..=MAX_CLAIM_NAME_BYTES).contains(&claim.len()) {
                self.error(place, "a name is empty or longer than 128 bytes", "name the claim");
            } else if REGISTERED.contains(&claim.as_str()) {
                self.error(
                    place,
                    format!("`{claim}` is a registered claim with a place of its own"),
                    "leave it out",
                );
            } else if !seen.insert(claim) {
                self.error(place, format!("`{claim}` stands twice"), "give it once");
            }
        }
    }

    fn texts(&mut self, place: &str, texts: &[String], max: usize) {
        let sound = |text: &String| (1..=MAX_TEXT_BYTES).contains(&text.len());
        if texts.len() > max || !texts.iter().all(sound) {
            self.error(
                place,
                "an empty or overlong value, or too many of them",
                "give up to 64 non-empty values",
            );
        }
    }

    fn note_keys(&mut self, place: &str, keys: &KeySet, none: &str) {
        if keys.keys.is_empty() {
            self.warnings.push(TrustWarning { place: place.to_owned(), what: none.to_owned() });
        }
        for key in &keys.ignored {
            self.warnings
                .push(TrustWarning { place: place.to_owned(), what: format!("{key}: ignored") });
        }
    }
}

/// An issuer identifier (RFC 8414 §2), in a form that has no other spelling.
fn is_issuer(issuer: &str) -> bool {
    let without_slash = |uri: &str| uri.strip_suffix('/').unwrap_or(uri).to_owned();
    issuer.starts_with("https://")
        && !issuer.contains(['?', '#'])
        && uri::normal(issuer).is_some_and(|normal| {
            normal == issuer || without_slash(&normal) == without_slash(issuer)
        })
}

/// Claims that the profiles read. A policy sees them in places of their own or not at all.
const REGISTERED: [&str; 12] =
    ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "cnf", "acr", "auth_time", "may_act", "act"];
/// The media type of an access token (RFC 9068 §2.1), in the form of [`media_type`].
const ACCESS_TOKEN: &str = "at+jwt";
const MAX_LEEWAY: u32 = 60;
const MAX_AUDIENCES: usize = 64;
const MAX_SOURCES: usize = 1024;
const MAX_ALIAS_BYTES: usize = 64;
const MAX_TEXT_BYTES: usize = 2048;
const MAX_TYPES: usize = 16;
const MAX_CLAIMS: usize = 32;
const MAX_CLAIM_NAME_BYTES: usize = 128;
