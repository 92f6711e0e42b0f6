//! `clients register`: registers a client and stores its secret.

use super::print;
use super::session::{SessionArgs, settled};
use super::target::{Output, lines};
use crate::registration::Attributes;

/// Register a client and store its credentials
///
/// Its secret is shown once, in the response. So you must say where it goes before anything is
/// registered.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// A unique name that tells what the client is for
    name: String,

    /// A grant that it may use; repeatable [default: Collibra's]
    #[arg(long = "grant-type", value_name = "GRANT")]
    grant_types: Vec<String>,

    /// The Collibra software bundle that it belongs to
    #[arg(long, value_name = "ID")]
    software_id: Option<String>,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    session: SessionArgs,
}

/// Runs the command.
///
/// # Errors
/// If the client is not registered, or its secret cannot be stored.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let why = "the client's secret is shown once and would be lost";
    let target = args.output.prepare(why).await?;
    let session = args.session.open().await?;
    let (api, by) = (&session.api, &session.by);
    let new = Attributes {
        name: args.name,
        grant_types: args.grant_types,
        software_id: args.software_id,
    };
    let registered = settled(api.register(by, &new).await, || {
        format!(
            "{} may be registered at {} nevertheless, with a lost secret: check with `clients list`, and delete it before you retry",
            new.name,
            api.host()
        )
    })?;
    let said = target.describe();
    let told = match target.store(&registered).await {
        Ok(told) => told,
        Err(error) => {
            // nobody can use the client without its secret
            let id = &registered.registration.client_id;
            let left = match api.delete(by, id).await {
                Ok(()) => format!("{} was deleted again", new.name),
                Err(deleting) => format!(
                    "{} remains without its secret, because deleting it failed ({deleting}): delete {id} yourself",
                    new.name
                ),
            };
            return Err(error.context(left));
        }
    };
    print(session.json, &told, || {
        let client = lines(&told, &registered.registration);
        format!("registered: {said}\n{client}")
    })
}
