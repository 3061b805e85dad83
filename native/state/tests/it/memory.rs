//! The slow, obvious store.

use std::sync::Arc;

use authz_state::store::MemoryStore;

use crate::contract::{Made, run, small};

#[test]
fn contract() {
    run(&|| {
        let store = Arc::new(MemoryStore::with_bounds([7; 32], small()));
        let of_lines = Arc::clone(&store);
        let lines = move |_| {
            let lines = of_lines.take_lines().into_iter();
            lines.map(|line| String::from_utf8(line).unwrap()).collect()
        };
        Made { store, lines: Box::new(lines) }
    });
}
