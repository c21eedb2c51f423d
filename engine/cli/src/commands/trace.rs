//! `spdflow trace`: from the bytes of a file to how they were made.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;

use spdflow_engine::cache::{Output, Record};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::sums::Sums;
use spdflow_engine::trace::{Alike, Input, Nearest, Place, Producer, Trace, trace as find};

use super::evidence;
use super::show::parameters;
use crate::args::{OutputArgs, TraceArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::registry::formats;
use crate::report::text::{duration, size, warning};

/// How many places are shown in full; the others are only named.
const SHOWN: usize = 3;
/// How many more are named.
const NAMED: usize = 10;
/// How many parameters are shown.
const PARAMETERS: usize = 8;

/// Tells what the cache knows of a file's bytes; if nothing, what is nearest.
pub(super) fn trace(args: &TraceArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let sums = sums(&args.file)?;
    let cache = evidence::open(&args.cache.cache)?;
    let trace = find(&cache, &sums, &args.out)?;
    if let [first, rest @ ..] = &trace.untrusted[..]
        && !style.quiet
    {
        let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
        let message = format!(
            "records that cannot be trusted were left out: `{}` ({}){more}; `spdflow cache verify` names them",
            first.path.display(),
            first.reason
        );
        output::message(&warning(&message));
    }
    let nearest =
        if trace.places.is_empty() { trace.nearest(&cache, &args.file, &formats()) } else { Nearest::default() };
    if style.json {
        super::print_json(document(&args.file, &sums, &trace, &nearest));
    } else if !trace.places.is_empty() {
        output::data(&text(&args.file, &sums, &trace.places));
    } else {
        return Err(unknown(args, &sums, &nearest));
    }
    Ok(if trace.places.is_empty() { Exit::Incomplete } else { Exit::Done })
}

pub(super) fn sums(file: &Path) -> Result<Sums, Failure> {
    let cannot =
        |reason: String| Failure::input(Diagnostic::new(format!("cannot read `{}`: {reason}", file.display())));
    if file.is_dir() {
        return Err(cannot("it is a folder, expected a file".to_owned()));
    }
    File::open(file).and_then(Sums::of_reader).map_err(|error| cannot(error.to_string()))
}

/// Returns the failure for a file of which the cache knows nothing, with what is nearest.
fn unknown(args: &TraceArgs, sums: &Sums, nearest: &Nearest<'_>) -> Failure {
    let cache = args.cache.cache.display();
    let message = format!(
        "nothing in the cache `{cache}` has the bytes of `{}` (BLAKE3 {}, {})",
        args.file.display(),
        sums.blake3,
        size(sums.size_bytes)
    );
    let mut diagnostic = Diagnostic::new(message);
    for alike in nearest.same.iter().take(SHOWN) {
        diagnostic = diagnostic
            .hint(format!("it holds the same as {}: it was probably saved again by another program", said(alike)));
    }
    for alike in &nearest.named {
        diagnostic = diagnostic.hint(format!("of its name, with other contents: {}", said(alike)));
    }
    if nearest.is_partial {
        diagnostic = diagnostic.hint("not every file of its format was compared: there are too many");
    }
    if nearest.same.is_empty() && nearest.named.is_empty() {
        diagnostic =
            diagnostic.hint("name another cache with `--cache DIR`; results that were collected are forgotten");
    }
    Failure::new(Exit::Incomplete, diagnostic)
}

fn said(alike: &Alike<'_>) -> String {
    let Alike { record, output } = alike;
    format!(
        "`{}` of `{}`, pipeline `{}`, run {} (BLAKE3 {})",
        output.path,
        record.instance,
        record.pipeline,
        record.run,
        output.digest.short()
    )
}

fn text(file: &Path, sums: &Sums, places: &[Place]) -> String {
    let mut text = format!("{}: {}, BLAKE3 {}\n", file.display(), size(sums.size_bytes), sums.blake3);
    for place in places.iter().take(SHOWN) {
        text.push('\n');
        text += &told(place);
    }
    if places.len() > SHOWN {
        text += "\nthe same bytes are also\n";
        for place in places.iter().skip(SHOWN).take(NAMED) {
            let _ = writeln!(text, "  {}", title(place));
        }
        let more = places.len().saturating_sub(SHOWN + NAMED);
        if more > 0 {
            let _ = writeln!(text, "  and {more} more");
        }
    }
    text
}

/// Returns in a line what a place is.
fn title(place: &Place) -> String {
    match place {
        Place::Output { record, output, .. } => {
            format!("`{}` of `{}`, pipeline `{}`", output.path, record.instance, record.pipeline)
        }
        Place::Log { record } => format!("the log of `{}`, pipeline `{}`", record.instance, record.pipeline),
        Place::Record { record } => format!("the record of `{}`, pipeline `{}`", record.instance, record.pipeline),
        Place::Run { run, file } => format!("`{file}` of run {run}"),
        Place::Work { file, instance: Some(instance), .. } => {
            format!("`{file}` of the unfinished work on `{instance}`")
        }
        Place::Work { file, fingerprint, .. } => format!("`{file}` of the unfinished work `{fingerprint}`"),
        Place::Other { file } => format!("`{file}` in the cache"),
        Place::Blob => "a file of the cache that no record names".to_owned(),
    }
}

fn told(place: &Place) -> String {
    let mut text = title(place) + "\n";
    match place {
        Place::Output { record, output, inputs, in_place } => {
            put(&mut text, "what", &format!("{}: {}", output.format, output.summary));
            tell(&mut text, record);
            if let Some(path) = in_place {
                put(&mut text, "in place", &path.display().to_string());
            }
            if !inputs.is_empty() {
                put(&mut text, "made from", "");
                tree(&mut text, inputs, 2);
            }
        }
        Place::Log { record } | Place::Record { record } => tell(&mut text, record),
        Place::Work { fingerprint, run, .. } => {
            put(&mut text, "fingerprint", fingerprint);
            if let Some(run) = run {
                put(&mut text, "run", run);
            }
        }
        Place::Run { .. } | Place::Other { .. } | Place::Blob => {}
    }
    text
}

fn put(text: &mut String, name: &str, value: &str) {
    let line = format!("  {name:12} {value}");
    text.push_str(line.trim_end());
    text.push('\n');
}

fn tell(text: &mut String, record: &Record) {
    put(text, "kind", &record.kind);
    put(text, "fingerprint", &record.fingerprint.to_string());
    put(text, "artifact", &record.artifact.digest.to_string());
    let parameters = parameters(record);
    if !parameters.is_empty() {
        let shown = parameters.iter().take(PARAMETERS).map(|(name, value)| format!("{name} = {value}"));
        let mut line = shown.collect::<Vec<_>>().join(", ");
        if parameters.len() > PARAMETERS {
            let _ = write!(line, ", and {} more", parameters.len() - PARAMETERS);
        }
        put(text, "parameters", &line);
    }
    put(text, "run", &record.run);
    put(text, "computed", &format!("{} in {}", record.times.started, duration(record.times.seconds)));
    let machine = &record.machine;
    put(text, "machine", &format!("{}, {}, {}", machine.host, machine.platform, machine.processor));
    let build = &record.build;
    put(text, "program", &format!("spdflow {} ({}), commit {}", build.version, build.profile, build.git_commit));
    put(text, "built by", &format!("{}, Cargo.lock {}", build.rustc, build.cargo_lock.short()));
}

fn tree(text: &mut String, inputs: &[Input], depth: usize) {
    for Input { slot, artifact, producer } in inputs {
        let indent = "  ".repeat(depth);
        match producer {
            Some(Producer { instance, kind, fingerprint, others, is_repeated, inputs, .. }) => {
                let again = if *is_repeated { ", as above" } else { "" };
                let others =
                    if others.is_empty() { String::new() } else { format!("; the same as {}", others.join(", ")) };
                let _ = writeln!(text, "{indent}{slot} ← {instance} ({kind}, {}{again}{others})", fingerprint.short());
                tree(text, inputs, depth + 1);
            }
            None => {
                let _ = writeln!(text, "{indent}{slot} ← artifact {}, of which there is no record", artifact.short());
            }
        }
    }
}

fn document(file: &Path, sums: &Sums, trace: &Trace, nearest: &Nearest<'_>) -> serde_json::Value {
    let alike = |alike: &Alike<'_>| {
        let Alike { record, output } = alike;
        serde_json::json!({
            "file": output.path, "digest": output.digest, "instance": record.instance, "pipeline": record.pipeline,
            "run": record.run, "fingerprint": record.fingerprint,
        })
    };
    serde_json::json!({
        "file": file.display().to_string(), "digest": sums.blake3, "sha256": sums.sha256,
        "size_bytes": sums.size_bytes, "places": trace.places.iter().map(json).collect::<Vec<_>>(),
        "same": nearest.same.iter().map(alike).collect::<Vec<_>>(),
        "named": nearest.named.iter().map(alike).collect::<Vec<_>>(),
        "untrusted": trace.untrusted.iter().map(|wrong| serde_json::json!({
            "file": wrong.path.display().to_string(), "reason": wrong.reason,
        })).collect::<Vec<_>>(),
    })
}

fn json(place: &Place) -> serde_json::Value {
    match place {
        Place::Output { record, output: Output { path, .. }, inputs, in_place } => serde_json::json!({
            "place": "output", "file": path, "record": record, "inputs": inputs,
            "in_place": in_place.as_ref().map(|path| path.display().to_string()),
        }),
        Place::Log { record } => serde_json::json!({ "place": "log", "record": record }),
        Place::Record { record } => serde_json::json!({ "place": "record", "record": record }),
        Place::Run { run, file } => serde_json::json!({ "place": "run", "run": run, "file": file }),
        Place::Work { fingerprint, file, instance, run } => serde_json::json!({
            "place": "work", "fingerprint": fingerprint, "file": file, "instance": instance, "run": run,
        }),
        Place::Other { file } => serde_json::json!({ "place": "other", "file": file }),
        Place::Blob => serde_json::json!({ "place": "blob" }),
    }
}
