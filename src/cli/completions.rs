//! `completions`: what a shell needs to complete this program's command line.

use std::process::ExitCode;

use clap_complete::Shell;

/// Print a script that has a shell complete commands and options
///
/// For bash: collibra-auth-proxy completions bash >
/// ~/.local/share/bash-completion/completions/collibra-auth-proxy
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Writes the script to standard output.
///
/// # Errors
/// If nothing can be written.
pub fn run(args: &Args, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    super::write_out(&script)?;
    Ok(ExitCode::SUCCESS)
}
