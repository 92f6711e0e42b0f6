//! The files that a configuration was made from, and whether one of them says something else by
//! now.
//!
//! They are read every two seconds instead of having the kernel tell of changes: a mounted Kubernetes
//! secret changes by a link two directories up that is put in place of another, network file
//! systems tell nothing of what another machine writes, and a file that is renamed over takes its
//! watch with it. A few small files cost less than the care for all of that.
//!
//! Of what they hold only a hash is kept, under a key that is drawn anew for each process.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;

/// How often the files are looked at: an idle process is woken as seldom as that.
const PAUSE: Duration = Duration::from_secs(2);

/// When the files are looked at again after one has changed.
const SETTLE: Duration = Duration::from_secs(1);

/// No more than this is read of a file.
const LARGEST: u64 = 16 * 1024 * 1024;

static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Files, and what was in each when it was looked at.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<u64>>);

impl Files {
    /// Waits until a file says something else than it did, and then until it stands still: what is
    /// half written is not to be read. Tells which ones changed. Takes two to three seconds.
    pub async fn changed(&self) -> Vec<PathBuf> {
        if self.0.is_empty() {
            std::future::pending::<()>().await;
        }
        let mut before = self.clone();
        loop {
            let pause = if before == *self { PAUSE } else { SETTLE };
            tokio::time::sleep(pause).await;
            let known = self.clone();
            let Ok(seen) = tokio::task::spawn_blocking(move || known.look_again()).await else {
                continue;
            };
            if seen == before && seen != *self {
                return self.differing(&seen);
            }
            before = seen;
        }
    }

    /// These and those; where a file is in both, as it was in these.
    #[must_use]
    pub fn and(mut self, those: &Files) -> Files {
        for (path, content) in &those.0 {
            self.0.entry(path.clone()).or_insert(*content);
        }
        self
    }

    /// Adds a file as it is now. Call it before the file is read: what is written in between then
    /// counts as a change.
    pub(super) fn note(&mut self, path: &Path) {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), fingerprint(path));
        }
    }

    fn look_again(&self) -> Files {
        Files(
            self.0
                .keys()
                .map(|path| (path.clone(), fingerprint(path)))
                .collect(),
        )
    }

    fn differing(&self, seen: &Files) -> Vec<PathBuf> {
        let differs = |(path, now): &(&PathBuf, &Option<u64>)| self.0.get(*path) != Some(*now);
        let different = seen.0.iter().filter(differs);
        different.map(|(path, _)| path.clone()).collect()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a file holds, as a number; `None` if it cannot be read.
fn fingerprint(path: &Path) -> Option<u64> {
    // a pipe would be emptied by being looked at
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut file = File::open(path).ok()?.take(LARGEST);
    let mut hasher = KEY.build_hasher();
    let mut buffer = Zeroizing::new([0; 8 * 1024]);
    loop {
        match file.read(&mut buffer[..]).ok()? {
            0 => return Some(hasher.finish()),
            n => hasher.write(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory and the files `names` in it, noted.
    fn noted(names: &[&str]) -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::default();
        for name in names {
            let path = directory.path().join(name);
            fs::write(&path, "one").unwrap();
            files.note(&path);
        }
        (directory, files)
    }

    fn changed_now(files: &Files) -> Vec<String> {
        let paths = files.differing(&files.look_again());
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        paths.iter().map(name).collect()
    }

    #[test]
    fn content_counts_and_nothing_else() {
        let (directory, files) = noted(&["a", "b"]);
        fs::write(directory.path().join("a"), "one").unwrap();
        assert!(changed_now(&files).is_empty());
        fs::write(directory.path().join("a"), "two").unwrap();
        assert_eq!(changed_now(&files), ["a"]);
        fs::remove_file(directory.path().join("b")).unwrap();
        assert_eq!(changed_now(&files), ["a", "b"]);
    }

    #[test]
    fn a_file_that_is_not_there_yet_is_waited_for() {
        let (directory, mut files) = noted(&[]);
        let path = directory.path().join("late");
        files.note(&path);
        assert!(changed_now(&files).is_empty());
        fs::write(&path, "").unwrap();
        assert_eq!(changed_now(&files), ["late"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_elsewhere_is_a_change() {
        use std::os::unix::fs::symlink;

        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (generation, secret) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(generation)).unwrap();
            fs::write(at(generation).join("secret"), secret).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/secret", at("secret")).unwrap();
        let mut files = Files::default();
        files.note(&at("secret"));
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(changed_now(&files), ["secret"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_not_read() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        std::io::Write::write_all(&mut &writer, b"secret").unwrap();
        drop(writer);
        let mut files = Files::default();
        files.note(path.as_ref());
        let mut left = String::new();
        reader.read_to_string(&mut left).unwrap();
        assert_eq!(left, "secret");
    }

    #[tokio::test]
    async fn what_still_moves_is_waited_for() {
        let (directory, files) = noted(&["a", "b"]);
        let path = directory.path().join("a");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("half");
        let mut wait = std::pin::pin!(files.changed());
        let early = tokio::time::timeout(PAUSE.mul_f64(1.5), &mut wait).await;
        assert!(early.is_err(), "seen once");
        write("whole");
        let early = tokio::time::timeout(PAUSE, &mut wait).await;
        assert!(early.is_err(), "seen once more, as something else");
        assert_eq!(wait.await, [path]);
    }

    #[test]
    fn nothing_of_what_they_hold_is_shown() {
        let (directory, files) = noted(&["a"]);
        let shown = format!("{files:?}");
        assert_eq!(shown, format!("{{{:?}}}", directory.path().join("a")));
    }
}
