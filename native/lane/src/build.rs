//! Build profile.

/// Build profile: `debug`, `release`, or `guided` for a release that is optimized by a profile (PGO).
#[must_use]
pub const fn build_profile() -> &'static str {
    match (cfg!(debug_assertions), option_env!("AUTHZ_GUIDED")) {
        (true, _) => "debug",
        (false, None) => "release",
        (false, Some(_)) => "guided",
    }
}
