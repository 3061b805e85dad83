//! Records used of late.

use std::collections::HashMap;
use std::sync::Arc;

use authz_base::record::Record;
use foldhash::fast::RandomState;

/// Two generations: when the younger is full, the older is forgotten and the younger takes its place.
#[derive(Debug)]
pub(crate) struct Ready {
    young: HashMap<Arc<str>, Record, RandomState>,
    old: HashMap<Arc<str>, Record, RandomState>,
    /// Most records of a generation.
    most: usize,
}

impl Ready {
    /// Empty.
    pub(crate) fn new(most: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), most }
    }

    pub(crate) fn get(&mut self, id: &str) -> Option<Record> {
        if let Some(record) = self.young.get(id) {
            return Some(record.clone());
        }
        let (id, record) = self.old.remove_entry(id)?;
        self.put(id, record.clone());
        Some(record)
    }

    pub(crate) fn put(&mut self, id: Arc<str>, record: Record) {
        if let Some(known) = self.young.get_mut(&id) {
            *known = record;
            return;
        }
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&id);
        self.young.insert(id, record);
    }

    pub(crate) fn forget(&mut self, id: &str) {
        self.young.remove(id);
        self.old.remove(id);
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
