//! Facts of a call that its transport knows.

use std::time::{Duration, Instant};

use authz_lane::{Lane, PeerChain, Transport};
use pyo3::prelude::*;

/// Python's `authz.model.CallFacts`, a tuple.
pub(crate) struct CallFacts<'a> {
    listener: &'a str,
    remaining_seconds: Option<f64>,
    trace_parent: Option<&'a str>,
    authorization: Option<&'a str>,
    peer: Option<&'a str>,
    trace_state: Option<&'a str>,
    certificate: Option<&'a [u8]>,
    intermediates: Option<&'a [u8]>,
}

impl<'a, 'py> FromPyObject<'a, 'py> for CallFacts<'a> {
    type Error = PyErr;

    fn extract(facts: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let (
            listener,
            remaining_seconds,
            trace_parent,
            authorization,
            peer,
            trace_state,
            certificate,
            intermediates,
        ) = facts.extract()?;
        Ok(Self {
            listener,
            remaining_seconds,
            trace_parent,
            authorization,
            peer,
            trace_state,
            certificate,
            intermediates,
        })
    }
}

impl<'a> CallFacts<'a> {
    /// The facts as the engine reads them, of a call that was received now.
    pub(crate) fn transport(&self) -> Transport<'a> {
        Transport {
            listener: self.listener,
            remaining: self.remaining_seconds.map(duration_until_deadline),
            received: Instant::now(),
            trace_parent: self.trace_parent,
            trace_state: self.trace_state,
            authorization: self.authorization,
            peer: self.peer,
            peer_chain: self.certificate.map_or(PeerChain::None, |leaf| PeerChain::Pem {
                leaf,
                intermediates: self.intermediates.unwrap_or_default(),
            }),
            // grpcio does not report the user id of a Unix socket's peer.
            peer_uid: None,
            lane: Lane::Python,
        }
    }
}

/// A negative time and NaN count as a deadline that is past.
fn duration_until_deadline(seconds: f64) -> Duration {
    let too_long = if seconds > 0.0 { Duration::MAX } else { Duration::ZERO };
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(too_long)
}
