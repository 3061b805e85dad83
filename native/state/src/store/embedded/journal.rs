//! The two files that commits are appended to, until the SQLite file has what they hold.
//!
//! One is written while what the other holds is moved. Each begins with a header: which generation it is of, how many
//! frames the generation before it had, and a random salt. A frame is one batch of commits. Its digest (XXH3, 128 bits)
//! is seeded by the salt and its place, so that neither what an earlier generation left behind in the file is taken for
//! one, nor what somebody had written into a record who cannot read the file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authz_base::record::{RecordKey, RecordKind};
use thiserror::Error;
use twox_hash::XxHash3_128;

use super::batch::{JournalFrame, RecordBatch};
use super::files::{JournalFile, JournalFiles};
use crate::store::outbox::OutboxLine;

const NAMES: [&str; 2] = ["journal-0", "journal-1"];
const MAGIC: [u8; 8] = *b"authzJ02";
const DIGEST_BYTES: usize = 16;
/// Magic, generation, frames of the generation before, salt.
const HEAD_BYTES: usize = 8 + 8 + 8 + 8;
/// The same, and its digest.
const HEADER_BYTES: usize = HEAD_BYTES + DIGEST_BYTES;
/// Header of a frame: length of its payload, and digest.
const FRAME_BYTES: usize = 4 + DIGEST_BYTES;
/// Bytes that a file keeps allocated when it is begun anew: overwriting costs less than growing.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;
/// Room of a piece of a log.
const PIECE_BYTES: usize = 1024 * 1024;
/// A piece takes no more frames where less room than this is left; what is larger makes it grow.
const ROOM_BYTES: usize = 64 * 1024;
/// Most empty pieces whose memory is kept for later frames.
const MAX_SPARE: usize = 16;

/// Content of the files.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// All that was committed since the last checkpoint.
    pub(super) batch: RecordBatch,
    /// The newest generation that there is.
    pub(super) generation: u64,
}

/// Frames that the SQLite file may not have, as they stand in the journal.
///
/// A commit only appends its frame, which costs it nothing more. The checkpoint combines the changes of all frames.
#[derive(Clone, Debug, Default)]
pub(super) struct FrameLog {
    /// Pieces that take nothing more. Each holds whole frames.
    full: Vec<Vec<u8>>,
    /// The piece after them.
    last: Vec<u8>,
    /// Empty pieces.
    spare: Vec<Vec<u8>>,
}

impl FrameLog {
    pub(super) const fn is_empty(&self) -> bool {
        self.full.is_empty() && self.last.is_empty()
    }

    /// Adds what came after it.
    pub(super) fn extend(&mut self, later: Self) {
        for piece in later.full.into_iter().chain([later.last]) {
            if self.last.len().saturating_add(piece.len()) <= PIECE_BYTES {
                self.last.extend_from_slice(&piece);
            } else {
                let full = std::mem::replace(&mut self.last, piece);
                self.full.extend(Some(full).filter(|full| !full.is_empty()));
            }
        }
    }

    /// The piece to which the next frame is added.
    fn room(&mut self) -> &mut Vec<u8> {
        if self.last.len().saturating_add(ROOM_BYTES) > PIECE_BYTES {
            let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES));
            self.full.push(std::mem::replace(&mut self.last, next));
        }
        &mut self.last
    }

    /// Changes of the frames, without their notes about lines that left the outbox.
    ///
    /// # Errors
    /// They are not as they were written.
    pub(super) fn batch(&self) -> Result<RecordBatch, JournalError> {
        let mut all = RecordBatch::default();
        for piece in self.full.iter().chain([&self.last]) {
            let mut rest = JournalCursor(piece);
            while !rest.0.is_empty() {
                let batch = rest.next().and_then(|(_, payload)| read_batch(payload));
                let batch = batch.ok_or(JournalError::Memory)?;
                all.absorb(RecordBatch { synced: None, ..batch });
            }
        }
        Ok(all)
    }

    /// The same log without frames. It keeps the memory of its pieces, except of large ones.
    pub(super) fn emptied(self) -> Self {
        let mut spare = self.spare;
        let used = self.full.into_iter().chain([self.last]);
        spare.extend(used.filter(|piece| piece.capacity() <= PIECE_BYTES));
        spare.truncate(MAX_SPARE);
        spare.iter_mut().for_each(Vec::clear);
        Self { full: Vec::new(), last: spare.pop().unwrap_or_default(), spare }
    }
}

/// Defect of a journal.
#[derive(Debug, Error)]
pub(super) enum JournalError {
    #[error("`{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}`: is no journal of authz, or damaged", path.display())]
    Foreign { path: PathBuf },
    #[error("`{}`: a commit cannot be read by this version", path.display())]
    Commit { path: PathBuf },
    #[error(
        "the journal is of generation {journal}, the state file of {file}: they do not belong together; \
         restore both from one copy, or remove the journal"
    )]
    Generation { journal: u64, file: u64 },
    #[error("what the journal holds cannot be read again")]
    Memory,
}

/// Both files, one of which is appended to.
#[derive(Debug)]
pub(super) struct Journal {
    current: LogFile,
    other: LogFile,
    generation: u64,
    /// Of this generation.
    salt: u64,
    /// Of this generation.
    frames: u64,
    /// Where the next frame goes.
    end: u64,
    /// Bytes of the other file that the SQLite file may lack.
    held: u64,
    max_bytes: u64,
}

#[derive(Debug)]
struct LogFile {
    file: Box<dyn JournalFile>,
    /// True if a loss of power leaves all that was written.
    is_synced: bool,
    /// True if a loss of power leaves a header.
    has_header: bool,
}

impl Journal {
    /// Reads what was committed after checkpoint `done`.
    ///
    /// # Errors
    /// A file cannot be read, was not written by Authz, or continues another checkpoint.
    pub(super) fn replay(
        files: &dyn JournalFiles,
        folder: &Path,
        done: u64,
    ) -> Result<Replayed, JournalError> {
        let mut found = Vec::new();
        for path in NAMES.map(|name| folder.join(name)) {
            let bytes = match files.read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(JournalError::Read { path, source }),
            };
            // The header is the first that is written, and a file has less only where that never came to an end.
            let Some((header, frames)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
                continue;
            };
            let JournalHeader { generation, before, salt } = JournalHeader::read(header)
                .ok_or_else(|| JournalError::Foreign { path: path.clone() })?;
            let (batch, count) = read_frames(frames, salt).ok_or(JournalError::Commit { path })?;
            found.push((generation, before, batch, count));
        }
        found.sort_by_key(|(generation, ..)| *generation);
        let mut replayed = Replayed { generation: done, ..Replayed::default() };
        let mut last = None;
        for (generation, before, batch, count) in found {
            if generation > done {
                // A file that was restored from a backup must not be continued by a journal that is younger than the backup.
                let is_next = generation == replayed.generation.saturating_add(1);
                if !is_next {
                    return Err(JournalError::Generation { journal: generation, file: done });
                }
                // INVARIANT (prefix): what a loss of power took, it took with all that came after.
                if last.is_none_or(|last| last == before) {
                    replayed.batch.absorb(batch);
                    last = Some(count);
                } else {
                    last = Some(u64::MAX);
                }
            }
            replayed.generation = replayed.generation.max(generation);
        }
        Ok(replayed)
    }

    /// Opens or makes the files, and begins a generation. What they hold is overwritten: a checkpoint has it.
    pub(super) fn open(
        files: &dyn JournalFiles,
        folder: &Path,
        generation: u64,
        max_bytes: u64,
    ) -> io::Result<Self> {
        let [current, other] = NAMES.map(|name| LogFile::open(files, &folder.join(name)));
        let mut journal = Self {
            current: current?,
            other: other?,
            generation: generation.saturating_sub(1),
            salt: 0,
            frames: 0,
            end: HEADER_BYTES as u64,
            held: 0,
            max_bytes,
        };
        journal.rotate()?;
        Ok(journal)
    }

    /// The generation that is appended to.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes of both files that the SQLite file may lack.
    pub(super) const fn bytes(&self) -> u64 {
        self.held.saturating_add(self.end)
    }

    /// Returns whether nothing was appended since the last rotation.
    pub(super) const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Returns whether the file that is not appended to holds nothing that is needed.
    pub(super) const fn has_room(&self) -> bool {
        self.held == 0
    }

    /// Appends a frame. After an error the journal must be [rewound](Self::rewind) before anything else.
    ///
    /// `log` takes the frame as well, unless there is an error.
    ///
    /// # Errors
    /// The disk fails, or the journal is full.
    pub(super) fn append(&mut self, frame: &JournalFrame, log: &mut FrameLog) -> io::Result<()> {
        let log = log.room();
        let before = log.len();
        let appended = self.append_to(frame, log);
        if appended.is_err() {
            log.truncate(before);
        }
        appended
    }

    fn append_to(&mut self, frame: &JournalFrame, log: &mut Vec<u8>) -> io::Result<()> {
        let too_large = || io::Error::other("a commit is too large");
        let before = log.len();
        log.resize(before.saturating_add(FRAME_BYTES), 0);
        write_frame(log, frame).ok_or_else(too_large)?;
        let written = log.get_mut(before..).unwrap_or_default();
        let (head, payload) = written.split_at_mut_checked(FRAME_BYTES).ok_or_else(too_large)?;
        let length = u32::try_from(payload.len()).map_err(|_| too_large())?;
        let digest = digest(self.salt, self.frames, payload);
        let both = length.to_le_bytes().into_iter().chain(digest);
        head.iter_mut().zip(both).for_each(|(to, byte)| *to = byte);
        let end = self.end.saturating_add(written.len() as u64);
        if end > self.max_bytes {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the journal is full"));
        }
        self.current.is_synced = false;
        self.current.file.write_all_at(written, self.end)?;
        if frame.power_loss {
            self.sync()?;
        }
        self.end = end;
        self.frames = self.frames.saturating_add(1);
        Ok(())
    }

    /// Removes what a failed append may have left.
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.current.file.set_len(self.end)?;
        self.current.file.sync()
    }

    /// Begins the next generation in the other file. What this one holds is kept until [`Self::free`].
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
        let header = JournalHeader {
            generation: self.generation.saturating_add(1),
            before: self.frames,
            salt: u64::from_le_bytes(salt),
        };
        if self.other.file.byte_len()? > KEPT_BYTES {
            self.other.file.set_len(KEPT_BYTES)?;
        }
        self.other.is_synced = false;
        self.other.file.write_all_at(&header.written(), 0)?;
        // A loss of power may leave the frames of a new file and not its header, and no journal begins so.
        if !self.other.has_header {
            self.other.file.sync()?;
            (self.other.is_synced, self.other.has_header) = (true, true);
        }
        self.held = if self.frames == 0 { 0 } else { self.end };
        std::mem::swap(&mut self.current, &mut self.other);
        self.generation = header.generation;
        self.salt = header.salt;
        self.frames = 0;
        self.end = HEADER_BYTES as u64;
        Ok(())
    }

    /// The SQLite file has all generations before this one.
    pub(super) const fn free(&mut self) {
        self.held = 0;
    }

    /// Makes all that was appended survive a loss of power.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        // INVARIANT (prefix): nothing survives without what came before it.
        for one in [&mut self.other, &mut self.current] {
            if !one.is_synced {
                one.file.sync()?;
                one.is_synced = true;
            }
        }
        Ok(())
    }
}

impl LogFile {
    fn open(files: &dyn JournalFiles, path: &Path) -> io::Result<Self> {
        let file = files.open(path)?;
        let has_header = file.byte_len()? >= HEADER_BYTES as u64;
        Ok(Self { file, is_synced: true, has_header })
    }
}

/// Digest of a payload at its place in the file.
fn digest(salt: u64, number: u64, payload: &[u8]) -> [u8; DIGEST_BYTES] {
    XxHash3_128::oneshot_with_seed(salt.wrapping_add(number), payload).to_le_bytes()
}

/// Begin of a file.
struct JournalHeader {
    generation: u64,
    /// Number of frames of the generation before.
    before: u64,
    salt: u64,
}

impl JournalHeader {
    fn read(header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut rest = JournalCursor(header);
        let mut head = JournalCursor(rest.take(HEAD_BYTES)?);
        let is_whole = rest.0 == digest(0, 0, head.0);
        let is_ours = head.take(MAGIC.len())? == MAGIC;
        let (generation, before, salt) = (head.u64()?, head.u64()?, head.u64()?);
        (is_ours && is_whole).then_some(Self { generation, before, salt })
    }

    fn written(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(MAGIC);
        for number in [self.generation, self.before, self.salt] {
            header.extend(number.to_le_bytes());
        }
        header.extend(digest(0, 0, &header));
        header
    }
}

/// All whole frames as one batch, and their number. `None` if this version cannot read a commit.
fn read_frames(bytes: &[u8], salt: u64) -> Option<(RecordBatch, u64)> {
    let (mut rest, mut all, mut count) = (JournalCursor(bytes), RecordBatch::default(), 0_u64);
    while let Some(payload) = rest.frame(salt, count) {
        all.absorb(read_batch(payload)?);
        count = count.saturating_add(1);
    }
    Some((all, count))
}

fn write_frame(to: &mut Vec<u8>, frame: &JournalFrame) -> Option<()> {
    write_length(to, frame.records.len())?;
    for (key, body) in &frame.records {
        to.extend(key.kind.number().to_le_bytes());
        write_bytes(to, key.id.as_bytes())?;
        to.push(u8::from(body.is_some()));
        write_bytes(to, body.as_deref().unwrap_or_default())?;
    }
    write_length(to, frame.lines.len())?;
    for line in &frame.lines {
        to.extend(line.number.to_le_bytes());
        write_bytes(to, &line.bytes)?;
    }
    // No line has the number 0.
    to.extend(frame.synced.unwrap_or(0).to_le_bytes());
    Some(())
}

fn write_length(to: &mut Vec<u8>, length: usize) -> Option<()> {
    to.extend(u32::try_from(length).ok()?.to_le_bytes());
    Some(())
}

fn write_bytes(to: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    write_length(to, bytes.len())?;
    to.extend_from_slice(bytes);
    Some(())
}

fn read_batch(payload: &[u8]) -> Option<RecordBatch> {
    let mut rest = JournalCursor(payload);
    let mut batch = RecordBatch::default();
    for _ in 0..rest.u32()? {
        let kind = RecordKind::from_number(i16::from_le_bytes(rest.array()?))?;
        let id = std::str::from_utf8(rest.bytes()?).ok()?;
        let is_there = rest.array::<1>()? == [1];
        let body = rest.bytes()?;
        batch.records.insert(RecordKey::new(kind, id), is_there.then(|| Arc::from(body)));
    }
    for _ in 0..rest.u32()? {
        let number = i64::from_le_bytes(rest.array()?);
        batch.lines.push(OutboxLine { number, bytes: rest.bytes()?.to_vec() });
    }
    batch.synced = Some(i64::from_le_bytes(rest.array()?)).filter(|number| *number > 0);
    rest.0.is_empty().then_some(batch)
}

/// The bytes that are not read yet.
struct JournalCursor<'a>(&'a [u8]);

impl<'a> JournalCursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    /// The next frame, which may not be whole: its digest and its content.
    fn next(&mut self) -> Option<([u8; DIGEST_BYTES], &'a [u8])> {
        let length = usize::try_from(self.u32()?).ok()?;
        Some((self.array()?, self.take(length)?))
    }

    /// The next frame; none where it is not whole, which is where the journal ends.
    fn frame(&mut self, salt: u64, number: u64) -> Option<&'a [u8]> {
        let (seal, payload) = self.next()?;
        (seal == digest(salt, number, payload)).then_some(payload)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::store::embedded::batch::Changed;
    use crate::store::embedded::files::SystemFiles;

    /// Commits: keys, texts or none where the record goes, and how many audit lines come with them.
    fn frames() -> impl Strategy<Value = Vec<JournalFrame>> {
        let kind = prop::sample::select(&[RecordKind::Session, RecordKind::Task][..]);
        let text = prop::collection::vec(any::<u8>(), 0..40);
        let record = (kind, "[a-c]{1,2}", prop::option::of(text));
        let commit = (prop::collection::vec(record, 0..4), 0..3_i64);
        prop::collection::vec(commit, 0..8).prop_map(|commits| {
            let mut number = 0;
            let mut frames = Vec::new();
            for (records, lines) in commits {
                let changed = records
                    .into_iter()
                    .map(|(kind, id, text)| (RecordKey::new(kind, id), text.map(Arc::from)));
                let lines = (0..lines).map(|_| {
                    number += 1;
                    OutboxLine { number, bytes: format!("line {number}").into() }
                });
                let records = changed.collect();
                frames.push(JournalFrame {
                    records,
                    lines: lines.collect(),
                    ..JournalFrame::default()
                });
            }
            frames
        })
    }

    fn content(batch: RecordBatch) -> (Vec<Changed>, Vec<(i64, Vec<u8>)>) {
        let mut records: Vec<_> = batch.records.into_iter().collect();
        records.sort();
        (records, batch.lines.into_iter().map(|line| (line.number, line.bytes)).collect())
    }

    proptest! {
        /// What is kept for the checkpoint says what the file says; what was refused is in neither.
        #[test]
        fn what_is_to_be_moved_is_what_was_appended(
            frames in frames(),
            most in prop::option::of(60..400_u64),
        ) {
            let folder = std::env::temp_dir().join(format!("authz-log-{:?}", std::thread::current().id()));
            drop(std::fs::remove_dir_all(&folder));
            std::fs::create_dir_all(&folder).unwrap();
            let mut journal = Journal::open(&SystemFiles, &folder, 1, most.unwrap_or(u64::MAX)).unwrap();
            let (mut log, mut expected) = (FrameLog::default(), RecordBatch::default());
            for frame in frames {
                match journal.append(&frame, &mut log) {
                    Ok(()) => {
                        expected.records.extend(frame.records);
                        expected.lines.extend(frame.lines);
                    }
                    Err(_) => journal.rewind().unwrap(),
                }
            }
            let replayed = Journal::replay(&SystemFiles, &folder, 0).unwrap();
            let expected = content(expected);
            prop_assert_eq!(&expected, &content(log.batch().unwrap()));
            prop_assert_eq!(&expected, &content(replayed.batch));
            let mut twice = log.clone();
            twice.extend(log);
            prop_assert_eq!(&expected.0, &content(twice.batch().unwrap()).0);
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }

    #[test]
    fn a_log_that_was_cut_is_an_error() {
        let mut log = FrameLog { last: vec![9, 0, 0, 0], ..FrameLog::default() };
        assert!(matches!(log.batch(), Err(JournalError::Memory)));
        log.last.clear();
        assert!(log.batch().unwrap().records.is_empty());
    }

    /// Commits from small to larger than a piece are kept in order, when they are added and when a log is added to
    /// another, in no more pieces than they need; the room of all but the largest is used again.
    #[test]
    fn a_log_of_many_pieces() {
        let folder = std::env::temp_dir().join("authz-log-pieces");
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        let mut journal = Journal::open(&SystemFiles, &folder, 1, u64::MAX).unwrap();
        let logs: [&[usize]; 3] = [&[10, 2 * PIECE_BYTES, 900_000], &[990_000, 500_000, 10], &[20]];
        let (mut all, mut number) = (FrameLog::default(), 0);
        for lengths in logs {
            let mut log = FrameLog::default();
            for length in lengths {
                number += 1;
                let line = OutboxLine { number, bytes: vec![b'a'; *length] };
                let frame = JournalFrame { lines: vec![line], ..JournalFrame::default() };
                journal.append(&frame, &mut log).unwrap();
            }
            all.extend(log);
        }
        let batch = all.batch().unwrap();
        let found: Vec<usize> = batch.lines.iter().map(|line| line.bytes.len()).collect();
        assert_eq!(logs.concat(), found);
        assert_eq!(3, all.full.len());
        let next = all.emptied();
        assert!(next.is_empty() && next.last.capacity() > 0);
        assert!(!next.spare.is_empty());
        assert!(next.spare.iter().all(|piece| piece.is_empty() && piece.capacity() > 0));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
