//! The program `spdflow`: the command with the stage kinds and file formats of `spdflow-stages`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    spdflow::main(spdflow_stages::registry(), spdflow_stages::formats::formats())
}
