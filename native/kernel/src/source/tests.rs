//! Random bytes as every kind of text that a bundle or a caller brings.

use std::collections::BTreeMap;

use super::*;

#[test]
#[expect(clippy::disallowed_methods, reason = "reads the corpus")]
fn the_corpus_and_what_resembles_it_never_panic() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let table = crate::routes::RouteTable::default();
    let tasks = std::fs::read(root.join("bundle/tasks.yaml")).unwrap_or_default();
    let files = [("bundle.yaml", b"{name: tasks}".to_vec()), ("tasks.yaml", tasks)];
    let files = files.map(|(path, bytes)| (path.to_owned(), bytes)).into();
    let plan = load(&files, &BTreeMap::new()).and_then(|m| crate::plan::Plan::compile(m, None));
    assert!(plan.is_ok(), "the corpus has no bundle of tasks");
    let Ok(plan) = plan else { return };
    let mut count = 0;
    for folder in ["bundle", "route", "mcp", "scope", "json"] {
        let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        for bytes in entries.filter_map(|entry| std::fs::read(entry.path()).ok()) {
            count += 1;
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
                for text in [&bytes, &changed] {
                    fuzz::bundle_file(text);
                    fuzz::json_text(text);
                    fuzz::request(text, &table);
                    fuzz::message(text);
                    fuzz::destination(text);
                    fuzz::task(text, &plan);
                }
            }
        }
    }
    assert!(count >= 23, "the corpus is gone");
}
