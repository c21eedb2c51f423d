//! Stages of the kind `command`: what they see, what moves their key, how they fail, and that nothing of a failed,
//! stopped or killed one is left.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::runs::{eventually, results, signal};
use crate::support::{Bench, masked};

#[test]
fn arguments_environment_outputs_and_passed_variables_move_the_key() {
    let stage = |params: &str| format!("[stage.a]\nuses = \"command\"\nparams = {{ {params} }}\n");
    let fingerprint = |params: &str, variable: Option<&str>| {
        let bench = Bench::new().file("p.toml", stage(params));
        let mut command = bench.command(&["plan", "p.toml", "--json"]);
        command.env_remove("SEEN");
        command.envs(variable.map(|value| ("SEEN", value)));
        let output = command.output().expect("the binary starts");
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
        plan["stages"][0]["fingerprint"].as_str().expect("a fingerprint").to_owned()
    };
    let all = [
        (r#"run = ["p", "alpha", "beta"]"#, None),
        (r#"run = ["p", "beta", "alpha"]"#, None),
        (r#"run = ["p", "alphab", "eta"]"#, None),
        (r#"run = ["p", "alpha beta"]"#, None),
        (r#"run = ["p", "alpha", "beta", ""]"#, None),
        (r#"run = ["p", "alpha", "beta"], outputs = { x = "x" }"#, None),
        (r#"run = ["p", "alpha", "beta"], outputs = { x = "y" }"#, None),
        (r#"run = ["p", "alpha", "beta"], outputs = { y = "x" }"#, None),
        (r#"run = ["p", "alpha", "beta"], env = { SEEN = "" }"#, None),
        (r#"run = ["p", "alpha", "beta"], env = { SEEN = "1" }"#, None),
        (r#"run = ["p", "alpha", "beta"], pass_env = ["SEEN"]"#, Some("")),
        (r#"run = ["p", "alpha", "beta"], pass_env = ["SEEN"]"#, Some("2")),
    ];
    let keys: std::collections::BTreeSet<_> = all.iter().map(|(params, seen)| fingerprint(params, *seen)).collect();
    assert_eq!(keys.len(), all.len());
    // Variables that are not passed on, and one that is but is not set, are as if they were not there.
    let plain = fingerprint(all[0].0, None);
    assert_eq!(fingerprint(all[0].0, Some("3")), plain);
    assert_eq!(
        fingerprint(all[10].0, None),
        fingerprint(r#"run = ["p", "alpha", "beta"], pass_env = ["OTHER"]"#, None)
    );
}

#[test]
fn a_program_sees_its_inputs_its_code_and_nothing_else() {
    let pipeline = r#"
[axes]
n = [1, 2]

[stage.many]
uses = "command"
matrix = ["n"]
params = { run = ["sh", "-c", "mkdir {out.d}; echo {value.n} > {out.d}/n"], outputs = { d = "d" }, values = { n = "${n}" } }

[stage.look]
uses = "command"
inputs = { many = { from = "many", over = ["n"] }, one = "many[n=2]" }
[stage.look.params]
run = ["sh", "../tool/look.sh", "{out.seen}", "{threads}", "{{{value.f}}}", "{in.one}/d", "{in.many}"]
outputs = { seen = "seen.txt" }
code = ["../tool/look.sh", "lib"]
env = { GREETING = "{value.f} times" }
values = { f = 1e-5 }
resources = { threads = 1 }
"#;
    let pipeline = pipeline
        .replace("resources = { threads = 1 }\n", "")
        .replace("[stage.look.params]", "resources = { threads = 1 }\n[stage.look.params]");
    let look = "{ echo \"$@\"; env | cut -d= -f1 | sort | tr '\\n' ' '; echo; find . ../tool -type f | sort;\n\
                cat $4/n lib/x/y $5/d/n $6/d/n; echo $GREETING; } > $1\necho spoiled > $4/n || true\n";
    let bench = Bench::new().file("here/p.toml", pipeline).file("tool/look.sh", look).file("here/lib/x/y", "y\n");
    let bench = bench.file("here/undeclared", "x");
    let mut command = bench.command(&["run", "p.toml", "--quiet"]);
    let output = command.current_dir(bench.path().join("here")).env("UNDECLARED", "1").output().expect("it starts");
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
    let seen = fs::read_to_string(bench.path().join("here/out/p/look/seen.txt")).expect("a result");
    let expected = "\
../../out/seen.txt 1 {1e-5} ../in/one/d ../in/many/0 ../in/many/1
GREETING HOME LANG PATH PWD PYTHONHASHSEED SOURCE_DATE_EPOCH TMPDIR TZ \n\
../tool/look.sh
./lib/x/y
2
y
1
2
1e-5 times
";
    assert_eq!(seen.replace("OLDPWD ", "").replace("SHLVL ", "").replace("_ ", ""), expected);
    assert_eq!(fs::read_to_string(bench.path().join("here/out/p/many/n=2/d/n")).expect("a result"), "2\n");
}

#[test]
fn a_failing_program_says_so_and_leaves_nothing() {
    let stage = "[stage.a]\nuses = \"command\"\nparams = { run = [\"sh\", \"-c\", \"echo half > {out.x}; echo to the log; \
                 for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line $i >&2; done; exit 3\"], outputs = { x = \"x\" } }\n";
    let bench = Bench::new().file("p.toml", stage);
    let outcome = bench.run(&["run", "p.toml", "--quiet"]);
    let lines: String = (2..=11).map(|i| format!("           line {i}\n")).collect();
    let log = log_of(&bench);
    let expected = format!(
        "error: stage `a` failed: `sh` ended with exit status 3; the last lines of its standard error:\n{lines}  \
         hint: `sh {}` runs it again just so\n  hint: its log is `{log}`\n",
        log.replace("/log", "/repro.sh")
    );
    outcome.assert(4, "", &expected);
    assert!(!bench.path().join("out/p/a").exists());
    let shown = bench.run(&["log", "p.toml", "a"]).stdout;
    assert!(shown.starts_with("to the log\n") || shown.contains("line 11\n"), "{shown}");
    // Nothing that was half done is taken for a result.
    let again = stage.replace("exit 3", "exit 0");
    let bench = bench.file("p.toml", again);
    bench.run(&["run", "p.toml", "--quiet"]).assert(0, "", "");
    assert_eq!(fs::read_to_string(bench.path().join("out/p/a/x")).expect("a result"), "half\n");
}

/// Returns the path of the log of the only computation that was cut short.
fn log_of(bench: &Bench) -> String {
    let work = bench.path().join(".spdflow/work").canonicalize().expect("a folder");
    let mut entries = fs::read_dir(work).expect("a folder").map(|entry| entry.expect("an entry").path());
    let only = entries.next().expect("a computation that was cut short");
    assert_eq!(entries.next(), None);
    only.join("log").display().to_string()
}

fn failure(run: &str, more: &str) -> String {
    let bench =
        Bench::new().file("p.toml", format!("[stage.a]\nuses = \"command\"\nparams = {{ run = {run}{more} }}\n"));
    let outcome = bench.run(&["run", "p.toml", "--quiet"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(4), ""), "{}", outcome.stderr);
    assert!(!bench.path().join("out/p/a").exists());
    // Where the script lies that repeats it is another place each time.
    outcome.stderr.lines().filter(|line| !line.contains("/repro.sh` ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_is_wrong_with_a_program_is_named() {
    let cases = [
        (
            r#"["no-such-program"]"#,
            r#", env = { PATH = "/no/where" }"#,
            "error: stage `a` failed: there is no program `no-such-program` in any folder of `PATH`\n  \
             hint: `PATH` is `/no/where`\n",
        ),
        (
            r#"["./tool.sh"]"#,
            "",
            "error: stage `a` failed: there is no program `./tool.sh` where it starts\n  \
             hint: list it under `code`, as in `code = [\"tool.sh\"]`\n",
        ),
        (r#"["/no/such/program"]"#, "", "error: stage `a` failed: there is no program `/no/such/program`\n"),
        (
            r#"["true"]"#,
            r#", outputs = { figure = "figure.svg" }"#,
            "error: stage `a` failed: `true` ended well but did not make its output `figure` (`figure.svg`)\n  \
             hint: it has to write that to the path that `{out.figure}` stands for\n",
        ),
        (
            r#"["sh", "-c", "echo > {out.x}.part; echo > {out.x}"]"#,
            r#", outputs = { x = "x" }"#,
            "error: stage `a` failed: `sh` wrote `x.part` beside its outputs, which belongs to none of them\n  \
             hint: declare it in `outputs`, or write it where the program starts: that folder is thrown away\n",
        ),
        (
            r#"["sh", "-c", "ln -s /etc/passwd {out.x}"]"#,
            r#", outputs = { x = "x" }"#,
            "error: stage `a` failed: output file `x` is a link, expected a file with its bytes\n",
        ),
        (
            r#"["sh", "-c", "mkdir -p {out.x}"]"#,
            r#", outputs = { x = "x/" }"#,
            "error: stage `a` failed: `sh` left its output `x` (`x/`) an empty folder\n  \
             hint: an artifact holds files; let it write one\n",
        ),
        (r#"["sh", "-c", "kill -9 $$"]"#, "", "error: stage `a` failed: `sh` was ended by signal 9\n"),
    ];
    for (run, more, expected) in cases {
        let expected = expected.replace("(`x/`)", "(`x`)");
        assert_eq!(failure(run, more), expected);
    }
}

#[test]
fn mistakes_in_a_command_are_found_before_anything_runs() {
    let pipeline = r#"[stage.a]
uses = "command"
[stage.a.params]
run = ["sh", "plot.sh", "{in.x}", "{out.fig}", "{value.lr", "{nothing}", "}"]
outputs = { figure = "../figure.svg", b = "b", c = "b/c" }
code = ["plot.sh", "/etc/passwd"]
env = { "A=B" = "1", X = "1" }
pass_env = ["X"]
values = { unused = 1 }
"#;
    let bench = Bench::new().file("p.toml", pipeline);
    let expected = "\
error: parameter `run[3]` of stage `a`: there is no output `fig`
 --> p.toml:4:35
  |
4 | run = [\"sh\", \"plot.sh\", \"{in.x}\", \"{out.fig}\", \"{value.lr\", \"{nothing}\", \"}\"]
  |                                   ^^^^^^^^^^^
  |
  = hint: `outputs` has `b`, `c`, `figure`

error: parameter `run[4]` of stage `a`: `{` is not closed; a literal brace is written `{{`
";
    let outcome = bench.run(&["check", "p.toml"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.starts_with(expected), "{}", outcome.stderr);
    let errors: Vec<_> = outcome.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    let expected = [
        "parameter `run[3]` of stage `a`: there is no output `fig`",
        "parameter `run[4]` of stage `a`: `{` is not closed; a literal brace is written `{{`",
        "parameter `run[5]` of stage `a`: expected `{in.NAME}`, `{out.NAME}`, `{value.NAME}` or `{threads}`, found \
         `{nothing}`; literal braces are written `{{` and `}}`",
        "parameter `run[6]` of stage `a`: `}` closes nothing; a literal brace is written `}}`",
        "parameter `outputs.figure` of stage `a`: `../figure.svg` is not a plain path below the artifact's folder",
        "parameter `outputs.c` of stage `a`: `b/c` lies in output `b`",
        "parameter `code[1]` of stage `a`: `/etc/passwd` is absolute, expected a path relative to the folder of the \
         pipeline file",
        "parameter `env.\"A=B\"` of stage `a`: `A=B` cannot be the name of a variable",
        "parameter `pass_env[0]` of stage `a`: variable `X` has a value in `env` already",
        "parameter `values.unused` of stage `a`: nothing asks for it: `{value.unused}` stands neither in `run` nor in \
         `env`",
    ];
    assert_eq!(errors, expected);
}

#[test]
fn missing_code_and_inputs_are_named_with_their_line() {
    let pipeline =
        "[stage.a]\nuses = \"command\"\nparams = { run = [\"sh\", \"plot.sh\", \"{in.x}\"], code = [\"plot.sh\"] }\n";
    let bench = Bench::new().file("sub/p.toml", pipeline);
    let expected = "\
error: parameter `run[2]` of stage `a`: there is no input `x`
 --> sub/p.toml:3:36
  |
3 | params = { run = [\"sh\", \"plot.sh\", \"{in.x}\"], code = [\"plot.sh\"] }
  |                                    ^^^^^^^^
  |
  = hint: add it to the stage's `inputs`: `x = \"STAGE\"`

error: parameter `code[0]` of stage `a`: there is no file `plot.sh` (looked for as `sub/plot.sh`)
 --> sub/p.toml:3:55
  |
3 | params = { run = [\"sh\", \"plot.sh\", \"{in.x}\"], code = [\"plot.sh\"] }
  |                                                       ^^^^^^^^^
  |
  = hint: `code` is relative to the folder of the pipeline file

found 2 mistakes
";
    bench.run(&["check", "sub/p.toml"]).assert(2, "", expected);
}

/// A stage that says where it is and then sleeps.
const SLEEPER: &str = r#"
[stage.a]
uses = "command"
params = { run = ["sh", "-c", "echo half > {out.x}; sleep 1000 & echo $! > $PLACE; wait; echo whole > {out.x}"], outputs = { x = "x" }, pass_env = ["PLACE"] }
"#;

/// Starts the sleeper and returns spdflow and the number of the sleeping process.
fn start_sleeper(bench: &Bench) -> (std::process::Child, u32) {
    let place = bench.path().join("place");
    let mut command = bench.command(&["run", "p.toml", "--quiet"]);
    let child = command.env("PLACE", &place).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let sleeper = eventually("the sleeper to say where it is", || fs::read_to_string(&place).ok()?.trim().parse().ok());
    (child, sleeper)
}

/// A process that nobody has waited for yet is gone all the same.
fn is_gone(process: u32) -> Option<()> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    matches!(state, None | Some('Z')).then_some(())
}

#[test]
fn a_signal_ends_everything_a_program_started_and_leaves_nothing() {
    if !Path::new("/proc/self/stat").exists() {
        println!("skipped: this system has no /proc to look for processes in");
        return;
    }
    for (name, code) in [("-INT", Some(130)), ("-TERM", Some(143)), ("-KILL", None)] {
        let bench = Bench::new().file("p.toml", SLEEPER);
        let (mut child, sleeper) = start_sleeper(&bench);
        let begin = Instant::now();
        signal(&child, name);
        assert_eq!(child.wait().expect("a child of ours").code(), code, "{name}");
        eventually("the sleeper to be gone", || is_gone(sleeper));
        assert!(begin.elapsed() < Duration::from_secs(10), "{name} took {:?}", begin.elapsed());
        assert!(results(&bench).is_empty());
        // The next run begins anew, and needs nothing to be cleared away.
        let again = SLEEPER.replace("sleep 1000 & echo $! > $PLACE; wait;", "");
        let bench = bench.file("p.toml", again);
        bench.run(&["run", "p.toml", "--quiet"]).assert(0, "", "");
        assert_eq!(fs::read_to_string(bench.path().join("out/p/a/x")).expect("a result"), "whole\n");
    }
}

#[test]
fn a_program_that_takes_too_long_is_stopped_and_named() {
    let bench = Bench::new().file("p.toml", SLEEPER.replace("uses =", "timeout = \"1s\"\nuses ="));
    let mut command = bench.command(&["run", "p.toml", "--quiet"]);
    let output = command.env("PLACE", bench.path().join("place")).output().expect("the binary starts");
    let expected = "\
error: stage `a` failed: it was stopped because it took longer than its timeout of 1 s
  hint: raise `timeout` of `[stage.a]`, or leave it out
";
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(4), expected));
    assert!(!bench.path().join("out/p/a").exists());
}

#[test]
fn a_stage_is_tried_again_as_often_as_it_says() {
    let stage = |retries: u32| {
        format!(
            "[stage.a]\nuses = \"command\"\nretries = {retries}\nparams = {{ run = [\"sh\", \"-c\", \"echo >> $COUNT; \
             test $(wc -l < $COUNT) -ge 3 && echo done > {{out.x}}\"], outputs = {{ x = \"x\" }}, pass_env = [\"COUNT\"] \
             }}\n"
        )
    };
    let bench = Bench::new().file("p.toml", stage(1));
    let run = |bench: &Bench| {
        let mut command = bench.command(&["run", "p.toml"]);
        let output = command.env("COUNT", bench.path().join("count")).output().expect("the binary starts");
        (output.status.code(), masked(&String::from_utf8_lossy(&output.stderr)))
    };
    let failed = "\
Running a (no earlier result)
Retrying a, N of 1: `sh` ended with exit status N
error: stage `a` failed: `sh` ended with exit status N
Failed N stage in N s: N failed
";
    let (code, stderr) = run(&bench);
    let without_log: String = stderr
        .lines()
        .filter(|line| !line.contains("its log is") && !line.contains("/repro.sh` "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!((code, without_log.replace("of N:", "of 1:")), (Some(4), failed.to_owned()));
    let bench = Bench::new().file("p.toml", stage(2));
    let (code, stderr) = run(&bench);
    let done = "\
Running a (no earlier result)
Retrying a, N of N: `sh` ended with exit status N
Retrying a, N of N: `sh` ended with exit status N
Ran a in N s
Finished N stage in N s: N ran
";
    assert_eq!((code, stderr.as_str()), (Some(0), done));
}

#[test]
fn a_command_that_makes_other_bytes_each_time_is_noticed() {
    let stage = "[stage.a]\nuses = \"command\"\nparams = { run = [\"sh\", \"-c\", \"cat $COUNT > {out.x}; echo > {out.y}; \
                 echo >> $COUNT\"], outputs = { x = \"x\", y = \"y\" }, pass_env = [\"COUNT\"] }\n";
    let bench = Bench::new().file("p.toml", stage).file("count", "1\n");
    let run = |more: &[&str]| {
        let mut command = bench.command(&[&["run", "p.toml"], more].concat());
        let output = command.env("COUNT", bench.path().join("count")).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(0));
        masked(&String::from_utf8_lossy(&output.stderr))
    };
    run(&[]);
    let expected = "\
Running a (forced)
warning: `a`: it made other bytes than the last time from the same inputs, so its result cannot be reproduced: `x` \
                    (artifact DIGEST, now DIGEST)
Ran a in N s
Finished N stage in N s: N ran
";
    assert_eq!(run(&["--force"]), expected);
    bench.run(&["status", "p.toml"]);
}
