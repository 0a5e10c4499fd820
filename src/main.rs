//! The `roadstead` program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    roadstead::cli::run()
}
