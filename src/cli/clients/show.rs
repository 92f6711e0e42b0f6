//! `clients show`: shows one client.

use super::rows;
use super::session::SessionArgs;
use crate::client_id::ClientId;

/// Show one client
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The client's id
    #[arg(value_parser = ClientId::parse)]
    id: ClientId,

    #[command(flatten)]
    session: SessionArgs,
}

/// Runs the command.
///
/// # Errors
/// If the call fails.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let session = args.session.open().await?;
    let client = session.api.show(&session.by, &args.id).await?;
    session.print(&client, || rows(std::slice::from_ref(&client)))
}
