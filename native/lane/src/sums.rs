//! Refusals of unverified callers: the first few of a minute have records of their own, and the others are summed up, so that a
//! caller without a credential cannot fill the disk of the audit file.

use std::collections::HashMap;
use std::sync::Mutex;

use authz_base::poison::IgnorePoison as _;
use authz_kernel::decision::Outcome;
use authz_kernel::reason::ReasonCode;

use crate::judgement::Judgement;

const MINUTE_MS: i64 = 60_000;
/// Rows of one minute: pairs of peer and reason code. Further pairs share one row for each code.
const MAX_ROWS: usize = 256;

/// Refusals that are summed up together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    /// Name of the listener. Empty: the call was refused before it was read.
    pub(crate) listener: String,
    /// Address without its port, or name of the enforcer through which unverified callers ask. Empty: unknown.
    pub(crate) peer: String,
    pub(crate) reason: ReasonCode,
}

/// Refusals that have no record of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    /// Times of the first and of the last refusal.
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
}

impl Sum {
    pub(crate) fn add(&mut self, other: Self) {
        if other.count == 0 {
            return;
        }
        self.first_ms =
            if self.count == 0 { other.first_ms } else { self.first_ms.min(other.first_ms) };
        self.last_ms = self.last_ms.max(other.last_ms);
        self.count = self.count.saturating_add(other.count);
    }
}

#[derive(Debug, Default)]
struct MinuteTable {
    minute: i64,
    /// Number of refusals with a record of their own, and the sum of the others.
    rows: HashMap<Row, (u64, Sum)>,
    /// Sums of minutes that are over.
    due: HashMap<Row, Sum>,
}

/// The sums of one engine.
#[derive(Debug)]
pub(crate) struct Sums {
    /// Records of one row in a minute.
    each: u64,
    table: Mutex<MinuteTable>,
}

impl Sums {
    pub(crate) fn new(each: u64) -> Self {
        Self { each, table: Mutex::default() }
    }

    /// Counts a refusal. Returns true if it is summed up, and so needs no record.
    pub(crate) fn take(&self, row: Row, now_ms: i64) -> bool {
        let mut table = self.table.lock().ignore_poison();
        table.turn(now_ms);
        let row = if table.rows.len() < MAX_ROWS || table.rows.contains_key(&row) {
            row
        } else {
            // One row for each reason code, so the number of these rows is bounded, too.
            Row { listener: String::new(), peer: String::new(), reason: row.reason }
        };
        let (written, sum) = table.rows.entry(row).or_default();
        if *written < self.each {
            *written = written.saturating_add(1);
            return false;
        }
        sum.add(Sum { count: 1, first_ms: now_ms, last_ms: now_ms });
        true
    }

    /// Takes the sums of minutes that are over.
    pub(crate) fn due(&self, now_ms: i64) -> Vec<(Row, Sum)> {
        let mut table = self.table.lock().ignore_poison();
        table.turn(now_ms);
        table.take()
    }

    /// Takes all sums.
    pub(crate) fn all(&self) -> Vec<(Row, Sum)> {
        let mut table = self.table.lock().ignore_poison();
        table.end();
        table.take()
    }

    /// Keeps a sum that could not be written, for the next time.
    pub(crate) fn keep(&self, row: Row, sum: Sum) {
        let mut table = self.table.lock().ignore_poison();
        table.add_due(row, sum);
    }
}

impl MinuteTable {
    /// Ends the minute if it is over, or if the clock was set back.
    fn turn(&mut self, now_ms: i64) {
        let minute = now_ms.div_euclid(MINUTE_MS);
        if minute != self.minute {
            self.end();
            self.minute = minute;
        }
    }

    fn end(&mut self) {
        for (row, (_, sum)) in std::mem::take(&mut self.rows) {
            self.add_due(row, sum);
        }
    }

    fn add_due(&mut self, row: Row, sum: Sum) {
        if sum.count == 0 {
            return;
        }
        let row = if self.due.len() < MAX_ROWS || self.due.contains_key(&row) {
            row
        } else {
            Row { listener: String::new(), peer: String::new(), reason: row.reason }
        };
        self.due.entry(row).or_default().add(sum);
    }

    fn take(&mut self) -> Vec<(Row, Sum)> {
        let mut due: Vec<_> = std::mem::take(&mut self.due).into_iter().collect();
        due.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        due
    }
}

/// Row of a decision that may be summed up. `None`: the decision needs a record of its own. `peer` is the address and port of
/// the peer, or empty.
pub(crate) fn row_of(judgement: &Judgement, peer: &str) -> Option<Row> {
    // INVARIANT (no permit): what is let through, by policy or by `mode`, has a record of its own.
    let is_refusal = judgement.outcome() == Outcome::Deny && judgement.passage().is_none();
    let asker = &judgement.arrival.asker;
    // A verified enforcer asks for its own caller.
    let is_verified = !judgement.caller.chain.is_empty()
        || judgement.caller.refused_agent.is_some()
        || judgement.caller.facts.agent.is_some()
        || judgement.caller.facts.subject.is_some()
        || (asker.enforcer.is_none() && asker.peer.is_some());
    let is_owner = judgement
        .arrival
        .world
        .as_ref()
        .and_then(|world| world.way(&judgement.arrival.listener))
        .is_some_and(|way| way.admin);
    if !is_refusal || is_verified || is_owner {
        return None;
    }
    let address = peer.rsplit_once(':').map_or(peer, |(address, _)| address);
    let peer = match asker.name() {
        name if !name.is_empty() && address.is_empty() => name,
        _ => address,
    };
    let (listener, peer) = (judgement.arrival.listener.clone(), peer.to_owned());
    Some(Row { listener, peer, reason: judgement.reason() })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn row(peer: impl ToString, reason: ReasonCode) -> Row {
        Row { listener: "main".to_owned(), peer: peer.to_string(), reason }
    }

    /// The first few of each peer and code stand alone, the others are a sum, which is due when the minute is over.
    #[test]
    fn the_first_few_of_a_minute() {
        let sums = Sums::new(2);
        let of = |peer: &str, reason| row(peer, reason);
        for now_ms in [1, 2] {
            assert!(!sums.take(of("a", ReasonCode::NoCredential), now_ms));
        }
        assert!(sums.take(of("a", ReasonCode::NoCredential), 3));
        assert!(sums.take(of("a", ReasonCode::NoCredential), 7));
        assert!(!sums.take(of("b", ReasonCode::NoCredential), 8));
        assert!(!sums.take(of("a", ReasonCode::BadInput), 9));
        assert!(sums.due(MINUTE_MS - 1).is_empty());
        let sum = Sum { count: 2, first_ms: 3, last_ms: 7 };
        assert_eq!(vec![(of("a", ReasonCode::NoCredential), sum)], sums.due(MINUTE_MS));
        assert!(sums.due(MINUTE_MS).is_empty());
        assert!(!sums.take(of("a", ReasonCode::NoCredential), MINUTE_MS));
    }

    /// A clock that is set back ends a minute, too. Sums that could not be written are added to the next ones.
    #[test]
    fn nothing_is_lost() {
        let sums = Sums::new(0);
        assert!(sums.take(row("a", ReasonCode::BadInput), 5 * MINUTE_MS));
        assert!(sums.take(row("a", ReasonCode::BadInput), MINUTE_MS));
        let (row, sum) = sums.due(MINUTE_MS).pop().unwrap();
        assert_eq!((1, 5 * MINUTE_MS), (sum.count, sum.first_ms));
        sums.keep(row, sum);
        let all = sums.all();
        assert_eq!(1, all.len());
        let (_, sum) = all.first().unwrap();
        assert_eq!((2, MINUTE_MS, 5 * MINUTE_MS), (sum.count, sum.first_ms, sum.last_ms));
    }

    /// The table is bounded for any number of peers. Peers beyond the bound are counted together, by reason code.
    #[test]
    fn many_peers() {
        let sums = Sums::new(1);
        let most = 10 * MAX_ROWS;
        for peer in 0..most {
            let summed = sums.take(row(peer, ReasonCode::NoCredential), 0);
            assert_eq!(peer > MAX_ROWS, summed, "{peer}");
        }
        for _ in 0..3 {
            sums.take(row("z", ReasonCode::BadInput), 0);
        }
        let all = sums.all();
        let common = |reason| {
            let row = Row { listener: String::new(), peer: String::new(), reason };
            all.iter().find(|(other, _)| *other == row).map_or(0, |(_, sum)| sum.count)
        };
        assert_eq!(2, all.len());
        assert_eq!((most - MAX_ROWS - 1) as u64, common(ReasonCode::NoCredential));
        assert_eq!(2, common(ReasonCode::BadInput));
    }
}
