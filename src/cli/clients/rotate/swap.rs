//! Files behind one link to a directory, as in a mounted Kubernetes Secret. They change atomically
//! when that link is replaced.
//!
//! ```text
//! id      -> ..data/id
//! secret  -> ..data/secret
//! ..data  -> ..data.a          and then -> ..data.b
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use crate::atomic_file::{self, Pending};
use crate::secret::Secret;

/// The link to the directory with the files.
#[derive(Debug)]
pub(super) struct SharedLink {
    /// The directory that contains it.
    directory: PathBuf,
    /// Its name.
    name: OsString,
}

impl SharedLink {
    /// Finds the one link behind which all of `paths` lie, if there is one.
    pub(super) fn by(paths: &[&Path]) -> Option<SharedLink> {
        let mut all = paths.iter().map(|path| SharedLink::of(path));
        let first = all.next()??;
        let one = |other: Option<SharedLink>| {
            other.is_some_and(|o| {
                (o.directory, o.name) == (first.directory.clone(), first.name.clone())
            })
        };
        all.all(one).then_some(first)
    }

    fn of(path: &Path) -> Option<SharedLink> {
        let directory = path.parent()?;
        let target = fs::read_link(path).ok()?;
        let mut parts = target.components();
        let (Component::Normal(link), Component::Normal(_), None) =
            (parts.next()?, parts.next()?, parts.next())
        else {
            return None;
        };
        let there = directory.join(link);
        let is_link = fs::symlink_metadata(&there).ok()?.is_symlink();
        (is_link && there.is_dir()).then(|| SharedLink {
            directory: directory.to_owned(),
            name: link.to_owned(),
        })
    }

    /// Gives the files at `changed` new content and keeps all others behind the link: a new
    /// directory with all of them replaces the old one.
    ///
    /// # Errors
    /// The system's. Nothing has changed, unless the error is about removing the old directory.
    pub(super) fn replace(&self, changed: &[(&Path, &Secret)]) -> io::Result<()> {
        let link = self.directory.join(&self.name);
        let old = fs::canonicalize(&link)?;
        let name = self.another_name(old.file_name());
        let new = self.directory.join(&name);
        make_like(&old, &new)?;
        for entry in fs::read_dir(&old)? {
            let entry = entry?;
            let (from, to) = (entry.path(), new.join(entry.file_name()));
            let content = changed.iter().find_map(|(path, content)| {
                (inner_name(path).as_deref() == Some(entry.file_name().as_os_str()))
                    .then_some(content)
            });
            match content {
                Some(content) => put_like(&from, &to, content)?,
                None => copy(&from, &to)?,
            }
        }
        File::open(&new)?.sync_all()?;
        let temporary = self.directory.join(with(&self.name, ".tmp"));
        atomic_file::remove(&temporary)?;
        symlink(&name, &temporary)?;
        fs::rename(&temporary, &link)?;
        File::open(&self.directory)?.sync_all()?;
        fs::remove_dir_all(&old)
    }

    /// The other one of two alternating names.
    fn another_name(&self, taken: Option<&OsStr>) -> OsString {
        let first = with(&self.name, ".a");
        if taken == Some(&first) {
            with(&self.name, ".b")
        } else {
            first
        }
    }
}

/// Creates an empty directory like `old`; removes what a killed process left there.
fn make_like(old: &Path, new: &Path) -> io::Result<()> {
    if new.exists() {
        fs::remove_dir_all(new)?;
    }
    let like = fs::metadata(old)?;
    DirBuilder::new().mode(like.mode() & 0o777).create(new)?;
    own_like(&like, new)
}

fn put_like(from: &Path, to: &Path, content: &Secret) -> io::Result<()> {
    let pending =
        Pending::begin(to, Path::new(&with(to.as_os_str(), ".tmp"))).map_err(|e| named(&e, to))?;
    pending.like(&fs::metadata(from)?)?;
    pending.put(content.expose().as_bytes())?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to).map_err(|e| named(&e, from))?;
    own_like(&fs::metadata(from)?, to)?;
    File::open(to)?.sync_all()
}

fn own_like(like: &fs::Metadata, path: &Path) -> io::Result<()> {
    let made = fs::metadata(path)?;
    if (made.uid(), made.gid()) == (like.uid(), like.gid()) {
        return Ok(());
    }
    chown(path, Some(like.uid()), Some(like.gid()))
}

fn inner_name(path: &Path) -> Option<OsString> {
    let target = fs::read_link(path).ok()?;
    target.file_name().map(OsStr::to_owned)
}

fn with(name: &OsStr, ending: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(ending);
    name
}

fn named(e: &io::Error, path: &Path) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Two files and a third behind a link, and the paths of the two.
    fn layout() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("..1")).unwrap();
        symlink("..1", at("..data")).unwrap();
        for (name, content) in [("id", "old"), ("secret", "secret of old"), ("ca", "pem")] {
            fs::write(at("..1").join(name), content).unwrap();
            symlink(format!("..data/{name}"), at(name)).unwrap();
        }
        let private = fs::Permissions::from_mode(0o640);
        fs::set_permissions(at("..1/secret"), private).unwrap();
        let (id, secret) = (at("id"), at("secret"));
        (directory, id, secret)
    }

    fn content(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn both_change_and_the_rest_stays() {
        let (directory, id, secret) = layout();
        for (nth, name) in [(1, "..data.a"), (2, "..data.b"), (3, "..data.a")] {
            let shared = SharedLink::by(&[&id, &secret]).unwrap();
            let (new_id, new_secret) = (format!("id {nth}"), format!("secret {nth}"));
            let changed = [
                (id.as_path(), &Secret::from(new_id.clone())),
                (secret.as_path(), &Secret::from(new_secret.clone())),
            ];
            shared.replace(&changed).unwrap();
            assert_eq!((content(&id), content(&secret)), (new_id, new_secret));
            assert_eq!(content(&directory.path().join("ca")), "pem");
            let mode = fs::metadata(&secret).unwrap().mode() & 0o777;
            assert_eq!(mode, 0o640);
            let link = directory.path().join("..data");
            assert_eq!(fs::read_link(link).unwrap(), Path::new(name));
        }
        // three links, the one to the directory, and that
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 5);
    }

    #[test]
    fn what_a_killed_process_left_is_in_nobodys_way() {
        let (directory, id, secret) = layout();
        fs::create_dir(directory.path().join("..data.a")).unwrap();
        fs::write(directory.path().join("..data.a/secret"), "half").unwrap();
        symlink("nowhere", directory.path().join("..data.tmp")).unwrap();
        let shared = SharedLink::by(&[&id, &secret]).unwrap();
        let new = Secret::from("new".to_owned());
        shared.replace(&[(&secret, &new)]).unwrap();
        assert_eq!(
            (content(&id), content(&secret)),
            ("old".into(), "new".into())
        );
    }

    #[test]
    fn files_that_do_not_lie_behind_one_link_are_told_apart() {
        let (directory, id, secret) = layout();
        let plain = directory.path().join("plain");
        fs::write(&plain, "x").unwrap();
        let elsewhere = directory.path().join("elsewhere");
        symlink("..1/id", &elsewhere).unwrap();
        for other in [&plain, &elsewhere, &directory.path().join("none")] {
            assert!(SharedLink::by(&[other]).is_none(), "{other:?}");
            assert!(SharedLink::by(&[&id, other]).is_none(), "{other:?}");
        }
        assert!(SharedLink::by(&[&id, &secret]).is_some());
    }
}
