//! A folder with the results of a small pipeline, and what may be done to them.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value as Json;
use spdflow_engine::cache::{Cache, Digest, RunInfo};

use crate::support::{Bench, Outcome};

/// Two stages that differ in their seed, and one that takes both.
pub(crate) const SOUND: &str = r#"
[axes]
seed = [1, 2]

[stage.first]
uses = "faulty"
matrix = ["seed"]
params = { fault = "none", seed = "${seed}" }

[stage.second]
uses = "sound"
inputs = { of = { from = "first", over = ["seed"] } }
params = { fault = "none" }
"#;

/// A folder in which the test program with faulty stages works.
pub(crate) struct Place(pub(crate) Bench);

/// What an audit said.
#[derive(Debug)]
pub(crate) struct Audited {
    pub(crate) outcome: Outcome,
    pub(crate) report: Json,
}

impl Place {
    /// Runs a pipeline, and signs the log of runs.
    pub(crate) fn run(pipeline: &str) -> Self {
        let place = Self(Bench::new().file("p.toml", pipeline));
        place.make_key("key", "alice@example.org");
        let outcome = place.faulty(&["run", "p.toml", "--sign-key", "key", "--quiet"]);
        outcome.assert(0, "", "");
        place
    }

    /// Makes a key, and lets it sign.
    pub(crate) fn make_key(&self, name: &str, signer: &str) {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", signer, "-f"])
            .arg(self.path(name))
            .status()
            .expect("these tests need ssh-keygen (Debian: openssh-client)");
        assert!(made.success());
        let public = fs::read_to_string(self.path(&format!("{name}.pub"))).expect("a public key");
        let signers = fs::read_to_string(self.path("signers")).unwrap_or_default();
        fs::write(self.path("signers"), format!("{signers}{signer} {public}")).expect("the signers");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the test program with faulty stages.
    pub(crate) fn faulty(&self, arguments: &[&str]) -> Outcome {
        let program = Path::new(env!("CARGO_BIN_EXE_spdflow")).with_file_name("examples").join("faulty");
        assert!(program.exists(), "build the test program: cargo build -p spdflow --example faulty");
        let ours = self.0.command(arguments);
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.0.path()).env("TMPDIR", self.0.path());
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Outcome::of(command.output().expect("the program starts"))
    }

    /// Audits `p.toml` with these options.
    #[track_caller]
    pub(crate) fn audit(&self, options: &[&str]) -> Audited {
        self.audit_of("p.toml", options)
    }

    #[track_caller]
    pub(crate) fn audit_of(&self, subject: &str, options: &[&str]) -> Audited {
        let outcome = self.faulty(&[&["audit", subject, "--json", "--threads=2"][..], options].concat());
        let report = serde_json::from_str(&outcome.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error} in {outcome:?}"));
        Audited { outcome, report }
    }

    /// Audits everything that can be audited without making anything again.
    #[track_caller]
    pub(crate) fn audit_at_rest(&self) -> Audited {
        self.audit(&["--level=4", "--no-run", "--signers=signers"])
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::open_existing(&self.path(".spdflow")).expect("a cache")
    }

    pub(crate) fn last_run(&self) -> RunInfo {
        self.cache().runs().expect("runs").pop().expect("a run")
    }

    /// Returns the files of the records, by instance.
    pub(crate) fn record(&self, instance: &str) -> PathBuf {
        let cache = self.cache();
        let records = cache.fingerprints(100).into_iter().map(|fingerprint| cache.record_path(&fingerprint));
        let mut of_instance = records.filter(|path| json(path)["instance"] == instance);
        of_instance.next().unwrap_or_else(|| panic!("no record of `{instance}`"))
    }

    /// Returns the blob that holds an output.
    pub(crate) fn blob(&self, instance: &str, file: &str) -> PathBuf {
        let record = json(&self.record(instance));
        let outputs = record["artifact"]["outputs"].as_array().expect("outputs");
        let output = outputs.iter().find(|output| output["path"] == file).expect("the output");
        let digest: Digest = output["digest"].as_str().expect("text").parse().expect("a digest");
        self.cache().blob_path(&digest)
    }

    /// Changes a record as somebody would who knows how its seal is made.
    pub(crate) fn forge(&self, instance: &str, change: impl FnOnce(&mut Json)) {
        let path = self.record(instance);
        let mut record = json(&path);
        change(&mut record);
        write_sealed(&path, record);
    }
}

pub(crate) fn json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

/// Writes a record with the seal that belongs to it.
pub(crate) fn write_sealed(path: &Path, mut record: Json) {
    record.as_object_mut().expect("an object").remove("seal");
    let text = serde_json::to_string_pretty(&record).expect("plain data");
    let body = format!("{}\n", text.strip_prefix("{\n").expect("an object"));
    let seal = Digest::of(body.as_bytes());
    overwrite(path, format!("{{\n  \"seal\": \"{seal}\",\n{body}").as_bytes(), true);
}

/// Writes other bytes into a file, and gives it the time it had, or a later one.
pub(crate) fn overwrite(path: &Path, bytes: &[u8], is_later: bool) {
    let before = fs::metadata(path).expect("a file").modified().expect("a time");
    fs::set_permissions(path, Permissions::from_mode(0o644)).expect("permission");
    fs::write(path, bytes).expect("written");
    let time = if is_later { SystemTime::now() + Duration::from_secs(60) } else { before };
    File::options().write(true).open(path).expect("the file").set_modified(time).expect("a time");
}

/// Flips one bit in the middle of a file that nobody seems to have written to.
pub(crate) fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    overwrite(path, &bytes, false);
}

impl Audited {
    pub(crate) fn code(&self) -> i32 {
        self.outcome.code.expect("an exit code")
    }

    /// Returns fault and message of everything found about an instance, or with `""` about none.
    pub(crate) fn found(&self, instance: &str) -> Vec<(String, String)> {
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        let findings = self.report["findings"].as_array().expect("findings").iter();
        let own = findings.filter(|finding| text(&finding["instance"]) == instance);
        own.map(|finding| (text(&finding["fault"]), text(&finding["message"]))).collect()
    }

    /// Returns the faults of everything found, with their instances, but for notes.
    pub(crate) fn faults(&self) -> Vec<(String, String)> {
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        let findings = self.report["findings"].as_array().expect("findings").iter();
        let pairs = findings.map(|finding| (text(&finding["fault"]), text(&finding["instance"])));
        let mut faults: Vec<_> = pairs.filter(|(fault, _)| fault != "note").collect();
        faults.sort();
        faults.dedup();
        faults
    }

    /// Returns the grades of the files of an instance, each once.
    pub(crate) fn grades(&self, instance: &str) -> String {
        let outputs = self.report["outputs"].as_array().expect("outputs").iter();
        let own = outputs.filter(|output| output["instance"] == instance);
        let mut grades: Vec<_> = own.map(|output| output["grade"].as_str().expect("a grade").to_owned()).collect();
        grades.sort();
        grades.dedup();
        grades.concat()
    }

    /// Asserts how it ended, with everything that it said.
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code(), code, "{:#}\n{}", self.report, self.outcome.stderr);
        self
    }
}
