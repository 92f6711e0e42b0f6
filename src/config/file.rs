//! Reads files without blocking: a pipe, a device or a file system that hangs must not delay the
//! handling of signals.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use secrecy::zeroize::Zeroizing;

/// The largest file that is read.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The longest time for reading a file.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most threads that read at once; stuck ones count.
const MOST_READERS: usize = 4;

/// How many threads read a file.
static READERS: AtomicUsize = AtomicUsize::new(0);

/// The key of the fingerprints, random for each process.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// Reading it may block for ever.
    #[error("it is no regular file: pipes, sockets and devices are not read")]
    NotRegular,
    /// It is too large.
    #[error("the file is larger than 16 MiB")]
    TooLarge,
    /// Its file system does not answer.
    #[error("the file could not be read within 5 s: its file system does not answer")]
    Hangs,
    /// There is no file descriptor to open it with, which says nothing about the file.
    #[error(
        "no file descriptor is left; raise the limit of open files (ulimit -n, or LimitNOFILE= of systemd)"
    )]
    Shortage,
}

/// Returns a fingerprint of the file at `path`; `None` if it cannot be read. Takes at most five
/// seconds.
///
/// # Errors
/// [`Unfit`] if the file must not be read.
pub(super) fn fingerprint(path: &Path) -> Result<Option<u64>, Unfit> {
    let path = path.to_owned();
    let fingerprint = within(PATIENCE, &READERS, move || hash_of(&path));
    fingerprint.unwrap_or(Err(Unfit::Hangs))
}

fn hash_of(path: &Path) -> Result<Option<u64>, Unfit> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let mut file = file.take(LARGEST + 1);
    let mut hasher = KEY.build_hasher();
    let mut buffer = Zeroizing::new([0; 8 * 1024]);
    loop {
        match file.read(&mut buffer[..]) {
            Ok(0) if file.limit() == 0 => return Err(Unfit::TooLarge),
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(n) => hasher.write(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
}

/// Opens a regular file; `None` if it cannot be opened or is a directory. Reading it then gives the
/// error.
fn open(path: &Path) -> Result<Option<File>, Unfit> {
    // without NONBLOCK, opening a pipe waits for its writer
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(errno) => return unfit(errno).map_or(Ok(None), Err),
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(Some(file)),
        Ok(metadata) if !metadata.is_dir() => Err(Unfit::NotRegular),
        _ => Ok(None),
    }
}

/// What an error of open(2) says beyond that the file cannot be read.
fn unfit(errno: Errno) -> Option<Unfit> {
    match errno {
        Errno::MFILE | Errno::NFILE => Some(Unfit::Shortage),
        // it is a socket
        Errno::NXIO => Some(Unfit::NotRegular),
        _ => None,
    }
}

/// Does `work` on another thread; `None` if it takes longer than `patience`, or if too many threads
/// are `busy`. A stuck thread ends when its work does.
fn within<T: Send + 'static>(
    patience: Duration,
    busy: &'static AtomicUsize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if busy.fetch_add(1, Ordering::Relaxed) >= MOST_READERS {
        busy.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    let (done, result) = channel();
    let job = move || {
        let result = work();
        busy.fetch_sub(1, Ordering::Relaxed);
        // nobody waits any longer if it took too long
        let _ = done.send(result);
    };
    let thread = thread::Builder::new().name("files".to_owned()).spawn(job);
    if thread.is_err() {
        busy.fetch_sub(1, Ordering::Relaxed);
    }
    result.recv_timeout(patience).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_shortage_of_descriptors_is_told_from_a_file_that_is_gone() {
        assert_eq!(unfit(Errno::MFILE), Some(Unfit::Shortage));
        assert_eq!(unfit(Errno::NFILE), Some(Unfit::Shortage));
        assert_eq!(unfit(Errno::NXIO), Some(Unfit::NotRegular));
        assert_eq!(unfit(Errno::NOENT), None);
    }

    fn pipe(directory: &Path) -> std::path::PathBuf {
        let path = directory.join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        path
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        assert!(fingerprint(&at("file")).unwrap().is_some());
        assert_eq!(fingerprint(&at("none")), Ok(None));
        assert_eq!(fingerprint(directory.path()), Ok(None));

        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for path in [pipe(directory.path()), at("socket"), "/dev/zero".into()] {
            assert_eq!(fingerprint(&path), Err(Unfit::NotRegular), "{path:?}");
        }
    }

    #[test]
    fn a_file_has_a_largest_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(LARGEST).unwrap();
        assert!(fingerprint(&path).unwrap().is_some());
        file.set_len(LARGEST + 1).unwrap();
        assert_eq!(fingerprint(&path), Err(Unfit::TooLarge));
    }

    #[test]
    fn a_file_system_that_hangs_is_given_up_and_costs_few_threads() {
        static BUSY: AtomicUsize = AtomicUsize::new(0);
        let started = Arc::new(AtomicUsize::new(0));
        let (end, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        for _ in 0..3 * MOST_READERS {
            let (wait, started) = (Arc::clone(&wait), Arc::clone(&started));
            let hangs = move || {
                started.fetch_add(1, Ordering::Relaxed);
                let _ = wait.lock().unwrap().recv();
            };
            assert_eq!(within(Duration::from_millis(10), &BUSY, hangs), None);
        }
        assert!(started.load(Ordering::Relaxed) <= MOST_READERS);
        assert_eq!(within(PATIENCE, &BUSY, || 1), None);

        // once it responds, the threads end and files are read again
        drop(end);
        let is_stuck = || BUSY.load(Ordering::Relaxed) > 0;
        for _ in 0..3_000 {
            if is_stuck() {
                thread::sleep(Duration::from_millis(10));
            }
        }
        assert_eq!(within(PATIENCE, &BUSY, || 1), Some(1));
        assert_eq!(within(PATIENCE, &BUSY, || 2), Some(2));
    }
}
