//! `spdflow cache`: what lies in the cache, whether it is whole, what of it can go, and what is shared.

mod transfer;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spdflow_engine::cache::{Cache, Class, GarbageClass, Keep, Problem, RunInfo, Stamp};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::lock::Lock;

use crate::args::{CacheCommand, CacheFolderArgs, GcArgs, LsArgs, OutputArgs, PinArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::table::Table;
use crate::report::text::{rough_duration, size};

/// Does what the command line asks for.
pub(super) fn cache(command: &CacheCommand, style: &OutputArgs) -> Result<Exit, Failure> {
    match command {
        CacheCommand::Ls(args) => ls(args, style),
        CacheCommand::Du(args) => du(args, style),
        CacheCommand::Verify(args) => verify(args, style),
        CacheCommand::Gc(args) => gc(args, style),
        CacheCommand::Push(args) => transfer::push(args, style),
        CacheCommand::Pull(args) => transfer::pull(args, style),
        CacheCommand::Pin(args) => pin(args, true, style),
        CacheCommand::Unpin(args) => pin(args, false, style),
    }
}

/// Opens the cache if there is one: to look is no reason to make one.
fn open(args: &CacheFolderArgs) -> Result<Cache, Failure> {
    if !args.cache.exists() {
        let message = format!("there is no cache in `{}`", args.cache.display());
        let hint = "name one with `--cache DIR` or `SPDFLOW_CACHE`; `spdflow run` makes it";
        return Err(Failure::input(Diagnostic::new(message).hint(hint)));
    }
    Ok(Cache::open(&args.cache)?)
}

/// Lists results, or runs.
fn ls(args: &LsArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let cache = open(&args.cache)?;
    if args.runs {
        return ls_runs(&cache, style);
    }
    let mut results = cache.results()?;
    results.reverse();
    if style.json {
        let documents = results.iter().map(|result| {
            let record = &result.record;
            serde_json::json!({
                "instance": record.instance, "pipeline": record.pipeline, "kind": record.kind,
                "fingerprint": record.fingerprint, "artifact": record.artifact.digest,
                "size_bytes": record.artifact.outputs.iter().map(|output| output.size_bytes).sum::<u64>(),
                "unused_seconds": age(result.last_use).as_secs(), "is_whole": result.is_whole,
            })
        });
        super::print_json(serde_json::json!({ "results": documents.collect::<Vec<_>>() }));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["pipeline", "stage", "kind", ">size", ">unused", "fingerprint"]);
    for result in &results {
        let record = &result.record;
        let bytes = record.artifact.outputs.iter().map(|output| output.size_bytes).sum();
        table.row([
            record.pipeline.clone(),
            record.instance.clone(),
            record.kind.clone(),
            if result.is_whole { size(bytes) } else { "incomplete".to_owned() },
            rough_duration(age(result.last_use)),
            record.fingerprint.short(),
        ]);
    }
    output::data(&table.text());
    Ok(Exit::Done)
}

fn ls_runs(cache: &Cache, style: &OutputArgs) -> Result<Exit, Failure> {
    let mut runs = cache.runs()?;
    runs.reverse();
    let results = runs.iter().map(RunInfo::results).collect::<Result<Vec<_>, _>>()?;
    if style.json {
        let documents = runs.iter().zip(&results).map(|(run, results)| {
            serde_json::json!({
                "run": run.id, "pipeline": pipeline_of(run), "status": status_of(run),
                "pinned": run.is_pinned, "results": results,
            })
        });
        super::print_json(serde_json::json!({ "runs": documents.collect::<Vec<_>>() }));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["run", "pipeline", "status", ">results", "pinned"]);
    for (run, results) in runs.iter().zip(&results) {
        let pinned = if run.is_pinned { "pinned" } else { "" };
        let pipeline = pipeline_of(run).unwrap_or_default();
        table.row([run.id.clone(), pipeline, status_of(run), results.len().to_string(), pinned.to_owned()]);
    }
    output::data(&table.text());
    Ok(Exit::Done)
}

/// Returns the pipeline's name from the first line of the journal.
fn pipeline_of(run: &RunInfo) -> Option<String> {
    let journal = fs::read_to_string(run.path.join("journal.jsonl")).ok()?;
    let event: serde_json::Value = serde_json::from_str(journal.lines().next()?).ok()?;
    Some(event["pipeline"].as_str()?.to_owned())
}

/// Returns how the run ended; one without a summary that does not run was killed.
fn status_of(run: &RunInfo) -> String {
    let summary = fs::read_to_string(run.path.join("summary.json")).ok();
    let summary = summary.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    match summary.as_ref().and_then(|summary| summary["status"].as_str()) {
        Some(status) => status.to_owned(),
        None if run.is_running => "running".to_owned(),
        None => "killed".to_owned(),
    }
}

/// Says how much room each part of the cache takes.
fn du(args: &CacheFolderArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let usage = open(args)?.usage()?;
    let total: u64 = usage.iter().map(|folder| folder.size_bytes).sum();
    if style.json {
        let folders = usage.iter().map(|folder| {
            serde_json::json!({ "folder": folder.folder, "files": folder.files, "size_bytes": folder.size_bytes })
        });
        super::print_json(serde_json::json!({ "folders": folders.collect::<Vec<_>>(), "size_bytes": total }));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["folder", ">files", ">size"]);
    for folder in &usage {
        table.row([folder.folder.to_owned(), folder.files.to_string(), size(folder.size_bytes)]);
    }
    table.row(["total".to_owned(), usage.iter().map(|folder| folder.files).sum::<u64>().to_string(), size(total)]);
    output::data(&table.text());
    Ok(Exit::Done)
}

/// Reads every byte of the cache and says what is damaged.
fn verify(args: &CacheFolderArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let found = open(args)?.verify()?;
    let exit = if found.problems.is_empty() { Exit::Done } else { Exit::Cache };
    if style.json {
        let problems = found.problems.iter().map(|problem| serde_json::json!({ "message": problem_text(problem) }));
        super::print_json(serde_json::json!({
            "blobs": found.blobs, "records": found.records, "size_bytes": found.size_bytes,
            "problems": problems.collect::<Vec<_>>(),
        }));
        return Ok(exit);
    }
    for problem in &found.problems {
        output::message(&format!("error: {}\n", problem_text(problem)));
    }
    if !style.quiet {
        let bytes = size(found.size_bytes);
        let wrong = match found.problems.len() {
            0 => "nothing is wrong".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        output::data(&format!("{} blobs ({bytes}) and {} records: {wrong}\n", found.blobs, found.records));
    }
    Ok(exit)
}

fn problem_text(problem: &Problem) -> String {
    match problem {
        Problem::DamagedBlob { digest, quarantined } => {
            format!("blob {} is damaged; it was moved to `{}`", digest.short(), quarantined.display())
        }
        Problem::CorruptRecord { fingerprint, reason, quarantined } => {
            let name = fingerprint.short();
            format!("record {name} is damaged ({reason}); it was moved to `{}`", quarantined.display())
        }
        Problem::MissingBlob { fingerprint, output } => {
            format!("file `{output}` of record {} is missing; its stage will run again", fingerprint.short())
        }
        Problem::Stray { path } => format!("`{}` does not belong there", path.display()),
    }
}

/// Says what nobody needs, and with `--yes` deletes it.
fn gc(args: &GcArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let cache = open(&args.cache)?;
    let locks = lock_files(args)?;
    let (mut results, mut blobs) = (BTreeSet::new(), BTreeSet::new());
    for path in &locks {
        let lock = super::lock::read(path)?;
        results.extend(lock.stages.values().map(|stage| stage.fingerprint));
        blobs.extend(lock.stages.values().flat_map(|stage| stage.outputs.values().copied()));
    }
    let keep = Keep {
        results,
        blobs,
        runs: args.keep_runs,
        younger_than: args.keep_days,
        size_bytes: args.max_size,
        grace: Duration::from_secs(3600),
    };
    let garbage = cache.garbage(&keep)?;
    let (kept_results, kept_bytes) = (garbage.kept_results, garbage.kept_bytes);
    let above = args.max_size.map_or(0, |most| kept_bytes.saturating_sub(most));
    let names = style.verbose > 0 && !style.json;
    if names {
        output::data(&doomed(&cache, &garbage.results)?);
    }
    let (classes, spared) = if args.yes {
        let collected = cache.collect(garbage)?;
        (collected.classes, collected.spared)
    } else {
        (garbage.classes, 0)
    };
    if style.json {
        super::print_json(serde_json::json!({
            "deleted": args.yes, "classes": classes, "spared": spared,
            "size_bytes": classes.iter().map(|class| class.size_bytes).sum::<u64>(),
            "kept_results": kept_results, "kept_bytes": kept_bytes, "above_max_size": above,
            "locks": locks.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        }));
        return Ok(Exit::Done);
    }
    if !style.quiet {
        output::data(&summary(&classes, kept_results, kept_bytes, args.yes));
        if above > 0 {
            let text = format!("what is needed takes {} more than `--max-size`", size(above));
            output::message(&crate::report::text::warning(&text));
        }
        if !args.yes && !classes.is_empty() {
            output::message("nothing was deleted; `--yes` deletes it\n");
        }
    }
    Ok(Exit::Done)
}

fn summary(classes: &[GarbageClass], kept_results: u64, kept_bytes: u64, is_done: bool) -> String {
    let total = size(classes.iter().map(|class| class.size_bytes).sum());
    let mut table = Table::new(&["garbage", ">count", ">size"]);
    for class in classes {
        table.row([class_text(class.class).to_owned(), class.count.to_string(), size(class.size_bytes)]);
    }
    let results = if kept_results == 1 { "result" } else { "results" };
    let stays = format!("{kept_results} {results} ({})", size(kept_bytes));
    let verb = if is_done { "freed" } else { "could be freed" };
    let staying = if is_done { "are left" } else { "would be left" };
    if classes.is_empty() {
        format!("nothing to free; {stays} are needed\n")
    } else {
        format!("{}{total} {verb}; {stays} {staying}\n", table.text())
    }
}

fn class_text(class: Class) -> &'static str {
    match class {
        Class::Results => "results nobody needs",
        Class::DamagedRecords => "damaged records",
        Class::OrphanBlobs => "blobs without a record",
        Class::WorkFolders => "finished or abandoned work",
        Class::Temporaries => "files left by killed processes",
        Class::Quarantine => "damaged files put aside",
    }
}

/// Names the results that go.
fn doomed(cache: &Cache, results: &[spdflow_engine::cache::Digest]) -> Result<String, Failure> {
    let mut table = Table::new(&["pipeline", "stage", "fingerprint"]);
    for fingerprint in results {
        if let Some(record) = super::store::record(cache, Some(*fingerprint))? {
            table.row([record.pipeline.clone(), record.instance.clone(), fingerprint.short()]);
        }
    }
    Ok(if results.is_empty() { String::new() } else { table.text() })
}

/// Returns the lock files that were named and those that lie beside the pipelines: of the files that were named, or else
/// in the present folder and in `pipelines/`.
fn lock_files(args: &GcArgs) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut files: BTreeSet<PathBuf> = args.keep_lock.iter().cloned().collect();
    let mut folders = BTreeSet::new();
    for file in &args.files {
        if !file.exists() {
            let message = format!("there is no pipeline `{}`", file.display());
            return Err(Failure::input(Diagnostic::new(message)));
        }
        folders.insert(file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")).to_owned());
    }
    let mut open: Vec<PathBuf> = if args.files.is_empty() {
        files.extend(locks_in(Path::new("."))?);
        [PathBuf::from("pipelines")].into()
    } else {
        for folder in &folders {
            files.extend(locks_in(folder)?);
        }
        Vec::new()
    };
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
        files.extend(locks_in(&folder)?);
    }
    Ok(files)
}

/// Returns the lock files of ours in a folder. One that was mended by hand or in a merge still counts: its results must
/// not be deleted because it cannot be read, so the command ends with what is wrong with it.
fn locks_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let path = if folder == Path::new(".") { PathBuf::from(&name) } else { entry.path() };
        if path.extension().is_none_or(|extension| extension != "lock") || !path.is_file() {
            continue;
        }
        let text = fs::read(&path)
            .map_err(|error| Failure::input(Diagnostic::new(format!("cannot read `{}`: {error}", path.display()))))?;
        if Lock::is_meant(&String::from_utf8_lossy(&text)) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Makes `gc` keep the results of runs, or no longer.
fn pin(args: &PinArgs, is_pinned: bool, style: &OutputArgs) -> Result<Exit, Failure> {
    let cache = open(&args.cache)?;
    let known = cache.runs()?;
    let runs: Vec<String> = if args.runs.is_empty() {
        let last = known.last().ok_or_else(|| Failure::input(Diagnostic::new("the cache has no run yet")))?;
        vec![last.id.clone()]
    } else {
        args.runs.clone()
    };
    if let Some(unknown) = runs.iter().find(|id| !known.iter().any(|run| run.id == **id)) {
        let message = format!("the cache has no run `{unknown}`");
        return Err(Failure::input(Diagnostic::new(message).hint("`spdflow cache ls --runs` lists them")));
    }
    for id in &runs {
        cache.pin_run(id, is_pinned)?;
    }
    if style.json {
        super::print_json(serde_json::json!({ "runs": runs, "pinned": is_pinned }));
    } else if !style.quiet {
        let verb = if is_pinned { "pinned" } else { "unpinned" };
        output::data(&runs.iter().map(|id| format!("{id}: {verb}\n")).collect::<String>());
    }
    Ok(Exit::Done)
}

fn age(then: i64) -> Duration {
    Duration::from_nanos(u64::try_from(Stamp::now() - then).unwrap_or(0))
}
