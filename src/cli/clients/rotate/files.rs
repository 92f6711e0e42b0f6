//! The files of a rotation: those with a client's credentials, and temporary files beside them.
//!
//! | file | exists |
//! |---|---|
//! | `FILE.rotation` | during the whole rotation: the old id and the successor's name. No secret |
//! | `FILE.next` | from the successor's registration until its credentials are in place |
//! | `FILE.old` | from then until the old client is deleted, as the way back |
//!
//! `FILE` is the client's `credentials_file`, or its `client_secret_file`. The progress of a
//! rotation ([`Stage`]) follows from these files alone, and each of them changes atomically.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use super::credentials::Credentials;
use crate::atomic_file::{self, Pending};
use crate::cli::new_file::{begin, beside, put, replacement};
use crate::config;
use crate::secret::Secret;

/// The persistent state of a rotation; written once, at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The id of the replaced client.
    pub(super) old: String,
    /// The name under which its successor is registered.
    pub(super) successor: String,
}

/// The progress of a rotation.
#[derive(Debug)]
pub(super) enum Stage {
    /// No rotation is in progress.
    Fresh,
    /// It has started; a successor may be registered whose secret is lost.
    Begun(Journal),
    /// The successor's credentials are in `FILE.next`.
    Registered(Journal, Credentials),
    /// The successor's credentials are in place; `FILE.next` is gone or obsolete.
    Placed(Journal),
}

/// The files of one client.
#[derive(Debug)]
pub(super) struct Files {
    /// The file that messages name, and whose name the others extend.
    pub(super) file: PathBuf,
    /// The separate file of the id, if any.
    id_file: Option<PathBuf>,
}

/// Held during a rotation; released when the process ends, in whatever way.
#[derive(Debug)]
pub(super) struct Lock {
    _open: File,
}

impl Files {
    /// Returns the files of `client`.
    ///
    /// # Errors
    /// If its credentials are not in files that can be replaced.
    pub(super) fn of(client: &config::Client) -> anyhow::Result<Files> {
        // replace the target of a symlink, not the link
        let settled = |path: &Path| {
            fs::canonicalize(path).with_context(|| format!("{} cannot be found", path.display()))
        };
        match &client.credentials {
            config::Credentials::File(path) => Ok(Files {
                file: settled(path)?,
                id_file: None,
            }),
            config::Credentials::Files { id, secret } => Ok(Files {
                file: settled(secret)?,
                id_file: Some(settled(id)?),
            }),
            config::Credentials::Elsewhere => bail!(
                "the id and the secret of client {} are not both in files, so they cannot be replaced: move them to a file, and set credentials_file",
                client.name
            ),
        }
    }

    /// Locks the directory against other rotations.
    ///
    /// # Errors
    /// If another rotation is in progress.
    pub(super) fn lock(&self) -> anyhow::Result<Lock> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        let name = directory.display();
        let opened = File::open(directory).with_context(|| format!("{name} cannot be opened"))?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _open: opened }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!("another rotation is in progress in {name}; wait until it ends")
            }
            Err(e) => Err(e).with_context(|| format!("{name} cannot be locked")),
        }
    }

    pub(super) fn journal(&self) -> PathBuf {
        beside(&self.file, "rotation")
    }

    pub(super) fn next(&self) -> PathBuf {
        beside(&self.file, "next")
    }

    pub(super) fn old(&self) -> PathBuf {
        beside(&self.file, "old")
    }

    /// Returns whether id and secret change one after the other.
    pub(super) fn is_pair(&self) -> bool {
        self.id_file.is_some()
    }

    /// The files that hold the credentials, for messages.
    pub(super) fn names(&self) -> String {
        match &self.id_file {
            Some(id) => format!("{} and {}", id.display(), self.file.display()),
            None => self.file.display().to_string(),
        }
    }

    /// The current credentials.
    ///
    /// # Errors
    /// If there are none.
    pub(super) fn current(&self) -> anyhow::Result<Credentials> {
        let text = required(&self.file)?;
        let credentials = match &self.id_file {
            None => Credentials::parse(text),
            Some(id) => Secret::parse(text.expose())
                .map_err(anyhow::Error::from)
                .and_then(|secret| Credentials::of(required(id)?.expose(), secret)),
        };
        credentials.with_context(|| self.names())
    }

    /// The progress of the rotation.
    ///
    /// # Errors
    /// If the files match no stage.
    pub(super) fn stage(&self) -> anyhow::Result<Stage> {
        let current = self.current()?;
        let next = match read(&self.next())? {
            Some(json) => {
                Some(Credentials::parse(json).with_context(|| self.next().display().to_string())?)
            }
            None => None,
        };
        let journal = self.read_journal()?;
        match (journal, next) {
            (None, None) if self.old().exists() => Err(stray(&self.old())),
            (None, None) => Ok(Stage::Fresh),
            (None, Some(_)) => Err(stray(&self.next())),
            (Some(journal), Some(next)) if current.id.as_str() == journal.old => {
                Ok(Stage::Registered(journal, next))
            }
            (Some(journal), Some(next)) if current.id == next.id => Ok(Stage::Placed(journal)),
            (Some(_), Some(_)) => bail!(
                "{} has neither the replaced client's credentials nor its successor's: restore one of them ({} has the successor's)",
                self.names(),
                self.next().display()
            ),
            (Some(journal), None) if current.id.as_str() == journal.old => {
                Ok(Stage::Begun(journal))
            }
            (Some(journal), None) => Ok(Stage::Placed(journal)),
        }
    }

    /// Checks that all files can be written, before anything depends on it.
    ///
    /// # Errors
    /// The file that cannot.
    pub(super) fn try_out(&self) -> anyhow::Result<()> {
        for path in self.each() {
            // dropped at once
            replacement(path)?;
        }
        Ok(())
    }

    /// Starts the rotation: writes its state, for a later run to resume.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn begin(&self, journal: &Journal) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(journal)?;
        let path = self.journal();
        put(begin(&path)?, &path, &format!("{json}\n"))
    }

    /// Starts the file for the successor's credentials, before there are any.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn begin_next(&self) -> anyhow::Result<Pending> {
        begin(&self.next())
    }

    /// Puts `next` in place of the current credentials, and keeps those beside it. One file changes
    /// atomically. Two files change one after the other, the secret first. For some microseconds a
    /// reader of both gets a pair that does not match. A proxy waits longer before it uses a
    /// change. After a crash in between, the next run repairs the pair.
    ///
    /// # Errors
    /// If a file cannot be written; a repeated run is safe.
    pub(super) fn place(&self, next: &Credentials) -> anyhow::Result<()> {
        if !self.old().exists() {
            let current = self.current()?.json;
            put(begin(&self.old())?, &self.old(), current.expose())?;
        }
        // fail early, before anything is replaced
        let successor = replacement(&self.file)?;
        match &self.id_file {
            None => put(successor, &self.file, next.json.expose())?,
            Some(id) => {
                let id_successor = replacement(id)?;
                put(successor, &self.file, next.secret.expose())?;
                put(id_successor, id, next.id.as_str())?;
            }
        }
        self.forget_next()
    }

    /// Removes the successor's credentials from `FILE.next`, once they are in place or obsolete.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn forget_next(&self) -> anyhow::Result<()> {
        gone(&self.next())
    }

    /// Ends the rotation.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        gone(&self.old())?;
        gone(&self.journal())
    }

    fn read_journal(&self) -> anyhow::Result<Option<Journal>> {
        let path = self.journal();
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let journal = serde_json::from_str(text.expose());
        let what = || format!("{} was not written by a rotation", path.display());
        journal.map(Some).with_context(what)
    }

    fn each(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.file).chain(&self.id_file)
    }
}

fn stray(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "{} exists, but no rotation created it; move it away if it is no longer needed",
        path.display()
    )
}

fn required(path: &Path) -> anyhow::Result<Secret> {
    read(path)?.with_context(|| format!("{} does not exist", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Option<Secret>> {
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => Ok(Some(Secret::from(text.to_string()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("{} cannot be read", path.display())),
    }
}

fn gone(path: &Path) -> anyhow::Result<()> {
    atomic_file::remove(path).with_context(|| format!("{} cannot be removed", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str) -> Credentials {
        Credentials::of(id, Secret::from(format!("secret of {id}"))).unwrap()
    }

    fn files(pair: bool) -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let files = Files {
            file: path("file"),
            id_file: pair.then(|| path("id")),
        };
        if pair {
            fs::write(path("id"), "old\n").unwrap();
            fs::write(path("file"), "secret of old\n").unwrap();
        } else {
            let text = r#"{"client_id":"old","client_secret":"secret of old","kept":1}"#;
            fs::write(path("file"), text).unwrap();
        }
        (directory, files)
    }

    fn stage(files: &Files) -> String {
        match files.stage() {
            Ok(Stage::Fresh) => "fresh".to_owned(),
            Ok(Stage::Begun(_)) => "begun".to_owned(),
            Ok(Stage::Registered(_, next)) => format!("{} registered", next.id),
            Ok(Stage::Placed(_)) => "placed".to_owned(),
            Err(error) => format!("{error:#}"),
        }
    }

    fn journal() -> Journal {
        Journal {
            old: "old".to_owned(),
            successor: "name".to_owned(),
        }
    }

    fn keep_next(files: &Files) {
        let pending = files.begin_next().unwrap();
        put(pending, &files.next(), credentials("new").json.expose()).unwrap();
    }

    #[test]
    fn the_files_alone_tell_how_far_it_has_come() {
        for pair in [false, true] {
            let (directory, files) = files(pair);
            files.try_out().unwrap();
            assert_eq!(stage(&files), "fresh");
            files.begin(&journal()).unwrap();
            assert_eq!(stage(&files), "begun");
            keep_next(&files);
            assert_eq!(stage(&files), "new registered");
            files.place(&credentials("new")).unwrap();
            assert_eq!(stage(&files), "placed");
            let current = files.current().unwrap();
            assert_eq!(current.id.as_str(), "new");
            assert_eq!(current.secret.expose(), "secret of new");
            let old = Credentials::parse(read(&files.old()).unwrap().unwrap()).unwrap();
            assert_eq!(old.id.as_str(), "old");
            assert_eq!(old.secret.expose(), "secret of old");
            files.end().unwrap();
            assert_eq!(stage(&files), "fresh");
            let left = fs::read_dir(directory.path()).unwrap().count();
            assert_eq!(left, if pair { 2 } else { 1 });
        }
    }

    #[test]
    fn a_pair_that_was_half_replaced_is_set_right() {
        let (_directory, files) = files(true);
        files.begin(&journal()).unwrap();
        keep_next(&files);
        put(
            begin(&files.old()).unwrap(),
            &files.old(),
            files.current().unwrap().json.expose(),
        )
        .unwrap();
        fs::write(&files.file, "secret of new").unwrap();
        assert_eq!(stage(&files), "new registered");
        files.place(&credentials("new")).unwrap();
        assert_eq!(files.current().unwrap().id.as_str(), "new");
        let old = Credentials::parse(read(&files.old()).unwrap().unwrap()).unwrap();
        assert_eq!(old.secret.expose(), "secret of old");
    }

    #[test]
    fn what_was_placed_and_not_yet_forgotten_is_placed() {
        let (_directory, files) = files(false);
        files.begin(&journal()).unwrap();
        keep_next(&files);
        fs::write(&files.file, credentials("new").json.expose()).unwrap();
        assert_eq!(stage(&files), "placed");
        fs::write(&files.file, credentials("other").json.expose()).unwrap();
        assert!(stage(&files).contains("has neither"), "{}", stage(&files));
    }

    #[test]
    fn what_no_rotation_left_is_left_alone() {
        for name in ["file.next", "file.old"] {
            let (directory, files) = files(false);
            let path = directory.path().join(name);
            fs::write(path, credentials("x").json.expose()).unwrap();
            assert!(stage(&files).contains("no rotation created it"));
        }
    }

    #[test]
    fn two_rotations_do_not_meet() {
        let (_directory, files) = files(false);
        let held = files.lock().unwrap();
        let error = files.lock().unwrap_err().to_string();
        assert!(error.contains("another rotation"), "{error}");
        drop(held);
        files.lock().unwrap();
    }
}
