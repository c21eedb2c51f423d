//! The `spdflow` command: reads the command line, dispatches, reports, exits.
//!
//! A library with one function, so that the program's tests can make a program of it that knows other kinds of stages.
#![forbid(unsafe_code)]

mod args;
mod build_info;
mod commands;
mod diagnostics;
mod failure;
mod output;
mod registry;
mod report;
mod shipped;
mod signals;
#[cfg(test)]
mod test_kinds;

use std::process::ExitCode;

use clap::Parser;
use spdflow_engine::audit::format::Formats;
use spdflow_engine::kind::Registry;

/// Does what the command line asks for, with the kinds of stages and the file formats that this program knows.
pub fn main(kinds: Registry, formats: Formats) -> ExitCode {
    registry::know(kinds, formats);
    failure::report_panics_as_bugs();
    // A wrong command line ends here, with clap's message and exit code 2.
    let cli = args::Cli::parse();
    diagnostics::choose_colors(cli.output.color);
    // `run --json` is a stream of lines, so its failure is one more line.
    let is_stream = matches!(&cli.command, args::Command::Run(args) if !args.dry_run);
    let exit = commands::dispatch(cli.command, &cli.output).unwrap_or_else(|failure| {
        diagnostics::tell(&failure, cli.output.json, is_stream);
        failure.exit
    });
    ExitCode::from(exit.code())
}
