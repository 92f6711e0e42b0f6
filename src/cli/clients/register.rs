//! `clients register`: a new client, whose secret goes where it was told to.

use anyhow::Context;

use super::authority::Anyone;
use super::site::Where;
use super::target::{Output, lines};
use super::{print, print_json};
use crate::registration::NewClient;

/// Register a client and keep its credentials
///
/// Its secret is shown once, in the answer to this. So it has to be said where it goes before
/// anything is registered.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// A name that no other client has, and that tells what it is for
    name: String,

    /// A grant that it may use; may be given several times [default: Collibra's]
    #[arg(long = "grant-type", value_name = "GRANT")]
    grant_types: Vec<String>,

    /// The Collibra software bundle that it is a part of
    #[arg(long, value_name = "ID")]
    software_id: Option<String>,

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
/// If it is not registered, or its secret cannot be kept.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let target = args
        .output
        .prepare("the client's secret is shown once and would be lost")
        .await?;
    let site = args.at.settle(args.by.client.as_deref())?;
    let by = args.by.settle(&site)?.authorization().await?;
    let new = NewClient {
        name: args.name,
        grant_types: args.grant_types,
        software_id: args.software_id,
    };
    let registered = match site.api.register(&by, &new).await {
        Ok(registered) => registered,
        Err(error) if error.kind.may_be_done() => {
            let host = site.api.host();
            let advice = format!(
                "{} may be registered at {host} all the same, with a secret that is lost: look with `clients list`, and delete it before you try again",
                new.name
            );
            return Err(error).context(advice);
        }
        Err(error) => return Err(error.into()),
    };
    let said = target.describe();
    let told = match target.take(&registered).await {
        Ok(told) => told,
        Err(error) => {
            // without its secret it is of no use to anyone
            let id = &registered.registration.client_id;
            let left = match site.api.delete(&by, id).await {
                Ok(()) => format!("{} was deleted again", new.name),
                Err(deleting) => format!(
                    "{} stays behind without its secret, for it cannot be deleted ({deleting}): delete {id} yourself",
                    new.name
                ),
            };
            return Err(error.context(left));
        }
    };
    if args.json {
        print_json(&told)
    } else {
        let client = lines(&told, &registered.registration);
        print(&format!("registered: {said}\n{client}"))
    }
}
