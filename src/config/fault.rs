//! The faults of a configuration: what is wrong, where, and what to write instead.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::watch::Files;

/// A fault or warning. Its text quotes keys and names, never a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The source of the configuration.
    pub origin: Origin,
    /// The key, like `client.catalog.client_secret_file`, the flag or the variable; empty if none
    /// applies.
    pub key: String,
    /// The line in the file, counted from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to do, or to write instead.
    pub remedy: String,
}

/// The source of a part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A file.
    File(Arc<PathBuf>),
    /// The command line.
    CommandLine,
    /// The environment.
    Environment,
}

/// All faults of a configuration, at least one, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    pub(super) faults: Vec<Fault>,
    pub(super) files: Files,
}

impl Faults {
    /// The faults.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// The files that were read. A change of one may fix the faults.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Returns the fault of giving `flags` although `named` names a file.
    #[must_use]
    pub fn flags_beside_file(named: &str, flags: &[&str]) -> Faults {
        let fault = Fault {
            origin: Origin::CommandLine,
            key: flags.join(", "),
            line: None,
            problem: format!("{named} names a file, and these would count without one only"),
            remedy: "leave them out and write them in the file, or name no file".into(),
        };
        Faults {
            faults: vec![fault],
            files: Files::default(),
        }
    }
}

/// Sorts faults in the order of the file and drops duplicates.
pub(super) fn in_order(faults: &mut Vec<Fault>) {
    faults.sort_by_key(|fault| (fault.origin.clone(), fault.line));
    let mut seen = HashSet::with_capacity(faults.len());
    faults.retain(|fault| seen.insert(fault.clone()));
}

/// `FILE:LINE: KEY: what is wrong; what to write instead`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.origin)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}; {}", self.problem, self.remedy)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::CommandLine => f.write_str("command line"),
            Origin::Environment => f.write_str("environment"),
        }
    }
}

/// One fault per line.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.iter().map(Fault::to_string).collect();
        f.write_str(&faults.join("\n"))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_the_order_of_the_file_and_each_once() {
        let fault = |line: Option<usize>, key: &str| Fault {
            origin: Origin::CommandLine,
            key: key.to_owned(),
            line,
            problem: "wrong".to_owned(),
            remedy: "write another".to_owned(),
        };
        let mut faults = [
            (Some(2), "c"),
            (Some(1), "b"),
            (Some(1), "a"),
            (Some(1), "b"),
            (None, "d"),
            (Some(2), "b"),
        ]
        .map(|(line, key)| fault(line, key))
        .to_vec();
        in_order(&mut faults);
        let expected = [
            fault(None, "d"),
            fault(Some(1), "b"),
            fault(Some(1), "a"),
            fault(Some(2), "c"),
            fault(Some(2), "b"),
        ];
        assert_eq!(faults, expected);
    }
}
