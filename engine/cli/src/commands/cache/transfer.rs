//! `spdflow cache push` and `pull`: carry results to a remote and back.

use std::collections::{BTreeMap, BTreeSet};

use spdflow_engine::cache::remote::{PushOptions, Pushed, Remote, RemoteError, Transfer};
use spdflow_engine::cache::{Cache, Digest, Lease};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::gather::{Gathered, GatheredState, Source, gather};

use crate::args::{OutputArgs, PullArgs, PushArgs, RemoteArgs};
use crate::commands::{load, print_json, store};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::text::{Color, line, size, warning};

/// One result, and what became of it.
struct Row {
    pipeline: Option<String>,
    instance: Option<String>,
    fingerprint: Option<Digest>,
    state: &'static str,
    transfer: Transfer,
    /// What is wrong with it.
    message: Option<String>,
}

impl Row {
    /// Returns what people call it.
    fn name(&self) -> String {
        match (&self.instance, self.fingerprint) {
            (Some(instance), _) => instance.clone(),
            (None, Some(fingerprint)) => format!("result {}", fingerprint.short()),
            (None, None) => String::new(),
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "pipeline": self.pipeline, "instance": self.instance, "fingerprint": self.fingerprint,
            "state": self.state, "files": self.transfer.files, "size_bytes": self.transfer.size_bytes,
            "message": self.message,
        })
    }
}

/// Sends results.
pub(super) fn push(args: &PushArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let remote = open(&args.transfer.remote)?;
    let cache = super::open(&args.transfer.cache)?;
    let lease = cache.lease()?;
    let mut rows = if args.files.is_empty() {
        let wanted = if args.all {
            cache.results()?.into_iter().map(|result| result.record.fingerprint).collect()
        } else {
            let last = cache.runs()?.pop();
            last.ok_or_else(|| Failure::input(Diagnostic::new("the cache has no run yet")))?.results()?
        };
        kept(&cache, &lease, &wanted)?
    } else {
        of_pipelines(args, &cache, &lease)?
    };
    let indices: Vec<usize> = (0..rows.len()).filter(|index| rows[*index].state == "known").collect();
    let keys: Vec<Digest> = indices.iter().filter_map(|index| rows[*index].fingerprint).collect();
    let options = PushOptions { again: args.again, dry_run: args.transfer.dry_run };
    let done = |place: usize, pushed: &Pushed| {
        if let Pushed::Sent(transfer) = pushed {
            say(style, options.dry_run, ["Sent", "Would send"], &rows[indices[place]].name(), *transfer);
        }
    };
    let pushed = remote.push_all(&cache, &keys, options, &done)?;
    for (pushed, index) in pushed.into_iter().zip(indices) {
        let (state, transfer, message) = match pushed {
            Pushed::Sent(transfer) => ("sent", transfer, None),
            Pushed::Known => ("known", Transfer::default(), None),
            Pushed::Other { artifact } => {
                let artifact = artifact.short();
                let message = format!("the remote has another result for the same key (artifact {artifact})");
                ("other", Transfer::default(), Some(message))
            }
            Pushed::Incomplete { reason } => ("incomplete", Transfer::default(), Some(reason)),
        };
        let row = &mut rows[index];
        (row.state, row.transfer, row.message) = (state, transfer, message);
    }
    let words = [
        ("sent", ["sent", "to send"]),
        ("known", ["there already"; 2]),
        ("other", ["there with other bytes"; 2]),
        ("incomplete", ["not whole in the cache"; 2]),
        ("absent", ["not made yet"; 2]),
    ];
    Ok(report(&remote, &rows, options.dry_run, &words, style))
}

/// Takes results.
pub(super) fn pull(args: &PullArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let remote = open(&args.transfer.remote)?;
    let dry_run = args.transfer.dry_run;
    let pipelines = args.files.iter().map(|file| load(&args.transfer.pipeline(file))).collect::<Result<Vec<_>, _>>()?;
    if !remote.is_there()? {
        return Err(RemoteError::Empty { remote: remote.url().to_owned() }.into());
    }
    let cache = Cache::open(&args.transfer.cache.cache)?;
    let lease = cache.lease()?;
    let mut rows = Vec::new();
    for pipeline in &pipelines {
        let done = |result: &Gathered| {
            if let GatheredState::Taken(transfer) = result.state {
                let name = pipeline.instances[result.index].id.to_string();
                say(style, dry_run, ["Fetched", "Would fetch"], &name, transfer);
            }
        };
        let source = Some(Source { remote: &remote, dry_run });
        let gathered = gather(pipeline, &cache, &lease, &args.transfer.target(), source, &done)?;
        rows.extend(gathered.into_iter().map(|result| {
            let (state, transfer, message) = match result.state {
                GatheredState::Known => ("known", Transfer::default(), None),
                GatheredState::Taken(transfer) => ("taken", transfer, None),
                GatheredState::Absent => ("absent", Transfer::default(), None),
                GatheredState::Unknown => ("unknown", Transfer::default(), None),
                GatheredState::Damaged { object, reason } => {
                    let message = format!("`{object}` of the remote `{}` is not used: {reason}", remote.url());
                    ("damaged", Transfer::default(), Some(message))
                }
            };
            let instance = Some(pipeline.instances[result.index].id.to_string());
            let (pipeline, fingerprint) = (Some(pipeline.name.clone()), result.fingerprint);
            Row { pipeline, instance, fingerprint, state, transfer, message }
        }));
    }
    cache.flush()?;
    if !style.quiet && !rows.is_empty() && rows.iter().all(|row| matches!(row.state, "absent" | "unknown")) {
        let why = "other parameters, inputs or versions of kinds make other keys";
        output::message(&warning(&format!("the remote has none of these results: {why}")));
    }
    let words = [
        ("taken", ["taken", "to take"]),
        ("known", ["here already"; 2]),
        ("damaged", ["damaged there"; 2]),
        ("absent", ["not there"; 2]),
        ("unknown", ["unknown, for want of inputs"; 2]),
    ];
    Ok(report(&remote, &rows, dry_run, &words, style))
}

fn open(args: &RemoteArgs) -> Result<Remote, Failure> {
    match args.url() {
        Some(url) => Ok(Remote::open(url)?),
        None => {
            let hint = "give its URL with `--remote URL` or `SPDFLOW_REMOTE`";
            Err(Failure::input(Diagnostic::new("no remote was named").hint(hint)))
        }
    }
}

/// Returns the results with these keys, kept from garbage collection.
fn kept(cache: &Cache, lease: &Lease, wanted: &[Digest]) -> Result<Vec<Row>, Failure> {
    lease.add(cache, wanted)?;
    let mut seen = BTreeSet::new();
    let row = |fingerprint: &Digest| {
        let record = store::record(cache, Some(*fingerprint))?;
        Ok(Row {
            pipeline: record.as_ref().map(|record| record.pipeline.clone()),
            instance: record.map(|record| record.instance.clone()),
            fingerprint: Some(*fingerprint),
            state: "known",
            transfer: Transfer::default(),
            message: None,
        })
    };
    wanted.iter().filter(|fingerprint| seen.insert(**fingerprint)).map(row).collect()
}

/// Returns the results of pipelines, each once, as far as the cache has them.
fn of_pipelines(args: &PushArgs, cache: &Cache, lease: &Lease) -> Result<Vec<Row>, Failure> {
    let (mut rows, mut seen) = (Vec::new(), BTreeSet::new());
    for file in &args.files {
        let pipeline = load(&args.transfer.pipeline(file))?;
        for result in gather(&pipeline, cache, lease, &args.transfer.target(), None, &|_| ())? {
            if result.fingerprint.is_some_and(|fingerprint| !seen.insert(fingerprint)) {
                continue;
            }
            rows.push(Row {
                pipeline: Some(pipeline.name.clone()),
                instance: Some(pipeline.instances[result.index].id.to_string()),
                fingerprint: result.fingerprint,
                state: if result.state == GatheredState::Known { "known" } else { "absent" },
                transfer: Transfer::default(),
                message: None,
            });
        }
    }
    Ok(rows)
}

/// Tells that a result was carried over, or would be.
fn say(style: &OutputArgs, dry_run: bool, verbs: [&str; 2], name: &str, transfer: Transfer) {
    if !style.quiet && !style.json {
        let rest = format!("{name} ({})", amount(transfer));
        output::message(&(line(verbs[usize::from(dry_run)], Color::Green, &rest) + "\n"));
    }
}

fn amount(transfer: Transfer) -> String {
    let files = if transfer.files == 1 { "file" } else { "files" };
    format!("{} {files}, {}", transfer.files, size(transfer.size_bytes))
}

/// Tells what became of all; `words` are the states with what people call them, done and in a dry run.
fn report(
    remote: &Remote,
    rows: &[Row],
    dry_run: bool,
    words: &[(&'static str, [&str; 2])],
    style: &OutputArgs,
) -> Exit {
    let total = rows.iter().fold(Transfer::default(), |total, row| Transfer {
        files: total.files + row.transfer.files,
        size_bytes: total.size_bytes + row.transfer.size_bytes,
    });
    let is_wrong = |row: &Row| matches!(row.state, "incomplete" | "damaged");
    let exit = if rows.iter().any(is_wrong) { Exit::Cache } else { Exit::Done };
    if style.json {
        print_json(serde_json::json!({
            "remote": remote.url(), "dry_run": dry_run, "files": total.files, "size_bytes": total.size_bytes,
            "results": rows.iter().map(Row::json).collect::<Vec<_>>(),
        }));
        return exit;
    }
    for row in rows {
        let Some(message) = &row.message else { continue };
        let text = format!("`{}`: {message}", row.name());
        if is_wrong(row) {
            output::message(&format!("error: {text}\n"));
        } else if !style.quiet {
            output::message(&warning(&text));
        }
    }
    if style.quiet {
        return exit;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.state).or_default() += 1;
    }
    let part = |(state, verbs): &(&'static str, [&str; 2])| {
        let count = *counts.get(state)?;
        let verb = verbs[usize::from(dry_run)];
        let carried = matches!(*state, "sent" | "taken").then(|| format!(" ({})", amount(total))).unwrap_or_default();
        Some(format!("{count} {verb}{carried}"))
    };
    let parts: Vec<String> = words.iter().filter_map(part).collect();
    let parts = if parts.is_empty() { "no results".to_owned() } else { parts.join(", ") };
    output::data(&format!("{}: {parts}\n", remote.url()));
    exit
}
