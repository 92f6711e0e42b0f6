//! `clients list`: lists all registered clients.

use super::authority::Anyone;
use super::site::SiteArgs;
use super::{print, print_json, rows};

/// List all clients
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
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
/// If the call fails.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let site = args.at.resolve(args.by.client.as_deref())?;
    let by = args.by.resolve(&site)?.authorization().await?;
    let clients = site.api.list(&by).await?;
    if args.json {
        print_json(&clients)
    } else {
        print(&rows(&clients))
    }
}
