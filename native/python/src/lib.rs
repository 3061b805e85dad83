//! The Python extension `authz._native`: convert the arguments, let other threads run, call, raise the error.
//!
//! No rule of Authz stands here. [`engine`] answers calls, with [`call_facts`] of each; it loads [`plan`] and [`trust`].
//! [`fast_lane`] serves an engine without Python. [`keys`] signs credentials, and [`tools`] serves the commands.
//! [`convert`] and [`errors`] lie below all of them. `authz/_native.pyi` documents the interface.

mod call_facts;
mod convert;
mod engine;
mod errors;
mod fast_lane;
mod keys;
mod plan;
mod tools;
mod trust;

/// Allocator of Rust's memory alone; Python keeps its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kernel, verification and fast lane.
#[pyo3::pymodule(gil_used = false, name = "_native")]
mod native {
    #[pymodule_export]
    use crate::engine::PyEngine;
    #[pymodule_export]
    use crate::errors::{ApiError, BundleError, EngineError, TrustError};
    #[pymodule_export]
    use crate::fast_lane::PyFastLane;
    #[pymodule_export]
    use crate::keys::{PySigningKey, accepted_algorithms, is_usable_key};
    #[pymodule_export]
    use crate::plan::{PyEntries, PyPlan};
    #[pymodule_export]
    use crate::tools::{
        build_profile, bundle_digest, bundle_schema, bundle_variables, case_schema, effect_table,
        format_policy, mcp_arguments, parse_dsn, prompt_names, prompt_values, prompt_words,
        reason_table, seal_catalog, spiffe_covers,
    };
    #[pymodule_export]
    use crate::trust::PyTrust;
}
