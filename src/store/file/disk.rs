//! One client's files: the record, replaced as a whole, and the lock beside it. All of it blocks.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::atomic_file::Pending;
use crate::store::record::LARGEST;
use crate::token::ports::StoreError;

/// A link is not followed out of the directory, and a pipe is not waited for.
const PLAINLY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// How often a lock file that is replaced under our hands is tried again.
const TRIES: u32 = 3;

/// Where a client's files lie.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    record: PathBuf,
    lock: PathBuf,
    temporary: PathBuf,
}

/// Which state of the record's file was seen. It is replaced and never written into, so another
/// content is another file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stamp {
    /// There is none.
    #[default]
    Absent,
    /// It cannot be told.
    Unknown,
    /// This one.
    Present {
        device: u64,
        inode: u64,
        modified: (i64, i64),
        size: u64,
    },
}

/// A record's file as it was read.
#[derive(Debug)]
pub(super) struct Content {
    /// All of it; a file that is too large is cut behind [`LARGEST`], where it opens no more.
    pub(super) bytes: Vec<u8>,
    /// Whether other users may read or write it.
    pub(super) exposed: bool,
}

/// The lock, held until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Disk {
    /// The files of the client that is called `name`, in `directory`.
    pub(super) fn new(directory: PathBuf, name: &str) -> Disk {
        Disk {
            record: directory.join(format!("{name}.json")),
            lock: directory.join(format!("{name}.lock")),
            temporary: directory.join(format!("{name}.tmp")),
            directory,
        }
    }

    /// The record's file.
    pub(super) fn record(&self) -> &Path {
        &self.record
    }

    /// Makes the directory, closed to others, if there is none. Gives whether other users may read
    /// it or write into it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn prepare(&self) -> io::Result<bool> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        Ok(is_exposed(&fs::metadata(&self.directory)?))
    }

    /// The record's file, if there is one, and which it is, even if it cannot be read.
    pub(super) fn read(&self) -> (Stamp, Result<Option<Content>, StoreError>) {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags())
            .open(&self.record);
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound && self.directory.is_dir() => {
                return (Stamp::Absent, Ok(None));
            }
            Err(e) => {
                let is_link = fs::symlink_metadata(&self.record).is_ok_and(|m| m.is_symlink());
                let fault = if is_link {
                    self.no_file()
                } else {
                    self.fault("read", &self.record, &e)
                };
                return (self.stamp(), Err(fault));
            }
        };
        match file.metadata() {
            Ok(metadata) => (stamp(&metadata), self.content(file, &metadata).map(Some)),
            Err(e) => (Stamp::Unknown, Err(self.fault("read", &self.record, &e))),
        }
    }

    /// Which record's file there is now.
    pub(super) fn stamp(&self) -> Stamp {
        match fs::symlink_metadata(&self.record) {
            Ok(metadata) => stamp(&metadata),
            Err(e) if e.kind() == ErrorKind::NotFound => Stamp::Absent,
            Err(_) => Stamp::Unknown,
        }
    }

    /// Takes the lock; `None` if another has it.
    ///
    /// # Errors
    /// [`StoreError`] if there is no way to take it.
    pub(super) fn lock(&self) -> Result<Option<Lock>, StoreError> {
        let fault = |e: &io::Error| self.fault("locked", &self.lock, e);
        for _ in 0..TRIES {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(flags())
                .open(&self.lock)
                .map_err(|e| fault(&e))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(fault(&e.into())),
            }
            let lock = Lock(file);
            if self.is_in_place(&lock) {
                return Ok(Some(lock));
            }
        }
        Err(self.lost())
    }

    /// Replaces the record's file, which is wholly the old or wholly the new one at any moment,
    /// whatever happens to the process or the machine. Gives which it is now.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be replaced or `lock` is no longer the one that counts.
    pub(super) fn replace(&self, lock: &Lock, bytes: &[u8]) -> Result<Stamp, StoreError> {
        if !self.is_in_place(lock) {
            return Err(self.lost());
        }
        // a temporary that is there is left from a process that was killed, for only the lock's
        // holder has one
        Pending::begin(&self.record, &self.temporary)
            .and_then(|pending| pending.put(bytes))
            .map(|metadata| stamp(&metadata))
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

    /// Whether the file that is locked is still the one that others would lock.
    fn is_in_place(&self, lock: &Lock) -> bool {
        let ours = lock.0.metadata().map(|m| (m.dev(), m.ino())).ok();
        let there = fs::symlink_metadata(&self.lock).map(|m| (m.dev(), m.ino()));
        ours.is_some() && ours == there.ok()
    }

    fn no_file(&self) -> StoreError {
        let path = self.record.display();
        StoreError::Away(format!("{path} is not a file; remove it"))
    }

    fn lost(&self) -> StoreError {
        let path = self.lock.display();
        StoreError::Away(format!(
            "{path} was removed or replaced while it was locked; leave it where it is"
        ))
    }

    /// `path` cannot be dealt with because of `e`.
    fn fault(&self, dealt_with: &str, path: &Path, e: &io::Error) -> StoreError {
        let directory = self.directory.display();
        let remedy = match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                format!("create the directory {directory}, owned by this program's user, mode 0700")
            }
            ErrorKind::PermissionDenied => {
                format!("let {directory} and the files in it belong to this program's user")
            }
            ErrorKind::ReadOnlyFilesystem => format!("mount {directory} for writing"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                format!("make room in {directory}")
            }
            ErrorKind::Unsupported => {
                format!("use a file system that can lock files in place of that of {directory}")
            }
            _ => format!("see what is wrong with the file system of {directory}"),
        };
        StoreError::Away(format!(
            "{} cannot be {dealt_with}: {e}; {remedy}",
            path.display()
        ))
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp::Present {
        device: metadata.dev(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        size: metadata.size(),
    }
}

fn is_exposed(metadata: &Metadata) -> bool {
    metadata.mode() & 0o006 != 0
}

fn flags() -> i32 {
    PLAINLY.bits().cast_signed()
}
