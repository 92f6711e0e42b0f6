//! `clients show`: shows one client.

use super::authority::Anyone;
use super::site::SiteArgs;
use super::{print, print_json, rows};
use crate::client_id::ClientId;

/// Show one client
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The client's id
    #[arg(value_parser = ClientId::parse)]
    id: ClientId,

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
    let client = site.api.show(&by, &args.id).await?;
    if args.json {
        print_json(&client)
    } else {
        print(&rows(&[client]))
    }
}
