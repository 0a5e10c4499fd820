//! The `roadstead` program: arguments in, exit code out.

use std::process::ExitCode;

/// Requests are short-lived and many-threaded; glibc's allocator spends a tenth of a cached answer's
/// time on them and gives little back. This one's own threads give back what has not been used for
/// ten seconds, however quiet the server is.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    roadstead::cli::run()
}
