//! `clients delete`: deletes a client.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::ensure;

use super::print;
use super::session::{SessionArgs, settled};
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

    #[command(flatten)]
    session: SessionArgs,
}

/// Runs the command.
///
/// # Errors
/// If the client is not deleted, or the user does not confirm.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let missing = || Usage("there is no terminal to ask for confirmation: give --yes".to_owned());
    ensure!(args.yes || io::stdin().is_terminal(), missing());
    let session = args.session.open().await?;
    let (api, by) = (&session.api, &session.by);
    if !args.yes {
        let client = api.show(by, &args.id).await?;
        let name = client.client_name.as_deref().map_or("-".into(), clean);
        let question = format!("Delete {} ({name}) at {}?", args.id, api.host());
        ensure!(confirmed(&question)?, "not deleted");
    }
    settled(api.delete(by, &args.id).await, || {
        "it may be deleted nevertheless: check with `clients list`".to_owned()
    })?;
    let done = serde_json::json!({ "client_id": args.id.as_str(), "deleted": true });
    print(session.json, &done, || format!("deleted: {}\n", args.id))
}

fn confirmed(question: &str) -> anyhow::Result<bool> {
    let mut out = io::stderr().lock();
    write!(out, "{question} [y/N] ").and_then(|()| out.flush())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
