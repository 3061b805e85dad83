//! A probe of a call that people may lift: it answers what a check would answer, and writes nothing.

use std::collections::BTreeMap;

use authz_kernel::task::{Record, RecordKey};
use authz_state::store::{Page, Query, StoreError, Transaction};

use crate::engine::Engine;
use crate::judgement::Judgement;
use crate::keeper::{ChangeError, refused};
use crate::refusal::CallRefusal;
use crate::steps::settle::charge::Charge;

/// The records of one call, as this node knows them. Changes are read again, and then forgotten.
#[derive(Default)]
struct Preview {
    records: BTreeMap<RecordKey, Record>,
}

impl Transaction for Preview {
    fn get(&mut self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        Ok(self.records.get(key).cloned())
    }

    fn find(&mut self, _query: &Query, _page: &Page) -> Result<Vec<Record>, StoreError> {
        Ok(Vec::new())
    }

    fn put(&mut self, record: Record) {
        self.records.insert(record.key(), record);
    }

    fn delete(&mut self, key: RecordKey) {
        self.records.remove(&key);
    }

    fn audit(&mut self, _line: Vec<u8>) {}
}

impl Engine {
    /// Judges a probed call with the answers that people gave, and makes, uses and counts no approval.
    ///
    /// # Errors
    /// The refusal of a check: for example, people rejected the call, or their queue is full.
    pub(super) fn preview_approval(
        &self,
        judgement: &mut Judgement,
        charge: Charge<'_>,
    ) -> Result<(), CallRefusal> {
        self.check_presented_approval(judgement, charge)?;
        let located = charge.located;
        let Some(call) = self.step_up_call(judgement, charge, located) else { return Ok(()) };
        let mut preview = Preview::default();
        // INVARIANT (preview): an answer reads the records that its call locks, and no other one.
        for key in call.locks() {
            if let Some(record) = self.keeper.peek(key, charge.call.wait)? {
                preview.put(record);
            }
        }
        let presented = charge.task.presented.as_ref();
        let lifted = self.lift(&mut preview, judgement, charge, located, presented, Some(&call));
        let reject_text = std::mem::take(&mut judgement.settlement.reject_text);
        judgement.settlement.forget_approval();
        judgement.settlement.reject_text = reject_text;
        match lifted {
            Ok(_) | Err(ChangeError::Unchanged) => Ok(()),
            Err(ChangeError::Refused(refusal)) => Err(refusal),
            Err(ChangeError::Store(error)) => Err(refused(&error)),
        }
    }
}
