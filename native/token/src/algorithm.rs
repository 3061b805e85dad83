//! Signature algorithms (RFC 7518 §3.1, RFC 8037 §3.1).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters,
};
use serde::Serialize;

/// An asymmetric signature algorithm; `none` and the HMACs have no case here, so no configuration
/// and no token can choose them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Algorithm {
    EdDsa,
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
    Rs256,
    Rs384,
    Rs512,
}

/// The names of the accepted algorithms, by the kind of signed token (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AcceptedAlgorithms {
    /// DPoP proofs.
    pub proof: Vec<&'static str>,
    /// JWT-SVIDs, also as assertions of clients.
    pub jwt_svid: Vec<&'static str>,
    /// Task credentials.
    pub credential: Vec<&'static str>,
}

impl AcceptedAlgorithms {
    /// The lists that verification itself uses.
    #[must_use]
    pub fn new() -> Self {
        let names = |list: &[Algorithm]| list.iter().map(|one| one.name()).collect();
        Self {
            proof: names(&Algorithm::PROOF),
            jwt_svid: names(&Algorithm::JWT_SVID),
            credential: names(&Algorithm::CREDENTIAL),
        }
    }
}

impl Default for AcceptedAlgorithms {
    fn default() -> Self {
        Self::new()
    }
}

impl Algorithm {
    pub(crate) const ALL: [Self; 10] = [
        Self::EdDsa,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
    ];

    /// Algorithms of JWT-SVIDs (SPIFFE JWT-SVID §2.1): all but EdDSA.
    pub(crate) const JWT_SVID: [Self; 9] = [
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
    ];

    /// Algorithms of task credentials.
    pub(crate) const CREDENTIAL: [Self; 2] = [Self::EdDsa, Self::Es256];

    /// Algorithms of DPoP proofs (RFC 9449 §4.2): each asymmetric one.
    pub(crate) const PROOF: [Self; 10] = Self::ALL;

    /// The algorithm of that exact name; names are case-sensitive (RFC 7515 §4.1.1).
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
        }
    }

    /// RSA parameters, if this is an RSA algorithm.
    pub(crate) fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::EdDsa | Self::Es256 | Self::Es384 | Self::Es512 => None,
        }
    }

    /// The one algorithm that a curve's keys sign with, its parameters and its coordinate size.
    pub(crate) fn of_curve(
        crv: &str,
    ) -> Option<(Self, &'static EcdsaVerificationAlgorithm, usize)> {
        match crv {
            "P-256" => Some((Self::Es256, &ECDSA_P256_SHA256_FIXED, 32)),
            "P-384" => Some((Self::Es384, &ECDSA_P384_SHA384_FIXED, 48)),
            "P-521" => Some((Self::Es512, &ECDSA_P521_SHA512_FIXED, 66)),
            _ => None,
        }
    }
}
