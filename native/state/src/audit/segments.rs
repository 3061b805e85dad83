//! Segments of an audit log: where the chain of lines goes on after a start, when a segment ends, and its heads.
//!
//! Files beside the audit file `<path>`: `<path>.heads` has the last head of each segment that ended, and is kept for ever;
//! `<path>.head` has the newest head of the segment that is being written; `<path>.<segment>` are segments that ended.
//! `<path>.head.<segment>` is a head to which the log did not fit at a start.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_base::hex::hex;
use authz_base::rfc3339;

use super::chain::{Chain, Link};
use super::head::{Head, HeadSigner, SignedHead};
use super::merkle::NodeHash;
use crate::place;
use crate::time::{now, wall_clock_ms};

/// Most bytes that are read of the end of the heads.
const MAX_HEADS_TAIL: u64 = 64 * 1024;
/// Most bytes of a line that can be read back.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// Settings of the chain of an audit log.
#[derive(Clone, Debug)]
pub struct ChainSettings {
    /// Name of the node in heads.
    pub node: String,
    /// Signs heads. Default: heads are not signed.
    pub signer: Option<Arc<dyn HeadSigner + Sync>>,
    /// A segment ends at this size in bytes, or soon after.
    pub max_segment_bytes: u64,
    /// A segment ends at this age of its first line in this process.
    pub max_segment_age: Duration,
    /// Interval at which the head of the segment that is being written is renewed.
    pub head_interval: Duration,
    /// Number of ended segments that are kept. Default: all.
    pub keep_segments: Option<usize>,
}

impl ChainSettings {
    /// Settings with defaults: no signature, 256 MiB or a day for each segment, a head every ten seconds, all segments kept.
    #[must_use]
    pub fn new(node: String) -> Self {
        Self {
            node,
            signer: None,
            max_segment_bytes: 256 * 1024 * 1024,
            max_segment_age: Duration::from_secs(24 * 3_600),
            head_interval: Duration::from_secs(10),
            keep_segments: None,
        }
    }
}

/// Chain of an audit file, and its heads.
pub(crate) struct Segments {
    settings: ChainSettings,
    path: PathBuf,
    /// The chain up to the last line that is written.
    chain: Chain,
    /// The chain with the lines that are being written.
    next: Chain,
    /// Hash that the first line of the segment names.
    previous: NodeHash,
    /// Length of the file with all lines that are written.
    length: u64,
    /// Time of the first line that this process wrote into the segment.
    began: Option<Instant>,
    /// Lines in the newest head of the segment. `None`: it has none yet.
    headed: Option<u64>,
    headed_at: Instant,
    /// The newest head; empty before the first.
    pub(crate) newest: String,
    /// Damage of the chain that the start found; empty if there is none.
    pub(crate) damage: String,
}

impl Segments {
    /// Goes on with the chain that stands in the file and in the heads beside it.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(crate) fn open(settings: ChainSettings, path: &Path) -> io::Result<Self> {
        let heads = last_head(&beside(path, ".heads"))?;
        let (sealed, sealed_hash) =
            heads.as_ref().map_or((0, [0; 32]), |(signed, head)| (head.segment, signed.hash()));
        let rolling = match std::fs::read(beside(path, ".head")) {
            Ok(text) => SignedHead::read(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let replayed = replay(path, rolling.as_ref().map(|(_, head)| head))?;
        let mut segments = Self {
            settings,
            path: path.to_owned(),
            chain: Chain::after(sealed.saturating_add(1), sealed_hash),
            next: Chain::after(sealed.saturating_add(1), sealed_hash),
            previous: sealed_hash,
            length: replayed.length,
            began: None,
            headed: None,
            headed_at: now(),
            newest: heads.map_or_else(String::new, |(signed, _)| signed.line()),
            damage: replayed.damage,
        };
        let rolling_segment = rolling.as_ref().map(|(_, head)| head.segment);
        let mut is_lost = false;
        match replayed.open {
            Some((chain, first)) if chain.segment > sealed => {
                if chain.segment == sealed.saturating_add(1) && first != sealed_hash {
                    segments.note_damage("its segment does not follow the last head");
                } else if chain.segment > sealed.saturating_add(1) {
                    segments.note_damage("heads of earlier segments are missing");
                }
                segments.previous = first;
                segments.chain = chain;
            }
            // The file was moved away while the node was down: the newest head is all that is known of its segment.
            _ => is_lost = rolling.as_ref().is_some_and(|(_, head)| head.segment > sealed),
        }
        if is_lost && let Some((signed, head)) = rolling {
            segments.append_head(&signed)?;
            segments.begin(head.segment.saturating_add(1), signed.hash())?;
        } else if let Some((_, head)) = rolling
            && head.segment == segments.chain.segment
            && head.count > segments.chain.tree.count()
        {
            let lost = head.count.saturating_sub(segments.chain.tree.count());
            let text = format!("the last {lost} lines of segment {} are missing", head.segment);
            segments.note_damage(&text);
        }
        if !segments.damage.is_empty()
            && let Some(segment) = rolling_segment
        {
            // The next head would replace the proof of the missing records.
            keep_head(path, segment)?;
        }
        if !segments.damage.is_empty() {
            // The next segment can be proved without the lines before.
            segments.end_segment()?;
        }
        segments.next = segments.chain.clone();
        segments.renew_head(true)?;
        Ok(segments)
    }

    /// Number of the segment that is being written.
    pub(crate) const fn segment(&self) -> u64 {
        self.chain.segment
    }

    /// Number of lines in the segment that is being written.
    pub(crate) const fn count(&self) -> u64 {
        self.chain.tree.count()
    }

    /// True if the newest head lacks lines of the segment.
    pub(crate) fn lacks_head(&self) -> bool {
        self.headed != Some(self.count())
    }

    /// True if the segment has its full size or age.
    pub(crate) fn is_full(&self) -> bool {
        let is_old =
            self.began.is_some_and(|began| began.elapsed() >= self.settings.max_segment_age);
        self.count() > 0 && (is_old || self.length >= self.settings.max_segment_bytes)
    }

    /// Notes that the file at the path has this length now. A shorter file than the one that was written is another one, and
    /// begins a segment.
    ///
    /// # Errors
    /// The head of the segment that ended cannot be written.
    pub(crate) fn follow(&mut self, length: u64) -> io::Result<()> {
        if length < self.length {
            if self.count() > 0 {
                self.end_segment()?;
            }
            self.length = length;
        }
        Ok(())
    }

    /// Appends lines with their places in the chain. They count once [`Segments::commit`] is called.
    pub(crate) fn seal<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
        self.next = self.chain.clone();
        for line in lines {
            self.next.seal(line.strip_suffix(b"\n").unwrap_or(line), out);
        }
    }

    /// Counts the lines that were sealed last: they stand in the file, which has this length.
    pub(crate) fn commit(&mut self, length: u64) {
        self.chain = self.next.clone();
        self.length = length;
        self.began.get_or_insert_with(now);
    }

    /// Ends the segment with a head, which is durable then.
    ///
    /// # Errors
    /// The head cannot be written or signed.
    pub(crate) fn end_segment(&mut self) -> io::Result<()> {
        let head = self.sign_head(true)?;
        self.append_head(&head)?;
        self.begin(self.chain.segment.saturating_add(1), head.hash())
    }

    /// Path of the file of the segment that ended last.
    pub(crate) fn ended_path(&self) -> PathBuf {
        let ended = self.chain.segment.saturating_sub(1);
        let plain = beside(&self.path, &format!(".{ended:08}"));
        let taken = |path: &Path| path.symlink_metadata().is_ok();
        if !taken(&plain) {
            return plain;
        }
        let others = (2..1_000).map(|number| beside(&self.path, &format!(".{ended:08}-{number}")));
        others.into_iter().find(|path| !taken(path)).unwrap_or(plain)
    }

    /// Removes the oldest ended segments beyond the number that is kept. Their heads stay.
    ///
    /// # Errors
    /// A folder cannot be read, or a file not removed.
    pub(crate) fn drop_old(&self) -> io::Result<()> {
        let Some(keep) = self.settings.keep_segments else { return Ok(()) };
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut ended = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?.file_name().to_string_lossy().into_owned();
            let rest = entry.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.'));
            let number = rest.map(|rest| rest.split_once('-').map_or(rest, |(number, _)| number));
            if number.is_some_and(|n| n.len() == 8 && n.bytes().all(|b| b.is_ascii_digit())) {
                ended.push(entry);
            }
        }
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(keep);
        ended.iter().take(surplus).try_for_each(|name| std::fs::remove_file(folder.join(name)))
    }

    /// Renews the newest head where one is due, or `always` where it lacks lines.
    ///
    /// # Errors
    /// The head cannot be written or signed.
    pub(crate) fn renew_head(&mut self, always: bool) -> io::Result<()> {
        let is_due = always || self.headed_at.elapsed() >= self.settings.head_interval;
        if !is_due || !self.lacks_head() {
            return Ok(());
        }
        let head = self.sign_head(false)?;
        let fresh = beside(&self.path, ".head.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = place::open(&mut options, &fresh)?;
        file.write_all(head.line().as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&fresh, beside(&self.path, ".head"))?;
        self.headed = Some(self.count());
        self.headed_at = now();
        self.newest = head.line();
        Ok(())
    }

    fn sign_head(&self, sealed: bool) -> io::Result<SignedHead> {
        let head = Head {
            node: self.settings.node.clone(),
            segment: self.chain.segment,
            count: self.count(),
            root: hex(&self.chain.tree.root()),
            previous: hex(&self.previous),
            at: rfc3339::millis(wall_clock_ms()),
            sealed,
        };
        let signer = self.settings.signer.as_deref().map(|signer| signer as &dyn HeadSigner);
        head.signed(signer).map_err(|error| io::Error::other(format!("head of segment: {error}")))
    }

    fn append_head(&mut self, head: &SignedHead) -> io::Result<()> {
        let path = beside(&self.path, ".heads");
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = place::open(&mut options, &path)?;
        let whole = whole_length(&mut file)?;
        file.set_len(whole)?;
        let mut line = head.line();
        line.push('\n');
        if let Err(error) = file.write_all(line.as_bytes()) {
            file.set_len(whole)?;
            return Err(error);
        }
        file.sync_data()?;
        self.newest = head.line();
        Ok(())
    }

    /// Begins a segment, and stores its first head.
    ///
    /// INVARIANT (one number, one segment): a file that is moved away right after its first line takes all lines of its segment with
    /// it. The stored head tells the next start that the number is used.
    fn begin(&mut self, segment: u64, head: NodeHash) -> io::Result<()> {
        self.chain = Chain::after(segment, head);
        self.next = self.chain.clone();
        self.previous = head;
        self.began = None;
        self.headed = None;
        self.headed_at = now();
        self.renew_head(true)
    }

    fn note_damage(&mut self, text: &str) {
        if !self.damage.is_empty() {
            self.damage.push_str("; ");
        }
        self.damage.push_str(text);
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Keeps the newest head of a segment as `<path>.head.<segment>`, unless one is kept already.
fn keep_head(path: &Path, segment: u64) -> io::Result<()> {
    let kept = beside(path, &format!(".head.{segment:08}"));
    match std::fs::hard_link(beside(path, ".head"), kept) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Length of a file of lines without an unfinished last one, of which the end is read.
fn whole_length(file: &mut File) -> io::Result<u64> {
    let (from, tail) = tail_of(file)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n');
    match whole {
        Some(at) => Ok(from.saturating_add(at as u64).saturating_add(1)),
        None if from == 0 => Ok(0),
        None => Err(io::Error::other("the heads of the audit end in 64 KiB without a line feed")),
    }
}

fn tail_of(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let from = file.metadata()?.len().saturating_sub(MAX_HEADS_TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(MAX_HEADS_TAIL).read_to_end(&mut tail)?;
    Ok((from, tail))
}

/// The last head of a file of heads. `None`: the file is missing or empty.
fn last_head(path: &Path) -> io::Result<Option<(SignedHead, Head)>> {
    let mut options = OpenOptions::new();
    options.read(true);
    let mut file = match place::open(&mut options, path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (_, tail) = tail_of(&mut file)?;
    let mut lines = tail.split(|byte| *byte == b'\n').rev();
    // After the last line feed stands nothing, or a line that a crash left unfinished.
    lines.next();
    match lines.next() {
        None | Some([]) => Ok(None),
        Some(line) => SignedHead::read(line).map(Some).ok_or_else(|| {
            let path = path.display();
            io::Error::other(format!("the last line of `{path}` is not a head; move the file away"))
        }),
    }
}

/// Chain that an audit file holds.
struct ReplayedLog {
    /// The last chain, and the hash that its first line names.
    open: Option<(Chain, NodeHash)>,
    length: u64,
    damage: String,
}

fn replay(path: &Path, head: Option<&Head>) -> io::Result<ReplayedLog> {
    let mut options = OpenOptions::new();
    options.read(true);
    let file = match place::open(&mut options, path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(ReplayedLog { open: None, length: 0, damage: String::new() });
        }
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let mut replayed = ReplayedLog { open: None, length, damage: String::new() };
    let mut line = Vec::new();
    let mut number = 0_u64;
    let mut is_chained = false;
    loop {
        line.clear();
        if (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(replayed);
        }
        number = number.saturating_add(1);
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let link = Link::of(text);
        let first = link.as_ref().filter(|link| link.index == 0);
        if let Some(first) = first
            && let Some(previous) = hash_of(&first.previous)
        {
            replayed.open = Some((Chain::after(first.segment, previous), previous));
        }
        let continues = match (&link, &mut replayed.open) {
            (Some(link), Some((chain, _))) => chain.resume(text, link),
            _ => false,
        };
        if let (Some((chain, _)), Some(head)) = (&replayed.open, head)
            && chain.segment == head.segment
            && chain.tree.count() == head.count
            && hex(&chain.tree.root()) != head.root
            && replayed.damage.is_empty()
        {
            replayed.damage = format!("lines up to line {number} are not those of the newest head");
        }
        // Lines from before the chain was turned on are not damage.
        if !continues && (is_chained || link.is_some()) && replayed.damage.is_empty() {
            replayed.damage = format!("line {number} does not continue the chain");
        }
        is_chained |= continues;
    }
}

fn hash_of(text: &str) -> Option<NodeHash> {
    let mut hash = [0; 32];
    let pairs = text.as_bytes().as_chunks::<2>().0;
    if pairs.len() != hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}
