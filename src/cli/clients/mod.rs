//! `clients`: manages registered applications from registration to deletion.
//!
//! `site` selects the instance, `authority` the caller's credentials, `session` both; `target` is
//! the destination of a secret. Each subcommand has its own file. Only `target` prints secrets, and
//! only on request.

mod authority;
mod delete;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod list;
mod register;
mod rotate;
mod secrets;
mod session;
mod show;
mod site;
mod target;
mod update;

use std::process::ExitCode;

use clap::Subcommand;

use super::table::table;
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

// the help texts are at each subcommand's `Args`
#[derive(Subcommand)]
enum Command {
    List(list::Args),
    Register(register::Args),
    Show(show::Args),
    Update(update::Args),
    Delete(delete::Args),
    Rotate(rotate::Args),
}

/// Runs the subcommand.
///
/// # Errors
/// Faults of the configuration, refusals by Collibra, or a destination that cannot be written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list::run(args).await?,
        Command::Register(args) => register::run(args).await?,
        Command::Show(args) => show::run(args).await?,
        Command::Update(args) => update::run(args).await?,
        Command::Delete(args) => delete::run(args).await?,
        Command::Rotate(args) => rotate::run(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints to standard output.
fn print(text: &str) -> anyhow::Result<()> {
    super::write_out(text.as_bytes())
}

/// Prints JSON to standard output, for scripts.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(value)?;
    print(&format!("{}\n", escape_json(&json)))
}

/// Formats clients as a table.
fn rows(clients: &[Registration]) -> String {
    table(
        &["ID", "NAME", "REGISTERED", "GRANTS"],
        clients.iter().map(|client| {
            [
                client.client_id.to_string(),
                client.client_name.clone().unwrap_or_else(|| "-".to_owned()),
                client.client_id_issued_at.map_or("-".to_owned(), date),
                client.grant_types.join(", "),
            ]
        }),
    )
}

fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_id::ClientId;

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
