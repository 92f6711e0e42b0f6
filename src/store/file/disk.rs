//! One client's files: the record, replaced as a whole, and the lock file. All operations block.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::atomic_file::Pending;
use crate::store::record::LARGEST;
use crate::token::ports::StoreError;

/// Does not follow symlinks out of the directory and does not wait for pipes.
const PLAINLY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// How often locking is retried if the lock file is replaced meanwhile.
const TRIES: u32 = 3;

/// The paths of a client's files.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    record: PathBuf,
    lock: PathBuf,
    /// A new lock file that replaces one held beyond its lease.
    next_lock: PathBuf,
    temporary: PathBuf,
}

/// The record's file as read.
#[derive(Debug)]
pub(super) struct Content {
    /// The content; a file that is too large is truncated after [`LARGEST`], so that it does not
    /// open.
    pub(super) bytes: Vec<u8>,
    /// Whether other users can read or write it.
    pub(super) exposed: bool,
}

/// The lock, held until this is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Disk {
    /// Returns the paths of the client called `name` in `directory`.
    pub(super) fn new(directory: PathBuf, name: &str) -> Disk {
        Disk {
            record: directory.join(format!("{name}.json")),
            lock: directory.join(format!("{name}.lock")),
            next_lock: directory.join(format!("{name}.lock-next")),
            temporary: directory.join(format!("{name}.tmp")),
            directory,
        }
    }

    /// The record's path.
    pub(super) fn record(&self) -> &Path {
        &self.record
    }

    /// Creates the directory, closed to other users, if it does not exist. Returns whether other
    /// users can read or write it.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn prepare(&self) -> io::Result<bool> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        Ok(is_exposed(&fs::metadata(&self.directory)?))
    }

    /// Reads the record's file and its [`Disk::version`]; the version also if reading fails.
    pub(super) fn read(&self) -> (String, Result<Option<Content>, StoreError>) {
        let read = open(&self.record).and_then(|file| Ok((file.metadata()?, file)));
        match read {
            Ok((metadata, file)) => (version(&metadata), self.content(file, &metadata).map(Some)),
            Err(e) if e.kind() == ErrorKind::NotFound && self.directory.is_dir() => {
                (String::new(), Ok(None))
            }
            // a symlink
            Err(e) if Errno::from_io_error(&e) == Some(Errno::LOOP) => {
                (self.version(), Err(self.no_file()))
            }
            Err(e) => (self.version(), Err(self.fault("read", &self.record, &e))),
        }
    }

    /// The current version of the record's file, by device, inode, modification time and size;
    /// empty if there is no file, or it cannot be determined. The file is replaced and never
    /// written in place, so new content is a new file.
    pub(super) fn version(&self) -> String {
        fs::symlink_metadata(&self.record).map_or(String::new(), |metadata| version(&metadata))
    }

    /// Acquires the lock and writes the unique text `owner` into it; `None` if another process
    /// holds it.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be acquired.
    pub(super) fn lock(&self, owner: &str) -> Result<Option<Lock>, StoreError> {
        for _ in 0..TRIES {
            let Some(lock) = self.lock_file(&self.lock)? else {
                return Ok(None);
            };
            if self.is_in_place(&lock) {
                self.sign(&lock, owner)?;
                return Ok(Some(lock));
            }
        }
        Err(StoreError::Unavailable(self.lock_lost()))
    }

    /// The lock's owner, as written into it; empty if it cannot be read.
    pub(super) fn owner(&self) -> String {
        let mut owner = String::new();
        // a file that is not text has no owner
        let _ = open(&self.lock).and_then(|file| file.take(256).read_to_string(&mut owner));
        owner
    }

    /// Takes the lock over from the owner `before`, which holds it beyond its lease: a new file
    /// replaces it, so that the old one no longer counts. `None` if another process was faster.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be taken over.
    pub(super) fn take_over(&self, before: &str, owner: &str) -> Result<Option<Lock>, StoreError> {
        let Some(lock) = self.lock_file(&self.next_lock)? else {
            return Ok(None);
        };
        if self.owner() != before {
            return Ok(None);
        }
        self.sign(&lock, owner)?;
        fs::rename(&self.next_lock, &self.lock)
            .map_err(|e| self.fault("locked", &self.lock, &e))?;
        Ok(self.is_in_place(&lock).then_some(lock))
    }

    /// Opens and locks the file at `path`; `None` if another process has locked it.
    fn lock_file(&self, path: &Path) -> Result<Option<Lock>, StoreError> {
        let fault = |e: &io::Error| self.fault("locked", path, e);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags())
            .open(path)
            .map_err(|e| fault(&e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(fault(&e.into())),
        }
    }

    fn sign(&self, lock: &Lock, owner: &str) -> Result<(), StoreError> {
        let mut file = &lock.0;
        let signed = file
            .set_len(0)
            .and_then(|()| file.write_all(owner.as_bytes()));
        signed.map_err(|e| self.fault("written", &self.lock, &e))
    }

    /// Replaces the record's file atomically, even if the process or the machine crashes. Returns
    /// its new version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if `lock` no longer counts, otherwise [`StoreError::Unavailable`].
    pub(super) fn replace(&self, lock: &Lock, bytes: &[u8]) -> Result<String, StoreError> {
        if !self.is_in_place(lock) {
            return Err(StoreError::Conflict(self.lock_lost()));
        }
        // only the lock's holder has a temporary file, so an existing one is left from a killed
        // process
        Pending::begin(&self.record, &self.temporary)
            .and_then(|pending| pending.put(bytes))
            .map(|metadata| version(&metadata))
            .map_err(|e| self.fault("written", &self.record, &e))
    }

    fn content(&self, file: File, metadata: &Metadata) -> Result<Content, StoreError> {
        if !metadata.is_file() {
            return Err(self.no_file());
        }
        let mut bytes = Vec::new();
        file.take(LARGEST as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| self.fault("read", &self.record, &e))?;
        Ok(Content {
            bytes,
            exposed: is_exposed(metadata),
        })
    }

    /// Returns whether the locked file is still the one that others would lock.
    fn is_in_place(&self, lock: &Lock) -> bool {
        let ours = lock.0.metadata().map(|m| (m.dev(), m.ino())).ok();
        let there = fs::symlink_metadata(&self.lock).map(|m| (m.dev(), m.ino()));
        ours.is_some() && ours == there.ok()
    }

    fn no_file(&self) -> StoreError {
        let path = self.record.display();
        StoreError::Unavailable(format!("{path} is not a file; remove it"))
    }

    fn lock_lost(&self) -> String {
        let path = self.lock.display();
        format!(
            "{path} was replaced while it was locked: this process stood still beyond its lease, or the file was removed; if it was removed, leave it where it is"
        )
    }

    /// The error for an operation on `path` that failed with `e`.
    fn fault(&self, dealt_with: &str, path: &Path, e: &io::Error) -> StoreError {
        let directory = self.directory.display();
        let remedy = match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                format!("create the directory {directory}, owned by this program's user, mode 0700")
            }
            ErrorKind::PermissionDenied => {
                format!("make this program's user the owner of {directory} and its files")
            }
            ErrorKind::ReadOnlyFilesystem => format!("mount {directory} for writing"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                format!("free space in {directory}")
            }
            ErrorKind::Unsupported => {
                format!("move {directory} to a file system that can lock files")
            }
            _ => format!("check the file system of {directory}"),
        };
        StoreError::Unavailable(format!(
            "{} cannot be {dealt_with}: {e}; {remedy}",
            path.display()
        ))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags()).open(path)
}

fn version(file: &Metadata) -> String {
    let (device, inode, size) = (file.dev(), file.ino(), file.size());
    format!(
        "{device} {inode} {}.{} {size}",
        file.mtime(),
        file.mtime_nsec()
    )
}

fn is_exposed(metadata: &Metadata) -> bool {
    metadata.mode() & 0o006 != 0
}

fn flags() -> i32 {
    PLAINLY.bits().cast_signed()
}
