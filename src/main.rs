//! The `roadstead` program: arguments in, exit code out.

use std::process::ExitCode;

/// Requests are short-lived and many-threaded; glibc's allocator spends a tenth of a cached answer's
/// time on them and gives little back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    roadstead::cli::run()
}
