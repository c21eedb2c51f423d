//! `spdflow audit`: proves from the cache that results follow from their inputs, or says where they do not.

mod html;
mod markdown;
mod report;
mod scratch;
mod subject;
mod text;

use std::cell::Cell;
use std::fs::File;

use spdflow_engine::audit::finding::Class;
use spdflow_engine::audit::{Audit, Extent, Options, Subject, Variation, audit as audit_pipeline};
use spdflow_engine::cache::remote::Remote;
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::workspace::Workspace;

use super::run;
use crate::args::{AuditArgs, OutputArgs};
use crate::build_info::build_info;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::registry::formats;
use crate::report::text::{Color, line, size};
use report::Report;
use scratch::Scratch;

/// Audits what the command line names, and reports.
pub(super) fn audit(args: &AuditArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    check_arguments(args)?;
    let signals = run::listen()?;
    let scratch = Scratch::new(args.scratch.as_deref())?;
    let found = subject::find(args, &scratch)?;
    let workspace = Workspace::new(&found.cache, &found.out, &found.pipeline);
    let subject = Subject {
        pipeline: &found.pipeline,
        workspace: &workspace,
        lock: found.lock.as_ref(),
        target: found.target.clone(),
        arguments: found.arguments.clone(),
        variables: found.pipeline.outside.variables.clone(),
        threads: args.threads,
        absent: found.absent,
        findings: found.findings,
    };
    let remote = args.against.as_deref().map(|place| subject::against(place, &scratch)).transpose()?;
    let remote = remote.as_deref().map(Remote::open).transpose()?;
    let vary: Vec<Variation> = args.vary.iter().map(|choice| (*choice).into()).collect();
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Bug, Diagnostic::new(format!("cannot tell where this program lies: {error}")))
    })?;
    let has_told = Cell::new(false);
    let tell = |what: &str| {
        if !style.quiet && !style.json {
            has_told.set(true);
            output::message(&(line("Auditing", Color::Green, what) + "\n"));
        }
    };
    let (build, formats) = (build_info(), formats());
    let options = Options {
        level: args.level(),
        vary: &vary,
        extent: (!args.no_run).then_some(Extent { share: args.sample, budget: args.budget }),
        program,
        scratch: scratch.folder(),
        signers: args.signers.as_deref(),
        against: remote.as_ref(),
        repair: args.repair,
        build: &build,
        formats: &formats,
        stop: &signals.stop,
        tell: &tell,
    };
    let mut audit = audit_pipeline(&subject, &found.scope, &options)?;
    if let (Some(challenge), Some(place)) = (&mut audit.challenge, &args.against) {
        // As the user knows it, also if it was unpacked.
        challenge.against.clone_from(place);
    }
    if signals.stop.is_raised() {
        return Ok(signals.exit());
    }
    let exit = exit(&audit);
    if audit.worst() == Class::NotReproducible {
        let kept = scratch.keep();
        tell(&format!("what was made again is kept in `{}`", kept.display()));
    }
    let report = Report::new(found.what, &audit, exit);
    if style.json {
        super::print_json(report.json());
    } else if args.md {
        output::data(&markdown::page(&report));
    } else if args.html {
        output::data(&html::page(&report));
    } else {
        let text = if style.quiet { text::findings(&report, true) } else { text::page(&report, style.verbose > 0) };
        output::data(&text);
        if !style.quiet {
            output::message(&closing_line(&report));
        }
    }
    Ok(exit)
}

fn check_arguments(args: &AuditArgs) -> Result<(), Failure> {
    let level = args.level();
    let refuse = |message: String| Err(Failure::input(Diagnostic::new(message)));
    if level < 3 && !args.vary.is_empty() {
        return refuse(format!(
            "`--vary` is about making results again, which level {level} does not; give `--level 3` or more"
        ));
    }
    if level < 3 && (args.sample.is_some() || args.budget.is_some()) {
        return refuse(format!("`--sample` and `--budget` are about level 3, not {level}"));
    }
    if level == 5 && args.against.is_none() {
        return refuse("level 5 compares with somebody else's results; say whose with `--against PLACE`".to_owned());
    }
    if let Some(signers) = &args.signers
        // `ssh-keygen` says of a file that is missing that nobody in it has signed.
        && let Err(error) = File::open(signers)
    {
        return refuse(format!("cannot read the signers `{}`: {error}", signers.display()));
    }
    Ok(())
}

/// Returns how the command ends: by the worst finding.
fn exit(audit: &Audit) -> Exit {
    match audit.worst() {
        Class::Note => Exit::Done,
        Class::Drift => Exit::Drift,
        Class::Incomplete => Exit::Incomplete,
        Class::CouldNotRun => Exit::CouldNotRun,
        Class::Challenge => Exit::Challenge,
        Class::NotReproducible => Exit::NotReproducible,
        Class::Authenticity => Exit::Authenticity,
        Class::Integrity => Exit::Integrity,
    }
}

fn closing_line(report: &Report<'_>) -> String {
    let audit = report.audit;
    let stages = report.stages.len();
    let mut parts =
        vec![format!("{stages} {} up to level {}", if stages == 1 { "stage" } else { "stages" }, audit.level)];
    if let Some(reading) = audit.reading {
        let rate = size((reading.size_bytes as f64 / reading.seconds.max(1e-9)) as u64);
        parts.push(format!("{} files of {} at {rate}/s", reading.files, size(reading.size_bytes)));
    }
    parts.push(report.counts());
    let (verb, color) = match report.exit {
        Exit::Done => ("Audited", Color::Green),
        Exit::Drift | Exit::Incomplete => ("Audited", Color::Yellow),
        _ => ("Failed", Color::Red),
    };
    line(verb, color, &parts.join(", ")) + "\n"
}
