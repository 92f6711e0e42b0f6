//! `man`: the manual pages, made from the same text as `--help`.

use super::Usage;

/// Print a manual page
///
/// To read one: collibra-auth-proxy man clients rotate | man -l -
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The command to describe [default: the program itself]
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
}

/// Writes the page to standard output.
///
/// # Errors
/// If there is no such command, or nothing can be written.
pub fn run(args: &Args, command: clap::Command) -> anyhow::Result<()> {
    let version = command.get_version().unwrap_or_default().to_owned();
    let mut page = command;
    let mut name = page.get_name().to_owned();
    for word in &args.words {
        let found = page.find_subcommand(word).cloned();
        page = found.ok_or_else(|| Usage(format!("there is no command {name} {word}")))?;
        name = format!("{name} {word}");
    }
    // man tells pages apart by their names, which have no spaces
    let title = name.replace(' ', "-");
    let page = page.name(title).bin_name(name).version(version);
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff)?;
    super::write_out(roff)
}
