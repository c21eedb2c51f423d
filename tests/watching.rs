//! `run --watch`: runs again after edits, shows mistakes and goes on, ends with Ctrl-C.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::support::Bench;
use crate::support::runs::{results, signal};

const PIPELINE: &str = "base = \"base.toml\"\n[stage.target.params]\nsteps = 5\n";
const BASE: &str = "[stage.target]\nuses = \"train.tms\"\nparams = { n_features = 5, n_hidden = 2, steps = 4 }\n";

struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(bench: &Bench) -> Self {
        Self::start_with(bench, &[])
    }

    fn start_with(bench: &Bench, more: &[&str]) -> Self {
        let arguments = ["run", "w.toml", "--watch", "--json", "--checkpoint-seconds", "1"];
        let mut command = bench.command(&[&arguments, more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// Returns the events up to the next one called `name`.
    fn until(&mut self, name: &str) -> Vec<Value> {
        let mut events = Vec::new();
        for line in self.lines.by_ref() {
            let event: Value = serde_json::from_str(&line.expect("a line")).expect("a line of JSON");
            let is_last = event["event"] == name;
            events.push(event);
            if is_last {
                return events;
            }
        }
        panic!("the watch ended before `{name}`: {events:?}");
    }

    /// Returns how instances ended until the watch waits again.
    fn outcomes(&mut self) -> Vec<String> {
        let events = self.until("watching");
        let finished = events.iter().filter(|event| event["event"] == "finished");
        finished.map(|event| event["outcome"].as_str().expect("a text").to_owned()).collect()
    }

    fn end(mut self) {
        signal(&self.child, "-INT");
        assert_eq!(self.child.wait().expect("an end").code(), Some(130));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn write(bench: &Bench, file: &str, text: &str) {
    fs::write(bench.path().join(file), text).expect("a file");
}

#[test]
fn edits_run_again_and_mistakes_are_waited_out() {
    let bench = Bench::new().file("w.toml", PIPELINE).file("base.toml", BASE);
    let mut watch = Watch::start(&bench);
    let events = watch.until("watching");
    assert_eq!(events.last().expect("an event")["files"], serde_json::json!(["base.toml", "w.toml"]));

    write(&bench, "w.toml", &PIPELINE.replace('5', "6"));
    assert_eq!(watch.outcomes(), ["ran"]);

    write(&bench, "base.toml", &BASE.replace("n_hidden", "n_hiden"));
    let events = watch.until("watching");
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["changed", "error", "watching"]);
    assert_eq!(events[0]["files"], serde_json::json!(["base.toml"]));
    let messages: Vec<_> =
        events[1]["errors"].as_array().expect("a list").iter().map(|error| error["message"].to_string()).collect();
    assert!(messages.iter().any(|message| message.contains("n_hiden")), "{messages:?}");

    write(&bench, "base.toml", &BASE.replace("n_features = 5", "n_features = 4"));
    assert_eq!(watch.outcomes(), ["ran"]);
    write(&bench, "base.toml", BASE);
    assert_eq!(watch.outcomes(), ["cached"]);
    watch.end();
}

#[test]
fn a_locked_watch_tells_of_departures_and_makes_nothing_else() {
    let bench = Bench::new().file("w.toml", PIPELINE).file("base.toml", BASE);
    for command in ["run", "lock"] {
        let outcome = bench.run(&[command, "w.toml", "--quiet"]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
    let mut watch = Watch::start_with(&bench, &["--locked"]);
    watch.until("watching");
    let before = results(&bench);
    write(&bench, "w.toml", &PIPELINE.replace('5', "6"));
    let events = watch.until("watching");
    let error = events.iter().find(|event| event["event"] == "error").expect("an error");
    assert!(error["errors"][0]["message"].to_string().contains("w.lock"), "{error}");
    assert!(!events.iter().any(|event| event["event"] == "started"), "{events:?}");
    assert_eq!(results(&bench), before);
    write(&bench, "w.toml", PIPELINE);
    let events = watch.until("watching");
    assert!(!events.iter().any(|event| event["event"] == "error"), "{events:?}");
    watch.end();
}

#[test]
fn an_edit_during_a_run_stops_it_and_starts_again() {
    let long = "[stage.target.params]\nsteps = 1_000_000\n";
    let bench = Bench::new().file("w.toml", format!("base = \"base.toml\"\n{long}")).file("base.toml", BASE);
    let mut watch = Watch::start(&bench);
    watch.until("progress");
    // A mistake lets the run go on.
    write(&bench, "w.toml", "base = \"base.toml\"\nbasis = 1\n");
    std::thread::sleep(std::time::Duration::from_millis(500));
    write(&bench, "w.toml", PIPELINE);
    let events = watch.until("watching");
    let is = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((is("interrupted"), is("changed"), is("finished"), is("error")), (1, 1, 1, 0));
    watch.end();
}

#[test]
fn ctrl_c_ends_the_watch_during_a_run() {
    let long = "base = \"base.toml\"\n[stage.target.params]\nsteps = 1_000_000\n";
    let bench = Bench::new().file("w.toml", long).file("base.toml", BASE);
    let mut watch = Watch::start(&bench);
    watch.until("progress");
    signal(&watch.child, "-INT");
    watch.until("interrupted");
    assert_eq!(watch.child.wait().expect("an end").code(), Some(130));
}

#[test]
fn a_shipped_pipeline_cannot_be_watched() {
    Bench::new().run(&["run", "tms", "--watch"]).assert(
        2,
        "",
        "error: `tms` is a shipped pipeline, in which nothing can change\n  hint: `spdflow new NAME --from tms` makes \
         one of your own\n",
    );
}
