//! The program: parses the arguments, starts logging, runs a command, returns its exit status.

use std::process::ExitCode;

use collibra_auth_proxy::cli;
use mimalloc::MiMalloc;

/// A request costs a tenth less processor time than with the C library's allocator, at the same
/// memory.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
