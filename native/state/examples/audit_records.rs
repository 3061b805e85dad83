//! Appends records to an audit log, so that their instructions can be counted: `audit_records COUNT BYTES chain|plain`.
//!
//! Each record is synced on its own, as those of tier high are: the most expensive way. The difference of two counts leaves out the
//! start of the process:
//!
//! ```text
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/audit_records 1000 2500 chain
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints what it did")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use authz_state::{AuditSettings, AuditWriter, ChainSettings};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [count, bytes, form] = words.as_slice() else { return wrong_use() };
    let (Ok(count), Ok(bytes)) = (count.parse::<u64>(), bytes.parse::<usize>()) else {
        return wrong_use();
    };
    let is_chained = match form.as_str() {
        "chain" => true,
        "plain" => false,
        _ => return wrong_use(),
    };
    let folder = std::env::temp_dir().join(format!("authz-audit-records-{}", std::process::id()));
    match append(&folder.join("audit.jsonl"), count, bytes, is_chained) {
        Ok(written) => println!("{written} records"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    drop(std::fs::remove_dir_all(folder));
    ExitCode::SUCCESS
}

fn append(
    path: &std::path::Path,
    count: u64,
    bytes: usize,
    is_chained: bool,
) -> Result<u64, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    let mut settings = AuditSettings::new(path.to_owned());
    settings.chain = is_chained.then(|| ChainSettings::new("n1".to_owned()));
    let writer = AuditWriter::open(settings)?;
    let line = format!("{{\"text\":\"{}\"}}", "x".repeat(bytes.saturating_sub(11)));
    for _ in 0..count {
        let until = Instant::now() + Duration::from_secs(60);
        writer.append(line.as_bytes(), true, until).map_err(|error| format!("{error:?}"))?;
    }
    writer.close();
    Ok(writer.health().written_lines)
}

fn wrong_use() -> ExitCode {
    eprintln!("usage: audit_records COUNT BYTES chain|plain");
    ExitCode::from(2)
}
