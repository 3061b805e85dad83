//! A disk for the journal of an embedded store: writes fail, are torn, or are lost with the power.
//!
//! The SQLite file is a real file, and is taken to survive everything that SQLite promises.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use authz_state::store::{JournalFile, JournalFiles};

use crate::events::DiskFault;
use crate::faults::FaultKind;
use crate::planted::Bug;
use crate::random::Random;
use crate::store::RunShared;

/// Bytes that a disk writes as a whole.
const SECTOR: usize = 512;

/// A change of a file that a loss of power may take.
#[derive(Clone, Debug)]
enum Unsynced {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
struct SimulatedFile {
    /// What a read sees.
    content: Vec<u8>,
    /// What a loss of power leaves in any case.
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

impl SimulatedFile {
    fn apply(content: &mut Vec<u8>, change: &Unsynced) {
        match change {
            Unsynced::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Unsynced::Length(length) => content.resize(*length, 0),
        }
    }

    fn change(&mut self, change: Unsynced) {
        Self::apply(&mut self.content, &change);
        self.unsynced.push(change);
    }

    /// Leaves of each sector what some of its unsynced writes made of it, the earlier ones first.
    fn lose_power(&mut self, random: &mut Random) {
        let changes: Vec<Unsynced> =
            std::mem::take(&mut self.unsynced).into_iter().flat_map(sectors_of).collect();
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        for change in &changes {
            if let Unsynced::Write { offset, .. } = change {
                *left.entry(offset / SECTOR).or_default() += 1;
            }
        }
        for kept in left.values_mut() {
            *kept = random.below(*kept + 1);
        }
        for change in &changes {
            let is_kept = match change {
                Unsynced::Length(_) => random.one_in(2),
                Unsynced::Write { offset, .. } => {
                    let left = left.get_mut(&(offset / SECTOR)).unwrap();
                    let is_kept = *left > 0;
                    *left = left.saturating_sub(1);
                    is_kept
                }
            };
            if is_kept {
                Self::apply(&mut self.synced, change);
            }
        }
        self.content.clone_from(&self.synced);
    }
}

/// A change, with a write of its own for each sector.
fn sectors_of(change: Unsynced) -> Vec<Unsynced> {
    let Unsynced::Write { offset, bytes } = change else { return vec![change] };
    let mut writes = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + SECTOR - (offset + at) % SECTOR).min(bytes.len());
        writes.push(Unsynced::Write { offset: offset + at, bytes: bytes[at..end].to_vec() });
        at = end;
    }
    writes
}

#[derive(Debug, Default)]
struct DiskState {
    files: BTreeMap<PathBuf, SimulatedFile>,
    is_full: bool,
    has_small_file: bool,
    fails_write: bool,
    fails_sync: bool,
    tears_write: bool,
    /// The process died in the middle of a write.
    is_dead: bool,
}

/// The disk of a node. It outlives the process.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    state: Arc<Mutex<DiskState>>,
    shared: Arc<RunShared>,
    bug: Option<Bug>,
}

impl SimulatedDisk {
    pub fn new(shared: &Arc<RunShared>, bug: Option<Bug>) -> Self {
        Self { state: Arc::default(), shared: Arc::clone(shared), bug }
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap()
    }

    pub fn fail(&self, fault: DiskFault) {
        let mut state = self.lock();
        match fault {
            DiskFault::Full => state.is_full = true,
            DiskFault::SmallFile => state.has_small_file = true,
            DiskFault::FailWrite => state.fails_write = true,
            DiskFault::FailSync => state.fails_sync = true,
            DiskFault::Torn => state.tears_write = true,
        }
    }

    pub fn repair(&self) {
        let mut state = self.lock();
        let files = std::mem::take(&mut state.files);
        *state = DiskState { files, is_dead: state.is_dead, ..DiskState::default() };
    }

    /// True if the SQLite file finds little room from the next start on.
    pub fn has_small_file(&self) -> bool {
        self.lock().has_small_file
    }

    /// True if the process died in a write.
    pub fn is_dead(&self) -> bool {
        self.lock().is_dead
    }

    /// A new process begins.
    pub fn begin_process(&self) {
        let mut state = self.lock();
        (state.is_dead, state.tears_write) = (false, false);
    }

    pub fn lose_power(&self, random: &mut Random) {
        for file in self.lock().files.values_mut() {
            file.lose_power(random);
        }
    }
}

impl JournalFiles for SimulatedDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.lock();
        let file = state.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.content.clone())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn JournalFile>> {
        self.lock().files.entry(path.to_owned()).or_default();
        Ok(Box::new(OpenFile { disk: self.clone(), path: path.to_owned() }))
    }
}

/// Number of bytes that a write of so many leaves if it ends early. A sector is written as a whole or not at all.
const fn torn_at(offset: usize, length: usize) -> usize {
    let end = (offset + length * 2 / 3) / SECTOR * SECTOR;
    end.saturating_sub(offset)
}

/// A file that a process has open.
#[derive(Debug)]
struct OpenFile {
    disk: SimulatedDisk,
    path: PathBuf,
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

impl JournalFile for OpenFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        if state.is_dead {
            return Err(dead());
        }
        let offset = usize::try_from(offset).unwrap();
        let grows = offset + bytes.len() > state.files[&self.path].content.len();
        let (is_torn, fails) = (state.tears_write, state.fails_write);
        let is_full = state.is_full && grows;
        let is_whole = !(is_torn || fails || is_full);
        let kept = if is_whole { bytes } else { &bytes[..torn_at(offset, bytes.len())] };
        let write = Unsynced::Write { offset, bytes: kept.to_vec() };
        state.files.get_mut(&self.path).unwrap().change(write);
        if is_torn {
            state.tears_write = false;
            self.disk.shared.note(FaultKind::WriteTorn);
            // BUG: the disk answers that it wrote all.
            if self.disk.bug == Some(Bug::TornWriteAccepted) {
                return Ok(());
            }
            state.is_dead = true;
            return Err(dead());
        }
        if fails {
            state.fails_write = false;
            self.disk.shared.note(FaultKind::DiskFailed);
            return Err(io::Error::other("simulated"));
        }
        if is_full {
            self.disk.shared.note(FaultKind::DiskFull);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        if state.is_dead {
            return Err(dead());
        }
        if state.fails_sync {
            state.fails_sync = false;
            self.disk.shared.note(FaultKind::DiskFailed);
            return Err(io::Error::other("simulated"));
        }
        // BUG: a sync does nothing.
        if self.disk.bug != Some(Bug::SyncSkipped) {
            let file = state.files.get_mut(&self.path).unwrap();
            file.synced = file.content.clone();
            file.unsynced.clear();
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        if state.is_dead {
            return Err(dead());
        }
        let length = Unsynced::Length(usize::try_from(bytes).unwrap());
        state.files.get_mut(&self.path).unwrap().change(length);
        Ok(())
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[&self.path].content.len() as u64)
    }
}

/// Folder of a run, which is removed at its end.
#[derive(Debug)]
pub struct RunFolder(pub PathBuf);

impl RunFolder {
    pub fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let folder = place.join(format!("authz-simulator-{}-{number}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        Self(folder)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
