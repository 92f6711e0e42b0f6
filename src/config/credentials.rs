//! A client's id and secret, each from the one source that is configured.

use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::Credentials;
use super::fault::{Origin, Report};
use super::location::{Location, Spanned};
use super::nearest::listed;
use super::parse::LoadContext;
use super::raw::{Source, Sources};
use crate::client_id::ClientId;
use crate::secret::Secret;

/// The largest file that may hold an id or a secret.
const LARGEST: u64 = 64 * 1024;

/// The sources of both.
pub(super) fn location(id: &Sources, secret: &Sources, context: &LoadContext<'_>) -> Credentials {
    let only = |sources: &Sources| match &sources.given[..] {
        [one] => Some(one.value.clone()),
        _ => None,
    };
    match (only(id), only(secret)) {
        (Some(Source::Json(path)), Some(Source::Json(_))) => Credentials::File(context.path(&path)),
        (Some(Source::File(id)), Some(Source::File(secret))) => Credentials::Files {
            id: context.path(&id),
            secret: context.path(&secret),
        },
        _ => Credentials::Elsewhere,
    }
}

/// Reads the client's id. `client` is the location of its table.
pub(super) fn id(
    sources: Sources,
    client: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<ClientId> {
    let source = only(sources, client, "client_id", report)?;
    let text = match &source.value {
        Source::Inline(text) => Some(text.clone()),
        Source::File(path) => file(path, &source.location, context, report),
        Source::Variable(name) => variable(name, &source.location, context, report),
        Source::Json(path) => both(path, &source.location, context, report)
            .map(|credentials| Secret::from(credentials.client_id)),
    }?;
    match ClientId::parse(text.expose()) {
        Ok(id) => Some(id),
        Err(error) => {
            report.fault(source.location.fault(
                error.to_string(),
                "give the id that Collibra shows in Settings, OAuth applications",
            ));
            None
        }
    }
}

/// The byte order mark that may precede UTF-8 text (RFC 3629, section 6).
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads the client's secret. `client` is the location of its table.
pub(super) fn secret(
    sources: Sources,
    client: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Secret> {
    let source = only(sources, client, "client_secret", report)?;
    let text = match &source.value {
        Source::Inline(text) => {
            if source.location.in_file() {
                report.warning(source.location.fault(
                    "the secret stands in the configuration, which is often copied and committed",
                    "keep it in a file and name that with `client_secret_file`",
                ));
            }
            Some(text.clone())
        }
        Source::File(path) => secret_file(path, &source.location, context, report),
        Source::Variable(name) => variable(name, &source.location, context, report),
        Source::Json(path) => {
            let both = both(path, &source.location, context, report);
            warn_if_readable_by_all(path, &source.location, context, report);
            warn_if_copied(path, &source.location, context, report);
            both.map(|credentials| Secret::from(credentials.client_secret))
        }
    }?;
    match Secret::parse(text.expose()) {
        Ok(secret) => Some(secret),
        Err(error) => {
            report.fault(source.location.fault(
                error.to_string(),
                "give the secret that Collibra showed when the application was registered",
            ));
            None
        }
    }
}

/// Reads a file, including a line break at its end.
pub(super) fn secret_in_file(
    spanned: &Spanned<PathBuf>,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Secret> {
    secret_file(&spanned.value, &spanned.location, context, report)
}

/// Reads a file that other users should not be able to read.
pub(super) fn secret_file(
    path: &Path,
    location: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Secret> {
    let text = file(path, location, context, report);
    warn_if_readable_by_all(path, location, context, report);
    warn_if_copied(path, location, context, report);
    text
}

/// Warns if systemd copied the file for the service (systemd.exec(5), Credentials).
fn warn_if_copied(
    path: &Path,
    location: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) {
    let own = (context.env)("CREDENTIALS_DIRECTORY");
    let copies = [Some("/run/credentials"), own.as_deref()];
    let path = context.path(path);
    if copies
        .into_iter()
        .flatten()
        .any(|folder| path.starts_with(folder))
    {
        report.warning(location.fault(
            "systemd copies this file when the service starts: a rotated secret is not seen before the next start",
            "name the file itself, readable by the service's group, or restart the service after a rotation",
        ));
    }
}

/// The response to a registration; other fields are ignored.
#[derive(Deserialize)]
struct Both {
    client_id: String,
    client_secret: String,
}

fn only(
    sources: Sources,
    client: &Location,
    what: &str,
    report: &mut Report,
) -> Option<Spanned<Source>> {
    let mut given = sources.given.into_iter();
    match (given.next(), given.next()) {
        (Some(one), None) if !sources.faulty => Some(one),
        (Some(one), Some(second)) => {
            let keys: Vec<String> = [one, second]
                .into_iter()
                .chain(given)
                .map(|source| source.location.fault("", "").key)
                .map(|key| key.rsplit('.').next().unwrap_or_default().to_owned())
                .collect();
            report.fault(client.child(what).fault(
                format!(
                    "it is given {} times: {}",
                    keys.len(),
                    listed(keys.iter().map(String::as_str))
                ),
                "keep one of them",
            ));
            None
        }
        (None, _) if !sources.faulty => {
            let remedy = match (&client.origin, what) {
                (Origin::File(_), _) => format!(
                    "write `{what}_file`, `{what}_env` or `credentials_file`{}",
                    if what == "client_id" {
                        ", or `client_id` itself"
                    } else {
                        ""
                    }
                ),
                (_, "client_id") => {
                    "give --client-id or --client-id-file, or set COLLIBRA_CLIENT_ID".into()
                }
                _ => "give --client-secret-file, or set COLLIBRA_CLIENT_SECRET".into(),
            };
            let what = if client.in_file() || what == "client_id" {
                what
            } else {
                "client_secret_file"
            };
            report.fault(client.child(what).fault("it is missing", remedy));
            None
        }
        _ => None,
    }
}

pub(super) fn file(
    path: &Path,
    location: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Secret> {
    match read(path, location, context, report) {
        Ok(text) => Some(Secret::from(text.to_string())),
        Err(problem) => {
            let remedy = context.file_remedy("name a file that this user can read");
            report.fault(location.fault(problem, remedy));
            None
        }
    }
}

pub(super) fn variable(
    name: &str,
    location: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Secret> {
    let value = (context.env)(name);
    if value.is_none() {
        report.fault(location.fault(
            "the environment variable that it names is not set",
            "set it, or write the name of another; the name only, without `$`",
        ));
    }
    value.map(Secret::from)
}

fn both(
    path: &Path,
    location: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Both> {
    const REMEDY: &str = "it should be JSON: {\"client_id\": \"…\", \"client_secret\": \"…\"}";
    let text = match read(path, location, context, report) {
        Ok(text) => text,
        Err(problem) => {
            let remedy = context.file_remedy("name a file that this user can read");
            report.fault(location.fault(problem, remedy));
            return None;
        }
    };
    // the parser's own message may quote its input
    let problem = match serde_json::from_str(&text) {
        Ok(credentials) => return Some(credentials),
        Err(error) if error.is_data() => {
            "the file lacks client_id or client_secret, or has one that is no string".to_owned()
        }
        Err(error) => format!(
            "the file is not JSON: see its line {}, column {}",
            error.line(),
            error.column()
        ),
    };
    report.fault(location.fault(problem, REMEDY));
    None
}

/// Reads a small file as text. Removes and reports a byte order mark, which some editors add.
pub(super) fn read(
    path: &Path,
    location: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Result<Zeroizing<String>, String> {
    let path = context.to_read(path).map_err(|unfit| unfit.to_string())?;
    let mut text = Zeroizing::new(String::new());
    let length = std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        .map_err(|error| format!("the file cannot be read: {error}"))?;
    if u64::try_from(length).is_ok_and(|length| length > LARGEST) {
        return Err("the file is larger than 64 KiB".into());
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
        report.warning(location.fault(
            "the file begins with a byte order mark, which is cut",
            "write it as UTF-8 without one",
        ));
    }
    Ok(text)
}

/// Warns if every user can read a file with a secret.
#[cfg(unix)]
pub(super) fn warn_if_readable_by_all(
    path: &Path,
    location: &Location,
    context: &LoadContext<'_>,
    report: &mut Report,
) {
    use std::os::unix::fs::PermissionsExt;

    let others_may_read = std::fs::metadata(context.path(path))
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
    if others_may_read {
        report.warning(location.fault(
            "every user of this machine can read the file",
            "chmod o-r it; for a mounted Kubernetes secret set defaultMode: 0440 and an fsGroup",
        ));
    }
}

#[cfg(not(unix))]
pub(super) fn warn_if_readable_by_all(_: &Path, _: &Location, _: &LoadContext<'_>, _: &mut Report) {
}
