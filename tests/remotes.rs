//! Remotes: sending, taking, running with one, and all that again with a real S3-compatible server.

use std::fs;
use std::path::PathBuf;

use crate::support::object_server::ObjectServer;
use crate::support::runs::results;
use crate::support::{Bench, Outcome, masked};

/// `number` writes a number, `double` twice that, `big` a file that goes to servers in parts.
const PIPELINE: &str = r#"
[pipeline]
name = "p"

[stage.number]
uses = "command"
[stage.number.params]
run = ["sh", "-c", "echo 21 > {out.number}"]
outputs = { number = "number.txt" }

[stage.double]
uses = "command"
inputs = { number = "number" }
[stage.double.params]
run = ["sh", "-c", "read -r n < {in.number}/number.txt; echo $((2 * n)) > {out.number}"]
outputs = { number = "number.txt" }
"#;

const BIG: &str = r#"
[stage.big]
uses = "command"
[stage.big.params]
run = ["sh", "-c", "yes 0123456789abcde | head -c 20000000 > {out.big}"]
outputs = { big = "big.txt" }
"#;

fn bench() -> Bench {
    Bench::new().file("p.toml", PIPELINE)
}

/// Asserts everything that was said, with sizes and numbers of files masked and messages in their order by text: results
/// are carried over side by side.
#[track_caller]
fn assert_said(outcome: &Outcome, code: i32, stdout: &str, stderr: &str) {
    let mask = |text: &str| masked(&text.replace('(', "( ").replace(" file,", " files,"));
    let mut lines: Vec<_> = mask(&outcome.stderr).lines().map(str::to_owned).collect();
    lines.sort();
    let said = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let found = (outcome.code, &*mask(&outcome.stdout), &*said);
    assert_eq!(found, (Some(code), stdout, stderr), "{outcome:?}");
}

/// Returns the path of a result's only file called `name` among the blobs of a cache or remote at `root`.
fn blob_of(bench: &Bench, root: &str, instance: &str, name: &str) -> PathBuf {
    for record in walk(&bench.path().join(root).join("records")) {
        let record: serde_json::Value = serde_json::from_slice(&fs::read(record).expect("a record")).expect("JSON");
        if record["instance"] == instance {
            let outputs = record["artifact"]["outputs"].as_array().expect("outputs");
            let output = outputs.iter().find(|output| output["path"] == name).expect("the file");
            let digest = output["digest"].as_str().expect("a digest");
            return PathBuf::from(format!("blobs/{}/{}", &digest[..2], &digest[2..]));
        }
    }
    panic!("no record of {instance}");
}

fn walk(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

/// Replaces a file that may not be written to.
fn replace(path: &std::path::Path, text: &str) {
    fs::remove_file(path).expect("a file");
    fs::write(path, text).expect("a new file");
}

#[test]
fn results_are_pushed_and_pulled() {
    let bench = bench();
    let there = ["--remote", "there"];
    let push = |more: &[&str]| bench.run(&[&["cache", "push"], more, &there].concat());
    let pull = |more: &[&str]| bench.run(&[&["cache", "pull", "p.toml", "--cache", "other"], more, &there].concat());
    bench.run(&["run", "p.toml", "number", "--quiet"]).assert(0, "", "");

    assert_said(
        &push(&["p.toml", "-n"]),
        0,
        "there: N to send ( N files, N B), N not made yet\n",
        "Would send number ( N files, N B)\n",
    );
    assert!(!bench.path().join("there").exists());
    assert_said(
        &push(&["p.toml"]),
        0,
        "there: N sent ( N files, N B), N not made yet\n",
        "Sent number ( N files, N B)\n",
    );
    assert_said(&push(&[]), 0, "there: N there already\n", "");
    bench.run(&["run", "p.toml", "--quiet"]).assert(0, "", "");
    assert_said(&push(&[]), 0, "there: N sent ( N files, N B), N there already\n", "Sent double ( N files, N B)\n");
    assert_said(&push(&["--all", "--quiet"]), 0, "", "");
    let document: serde_json::Value =
        serde_json::from_str(&push(&["--json", "--all", "--again"]).stdout).expect("JSON");
    let states: Vec<_> = document["results"].as_array().expect("a list").iter().map(|row| &row["state"]).collect();
    assert_eq!(states, ["sent", "sent"]);
    assert_eq!((&document["remote"], &document["version"]), (&"there".into(), &1.into()));

    let both = "Would fetch double ( N files, N B)\nWould fetch number ( N files, N B)\n";
    assert_said(&pull(&["-n"]), 0, "there: N to take ( N files, N B)\n", both);
    let both = "Fetched double ( N files, N B)\nFetched number ( N files, N B)\n";
    assert_said(&pull(&[]), 0, "there: N taken ( N files, N B)\n", both);
    assert_said(&pull(&[]), 0, "there: N here already\n", "");
    let elsewhere = ["--cache", "other", "--out", "elsewhere"];
    let run = bench.run(&[&["run", "p.toml", "--json"], &elsewhere[..]].concat());
    let outcomes = run.stdout.matches("\"outcome\":\"cached\"").count();
    assert_eq!((run.code, outcomes), (Some(0), 2), "{run:?}");
    let changed = ["--set", "stage.double.params.run=[\"sh\", \"-c\", \"echo 1 > {out.number}\"]"];
    let pulled = pull(&[&changed[..], &["--json"]].concat());
    let document: serde_json::Value = serde_json::from_str(&pulled.stdout).expect("JSON");
    let row = &document["results"][1];
    assert_eq!(
        (&row["instance"], &row["state"], &row["files"], &row["message"]),
        (&"double".into(), &"absent".into(), &0.into(), &serde_json::Value::Null)
    );
    let other = ["--set", "stage.number.params.run=[\"sh\", \"-c\", \"echo 1 > {out.number}\"]"];
    assert_said(
        &pull(&other),
        0,
        "there: N not there, N unknown, for want of inputs\n",
        "warning: the remote has none of these results: other parameters, inputs or versions of kinds make other keys\n",
    );
}

#[test]
fn what_is_damaged_there_is_refused_by_name() {
    let bench = bench();
    let there = ["--remote", "there"];
    bench.run(&[&["run", "p.toml", "--quiet"], &there[..]].concat()).assert(0, "", "");
    let object = blob_of(&bench, "there", "double", "number.txt");
    replace(&bench.path().join("there").join(&object), "43\n");
    let pull = || bench.run(&[&["cache", "pull", "p.toml", "--cache", "other"], &there[..]].concat());
    let name = object.display();
    let stderr = format!(
        "Fetched number ( N files, N B)\n\
         error: `double`: `{name}` of the remote `there` is not used: its bytes have the digest DIGEST\n"
    );
    assert_said(&pull(), 7, "there: N taken ( N files, N B), N damaged there\n", &stderr);

    // A run says so and computes.
    let run =
        bench.run(&[&["run", "p.toml", "--cache", "third", "--out", "new", "--remote-read-only"], &there[..]].concat());
    let warning =
        format!("warning: `double`: `{name}` of the remote `there` is not used: its bytes have the digest DIGEST");
    assert_eq!(run.code, Some(0));
    assert!(masked(&run.stderr).lines().any(|line| line == warning), "{}", run.stderr);
    assert_eq!(fs::read_to_string(bench.path().join("new/p/double/number.txt")).expect("a result"), "42\n");

    let again = bench.run(&[&["cache", "push", "p.toml", "--again", "--quiet"], &there[..]].concat());
    again.assert(0, "", "");
    assert_said(&pull(), 0, "there: N taken ( N files, N B), N here already\n", "Fetched double ( N files, N B)\n");
}

#[test]
fn a_run_takes_what_is_there_and_sends_what_it_computes() {
    let bench = bench();
    let run = |more: &[&str]| {
        let mut command = bench.command(&[&["run", "p.toml", "-v"], more].concat());
        let output = command.env("SPDFLOW_REMOTE", "there").output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Outcome { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
    };
    let first = run(&["number"]);
    assert_eq!(first.code, Some(0));
    assert!(first.stderr.contains("        Sent number to there ("), "{}", first.stderr);
    let second = run(&["--cache", "other", "--out", "elsewhere"]);
    let stdout = "\
stage outcome time result artifact
number cached N s DIGEST
double ran N s DIGEST
";
    let stderr = "\
Fetched number from there ( N files, N B)
Finished N stages in N s: N ran, N cached
Ran double in N s
Restored number
Running double (no earlier result)
Sent double to there ( N files, N B)
";
    let second = Outcome { stderr: second.stderr.replace("(no earlier result)", "( no earlier result)"), ..second };
    assert_said(&second, 0, stdout, &stderr.replace("(no earlier", "( no earlier"));
    fs::remove_dir_all(bench.path().join("out")).expect("results");
    fs::remove_dir_all(bench.path().join(".spdflow")).expect("a cache");
    let third = run(&["--json"]);
    let events: Vec<serde_json::Value> =
        third.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let fetched: Vec<_> = events.iter().filter(|event| event["event"] == "fetched").collect();
    assert_eq!(fetched.len(), 2, "{}", third.stdout);
    assert_eq!((&fetched[0]["instance"], &fetched[0]["remote"]), (&"number".into(), &"there".into()));
    assert!(events.iter().filter(|event| event["event"] == "finished").all(|event| event["outcome"] == "cached"));
}

#[test]
fn mistakes_about_remotes_say_what_to_do() {
    let bench = bench();
    bench.run(&["run", "p.toml", "--quiet"]).assert(0, "", "");
    let none = "error: no remote was named\n  hint: give its URL with `--remote URL` or `SPDFLOW_REMOTE`\n";
    bench.run(&["cache", "push"]).assert(2, "", none);
    bench.run(&["cache", "pull", "p.toml", "--remote", ""]).assert(2, "", none);
    let wrong = "\
error: `ftp://host/x` is not a remote: `ftp` is not a scheme that spdflow knows
  hint: name a folder, or give a URL: `file:///…`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `https://…`
";
    for command in [&["cache", "push"][..], &["cache", "pull", "p.toml"], &["run", "p.toml"]] {
        bench.run(&[command, &["--remote", "ftp://host/x"]].concat()).assert(2, "", wrong);
    }
    let empty = "\
error: the remote `nowhere` holds no results: it has no `VERSION`
  hint: check the URL; `spdflow cache push` sends results there
";
    bench.run(&["cache", "pull", "p.toml", "--remote", "nowhere"]).assert(7, "", empty);
    let foreign = "\
error: the remote `.` is not a spdflow cache: it holds `.spdflow` but no `VERSION`
  hint: name an empty or new folder
";
    bench.run(&["cache", "push", "--remote", "."]).assert(7, "", foreign);
    let bare = bench_without_runs();
    bare.run(&["cache", "push", "--remote", "there"]).assert(2, "", "error: the cache has no run yet\n");

    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let url = format!("http://127.0.0.1:{port}/results");
    let refused = format!(
        "error: cannot read `VERSION` of the remote `{url}`: Connection refused (os error 111)
  hint: check the URL and the network, and try again: what has arrived is not sent twice
"
    );
    bench.run(&["cache", "pull", "p.toml", "--remote", &url]).assert(7, "", &refused);
    bench.run(&["cache", "push", "--remote", &url]).assert(7, "", &refused);
    let run = bench.run(&["run", "p.toml", "--cache", "other", "--out", "elsewhere", "--remote", &url]);
    let warnings: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("warning")).collect();
    let warning = format!(
        "warning: cannot read `VERSION` of the remote `{url}`: Connection refused (os error 111) (check the URL and the \
         network, and try again: what has arrived is not sent twice); the run goes on without the remote"
    );
    assert_eq!((run.code, warnings), (Some(0), vec![&*warning]));
}

/// A bench with a cache in which nothing was run.
fn bench_without_runs() -> Bench {
    let bench = bench();
    spdflow_engine::cache::Cache::open(&bench.path().join(".spdflow")).expect("a cache");
    bench
}

/// Sending, taking, resuming, refusing and running, with a server that speaks S3; the large file goes in parts.
#[test]
fn an_s3_compatible_server_is_a_remote() {
    let Some(server) = ObjectServer::start() else { return };
    assert_eq!(server.request("PUT", "/bucket", b"").expect("an answer"), 200);
    let bench = Bench::new().file("p.toml", format!("{PIPELINE}{BIG}"));
    let url = "s3://bucket/team/results";
    let environment = server.environment();
    let spdflow = |arguments: &[&str]| {
        let mut command = bench.command(&[arguments, &["--remote", url]].concat());
        let output = command.envs(environment.clone()).output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Outcome { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
    };
    let pull = |cache: &str| spdflow(&["cache", "pull", "p.toml", "--cache", cache]);
    let missing = spdflow(&["cache", "pull", "p.toml"]);
    let empty = format!(
        "error: the remote `{url}` holds no results: it has no `VERSION`\n  \
         hint: check the URL; `spdflow cache push` sends results there\n"
    );
    missing.assert(7, "", &empty);

    spdflow(&["run", "p.toml", "--quiet"]).assert(0, "", "");
    spdflow(&["cache", "push", "--all"]).assert(0, &format!("{url}: 3 there already\n"), "");
    let all = "\
Fetched big ( N files, N B)
Fetched double ( N files, N B)
Fetched number ( N files, N B)
";
    assert_said(&pull("other"), 0, &format!("{url}: N taken ( N files, N B)\n"), all);
    let before = results(&bench);
    fs::remove_dir_all(bench.path().join("out")).expect("results");
    let run = spdflow(&["run", "p.toml", "--cache", "third", "--remote-read-only", "--jobs", "3", "--json"]);
    assert_eq!((run.code, run.stdout.matches("\"event\":\"fetched\"").count()), (Some(0), 3), "{run:?}");
    assert!(results(&bench) == before, "the results differ");

    // A file that is not what it should be is refused; with a damaged record as well, a push sends both again.
    let object = blob_of(&bench, ".spdflow", "big", "big.txt").display().to_string();
    let damage = |name: &str| {
        let put = server.request("PUT", &format!("/bucket/team/results/{name}"), b"not what it should be");
        assert_eq!(put.expect("an answer"), 200);
    };
    damage(&object);
    let damaged = pull("fourth");
    let stderr = format!(
        "Fetched double ( N files, N B)\nFetched number ( N files, N B)\n\
         error: `big`: `{object}` of the remote `{url}` is not used: its bytes have the digest DIGEST\n"
    );
    assert_said(&damaged, 7, &format!("{url}: N taken ( N files, N B), N damaged there\n"), &stderr);
    let known = document(&spdflow(&["cache", "push", "--all", "-n", "--json"]));
    let row = known["results"].as_array().expect("a list").iter().find(|row| row["instance"] == "big");
    let key = row.expect("a row")["fingerprint"].as_str().expect("a digest").to_owned();
    damage(&format!("records/{}/{}.json", &key[..2], &key[2..]));
    let resumed = document(&spdflow(&["cache", "push", "p.toml", "--json"]));
    assert_eq!((&resumed["files"], &resumed["size_bytes"]), (&1.into(), &20_000_000.into()), "{resumed}");
    assert_said(
        &pull("fourth"),
        0,
        &format!("{url}: N taken ( N files, N B), N here already\n"),
        "Fetched big ( N files, N B)\n",
    );

    let nowhere = bench.command(&["cache", "push", "--remote", "s3://nowhere/x"]).envs(environment.clone()).output();
    let nowhere = nowhere.expect("the binary starts");
    let stderr = "\
error: cannot write `VERSION` of the remote `s3://nowhere/x`: NoSuchBucket: The specified bucket does not exist
  hint: check the name in the URL; nothing is created there
";
    assert_eq!((nowhere.status.code(), &*String::from_utf8_lossy(&nowhere.stderr)), (Some(7), stderr));

    drop(server);
    let gone = pull("fifth");
    let stderr = format!(
        "error: cannot read `VERSION` of the remote `{url}`: Connection refused (os error 111)
  hint: check the URL and the network, and try again: what has arrived is not sent twice; the server is the one of \
         `AWS_ENDPOINT`, else Amazon's of `AWS_REGION`
"
    );
    gone.assert(7, "", &stderr);
    let run = spdflow(&["run", "p.toml", "number", "--cache", "sixth", "--out", "sixth-out"]);
    assert_eq!(
        (run.code, run.stderr.matches("; the run goes on without the remote\n").count()),
        (Some(0), 1),
        "{run:?}"
    );
}

fn document(outcome: &Outcome) -> serde_json::Value {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).expect("one JSON document")
}

#[test]
fn a_locked_run_takes_nothing_from_a_remote_that_its_lock_file_does_not_say() {
    // Other bytes each time: the remote has those of another run than the lock file.
    let random = "[stage.a]\nuses = \"command\"\nparams = { run = [\"sh\", \"-c\", \"cat \
                  /proc/sys/kernel/random/uuid > {out.x}\"], outputs = { x = \"x\" } }\n";
    let bench = Bench::new().file("p.toml", random);
    for arguments in [
        &["run", "p.toml", "-q", "--cache", "first"][..],
        &["lock", "p.toml", "-q", "--cache", "first"],
        &["run", "p.toml", "-q", "--cache", "second", "--out", "other", "--remote", "shared"],
    ] {
        let outcome = bench.run(arguments);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
    let arguments = ["run", "p.toml", "-q", "--cache", "third", "--locked", "--remote", "shared", "--remote-read-only"];
    let outcome = bench.run(&arguments);
    assert_eq!(outcome.code, Some(10), "what is made is of other bytes too: {}", outcome.stderr);
    let kept = blobs(&bench, "shared").intersection(&blobs(&bench, "third")).count();
    assert_eq!(kept, 0, "nothing of the remote is in the cache");
}

/// Returns the names of all blobs of a cache or remote.
fn blobs(bench: &Bench, root: &str) -> std::collections::BTreeSet<String> {
    let files = walk(&bench.path().join(root).join("blobs"));
    files.iter().map(|file| file.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}
