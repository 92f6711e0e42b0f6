//! A client's id and secret: from the one source that is given for each.

use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::Credentials;
use super::fault::{Origin, Report};
use super::nearest::listed;
use super::parse::Surroundings;
use super::place::{Place, Typed};
use super::raw::{Source, Sources};
use crate::client_id::ClientId;
use crate::secret::Secret;

/// Nothing that holds an id or a secret is larger than this.
const LARGEST: u64 = 64 * 1024;

/// Where both are to be found.
pub(super) fn place(
    id: &Sources,
    secret: &Sources,
    surroundings: &Surroundings<'_>,
) -> Credentials {
    let only = |sources: &Sources| match &sources.given[..] {
        [one] => Some(one.value.clone()),
        _ => None,
    };
    match (only(id), only(secret)) {
        (Some(Source::Json(path)), Some(Source::Json(_))) => {
            Credentials::File(surroundings.path(&path))
        }
        (Some(Source::File(id)), Some(Source::File(secret))) => Credentials::Files {
            id: surroundings.path(&id),
            secret: surroundings.path(&secret),
        },
        _ => Credentials::Elsewhere,
    }
}

/// The client's id. `client` is the place of its table.
pub(super) fn id(
    sources: Sources,
    client: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<ClientId> {
    let source = only(sources, client, "client_id", report)?;
    let text = match &source.value {
        Source::Inline(text) => Some(text.clone()),
        Source::File(path) => file(path, &source.place, surroundings, report),
        Source::Variable(name) => variable(name, &source.place, surroundings, report),
        Source::Json(path) => both(path, &source.place, surroundings, report)
            .map(|credentials| Secret::from(credentials.client_id)),
    }?;
    match ClientId::parse(text.expose()) {
        Ok(id) => Some(id),
        Err(error) => {
            report.fault(source.place.fault(
                error.to_string(),
                "give the id that Collibra shows in Settings, OAuth applications",
            ));
            None
        }
    }
}

/// What may stand before a text in UTF-8 (RFC 3629, section 6).
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The client's secret. `client` is the place of its table.
pub(super) fn secret(
    sources: Sources,
    client: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Secret> {
    let source = only(sources, client, "client_secret", report)?;
    let text = match &source.value {
        Source::Inline(text) => {
            if source.place.in_file() {
                report.warning(source.place.fault(
                    "the secret stands in the configuration, which is often copied and committed",
                    "keep it in a file and name that with `client_secret_file`",
                ));
            }
            Some(text.clone())
        }
        Source::File(path) => secret_file(path, &source.place, surroundings, report),
        Source::Variable(name) => variable(name, &source.place, surroundings, report),
        Source::Json(path) => {
            let both = both(path, &source.place, surroundings, report);
            warn_if_readable_by_all(path, &source.place, surroundings, report);
            warn_if_copied(path, &source.place, surroundings, report);
            both.map(|credentials| Secret::from(credentials.client_secret))
        }
    }?;
    match Secret::parse(text.expose()) {
        Ok(secret) => Some(secret),
        Err(error) => {
            report.fault(source.place.fault(
                error.to_string(),
                "give the secret that Collibra showed when the application was registered",
            ));
            None
        }
    }
}

/// What a file holds, a line break at its end included.
pub(super) fn secret_in_file(
    typed: &Typed<PathBuf>,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Secret> {
    secret_file(&typed.value, &typed.place, surroundings, report)
}

/// As [`file`], for a file that not every user should read.
pub(super) fn secret_file(
    path: &Path,
    place: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Secret> {
    let text = file(path, place, surroundings, report);
    warn_if_readable_by_all(path, place, surroundings, report);
    warn_if_copied(path, place, surroundings, report);
    text
}

/// Warns of a file that systemd copied for the service (systemd.exec(5), Credentials).
fn warn_if_copied(
    path: &Path,
    place: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) {
    let own = (surroundings.env)("CREDENTIALS_DIRECTORY");
    let copies = [Some("/run/credentials"), own.as_deref()];
    let path = surroundings.path(path);
    if copies
        .into_iter()
        .flatten()
        .any(|folder| path.starts_with(folder))
    {
        report.warning(place.fault(
            "systemd copies this file when the service starts: a rotated secret is not seen before the next start",
            "name the file itself, readable by the service's group, or restart the service after a rotation",
        ));
    }
}

/// The form in which a registration is answered; what else it has is of no matter here.
#[derive(Deserialize)]
struct Both {
    client_id: String,
    client_secret: String,
}

fn only(
    sources: Sources,
    client: &Place,
    what: &str,
    report: &mut Report,
) -> Option<Typed<Source>> {
    let mut given = sources.given.into_iter();
    match (given.next(), given.next()) {
        (Some(one), None) if !sources.faulty => Some(one),
        (Some(one), Some(second)) => {
            let keys: Vec<String> = [one, second]
                .into_iter()
                .chain(given)
                .map(|source| source.place.fault("", "").key)
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
    place: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Secret> {
    match read(path, place, surroundings, report) {
        Ok(text) => Some(Secret::from(text.to_string())),
        Err(problem) => {
            let remedy = surroundings.file_remedy("name a file that this user can read");
            report.fault(place.fault(problem, remedy));
            None
        }
    }
}

pub(super) fn variable(
    name: &str,
    place: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Secret> {
    let value = (surroundings.env)(name);
    if value.is_none() {
        report.fault(place.fault(
            "the environment variable that it names is not set",
            "set it, or write the name of another; the name only, without `$`",
        ));
    }
    value.map(Secret::from)
}

fn both(
    path: &Path,
    place: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Both> {
    const REMEDY: &str = "it should be JSON: {\"client_id\": \"…\", \"client_secret\": \"…\"}";
    let text = match read(path, place, surroundings, report) {
        Ok(text) => text,
        Err(problem) => {
            let remedy = surroundings.file_remedy("name a file that this user can read");
            report.fault(place.fault(problem, remedy));
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
    report.fault(place.fault(problem, REMEDY));
    None
}

/// A small file's text. A byte order mark at its beginning, which some editors put there, is cut
/// and reported.
pub(super) fn read(
    path: &Path,
    place: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Result<Zeroizing<String>, String> {
    let path = surroundings
        .to_read(path)
        .map_err(|unfit| unfit.to_string())?;
    let mut text = Zeroizing::new(String::new());
    let length = std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        .map_err(|error| format!("the file cannot be read: {error}"))?;
    if u64::try_from(length).is_ok_and(|length| length > LARGEST) {
        return Err("the file is larger than 64 KiB".into());
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
        report.warning(place.fault(
            "the file begins with a byte order mark, which is cut",
            "write it as UTF-8 without one",
        ));
    }
    Ok(text)
}

/// Warns of a file with a secret that every user can read.
#[cfg(unix)]
pub(super) fn warn_if_readable_by_all(
    path: &Path,
    place: &Place,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) {
    use std::os::unix::fs::PermissionsExt;

    let others_may_read = std::fs::metadata(surroundings.path(path))
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
    if others_may_read {
        report.warning(place.fault(
            "every user of this machine can read the file",
            "chmod o-r it; for a mounted Kubernetes secret set defaultMode: 0440 and an fsGroup",
        ));
    }
}

#[cfg(not(unix))]
pub(super) fn warn_if_readable_by_all(_: &Path, _: &Place, _: &Surroundings<'_>, _: &mut Report) {}
