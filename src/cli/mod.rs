//! The commands: one file each. This file parses the arguments, calls the command, and turns its
//! result into an exit status: 0 done, 1 failed, 2 wrong usage, 78 the configuration is wrong.

use std::ffi::OsStr;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use crate::config::Faults;
use crate::process;
use crate::telemetry::logging;

mod admin_client;
pub mod ca;
pub mod check;
pub mod clients;
pub mod completions;
#[cfg(feature = "simulator")]
pub mod demo;
pub mod drain;
pub mod log_level;
mod loops;
pub mod man;
mod new_file;
mod own_token;
mod polling;
mod probe;
pub mod renew;
pub mod serve;
#[cfg(feature = "simulator")]
pub mod simulate;
pub mod source;
pub mod status;
mod status_table;
mod successor;
mod table;
mod terminal;
mod wait;

/// The exit status for a configuration that is wrong (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// One access token for all programs that call Collibra.
///
/// Collibra gives each registered client a pool of 5 tokens, refilled at one a minute. This proxy
/// holds one token for all your programs, renews it in time and attaches it to every call.
#[derive(Parser)]
#[command(name = "collibra-auth-proxy", version, propagate_version = true)]
#[cfg_attr(
    feature = "simulator",
    command(after_help = "Start with: collibra-auth-proxy demo")
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// How much is logged to standard error: error, warn, info, debug or trace
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "COLLIBRA_AUTH_PROXY_LOG_LEVEL"
    )]
    log_level: Option<String>,

    /// The form of log lines [default: text on a terminal, else json]
    #[arg(
        long,
        global = true,
        value_enum,
        env = "COLLIBRA_AUTH_PROXY_LOG_FORMAT"
    )]
    log_format: Option<logging::Format>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy
    Serve(serve::Args),
    /// Watch what the proxy does for you, without a Collibra: everything in one process
    #[cfg(feature = "simulator")]
    Demo(demo::Args),
    /// Run a simulated Collibra, for tests
    #[cfg(feature = "simulator")]
    Simulate(simulate::Args),
    /// Find every fault in the configuration, and with --live try it out
    Check(check::Args),
    Clients(clients::Args),
    Ca(ca::Args),
    /// Show a running proxy's clients, tokens and pools
    Status(status::Args),
    /// Wait until a running proxy is ready
    Wait(polling::PollArgs),
    Renew(renew::Args),
    LogLevel(log_level::Args),
    Drain(drain::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// A usage error; says what to type instead.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// The command ends with this exit status, and everything is said.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("exit status {0}")]
struct Exit(u8);

/// Runs what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    process::disable_huge_pages();
    // before anything secret is read
    let left_open = process::close();
    let typed = without_empty_variables(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&typed).unwrap_or_else(|e| e.exit());
    // for libraries that speak TLS with the process's default cryptography
    let _ = rustls::crypto::ring::default_provider().install_default();
    let format = cli.log_format;
    let format = format.unwrap_or_else(logging::Format::default_for_stderr);
    // log lines would spoil the demo's screen
    let own = (typed.subcommand_name() == Some("demo")).then_some("error");
    let level = cli.log_level.as_deref().or(own);
    let log = match logging::init(level, format) {
        Ok(log) => log,
        Err(e) => {
            let _ = writeln!(io::stderr().lock(), "{e}");
            return ExitCode::from(2);
        }
    };
    for open in left_open {
        warn!("{open}");
    }
    let done = match cli.command {
        Command::Serve(args) => serve::run(args),
        #[cfg(feature = "simulator")]
        Command::Demo(args) => on_a_runtime(demo::run(args)),
        #[cfg(feature = "simulator")]
        Command::Simulate(args) => on_a_runtime(simulate::run(args)),
        Command::Check(args) => on_a_runtime(check::run(args)),
        Command::Clients(args) => on_a_runtime(clients::run(args)),
        Command::Ca(args) => ca::run(args),
        Command::Status(args) => on_a_runtime(status::run(args)),
        Command::Wait(args) => on_a_runtime(wait::run(args)),
        Command::Renew(args) => on_a_runtime(renew::run(args)),
        Command::LogLevel(args) => on_a_runtime(log_level::run(args)),
        Command::Drain(args) => on_a_runtime(drain::run(args)),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    let status = match error.downcast_ref() {
        Some(Exit(status)) => return ExitCode::from(*status),
        None if error.is::<Faults>() => EXIT_CONFIG,
        None if error.is::<Usage>() => 2,
        None => 1,
    };
    // through the log, whose reader may hang
    log.say(&format!("{error:#}"));
    ExitCode::from(status)
}

/// `command`, to which a variable that is empty counts as not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
            true => arg.env(Resettable::Reset),
            false => arg,
        })
        .mut_subcommands(without_empty_variables)
}

/// Runs `command` on a runtime with a thread for each core.
fn on_a_runtime(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build()?;
    let done = runtime.block_on(command);
    // a thread that waits for a name server or a terminal may never return
    runtime.shutdown_background();
    done
}

/// Catches SIGINT and SIGTERM from now on. The future completes when the first of them arrives.
fn interruption() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Prints to standard output.
///
/// # Errors
/// [`Exit`] with success if the reader has closed the pipe, as `head` does; else the system's.
fn write_out(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Exit(0).into()),
        written => written.context("cannot write to standard output"),
    }
}

/// Formats the day of a moment.
fn date(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_build_with_the_simulator_has_its_commands() {
        let command = Cli::command();
        for name in ["demo", "simulate"] {
            let found = command.find_subcommand(name).is_some();
            assert_eq!(found, cfg!(feature = "simulator"), "{name}");
        }
        assert!(command.find_subcommand("serve").is_some());
    }
}
