//! A client's id and secret, each from the one source that is configured.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::context::LoadContext;
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
    pub(super) given: Vec<Source>,
    /// A further source is faulty and already reported.
    pub(super) faulty: bool,
}

/// A source of an id, a secret or a key.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The value itself. An id is also treated as a secret until it is validated.
    Inline(Spanned<Secret>),
    /// The content of a file.
    File(Spanned<PathBuf>),
    /// The value of a variable.
    Variable(Spanned<String>),
    /// A member of a JSON file that has both.
    Json(Spanned<PathBuf>),
}

impl Sources {
    /// Adds a source if it is given.
    pub(super) fn and<T: Clone>(
        mut self,
        field: &Field<T>,
        source: impl FnOnce(Spanned<T>) -> Source,
    ) -> Sources {
        self.faulty |= matches!(field, Field::Faulty);
        self.given.extend(field.given().cloned().map(source));
        self
    }
}

impl Source {
    /// The location of the key that gives it.
    pub(super) fn location(&self) -> &Location {
        match self {
            Source::Inline(spanned) => &spanned.location,
            Source::File(spanned) | Source::Json(spanned) => &spanned.location,
            Source::Variable(spanned) => &spanned.location,
        }
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
        ([Source::Json(both)], [Source::Json(_)]) => Credentials::File(context.path(&both.value)),
        ([Source::File(id)], [Source::File(secret)]) => Credentials::Files {
            id: context.path(&id.value),
            secret: context.path(&secret.value),
        },
        _ => Credentials::Elsewhere,
    };
    let id = self::id(id, &raw.location, context);
    if let (Some(id), Field::Given(_)) = (&id, &raw.client_id) {
        raw.show_as("client_id", id.as_str());
    }
    let secret = self::secret(secret, &raw.location, context);
    (location, id, secret)
}

/// Reads the client's id. `client` is the location of its table.
fn id(sources: Sources, client: &Location, context: &LoadContext<'_>) -> Option<ClientId> {
    let source = only(sources, client, "client_id", context)?;
    let text = match &source {
        Source::Inline(text) => text.value.clone(),
        Source::File(path) => file(path, context)?,
        Source::Variable(name) => variable(name, context)?,
        Source::Json(path) => Secret::from(both(path, context)?.client_id),
    };
    let location = source.location();
    let remedy = "give the id that Collibra shows in Settings, OAuth applications";
    let id = ClientId::parse(text.expose());
    context.sound(id.map_err(|error| location.fault(error.to_string(), remedy)))
}

/// The byte order mark that may precede UTF-8 text (RFC 3629, section 6).
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads the client's secret. `client` is the location of its table.
fn secret(sources: Sources, client: &Location, context: &LoadContext<'_>) -> Option<Secret> {
    let source = only(sources, client, "client_secret", context)?;
    let location = source.location();
    let text = match &source {
        Source::Inline(text) => {
            if location.in_file() {
                context.warning(location.fault(
                    "the secret stands in the configuration, which is often copied and committed",
                    "keep it in a file and name that with `client_secret_file`",
                ));
            }
            text.value.clone()
        }
        Source::File(path) => secret_file(path, context)?,
        Source::Variable(name) => variable(name, context)?,
        Source::Json(path) => {
            let both = both(path, context);
            warn_of_readers(path, context);
            Secret::from(both?.client_secret)
        }
    };
    let remedy = "give the secret that Collibra showed when the application was registered";
    let secret = Secret::parse(text.expose());
    context.sound(secret.map_err(|error| location.fault(error.to_string(), remedy)))
}

/// Reads a file that other users should not be able to read.
pub(super) fn secret_file(file: &Spanned<PathBuf>, context: &LoadContext<'_>) -> Option<Secret> {
    let text = self::file(file, context);
    warn_of_readers(file, context);
    text
}

/// Warns about a file with a secret that others can read, or that changes unseen.
fn warn_of_readers(file: &Spanned<PathBuf>, context: &LoadContext<'_>) {
    warn_if_readable_by_all(file, context);
    // systemd copied it for the service (systemd.exec(5), Credentials)
    let own = (context.env)("CREDENTIALS_DIRECTORY");
    let mut copies = [Some("/run/credentials"), own.as_deref()]
        .into_iter()
        .flatten();
    let path = context.path(&file.value);
    if copies.any(|folder| path.starts_with(folder)) {
        context.warning(file.location.fault(
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

/// Returns the one source of `key`; none or several are faults.
fn only(
    sources: Sources,
    client: &Location,
    key: &str,
    context: &LoadContext<'_>,
) -> Option<Source> {
    let Sources { given, faulty } = sources;
    match given.len() {
        0 if !faulty => {
            let (key, remedy) = match (client.in_file(), key) {
                (true, "client_id") => (
                    key,
                    "write `client_id_file`, `client_id_env` or `credentials_file`, or `client_id` itself",
                ),
                (true, _) => (
                    key,
                    "write `client_secret_file`, `client_secret_env` or `credentials_file`",
                ),
                (false, "client_id") => (
                    key,
                    "give --client-id or --client-id-file, or set COLLIBRA_CLIENT_ID",
                ),
                (false, _) => (
                    "client_secret_file",
                    "give --client-secret-file, or set COLLIBRA_CLIENT_SECRET",
                ),
            };
            context.fault(client.child(key).fault("it is missing", remedy));
            None
        }
        0 | 1 => given.into_iter().next().filter(|_| !faulty),
        count => {
            let keys = given
                .iter()
                .map(|source| source.location().fault("", "").key);
            let keys: Vec<String> = keys
                .map(|key| key.rsplit('.').next().unwrap_or_default().to_owned())
                .collect();
            let keys = listed(keys.iter().map(String::as_str));
            let problem = format!("it is given {count} times: {keys}");
            context.fault(client.child(key).fault(problem, "keep one of them"));
            None
        }
    }
}

/// Reads a small file as text.
pub(super) fn file(file: &Spanned<PathBuf>, context: &LoadContext<'_>) -> Option<Secret> {
    context.sound(read(file, context).map_err(|problem| {
        let remedy = context.file_remedy("name a file that this user can read");
        file.location.fault(problem, remedy)
    }))
}

/// Reads a variable.
pub(super) fn variable(name: &Spanned<String>, context: &LoadContext<'_>) -> Option<Secret> {
    let value = (context.env)(&name.value).map(Secret::from);
    context.sound(value.ok_or_else(|| {
        name.location.fault(
            "the environment variable that it names is not set",
            "set it, or write the name of another; the name only, without `$`",
        )
    }))
}

fn both(file: &Spanned<PathBuf>, context: &LoadContext<'_>) -> Option<Both> {
    const REMEDY: &str = "it should be JSON: {\"client_id\": \"…\", \"client_secret\": \"…\"}";
    let text = self::file(file, context)?;
    // the parser's own message may quote its input
    context.sound(serde_json::from_str(text.expose()).map_err(|error| {
        let problem = if error.is_data() {
            "the file lacks client_id or client_secret, or has one that is no string".to_owned()
        } else {
            let (line, column) = (error.line(), error.column());
            format!("the file is not JSON: see its line {line}, column {column}")
        };
        file.location.fault(problem, REMEDY)
    }))
}

/// Reads a small file as text. Removes and reports a byte order mark, which some editors add.
fn read(file: &Spanned<PathBuf>, context: &LoadContext<'_>) -> Result<Secret, String> {
    let path = context
        .to_read(&file.value)
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
        context.warning(file.location.fault(
            "the file begins with a byte order mark, which is cut",
            "write it as UTF-8 without one",
        ));
    }
    Ok(Secret::from(text.to_string()))
}

pub(super) const CA_REMEDY: &str = "name a PEM file with your authority's certificate";

/// Reads the certificates of authorities in a file.
pub(super) fn ca_file(
    spanned: &Spanned<PathBuf>,
    remedy: &str,
    context: &LoadContext<'_>,
) -> Option<CaFile> {
    let read = CaFile::read(&context.readable(spanned, remedy)?);
    context.sound(read.map_err(|error| {
        let remedy = context.file_remedy(remedy);
        spanned.location.fault(error.reason.to_string(), remedy)
    }))
}

/// Warns if every user can read a file with a secret.
pub(super) fn warn_if_readable_by_all(file: &Spanned<PathBuf>, context: &LoadContext<'_>) {
    let metadata = std::fs::metadata(context.path(&file.value));
    if metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
        context.warning(file.location.fault(
            "every user of this machine can read the file",
            "chmod o-r it; for a mounted Kubernetes secret set defaultMode: 0440 and an fsGroup",
        ));
    }
}
