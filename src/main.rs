//! The program: parses what was typed, starts logging, runs a command, gives its exit status.

use std::process::ExitCode;

use collibra_auth_proxy::cli;

fn main() -> ExitCode {
    cli::main()
}
