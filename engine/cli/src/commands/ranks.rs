//! What `spdflow run` is as one of several processes: the run itself as rank 0, else a helper of it.

use std::time::Duration;

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::executor::Executor;
use spdflow_engine::executor::local::Local;
use spdflow_engine::executor::ranked::Ranked;
use spdflow_engine::kind::Device;
use spdflow_engine::machine::machine_info;
use spdflow_engine::ranks::{Follower, FollowerOptions, Identity, Leader, MeetingError, Place, join, lead};

use super::machine;
use crate::args::{OutputArgs, RunArgs};
use crate::build_info::build_info;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::registry::registry;
use crate::report::text::{Color, line};
use crate::signals::Signals;

/// How long ranks wait for each other at the start, if this does not say it.
const PATIENCE: &str = "SPDFLOW_RENDEZVOUS_SECONDS";
const PATIENCE_SECONDS: u64 = 600;

/// Returns this process's place among those that were started together; nothing for one that is alone.
pub(super) fn place(args: &RunArgs) -> Result<Option<Place>, Failure> {
    let place = Place::from_variables(variable).map_err(|error| {
        let hint = "`RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` place a process among others, as `srun` does";
        Failure::input(Diagnostic::new(error.to_string()).hint(hint))
    })?;
    let started = place.as_ref().map_or(1, |place| place.size);
    match args.store.ranks.map(usize::from) {
        Some(ranks) if ranks != started => {
            let processes = if started == 1 { "1 process was".to_owned() } else { format!("{started} processes were") };
            let message = format!("`--ranks` is {ranks} but {processes} started");
            let hint = format!("start it with `srun -n {ranks}`, or set `WORLD_SIZE` and each one's `RANK`");
            Err(Failure::input(Diagnostic::new(message).hint(hint)))
        }
        _ if started > 1 && args.watch => {
            Err(Failure::input(Diagnostic::new("`--watch` cannot be used by several processes together")))
        }
        _ => Ok(place),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns what runs stages: this process, with all others if there are any.
pub(super) fn executor(
    place: Option<&Place>,
    args: &RunArgs,
    style: &OutputArgs,
    signals: &Signals,
) -> Result<Box<dyn Executor>, Failure> {
    let Some(place) = place else { return Ok(Box::new(Local)) };
    let mut tell = |who: &str| {
        if !style.quiet && !style.json {
            output::message(&(line("Waiting", Color::Cyan, &format!("for {who}")) + "\n"));
        }
    };
    let connections = lead(place, &identity(args), patience()?, &signals.stop, &mut tell);
    Ok(Box::new(Ranked::new(Leader::new(connections.map_err(|error| not_met(&error, signals))?))))
}

/// Helps rank 0 until it is done.
pub(super) fn help(place: &Place, args: &RunArgs, style: &OutputArgs, signals: &Signals) -> Result<Exit, Failure> {
    let connection =
        join(place, &identity(args), patience()?, &signals.stop).map_err(|error| not_met(&error, signals))?;
    let gpus = machine::gpus(&args.machine)?;
    let local = Place::local_rank(variable).unwrap_or(0);
    let (device, gpus) = match args.store.device {
        Device::Cuda(first) => match gpus.is_empty() {
            true => (Device::Cuda(first + local), gpus),
            // As many processes on a machine as it has GPUs take one each.
            false => {
                let gpu = gpus[local % gpus.len()].clone();
                (Device::Cuda(gpu.ordinal), vec![gpu])
            }
        },
        device => (device, gpus),
    };
    let options = FollowerOptions { threads: args.machine.threads, device, gpus, stop: signals.stop.clone() };
    let mut tell = |kind: &str| {
        if style.verbose > 0 {
            let text = format!("rank 0 with `{kind}` as rank {} of {}", place.rank, place.size);
            output::message(&(line("Helping", Color::Cyan, &text) + "\n"));
        }
    };
    Follower::new(connection, place).follow(&registry(), &options, &mut tell).map_err(|error| {
        let hint = "finished stages are safe in its cache; start all ranks again to go on";
        Failure::new(Exit::StageFailed, Diagnostic::new(error.to_string()).hint(hint))
    })?;
    Ok(Exit::Done)
}

/// Returns what all ranks must have in common.
fn identity(args: &RunArgs) -> Identity {
    let build = build_info();
    let program = format!("spdflow {} ({}, {})", build.version, build.git_commit, build.cargo_lock.short());
    // A rank that uses less of its processor than it could rounds as a lesser one.
    let limit = variable("SPDFLOW_SIMD").map(|level| format!(" (SPDFLOW_SIMD={level})")).unwrap_or_default();
    let processor = machine_info().cpu_features.join(" ") + &limit;
    Identity { program, device: args.store.device.numeric_target().to_owned(), processor }
}

fn patience() -> Result<Duration, Failure> {
    let Some(text) = variable(PATIENCE).filter(|text| !text.is_empty()) else {
        return Ok(Duration::from_secs(PATIENCE_SECONDS));
    };
    text.parse().map(Duration::from_secs).map_err(|_| {
        Failure::input(Diagnostic::new(format!("`{PATIENCE}` is `{text}`, expected a whole number of seconds")))
    })
}

fn not_met(error: &MeetingError, signals: &Signals) -> Failure {
    let message = Diagnostic::new(error.to_string());
    match error {
        MeetingError::Interrupted => Failure::new(signals.exit(), message),
        MeetingError::Missing(_) => {
            Failure::input(message.hint(
                "all processes need the same `WORLD_SIZE` and `MASTER_ADDR`; in a batch script `srun` starts them",
            ))
        }
        MeetingError::Refused(_) => {
            Failure::input(message.hint("all ranks need the same program, options and kind of processor"))
        }
        MeetingError::CannotListen { .. } => {
            Failure::input(message.hint("`MASTER_ADDR` and `MASTER_PORT` say where; another run may have that port"))
        }
    }
}
