//! Tests of the configuration as a whole.

mod apps;
mod canary;
mod effective;
mod faults;
mod flags;
mod listeners;
mod samples;
mod sound;

use super::*;

/// Reads `text` as the file `proxy.toml`, in a working directory without files, with an empty
/// environment.
pub(super) fn read(text: &str) -> Result<Config, Faults> {
    read_with(text, Path::new("/nonexistent"), &|_| None)
}

/// As [`read`], with files and an environment.
pub(super) fn read_with(
    text: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Faults> {
    let origin = Origin::File(Arc::new("proxy.toml".into()));
    let mut report = Report::default();
    let raw = raw::read(text, &origin, &mut report);
    conclude(raw, &LoadContext::of(base, env), report)
}

/// What is said about `text`: its faults, or else its warnings.
fn report(text: &str) -> String {
    match read(text) {
        Err(faults) => faults.to_string(),
        Ok(config) => {
            let warnings: Vec<String> = config.warnings.iter().map(Fault::to_string).collect();
            warnings.join("\n")
        }
    }
}

/// A file in which nothing is at fault, with `instance`, `client` and `listener` added to their
/// tables.
fn with(instance: &str, client: &str, listener: &str) -> String {
    format!(
        "[instance.acme]\nurl = \"https://acme.example\"\n{instance}\n\
         [client.catalog]\nclient_id = \"id\"\nclient_secret = \"s\"\n{client}\n\
         [listener.local]\naddress = \"127.0.0.1:8080\"\n{listener}\n"
    )
}
