//! Looking at a file without being held up by it: a pipe, a device or a file system that does not
//! answer must not keep the program from its signals.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use secrecy::zeroize::Zeroizing;

/// No configuration has larger files.
const LARGEST: u64 = 16 * 1024 * 1024;

/// How long a file may take to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many threads may be stuck in a file system at once.
const THREADS: usize = 4;

/// The key of the fingerprints, drawn anew for each process.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Why a file is not read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// Reading it may wait for ever.
    #[error("it is no regular file: pipes, sockets and devices are not read")]
    NotRegular,
    /// There is too much of it.
    #[error("the file is larger than 16 MiB")]
    TooLarge,
    /// Its file system does not answer.
    #[error("the file could not be read within 5 s: its file system does not answer")]
    Hangs,
}

/// What the file at `path` holds, as a number; `None` if it cannot be read. Takes five seconds at
/// most.
///
/// # Errors
/// [`Unfit`] says why the file must not be read.
pub(super) fn fingerprint(path: &Path) -> Result<Option<u64>, Unfit> {
    let path = path.to_owned();
    within(PATIENCE, move || hash_of(&path)).unwrap_or(Err(Unfit::Hangs))
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

/// Opens a regular file; `None` if it cannot be opened, or is a directory: reading it says why.
fn open(path: &Path) -> Result<Option<File>, Unfit> {
    // without it, opening a pipe waits for its writer
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        // a socket (open(2))
        Err(error) if is_no_device(&error) => return Err(Unfit::NotRegular),
        Err(_) => return Ok(None),
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(Some(file)),
        Ok(metadata) if metadata.is_dir() => Ok(None),
        Ok(_) => Err(Unfit::NotRegular),
        Err(_) => Ok(None),
    }
}

fn is_no_device(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NXIO)
}

type Job = Box<dyn FnOnce() + Send>;

/// Does `work` on a thread of its own; `None` if it takes longer than `patience`. The thread that is
/// stuck with it is left alone.
fn within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    /// The thread that is free.
    static FREE: Mutex<Option<Sender<Job>>> = Mutex::new(None);
    let free = || FREE.lock().unwrap_or_else(PoisonError::into_inner);

    let kept = free().take();
    let thread = kept.or_else(start)?;
    let (done, result) = channel();
    let job: Job = Box::new(move || {
        let _ = done.send(work());
    });
    thread.send(job).ok()?;
    match result.recv_timeout(patience) {
        Ok(result) => {
            *free() = Some(thread);
            Some(result)
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
    }
}

/// Starts a thread that does jobs until its sender is gone; `None` if too many are stuck.
fn start() -> Option<Sender<Job>> {
    static THREAD: LazyLock<Arc<()>> = LazyLock::new(Arc::default);
    if Arc::strong_count(&THREAD) > THREADS {
        return None;
    }
    let alive = Arc::clone(&THREAD);
    let (jobs, to_do) = channel::<Job>();
    let started = thread::Builder::new()
        .name("files".to_owned())
        .spawn(move || {
            let _alive = alive;
            to_do.into_iter().for_each(|job| job());
        });
    started.ok().map(|_| jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_hangs_is_given_up_and_costs_few_threads() {
        let (end, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        for _ in 0..3 * THREADS {
            let wait = Arc::clone(&wait);
            let hangs = move || {
                let _ = wait.lock().unwrap().recv();
            };
            assert_eq!(within(Duration::from_millis(10), hangs), None);
        }
        // once the file systems answer, the threads end and others can start
        drop(end);
        let start = std::iter::repeat_with(|| within(PATIENCE, || 1)).take(1_000);
        let mut tries = start.inspect(|done| {
            if done.is_none() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        assert!(tries.any(|done| done == Some(1)));
    }
}
