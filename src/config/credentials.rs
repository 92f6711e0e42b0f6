//! A client's id and secret, each from the one source that is configured.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::context::LoadContext;
use super::declare::Head;
use super::fault::{Location, Spanned};
use super::nearest::listed;
use super::settings::Credentials;
use super::tables;
use crate::client_id::ClientId;
use crate::clock::{Clock, SystemClock};
use crate::secret::Secret;
use crate::tls::{CaFile, Identity, Reason};

/// The largest file that may hold an id or a secret.
const LARGEST: u64 = 64 * 1024;

/// The byte order mark that may precede UTF-8 text (RFC 3629, section 6).
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A source of an id, a secret or a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// The value itself. An id is also treated as a secret until it is validated.
    Inline(&'a Spanned<Secret>),
    /// The content of a file.
    File(&'a Spanned<PathBuf>),
    /// The value of a variable.
    Variable(&'a Spanned<String>),
    /// A member of a JSON file that has both.
    Json(&'a Spanned<PathBuf>),
}

impl Source<'_> {
    /// The location of the key that gives it.
    pub(super) fn location(&self) -> &Location {
        match self {
            Source::Inline(spanned) => &spanned.location,
            Source::File(spanned) | Source::Json(spanned) => &spanned.location,
            Source::Variable(spanned) => &spanned.location,
        }
    }

    /// Reads the text and parses it. Warns if it is a secret that others may see.
    pub(super) fn read<T, E: ToString>(
        &self,
        is_secret: bool,
        parse: impl Fn(&str) -> Result<T, E>,
        remedy: &str,
        context: &LoadContext<'_>,
    ) -> Option<T> {
        let text = match self {
            Source::Inline(text) => Some(text.value.clone()),
            Source::File(path) => file(path, context),
            Source::Variable(name) => variable(name, context),
            Source::Json(path) => both(path, context).map(|both| match is_secret {
                true => Secret::from(both.client_secret),
                false => Secret::from(both.client_id),
            }),
        };
        match self {
            Source::Inline(text) if is_secret && text.location.in_file() => {
                context.warning(text.location.fault(
                    "the secret is in the configuration, which is often copied and committed",
                    "keep it in a file and name that with `client_secret_file`",
                ));
            }
            Source::File(path) | Source::Json(path) if is_secret => warn_of_readers(path, context),
            _ => {}
        }
        context.sound(parse(text?.expose()), self.location(), remedy)
    }
}

/// Reads the client's id and secret, and returns their sources too.
pub(super) fn of_client(
    raw: &tables::Client,
    context: &LoadContext<'_>,
) -> (Credentials, Option<ClientId>, Option<Secret>) {
    let both = raw.credentials_file.as_ref().map(Source::Json);
    let ids = given([
        raw.client_id.as_ref().map(Source::Inline),
        raw.client_id_file.as_ref().map(Source::File),
        raw.client_id_env.as_ref().map(Source::Variable),
        both,
    ]);
    let secrets = given([
        raw.client_secret.as_ref().map(Source::Inline),
        raw.client_secret_file.as_ref().map(Source::File),
        raw.client_secret_env.as_ref().map(Source::Variable),
        both,
    ]);
    let credentials = match (&ids[..], &secrets[..]) {
        ([Source::Json(both)], [Source::Json(_)]) => Credentials::File(context.path(&both.value)),
        ([Source::File(id)], [Source::File(secret)]) => Credentials::Files {
            id: context.path(&id.value),
            secret: context.path(&secret.value),
        },
        _ => Credentials::Elsewhere,
    };
    let id = demand(&ids, raw, "client_id", context).and_then(|source| {
        let remedy = "give the id that Collibra shows in Settings, OAuth applications";
        source.read(false, ClientId::parse, remedy, context)
    });
    if let (Some(id), Some(_)) = (&id, &raw.client_id) {
        raw.show_as("client_id", id.as_str());
    }
    let secret = demand(&secrets, raw, "client_secret", context).and_then(|source| {
        let remedy = "give the secret that Collibra showed when the application was registered";
        source.read(true, Secret::parse, remedy, context)
    });
    (credentials, id, secret)
}

/// The sources that are given, of all that there are.
pub(super) fn given<'a, const N: usize>(all: [Option<Source<'a>>; N]) -> Vec<Source<'a>> {
    all.into_iter().flatten().collect()
}

/// Returns the only source of a client's `key`, and reports it if there is none or another one.
fn demand<'a>(
    given: &[Source<'a>],
    client: &Head,
    key: &str,
    context: &LoadContext<'_>,
) -> Option<Source<'a>> {
    let remedy = match (client.location.in_file(), key) {
        (true, "client_id") => {
            "write `client_id_file`, `client_id_env` or `credentials_file`, or `client_id` itself"
        }
        (true, _) => "write `client_secret_file`, `client_secret_env` or `credentials_file`",
        (false, "client_id") => "give --client-id or --client-id-file, or set COLLIBRA_CLIENT_ID",
        (false, _) => "give --client-secret-file, or set COLLIBRA_CLIENT_SECRET",
    };
    let (file, variable) = (format!("{key}_file"), format!("{key}_env"));
    let mut keys = [key, &file, &variable, "credentials_file"].into_iter();
    if given.is_empty() && !keys.any(|key| client.has(key)) {
        context.fault(client.at(key).fault("it is missing", remedy));
    }
    only(given, client, key, context)
}

/// Returns the only source, if there is one. Several are a fault of `key`.
pub(super) fn only<'a>(
    given: &[Source<'a>],
    table: &Head,
    key: &str,
    context: &LoadContext<'_>,
) -> Option<Source<'a>> {
    let [_, _, ..] = given else {
        return given.first().copied();
    };
    let keys = given.iter().map(|source| &*source.location().key);
    let keys = listed(keys.map(|key| key.rsplit('.').next().unwrap_or(key)));
    let problem = format!("it is given {} times: {keys}", given.len());
    context.fault(table.at(key).fault(problem, "keep one of them"));
    None
}

/// Warns about a file with a secret that others can read, or that changes unseen.
fn warn_of_readers(file: &Spanned<PathBuf>, context: &LoadContext<'_>) {
    warn_if_readable_by_all(&file.value, &file.location, context);
    // systemd copied it for the service (systemd.exec(5), Credentials)
    let own = (context.env)("CREDENTIALS_DIRECTORY");
    let mut copies = own.as_deref().into_iter().chain(["/run/credentials"]);
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

/// Reads a small file as text.
pub(super) fn file(file: &Spanned<PathBuf>, context: &LoadContext<'_>) -> Option<Secret> {
    let remedy = context.file_remedy("name a file that this user can read");
    context.sound(read(file, context), &file.location, remedy)
}

/// Reads a variable.
fn variable(name: &Spanned<String>, context: &LoadContext<'_>) -> Option<Secret> {
    let value = (context.env)(&name.value).map(Secret::from);
    let value = value.ok_or("the environment variable that it names is not set");
    let remedy = "set it, or write the name of another; the name only, without `$`";
    context.sound(value, &name.location, remedy)
}

fn both(file: &Spanned<PathBuf>, context: &LoadContext<'_>) -> Option<Both> {
    const REMEDY: &str = "it should be JSON: {\"client_id\": \"…\", \"client_secret\": \"…\"}";
    let text = self::file(file, context)?;
    // the parser's own message may quote its input
    let both = serde_json::from_str(text.expose()).map_err(|error| {
        if error.is_data() {
            "the file lacks client_id or client_secret, or has one that is no string".to_owned()
        } else {
            let (line, column) = (error.line(), error.column());
            format!("the file is not JSON: see its line {line}, column {column}")
        }
    });
    context.sound(both, &file.location, REMEDY)
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
    let read = CaFile::read(&context.readable(spanned, remedy)?).map_err(|error| error.reason);
    context.sound(read, &spanned.location, context.file_remedy(remedy))
}

pub(super) const CERT_REMEDY: &str =
    "name a PEM file with the certificate and, below it, those that lead to its authority";
pub(super) const KEY_REMEDY: &str = "name the PEM file with the certificate's private key";

/// Reads a certificate and its key.
pub(super) fn identity(
    cert: &Spanned<PathBuf>,
    key: &Spanned<PathBuf>,
    context: &LoadContext<'_>,
) -> Option<Identity> {
    let cert_file = context.readable(cert, CERT_REMEDY);
    let key_file = context.readable(key, KEY_REMEDY);
    let (cert_file, key_file) = (cert_file?, key_file?);
    let error = match Identity::read(&cert_file, &key_file) {
        Ok(identity) => return Some(identity),
        Err(error) => error,
    };
    let (location, remedy) = match error.reason {
        // both may be in one file
        Reason::Unreadable(_) if error.path.as_ref() == Some(&cert_file) => {
            (&cert.location, CERT_REMEDY)
        }
        Reason::Empty | Reason::NotCertificates => (&cert.location, CERT_REMEDY),
        _ => (&key.location, KEY_REMEDY),
    };
    context.fault(location.fault(error.reason.to_string(), context.file_remedy(remedy)));
    None
}

/// Warns if every user can read the file at `path`, which holds a secret. `location` is where it is
/// named.
pub(super) fn warn_if_readable_by_all(path: &Path, location: &Location, context: &LoadContext<'_>) {
    let metadata = std::fs::metadata(context.path(path));
    if metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
        context.warning(location.fault(
            "every user of this machine can read the file",
            "chmod o-r it; for a mounted Kubernetes secret set defaultMode: 0440 and an fsGroup",
        ));
    }
}

/// Warns if `what`, a certificate, has expired, which has this `consequence`, or expires in less
/// than `soon`.
pub(super) fn warn_of_expiry(
    expires: Option<SystemTime>,
    soon: Duration,
    [what, consequence, remedy]: [&str; 3],
    location: &Location,
    context: &LoadContext<'_>,
) {
    let left = expires.map(|expires| expires.duration_since(SystemClock.wall()));
    let problem = match left {
        Some(Err(_)) => format!("{what} has expired: {consequence}"),
        Some(Ok(left)) if left < soon => {
            format!("{what} expires in {} days", left.as_secs() / 86_400)
        }
        _ => return,
    };
    context.warning(location.fault(problem, remedy));
}
