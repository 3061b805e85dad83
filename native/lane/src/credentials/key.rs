//! The key that a task credential is bound to, and the time at which the credential ends.

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Binding, Reservation};
use authz_token::{ProofFacts, Role, UnixTime, verify_proof};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::api_call::ApiCaller;
use crate::ending::after;
use crate::engine::{Engine, seconds};
use crate::locate::Located;
use crate::refusal::{CallRefusal, Step};
use crate::shown;

/// Most bytes of a token's header and signature in Base64, with the dots between.
const TOKEN_FRAME: usize = 256;

/// Key that a credential is to be bound to, and all proofs of possession of the call.
pub(crate) struct ProvedKey {
    /// Default: the credential is not bound.
    pub(crate) binding: Option<Binding>,
    /// Proofs that came with tokens, and the one of the key. None is taken yet.
    pub(crate) proofs: Vec<ProofFacts>,
}

impl Engine {
    /// Verifies the proof of the key that a credential is to be bound to. Without a proof, the credential is bound to the key
    /// that the agent proved for its own token, or to the agent's certificate.
    ///
    /// `proof` is a DPoP proof; empty if there is none.
    pub(crate) fn prove_key(
        &self,
        caller: &ApiCaller<'_>,
        proof: &str,
    ) -> Result<ProvedKey, CallRefusal> {
        let mut proofs = caller.facts().proofs.clone();
        if proof.is_empty() {
            let own = proofs.iter().find(|proof| proof.role == Role::Agent);
            let binding = own.map(|proof| Binding::Jkt(proof.jkt.clone()));
            let binding = binding.or_else(|| certificate_binding(caller));
            return Ok(ProvedKey { binding, proofs });
        }
        let now = now_of(caller);
        let verified =
            self.with_nonces(&caller.world, now, |nonces| verify_proof(proof, &nonces, now));
        let proved = verified.map_err(|refusal| CallRefusal::of_token(&refusal))?;
        let binding = Some(Binding::Jkt(proved.jkt.clone()));
        let is_same =
            |known: &ProofFacts| known.jkt == proved.jkt && known.jti_digest == proved.jti_digest;
        if !proofs.iter().any(is_same) {
            proofs.push(proved);
        }
        Ok(ProvedKey { binding, proofs })
    }

    /// Refuses claims whose token would be too long to be presented.
    pub(crate) fn check_token_length(&self, answer: &Value) -> Result<(), CallRefusal> {
        let claims = answer.get("claims").and_then(Value::as_str).map_or(0, str::len);
        // Base64, with header and signature.
        let token = claims.div_ceil(3).saturating_mul(4).saturating_add(TOKEN_FRAME);
        let most = self.settings.max_token_bytes;
        if token > most {
            return Err(CallRefusal::input(format!("the credential is longer than {most} bytes")));
        }
        Ok(())
    }

    /// The answer as JSON, with the nonce for the next proof if this server wants a nonce in each proof.
    pub(crate) fn answer_with_nonce(&self, mut answer: Value, caller: &ApiCaller<'_>) -> Vec<u8> {
        let wants_nonce = caller.world.dpop().require_nonce;
        if let Value::Object(members) = &mut answer
            && wants_nonce
        {
            let nonce = self.nonces(now_of(caller)).into_current();
            members.insert("dpop_nonce".to_owned(), json!(nonce));
        }
        answer.to_string().into_bytes()
    }
}

/// Lifetime that the caller wishes for a credential, and the longest that its tier allows, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct CredentialLifetime {
    pub(crate) longest: u32,
    /// 0: as long as possible.
    pub(crate) wished: u32,
}

/// The time at which a credential ends: after its lifetime, and no later than its task, all tasks above it, and the subject's
/// tokens. These are the token that comes with the call and the one that was shown for the permit, or the newest one that was
/// shown in the task if there is neither.
///
/// `permit` is the permit that the credential is issued of, if the permit was made earlier.
///
/// # Errors
/// The credential would end within a second (TASK_ENDED).
pub(crate) fn end_of_credential(
    caller: &ApiCaller<'_>,
    located: &Located,
    permit: Option<&Reservation>,
    CredentialLifetime { longest, wished }: CredentialLifetime,
) -> Result<Time, CallRefusal> {
    let now = caller.now();
    let seconds = if wished == 0 { longest } else { longest.min(wished) };
    let end = after(now, u64::from(seconds).saturating_mul(1_000));
    let end = located.path().map(|task| task.deadline).fold(end, Time::min);
    let for_permit = permit.and_then(|permit| permit.subject_until);
    let shown = shown::ends(&caller.identity).into_iter().chain(for_permit).min();
    // INVARIANT (never longer than its subject): to leave the token out makes no credential last longer.
    let token = shown.or(located.view().root().subject_until);
    let end = token.map_or(end, |token| end.min(token));
    // The claims of a token have whole seconds.
    let end = Time(end.0.div_euclid(1_000).saturating_mul(1_000));
    if end <= now {
        let message = "the task, or the subject's token, ends within a second";
        return Err(CallRefusal::new(ReasonCode::TaskEnded, Step::Locate, message));
    }
    Ok(end)
}

/// The certificate of an agent that asks for itself by TLS, as a binding.
fn certificate_binding(caller: &ApiCaller<'_>) -> Option<Binding> {
    let peer = caller.asker().peer.as_ref().filter(|_| caller.arrival.asks_itself)?;
    let digest = caller.is_agent(&peer.spiffe_id).then_some(peer.certificate_digest)?;
    Some(Binding::X5t(URL_SAFE_NO_PAD.encode(digest)))
}

/// Time of a call in whole seconds.
const fn now_of(caller: &ApiCaller<'_>) -> UnixTime {
    seconds(caller.arrival.now_ms)
}
