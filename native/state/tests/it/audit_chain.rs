//! The chain of an audit file: across starts, rotations and damage. A slow reader of its own checks every file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use authz_state::{AuditSettings, AuditWriter, ChainSettings, Durability, Head, SignedHead};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

type Hash = [u8; 32];

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("authz-chain-{name}-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn open(path: &Path, change: impl FnOnce(&mut ChainSettings)) -> AuditWriter {
    let mut chain = ChainSettings::new("n1".to_owned());
    change(&mut chain);
    let mut settings = AuditSettings::new(path.to_owned());
    settings.sync_interval = Duration::from_millis(10);
    settings.retry_interval = Duration::from_millis(10);
    settings.chain = Some(chain);
    AuditWriter::open(settings).unwrap()
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn append(writer: &AuditWriter, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let line = format!(r#"{{"n":{number}}}"#);
        let answer = writer.append(line.as_bytes(), true, later());
        assert_eq!(Ok(()), answer, "{:?}", writer.health());
    }
}

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The definition of RFC 9162 §2.1.1.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            sha256(&[&[1], &root(left), &root(right)])
        }
    }
}

fn read_head(line: &str) -> (Head, Hash) {
    let signed: SignedHead = serde_json::from_str(line).unwrap();
    let payload = URL_SAFE_NO_PAD.decode(signed.payload).unwrap();
    (serde_json::from_slice(&payload).unwrap(), sha256(&[&payload]))
}

/// The log of a folder: leaves and values of each segment, and the heads.
struct Log {
    segments: BTreeMap<u64, Vec<(Hash, u64)>>,
    first: BTreeMap<u64, String>,
    heads: Vec<(Head, Hash)>,
}

fn read(path: &Path) -> Log {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|file| {
            let file = file.file_name().unwrap().to_str().unwrap();
            file == name
                || (file.starts_with(name) && !file.contains("head") && !file.contains("torn"))
        })
        .collect();
    // The open file has the newest lines.
    files.sort_by_key(|file| (file == path, file.clone()));
    let mut log = Log { segments: BTreeMap::new(), first: BTreeMap::new(), heads: Vec::new() };
    for file in files {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            let segment = value["chain"]["segment"].as_u64().unwrap();
            let previous = value["chain"]["previous"].as_str().unwrap().to_owned();
            let lines = log.segments.entry(segment).or_default();
            assert_eq!(value["chain"]["index"], lines.len(), "{line}");
            match lines.last() {
                Some((last, _)) => assert_eq!(hex(last), previous, "{line}"),
                None => drop(log.first.insert(segment, previous)),
            }
            lines.push((sha256(&[&[0], line.as_bytes()]), value["n"].as_u64().unwrap()));
        }
    }
    let heads = std::fs::read_to_string(format!("{}.heads", path.display())).unwrap_or_default();
    log.heads = heads.lines().map(read_head).collect();
    log
}

impl Log {
    fn numbers(&self) -> Vec<u64> {
        self.segments.values().flatten().map(|(_, number)| *number).collect()
    }

    /// Every head is that of its lines, and every segment names the head before it.
    fn check(&self) {
        let mut previous = "0".repeat(64);
        for (head, hash) in &self.heads {
            assert_eq!(previous, head.previous);
            let lines = self.segments.get(&head.segment).map_or(&[][..], Vec::as_slice);
            assert_eq!(head.count, lines.len() as u64, "{head:?}");
            let leaves: Vec<Hash> = lines.iter().map(|(leaf, _)| *leaf).collect();
            assert_eq!(hex(&root(&leaves)), head.root);
            assert_eq!(Some(&head.previous), self.first.get(&head.segment));
            previous = hex(hash);
        }
        if let Some((segment, first)) = self.first.last_key_value() {
            let sealed = self.heads.last().map_or(0, |(head, _)| head.segment);
            assert!(
                *segment <= sealed || *first == previous,
                "the open segment names the last head"
            );
        }
    }
}

#[test]
fn a_restart_continues_the_segment() {
    let path = folder("restart").join("audit.jsonl");
    for start in 0..4 {
        let writer = open(&path, |_| {});
        assert_eq!("", writer.health().chain_damage);
        assert_eq!(
            (1, u64::from(start) * 5),
            (writer.health().segment, writer.health().segment_lines)
        );
        append(&writer, start * 5..start * 5 + 5);
        writer.close();
        let (head, _) = read_head(&writer.health().head);
        assert_eq!((1, u64::from(start) * 5 + 5, false), (head.segment, head.count, head.sealed));
    }
    let log = read(&path);
    log.check();
    assert_eq!((0..20).collect::<Vec<u64>>(), log.numbers());
}

/// The last lines before a pause get their head, although no line follows.
#[test]
fn an_idle_writer_renews_the_head() {
    let path = folder("idle").join("audit.jsonl");
    let writer = open(&path, |chain| chain.head_interval = Duration::from_millis(200));
    append(&writer, 0..3);
    let deadline = Instant::now() + Duration::from_secs(30);
    while read_head(&writer.health().head).0.count < 3 {
        assert!(Instant::now() < deadline, "{:?}", writer.health());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(
        writer.health().head,
        std::fs::read_to_string(format!("{}.head", path.display())).unwrap()
    );
}

#[test]
fn a_full_segment_ends_with_a_head() {
    let path = folder("size").join("audit.jsonl");
    let small = |chain: &mut ChainSettings| chain.max_segment_bytes = 1_000;
    let writer = open(&path, small);
    append(&writer, 0..50);
    writer.close();
    append(&open(&path, small), 50..60);
    let log = read(&path);
    log.check();
    assert_eq!((0..60).collect::<Vec<u64>>(), log.numbers());
    assert!(log.heads.len() >= 5, "{}", log.heads.len());
    assert!(log.heads.iter().all(|(head, _)| head.sealed && head.node == "n1"));
    assert!(std::fs::metadata(&path).unwrap().len() < 1_200);
    assert!(path.with_file_name("audit.jsonl.00000001").exists());
}

#[test]
fn dropped_segments_leave_their_heads() {
    let path = folder("keep").join("audit.jsonl");
    let writer = open(&path, |chain| {
        chain.max_segment_bytes = 1_000;
        chain.keep_segments = Some(2);
    });
    append(&writer, 0..60);
    writer.close();
    let log = read(&path);
    let heads = log.heads.len() as u64;
    assert!(heads >= 5);
    let segments: Vec<u64> = log.segments.keys().copied().collect();
    assert_eq!(vec![heads - 1, heads, heads + 1], segments);
}

#[test]
fn an_old_segment_ends() {
    let path = folder("age").join("audit.jsonl");
    let writer = open(&path, |chain| chain.max_segment_age = Duration::from_millis(50));
    append(&writer, 0..3);
    std::thread::sleep(Duration::from_millis(60));
    append(&writer, 3..5);
    writer.close();
    let log = read(&path);
    log.check();
    assert_eq!(1, log.heads.len());
    assert_eq!((0..5).collect::<Vec<u64>>(), log.numbers());
}

#[test]
fn a_file_that_is_moved_or_emptied_ends_its_segment() {
    let folder = folder("moved");
    let path = folder.join("audit.jsonl");
    let writer = open(&path, |_| {});
    append(&writer, 0..5);
    std::fs::rename(&path, folder.join("audit.jsonl.old")).unwrap();
    append(&writer, 5..8);
    std::fs::copy(&path, folder.join("audit.jsonl.older")).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    append(&writer, 8..10);
    writer.close();
    let log = read(&path);
    log.check();
    assert_eq!(2, log.heads.len());
    assert_eq!((0..10).collect::<Vec<u64>>(), log.numbers());
}

/// The newest head tells how many lines there were, so that a file that is gone is missed.
#[test]
fn a_file_that_is_moved_while_nobody_writes_leaves_its_newest_head() {
    let folder = folder("away");
    let path = folder.join("audit.jsonl");
    let writer = open(&path, |_| {});
    append(&writer, 0..5);
    writer.close();
    std::fs::rename(&path, folder.join("audit.jsonl.old")).unwrap();
    let writer = open(&path, |_| {});
    assert_eq!(("", 2), (writer.health().chain_damage.as_str(), writer.health().segment));
    append(&writer, 5..7);
    writer.close();
    let log = read(&path);
    log.check();
    assert_eq!((5, false), (log.heads[0].0.count, log.heads[0].0.sealed));
    assert_eq!((0..7).collect::<Vec<u64>>(), log.numbers());
}

/// A node that is killed right after another program moved its file does not use the number of the segment again.
#[test]
fn a_segment_that_was_moved_before_its_first_sync_keeps_its_number() {
    let folder = folder("killed");
    let path = folder.join("audit.jsonl");
    let writer = open(&path, |chain| chain.head_interval = Duration::from_secs(3_600));
    append(&writer, 0..3);
    let state: Vec<_> = [".head", ".heads"]
        .map(|suffix| {
            let file = PathBuf::from(format!("{}{suffix}", path.display()));
            let bytes = std::fs::read(&file).ok();
            (file, bytes)
        })
        .into();
    std::fs::rename(&path, folder.join("audit.jsonl.moved")).unwrap();
    writer.close();
    // What the kill leaves: the heads as they stood when the file was moved.
    for (file, bytes) in state {
        match bytes {
            Some(bytes) => std::fs::write(file, bytes).unwrap(),
            None => drop(std::fs::remove_file(file)),
        }
    }
    drop(std::fs::remove_file(&path));
    let writer = open(&path, |_| {});
    assert_eq!(2, writer.health().segment);
    append(&writer, 3..5);
    writer.close();
    let log = read(&path);
    assert_eq!((0..5).collect::<Vec<u64>>(), log.numbers());
}

#[test]
fn damage_is_told_at_the_start() {
    type Change = fn(&mut Vec<u8>);
    let damages: [(&str, Change, &str); 5] = [
        (
            "tail",
            |bytes| {
                let at = line_start(bytes, 3);
                bytes.truncate(at);
            },
            "the last 2 lines of segment 1",
        ),
        (
            "bit",
            |bytes| {
                let at = line_start(bytes, 1) + 5;
                bytes[at] ^= 1;
            },
            "line 3 does not continue",
        ),
        (
            "dropped",
            |bytes| {
                let at = line_start(bytes, 1);
                drop(bytes.drain(..at));
            },
            "line 1 does not continue",
        ),
        (
            "last",
            |bytes| {
                let at = line_start(bytes, 4) + br#"{"n":"#.len();
                bytes[at] = b'5';
            },
            "not those of",
        ),
        ("foreign", |bytes| bytes.extend(b"{\"n\":9}\n"), "line 6 does not continue"),
    ];
    for (name, change, expected) in damages {
        let path = folder(name).join("audit.jsonl");
        let writer = open(&path, |_| {});
        append(&writer, 0..5);
        writer.close();
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let writer = open(&path, |_| {});
        let health = writer.health();
        assert!(health.chain_damage.contains(expected), "{name}: {}", health.chain_damage);
        append(&writer, 10..12);
        writer.close();
        // What is written afterwards is whole, and the next start says so.
        assert_eq!(2, open(&path, |_| {}).health().segment_lines, "{name}");
    }
}

fn line_start(bytes: &[u8], number: usize) -> usize {
    let feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    feeds.map(|(at, _)| at + 1).nth(number - 1).unwrap()
}

#[test]
fn a_torn_line_is_cut_and_the_chain_goes_on() {
    let path = folder("torn").join("audit.jsonl");
    let writer = open(&path, |_| {});
    append(&writer, 0..3);
    writer.close();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(br#"{"n":3,"chain":{"segm"#);
    std::fs::write(&path, bytes).unwrap();
    let writer = open(&path, |_| {});
    assert_eq!(("", 21), (writer.health().chain_damage.as_str(), writer.health().torn_bytes));
    append(&writer, 3..6);
    writer.close();
    let log = read(&path);
    log.check();
    assert_eq!((0..6).collect::<Vec<u64>>(), log.numbers());
}

#[test]
fn lines_from_before_the_chain_are_no_damage() {
    let path = folder("before").join("audit.jsonl");
    std::fs::write(&path, "{\"n\":1}\n{\"n\":2}\n").unwrap();
    let writer = open(&path, |_| {});
    append(&writer, 3..5);
    writer.close();
    assert_eq!("", open(&path, |_| {}).health().chain_damage);
}

/// A line that is not a JSON object has no place for its link.
#[test]
fn other_lines_are_refused() {
    let path = folder("other").join("audit.jsonl");
    let writer = open(&path, |_| {});
    for line in [b"text".as_slice(), b"[1]", b"", b"{\"a\":1} "] {
        assert!(writer.submit(line, Durability::Queued).is_err());
    }
    append(&writer, 0..1);
    writer.close();
    read(&path).check();
}

/// Many threads, and a file that is moved away at any moment: no acknowledged line is lost, and the chain holds.
#[test]
fn many_threads_and_rotations() {
    let folder = folder("churn");
    let path = folder.join("audit.jsonl");
    let writer = open(&path, |chain| chain.max_segment_bytes = 4_000);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let writer = &writer;
            scope.spawn(move || {
                for number in thread * 100..thread * 100 + 100 {
                    let line = format!(r#"{{"n":{number}}}"#);
                    // The writer may refuse a line while its file is moved away again and again.
                    while writer.append(line.as_bytes(), true, later()).is_err() {}
                }
            });
        }
        let path = &path;
        let folder = &folder;
        scope.spawn(move || {
            for number in 0..10 {
                std::thread::sleep(Duration::from_millis(10));
                drop(std::fs::rename(path, folder.join(format!("audit.jsonl.moved-{number}"))));
            }
        });
    });
    writer.close();
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        if !file.to_str().unwrap().contains("head") {
            for line in std::fs::read_to_string(file).unwrap().lines() {
                let value: Value = serde_json::from_str(line).unwrap();
                numbers.push(value["n"].as_u64().unwrap());
            }
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((0..400).collect::<Vec<u64>>(), numbers);
    assert_eq!("", open(&path, |_| {}).health().chain_damage);
}
