//! Planted bugs: each is a defect of a simulated part, and each must be found.

/// A defect. `BUG` comments of the simulator say where each is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A transaction reads the node's old copy of the records, and holds no lock.
    NoLock,
    /// A transaction writes although another one changed its records since it read them.
    NoFence,
    /// A record of a transaction is not written.
    RecordLost,
    /// The second of two nodes does not count its use.
    UseCountedOnce,
    /// Nodes do not learn revocations.
    RevocationNotDelivered,
    /// A node trusts a view that nothing refreshed.
    StaleViewTrusted,
    /// The use of an approval is not written.
    ApprovalUsedTwice,
    /// A permit can be reported twice, and gives back uses and amounts each time.
    PermitReleasedTwice,
    /// An audit record is not written.
    AuditLineLost,
    /// A disk answers that it wrote all, and wrote a part.
    TornWriteAccepted,
    /// A disk answers that it synced, and did not.
    SyncSkipped,
    /// A store that is opened again has lost the labels of its sessions.
    LabelLostAtRestart,
    /// A store that is opened again has lost the ends of its tasks.
    EndLostAtRestart,
    /// A store that is opened again has lost its revocations.
    RevocationLostAtRestart,
    /// A store that is opened again has lost the answers of people.
    AnswerLostAtRestart,
}

#[cfg(test)]
mod tests {
    use super::Bug;
    use crate::seeds::{describe, find};

    /// Seeds within which a bug is found.
    const TO_FIND: u64 = 1_000;

    fn assert_found(bug: Bug) {
        match find(bug, 1..=TO_FIND) {
            Some(seed) => {
                println!("{bug:?} is found by seed {seed}\n{}", describe(seed, Some(bug)))
            }
            None => panic!("no seed to {TO_FIND} finds {bug:?}"),
        }
    }

    macro_rules! planted {
        ($($name:ident: $bug:ident,)*) => {
            $(#[test]
            fn $name() {
                assert_found(Bug::$bug);
            })*
        };
    }

    planted! {
        no_lock: NoLock,
        no_fence: NoFence,
        a_record_is_lost: RecordLost,
        a_use_is_counted_once: UseCountedOnce,
        a_revocation_is_not_delivered: RevocationNotDelivered,
        a_stale_view_is_trusted: StaleViewTrusted,
        an_approval_is_used_twice: ApprovalUsedTwice,
        a_permit_is_released_twice: PermitReleasedTwice,
        an_audit_line_is_lost: AuditLineLost,
        a_torn_write_is_accepted: TornWriteAccepted,
        a_sync_is_skipped: SyncSkipped,
        a_label_is_lost_at_restart: LabelLostAtRestart,
        an_end_is_lost_at_restart: EndLostAtRestart,
        a_revocation_is_lost_at_restart: RevocationLostAtRestart,
        an_answer_is_lost_at_restart: AnswerLostAtRestart,
    }
}
