//! `clients update`: another name, other grants.

use anyhow::Context;

use super::authority::Anyone;
use super::site::Where;
use super::target::{Output, lines};
use super::{print, print_json};
use crate::client_id::ClientId;
use crate::registration::Changes;

/// Change a client's name or grants
///
/// Collibra's documents leave open whether this gives the client a new secret. If it does, that is
/// shown once, in the answer; so it has to be said where it would go.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The client's id
    #[arg(value_parser = ClientId::parse)]
    id: ClientId,

    /// Its name from now on; to be given even if it stays
    #[arg(long, value_name = "NAME")]
    name: String,

    /// A grant that it may use from now on; may be given several times [default: as they are]
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
    at: Where,
}

/// Carries it out.
///
/// # Errors
/// If it is not changed, or a secret cannot be kept.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let target = args
        .output
        .prepare("if this gives the client a new secret, it is shown once and would be lost")
        .await?;
    let site = args.at.settle(args.by.client.as_deref())?;
    let by = args.by.settle(&site)?.authorization().await?;
    let changes = Changes {
        name: args.name,
        grant_types: args.grant_types,
    };
    let updated = match site.api.update(&by, &args.id, &changes).await {
        Err(error) if error.kind.may_be_done() => {
            return Err(error).context(
                "it may be changed all the same, and have a secret that is lost: see whether its old one still takes a token (`check --live`)",
            );
        }
        updated => updated?,
    };
    let said = match &updated.secret {
        Some(_) => format!(
            "changed, and the answer has a secret, which may be a new one: {}",
            target.describe()
        ),
        None => "changed; the answer has no secret in it, so it stays as it was".to_owned(),
    };
    let told = target
        .take(&updated)
        .await
        .context("it is changed, and may have a secret that is lost")?;
    if args.json {
        print_json(&told)
    } else {
        print(&format!("{said}\n{}", lines(&told, &updated.registration)))
    }
}
