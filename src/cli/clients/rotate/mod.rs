//! `clients rotate`: a client of the configuration is replaced by a successor, and no app notices.
//!
//! [`files`] tell how far it has come, so that a run takes up where the last one stopped, whatever
//! stopped it. At each moment one client works and its credentials are in place; what is deleted is
//! deleted only when nobody uses it any more. Nothing relies on what a change (`PUT`) does to a
//! secret.

mod credentials;
mod files;
mod name;
mod proof;
mod readers;
mod swap;

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};

use self::credentials::Credentials;
use self::files::{Files, Journal, Stage};
use self::readers::Readers;
use super::authority::{Authority, Caller};
use super::site::{Site, Where};
use super::target::put;
use super::{print, print_json};
use crate::cli::admin_client::{self, Target};
use crate::client_id::ClientId;
use crate::clock::{Clock, SystemClock};
use crate::registration::{NewClient, Registration};
use crate::telemetry::printable::clean;

/// Replace a client of the configuration by a successor, with no request lost
///
/// Registers a successor, proves that it works, puts its credentials in place of the old ones,
/// waits until the running proxies use them, and only then deletes the old client. Whatever stops
/// it, everything goes on working; run it again to take up where it stopped.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The client of the configuration; it asks for itself, unless somebody else is named
    #[arg(long, value_name = "NAME")]
    client: String,

    /// The admin address of a running proxy that uses the client; may be given several times
    /// [default: that of the configuration]
    #[arg(
        long = "admin",
        value_name = "ADDRESS",
        env = "COLLIBRA_AUTH_PROXY_ADMIN",
        value_delimiter = ',',
        value_parser = admin_client::parse
    )]
    admins: Vec<Target>,

    /// No proxy runs that uses the client: wait for none
    #[arg(long, conflicts_with = "admins")]
    no_running_proxy: bool,

    /// How long the proxies may take until they use the successor
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// How long the old client stays when nobody uses it any more, for requests on their way
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    settle: Duration,

    /// What the successor's token must open
    #[arg(long, value_name = "PATH", default_value = "/rest/2.0/users/current", value_parser = path)]
    probe: String,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the outcome as JSON, and nothing else
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    by: Caller,

    #[command(flatten)]
    at: Where,
}

/// Carries it out, from wherever the last run left it.
///
/// # Errors
/// What stopped it, where it stands, and how to go on or back.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    args.at.config_path()?;
    let files = Files::of(args.at.settle(Some(&args.client))?.client(&args.client)?)?;
    let _lock = files.lock()?;
    // again: a rotation that was under way until now has changed what the files say
    let site = args.at.settle(Some(&args.client))?;
    let client = site.client(&args.client)?;
    let by = match args.by.given()? {
        Some(given) => given,
        None => match Caller::of_environment()? {
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
        Err(error) => bail!("{error:#}\n\n{}", rotation.standing()),
    }
}

struct Rotation<'a> {
    args: &'a Args,
    site: &'a Site,
    files: &'a Files,
    readers: Readers,
    by: Authority,
}

/// What has come of it.
#[derive(serde::Serialize)]
struct Outcome {
    client: String,
    old_client_id: String,
    client_id: String,
    client_name: String,
}

impl Rotation<'_> {
    /// One step after the other, each from what the files say.
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

    /// Looks whether all is in order, and decides on a name.
    async fn begin(&mut self) -> anyhow::Result<()> {
        let (old, all) = self.look().await?;
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
                "  note: {} ({}) has a name like it; if an earlier rotation left it behind, delete it",
                other.client_id,
                clean(other.client_name.as_deref().unwrap_or_default()),
            ))?;
        }
        self.files.begin(&Journal {
            old: id.to_string(),
            successor: name::successor(&name, SystemClock.wall()),
        })
    }

    /// That the client is registered, and used by each proxy; gives it, and all that there are.
    async fn look(&mut self) -> anyhow::Result<(Registration, Vec<Registration>)> {
        let id = self.files.current()?.id;
        self.readers.all_use(id.as_str()).await?;
        let all = self.list().await?;
        let old = all.iter().find(|client| client.client_id == id).cloned();
        let old = old.with_context(|| {
            let host = self.site.api.host();
            format!("{id} is not among the clients of {host}; is --platform meant, or left out?")
        })?;
        Ok((old, all))
    }

    /// Registers the successor, and keeps its credentials before anything else is done.
    async fn register(&mut self, journal: &Journal) -> anyhow::Result<()> {
        let (old, all) = self.look().await?;
        let name = &journal.successor;
        let orphan = all.iter().find(|c| c.client_name.as_ref() == Some(name));
        if let Some(orphan) = orphan {
            let id = &orphan.client_id;
            self.readers.none_uses(id.as_str()).await?;
            self.say(&format!(
                "  successor: {id} ({}) was registered before, but its secret is lost; deleting it",
                clean(name)
            ))?;
            self.delete(id).await?;
        }
        let pending = self.files.begin_next()?;
        let by = self.by.authorization().await?;
        let new = NewClient {
            name: name.clone(),
            grant_types: old.grant_types,
            software_id: None,
        };
        let registered = match self.site.api.register(&by, &new).await {
            Ok(registered) => registered,
            Err(error) if error.kind.may_be_done() => {
                return Err(error).context(format!(
                    "whether the successor is registered cannot be told; the next run looks for it by its name, {}",
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
            // without its secret it is of no use to anyone; if it stays, the next run finds it
            let left = match self.delete(id).await {
                Ok(()) => format!("the successor {id} was deleted again"),
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
                "  successor: {} is registered no more; starting anew",
                next.id
            ))?;
            return self.files.forget_next();
        }
        let client = self.site.client(&self.args.client)?;
        let probe = &self.args.probe;
        proof::prove(client, next, &self.site.instance, probe).await?;
        self.say(&format!("  proof: it got a token, and that opens {probe}"))?;
        self.files.place(next)?;
        self.say(&format!(
            "  credentials: those of {} are in {}, those of {} in {}",
            next.id,
            self.files.names(),
            journal.old,
            self.files.old().display()
        ))?;
        if self.files.is_pair() {
            self.say(
                "  note: two files cannot change at once; a credentials_file in their place would",
            )?;
        }
        Ok(())
    }

    /// Waits for the proxies, and deletes the old client.
    async fn finish(&mut self, journal: Journal) -> anyhow::Result<Outcome> {
        let new = self.files.current()?.id;
        let all = self.list().await?;
        let is_successor = |client: &Registration| {
            let name = client.client_name.as_ref();
            client.client_id == new && name.is_none_or(|name| *name == journal.successor)
        };
        if !all.iter().any(is_successor) {
            bail!(
                "{} holds {new}, which is not the successor that was registered as {}",
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

    /// What the next run would do.
    async fn plan(&mut self) -> anyhow::Result<()> {
        let stage = self.files.stage()?;
        let names = self.files.names();
        let begun = match &stage {
            Stage::Fresh | Stage::Begun(_) => {
                let (old, _) = self.look().await?;
                self.files.try_out()?;
                let name = old.client_name.unwrap_or_else(|| self.args.client.clone());
                let successor = match &stage {
                    Stage::Begun(journal) => journal.successor.clone(),
                    _ => name::successor(&name, SystemClock.wall()),
                };
                format!("register a successor called {}\n", clean(&successor))
            }
            _ => String::new(),
        };
        let placed = match &stage {
            Stage::Placed(_) => String::new(),
            _ => format!(
                "take a token of the successor, and call {} with it\nput its credentials into {names}\n",
                self.args.probe
            ),
        };
        let waited = if self.readers.is_empty() {
            "wait for no proxy\n".to_owned()
        } else {
            format!("wait until it is used by {}\n", self.readers.names())
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

    /// Where it stands after a failure, how to go on, and how to go back.
    fn standing(&self) -> String {
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
            Err(error) => format!("where it stands cannot be told: {error:#}"),
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

/// Reads a path of the API.
fn path(text: &str) -> Result<String, &'static str> {
    let sound = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic());
    sound
        .then(|| text.to_owned())
        .ok_or("it should begin with a slash and have no spaces")
}
