//! `roadstead man`: man pages, made of the commands themselves.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _};

use super::{Cli, FAILED, complain, print};

const EXAMPLES: &str = "\
Examples:
  roadstead man | man -l -                        read it
  roadstead man /usr/local/share/man/man1         install all of them; then: man roadstead-serve";

/// Print the man page, or write those of all commands
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Man {
    /// Write roadstead.1 and a page for each command there; made if it is missing
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

// === impl Man ===

impl Man {
    pub(super) fn run(&self) -> ExitCode {
        let Some(directory) = &self.directory else {
            let mut page = Vec::new();
            return match clap_mangen::Man::new(Cli::command()).render(&mut page) {
                Ok(()) => print(&page),
                Err(error) => complain(&error, FAILED),
            };
        };
        let written = fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let at = directory.display();
                let problem = format!(
                    "{at}: man pages can't be written: {error}; name a directory that can be written to"
                );
                complain(&problem, FAILED)
            }
        }
    }
}
