//! Where the configuration comes from: a file, or flags and the environment.

use std::path::PathBuf;

use super::Usage;
use crate::config::{self, Config, Faults, Flags};

/// The configuration's file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigFile {
    /// The configuration file (TOML) [env: COLLIBRA_AUTH_PROXY_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The configuration's source.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Source {
    /// The configuration's file.
    #[command(flatten)]
    pub file: ConfigFile,
    /// The configuration without a file.
    #[command(flatten)]
    pub flags: Flags,
}

impl ConfigFile {
    /// The path: that of `--config`, or else that in the variable.
    fn path(&self, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
        let named = || env(config::FILE_VARIABLE).map(PathBuf::from);
        self.config.clone().or_else(named)
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`Usage`] with `missing` if no file is named, or every fault of the configuration.
    pub(super) fn load(&self, missing: &str) -> anyhow::Result<Config> {
        let path = self.path(&environment);
        let path = path.ok_or_else(|| Usage(missing.to_owned()))?;
        Ok(config::load(&path, &environment)?)
    }
}

impl Source {
    /// Reads the configuration. A file cannot be combined with other flags.
    ///
    /// # Errors
    /// Every fault of the configuration.
    pub fn load(&self) -> Result<Config, Faults> {
        self.load_with(&environment)
    }

    fn load_with(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
        let given = self.flags.given();
        match (self.file.path(env), &self.file.config) {
            (None, _) => config::from_flags(self.flags.clone(), env),
            (Some(path), _) if given.is_empty() => config::load(&path, env),
            (_, Some(_)) => Err(Faults::flags_beside_file("--config", &given)),
            (_, None) => Err(Faults::flags_beside_file(config::FILE_VARIABLE, &given)),
        }
    }
}

/// The value of a variable of this process. One that is empty counts as not set.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        source: Source,
    }

    fn load(words: &[&str], env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
        let words = ["x"].iter().chain(words);
        Cli::try_parse_from(words).unwrap().source.load_with(env)
    }

    #[test]
    fn flags_and_a_file_do_not_go_together() {
        let words = [
            "--config",
            "a.toml",
            "--listen",
            "127.0.0.1:1",
            "--threads",
            "2",
        ];
        let faults = load(&words, &|_| None).unwrap_err();
        insta::assert_snapshot!(faults, @"command line: --listen, --threads: --config names a file, and these apply only without one; leave them out and write them in the file, or name no file");

        let env = |name: &str| (name == config::FILE_VARIABLE).then(|| "a.toml".to_owned());
        let faults = load(&["--host", "a"], &env).unwrap_err();
        insta::assert_snapshot!(faults, @"command line: --host: COLLIBRA_AUTH_PROXY_CONFIG names a file, and these apply only without one; leave them out and write them in the file, or name no file");
    }

    #[test]
    fn the_variable_names_the_file_unless_the_flag_does() {
        let env = |name: &str| (name == config::FILE_VARIABLE).then(|| "/none/b.toml".to_owned());
        let by_variable = load(&[], &env).unwrap_err().to_string();
        assert!(
            by_variable.starts_with("/none/b.toml: it cannot be read"),
            "{by_variable}"
        );
        let by_flag = load(&["--config", "/none/a.toml"], &env)
            .unwrap_err()
            .to_string();
        assert!(
            by_flag.starts_with("/none/a.toml: it cannot be read"),
            "{by_flag}"
        );
    }

    #[test]
    fn every_flag_that_can_be_given_is_known_as_given() {
        use clap::CommandFactory;

        let command = Cli::command();
        for argument in command.get_arguments() {
            let long = format!("--{}", argument.get_long().unwrap());
            if long == "--config" || long == "--help" {
                continue;
            }
            let value = match long.as_str() {
                "--listen" | "--admin" => Some("127.0.0.1:0"),
                "--pool-refill" | "--token-timeout" | "--wait-for-token" | "--drain" => Some("1s"),
                "--pool-capacity" | "--threads" => Some("1"),
                "--auth-method" => Some("client_secret_post"),
                "--allow-insecure" | "--allow-unauthenticated" => None,
                _ => Some("x"),
            };
            let words = ["x", long.as_str()].into_iter().chain(value);
            let source = Cli::try_parse_from(words).unwrap().source;
            assert_eq!(source.flags.given(), [long.as_str()]);
        }
    }
}
