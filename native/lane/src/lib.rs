//! The engine: one call from bytes to bytes, and the native listener.
//!
//! The parts, in the order in which a call passes them:
//!
//! 1. [`FastLane`] (`fast`) or the Python server takes the call. `entries` are the methods of [`Engine`] that both call.
//! 2. `ask` and `envoy` read a message; `api_call` reads the calls that are not judged.
//! 3. `steps` decide: admit, identify, resolve, locate, judge, settle. Below them lie `world` (the loaded snapshot), `history` and
//!    `keeper` (the store).
//! 4. `record` writes the audit line, `metrics` and `trace` count and time the call.
//! 5. `answer`, `envoy` and `mcp` encode what the caller may see.
//!
//! `tasks`, `credentials`, `exchange`, `report`, `admin` and `breakglass` are calls that are not judged; `status` and `sweep` serve the host.
//! `clock` and `threads` are the only modules that ask the operating system for time, ids and threads. Imports run down the list in
//! `native/floors/tests/floors.rs`.

mod access_log;
mod acting_agents;
mod admin;
mod answer;
mod api_call;
mod approval_api;
mod approval_text;
mod approvals;
mod attached;
mod audit_chain;
mod audit_heads;
mod batch;
mod breakglass;
mod build;
mod clock;
mod credential_use;
mod credentials;
mod dropped_records;
mod ending;
mod enforcer_proof;
mod engine;
mod entries;
mod envoy;
mod erasure;
mod error;
mod exchange;
mod explain;
mod fast;
mod forget;
#[cfg(feature = "test-support")]
pub mod fuzz;
mod giving;
mod head_exchange;
mod header_name;
mod history;
mod host;
mod judgement;
mod keeper;
mod leases;
mod limits;
mod list;
mod locate;
mod mcp;
pub mod message;
pub mod metrics;
mod missing_keys;
mod nonce;
pub mod offline;
mod on_behalf;
mod open_permits;
mod origin_records;
mod pace;
mod permits;
mod probe;
mod proofs;
pub mod proto;
mod protobuf;
mod quota;
mod recalled;
mod record;
mod refusal;
mod refused_agent;
mod report;
mod request;
mod request_form;
mod result_values;
mod revoke;
mod secret_header;
mod security_event;
mod sequences;
pub mod settings;
mod shadow_answer;
mod shown;
mod signing_keys;
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
mod world;

pub use approvals::ApprovalChange;
#[doc(hidden)]
pub use approvals::Guard;
#[cfg(feature = "test-support")]
#[doc(hidden)]
pub use approvals::remove_guard;
pub use build::build_profile;
pub use clock::{Clock, SystemClock};
pub use engine::{Engine, EngineParts};
pub use error::{EnforcerError, EngineError, PemError, StaticSecretError, TlsError};
pub use fast::{FastLane, FastListener, FastSettings, FastTls};
pub use pace::Pace;
pub use settings::{
    ApprovalSettings, AuditOnFull, CredentialSettings, DpopSettings, EnforcerSpec, Lane, Lifetimes,
    Listener, PeerSpec, Relay, ReportWay, Secret, Settings, StateEngine, StateSettings,
    StaticSecret, Surface, TraceSettings,
};
pub use status::Status;
pub use sweep::Swept;
pub use trace::Span;
pub use transport::{ApiError, PeerChain, Transport};
pub use world::World;
