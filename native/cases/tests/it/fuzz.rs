//! Committed case files, and random changes of them.

use std::path::Path;

use authz_cases::{case_schema, fuzz};

#[test]
fn the_schema_of_case_files_names_what_an_enforcer_can_do() {
    assert!(case_schema().contains("\"supported_obligations\""));
}

#[test]
fn the_corpus_and_what_resembles_it_never_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/case");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        count += 1;
        fuzz::case_file(&bytes);
        let mut seed = 0x9e37_79b9_u32;
        for _ in 0..64 {
            let mut changed = bytes.clone();
            for _ in 0..3 {
                seed ^= seed << 13;
                seed ^= seed >> 17;
                seed ^= seed << 5;
                let at = seed as usize % changed.len().max(1);
                if let Some(byte) = changed.get_mut(at) {
                    *byte = (seed >> 16) as u8;
                }
            }
            fuzz::case_file(&changed);
        }
    }
    assert!(count >= 3, "the corpus is gone");
}
