//! `spdflow log`: what a stage wrote to its log, the last time it ran or while it runs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use spdflow_engine::cache::{Cache, CacheError, Digest};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::workspace::Workspace;

use super::store;
use crate::args::{LogArgs, OutputArgs};
use crate::failure::{Exit, Failure};

/// Prints the log.
pub(super) fn log(args: &LogArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let loaded = super::load_kept(&args.pipeline, &args.store)?;
    let pipeline = &loaded.pipeline;
    let chosen = pipeline.select(std::slice::from_ref(&args.stage)).map_err(Failure::input)?;
    let &[index] = chosen.as_slice() else {
        let first = pipeline.instances[chosen[0]].id.to_string();
        let message = format!("`{}` means {} stages, but a log belongs to one", args.stage, chosen.len());
        return Err(Failure::input(Diagnostic::new(message).hint(format!("name one of them: `{first}`"))));
    };
    let scope = store::targets(pipeline, std::slice::from_ref(&args.stage))?;
    let cache = store::open_keeping(&args.store, &loaded)?;
    let workspace = Workspace::new(&cache, &args.store.out, pipeline);
    let plan = store::make_plan(pipeline, &workspace, &scope, args.store.device, true)?;
    let id = &pipeline.instances[index].id;
    // The chosen instance is in its own scope.
    let step = plan.steps.iter().find(|step| step.index == index).expect("the target is planned");
    let Some(fingerprint) = step.fingerprint else {
        return Err(Failure::input(Diagnostic::new(format!("stage `{id}` has no log yet: it {}", step.why))));
    };
    if style.json {
        let text = String::from_utf8_lossy(&whole_log(&cache, &fingerprint)?.unwrap_or_default()).into_owned();
        super::print_json(serde_json::json!({ "stage": id.to_string(), "fingerprint": fingerprint, "log": text }));
        return Ok(Exit::Done);
    }
    if args.follow && cache.running(&fingerprint)?.is_some() {
        return follow(&cache, &fingerprint);
    }
    match whole_log(&cache, &fingerprint)? {
        Some(text) => print(&text)?,
        None => {
            let message = format!("stage `{id}` has no log: {}", step.why);
            return Err(Failure::input(Diagnostic::new(message).hint("`spdflow run` writes one")));
        }
    }
    Ok(Exit::Done)
}

/// Returns the log of the finished stage, else of the attempt that is under way or was cut short.
fn whole_log(cache: &Cache, fingerprint: &Digest) -> Result<Option<Vec<u8>>, Failure> {
    if let Some(record) = store::record(cache, Some(*fingerprint))? {
        let Some(digest) = record.log else { return Ok(Some(Vec::new())) };
        return Ok(cache.read_blob(&digest)?.ok());
    }
    Ok(std::fs::read(cache.work_folder(fingerprint).join("log")).ok())
}

fn follow(cache: &Cache, fingerprint: &Digest) -> Result<Exit, Failure> {
    let path = cache.work_folder(fingerprint).join("log");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        // It finished in this moment.
        Err(_) => {
            print(&whole_log(cache, fingerprint)?.unwrap_or_default())?;
            return Ok(Exit::Done);
        }
    };
    loop {
        // Asked before reading: what was written until the lock was released is then read.
        let is_running = cache.running(fingerprint)?.is_some();
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(CacheError::io("read", &path))?;
        print(&text)?;
        if !is_running {
            return Ok(Exit::Done);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn print(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // Whoever read us has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Bug, Diagnostic::new(format!("cannot write to stdout: {error}"))))
        }
        _ => Ok(()),
    }
}
