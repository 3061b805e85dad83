//! Where files stand that nobody else may replace: the audit, the store, sockets.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid, getgroups};

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;
const MODE: u32 = 0o7777;

/// Owners of trusted folders: root, and the user and the groups of this process.
struct Owner {
    user: u32,
    groups: Vec<u32>,
}

impl Owner {
    fn this() -> io::Result<Self> {
        let mut groups: Vec<u32> = getgroups()?.into_iter().map(|group| group.as_raw()).collect();
        groups.extend([0, getegid().as_raw()]);
        Ok(Self { user: geteuid().as_raw(), groups })
    }

    const fn is(&self, user: u32) -> bool {
        user == 0 || user == self.user
    }
}

/// Checks that nobody else can put another file in the place of one: the folder that it stands in, and each above it,
/// belongs to root or to this process's user and cannot be written by others.
///
/// A folder that a group may write counts as written by others unless the group is one of this process's. In a sticky folder,
/// such as `/tmp`, nobody can replace what belongs to another, so it may stand above; what is opened in it must be ours.
///
/// # Errors
/// The first folder that is not so, from the top.
pub fn check_folders(path: &Path) -> io::Result<()> {
    let owner = Owner::this()?;
    let folder = folder_of(&std::path::absolute(path)?);
    check_chain(&folder, &owner)?;
    // Links on the way stand in folders that were just checked; where they lead is checked too.
    check_chain(&folder.canonicalize()?, &owner)
}

/// Opens a file of which nothing else than the file itself may stand at the path: no link, and no file of another user.
///
/// # Errors
/// As of the system, of [`check_folders`], or since it is a link or another user's.
pub fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    check_folders(path)?;
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let opened = options.custom_flags(flags).open(path);
    let file = opened.map_err(|error| match path.symlink_metadata() {
        Ok(found) if found.is_symlink() => io::Error::other(
            "is a symbolic link, which may lead anywhere; give the path of the file itself",
        ),
        _ => error,
    })?;
    let found = file.metadata()?;
    let owner = Owner::this()?;
    if owner.is(found.uid()) {
        return Ok(file);
    }
    Err(io::Error::other(format!(
        "belongs to user {}; chown it to user {}, or use another path",
        found.uid(),
        owner.user
    )))
}

/// Returns whether something belongs to root or to the user of this process.
#[must_use]
pub fn is_ours(metadata: &std::fs::Metadata) -> bool {
    let user = metadata.uid();
    user == 0 || user == geteuid().as_raw()
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or_else(|| Path::new("/")).to_owned()
}

fn check_chain(folder: &Path, owner: &Owner) -> io::Result<()> {
    let mut all: Vec<&Path> = folder.ancestors().collect();
    all.reverse();
    for folder in all {
        check(folder, owner)?;
    }
    Ok(())
}

fn check(folder: &Path, owner: &Owner) -> io::Result<()> {
    let shown = folder.display();
    let found = folder
        .metadata()
        .map_err(|error| io::Error::new(error.kind(), format!("folder `{shown}`: {error}")))?;
    let mode = found.mode() & MODE;
    if !owner.is(found.uid()) {
        return Err(io::Error::other(format!(
            "folder `{shown}` belongs to user {}, who could replace the file; chown it to root or to user {}, or use another \
             folder",
            found.uid(),
            owner.user
        )));
    }
    let is_written = mode & OTHERS_WRITE != 0
        || (mode & GROUP_WRITES != 0 && !owner.groups.contains(&found.gid()));
    if is_written && mode & STICKY == 0 {
        return Err(io::Error::other(format!(
            "folder `{shown}` can be written by others (mode {mode:04o}), who could replace the file; chmod go-w it, or use \
             another folder"
        )));
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs::{Permissions, create_dir_all, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn place(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("authz-place-{}-{name}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        create_dir_all(folder.join("above/inner")).unwrap();
        folder
    }

    fn chmod(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn opened(path: &Path) -> Result<File, String> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        open(&mut options, path).map_err(|error| error.to_string())
    }

    /// Each folder of the way counts; a sticky one may be written by all.
    #[test]
    fn folders() {
        let folder = place("folders");
        let (above, inner) = (folder.join("above"), folder.join("above/inner"));
        let file = inner.join("file");
        for (mode, is_good) in [
            (0o755, true),
            (0o700, true),
            (0o1777, true),
            (0o777, false),
            (0o757, false),
            (0o2777, false),
        ] {
            for written in [&above, &inner] {
                chmod(written, mode);
                let found = opened(&file);
                assert_eq!(is_good, found.is_ok(), "{mode:o} {}: {found:?}", written.display());
                if let Err(said) = found {
                    let path = format!("folder `{}` can be written by others", written.display());
                    assert!(said.starts_with(&path), "{said}");
                    assert!(said.contains(&format!("(mode {mode:04o})")), "{said}");
                    assert!(said.contains("chmod go-w"), "{said}");
                }
                chmod(written, 0o755);
            }
        }
        // A group that this process is in may write, another may not.
        chmod(&inner, 0o775);
        assert!(opened(&file).is_ok());
        if geteuid().is_root() {
            chown(&inner, None, Some(54_321)).unwrap();
            assert!(opened(&file).unwrap_err().contains("can be written by others (mode 0775)"));
            chown(&inner, Some(54_321), Some(0)).unwrap();
            assert!(opened(&file).unwrap_err().contains("belongs to user 54321"));
            chown(&inner, Some(0), None).unwrap();
            chown(&file, Some(54_321), None).unwrap();
            assert!(opened(&file).unwrap_err().starts_with("belongs to user 54321; chown it"));
        }
    }

    /// A link to a file is not followed, also where it leads nowhere. A link to a folder is, if the folder is as it must be.
    #[test]
    fn links() {
        let folder = place("links");
        let (above, inner) = (folder.join("above"), folder.join("above/inner"));
        write(above.join("secret"), "kept").unwrap();
        symlink(above.join("secret"), inner.join("file")).unwrap();
        symlink(above.join("nowhere"), inner.join("dangling")).unwrap();
        for name in ["file", "dangling"] {
            assert!(opened(&inner.join(name)).unwrap_err().starts_with("is a symbolic link"));
        }
        assert!(!above.join("nowhere").exists());
        symlink(&inner, folder.join("short")).unwrap();
        assert!(opened(&folder.join("short/other")).is_ok());
        chmod(&above, 0o777);
        let said = opened(&folder.join("short/other")).unwrap_err();
        assert!(said.contains(&format!("folder `{}` can be written", above.display())), "{said}");
    }
}
