//! `spdflow sign`: signs the log of runs with an SSH key.

use std::path::Path;

use spdflow_engine::audit::signature::{self, SignatureError};
use spdflow_engine::cache::{Cache, LogLine};
use spdflow_engine::diagnostic::Diagnostic;

use super::evidence;
use crate::args::{OutputArgs, SignArgs};
use crate::failure::{Exit, Failure};
use crate::output;

/// Signs the log up to the run that the command line names.
pub(super) fn sign(args: &SignArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let cache = evidence::open(&args.cache.cache)?;
    let (run, file) = sign_run(&cache, args.run.as_deref(), &args.key)?;
    if style.json {
        super::print_json(serde_json::json!({ "run": run, "signature": file }));
    } else if !style.quiet {
        output::data(&format!("signed everything up to run {run}: {file}\n"));
    }
    Ok(Exit::Done)
}

/// Signs the log's line of a run, or the last one; returns the run and the signature's file.
pub(super) fn sign_run(cache: &Cache, run: Option<&str>, key: &Path) -> Result<(String, String), Failure> {
    let log = cache.run_log()?;
    let name = |line: &LogLine| line.entry.as_ref().map(|entry| entry.run.clone()).unwrap_or_default();
    let line = match run {
        Some(run) => log.iter().rev().find(|line| name(line) == run),
        None => log.last(),
    };
    let Some(line) = line else {
        let message = match run {
            Some(run) => format!("the log of runs has no run `{run}`"),
            None => "the log of runs is empty, so there is nothing to sign".to_owned(),
        };
        return Err(Failure::input(Diagnostic::new(message).hint("a run that makes something is logged when it ends")));
    };
    if let Err(reason) = &line.entry {
        let message = format!("the last line of the log of runs cannot be read ({reason}), so it is not signed");
        return Err(Failure::new(
            Exit::Authenticity,
            Diagnostic::new(message).hint("`spdflow audit --level 4` says more"),
        ));
    }
    let signed = signature::sign(key, &line.bytes)?;
    let file = cache.put_signature(&line.digest, &signed)?;
    Ok((name(line), file.display().to_string()))
}

impl From<SignatureError> for Failure {
    fn from(error: SignatureError) -> Self {
        Self::input(Diagnostic::new(error.to_string()).hint(error.hint()))
    }
}
