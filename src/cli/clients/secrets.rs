//! Reads passwords and tokens from a file, the environment or a prompt without echo. Never from the
//! command line, which every user of a machine can see.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, ensure};
use secrecy::zeroize::Zeroizing;

use crate::cli::Usage;
use crate::cli::source::environment;
use crate::secret::Secret;

/// The variable that holds a user's password.
pub(super) const PASSWORD: &str = "COLLIBRA_PASSWORD";
/// The variable that holds an access token.
pub(super) const TOKEN: &str = "COLLIBRA_TOKEN";

/// The largest file with a secret, in bytes.
const LARGEST: u64 = 64 * 1024;

/// The password of `user`: from `file`, the environment or the terminal, in this order.
///
/// # Errors
/// If there is none, or it cannot be read.
pub(super) fn password(user: &str, file: Option<&Path>) -> anyhow::Result<Secret> {
    if let Some(path) = file {
        return read_file(path);
    }
    if let Some(password) = variable(PASSWORD)? {
        return Ok(password);
    }
    let missing = || {
        Usage(format!(
            "there is no terminal to ask for the password of {user}: give --password-file, or set {PASSWORD}"
        ))
    };
    ensure!(io::stdin().is_terminal(), missing());
    let typed = rpassword::prompt_password(format!("Password of {user}: "));
    let typed = Zeroizing::new(typed.context("the password cannot be read from the terminal")?);
    Secret::parse(&typed).context("this is not a valid password")
}

/// The secret in a variable; `None` if it is unset or empty.
///
/// # Errors
/// If it is not a valid secret.
pub(super) fn variable(name: &str) -> anyhow::Result<Option<Secret>> {
    let value = environment(name).map(Zeroizing::new);
    let secret = value.map(|value| Secret::parse(&value)).transpose();
    secret.with_context(|| format!("the variable {name}"))
}

/// Reads the secret in a file, without a line break at its end.
///
/// # Errors
/// If the file cannot be read or has no valid secret.
pub(super) fn read_file(path: &Path) -> anyhow::Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    let length = File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        .with_context(|| format!("{} cannot be read", path.display()))?;
    ensure!(
        u64::try_from(length).is_ok_and(|length| length <= LARGEST),
        "{} is larger than 64 KiB: this is not a secret",
        path.display()
    );
    // a byte order mark comes from an editor, not from the secret
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
        assert_eq!(read_file(&path).unwrap().expose(), "open sesame");
        for wrong in ["", "cAnArY\ncAnArY", &"cAnArY".repeat(20_000)] {
            std::fs::write(&path, wrong).unwrap();
            let error = format!("{:#}", read_file(&path).unwrap_err());
            assert!(error.contains("password"), "{error}");
            assert!(!error.contains("cAnArY"), "{error}");
        }
        let error = format!("{:#}", read_file(&directory.path().join("x")).unwrap_err());
        assert!(error.contains("cannot be read"), "{error}");
    }
}
