//! `ca`: creates, shows and renews the local authority, whose certificates programs accept when
//! they call an instance over https through this proxy.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;

use super::source::{Source, environment};
use super::{Usage, write_out};
use crate::atomic_file::Pending;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, FILE_VARIABLE};
use crate::local_authority::{Authority, Created, Files, create};

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
    Init(At),
    /// Show its certificate, and how to make systems and programs trust it
    Show(At),
    /// Create a new one if the instances' hosts have changed or the old one expires within 60 days;
    /// programs must then trust the new one
    Renew(Renew),
}

#[derive(Clone, Debug, clap::Args)]
struct At {
    /// The proxy's configuration file [env: COLLIBRA_AUTH_PROXY_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
struct Renew {
    /// Renew it in any case, for instance because its key may have leaked
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the subcommand.
///
/// # Errors
/// Faults of the configuration, or a file that cannot be read or written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let now = SystemClock.wall();
    match args.command {
        Command::Init(at) => init(&at.load()?, now)?,
        Command::Show(at) => show(&at.load()?, now)?,
        Command::Renew(Renew { force, at }) => renew(&at.load()?, force, now)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl At {
    fn load(self) -> anyhow::Result<Config> {
        if self.config.is_none() && environment(FILE_VARIABLE).is_none() {
            let problem = "the authority belongs to a configuration file: name it with --config";
            return Err(Usage(problem.to_owned()).into());
        }
        let source = Source {
            config: self.config,
            ..Source::default()
        };
        Ok(source.load()?)
    }
}

fn init(config: &Config, now: SystemTime) -> anyhow::Result<()> {
    let files = &config.ca.files;
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    match (exists(&files.certificate), exists(&files.key)) {
        (false, false) => {}
        (true, true) => bail!(
            "{} exists: show it with `ca show`, or renew it with `ca renew`",
            files.certificate.display()
        ),
        (is_certificate, _) => {
            let (one, other) = if is_certificate {
                (&files.certificate, &files.key)
            } else {
                (&files.key, &files.certificate)
            };
            bail!(
                "{} exists without {}: restore that from a backup, or delete the first and run `ca init` again",
                one.display(),
                other.display()
            )
        }
    }
    let created = create(&hosts(config)?, now)?;
    if let Some(directory) = files
        .key
        .parent()
        .filter(|path| !path.as_os_str().is_empty())
    {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create the directory {}", directory.display()))?;
    }
    write(files, &created)?;
    report("created the local authority", config, now)
}

fn show(config: &Config, now: SystemTime) -> anyhow::Result<()> {
    let authority = read(&config.ca.files)?;
    write_out(description(config, &authority, now)?.as_bytes())
}

fn renew(config: &Config, force: bool, now: SystemTime) -> anyhow::Result<()> {
    let files = &config.ca.files;
    let before = read(files)?;
    let hosts = hosts(config)?;
    let mut certified = before.hosts().to_vec();
    certified.sort();
    let is_near = before.expires() <= now + NEAR;
    if certified == hosts && !is_near && !force {
        let until = date(before.expires())?;
        let said = format!(
            "nothing to renew: it covers every instance's host and is valid until {until}\n"
        );
        return write_out(said.as_bytes());
    }
    write(files, &create(&hosts, now)?)?;
    report(
        "renewed the local authority: programs must now trust the new certificate",
        config,
        now,
    )
}

/// The hosts to certify.
fn hosts(config: &Config) -> anyhow::Result<Vec<String>> {
    let hosts = config.certified_hosts();
    if hosts.is_empty() {
        bail!(
            "no instance has an https:// url with a DNS name, so there is no host for the local authority to certify"
        );
    }
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

fn write(files: &Files, created: &Created) -> anyhow::Result<()> {
    put(&files.key, created.key.expose().as_bytes(), 0o600)?;
    put(&files.certificate, created.certificate.as_bytes(), 0o644)
}

/// Replaces a file atomically. A new file gets this `mode`; an existing one keeps its mode and
/// owner.
fn put(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let writing = || -> io::Result<()> {
        let pending = Pending::begin(path, &PathBuf::from(temporary))?;
        let before = fs::metadata(path);
        if let Ok(before) = &before {
            pending.like(before)?;
        }
        pending.put(content)?;
        match before {
            Ok(_) => Ok(()),
            Err(_) => fs::set_permissions(path, Permissions::from_mode(mode)),
        }
    };
    writing().with_context(|| format!("cannot write {}", path.display()))
}

/// Prints what was done, and the authority.
fn report(done: &str, config: &Config, now: SystemTime) -> anyhow::Result<()> {
    let authority = read(&config.ca.files)?;
    let shown = description(config, &authority, now)?;
    write_out(format!("{done}\n\n{shown}").as_bytes())
}

fn date(at: SystemTime) -> anyhow::Result<String> {
    let at = jiff::Timestamp::try_from(at)?;
    Ok(at.strftime("%Y-%m-%d").to_string())
}

/// Describes the authority, and how to make programs trust it.
fn description(config: &Config, authority: &Authority, now: SystemTime) -> anyhow::Result<String> {
    let files = &config.ca.files;
    let path = fs::canonicalize(&files.certificate)?;
    let left = authority.expires().duration_since(now).unwrap_or_default();
    let mut text = String::new();
    writeln!(text, "certificate: {}", path.display())?;
    writeln!(text, "key: {}", files.key.display())?;
    writeln!(text, "SHA-256: {}", authority.fingerprint())?;
    let (until, days) = (date(authority.expires())?, left.as_secs() / DAY);
    writeln!(text, "valid until: {until} ({days} days)")?;
    let hosts = authority.hosts().join(", ");
    writeln!(text, "hosts: {hosts}; no other, no IP address")?;
    text.push_str(&trust(&path.display().to_string()));
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

/// How to make systems and programs trust the certificate at `path`.
fn trust(path: &str) -> String {
    let ways = [
        (
            "Debian, Ubuntu",
            format!(
                "sudo cp {path} /usr/local/share/ca-certificates/collibra-auth-proxy.crt && sudo update-ca-certificates"
            ),
        ),
        (
            "RHEL, Fedora",
            format!(
                "sudo cp {path} /etc/pki/ca-trust/source/anchors/collibra-auth-proxy.pem && sudo update-ca-trust"
            ),
        ),
        (
            "macOS",
            format!(
                "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {path}"
            ),
        ),
        (
            "Windows, with .NET and Power BI",
            format!("certutil -addstore -f Root {path}"),
        ),
        (".NET and Go on Linux", "as the system, above".to_owned()),
        ("curl", format!("curl --cacert {path}")),
        (
            "Python (requests)",
            format!("export REQUESTS_CA_BUNDLE={path}"),
        ),
        (
            "Python (ssl, httpx)",
            format!("export SSL_CERT_FILE={path}"),
        ),
        ("Node", format!("export NODE_EXTRA_CA_CERTS={path}")),
        (
            "Java, for one program",
            format!(
                "keytool -importcert -noprompt -alias collibra-auth-proxy -file {path} -keystore trust.p12 -storepass changeit; then java -Djavax.net.ssl.trustStore=trust.p12 -Djavax.net.ssl.trustStorePassword=changeit"
            ),
        ),
        (
            "Java, for all programs",
            format!(
                "sudo keytool -importcert -noprompt -cacerts -storepass changeit -alias collibra-auth-proxy -file {path}"
            ),
        ),
    ];
    let mut text = "\nMake programs trust the certificate, in one of these ways:\n".to_owned();
    for (name, way) in ways {
        text.push_str(&format!("\n{name}:\n    {way}\n"));
    }
    text.push_str(
        "\nPython's two variables, curl's option and Java's trust store replace the system's authorities. For a\nprogram that calls other hosts too, name a file with both.\n",
    );
    text
}
