//! One client's files: the record, replaced as a whole, and the lock beside it. All of it blocks.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
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
    /// A lock in the making, which takes the place of one that is held beyond its end.
    next_lock: PathBuf,
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
            next_lock: directory.join(format!("{name}.lock-next")),
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

    /// Takes the lock and writes `owner` into it, a text that nobody else writes; `None` if another
    /// has it.
    ///
    /// # Errors
    /// [`StoreError`] if there is no way to take it.
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
        Err(StoreError::Away(self.lost()))
    }

    /// Who has the lock, by the text that was written into it. Empty if that cannot be told.
    pub(super) fn owner(&self) -> String {
        let mut owner = String::new();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags())
            .open(&self.lock);
        if let Ok(file) = opened {
            // what is no text is nobody's
            let _ = file.take(256).read_to_string(&mut owner);
        }
        owner
    }

    /// Takes the lock from the process that wrote `before` into it, and holds it beyond its end:
    /// another file takes its place, so that the old one no longer counts. `None` if another process
    /// has done so already.
    ///
    /// # Errors
    /// [`StoreError`] if there is no way to take it.
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

    /// The file at `path`, locked; `None` if another has locked it.
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
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
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

    /// Replaces the record's file, which is wholly the old or wholly the new one at any moment,
    /// whatever happens to the process or the machine. Gives which it is now.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if `lock` is no longer the one that counts, and otherwise
    /// [`StoreError::Away`].
    pub(super) fn replace(&self, lock: &Lock, bytes: &[u8]) -> Result<Stamp, StoreError> {
        if !self.is_in_place(lock) {
            return Err(StoreError::Overtaken(self.lost()));
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

    fn lost(&self) -> String {
        let path = self.lock.display();
        format!(
            "{path} was replaced while it was locked: this process stood still beyond the end of its lock, or the file was removed, and then leave it where it is"
        )
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
