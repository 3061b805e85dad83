//! The request of a token exchange, as the token endpoint hands it over in JSON.

use std::collections::BTreeMap;

use authz_kernel::decision::Request;
use authz_kernel::task::Param;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api_call::{ApiMessage, CallerEvidence, ExchangeTokens, HttpClient};
use crate::limits;
use crate::refusal::CallRefusal;
use crate::request::{check_id, system_of};

/// From here on not every whole number is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A token exchange.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExchangeRequest {
    client: HttpClient,
    #[serde(default)]
    subject_token: Option<String>,
    #[serde(default)]
    actor_token: Option<String>,
    /// DPoP proof of the key that the credential is to be bound to.
    #[serde(default)]
    pub(super) proof: Option<String>,
    /// The URI that the proof must be of.
    #[serde(default)]
    pub(super) http_uri: String,
    #[serde(default)]
    pub(super) audience: Option<String>,
    #[serde(default)]
    pub(super) lifetime_seconds: Option<u32>,
    pub(super) details: Vec<RequestedDetail>,
    /// An existing task.
    #[serde(default)]
    pub(super) task: Option<String>,
    /// Template of a new task.
    #[serde(default)]
    pub(super) template: Option<String>,
    #[serde(default)]
    pub(super) params: BTreeMap<String, Param>,
    #[serde(default)]
    pub(super) prompt: Option<String>,
    /// The task that the new task is below. Default: the new task is a root.
    #[serde(default)]
    pub(super) parent: Option<String>,
}

impl ApiMessage for ExchangeRequest {
    fn evidence(&self) -> CallerEvidence<'_> {
        CallerEvidence::Exchange(ExchangeTokens {
            client: &self.client,
            subject: self.subject_token.as_deref(),
            actor: self.actor_token.as_deref(),
        })
    }
}

/// One operation that the credential is to permit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestedDetail {
    pub(super) operation: String,
    #[serde(default)]
    resource: Option<String>,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default)]
    pub(super) destinations: Vec<String>,
}

impl RequestedDetail {
    /// Refuses a detail beyond the bounds of a request.
    pub(super) fn check(&self, max_arguments_bytes: usize) -> Result<(), CallRefusal> {
        check_id("operation", &self.operation)?;
        check_id("resource", self.resource.as_deref().unwrap_or_default())?;
        if self.destinations.len() > limits::LIST
            || self.destinations.iter().any(|one| one.len() > limits::DESTINATION)
        {
            return Err(CallRefusal::input(
                "`destinations` has too many items, or one that is too long",
            ));
        }
        if self.arguments_json().len() > max_arguments_bytes {
            return Err(CallRefusal::input(format!(
                "`arguments` is longer than {max_arguments_bytes} bytes"
            )));
        }
        // A whole number that was rounded when it was read is not the number of the request.
        if self.arguments.values().all(is_exact) {
            return Ok(());
        }
        Err(CallRefusal::input("`arguments` has a whole number beyond 64 bits"))
    }

    pub(super) fn arguments_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.arguments).unwrap_or_default()
    }

    /// The detail as the kernel reads it.
    pub(super) fn request<'a>(
        &'a self,
        arguments: &'a [u8],
        destinations: &'a [&'a str],
    ) -> Request<'a> {
        Request {
            resource: self.resource.as_deref(),
            destinations,
            ..Request::new(&self.operation, arguments.into())
        }
    }

    pub(super) fn system(&self) -> &str {
        system_of(&self.operation).unwrap_or_default()
    }
}

/// Whether no number of a value was rounded when it was read.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number
            .as_f64()
            .is_some_and(|float| !number.is_f64() || float.fract() != 0.0 || float.abs() < EXACT),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}
