//! Where audit lines go: a regular file, opened for appending and locked for one writer.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::place;

/// Largest tail that is searched for the end of the last whole line.
const MAX_TAIL: u64 = 16 * 1024 * 1024;
/// Most side files that are kept for torn lines.
const MAX_SIDE_FILES: u32 = 1000;

/// The disk as the writer uses it; a trait so that tests can make it fail.
pub(crate) trait Medium: Send {
    /// Appends all bytes. After an error part of them may stand in the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended survive a power loss.
    fn sync(&mut self) -> io::Result<()>;
    /// Undoes a partial append, and follows a file that was moved away.
    fn recover(&mut self) -> io::Result<()>;
    /// Returns whether the file is still the one at the path.
    fn is_current(&self) -> bool;
    /// Length of the file in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Moves the file to another path, and begins a new one at its own.
    fn move_to(&mut self, path: &Path) -> io::Result<()>;
    /// Returns whether what was appended last still stands in the file at the path.
    fn holds_all(&self) -> bool;
}

/// The torn last line of an earlier crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) bytes: u64,
    pub(crate) kept_in: PathBuf,
}

pub(crate) struct FileMedium {
    path: PathBuf,
    file: File,
    /// INVARIANT (whole lines): up to here the file holds whole lines.
    whole: u64,
}

impl FileMedium {
    /// Opens or makes the file (mode 0600), locks it, and cuts a torn last line off to a side file.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Option<Torn>)> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = place::open(&mut options, path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("is no regular file, so nothing in it would survive"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("is being written by another process"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let torn = cut_torn_line(path, &mut file)?;
        let whole = file.metadata()?.len();
        // The name itself must survive too.
        if let Some(folder) = path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()?;
        }
        Ok((Self { path: path.to_owned(), file, whole }, torn))
    }
}

impl Medium for FileMedium {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // `copytruncate` of a log rotation makes the file shorter behind our back.
        self.whole = self.file.metadata()?.len();
        self.file.write_all(bytes)?;
        self.whole = self.whole.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn recover(&mut self) -> io::Result<()> {
        if !self.is_current() {
            let (fresh, _) = Self::open(&self.path)?;
            *self = fresh;
            return Ok(());
        }
        if self.file.metadata()?.len() > self.whole {
            self.file.set_len(self.whole)?;
        }
        Ok(())
    }

    fn is_current(&self) -> bool {
        // A link in its place is another file, wherever it leads.
        match (self.file.metadata(), std::fs::symlink_metadata(&self.path)) {
            (Ok(ours), Ok(named)) => ours.dev() == named.dev() && ours.ino() == named.ino(),
            _ => false,
        }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn move_to(&mut self, path: &Path) -> io::Result<()> {
        match std::fs::rename(&self.path, path) {
            // A rotation moved the file away a moment ago: it stands elsewhere already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        let (fresh, _) = Self::open(&self.path)?;
        *self = fresh;
        Ok(())
    }

    fn holds_all(&self) -> bool {
        self.is_current() && self.file.metadata().is_ok_and(|ours| ours.len() >= self.whole)
    }
}

/// Moves the bytes after the last line feed to `<path>.torn-<n>`.
fn cut_torn_line(path: &Path, file: &mut File) -> io::Result<Option<Torn>> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(MAX_TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    if length > 0 {
        // Whole files end in a line feed: one byte says so.
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last == *b"\n" {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(from))?;
        Read::by_ref(file).take(MAX_TAIL).read_to_end(&mut tail)?;
    }
    if tail.is_empty() {
        return Ok(None);
    }
    let keep = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
    if keep == 0 && from > 0 {
        return Err(io::Error::other(
            "ends in more than 16 MiB without a line feed; is it an audit file?",
        ));
    }
    let torn = tail.split_off(keep);
    let kept_in = write_side_file(path, &torn)?;
    file.set_len(from.saturating_add(keep as u64))?;
    file.sync_data()?;
    Ok(Some(Torn { bytes: torn.len() as u64, kept_in }))
}

fn write_side_file(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    for number in 1..=MAX_SIDE_FILES {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".torn-{number}"));
        let name = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name) {
            Ok(mut side) => {
                side.write_all(bytes)?;
                side.sync_all()?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("has 1,000 side files of torn lines; remove them"))
}
