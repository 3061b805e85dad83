//! The stages of a call import only the stages before them.

use std::fs;
use std::path::{Path, PathBuf};

/// The stages, in the order in which a call passes them; `record` has what a transaction needs to write a record, and so comes
/// before `settle`.
const STAGES: [&str; 7] = ["admit", "identify", "resolve", "locate", "judge", "record", "settle"];

fn files(stage: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/steps");
    let mut files = vec![folder.join(format!("{stage}.rs"))];
    if let Ok(inside) = fs::read_dir(folder.join(stage)) {
        files.extend(inside.map(|entry| entry.unwrap().path()));
    }
    files
}

#[test]
fn a_stage_imports_only_earlier_ones() {
    let mut seen = 0;
    for (place, stage) in STAGES.iter().enumerate() {
        for file in files(stage) {
            let source = fs::read_to_string(&file).unwrap();
            for later in &STAGES[place + 1..] {
                let path = format!("crate::steps::{later}");
                assert!(!source.contains(&path), "{} imports `{later}`", file.display());
            }
            seen += STAGES[..place]
                .iter()
                .filter(|earlier| source.contains(&format!("crate::steps::{earlier}")))
                .count();
        }
    }
    assert!(seen > 5, "no import of a stage was found: {seen}");
}

fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, all),
            false => all.push(path),
        }
    }
}

/// Other code builds a record or reads one.
#[test]
fn only_a_stage_changes_the_record_of_a_call() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let stages = source.join("steps");
    let mut all = Vec::new();
    sources(&source, &mut all);
    let changes = |file: &&PathBuf| fs::read_to_string(file).unwrap().contains("&mut Judgement");
    let (in_stages, elsewhere): (Vec<&PathBuf>, Vec<&PathBuf>) =
        all.iter().filter(changes).partition(|file| file.starts_with(&stages));
    assert!(!in_stages.is_empty(), "no stage changes a record any more");
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}
