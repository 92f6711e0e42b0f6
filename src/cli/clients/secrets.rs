//! Passwords and tokens: from a file, the environment or a prompt without echo; never from the
//! command line, which every user of a machine sees.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, bail};
use secrecy::zeroize::Zeroizing;

use crate::cli::Usage;
use crate::cli::source::environment;
use crate::secret::Secret;

/// The variable that holds a user's password.
pub(super) const PASSWORD: &str = "COLLIBRA_PASSWORD";
/// The variable that holds an access token.
pub(super) const TOKEN: &str = "COLLIBRA_TOKEN";

/// Nothing that holds a secret is larger than this.
const LARGEST: u64 = 64 * 1024;

/// The password of `user`: from `file`, else from the environment, else from the terminal.
///
/// # Errors
/// If there is none, or it cannot be read.
pub(super) fn password(user: &str, file: Option<&Path>) -> anyhow::Result<Secret> {
    if let Some(path) = file {
        return of_file(path);
    }
    if let Some(password) = variable(PASSWORD)? {
        return Ok(password);
    }
    if !io::stdin().is_terminal() {
        let missing = format!(
            "there is no terminal to ask for the password of {user}: give --password-file, or set {PASSWORD}"
        );
        return Err(Usage(missing).into());
    }
    let typed = rpassword::prompt_password(format!("Password of {user}: "));
    let typed = Zeroizing::new(typed.context("the password cannot be read from the terminal")?);
    Secret::parse(&typed).context("that is no password")
}

/// The secret in a variable; `None` if it is not set, or empty.
///
/// # Errors
/// If it cannot be a secret.
pub(super) fn variable(name: &str) -> anyhow::Result<Option<Secret>> {
    let value = environment(name).filter(|value| !value.is_empty());
    let value = value.map(Zeroizing::new);
    let secret = value.map(|value| Secret::parse(&value)).transpose();
    secret.with_context(|| format!("the variable {name}"))
}

/// The secret in a file, a line break at its end left out.
///
/// # Errors
/// If it cannot be read or holds none.
pub(super) fn of_file(path: &Path) -> anyhow::Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    let length = File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        .with_context(|| format!("{} cannot be read", path.display()))?;
    if u64::try_from(length).is_ok_and(|length| length > LARGEST) {
        bail!("{} is larger than 64 KiB: no secret is", path.display());
    }
    // a byte order mark is some editor's and not the secret's
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Secret::parse(text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_secret_is_its_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "open sesame\n").unwrap();
        assert_eq!(of_file(&path).unwrap().expose(), "open sesame");
        for wrong in ["", "cAnArY\ncAnArY", &"cAnArY".repeat(20_000)] {
            std::fs::write(&path, wrong).unwrap();
            let error = format!("{:#}", of_file(&path).unwrap_err());
            assert!(error.contains("password"), "{error}");
            assert!(!error.contains("cAnArY"), "{error}");
        }
        let error = format!("{:#}", of_file(&directory.path().join("x")).unwrap_err());
        assert!(error.contains("cannot be read"), "{error}");
    }
}
