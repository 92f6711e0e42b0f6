//! `clients delete`: a client's end.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};

use super::authority::Anyone;
use super::site::Where;
use super::{print, print_json};
use crate::cli::Usage;
use crate::client_id::ClientId;
use crate::telemetry::printable::clean;

/// Delete a client: its tokens end, and it gets no more
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The client's id
    #[arg(value_parser = ClientId::parse)]
    id: ClientId,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    by: Anyone,

    #[command(flatten)]
    at: Where,
}

/// Carries it out.
///
/// # Errors
/// If it is not deleted, or nobody says yes.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    if !args.yes && !io::stdin().is_terminal() {
        let missing = "there is no terminal to ask whether that is meant: give --yes";
        return Err(Usage(missing.to_owned()).into());
    }
    let site = args.at.settle(args.by.client.as_deref())?;
    let by = args.by.settle(&site)?.authorization().await?;
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
        Err(error) if error.kind.may_be_done() => {
            return Err(error).context("it may be deleted all the same: look with `clients list`");
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
