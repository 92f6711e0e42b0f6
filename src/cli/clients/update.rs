//! `clients update`: changes a client's name or grants.

use anyhow::Context;

use super::print;
use super::session::{SessionArgs, settled};
use super::target::{Output, lines};
use crate::client_id::ClientId;
use crate::registration::Attributes;

/// Change a client's name or grants
///
/// Collibra does not document whether this changes the client's secret. If it does, the new one is
/// shown once, in the response. So you must say where it would go.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The client's id
    #[arg(value_parser = ClientId::parse)]
    id: ClientId,

    /// The new name; required even if unchanged
    #[arg(long, value_name = "NAME")]
    name: String,

    /// A grant that it may use from now on; repeatable [default: unchanged]
    #[arg(long = "grant-type", value_name = "GRANT")]
    grant_types: Vec<String>,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    session: SessionArgs,
}

/// Runs the command.
///
/// # Errors
/// If the client is not updated, or a secret cannot be stored.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let why = "if this changes the client's secret, the new one is shown once and would be lost";
    let target = args.output.prepare(why).await?;
    let session = args.session.open().await?;
    let changes = Attributes {
        name: args.name,
        grant_types: args.grant_types,
        software_id: None,
    };
    let updated = session.api.update(&session.by, &args.id, &changes).await;
    let updated = settled(updated, || {
        "it may be updated nevertheless, with a new secret that is lost: check with `check --live` whether the old one still gets a token".to_owned()
    })?;
    let said = match &updated.secret {
        Some(_) => format!(
            "updated; the response has a secret, which may be a new one: {}",
            target.describe()
        ),
        None => "updated; the response has no secret, so the old one stays valid".to_owned(),
    };
    let told = target.store(&updated).await;
    let told = told.context("it is updated, and may have a new secret that is lost")?;
    print(session.json, &told, || {
        format!("{said}\n{}", lines(&told, &updated.registration))
    })
}
