//! Headers that a permit removes.

use std::sync::LazyLock;

use smallvec::SmallVec;

use super::headers::{IDENTITY, OURS_INBOUND};
use crate::header_name::spellings;
use crate::limits;
use crate::refusal::CallRefusal;

/// Headers that a permit removes, besides those that every permit does ([`ALWAYS_REMOVED`]).
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Names that the request brought.
    pub(super) names: Vec<String>,
    /// Headers of evidence.
    pub(super) evidence: &'static [&'static str],
}

impl Removed {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).chain(self.evidence.iter().copied())
    }
}

/// Which of the names a permit takes out, besides those that every one does.
pub(super) fn to_remove(mut ours: SmallVec<[&str; 8]>) -> Result<Vec<String>, CallRefusal> {
    ours.sort_unstable();
    ours.dedup();
    if ours.len() > limits::LIST {
        return Err(CallRefusal::input(format!(
            "there are more than {} headers to remove",
            limits::LIST
        )));
    }
    let is_removed =
        |name: &str| ALWAYS_REMOVED.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
    Ok(ours.into_iter().filter(|name| !is_removed(name)).map(str::to_owned).collect())
}

/// Headers that every permit removes, whether or not the proxy showed them. Sorted.
pub(crate) static ALWAYS_REMOVED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let twins = OURS_INBOUND.iter().chain(&IDENTITY).flat_map(|name| spellings(name));
    let mut all: Vec<String> = twins.filter(|name| !IDENTITY.contains(&name.as_str())).collect();
    all.sort_unstable();
    all.dedup();
    all
});
