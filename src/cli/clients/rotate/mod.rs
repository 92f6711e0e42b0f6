//! `clients rotate`: replaces a client of the configuration by a successor, without a failed
//! request.
//!
//! [`files`] record the progress, so that a run resumes where the last one stopped, for whatever
//! reason. At any moment a working client's credentials are in place. A client is deleted only once
//! nobody uses it. Nothing depends on whether an update (`PUT`) changes a secret.

mod credentials;
mod files;
mod name;
mod proof;
mod readers;

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};

use self::credentials::Credentials;
use self::files::{Files, Journal, Stage};
use self::readers::Readers;
use super::authority::{Authority, Caller};
use super::site::{Site, SiteArgs};
use super::target::put;
use super::{print, print_json};
use crate::cli::admin_client::{self, Target};
use crate::client_id::ClientId;
use crate::clock::{Clock, SystemClock};
use crate::registration::{Attributes, Registration};
use crate::telemetry::printable::clean;

/// Replace a client of the configuration by a successor, without losing a request
///
/// Registers a successor, proves that it works, puts its credentials in place of the old ones,
/// waits until the running proxies use them, and only then deletes the old client. Whatever stops
/// it, everything keeps working; run it again to resume.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The client of the configuration; by default it authorizes the calls itself
    #[arg(long, value_name = "NAME")]
    client: String,

    /// The admin address of a running proxy that uses the client; repeatable [default: that of the
    /// configuration]
    #[arg(
        long = "admin",
        value_name = "ADDRESS",
        env = "COLLIBRA_AUTH_PROXY_ADMIN",
        value_delimiter = ',',
        value_parser = admin_client::parse
    )]
    admins: Vec<Target>,

    /// No running proxy uses the client: wait for none
    #[arg(long, conflicts_with = "admins")]
    no_running_proxy: bool,

    /// How long the proxies may take to switch to the successor
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// How long the old client is kept after its last use, for requests in flight
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    settle: Duration,

    /// The path that the successor's token must open
    #[arg(long, value_name = "PATH", default_value = "/rest/2.0/users/current", value_parser = path)]
    probe: String,

    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Print only the result, as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    by: Caller,

    #[command(flatten)]
    at: SiteArgs,
}

/// Runs the rotation, from wherever the last run stopped.
///
/// # Errors
/// What stopped it, its progress, and how to resume or revert.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    args.at.config_path()?;
    let files = Files::of(args.at.resolve(Some(&args.client))?.client(&args.client)?)?;
    let _lock = files.lock()?;
    // again: a rotation that was in progress until now has changed the files
    let site = args.at.resolve(Some(&args.client))?;
    let client = site.client(&args.client)?;
    let by = match args.by.given()? {
        Some(given) => given,
        None => match Caller::from_environment()? {
            Some(given) => given,
            None => Authority::client(client)?,
        },
    };
    let admins = match (&site.config, &args.admins[..]) {
        _ if args.no_running_proxy => Vec::new(),
        (Some(config), []) => {
            let address = config.admin.address.to_string();
            vec![admin_client::parse(&address).map_err(anyhow::Error::msg)?]
        }
        (_, given) => given.to_vec(),
    };
    let mut rotation = Rotation {
        readers: Readers::at(&admins)?,
        args: &args,
        site: &site,
        files: &files,
        by,
    };
    if args.dry_run {
        return rotation.plan().await;
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let done = tokio::select! {
        done = rotation.carry_out() => done,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("interrupted")),
    };
    match done {
        Ok(outcome) => outcome.print(args.json),
        Err(error) => bail!("{error:#}\n\n{}", rotation.recovery_advice()),
    }
}

struct Rotation<'a> {
    args: &'a Args,
    site: &'a Site,
    files: &'a Files,
    readers: Readers,
    by: Authority,
}

/// The result of a rotation.
#[derive(serde::Serialize)]
struct Outcome {
    client: String,
    old_client_id: String,
    client_id: String,
    client_name: String,
}

impl Rotation<'_> {
    /// Runs the steps, each decided by the files.
    async fn carry_out(&mut self) -> anyhow::Result<Outcome> {
        loop {
            match self.files.stage()? {
                Stage::Fresh => self.begin().await?,
                Stage::Begun(journal) => self.register(&journal).await?,
                Stage::Registered(journal, next) => self.place(&journal, &next).await?,
                Stage::Placed(journal) => return self.finish(journal).await,
            }
        }
    }

    /// Checks the preconditions and chooses the successor's name.
    async fn begin(&mut self) -> anyhow::Result<()> {
        let (old, all) = self.inspect().await?;
        self.files.try_out()?;
        let name = old.client_name.unwrap_or_else(|| self.args.client.clone());
        let id = &old.client_id;
        let host = self.site.api.host();
        self.say(&format!(
            "rotating {}: {id} ({}) at {host}",
            self.args.client,
            clean(&name)
        ))?;
        let others = all.iter().filter(|client| {
            let other = client.client_name.as_deref().unwrap_or_default();
            client.client_id != *id && name::base(other) == name::base(&name)
        });
        for other in others {
            self.say(&format!(
                "  note: {} ({}) has a similar name; if an earlier rotation left it, delete it",
                other.client_id,
                clean(other.client_name.as_deref().unwrap_or_default()),
            ))?;
        }
        self.files.begin(&Journal {
            old: id.to_string(),
            successor: name::successor(&name, SystemClock.wall()),
        })
    }

    /// Checks that the client is registered and that each proxy uses it; returns it, and all
    /// clients.
    async fn inspect(&mut self) -> anyhow::Result<(Registration, Vec<Registration>)> {
        let id = self.files.current()?.id;
        self.readers.all_use(id.as_str()).await?;
        let all = self.list().await?;
        let old = all.iter().find(|client| client.client_id == id).cloned();
        let old = old.with_context(|| {
            let host = self.site.api.host();
            format!("{id} is not a client of {host}; check whether --platform is needed")
        })?;
        Ok((old, all))
    }

    /// Registers the successor, and stores its credentials at once.
    async fn register(&mut self, journal: &Journal) -> anyhow::Result<()> {
        let (old, all) = self.inspect().await?;
        let name = &journal.successor;
        let orphan = all.iter().find(|c| c.client_name.as_ref() == Some(name));
        if let Some(orphan) = orphan {
            let id = &orphan.client_id;
            self.readers.none_uses(id.as_str()).await?;
            self.say(&format!(
                "  successor: {id} ({}) was registered earlier, but its secret is lost; deleting it",
                clean(name)
            ))?;
            self.delete(id).await?;
        }
        let pending = self.files.begin_next()?;
        let by = self.by.authorization().await?;
        let new = Attributes {
            name: name.clone(),
            grant_types: old.grant_types,
            software_id: None,
        };
        let registered = match self.site.api.register(&by, &new).await {
            Ok(registered) => registered,
            Err(error) if error.may_have_succeeded => {
                return Err(error).context(format!(
                    "the successor may or may not be registered; the next run finds it by its name, {}",
                    clean(name)
                ));
            }
            Err(error) => {
                self.files.end()?;
                return Err(error.into());
            }
        };
        let id = &registered.registration.client_id;
        let path = self.files.next();
        let kept = match registered.credentials() {
            Some(credentials) => put(pending, &path, &credentials),
            None => bail!("{id} was registered without a secret"),
        };
        if let Err(error) = kept {
            // nobody can use the successor without its secret; if it remains, the next run finds it
            let left = match self.delete(id).await {
                Ok(()) => format!("the successor {id} was deleted"),
                Err(deleting) => format!("the successor {id} stays behind ({deleting:#})"),
            };
            return Err(error.context(left));
        }
        self.say(&format!(
            "  successor: {id} ({}) is registered, its credentials are in {}",
            clean(name),
            path.display()
        ))
    }

    /// Proves that the successor works, and puts its credentials in place.
    async fn place(&mut self, journal: &Journal, next: &Credentials) -> anyhow::Result<()> {
        let all = self.list().await?;
        if !all.iter().any(|client| client.client_id == next.id) {
            self.say(&format!(
                "  successor: {} is no longer registered; starting over",
                next.id
            ))?;
            return self.files.forget_next();
        }
        let client = self.site.client(&self.args.client)?;
        let probe = &self.args.probe;
        proof::prove(client, next, &self.site.instance, probe).await?;
        self.say(&format!("  proof: it got a token, which opens {probe}"))?;
        self.files.place(next)?;
        self.say(&format!(
            "  credentials: those of {} are in {}, those of {} in {}",
            next.id,
            self.files.names(),
            journal.old,
            self.files.old().display()
        ))?;
        if self.files.is_pair() {
            self.say("  note: two files cannot change at once; a single credentials_file would")?;
        }
        Ok(())
    }

    /// Waits until the proxies have switched, and deletes the old client.
    async fn finish(&mut self, journal: Journal) -> anyhow::Result<Outcome> {
        let new = self.files.current()?.id;
        let all = self.list().await?;
        let is_successor = |client: &Registration| {
            let name = client.client_name.as_ref();
            client.client_id == new && name.is_none_or(|name| *name == journal.successor)
        };
        if !all.iter().any(is_successor) {
            bail!(
                "{} has {new}, which is not the successor registered as {}",
                self.files.names(),
                clean(&journal.successor)
            );
        }
        self.files.forget_next()?;
        let old = ClientId::parse(&journal.old)?;
        if !self.readers.is_empty() {
            self.say(&format!("  proxies: waiting for {}", self.readers.names()))?;
            let patience = self.args.timeout;
            let waited = self.readers.take_over(old.as_str(), new.as_str(), patience);
            waited.await?;
            let settle = humantime::format_duration(self.args.settle);
            self.say(&format!(
                "  proxies: they use {new}; the old client stays for {settle}"
            ))?;
            tokio::time::sleep(self.args.settle).await;
        }
        if all.iter().any(|client| client.client_id == old) {
            self.delete(&old).await?;
        }
        self.say(&format!("  deleted: {old}"))?;
        self.files.end()?;
        Ok(Outcome {
            client: self.args.client.clone(),
            old_client_id: old.to_string(),
            client_id: new.to_string(),
            client_name: journal.successor,
        })
    }

    async fn list(&mut self) -> anyhow::Result<Vec<Registration>> {
        let by = self.by.authorization().await?;
        Ok(self.site.api.list(&by).await?)
    }

    async fn delete(&mut self, id: &ClientId) -> anyhow::Result<()> {
        let by = self.by.authorization().await?;
        let deleted = self.site.api.delete(&by, id).await;
        deleted.with_context(|| format!("{id} cannot be deleted"))
    }

    /// Prints what the next run would do.
    async fn plan(&mut self) -> anyhow::Result<()> {
        let stage = self.files.stage()?;
        let names = self.files.names();
        let begun = match &stage {
            Stage::Fresh | Stage::Begun(_) => {
                let (old, _) = self.inspect().await?;
                self.files.try_out()?;
                let name = old.client_name.unwrap_or_else(|| self.args.client.clone());
                let successor = match &stage {
                    Stage::Begun(journal) => journal.successor.clone(),
                    _ => name::successor(&name, SystemClock.wall()),
                };
                format!("register a successor named {}\n", clean(&successor))
            }
            _ => String::new(),
        };
        let placed = match &stage {
            Stage::Placed(_) => String::new(),
            _ => format!(
                "get a token for the successor, and call {} with it\nput its credentials into {names}\n",
                self.args.probe
            ),
        };
        let waited = if self.readers.is_empty() {
            "wait for no proxy\n".to_owned()
        } else {
            format!(
                "wait until these proxies use it: {}\n",
                self.readers.names()
            )
        };
        let old = match &stage {
            Stage::Fresh => self.files.current()?.id.to_string(),
            Stage::Begun(journal) | Stage::Registered(journal, _) | Stage::Placed(journal) => {
                journal.old.clone()
            }
        };
        print(&format!(
            "this would\n{begun}{placed}{waited}delete {old}\n"
        ))
    }

    /// Describes the progress after a failure, how to resume, and how to revert.
    fn recovery_advice(&self) -> String {
        let journal = self.files.journal().display().to_string();
        let (next, old) = (self.files.next(), self.files.old());
        let (next, old) = (next.display(), old.display());
        let names = self.files.names();
        let again = "to go on: run the same command again";
        match self.files.stage() {
            Ok(Stage::Fresh) => "where it stands: nothing was changed".to_owned(),
            Ok(Stage::Begun(begun)) => format!(
                "where it stands: {} is in use, as before; a successor may be registered as {}, whose secret is lost\n{again}\nto go back: delete that successor, if `clients list` shows it, and remove {journal}",
                begun.old,
                clean(&begun.successor)
            ),
            Ok(Stage::Registered(begun, successor)) => format!(
                "where it stands: {} is in use, as before; the successor {} is registered, and its credentials are in {next}\n{again}\nto go back: `clients delete {}`, then remove {next} and {journal}",
                begun.old, successor.id, successor.id
            ),
            Ok(Stage::Placed(begun)) => format!(
                "where it stands: the successor's credentials are in {names}; {} is not deleted, unless the failure was that of its deletion, and its credentials are in {old}\n{again}\nto go back: put what {old} holds into {names}, wait until the proxies use it, then delete the successor and remove {old} and {journal}",
                begun.old
            ),
            Err(error) => format!("the progress is unknown: {error:#}"),
        }
    }

    fn say(&self, what: &str) -> anyhow::Result<()> {
        if self.args.json {
            return Ok(());
        }
        print(&format!("{what}\n"))
    }
}

impl Outcome {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return print_json(self);
        }
        print(&format!(
            "done: {} is {} now\n",
            self.client, self.client_id
        ))
    }
}

/// Parses a path of the API.
fn path(text: &str) -> Result<String, &'static str> {
    let sound = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic());
    sound
        .then(|| text.to_owned())
        .ok_or("it should begin with a slash and have no spaces")
}
