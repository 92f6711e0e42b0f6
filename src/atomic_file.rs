//! A file that only its owner may read, replaced as a whole: at any moment it is the old one or the
//! new one, whatever happens to the process or the machine.
//!
//! Content goes to a temporary file beside it first, which then takes its place. The temporary has
//! one name for each file, so that what a killed process left is found and removed by the next.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// A file's successor in the making. Nothing is left of it if it is dropped.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    done: bool,
}

impl Pending {
    /// Begins a successor of `path`, mode 0600, in `temporary` of the same directory. What stands
    /// there is removed.
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

    /// Lets the successor be read by whoever may read `old`: its mode, its owner and its group.
    ///
    /// # Errors
    /// The system's; only the superuser gives a file away.
    pub fn like(&self, old: &Metadata) -> io::Result<()> {
        let made = self.file.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            fchown(&self.file, Some(old.uid()), Some(old.gid()))?;
        }
        self.file
            .set_permissions(Permissions::from_mode(old.mode() & 0o777))
    }

    /// Writes `bytes` and puts the file in place, so that they outlive a power cut. Gives what the
    /// file is now.
    ///
    /// # Errors
    /// The system's; what stood at the path stands there still.
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
            // what is left of it is in nobody's way
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Removes a file, for good, if it is there.
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

/// Without this a power cut could bring back what a name stood for; not every file system can.
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
