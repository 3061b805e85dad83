//! Reads `denials`: what follows where a task is refused again and again.

use authz_base::record::history::MAX_MARKS;

use super::build::ModelBuilder;
use super::types::DenialsEntry;
use super::yaml::At;
use crate::model::Denials;

/// How many raise the tier, where nothing is said.
const RAISE_AFTER: u32 = 5;

/// Takes over `denials`, which a bundle says once.
pub(super) fn apply(
    build: &mut ModelBuilder<'_>,
    said_at: &mut Option<String>,
    file: &str,
    said: Option<&At<DenialsEntry>>,
) {
    let Some(said) = said else { return };
    if let Some(first) = said_at {
        let what = format!("`denials` is said twice; first in {first}");
        return build.found.error(&said.at.within(file), what, "Keep one of the two.");
    }
    *said_at = Some(format!("{file}:{}", said.at.line));
    let mut bounded = |number: Option<&At<u32>>| {
        let number = number?;
        let fits = number.value > 0 && usize::try_from(number.value).is_ok_and(|n| n <= MAX_MARKS);
        if !fits {
            let what = format!("a run is of 1 to {MAX_MARKS} denials, not of {}", number.value);
            build.found.error(&number.at.within(file), what, "Write another number.");
        }
        Some(number.value)
    };
    let raise_after = bounded(said.value.raise_after.as_ref()).unwrap_or(RAISE_AFTER);
    let end_after = bounded(said.value.end_after.as_ref());
    build.model.places.denials = Some(said.at.within(file));
    build.model.denials = Some(Denials { raise_after, end_after });
}
