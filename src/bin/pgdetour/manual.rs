//! `pgdetour completions` and `pgdetour man`: what a shell and a reader need to know of the program, made from its own help.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::{CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use crate::{args, exit::Exit, trouble::Trouble};

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  pgdetour completions bash >~/.local/share/bash-completion/completions/pgdetour
  pgdetour completions zsh >~/.zfunc/_pgdetour       with fpath+=~/.zfunc before compinit
  pgdetour completions fish >~/.config/fish/completions/pgdetour.fish";

/// Writes what a shell needs to complete commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Kind,
}

/// The shells that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Bash,
    Zsh,
    Fish,
}

const MAN_EXAMPLES: &str = "\
Examples:
  pgdetour man | man -l -                 reads it
  pgdetour man drill | man -l -           that of one command
  pgdetour man --dir /usr/local/share/man/man1";

/// Writes the manual page, or all of them into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(crate) struct Man {
    /// The command whose page is wanted; without one that of the program
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Option<String>,

    /// Write the pages of the program and of every command there; the directory is made if it is missing
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

/// Writes completions.
pub(crate) fn completions(args: &Completions) -> Exit {
    let shell = match args.shell {
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut args::Args::command(), "pgdetour", &mut script);
    written(&script)
}

/// Writes manual pages.
pub(crate) fn man(args: &Man) -> Exit {
    let mut program = args::Args::command();
    if let Some(dir) = &args.dir {
        let made = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(program, dir));
        return match made {
            Ok(()) => Exit::Fine,
            Err(error) => Exit::Environment.because(&format!("{}: {error}", dir.display())),
        };
    }
    program.build();
    let page = match &args.command {
        None => Some(program),
        // Built, it is titled `pgdetour-drill` by itself.
        Some(name) => program.find_subcommand(name).cloned(),
    };
    let Some(page) = page else {
        return Trouble::new(Exit::Usage, "there is no such command; `pgdetour --help` lists them").tell(false);
    };
    let mut text = Vec::new();
    match clap_mangen::Man::new(page).render(&mut text) {
        Ok(()) => written(&text),
        Err(error) => Exit::Environment.because(&error),
    }
}

fn written(bytes: &[u8]) -> Exit {
    // Who closed standard output does not want it.
    let _ = io::stdout().lock().write_all(bytes);
    Exit::Fine
}
