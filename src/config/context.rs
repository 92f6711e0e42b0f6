//! The context in which a configuration is read: its directory, the environment, the files read so
//! far and the faults found so far.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Faults, Location, Spanned, in_order};
use super::file::Unfit;
use super::watch::Files;

/// The context in which a configuration is read.
pub(super) struct LoadContext<'a> {
    /// The directory from which relative paths start; empty for the working directory.
    base: &'a Path,
    /// The environment.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    files: RefCell<Files>,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<Fault>>,
}

impl<'a> LoadContext<'a> {
    /// Returns a context without any files read.
    pub(super) fn of(base: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> LoadContext<'a> {
        LoadContext {
            base,
            env,
            files: RefCell::default(),
            faults: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Adds a fault.
    pub(super) fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Adds a warning.
    pub(super) fn warning(&self, warning: Fault) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Returns the value, or adds the error as a fault at `location`.
    pub(super) fn sound<T, E: ToString>(
        &self,
        result: Result<T, E>,
        location: &Location,
        remedy: impl Into<String>,
    ) -> Option<T> {
        let report = |error: E| self.fault(location.fault(error.to_string(), remedy));
        result.map_err(report).ok()
    }

    /// Returns whether there is a fault at or below `key`.
    pub(super) fn blames(&self, key: &str) -> bool {
        self.faults.borrow().iter().any(|fault| {
            let rest = fault.location.key.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// Returns the files that were read, and the warnings in the order of the file.
    ///
    /// # Errors
    /// The faults, if there are any.
    pub(super) fn conclude(&self) -> Result<(Files, Vec<Fault>), Faults> {
        if !self.faults.borrow().is_empty() {
            return Err(self.faults());
        }
        let warnings = in_order(self.warnings.take());
        Ok((self.files.take(), warnings))
    }

    /// Returns the faults, in the order of the file.
    pub(super) fn faults(&self) -> Faults {
        Faults {
            faults: in_order(self.faults.take()),
            files: self.files.take(),
        }
    }

    /// Resolves a path.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// Resolves the path of a file to be read, and watches it: a change of the file changes the
    /// configuration.
    ///
    /// # Errors
    /// [`Unfit`] if the file must not be read.
    pub(super) fn to_read(&self, path: &Path) -> Result<PathBuf, Unfit> {
        let path = self.path(path);
        self.note(&path)?;
        Ok(path)
    }

    /// As [`LoadContext::to_read`] for the file in `spanned`; reports a fault with `remedy` if the
    /// file must not be read.
    pub(super) fn readable(&self, spanned: &Spanned<PathBuf>, remedy: &str) -> Option<PathBuf> {
        let path = self.to_read(&spanned.value);
        self.sound(path, &spanned.location, self.file_remedy(remedy))
    }

    /// Watches a file that is about to be read.
    ///
    /// # Errors
    /// [`Unfit`] if the file must not be read.
    pub(super) fn note(&self, path: &Path) -> Result<(), Unfit> {
        self.files.borrow_mut().note(path)
    }

    /// Extends `remedy` by the directory from which relative paths start.
    pub(super) fn file_remedy(&self, remedy: &str) -> String {
        let base = directory(self.base);
        format!("{remedy} (a relative path counts from {base})")
    }
}

/// Names a directory in a message; an empty path is the working directory.
pub(super) fn directory(path: &Path) -> String {
    match path.as_os_str().is_empty() {
        true => "the working directory".to_owned(),
        false => path.display().to_string(),
    }
}
