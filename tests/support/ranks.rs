//! Several processes that are one run, and a rank 0 that is watched.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::{Bench, Outcome};

pub(crate) const RUN: [&str; 3] = ["run", "small.toml", "--quiet"];

/// Returns `command` as one rank of several that meet by a file.
pub(crate) fn placed(mut command: Command, bench: &Bench, rank: usize, size: usize) -> Command {
    command.env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string());
    // A rank that is killed leaves its folder behind.
    command.env("TMPDIR", bench.path());
    command.env("SPDFLOW_RENDEZVOUS", bench.path().join("meeting")).env("SPDFLOW_RENDEZVOUS_SECONDS", "30");
    command
}

pub(crate) fn rank(bench: &Bench, rank: usize, size: usize, more: &[&str]) -> Command {
    placed(bench.command(&[&RUN, more].concat()), bench, rank, size)
}

pub(crate) fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

pub(crate) fn end(child: Child) -> Outcome {
    Outcome::of(child.wait_with_output().expect("a child of ours"))
}

/// Runs all ranks and returns how they ended.
pub(crate) fn together(bench: &Bench, size: usize, more: &[&str]) -> Vec<Outcome> {
    let children: Vec<Child> = (0..size).map(|number| start(rank(bench, number, size, more))).collect();
    children.into_iter().map(end).collect()
}

/// Returns the numbers of the decompositions that are made, by name.
pub(crate) fn numbers(bench: &Bench, more: &[&str]) -> Vec<(String, f64)> {
    let outcome = bench.run(&[&["metrics", "small.toml", "decompose", "--json"], more].concat());
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("a document");
    let mut found = Vec::new();
    for instance in document["stages"].as_array().expect("stages") {
        for metric in instance["metrics"].as_array().into_iter().flatten() {
            let name = format!("{} {}", instance["stage"], metric["name"]);
            found.push((name, metric["value"].as_f64().expect("a number")));
        }
    }
    found
}

/// A rank 0 whose events are read as they come.
pub(crate) struct Watched {
    pub(crate) child: Child,
    coming: Receiver<serde_json::Value>,
    events: Vec<serde_json::Value>,
}

impl Watched {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, coming) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        Self { child, coming, events: Vec::new() }
    }

    /// Waits until a decomposition tells of a step.
    pub(crate) fn until_step(&mut self) {
        loop {
            let event = self.coming.recv_timeout(Duration::from_secs(60)).expect("a step");
            let is_step = event["event"] == "progress" && event["step"].as_u64() > Some(0);
            let is_there = is_step && event["instance"].as_str().is_some_and(|name| name.starts_with("decompose"));
            self.events.push(event);
            if is_there {
                return;
            }
        }
    }

    /// Waits for the end; returns the exit code and the events.
    pub(crate) fn end(self) -> (Option<i32>, Vec<serde_json::Value>) {
        let Self { child, coming, mut events } = self;
        let outcome = end(child);
        assert_eq!(outcome.stderr, "");
        events.extend(coming);
        (outcome.code, events)
    }
}

pub(crate) fn event<'e>(events: &'e [serde_json::Value], name: &str) -> &'e serde_json::Value {
    events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("no `{name}` in {events:?}"))
}

/// Returns the step from which the next run of two goes on; that run is brought to its end.
pub(crate) fn resumes_at(bench: &Bench, size: usize, stage: &str) -> u64 {
    let others: Vec<Child> = (1..size).map(|number| start(rank(bench, number, size, &[stage]))).collect();
    let (code, events) = Watched::start(rank(bench, 0, size, &[stage])).end();
    assert_eq!(code, Some(0), "{events:?}");
    for other in others {
        end(other).assert(0, "", "");
    }
    event(&events, "resumed")["step"].as_u64().expect("a step")
}

pub(crate) const ONE: &str = "decompose[seed=0]";
