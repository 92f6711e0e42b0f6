//! `clients`: manages registered applications from registration to deletion.
//!
//! `site` selects the instance, `authority` the caller's credentials, `session` both; `target` is
//! the destination of a secret. Each subcommand that changes something has its own file. Only
//! `target` prints secrets, and only on request.

mod authority;
mod delete;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod register;
mod rotate;
mod secrets;
mod session;
mod site;
mod target;
mod update;

use std::time::{Duration, SystemTime};

use clap::Subcommand;

use self::session::SessionArgs;
use super::table::{Column, fit, text};
use super::{date, write_out};
use crate::client_id::ClientId;
use crate::registration::Registration;
use crate::telemetry::printable::escape_json;

/// Register clients at Collibra, list, change, rotate and delete them
///
/// A client is a registered application: an id and a secret, which get tokens. Its secret is shown
/// once, at registration, and is never printed unless you ask for it.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

// the other help texts are at each subcommand's `Args`
#[derive(Subcommand)]
enum Command {
    /// List all clients
    List(SessionArgs),
    Register(register::Args),
    /// Show one client
    Show {
        /// The client's id
        #[arg(value_parser = ClientId::parse)]
        id: ClientId,

        #[command(flatten)]
        session: SessionArgs,
    },
    Update(update::Args),
    Delete(delete::Args),
    Rotate(rotate::Args),
}

/// Runs the subcommand.
///
/// # Errors
/// Faults of the configuration, refusals by Collibra, or a destination that cannot be written.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List(session) => {
            let session = session.open().await?;
            let clients = session.api.list(&session.by).await?;
            print(session.json, &clients, || rows(&clients))
        }
        Command::Register(args) => register::run(args).await,
        Command::Show { id, session } => {
            let session = session.open().await?;
            let client = session.api.show(&session.by, &id).await?;
            print(session.json, &client, || {
                rows(std::slice::from_ref(&client))
            })
        }
        Command::Update(args) => update::run(args).await,
        Command::Delete(args) => delete::run(args).await,
        Command::Rotate(args) => rotate::run(args).await,
    }
}

/// Prints the result: `json` if that is wanted, otherwise `text`.
///
/// # Errors
/// If standard output cannot be written.
fn print(
    is_json: bool,
    json: &impl serde::Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let text = match is_json {
        true => escape_json(&serde_json::to_string_pretty(json)?) + "\n",
        false => text(),
    };
    write_out(text)
}

/// Formats clients as a table.
fn rows(clients: &[Registration]) -> String {
    let columns = ["ID", "NAME", "REGISTERED", "GRANTS"].map(Column::new);
    let rows = clients.iter().map(|client| {
        let seconds = client.client_id_issued_at.and_then(|at| at.try_into().ok());
        let issued = seconds.map(|it| SystemTime::UNIX_EPOCH + Duration::from_secs(it));
        [
            client.client_id.to_string(),
            client.client_name.clone().unwrap_or_else(|| "-".to_owned()),
            issued.map_or("-".to_owned(), date),
            client.grant_types.join(", "),
        ]
    });
    text(&fit(&columns, rows, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_stand_in_a_table_whatever_their_names() {
        let client = |id: &str, name: Option<&str>, at| Registration {
            client_id: ClientId::parse(id).unwrap(),
            client_name: name.map(str::to_owned),
            client_id_issued_at: at,
            grant_types: vec!["client_credentials".to_owned()],
        };
        let all = [
            client("urn:1", Some("nightly\n\u{1b}[2J"), Some(1_800_000_000)),
            client("urn:22", None, None),
        ];
        insta::assert_snapshot!(rows(&all), @"
        ID      NAME          REGISTERED  GRANTS
        urn:1   nightly��[2J  2027-01-15  client_credentials
        urn:22  -             -           client_credentials
        ");
    }
}
