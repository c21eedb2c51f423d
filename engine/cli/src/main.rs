//! The `spdflow` command: reads the command line, dispatches, reports, exits.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod diagnostics;
mod failure;
mod output;
mod registry;
mod shipped;
#[cfg(test)]
mod test_kinds;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    failure::report_panics_as_bugs();
    // A wrong command line ends here, with clap's message and exit code 2.
    let cli = args::Cli::parse();
    diagnostics::choose_colors(cli.output.color);
    let exit = commands::dispatch(cli.command, &cli.output).unwrap_or_else(|failure| {
        if cli.output.json {
            commands::print_json(diagnostics::to_json(&failure.report));
        }
        diagnostics::print(&failure.report);
        failure.exit
    });
    ExitCode::from(exit.code())
}
