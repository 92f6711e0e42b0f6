//! `clients update`: changes a client's name or grants.

use anyhow::Context;

use super::authority::Anyone;
use super::site::SiteArgs;
use super::target::{Output, lines};
use super::{print, print_json};
use crate::client_id::ClientId;
use crate::registration::Changes;

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

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    by: Anyone,

    #[command(flatten)]
    at: SiteArgs,
}

/// Runs the command.
///
/// # Errors
/// If the client is not updated, or a secret cannot be stored.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let target = args
        .output
        .prepare("if this changes the client's secret, the new one is shown once and would be lost")
        .await?;
    let site = args.at.resolve(args.by.client.as_deref())?;
    let by = args.by.resolve(&site)?.authorization().await?;
    let changes = Changes {
        name: args.name,
        grant_types: args.grant_types,
    };
    let updated = match site.api.update(&by, &args.id, &changes).await {
        Err(error) if error.kind.may_have_succeeded() => {
            return Err(error).context(
                "it may be updated nevertheless, with a new secret that is lost: check with `check --live` whether the old one still gets a token",
            );
        }
        updated => updated?,
    };
    let said = match &updated.secret {
        Some(_) => format!(
            "updated; the response has a secret, which may be a new one: {}",
            target.describe()
        ),
        None => "updated; the response has no secret, so the old one stays valid".to_owned(),
    };
    let told = target
        .store(&updated)
        .await
        .context("it is updated, and may have a new secret that is lost")?;
    if args.json {
        print_json(&told)
    } else {
        print(&format!("{said}\n{}", lines(&told, &updated.registration)))
    }
}
