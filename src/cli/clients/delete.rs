//! `clients delete`: deletes a client.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};

use super::authority::Anyone;
use super::site::SiteArgs;
use super::{print, print_json};
use crate::cli::Usage;
use crate::client_id::ClientId;
use crate::telemetry::printable::clean;

/// Delete a client: its tokens are revoked, and it gets no new ones
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The client's id
    #[arg(value_parser = ClientId::parse)]
    id: ClientId,

    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    by: Anyone,

    #[command(flatten)]
    at: SiteArgs,
}

/// Runs the command.
///
/// # Errors
/// If the client is not deleted, or the user does not confirm.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    if !args.yes && !io::stdin().is_terminal() {
        let missing = "there is no terminal to ask for confirmation: give --yes";
        return Err(Usage(missing.to_owned()).into());
    }
    let site = args.at.resolve(args.by.client.as_deref())?;
    let by = args.by.resolve(&site)?.authorization().await?;
    if !args.yes {
        let client = site.api.show(&by, &args.id).await?;
        let name = client.client_name.as_deref().map_or("-".into(), clean);
        if !confirmed(&format!(
            "Delete {} ({name}) at {}?",
            args.id,
            site.api.host()
        ))? {
            bail!("not deleted");
        }
    }
    let deleted = site.api.delete(&by, &args.id).await;
    match deleted {
        Err(error) if error.kind.may_have_succeeded() => {
            return Err(error).context("it may be deleted nevertheless: check with `clients list`");
        }
        deleted => deleted?,
    }
    if args.json {
        print_json(&serde_json::json!({ "client_id": args.id.as_str(), "deleted": true }))
    } else {
        print(&format!("deleted: {}\n", args.id))
    }
}

fn confirmed(question: &str) -> anyhow::Result<bool> {
    let mut out = io::stderr().lock();
    write!(out, "{question} [y/N] ").and_then(|()| out.flush())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
