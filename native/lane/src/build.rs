//! How this code was compiled.

/// How this code was compiled: `debug`, `release`, or `guided`: as a release that a profile of such work guides.
#[must_use]
pub const fn build_profile() -> &'static str {
    match (cfg!(debug_assertions), option_env!("AUTHZ_GUIDED")) {
        (true, _) => "debug",
        (false, None) => "release",
        (false, Some(_)) => "guided",
    }
}
