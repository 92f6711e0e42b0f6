//! Detects a shortage of file descriptors, and reserves some for probes and accepted calls, so that
//! callers cannot use them all up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// The reserve for upstream connections of accepted calls. A process has one, as it has one table
/// of descriptors.
static FOR_CALLS: Mutex<Reserve> = Mutex::new(Reserve::empty(16));

/// Descriptors that are only held to be closed when another is needed.
#[derive(Debug)]
pub struct Reserve {
    size: usize,
    held: Vec<OwnedFd>,
}

impl Reserve {
    /// Returns a reserve of `size` descriptors, or of as many as the process can spare.
    #[must_use]
    pub fn new(size: usize) -> Reserve {
        let mut reserve = Reserve::empty(size);
        reserve.refill();
        reserve
    }

    const fn empty(size: usize) -> Reserve {
        Reserve {
            size,
            held: Vec::new(),
        }
    }

    /// Refills the reserve, as far as descriptors are available.
    pub fn refill(&mut self) {
        let stderr = io::stderr();
        while self.held.len() < self.size
            && let Ok(spare) = stderr.as_fd().try_clone_to_owned()
        {
            self.held.push(spare);
        }
    }

    /// Frees a descriptor; returns whether there was one.
    pub fn spend(&mut self) -> bool {
        self.held.pop().is_some()
    }
}

/// Refills the reserve for upstream connections of accepted calls, as far as descriptors are
/// available.
pub fn refill_for_calls() {
    let reserve = FOR_CALLS.lock();
    // a panic elsewhere leaves nothing inconsistent here
    reserve.unwrap_or_else(PoisonError::into_inner).refill();
}

/// Frees a descriptor for the upstream connection of an accepted call; returns whether there was
/// one.
pub fn spend_for_call() -> bool {
    let reserve = FOR_CALLS.lock();
    reserve.unwrap_or_else(PoisonError::into_inner).spend()
}

/// Whether `error` says that the process or the system has no file descriptor left.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}
