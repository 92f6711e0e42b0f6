//! Reads files without blocking: a pipe, a device or a file system that hangs must not delay the
//! handling of signals.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use secrecy::zeroize::Zeroizing;

use crate::descriptors::is_shortage;

/// The largest file that is read.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The longest time for reading a file.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most threads that read at once; stuck ones count.
const MOST_READERS: usize = 4;

/// The process's reading threads.
static READERS: LazyLock<Readers> = LazyLock::new(Readers::default);

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
    let fingerprint = READERS.within(PATIENCE, move || hash_of(&path));
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
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) => return unfit(&error).map_or(Ok(None), Err),
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(Some(file)),
        Ok(metadata) if metadata.is_dir() => Ok(None),
        Ok(_) => Err(Unfit::NotRegular),
        Err(_) => Ok(None),
    }
}

/// What an error of open(2) says beyond that the file cannot be read.
fn unfit(error: &io::Error) -> Option<Unfit> {
    // it is a socket
    let is_no_device = Errno::from_io_error(error) == Some(Errno::NXIO);
    match is_shortage(error) {
        true => Some(Unfit::Shortage),
        false => is_no_device.then_some(Unfit::NotRegular),
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that read files: one, and another while one is stuck.
#[derive(Default)]
struct Readers {
    /// The idle thread.
    free: Mutex<Option<Sender<Job>>>,
    /// How many threads are at work.
    busy: Arc<AtomicUsize>,
}

impl Readers {
    /// Does `work` on another thread; `None` if it takes longer than `patience`, or if too many
    /// threads are stuck already. A stuck thread ends when its work does.
    fn within<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.busy.load(Ordering::Relaxed) >= MOST_READERS {
            return None;
        }
        let free = lock(&self.free).take();
        let thread = free.or_else(start)?;
        let (done, result) = channel();
        let busy = Arc::clone(&self.busy);
        busy.fetch_add(1, Ordering::Relaxed);
        let job: Job = Box::new(move || {
            let result = work();
            busy.fetch_sub(1, Ordering::Relaxed);
            let _ = done.send(result);
        });
        thread.send(job).ok()?;
        let result = result.recv_timeout(patience).ok()?;
        *lock(&self.free) = Some(thread);
        Some(result)
    }
}

/// Starts a thread that does jobs until their sender is dropped.
fn start() -> Option<Sender<Job>> {
    let (jobs, to_do) = channel::<Job>();
    let thread = thread::Builder::new().name("files".to_owned());
    let started = thread.spawn(move || to_do.into_iter().for_each(|job| job()));
    started.ok().map(|_| jobs)
}

/// Locks a mutex; a panic elsewhere leaves nothing inconsistent in it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_of_descriptors_is_told_from_a_file_that_is_gone() {
        let of = |errno: Errno| unfit(&errno.into());
        assert_eq!(of(Errno::MFILE), Some(Unfit::Shortage));
        assert_eq!(of(Errno::NFILE), Some(Unfit::Shortage));
        assert_eq!(of(Errno::NXIO), Some(Unfit::NotRegular));
        assert_eq!(of(Errno::NOENT), None);
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
        let readers = Readers::default();
        let started = Arc::new(AtomicUsize::new(0));
        let (end, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        for _ in 0..3 * MOST_READERS {
            let (wait, started) = (Arc::clone(&wait), Arc::clone(&started));
            let hangs = move || {
                started.fetch_add(1, Ordering::Relaxed);
                let _ = wait.lock().unwrap().recv();
            };
            assert_eq!(readers.within(Duration::from_millis(10), hangs), None);
        }
        assert!(started.load(Ordering::Relaxed) <= MOST_READERS);
        assert_eq!(readers.within(PATIENCE, || 1), None);

        // once it responds, the threads end and files are read again
        drop(end);
        let is_stuck = || readers.busy.load(Ordering::Relaxed) > 0;
        for _ in 0..3_000 {
            if is_stuck() {
                thread::sleep(Duration::from_millis(10));
            }
        }
        assert_eq!(readers.within(PATIENCE, || 1), Some(1));
        assert_eq!(readers.within(PATIENCE, || 2), Some(2));
    }
}
