//! A file readable by its owner only and replaced atomically, even if the process or the machine
//! crashes.
//!
//! Content goes to a temporary file beside it, which is then renamed. Each file has one fixed
//! temporary name, so that the next process finds and removes what a killed one left.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// A replacement that is not in place yet. Dropping it discards it.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    done: bool,
}

impl Pending {
    /// Starts a replacement of `path` with mode 0600, in the file `temporary` of the same
    /// directory. An existing one is removed.
    ///
    /// # Errors
    /// The system's, about the temporary file or its directory.
    pub fn begin(path: &Path, temporary: &Path) -> io::Result<Pending> {
        remove_if_there(temporary)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)?;
        Ok(Pending {
            path: path.to_owned(),
            temporary: temporary.to_owned(),
            file,
            done: false,
        })
    }

    /// Gives the replacement the mode, owner and group of `old`, so that the same users can read
    /// it.
    ///
    /// # Errors
    /// The system's; only root may give a file away.
    pub fn like(&self, old: &Metadata) -> io::Result<()> {
        let made = self.file.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            fchown(&self.file, Some(old.uid()), Some(old.gid()))?;
        }
        self.file
            .set_permissions(Permissions::from_mode(old.mode() & 0o777))
    }

    /// Writes `bytes` and renames the file into place, durably. Returns the new file's metadata.
    ///
    /// # Errors
    /// The system's; the old file then stays in place.
    pub fn put(mut self, bytes: &[u8]) -> io::Result<Metadata> {
        self.file.write_all(bytes)?;
        self.file.sync_all()?;
        let metadata = self.file.metadata()?;
        fs::rename(&self.temporary, &self.path)?;
        self.done = true;
        sync_directory(&self.path);
        Ok(metadata)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            // a leftover is harmless
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Removes a file durably, if it exists.
///
/// # Errors
/// The system's.
pub fn remove(path: &Path) -> io::Result<()> {
    remove_if_there(path)?;
    sync_directory(path);
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Without this, a power failure could restore the old directory entry. Not every file system
/// supports it.
fn sync_directory(path: &Path) {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(directory: &tempfile::TempDir) -> (PathBuf, PathBuf) {
        let path = |name| directory.path().join(name);
        (path("file"), path("file.tmp"))
    }

    #[test]
    fn the_old_file_stands_until_the_new_one_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (path, temporary) = at(&directory);
        fs::write(&path, "old").unwrap();
        fs::write(&temporary, "of a process that was killed").unwrap();
        let pending = Pending::begin(&path, &temporary).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let made = pending.put(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(made.mode() & 0o777, 0o600);
        assert!(!temporary.exists());
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (path, temporary) = at(&directory);
        drop(Pending::begin(&path, &temporary).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn it_may_be_read_by_whom_the_old_one_was_meant_for() {
        let directory = tempfile::tempdir().unwrap();
        let (path, temporary) = at(&directory);
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let pending = Pending::begin(&path, &temporary).unwrap();
        pending.like(&fs::metadata(&path).unwrap()).unwrap();
        pending.put(b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }
}
