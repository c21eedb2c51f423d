//! `spdflow lock`: writes down which results a pipeline has, or checks that it still has them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::lock::{Drift, Lock};
use spdflow_engine::workspace::Workspace;

use super::store;
use crate::args::{LockArgs, OutputArgs, PipelineArgs};
use crate::failure::{Exit, Failure};
use crate::output;

/// Writes the lock file of a pipeline whose results are all known, or compares it.
pub(super) fn lock(args: &LockArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let loaded = super::load_kept(&args.pipeline, &args.store)?;
    let pipeline = &loaded.pipeline;
    let scope = store::targets(pipeline, &[])?;
    let cache = store::open_keeping(&args.store, &loaded)?;
    let workspace = Workspace::new(&cache, &args.store.out, pipeline);
    let plan = store::make_plan(pipeline, &workspace, &scope, &args.store.target(), style.quiet)?;
    let path = path(&args.pipeline, args.lock_file.as_deref());
    if args.check {
        let drift = read(&path)?.drift(pipeline, &plan, true);
        return report(&pipeline.name, &path, &drift, style);
    }
    let lock = Lock::of(pipeline, &plan, &cache)?.map_err(|instance| {
        let message = format!("`{instance}` has no result yet, so there is nothing to lock");
        Failure::new(
            Exit::Stale,
            Diagnostic::new(message).hint(format!("make it: `spdflow run {}`", args.pipeline.file)),
        )
    })?;
    let text = lock.text();
    let is_new = fs::read_to_string(&path).map_or(true, |known| known != text);
    if is_new {
        super::write_whole(&path, &text).map_err(|error| unusable(&path, "write", &error))?;
    }
    let count = lock.stages.len();
    if style.json {
        let document = serde_json::json!({
            "pipeline": pipeline.name, "file": path.display().to_string(), "stages": count, "changed": is_new,
        });
        super::print_json(document);
    } else if !style.quiet {
        let what = if is_new { "locked" } else { "unchanged" };
        let stages = if count == 1 { "stage" } else { "stages" };
        output::data(&format!("{}: {count} {stages} {what}\n", path.display()));
    }
    Ok(Exit::Done)
}

/// Tells how the pipeline departs from its lock file.
fn report(pipeline: &str, path: &Path, drift: &[Drift], style: &OutputArgs) -> Result<Exit, Failure> {
    if style.json {
        let file = path.display().to_string();
        super::print_json(serde_json::json!({ "pipeline": pipeline, "file": file, "drift": drift }));
    } else if drift.is_empty() {
        if !style.quiet {
            output::data(&format!("{}: as locked\n", path.display()));
        }
    } else {
        return Err(departs(path, drift));
    }
    Ok(if drift.is_empty() { Exit::Done } else { Exit::Drift })
}

/// Returns the failure of a pipeline that is not what its lock file says.
pub(super) fn departs(path: &Path, drift: &[Drift]) -> Failure {
    const NAMED: usize = 10;
    let mut message = format!("the pipeline is not what `{}` says:", path.display());
    for drift in drift.iter().take(NAMED) {
        message += &format!("\n  {drift}");
    }
    if drift.len() > NAMED {
        message += &format!("\n  and {} more", drift.len() - NAMED);
    }
    let hint = "`spdflow plan` says what changed; if that is meant, run without `--locked` and `spdflow lock` again";
    Failure::new(Exit::Drift, Diagnostic::new(message).hint(hint))
}

/// Returns the lock file at `path`.
pub(super) fn read(path: &Path) -> Result<Lock, Failure> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let diagnostic = Diagnostic::new(format!("there is no lock file `{}`", path.display()));
            Failure::input(diagnostic.hint("`spdflow lock` writes it when the pipeline has all its results"))
        }
        _ => unusable(path, "read", &error),
    })?;
    Lock::parse(&text).map_err(|diagnostic| {
        let message = format!("`{}`: {}", path.display(), diagnostic.message);
        Failure::input(Diagnostic { message, ..diagnostic })
    })
}

/// Returns where the lock file lies: beside the pipeline and called as it, with the profile and sweep it is for.
pub(super) fn path(pipeline: &PipelineArgs, given: Option<&Path>) -> PathBuf {
    let mut path = match given {
        Some(path) => return path.to_owned(),
        // A shipped pipeline lies in no folder of the user's.
        None if !Path::new(&pipeline.file).exists() => {
            PathBuf::from(Path::new(&pipeline.file).file_name().unwrap_or_default())
        }
        None => PathBuf::from(&pipeline.file),
    };
    if path.extension().is_some_and(|extension| extension == "toml") {
        path.set_extension("");
    }
    let variant = [&pipeline.profile, &pipeline.sweep].into_iter().flatten();
    let ending = variant.map(|name| format!(".{name}")).collect::<String>() + ".lock";
    path.as_mut_os_string().push(ending);
    path
}

fn unusable(path: &Path, what: &str, error: &io::Error) -> Failure {
    Failure::input(Diagnostic::new(format!("cannot {what} `{}`: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_lies_beside_its_pipeline() {
        let of = |file: &str, profile: Option<&str>| {
            let args = PipelineArgs {
                file: file.to_owned(),
                set: Vec::new(),
                profile: profile.map(str::to_owned),
                sweep: None,
            };
            path(&args, None).display().to_string()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.b.toml");
        fs::write(&file, "").expect("a file");
        assert_eq!(of(file.to_str().expect("text"), None), folder.path().join("a.b.lock").display().to_string());
        assert_eq!(of("paper/tms_5-2", Some("smoke")), "tms_5-2.smoke.lock");
    }
}
