//! The files of a rotation: those that hold a client's credentials, and what lies beside them while
//! a successor takes over.
//!
//! | file | is there |
//! |---|---|
//! | `FILE.rotation` | from the first step to the last: who is replaced, and by what name. No secret |
//! | `FILE.next` | from the successor's registration until its credentials are in place |
//! | `FILE.old` | from then until the old client is deleted: the way back |
//!
//! `FILE` is the client's `credentials_file`, or its `client_secret_file`. Where a rotation stands
//! is told by these alone ([`Stage`]), and each of them changes as a whole.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{self, Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use super::credentials::Credentials;
use super::swap::Shared;
use crate::atomic_file::{self, Pending};
use crate::cli::clients::target::{begin, beside, put};
use crate::config;
use crate::secret::Secret;

/// What is remembered of a rotation from its first step on; it is written once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The id of the client that is replaced.
    pub(super) old: String,
    /// The name under which its successor is registered.
    pub(super) successor: String,
}

/// How far a rotation has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// There is none.
    Fresh,
    /// It has begun; a successor may be registered whose secret is lost.
    Begun(Journal),
    /// The successor's credentials are in `FILE.next`.
    Registered(Journal, Credentials),
    /// They are in place, and `FILE.next` is gone or of no more use.
    Placed(Journal),
}

/// The files of one client.
#[derive(Debug)]
pub(super) struct Files {
    /// What messages call it, and the others are named after.
    pub(super) file: PathBuf,
    /// The id's own file, if it has one.
    id_file: Option<PathBuf>,
    /// Both of two files lie behind one link.
    shared: Option<Shared>,
}

/// Held by a rotation; it ends with the process, however that ends.
#[derive(Debug)]
pub(super) struct Lock {
    _open: File,
}

impl Files {
    /// The files of `client`.
    ///
    /// # Errors
    /// If its credentials are in none that could be replaced.
    pub(super) fn of(client: &config::Client) -> anyhow::Result<Files> {
        // a link stays, and leads to the new content
        let settled = |path: &Path| {
            fs::canonicalize(path).with_context(|| format!("{} cannot be found", path.display()))
        };
        match &client.credentials {
            config::Credentials::File(path) => Ok(Files {
                file: settled(path)?,
                id_file: None,
                shared: None,
            }),
            config::Credentials::Files { id, secret } => {
                let (id, secret) = (path::absolute(id)?, path::absolute(secret)?);
                let Some(shared) = Shared::by(&[&id, &secret]) else {
                    return Ok(Files {
                        file: settled(&secret)?,
                        id_file: Some(settled(&id)?),
                        shared: None,
                    });
                };
                Ok(Files {
                    file: secret,
                    id_file: Some(id),
                    shared: Some(shared),
                })
            }
            config::Credentials::Elsewhere => bail!(
                "the id and the secret of client {} are not both in files, so there is nothing to replace: move them to a file, and name it with credentials_file",
                client.name
            ),
        }
    }

    /// Keeps other rotations out of the directory.
    ///
    /// # Errors
    /// If one is under way.
    pub(super) fn lock(&self) -> anyhow::Result<Lock> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        let name = directory.display();
        let opened = File::open(directory).with_context(|| format!("{name} cannot be opened"))?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _open: opened }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!("another rotation is under way in {name}; wait for its end")
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

    /// Whether id and secret change one after the other.
    pub(super) fn is_pair(&self) -> bool {
        self.id_file.is_some() && self.shared.is_none()
    }

    /// The files that hold the credentials, for messages.
    pub(super) fn names(&self) -> String {
        match &self.id_file {
            Some(id) => format!("{} and {}", id.display(), self.file.display()),
            None => self.file.display().to_string(),
        }
    }

    /// The credentials in force.
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

    /// How far the rotation has come.
    ///
    /// # Errors
    /// If what lies there fits no stage.
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
                "{} holds neither the client that is replaced nor its successor: put one of them back ({} has the successor's)",
                self.names(),
                self.next().display()
            ),
            (Some(journal), None) if current.id.as_str() == journal.old => {
                Ok(Stage::Begun(journal))
            }
            (Some(journal), None) => Ok(Stage::Placed(journal)),
        }
    }

    /// That all of it can be written, before anything depends on it.
    ///
    /// # Errors
    /// What cannot.
    pub(super) fn try_out(&self) -> anyhow::Result<()> {
        for path in self.each() {
            // dropped again
            self.successor_of(path)?;
        }
        Ok(())
    }

    /// The first step: says what is going to happen, for whoever takes it up.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn begin(&self, journal: &Journal) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(journal)?;
        let path = self.journal();
        put(begin(&path)?, &path, &Secret::from(format!("{json}\n")))
    }

    /// A file for the successor's credentials, before there are any.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn begin_next(&self) -> anyhow::Result<Pending> {
        begin(&self.next())
    }

    /// Puts `next` in the place of what is in force, which is kept beside it. One file changes as a
    /// whole, and so do two behind one link. Two plain ones change one after the other, the secret
    /// first: whoever reads both in between has a pair that is refused. It is there for some
    /// microseconds, and a proxy looks for longer before it believes what it sees; after a crash in
    /// between, the next run sets it right.
    ///
    /// # Errors
    /// If it cannot be written; running it again is safe.
    pub(super) fn place(&self, next: &Credentials) -> anyhow::Result<()> {
        if !self.old().exists() {
            put(begin(&self.old())?, &self.old(), &self.current()?.json)?;
        }
        // all that can fail early does
        let successor = self.successor_of(&self.file)?;
        let id_text = Secret::from(next.id.to_string());
        match (&self.id_file, &self.shared) {
            (None, _) => put(successor, &self.file, &next.json)?,
            (Some(id), None) => {
                let id_successor = self.successor_of(id)?;
                put(successor, &self.file, &next.secret)?;
                put(id_successor, id, &id_text)?;
            }
            (Some(id), Some(shared)) => {
                drop(successor);
                let changed = [(id.as_path(), &id_text), (&self.file, &next.secret)];
                let replaced = shared.replace(&changed);
                replaced.with_context(|| format!("{} cannot be replaced", self.names()))?;
            }
        }
        self.forget_next()
    }

    /// The successor's credentials are in place, or of no more use.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn forget_next(&self) -> anyhow::Result<()> {
        gone(&self.next())
    }

    /// A rotation is over, or given up.
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

    /// A successor of one of the files, to be read by whoever reads that.
    fn successor_of(&self, path: &Path) -> anyhow::Result<Pending> {
        let pending = begin(path)?;
        fs::metadata(path)
            .and_then(|old| pending.like(&old))
            .with_context(|| {
                format!(
                    "{} cannot be replaced by a file of the same owner; run this as that user or as root",
                    path.display()
                )
            })?;
        Ok(pending)
    }
}

fn stray(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "{} is there, and no rotation knows of it; move it away, if it is of no more use",
        path.display()
    )
}

fn required(path: &Path) -> anyhow::Result<Secret> {
    read(path)?.with_context(|| format!("{} is not there", path.display()))
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
            shared: None,
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
        put(pending, &files.next(), &credentials("new").json).unwrap();
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
            &files.current().unwrap().json,
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
        assert!(stage(&files).contains("holds neither"), "{}", stage(&files));
    }

    #[test]
    fn what_no_rotation_left_is_left_alone() {
        for name in ["file.next", "file.old"] {
            let (directory, files) = files(false);
            let path = directory.path().join(name);
            fs::write(path, credentials("x").json.expose()).unwrap();
            assert!(stage(&files).contains("no rotation knows of it"));
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
