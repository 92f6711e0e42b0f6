//! `clients rotate`: replaces a client of the configuration by a successor, without a failed
//! request.
//!
//! [`files`] record the progress, so that a run resumes where the last one stopped, for whatever
//! reason. At any moment a working client's credentials are in place. A client is deleted only once
//! nobody uses it. Nothing depends on whether an update (`PUT`) changes a secret.

mod files;
mod name;
mod proof;
mod readers;

use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::{Value, json};

use self::files::{Credentials, Files, Journal, Stage};
use super::authority::{Authority, Caller};
use super::print;
use super::session::settled;
use super::site::{Site, SiteArgs};
use crate::cli::admin_client::AdminClient;
use crate::cli::{Exit, interruption, new_file, probe, write_out};
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
        value_parser = AdminClient::parse
    )]
    admins: Vec<AdminClient>,

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
    #[arg(long, value_name = "PATH", default_value = "/rest/2.0/users/current", value_parser = probe::path)]
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
    let site = args.at.resolve(Some(&args.client))?;
    let files = Files::of(site.client(&args.client)?)?;
    let _lock = files.lock()?;
    // again: a rotation that was in progress until now has changed the files
    let site = args.at.resolve(Some(&args.client))?;
    let client = site.client(&args.client)?;
    let given = args.by.given()?;
    let by = given.map_or_else(|| Authority::of(client), |it| Ok(Authority::Given(it)))?;
    let mut proxies = args.admins.clone();
    if let Some(config) = &site.config
        && proxies.is_empty()
        && !args.no_running_proxy
    {
        let address = config.admin.address.to_string();
        proxies.push(AdminClient::parse(&address).map_err(anyhow::Error::msg)?);
    }
    let mut rotation = Rotation {
        args: &args,
        site: &site,
        files: &files,
        proxies,
        by,
    };
    if args.dry_run {
        return rotation.plan().await;
    }
    let interruption = interruption()?;
    let done = tokio::select! {
        done = rotation.carry_out() => done,
        () = interruption => Err(anyhow!("interrupted")),
    };
    match done {
        Ok((json, said)) => print(args.json, &json, || said),
        Err(error) => bail!("{error:#}\n\n{}", rotation.recovery_advice()),
    }
}

struct Rotation<'a> {
    args: &'a Args,
    site: &'a Site,
    files: &'a Files,
    /// The running proxies that use the client.
    proxies: Vec<AdminClient>,
    by: Authority,
}

impl Rotation<'_> {
    /// Runs the steps, each decided by the files. Returns the result as JSON and as text.
    async fn carry_out(&mut self) -> anyhow::Result<(Value, String)> {
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
        let (id, name, host) = (&old.client_id, self.name(&old), self.site.api.host());
        let client = &self.args.client;
        self.say(&format!(
            "rotating {client}: {id} ({}) at {host}",
            clean(name)
        ))?;
        for other in all.iter().filter(|other| other.client_id != *id) {
            let similar = other.client_name.as_deref().unwrap_or_default();
            if name::base(similar) == name::base(name) {
                self.say(&format!(
                    "  note: {} ({}) has a similar name; if an earlier rotation left it, delete it",
                    other.client_id,
                    clean(similar),
                ))?;
            }
        }
        self.files.begin(&self.journal(&old))
    }

    /// The registered name of `old`.
    fn name<'b>(&'b self, old: &'b Registration) -> &'b str {
        old.client_name.as_deref().unwrap_or(&self.args.client)
    }

    /// The state of a new rotation, which replaces `old`.
    fn journal(&self, old: &Registration) -> Journal {
        Journal {
            old: old.client_id.to_string(),
            successor: name::successor(self.name(old), SystemClock.wall()),
        }
    }

    /// Checks that the client is registered, that each proxy uses it, and that the files can be
    /// written; returns it, and all clients.
    async fn inspect(&mut self) -> anyhow::Result<(Registration, Vec<Registration>)> {
        let id = self.files.current()?.id;
        readers::check(&self.proxies, id.as_str(), true).await?;
        let all = self.list().await?;
        let old = all.iter().find(|client| client.client_id == id).cloned();
        let old = old.with_context(|| {
            let host = self.site.api.host();
            format!("{id} is not a client of {host}; check whether --platform is needed")
        })?;
        self.files.try_out()?;
        Ok((old, all))
    }

    /// Registers the successor, and stores its credentials at once.
    async fn register(&mut self, journal: &Journal) -> anyhow::Result<()> {
        let (old, all) = self.inspect().await?;
        let name = &journal.successor;
        let orphan = all.iter().find(|c| c.client_name.as_ref() == Some(name));
        if let Some(orphan) = orphan {
            let id = &orphan.client_id;
            readers::check(&self.proxies, id.as_str(), false).await?;
            self.say(&format!(
                "  successor: {id} ({}) was registered earlier, but its secret is lost; deleting it",
                clean(name)
            ))?;
            self.delete(id).await?;
        }
        let path = self.files.next();
        let pending = new_file::begin(&path)?;
        let by = self.by.authorization().await?;
        let new = Attributes {
            name: name.clone(),
            grant_types: old.grant_types,
            software_id: None,
        };
        let called = self.site.api.register(&by, &new).await;
        if matches!(&called, Err(error) if !error.may_have_succeeded) {
            self.files.end()?;
        }
        let registered = settled(called, || {
            format!(
                "the successor may or may not be registered; the next run finds it by its name, {}",
                clean(name)
            )
        })?;
        let id = &registered.registration.client_id;
        let credentials = registered.credentials();
        let credentials =
            credentials.with_context(|| format!("{id} was registered without a secret"))?;
        if let Err(error) = new_file::put(pending, &path, credentials.expose()) {
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
            let id = &next.id;
            self.say(&format!(
                "  successor: {id} is no longer registered; starting over"
            ))?;
            return self.files.forget_next();
        }
        let client = self.site.client(&self.args.client)?;
        let probe = &self.args.probe;
        proof::prove(client, next, &self.site.instance, probe).await?;
        self.say(&format!("  proof: it got a token, which opens {probe}"))?;
        self.files.place(next)?;
        let (new, old) = (&next.id, &journal.old);
        let (names, kept) = (self.files.names(), self.files.old());
        let kept = kept.display();
        self.say(&format!(
            "  credentials: those of {new} are in {names}, those of {old} in {kept}"
        ))?;
        if self.files.id_file.is_some() {
            self.say("  note: two files cannot change at once; a single credentials_file would")?;
        }
        Ok(())
    }

    /// Waits until the proxies have switched, and deletes the old client.
    async fn finish(&mut self, journal: Journal) -> anyhow::Result<(Value, String)> {
        let new = self.files.current()?.id;
        let all = self.list().await?;
        let is_successor = |client: &Registration| {
            let name = client.client_name.as_ref();
            client.client_id == new && name.is_none_or(|name| *name == journal.successor)
        };
        ensure!(
            all.iter().any(is_successor),
            "{} has {new}, which is not the successor registered as {}",
            self.files.names(),
            clean(&journal.successor)
        );
        self.files.forget_next()?;
        let old = ClientId::parse(&journal.old)?;
        if !self.proxies.is_empty() {
            let names = readers::names(&self.proxies);
            self.say(&format!("  proxies: waiting for {names}"))?;
            let (id, patience) = (old.as_str(), self.args.timeout);
            readers::switch(&self.proxies, id, new.as_str(), patience).await?;
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
        let client = &self.args.client;
        let json = json!({
            "client": client,
            "old_client_id": journal.old,
            "client_id": new.as_str(),
            "client_name": journal.successor,
        });
        Ok((json, format!("done: {client} is {new} now\n")))
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
        let mut steps = Vec::new();
        let old = match &stage {
            Stage::Fresh | Stage::Begun(_) => {
                let (old, _) = self.inspect().await?;
                let fresh = self.journal(&old);
                let journal = match &stage {
                    Stage::Begun(journal) => journal,
                    _ => &fresh,
                };
                let name = clean(&journal.successor);
                steps.push(format!("register a successor named {name}"));
                journal.old.clone()
            }
            Stage::Registered(journal, _) | Stage::Placed(journal) => journal.old.clone(),
        };
        if !matches!(stage, Stage::Placed(_)) {
            let (probe, names) = (&self.args.probe, self.files.names());
            steps.push(format!(
                "get a token for the successor, and call {probe} with it\nput its credentials into {names}"
            ));
        }
        steps.push(match readers::names(&self.proxies) {
            none if none.is_empty() => "wait for no proxy".to_owned(),
            names => format!("wait until these proxies use it: {names}"),
        });
        let steps = steps.join("\n");
        write_out(format!("this would\n{steps}\ndelete {old}\n"))
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
                "where it stands: the successor's credentials are in {names}; {} is not deleted, unless its deletion is what failed, and its credentials are in {old}\n{again}\nto go back: put what {old} holds into {names}, wait until the proxies use it, then delete the successor and remove {old} and {journal}",
                begun.old
            ),
            Err(error) => format!("the progress is unknown: {error:#}"),
        }
    }

    /// Prints a step, unless only the result is wanted.
    fn say(&self, what: &str) -> anyhow::Result<()> {
        if self.args.json {
            return Ok(());
        }
        match write_out(format!("{what}\n")) {
            // a rotation goes on without a reader
            Err(error) if error.is::<Exit>() => Ok(()),
            written => written,
        }
    }
}
