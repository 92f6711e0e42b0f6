//! `clients list`: everyone who is registered.

use super::authority::Anyone;
use super::site::Where;
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
    at: Where,
}

/// Carries it out.
///
/// # Errors
/// If they are not told.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let site = args.at.settle(args.by.client.as_deref())?;
    let by = args.by.settle(&site)?.authorization().await?;
    let clients = site.api.list(&by).await?;
    if args.json {
        print_json(&clients)
    } else {
        print(&rows(&clients))
    }
}
