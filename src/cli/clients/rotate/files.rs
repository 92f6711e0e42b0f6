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
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::cli::new_file::{begin, beside, put, replacement};
use crate::client_id::ClientId;
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

/// A client's id and secret, and the JSON that they came in.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) id: ClientId,
    pub(super) secret: Secret,
    /// The content of the file.
    pub(super) json: Secret,
}

impl Credentials {
    /// Parses credentials in the format of `credentials_file`.
    ///
    /// # Errors
    /// If it is not valid. Never quotes it.
    pub(super) fn parse(json: Secret) -> anyhow::Result<Credentials> {
        #[derive(Deserialize)]
        struct IdAndSecret {
            client_id: String,
            client_secret: String,
        }
        let Ok(both) = serde_json::from_str::<IdAndSecret>(json.expose()) else {
            bail!("it is not JSON with client_id and client_secret");
        };
        let secret = Secret::from(both.client_secret);
        Ok(Credentials {
            id: ClientId::parse(&both.client_id)?,
            secret: Secret::parse(secret.expose())?,
            json,
        })
    }

    /// Combines an id and a secret from two files.
    ///
    /// # Errors
    /// If one of them is not valid.
    pub(super) fn of(id: &Secret, secret: &Secret) -> anyhow::Result<Credentials> {
        let (id, secret) = (
            ClientId::parse(id.expose())?,
            Secret::parse(secret.expose())?,
        );
        let both =
            serde_json::json!({ "client_id": id.as_str(), "client_secret": secret.expose() });
        let json = Secret::from(format!("{both}\n"));
        Ok(Credentials { id, secret, json })
    }
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
    /// The separate file of the id, if any; the two change one after the other.
    pub(super) id_file: Option<PathBuf>,
}

impl Files {
    /// Returns the files of `client`.
    ///
    /// # Errors
    /// If its credentials are not in files that can be replaced.
    pub(super) fn of(client: &config::Client) -> anyhow::Result<Files> {
        let (file, id_file) = match &client.credentials {
            config::Credentials::File(path) => (path, None),
            config::Credentials::Files { id, secret } => (secret, Some(id)),
            config::Credentials::Elsewhere => bail!(
                "the id and the secret of client {} are not both in files, so they cannot be replaced: move them to a file, and set credentials_file",
                client.name
            ),
        };
        // replace the target of a symlink, not the link
        let settled = |path: &PathBuf| {
            fs::canonicalize(path).with_context(|| format!("{} cannot be found", path.display()))
        };
        Ok(Files {
            file: settled(file)?,
            id_file: id_file.map(settled).transpose()?,
        })
    }

    /// Locks the directory against other rotations, until the returned file is closed.
    ///
    /// # Errors
    /// If another rotation is in progress.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        let name = directory.display();
        let opened = File::open(directory).with_context(|| format!("{name} cannot be opened"))?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(opened),
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
        let required =
            |path: &Path| read(path)?.with_context(|| format!("{} does not exist", path.display()));
        let text = required(&self.file)?;
        let credentials = match &self.id_file {
            None => Credentials::parse(text),
            Some(id) => Credentials::of(&required(id)?, &text),
        };
        credentials.with_context(|| self.names())
    }

    /// The progress of the rotation.
    ///
    /// # Errors
    /// If the files match no stage.
    pub(super) fn stage(&self) -> anyhow::Result<Stage> {
        let current = self.current()?;
        let Some(journal) = read(&self.journal())? else {
            let mut others = [self.next(), self.old()].into_iter();
            return match others.find(|path| path.exists()) {
                None => Ok(Stage::Fresh),
                Some(stray) => bail!(
                    "{} exists, but no rotation created it; move it away if it is no longer needed",
                    stray.display()
                ),
            };
        };
        let journal: Journal = serde_json::from_str(journal.expose()).with_context(|| {
            format!("{} was not written by a rotation", self.journal().display())
        })?;
        let next = read(&self.next())?.map(Credentials::parse).transpose();
        let next = next.with_context(|| self.next().display().to_string())?;
        let is_old = current.id.as_str() == journal.old;
        match next {
            Some(next) if is_old => Ok(Stage::Registered(journal, next)),
            None if is_old => Ok(Stage::Begun(journal)),
            Some(next) if current.id != next.id => bail!(
                "{} has neither the replaced client's credentials nor its successor's: restore one of them ({} has the successor's)",
                self.names(),
                self.next().display()
            ),
            _ => Ok(Stage::Placed(journal)),
        }
    }

    /// Checks that all files can be written, before anything depends on it.
    ///
    /// # Errors
    /// The file that cannot.
    pub(super) fn try_out(&self) -> anyhow::Result<()> {
        for path in iter::once(&self.file).chain(&self.id_file) {
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
        let secret = Secret::from(format!("secret of {id}"));
        Credentials::of(&Secret::from(id.to_owned()), &secret).unwrap()
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
        let pending = begin(&files.next()).unwrap();
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

    #[test]
    fn credentials_are_never_printed() {
        let (id, secret) = (
            Secret::from("old".to_owned()),
            Secret::from("cAnArY".to_owned()),
        );
        let shown = format!("{:?}", Credentials::of(&id, &secret));
        assert!(!shown.contains("cAnArY"), "{shown}");
        let wrong = Secret::from(r#"{"client_secret":"cAnArY""#.to_owned());
        let error = format!("{:#}", Credentials::parse(wrong).unwrap_err());
        assert!(!error.contains("cAnArY"), "{error}");
    }
}
