//! The program `spdflow`: the command with the stage kinds and file formats of `spdflow-stages`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use spdflow_engine::audit::format::Formats;

fn main() -> ExitCode {
    spdflow::main(spdflow_stages::registry(), Formats::default())
}
