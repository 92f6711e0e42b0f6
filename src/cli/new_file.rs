//! Files that a command writes: each is complete, or stays as it was.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::atomic_file::Pending;

/// Starts a file, readable by this user only.
///
/// # Errors
/// If its directory cannot be written; says what to do.
pub(super) fn begin(path: &Path) -> anyhow::Result<Pending> {
    Pending::begin(path, &beside(path, "tmp")).with_context(|| {
        format!(
            "{} cannot be written; choose a directory that this user can write to",
            path.display()
        )
    })
}

/// Starts a replacement of the file at `path`, readable by the same users.
///
/// # Errors
/// As [`begin`], or if the replacement cannot be given to the file's owner.
pub(super) fn replacement(path: &Path) -> anyhow::Result<Pending> {
    let pending = begin(path)?;
    let like = fs::metadata(path).and_then(|old| pending.like(&old));
    like.with_context(|| {
        format!(
            "{} cannot be replaced by a file of the same owner; run this as its owner or as root",
            path.display()
        )
    })?;
    Ok(pending)
}

/// Writes `content` and renames the file into place.
///
/// # Errors
/// If it cannot be written.
pub(super) fn put(pending: Pending, path: &Path, content: &str) -> anyhow::Result<()> {
    let put = pending.put(content.as_bytes()).map(drop);
    put.with_context(|| format!("{} cannot be written", path.display()))
}

/// Appends `.` and `ending` to `path`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}
