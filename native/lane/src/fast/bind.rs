//! Binds the sockets of listeners.

use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use authz_state::place;

use super::accept::Bound;
use super::settings::FastListener;
use crate::error::EngineError;

/// File of a unix socket that this process has bound.
#[derive(Debug)]
pub(super) struct OwnSocket {
    path: PathBuf,
    /// Device and inode. `None`: the file was gone at once.
    file: Option<(u64, u64)>,
}

impl OwnSocket {
    pub(super) fn of(path: PathBuf) -> Self {
        Self { file: identity_of(&path), path }
    }

    /// Removes the file, unless another file has taken its place.
    pub(super) fn remove(&self) {
        if self.file.is_some() && identity_of(&self.path) == self.file {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

pub(super) fn bind(listener: &FastListener) -> Result<(String, Bound), EngineError> {
    let failed = |source: std::io::Error| EngineError::Bind {
        listener: listener.name.clone(),
        address: listener.address.clone(),
        source,
    };
    if let Some(path) = listener.address.strip_prefix("unix:") {
        if listener.tls.is_some() {
            return Err(EngineError::Invalid(format!(
                "fast lane listener `{}`: a unix socket has no TLS; remove `tls`",
                listener.name
            )));
        }
        place::check_folders(Path::new(path)).map_err(failed)?;
        remove_stale(Path::new(path)).map_err(failed)?;
        let socket = StdUnixListener::bind(path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        return Ok((listener.address.clone(), Bound::Unix(socket)));
    }
    let socket = StdTcpListener::bind(&listener.address).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?.to_string();
    Ok((address, Bound::Tcp(socket)))
}

/// Removes a socket on which no process listens any more. Any other file at the path stays.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let (is_socket, is_ours) = match std::fs::symlink_metadata(path) {
        Ok(metadata) => (metadata.file_type().is_socket(), place::is_ours(&metadata)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // A socket of another user stays, and the address is then in use.
    if is_socket
        && is_ours
        && let Err(error) = std::os::unix::net::UnixStream::connect(path)
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        return std::fs::remove_file(path);
    }
    Ok(())
}
