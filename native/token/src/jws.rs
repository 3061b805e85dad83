//! JWS compact serialization (RFC 7515 §3.1, §5.2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::algorithm::Algorithm;
use crate::json::{self, JsonObject, JsonValue};
use crate::refusal::Refusal;

/// The three parts of a token, still encoded.
#[derive(Clone, Copy)]
pub(crate) struct JwsParts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// Header, `.`, payload: the signed text (RFC 7515 §2).
    pub(crate) signing_input: &'a str,
}

impl<'a> JwsParts<'a> {
    /// Splits a token into exactly three parts (RFC 7515 §7.1; five would be a JWE).
    pub(crate) fn split(token: &'a str, max_bytes: usize) -> Result<Self, Refusal> {
        check_length(token, max_bytes)?;
        let form = || Refusal::bad("the token is not three parts joined by dots");
        let (signing_input, signature) = token.rsplit_once('.').ok_or_else(form)?;
        let (header, payload) = signing_input.split_once('.').ok_or_else(form)?;
        if payload.contains('.') {
            return Err(form());
        }
        if header.len() > MAX_HEADER_BYTES {
            return Err(Refusal::bad("the token's header is too long"));
        }
        Ok(Self { header, payload, signature, signing_input })
    }

    /// The header, decoded.
    pub(crate) fn header(&self) -> Result<Vec<u8>, Refusal> {
        decode(self.header)
    }

    pub(crate) fn payload(&self) -> Result<Vec<u8>, Refusal> {
        decode(self.payload)
    }

    pub(crate) fn signature(&self) -> Result<Vec<u8>, Refusal> {
        decode(self.signature)
    }
}

/// Refuses a token that is too long to be read.
pub(crate) fn check_length(token: &str, max_bytes: usize) -> Result<(), Refusal> {
    if token.len() > max_bytes {
        return Err(Refusal::bad("the token is longer than `max_token_bytes`"));
    }
    Ok(())
}

/// Members of the protected header that the profiles read.
pub(crate) struct JwsHeader {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    pub(crate) typ: Option<String>,
    /// The header has no member besides `alg`, `kid` and `typ`.
    pub(crate) plain: bool,
}

impl JwsHeader {
    /// Reads the header of a token and refuses what no profile accepts: `none` and HMACs (RFC 8725
    /// §3.1), keys that the token brings along (RFC 8725 §3.10), extensions (RFC 7515 §4.1.11),
    /// encryption and nesting.
    pub(crate) fn read(parts: &JwsParts<'_>) -> Result<Self, Refusal> {
        let bytes = parts.header()?;
        let object = Self::object(&bytes)?;
        if object.get("jwk").is_some() {
            return Err(brings_key());
        }
        Self::of(&object)
    }

    /// The header as a JSON object.
    pub(crate) fn object(bytes: &[u8]) -> Result<JsonObject<'_>, Refusal> {
        json::read_object(bytes, HEADER_LIMITS)
            .map_err(|error| Refusal::bad(format!("the token's header: {error}")))
    }

    /// Reads a header as [`JwsHeader::read`] does, but for a `jwk`, which is left to the caller.
    pub(crate) fn of(object: &JsonObject<'_>) -> Result<Self, Refusal> {
        let mut algorithm = None;
        let mut kid = None;
        let mut typ = None;
        let mut plain = true;
        for (name, value) in object.iter() {
            match (name, value) {
                ("alg", JsonValue::String(name)) => {
                    algorithm = Some(Algorithm::parse(name).ok_or_else(|| {
                        Refusal::bad("the token's `alg` is not a supported signature algorithm")
                    })?);
                }
                ("kid", JsonValue::String(text)) if text.len() <= MAX_KID_BYTES => {
                    kid = Some(text.to_string());
                }
                ("typ", JsonValue::String(text)) => typ = Some(text.to_string()),
                ("alg" | "kid" | "typ", _) => {
                    return Err(Refusal::bad("the token's `alg`, `kid` or `typ` is ill-typed"));
                }
                ("jku" | "x5u" | "x5c", _) => return Err(brings_key()),
                ("crit" | "b64", _) => {
                    return Err(Refusal::bad("the token's header has a critical extension"));
                }
                ("enc" | "zip" | "cty", _) => {
                    return Err(Refusal::bad("the token is encrypted, compressed or nested"));
                }
                // A header parameter that is not understood is ignored (RFC 7515 §4).
                _ => plain = false,
            }
        }
        let algorithm = algorithm.ok_or_else(|| Refusal::bad("the token has no `alg`"))?;
        Ok(Self { algorithm, kid, typ, plain })
    }
}

fn brings_key() -> Refusal {
    Refusal::bad("the token's header brings or names its own key")
}

/// Decodes base64url without padding; a text has one encoding only (RFC 7515 §2, RFC 4648 §3.5), so
/// that no two tokens differ in bytes and agree in meaning.
fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Refusal::bad("a part of the token is not canonical base64url"))
}

const MAX_HEADER_BYTES: usize = 2048;
const MAX_KID_BYTES: usize = 256;
const HEADER_LIMITS: json::JsonLimits = json::JsonLimits { depth: 4, nodes: 64 };
