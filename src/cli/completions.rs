//! `completions`: what a shell needs to complete this program's command line.

use clap_complete::Shell;

/// Print a shell's completion script
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
pub fn run(args: &Args, mut command: clap::Command) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, &name, &mut script);
    if args.shell == Shell::Bash {
        script = with_one_name(&name, &String::from_utf8_lossy(&script)).into_bytes();
    }
    super::write_out(script)?;
    Ok(())
}

/// Gives a command the same name wherever the script has it. `clap_complete` takes each hyphen of
/// the program's name for a subcommand in one place and not in the other, so that nothing beyond
/// the first word was completed.
fn with_one_name(program: &str, script: &str) -> String {
    script.replace(
        &program.replace('-', "__subcmd__"),
        &program.replace('-', "__"),
    )
}
