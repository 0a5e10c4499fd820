//! `roadstead completions`: what a shell completes, made of the commands themselves.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{Cli, print};

const EXAMPLES: &str = "\
Where shells look for it:
  roadstead completions bash > /etc/bash_completion.d/roadstead
  roadstead completions zsh  > /usr/local/share/zsh/site-functions/_roadstead
  roadstead completions fish > ~/.config/fish/completions/roadstead.fish

For this session alone, in bash:
  source <(roadstead completions bash)";

/// Print what a shell needs to complete commands and flags
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

// === impl Completions ===

impl Completions {
    pub(super) fn run(&self) -> ExitCode {
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "roadstead", &mut script);
        print(&script)
    }
}
