//! Destinations that a prompt names by an alias: "Ask Mark".
//!
//! An alias of a recipient list names its entry if no other entry of any list could be meant by the same words of the prompt.

use smallvec::SmallVec;

use crate::plan::Plan;
use crate::recipient_lists::{Alias, RecipientListAnswer, RecipientListQuery, RecipientLists};
use crate::task::{PromptWords, Speaker};

/// Aliases of one destination that are compared.
const MOST_ALIASES: usize = 16;

/// The best speaker who calls a destination by an alias that only this destination can be meant by.
///
/// INVARIANT (who may lift): only a trusted and fresh recipient list gives an alias. Every list with aliases may contest one,
/// also an untrusted list, and a stale one as it was last read. A list that was never read could contest all of them.
pub(super) fn speaker_of_alias(
    plan: &Plan,
    lists: Option<&RecipientLists>,
    query: &RecipientListQuery<'_>,
    words: &PromptWords<'_>,
) -> Option<Speaker> {
    let rules = || plan.model().recipient_lists.iter().filter(|(_, rule)| rule.alias.is_some());
    let trusted = rules().filter(|(_, rule)| rule.trusted);
    let own: SmallVec<[&Alias; 2]> = trusted
        .filter(|(name, _)| query.ask(name) == RecipientListAnswer::Listed)
        .flat_map(|(name, _)| query.aliases(name))
        .take(MOST_ALIASES)
        .collect();
    if own.is_empty() {
        return None;
    }
    let lists = lists?;
    let entries: Option<SmallVec<[_; 4]>> = rules().map(|(name, _)| lists.entries(name)).collect();
    let entries = entries?;
    words.speaker_of_alias(&own, |alias| {
        let mut rivals: SmallVec<[&Alias; 4]> = SmallVec::new();
        for entries in &entries {
            let all = entries.rivals(alias)?.iter();
            rivals.extend(all.filter(|rival| !rival.is_of_same_entry(alias)));
        }
        Some(rivals)
    })
}
