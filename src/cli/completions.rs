//! `completions`: scripts with which a shell completes this program's command line.

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
        // clap_complete mistakes each hyphen of the program's name for a subcommand in one place
        // and not in the other, so that nothing beyond the first word would be completed
        let (wrong, right) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
        let text = String::from_utf8_lossy(&script).replace(&wrong, &right);
        script = text.into_bytes();
    }
    super::write_out(script)
}
