//! `ca`: creates, shows and renews the local authority, whose certificates programs accept when
//! they call an instance over https through this proxy.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;

use super::source::ConfigFile;
use super::{date, new_file, write_out};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::local_authority::{self, Authority, Files};

/// An authority that expires within this time is renewed.
const NEAR: Duration = Duration::from_secs(60 * 24 * 3600);

const DAY: u64 = 24 * 3600;

/// Create, show and renew the local authority for programs with a fixed https:// address
///
/// Programs that trust it accept this proxy as the configured instances' hosts, and as no other
/// host: the certificate's name constraints say so. Listeners with `mode = "forward"` or `tls =
/// "local"` use it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Create it, next to the configuration file or in `[ca] dir`
    Init(ConfigFile),
    /// Show its certificate, and how to make systems and programs trust it
    Show(ConfigFile),
    /// Create a new one if the instances' hosts have changed or the old one expires within 60 days;
    /// programs must then trust the new one
    Renew {
        /// Renew it in any case, for instance because its key may have leaked
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// Faults of the configuration, or a file that cannot be read or written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let now = SystemClock.wall();
    let load = |file: ConfigFile| {
        file.load("the authority belongs to a configuration file: name it with --config")
    };
    match args.command {
        Command::Init(file) => init(&load(file)?, now),
        Command::Show(file) => write_out(description(&load(file)?, now)?),
        Command::Renew { force, file } => renew(&load(file)?, force, now),
    }
}

fn init(config: &Config, now: SystemTime) -> anyhow::Result<()> {
    let files = &config.ca.files;
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    let (certificate, key) = (files.certificate.display(), files.key.display());
    let (one, other) = match (exists(&files.certificate), exists(&files.key)) {
        (false, false) => return create(config, "created the local authority", now),
        (true, true) => {
            bail!("{certificate} exists: show it with `ca show`, or renew it with `ca renew`")
        }
        (true, false) => (certificate, key),
        (false, true) => (key, certificate),
    };
    bail!(
        "{one} exists without {other}: restore that from a backup, or delete the first and run `ca init` again"
    )
}

fn renew(config: &Config, force: bool, now: SystemTime) -> anyhow::Result<()> {
    let before = read(&config.ca.files)?;
    let hosts = hosts(config)?;
    let mut certified = before.hosts().to_vec();
    certified.sort();
    let is_near = before.expires() <= now + NEAR;
    if certified == hosts && !is_near && !force {
        let until = date(before.expires());
        return write_out(format!(
            "nothing to renew: it covers every instance's host and is valid until {until}\n"
        ));
    }
    let done = "renewed the local authority: programs must now trust the new certificate";
    create(config, done, now)
}

/// Creates an authority in place of the old one, if any, and prints what was `done`.
fn create(config: &Config, done: &str, now: SystemTime) -> anyhow::Result<()> {
    let files = &config.ca.files;
    let created = local_authority::create(&hosts(config)?, now)?;
    if let Some(directory) = files.key.parent() {
        // does nothing for an empty path
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create the directory {}", directory.display()))?;
    }
    put(&files.key, created.key.expose(), 0o600)?;
    put(&files.certificate, &created.certificate, 0o644)?;
    write_out(format!("{done}\n\n{}", description(config, now)?))
}

/// The hosts to certify.
fn hosts(config: &Config) -> anyhow::Result<Vec<String>> {
    let hosts = config.certified_hosts();
    ensure!(
        !hosts.is_empty(),
        "no instance has an https:// url with a DNS name, so there is no host for the local authority to certify"
    );
    Ok(hosts)
}

fn read(files: &Files) -> anyhow::Result<Authority> {
    ensure!(
        files.certificate.symlink_metadata().is_ok(),
        "{} does not exist: create it with `ca init`",
        files.certificate.display()
    );
    Authority::read(files).map_err(|error| {
        let path = match error.is_of_key() {
            true => &files.key,
            false => &files.certificate,
        };
        anyhow::anyhow!("{}: {error}", path.display())
    })
}

/// Replaces a file atomically. A new file gets this `mode`; an existing one keeps its mode and
/// owner.
fn put(path: &Path, content: &str, mode: u32) -> anyhow::Result<()> {
    if path.exists() {
        return new_file::put(new_file::replacement(path)?, path, content);
    }
    new_file::put(new_file::begin(path)?, path, content)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// Describes the authority, and how to make programs trust it.
fn description(config: &Config, now: SystemTime) -> anyhow::Result<String> {
    let files = &config.ca.files;
    let authority = read(files)?;
    let path = fs::canonicalize(&files.certificate)?.display().to_string();
    let left = authority.expires().duration_since(now).unwrap_or_default();
    let mut text = String::new();
    writeln!(text, "certificate: {path}")?;
    writeln!(text, "key: {}", files.key.display())?;
    writeln!(text, "SHA-256: {}", authority.fingerprint())?;
    let (until, days) = (date(authority.expires()), left.as_secs() / DAY);
    writeln!(text, "valid until: {until} ({days} days)")?;
    let hosts = authority.hosts().join(", ");
    writeln!(text, "hosts: {hosts}; no other, no IP address")?;
    text.push_str(&TRUST.replace("CERTIFICATE", &path));
    for listener in config.listeners.iter().filter(|it| it.forward.is_some()) {
        let (scheme, address) = (listener.scheme(), &listener.address);
        let who = match config.apps.is_empty() {
            true => "",
            false => "APP:KEY@",
        };
        writeln!(
            text,
            "\nThen give programs HTTPS_PROXY={scheme}://{who}{address}"
        )?;
    }
    Ok(text)
}

/// How to make systems and programs trust a certificate, for whose path `CERTIFICATE` stands.
const TRUST: &str = "
Make programs trust the certificate, in one of these ways:

Debian, Ubuntu:
    sudo cp CERTIFICATE /usr/local/share/ca-certificates/collibra-auth-proxy.crt && sudo update-ca-certificates

RHEL, Fedora:
    sudo cp CERTIFICATE /etc/pki/ca-trust/source/anchors/collibra-auth-proxy.pem && sudo update-ca-trust

macOS:
    sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain CERTIFICATE

Windows, with .NET and Power BI:
    certutil -addstore -f Root CERTIFICATE

.NET and Go on Linux:
    as the system, above

curl:
    curl --cacert CERTIFICATE

Python (requests):
    export REQUESTS_CA_BUNDLE=CERTIFICATE

Python (ssl, httpx):
    export SSL_CERT_FILE=CERTIFICATE

Node:
    export NODE_EXTRA_CA_CERTS=CERTIFICATE

Java, for one program:
    keytool -importcert -noprompt -alias collibra-auth-proxy -file CERTIFICATE -keystore trust.p12 -storepass changeit; then java -Djavax.net.ssl.trustStore=trust.p12 -Djavax.net.ssl.trustStorePassword=changeit

Java, for all programs:
    sudo keytool -importcert -noprompt -cacerts -storepass changeit -alias collibra-auth-proxy -file CERTIFICATE

Python's two variables, curl's option and Java's trust store replace the system's authorities. For a
program that calls other hosts too, name a file with both.
";
