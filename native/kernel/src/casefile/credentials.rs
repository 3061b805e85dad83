//! Steps that ask for task credentials, and that present them. What a proof proves is for runs over a server.

use std::collections::BTreeMap;

use authz_bundle::source::At;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::decision::{Decision, Grant, Outcome};
use crate::hex::hex;

/// A task credential that is issued of the step's permit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IssueSaid {
    /// What later steps call it.
    pub(super) name: At<String>,
    /// The key that it is bound to, by any name; `none`: whoever bears it may present it. Default: a key of the agent's.
    pub(super) key: Option<String>,
}

/// A task credential that the step presents.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PresentSaid {
    /// Its name.
    pub(super) credential: At<String>,
    /// For runs over a server: another key that proves.
    key: Option<String>,
    /// For runs over a server: it is presented as a bearer token.
    bearer: Option<bool>,
    /// For runs over a server: the proof of the step before is brought again.
    replay: Option<bool>,
    /// For runs over a server: the proof is of another method.
    method: Option<String>,
    /// For runs over a server: the proof is of another URI.
    uri: Option<String>,
}

impl PresentSaid {
    /// Whether something of it is judged before the kernel is asked.
    pub(super) fn is_for_servers(&self) -> bool {
        self.key.is_some()
            || self.method.is_some()
            || self.uri.is_some()
            || self.bearer == Some(true)
            || self.replay == Some(true)
    }
}

/// What is not bound to a key.
const UNBOUND: &str = "none";

/// A task credential of a test.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    /// The task that it is of.
    pub(super) task: String,
    pub(super) is_bound: bool,
    operation: String,
    resource: Option<String>,
    arguments_digest: Option<String>,
    destinations: Vec<String>,
    charged: Vec<(String, u32)>,
    /// The step whose permit it was issued of.
    pub(super) step: usize,
    is_redeemed: bool,
}

impl Issued {
    pub(super) fn grant(&self) -> Grant<'_> {
        Grant {
            operation: &self.operation,
            resource: self.resource.as_deref(),
            arguments_digest: self.arguments_digest.as_deref(),
            destinations: &self.destinations,
            is_redeemed: self.is_redeemed,
            charged: &self.charged,
        }
    }
}

/// The task credentials of one test.
#[derive(Debug, Default)]
pub(super) struct Credentials(BTreeMap<String, Issued>);

impl Credentials {
    pub(super) fn get(&self, said: &PresentSaid) -> Option<&Issued> {
        self.0.get(&said.credential.value)
    }

    /// Issues a credential of a permit.
    ///
    /// Args: `step`: whose permit. `resource`: what was acted on, as credentials name it.
    pub(super) fn issue(
        &mut self,
        said: &IssueSaid,
        (step, task): (usize, &str),
        resource: Option<String>,
        decision: &Decision,
    ) {
        if decision.outcome != Outcome::Permit {
            return;
        }
        let digest = decision.arguments_digest.map(|digest| hex(&digest));
        let issued = Issued {
            task: task.to_owned(),
            is_bound: said.key.as_deref() != Some(UNBOUND),
            operation: decision.operation.clone(),
            resource,
            arguments_digest: digest,
            destinations: decision.destinations.clone(),
            charged: decision.charges.clone(),
            step,
            is_redeemed: false,
        };
        self.0.insert(said.name.value.clone(), issued);
    }

    /// Uses up what a decision permits by a credential.
    pub(super) fn redeem(&mut self, said: &PresentSaid, decision: &Decision) {
        if let Some(issued) = self.0.get_mut(&said.credential.value) {
            let is_used = decision.outcome == Outcome::Permit && decision.redeems.is_some();
            issued.is_redeemed |= is_used;
        }
    }
}
