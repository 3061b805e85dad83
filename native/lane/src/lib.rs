//! From bytes to bytes: verification, decision, record and answer, and the fast lane that serves them without Python.

mod access_log;
mod acting_agents;
mod admin;
mod answer;
mod api_call;
mod ask;
mod asked;
mod attached;
mod batch;
mod build;
mod clock;
mod credentials;
mod ending;
mod enforcer_proof;
mod engine;
mod entries;
mod envoy;
mod error;
mod exchange;
mod explain;
mod fast;
mod forget;
#[cfg(feature = "test-support")]
pub mod fuzz;
mod giving;
mod header_name;
mod history;
mod injected;
mod judgement;
mod keeper;
mod leases;
mod limits;
mod list;
mod locate;
mod mcp;
pub mod message;
pub mod metrics;
mod nonce;
pub mod offline;
mod on_behalf;
mod pace;
mod permits;
mod presented;
mod probe;
pub mod proto;
mod protobuf;
mod quota;
mod recalled;
mod record;
mod refused_agent;
mod report;
mod reserving;
mod revoke;
mod sequences;
pub mod settings;
mod shown;
mod speaker;
mod status;
#[doc(hidden)]
pub mod steps;
mod sums;
mod sweep;
mod tasks;
mod taskwire;
mod threads;
mod tokens;
mod trace;
mod transport;
mod usage;
mod wanted;
mod world;

pub use build::build_profile;
pub use clock::{Clock, SystemClock};
pub use engine::{Engine, EngineParts};
pub use error::{EnforcerError, EngineError, InjectionError, PemError, TlsError};
pub use fast::{FastLane, FastListener, FastSettings, FastTls};
pub use pace::Pace;
pub use settings::{
    CredentialSettings, DpopSettings, EnforcerSpec, Injection, Lane, Lifetimes, Listener, PeerSpec,
    Relay, ReportWay, Secret, Settings, StateEngine, StateSettings, Surface, TraceSettings,
};
pub use status::Status;
pub use sweep::Swept;
pub use trace::Span;
pub use transport::{ApiError, PeerChain, Transport};
pub use world::World;
