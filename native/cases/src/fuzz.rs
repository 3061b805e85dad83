//! Body of a fuzz test, which a test runs over the committed corpus.

use std::collections::BTreeMap;

/// Reads the bytes as a case file.
pub fn case_file(bytes: &[u8]) {
    let vars = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    drop(crate::check::parse("tests/fuzz.yaml", bytes, &vars));
}
