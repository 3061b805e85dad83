//! Files of the journal, as traits, so that a simulation can have them fail.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::Path;

use crate::place;

/// Place of the files of a journal.
pub trait JournalFiles: fmt::Debug + Send + Sync {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no such file, or the disk fails.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Opens a file for writing. Makes it (mode 0600) if it does not exist.
    ///
    /// # Errors
    /// The disk fails.
    fn open(&self, path: &Path) -> io::Result<Box<dyn JournalFile>>;
}

/// An open file of a journal.
pub trait JournalFile: fmt::Debug + Send {
    /// Writes all bytes at an offset. After an error, part of them may stand in the file.
    ///
    /// # Errors
    /// The disk fails or is full.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the written bytes, and the length, survive a loss of power.
    ///
    /// # Errors
    /// The disk fails.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file, or lengthens it with zeros, to a length in bytes.
    ///
    /// # Errors
    /// The disk fails or is full.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Returns the length in bytes.
    ///
    /// # Errors
    /// The disk fails.
    fn byte_len(&self) -> io::Result<u64>;
}

/// Files of the operating system.
#[derive(Clone, Copy, Debug)]
pub(super) struct SystemFiles;

impl JournalFiles for SystemFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn JournalFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(Box::new(place::open(&mut options, path)?))
    }
}

impl JournalFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Self::set_len(self, bytes)
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
