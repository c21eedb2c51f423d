//! `command`: runs any program, with inputs, outputs, code and environment as the pipeline declares them.
//!
//! The program sees copies of its inputs, the code it was given and nothing of the environment that was not declared.
//! It starts in a folder of its own (`folder.rs`); what it leaves in its outputs becomes the artifact (`outputs.rs`) only
//! if it ends with status 0 and has made all of them. `template.rs` reads `{in.NAME}` and the like, `process.rs` starts
//! and watches the program, `guard.rs` ends it when spdflow itself is killed, `repro.rs` leaves a script that repeats a
//! failure.

mod contents;
mod environment;
mod folder;
mod guard;
mod outputs;
mod params;
mod process;
mod program;
mod repro;
mod template;

use spdflow_engine::kind::{InputSlot, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};
use spdflow_engine::outside::{Outside, OutsideFiles};

pub use contents::{Contents, Scalar};
pub use params::CommandParams;

/// The stage kind.
#[derive(Debug, Clone, Copy)]
pub struct Command;

impl Kind for Command {
    type Params = CommandParams;

    const INFO: KindInfo = KindInfo {
        name: "command",
        version: 1,
        summary: "any program, with inputs, outputs, code and environment as declared",
        inputs: &[InputSlot {
            name: "*",
            accepts: &["*"],
            many: true,
            required: false,
            summary: "inputs of any name and kind; `{in.NAME}` stands for the folder of one",
        }],
    };

    fn validate(params: &CommandParams) -> Vec<ParamIssue> {
        params::validate(params)
    }

    fn complete(
        params: CommandParams,
        outside: &Outside<'_>,
    ) -> Result<(CommandParams, OutsideFiles), Vec<ParamIssue>> {
        params::complete(params, outside)
    }

    fn run(params: &CommandParams, context: &StageContext<'_>) -> Result<Summary, StageError> {
        let folder = folder::Folder::make(params, context)?;
        outputs::make_folders(params, context.out_dir)?;
        let arguments = folder.arguments(params)?;
        let environment = environment::environment(params, &folder, context.gpus)?;
        let program = program::find(&arguments[0], &environment, &folder)?;
        process::run(&program, &arguments, &environment, folder.start(), context)
            .and_then(|()| outputs::summary(params, &arguments[0], context.out_dir))
            .map_err(|error| repro::with_script(error, &arguments, &environment, folder.start(), context))
    }
}
