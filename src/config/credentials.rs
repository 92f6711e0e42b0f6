//! A client's id and secret, each from the one source that is configured.

use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::context::LoadContext;
use super::fault::Origin;
use super::location::{Field, Location, Spanned};
use super::nearest::listed;
use super::settings::Credentials;
use super::tables;
use crate::client_id::ClientId;
use crate::secret::Secret;
use crate::tls::CaFile;

/// The largest file that may hold an id or a secret.
const LARGEST: u64 = 64 * 1024;

/// The sources given for an id, a secret or a key; exactly one is valid.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) given: Vec<Spanned<Source>>,
    /// A further source is faulty and already reported.
    pub(super) faulty: bool,
}

/// A source of an id, a secret or a key.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The value itself. An id is also treated as a secret until it is validated.
    Inline(Secret),
    /// The content of a file.
    File(PathBuf),
    /// The value of a variable.
    Variable(String),
    /// A member of a JSON file that has both.
    Json(PathBuf),
}

impl Sources {
    /// Adds a source if it is given.
    pub(super) fn and<T: Clone>(
        mut self,
        field: &Field<T>,
        source: impl FnOnce(T) -> Source,
    ) -> Sources {
        match field {
            Field::Absent => {}
            Field::Faulty => self.faulty = true,
            Field::Given(spanned) => self.given.push(Spanned {
                value: source(spanned.value.clone()),
                location: spanned.location.clone(),
            }),
        }
        self
    }
}

/// Reads the client's id and secret, and returns their sources too.
pub(super) fn of_client(
    raw: &tables::Client,
    context: &LoadContext<'_>,
) -> (Credentials, Option<ClientId>, Option<Secret>) {
    let id = Sources::default()
        .and(&raw.client_id, Source::Inline)
        .and(&raw.client_id_file, Source::File)
        .and(&raw.client_id_env, Source::Variable)
        .and(&raw.credentials_file, Source::Json);
    let secret = Sources::default()
        .and(&raw.client_secret, Source::Inline)
        .and(&raw.client_secret_file, Source::File)
        .and(&raw.client_secret_env, Source::Variable)
        .and(&raw.credentials_file, Source::Json);
    let location = match (&id.given[..], &secret.given[..]) {
        ([id], [secret]) => match (&id.value, &secret.value) {
            (Source::Json(path), Source::Json(_)) => Credentials::File(context.path(path)),
            (Source::File(id), Source::File(secret)) => Credentials::Files {
                id: context.path(id),
                secret: context.path(secret),
            },
            _ => Credentials::Elsewhere,
        },
        _ => Credentials::Elsewhere,
    };
    let id = self::id(id, &raw.location, context);
    if let (Some(id), Field::Given(_)) = (&id, &raw.client_id) {
        raw.shown.set("client_id", id.as_str());
    }
    let secret = self::secret(secret, &raw.location, context);
    (location, id, secret)
}

/// Reads the client's id. `client` is the location of its table.
fn id(sources: Sources, client: &Location, context: &LoadContext<'_>) -> Option<ClientId> {
    let source = only(sources, client, "client_id", context)?;
    let text = match &source.value {
        Source::Inline(text) => Some(text.clone()),
        Source::File(path) => file(path, &source.location, context),
        Source::Variable(name) => variable(name, &source.location, context),
        Source::Json(path) => both(path, &source.location, context)
            .map(|credentials| Secret::from(credentials.client_id)),
    }?;
    match ClientId::parse(text.expose()) {
        Ok(id) => Some(id),
        Err(error) => {
            context.fault(source.location.fault(
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
fn secret(sources: Sources, client: &Location, context: &LoadContext<'_>) -> Option<Secret> {
    let source = only(sources, client, "client_secret", context)?;
    let text = match &source.value {
        Source::Inline(text) => {
            if source.location.in_file() {
                context.warning(source.location.fault(
                    "the secret stands in the configuration, which is often copied and committed",
                    "keep it in a file and name that with `client_secret_file`",
                ));
            }
            Some(text.clone())
        }
        Source::File(path) => secret_file(path, &source.location, context),
        Source::Variable(name) => variable(name, &source.location, context),
        Source::Json(path) => {
            let both = both(path, &source.location, context);
            warn_if_readable_by_all(path, &source.location, context);
            warn_if_copied(path, &source.location, context);
            both.map(|credentials| Secret::from(credentials.client_secret))
        }
    }?;
    match Secret::parse(text.expose()) {
        Ok(secret) => Some(secret),
        Err(error) => {
            context.fault(source.location.fault(
                error.to_string(),
                "give the secret that Collibra showed when the application was registered",
            ));
            None
        }
    }
}

/// Reads a file that other users should not be able to read.
pub(super) fn secret_file(
    path: &Path,
    location: &Location,
    context: &LoadContext<'_>,
) -> Option<Secret> {
    let text = file(path, location, context);
    warn_if_readable_by_all(path, location, context);
    warn_if_copied(path, location, context);
    text
}

/// Warns if systemd copied the file for the service (systemd.exec(5), Credentials).
fn warn_if_copied(path: &Path, location: &Location, context: &LoadContext<'_>) {
    let own = (context.env)("CREDENTIALS_DIRECTORY");
    let copies = [Some("/run/credentials"), own.as_deref()];
    let path = context.path(path);
    if copies
        .into_iter()
        .flatten()
        .any(|folder| path.starts_with(folder))
    {
        context.warning(location.fault(
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
    context: &LoadContext<'_>,
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
            context.fault(client.child(what).fault(
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
            context.fault(client.child(what).fault("it is missing", remedy));
            None
        }
        _ => None,
    }
}

pub(super) fn file(path: &Path, location: &Location, context: &LoadContext<'_>) -> Option<Secret> {
    match read(path, location, context) {
        Ok(text) => Some(Secret::from(text.to_string())),
        Err(problem) => {
            let remedy = context.file_remedy("name a file that this user can read");
            context.fault(location.fault(problem, remedy));
            None
        }
    }
}

pub(super) fn variable(
    name: &str,
    location: &Location,
    context: &LoadContext<'_>,
) -> Option<Secret> {
    let value = (context.env)(name);
    if value.is_none() {
        context.fault(location.fault(
            "the environment variable that it names is not set",
            "set it, or write the name of another; the name only, without `$`",
        ));
    }
    value.map(Secret::from)
}

fn both(path: &Path, location: &Location, context: &LoadContext<'_>) -> Option<Both> {
    const REMEDY: &str = "it should be JSON: {\"client_id\": \"…\", \"client_secret\": \"…\"}";
    let text = file(path, location, context)?;
    // the parser's own message may quote its input
    let problem = match serde_json::from_str(text.expose()) {
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
    context.fault(location.fault(problem, REMEDY));
    None
}

/// Reads a small file as text. Removes and reports a byte order mark, which some editors add.
fn read(
    path: &Path,
    location: &Location,
    context: &LoadContext<'_>,
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
        context.warning(location.fault(
            "the file begins with a byte order mark, which is cut",
            "write it as UTF-8 without one",
        ));
    }
    Ok(text)
}

pub(super) const CA_REMEDY: &str = "name a PEM file with your authority's certificate";

/// Reads the certificates of authorities in a file.
pub(super) fn ca_file(
    spanned: &Spanned<PathBuf>,
    remedy: &str,
    context: &LoadContext<'_>,
) -> Option<CaFile> {
    let read = CaFile::read(&context.readable(spanned, remedy)?);
    let report = |error: crate::tls::Error| {
        let remedy = context.file_remedy(remedy);
        context.fault(spanned.location.fault(error.reason.to_string(), remedy));
    };
    read.map_err(report).ok()
}

/// Warns if every user can read a file with a secret.
#[cfg(unix)]
pub(super) fn warn_if_readable_by_all(path: &Path, location: &Location, context: &LoadContext<'_>) {
    use std::os::unix::fs::PermissionsExt;

    let others_may_read = std::fs::metadata(context.path(path))
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
    if others_may_read {
        context.warning(location.fault(
            "every user of this machine can read the file",
            "chmod o-r it; for a mounted Kubernetes secret set defaultMode: 0440 and an fsGroup",
        ));
    }
}

#[cfg(not(unix))]
pub(super) fn warn_if_readable_by_all(_: &Path, _: &Location, _: &LoadContext<'_>) {}
