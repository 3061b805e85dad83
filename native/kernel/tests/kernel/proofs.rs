//! The tally of a key's proofs, held against a list of them.

use authz_kernel::decision::Time;
use authz_kernel::task::Proof;
use proptest::prelude::*;

proptest! {
    /// It never counts fewer than are live, forgets each a slot after its end, and stops at its bound.
    #[test]
    fn a_tally_counts_what_is_live(
        steps in prop::collection::vec((0_i64..30_000, 0_i64..120_000), 1..200),
        most in 1_u32..20,
    ) {
        let mut tally = Proof::tally("key");
        let mut taken: Vec<i64> = Vec::new();
        let mut now = 1_764_000_000_000_i64;
        for (pause, life) in steps {
            now += pause;
            let ends = now + life;
            let bound = usize::try_from(most).unwrap_or(usize::MAX);
            let live = taken.iter().filter(|end| **end >= now).count();
            let kept = taken.iter().filter(|end| **end + Proof::SLOT_MS > now).count();
            let counted = tally.count(Time(ends), Time(now), most);
            if live >= bound {
                prop_assert!(!counted, "{live} are live");
            }
            if kept < bound {
                prop_assert!(counted, "only {kept} are kept");
            }
            if counted {
                taken.push(ends);
            }
            prop_assert!(tally.counts.len() <= 1 + 150_000 / usize::try_from(Proof::SLOT_MS).unwrap_or(1));
            prop_assert!(taken.iter().all(|end| tally.expires_at.0 >= *end));
        }
    }
}
