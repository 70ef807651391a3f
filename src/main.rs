//! The program: flags and commands in `cli`, the running node in `start`. Everything else is in the library.

mod cli;
mod start;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
