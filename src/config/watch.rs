//! Detects changes of the files that a configuration was read from.
//!
//! Polls every three seconds instead of using the kernel's notifications. A mounted Kubernetes
//! secret changes by a symbolic link two directories up, network file systems do not report changes
//! of other machines, and a watch is lost when its file is replaced by a rename. Polling a few
//! small files is cheaper than handling all of these.
//!
//! Keeps only a hash of each file, with a random key per process. A file that hangs does not block
//! the others ([`file`]).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, Unfit};

/// The polling interval; also how often an idle process wakes up.
const PAUSE: Duration = Duration::from_secs(3);

/// The interval while a file is changing.
const RECHECK: Duration = Duration::from_secs(1);

/// A file that still changes after this many polls is read anyway.
const RESTLESS: usize = 5;

/// Files, and the fingerprint of each when it was read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<u64>>);

impl Files {
    /// Waits for a change, then until the files are stable, so that a half-written file is not
    /// read. Returns the changed files. Takes one to four seconds after a change, or seven if a
    /// file never becomes stable.
    pub async fn changed(&self) -> Vec<PathBuf> {
        if self.0.is_empty() {
            std::future::pending::<()>().await;
        }
        let mut before = self.clone();
        let mut moving = 0;
        loop {
            let pause = if before == *self { PAUSE } else { RECHECK };
            tokio::time::sleep(pause).await;
            let known = self.clone();
            let look = move || known.look_again(file::fingerprint);
            let Ok(seen) = tokio::task::spawn_blocking(look).await else {
                continue;
            };
            moving = if seen == *self { 0 } else { moving + 1 };
            if seen != *self && (seen == before || moving > RESTLESS) {
                return self.differing(&seen);
            }
            before = seen;
        }
    }

    /// Returns the union; for a file in both, the fingerprint of `self`.
    #[must_use]
    pub fn and(mut self, those: &Files) -> Files {
        for (path, content) in &those.0 {
            self.0.entry(path.clone()).or_insert(*content);
        }
        self
    }

    /// Adds a file with its current fingerprint. Call it before reading the file, so that a later
    /// write counts as a change.
    ///
    /// # Errors
    /// [`Unfit`] if the file must not be read; it is added nevertheless.
    pub(super) fn note(&mut self, path: &Path) -> Result<(), Unfit> {
        if let Some(Some(_)) = self.0.get(path) {
            return Ok(());
        }
        let seen = file::fingerprint(path);
        let content = seen.unwrap_or_default();
        self.0.entry(path.to_owned()).or_insert(content);
        seen.map(drop)
    }

    /// The files as `look` sees them now. One that cannot be opened for want of a descriptor is
    /// taken as unchanged: it would be refused as missing.
    fn look_again(&self, look: impl Fn(&Path) -> Result<Option<u64>, Unfit>) -> Files {
        let seen = |(path, before): (&PathBuf, &Option<u64>)| {
            let content = match look(path) {
                Err(Unfit::Shortage) => *before,
                seen => seen.unwrap_or_default(),
            };
            (path.clone(), content)
        };
        Files(self.0.iter().map(seen).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;

    /// Creates a directory with files `names`, and adds them.
    fn noted(names: &[&str]) -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::default();
        for name in names {
            let path = directory.path().join(name);
            fs::write(&path, "one").unwrap();
            files.note(&path).unwrap();
        }
        (directory, files)
    }

    fn changed_now(files: &Files) -> Vec<String> {
        let paths = files.differing(&files.look_again(file::fingerprint));
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
    fn a_file_that_cannot_be_opened_for_want_of_a_descriptor_has_not_changed() {
        let (_directory, files) = noted(&["a"]);
        let seen = |why| files.differing(&files.look_again(|_| Err(why))).len();
        assert_eq!(seen(Unfit::Shortage), 0);
        assert_eq!(seen(Unfit::Hangs), 1);
    }

    #[test]
    fn a_file_that_is_not_there_yet_is_waited_for() {
        let (directory, mut files) = noted(&[]);
        let path = directory.path().join("late");
        files.note(&path).unwrap();
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
        files.note(&at("secret")).unwrap();
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
        assert_eq!(files.note(path.as_ref()), Err(Unfit::NotRegular));
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
        let early = tokio::time::timeout(PAUSE + RECHECK / 2, &mut wait).await;
        assert!(early.is_err(), "seen once");
        write("whole");
        let early = tokio::time::timeout(RECHECK, &mut wait).await;
        assert!(early.is_err(), "seen once more, as something else");
        assert_eq!(wait.await, [path]);
    }

    #[tokio::test]
    async fn what_never_stands_still_is_read_all_the_same() {
        let (directory, files) = noted(&["a"]);
        let path = directory.path().join("a");
        let mut turn = 0;
        let rewrite = async {
            loop {
                turn += 1;
                fs::write(&path, turn.to_string()).unwrap();
                tokio::time::sleep(PAUSE / 4).await;
            }
        };
        let changed = tokio::select! {
            changed = files.changed() => changed,
            () = rewrite => unreachable!("it goes on for ever"),
            () = tokio::time::sleep(60 * PAUSE) => panic!("it is never read"),
        };
        assert_eq!(changed, [path]);
    }

    #[test]
    fn nothing_of_what_they_hold_is_shown() {
        let (directory, files) = noted(&["a"]);
        let shown = format!("{files:?}");
        assert_eq!(shown, format!("{{{:?}}}", directory.path().join("a")));
    }
}
