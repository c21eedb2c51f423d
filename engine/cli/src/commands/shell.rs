//! `spdflow completions` and `spdflow man`: what a shell and a manual reader want, made from the command line itself.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::failure::{Exit, Failure};
use crate::output;

/// Prints the completions of a shell.
pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "spdflow", &mut text);
    output::data(&String::from_utf8_lossy(&text));
    Ok(Exit::Done)
}

/// Prints the manual: the page of the program, then those of its commands.
pub(super) fn man() -> Result<Exit, Failure> {
    let mut command = Cli::command();
    command.build();
    let mut text = Vec::new();
    let commands = command.get_subcommands().filter(|command| command.get_name() != "help").cloned();
    for page in std::iter::once(command.clone()).chain(commands) {
        let title = page.get_display_name().unwrap_or(page.get_name()).to_owned();
        // Writing to memory cannot fail.
        let _ = clap_mangen::Man::new(page).title(title).render(&mut text);
    }
    output::data(&String::from_utf8_lossy(&text));
    Ok(Exit::Done)
}
