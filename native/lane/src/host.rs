//! Records that the host of the engine looks after, on a thread that no call waits for: how they are read and written.

use std::time::Duration;

use authz_kernel::task::RecordKey;
use authz_state::store::{Survives, Work};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::keeper::Wait;
use crate::refusal::CallRefusal;
use crate::settings::Lane;

/// How long the host waits for the store.
const PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    /// How long a call of the host waits for the store.
    pub(crate) fn host_wait(&self) -> Wait {
        let now = self.clock.monotonic();
        Wait { until: now.checked_add(PATIENCE).unwrap_or(now), lane: Lane::Python }
    }

    /// Runs a transaction of the host, and waits until it is durable.
    pub(crate) fn write_for_host(
        &self,
        locks: &[RecordKey],
        work: &mut Work<'_>,
    ) -> Result<(), EngineError> {
        let wait = self.host_wait();
        let commit =
            self.keeper.transact(locks, Survives::PowerLoss, wait, work).map_err(store_error)?;
        self.keeper.kept(commit, wait).map_err(store_error)
    }
}

/// The error of a refusal by the store.
pub(crate) fn store_error(refused: CallRefusal) -> EngineError {
    EngineError::Refused(refused.message)
}

/// Reads a JSON document of the host.
///
/// `document` names the document in the error.
pub(crate) fn read_json<'a, T: Deserialize<'a>>(
    document: &str,
    json: &'a [u8],
) -> Result<T, EngineError> {
    serde_json::from_slice(json).map_err(EngineError::json(document))
}

/// Writes records as JSON.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String, EngineError> {
    serde_json::to_string(value).map_err(EngineError::Encode)
}
