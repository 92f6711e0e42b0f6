//! `clients list`: lists all registered clients.

use super::rows;
use super::session::SessionArgs;

/// List all clients
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    session: SessionArgs,
}

/// Runs the command.
///
/// # Errors
/// If the call fails.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let session = args.session.open().await?;
    let clients = session.api.list(&session.by).await?;
    session.print(&clients, || rows(&clients))
}
