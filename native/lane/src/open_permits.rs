//! Counters of open permits: each agent has a share of the store, and each of its subjects a share of that.
//!
//! A permit is open until its outcome is reported, at the latest until its report is due. Each node counts the permits that it
//! made itself, in steps of a second.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use authz_base::poison::IgnorePoison as _;
use authz_kernel::decision::Time;
use authz_kernel::task::Reservation;

const SECOND_MS: i64 = 1_000;

/// Numbers of open permits, by the second in which their reports are due.
#[derive(Debug, Default)]
struct DueCounts(BTreeMap<i64, u64>);

impl DueCounts {
    fn forget(&mut self, now: Time) {
        self.0 = self.0.split_off(&now.0.div_euclid(SECOND_MS));
    }

    fn count(&self) -> u64 {
        self.0.values().fold(0, |all, count| all.saturating_add(*count))
    }

    fn add(&mut self, due: Time) {
        let count = self.0.entry(due.0.div_euclid(SECOND_MS)).or_default();
        *count = count.saturating_add(1);
    }

    fn remove(&mut self, due: Time) {
        let second = due.0.div_euclid(SECOND_MS);
        if let Some(count) = self.0.get_mut(&second) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&second);
            }
        }
    }
}

/// Open permits of one agent, by the id of its pair with a subject.
#[derive(Debug, Default)]
struct AgentPermits(HashMap<String, DueCounts>);

impl AgentPermits {
    /// Open permits of the agent, and of the pair.
    fn count(&mut self, pair: &str, now: Time) -> (u64, u64) {
        self.0.values_mut().for_each(|open| open.forget(now));
        self.0.retain(|_, open| !open.0.is_empty());
        let all = self.0.values().map(DueCounts::count).fold(0, u64::saturating_add);
        (all, self.0.get(pair).map_or(0, DueCounts::count))
    }
}

/// Open permits of all agents.
#[derive(Debug, Default)]
pub(crate) struct OpenPermits(Mutex<HashMap<String, AgentCount>>);

/// Open permits of one agent, and how many there were when all of them were last counted, with those added since.
#[derive(Debug, Default)]
struct AgentCount {
    open: AgentPermits,
    most: u64,
}

impl OpenPermits {
    /// Whether an agent may have one more open permit for a subject.
    ///
    /// An agent may fill an eighth of the store. Beyond that, it has at most as many permits as others have room for, and each
    /// of its subjects at most as many as the agent has left.
    ///
    /// `most` is the number of permits that the store can hold, and `kept` the number that it holds now.
    pub(crate) fn has_room(
        &self,
        (agent, pair): (&str, &str),
        now: Time,
        most: u64,
        kept: impl FnOnce() -> u64,
    ) -> bool {
        let mut agents = self.0.lock().ignore_poison();
        let Some(counted) = agents.get_mut(agent) else { return true };
        // INVARIANT (upper bound): `most` is never below the number of permits, so most calls need not count.
        if counted.most < most / 8 {
            return true;
        }
        let (all, own) = counted.open.count(pair, now);
        counted.most = all;
        if all < most / 8 {
            return true;
        }
        let free = most.saturating_sub(kept());
        all < free && own < free.saturating_sub(all)
    }

    /// Counts a new permit.
    pub(crate) fn add(&self, permit: &Reservation) {
        let mut agents = self.0.lock().ignore_poison();
        if !agents.contains_key(&permit.agent) {
            agents.insert(permit.agent.clone(), AgentCount::default());
        }
        let Some(counted) = agents.get_mut(&permit.agent) else { return };
        counted.most = counted.most.saturating_add(1);
        let pairs = &mut counted.open.0;
        if !pairs.contains_key(&permit.pair) {
            pairs.insert(permit.pair.clone(), DueCounts::default());
        }
        if let Some(open) = pairs.get_mut(&permit.pair) {
            open.add(permit.due);
        }
    }

    /// Counts a settled permit no more.
    pub(crate) fn remove(&self, permit: &Reservation) {
        let mut agents = self.0.lock().ignore_poison();
        let Some(counted) = agents.get_mut(&permit.agent) else { return };
        if let Some(open) = counted.open.0.get_mut(&permit.pair) {
            open.remove(permit.due);
            counted.most = counted.most.saturating_sub(1);
        }
    }

    /// Forgets permits whose reports are overdue, and agents without permits.
    pub(crate) fn sweep(&self, now: Time) {
        let mut agents = self.0.lock().ignore_poison();
        for counted in agents.values_mut() {
            counted.most = counted.open.count("", now).0;
        }
        agents.retain(|_, counted| counted.most > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(agent: &str, pair: &str, due: i64) -> Reservation {
        Reservation {
            agent: agent.to_owned(),
            pair: pair.to_owned(),
            due: Time(due),
            ..Reservation::default()
        }
    }

    fn room(open: &OpenPermits, of: (&str, &str), now: i64, kept: u64) -> bool {
        open.has_room(of, Time(now), 80, || kept)
    }

    #[test]
    fn an_agent_has_a_share_and_each_subject_within_it() {
        let open = OpenPermits::default();
        let mut kept = 0;
        while room(&open, ("a", "alice"), 0, kept) && kept < 80 {
            open.add(&permit("a", "alice", 60_000));
            kept += 1;
        }
        assert_eq!(27, kept, "a single pair gets a third");
        while room(&open, ("a", "bob"), 0, kept) && kept < 80 {
            open.add(&permit("a", "bob", 60_000));
            kept += 1;
        }
        assert!((28..=40).contains(&kept), "all of its subjects get half: {kept}");
        assert!(room(&open, ("b", "alice"), 0, kept), "another agent has room");
        // Settled ones count no more, nor do overdue ones.
        for _ in 0..20 {
            open.remove(&permit("a", "alice", 60_000));
        }
        assert!(room(&open, ("a", "alice"), 0, kept - 20));
        assert!(room(&open, ("a", "alice"), 61_000, 0));
        open.sweep(Time(61_000));
        assert!(open.0.lock().is_ok_and(|open| open.is_empty()));
    }

    #[test]
    fn permits_count_until_they_are_due() {
        let open = OpenPermits::default();
        (0..30).for_each(|_| open.add(&permit("a", "alice", 5_000)));
        assert!(!room(&open, ("a", "alice"), 5_000, 50));
        assert!(room(&open, ("a", "alice"), 6_000, 50));
    }
}
