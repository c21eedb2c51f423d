//! One trial: the program runs the pipeline in a scratch folder, with a cache of its own and something varied.
//!
//! It is the program itself that is started, as a user would start it, so that what a process has for its own (environment,
//! folder, number of threads, hash seeds) is varied as it is in life. Results that are not made again are copied into the
//! trial's cache; nothing is ever linked to the audited one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spdflow_cache::{Cache, CacheError, Digest, Record, RecordState};

use crate::audit::exhibit::Exhibit;
use crate::audit::reproduction::{Reproducer, Variation};
use crate::run::Recipe;

/// What is varied in a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trial {
    /// How many threads the program may use, unless as many as when the result was recorded.
    pub(super) threads: Option<usize>,
    /// Whether it works in a folder with an awkward name.
    pub(super) other_path: bool,
    /// Whether it has another environment.
    pub(super) other_environment: bool,
    /// Whether it is killed on the way and started again.
    pub(super) kills: bool,
    /// Whether it begins with the last stages it can.
    pub(super) reversed: bool,
}

/// What a trial made.
#[derive(Debug)]
pub(super) struct Made {
    /// The cache of the trial.
    pub(super) cache: Cache,
    /// The records of what was made, by index in the pipeline.
    pub(super) records: BTreeMap<usize, Box<Record>>,
    /// Why instances failed.
    pub(super) failures: BTreeMap<usize, String>,
    /// How often the program was killed.
    pub(super) kills: u32,
}

/// Why a trial came to nothing.
#[derive(Debug)]
pub(super) struct NoTrial {
    pub(super) reason: String,
}

impl From<CacheError> for NoTrial {
    fn from(error: CacheError) -> Self {
        Self { reason: error.to_string() }
    }
}

impl Trial {
    /// Returns the trial that varies one thing.
    pub(super) fn of(variation: Variation, threads: usize) -> Self {
        let plain = Self::default();
        match variation {
            Variation::Threads => Self { threads: Some(threads), ..plain },
            Variation::Path => Self { other_path: true, ..plain },
            Variation::Env => Self { other_environment: true, ..plain },
            Variation::Kill => Self { kills: true, ..plain },
            Variation::Order => Self { reversed: true, ..plain },
        }
    }

    /// Returns the things that are varied, each with the trial that varies nothing else.
    pub(super) fn parts(&self) -> Vec<(Variation, Self)> {
        let Self { threads, other_path, other_environment, kills, reversed } = self;
        let all = [
            (threads.is_some(), Variation::Threads),
            (*other_path, Variation::Path),
            (*other_environment, Variation::Env),
            (*kills, Variation::Kill),
            (*reversed, Variation::Order),
        ];
        let varied = all.into_iter().filter(|(is_varied, _)| *is_varied);
        varied.map(|(_, variation)| (variation, Self::of(variation, threads.unwrap_or(1)))).collect()
    }

    /// Returns what is varied in words.
    pub(super) fn text(&self) -> String {
        let Self { threads, other_path, other_environment, kills, reversed } = self;
        let mut words = Vec::new();
        words.extend(threads.map(|threads| format!("{threads} {}", if threads == 1 { "thread" } else { "threads" })));
        words.extend(other_path.then(|| "another path".to_owned()));
        words.extend(other_environment.then(|| "another environment".to_owned()));
        words.extend(kills.then(|| "killed on the way".to_owned()));
        words.extend(reversed.then(|| "the other order".to_owned()));
        if words.is_empty() { "nothing varied".to_owned() } else { words.join(", ") }
    }
}

impl Reproducer<'_> {
    /// Makes the results of `chosen` again, from the recorded results of all others, in the scratch folder `name`.
    pub(super) fn execute(&self, trial: &Trial, chosen: &[usize], name: &str) -> Result<Made, NoTrial> {
        let folder = self.trial_folder(trial, name)?;
        let place = |name: &str| folder.join(name);
        let (recipe, bytes) = Recipe::of(self.subject.pipeline, &[]);
        let file =
            recipe.lay_out_bytes(&bytes, &place("files")).map_err(|error| NoTrial { reason: error.to_string() })?;
        let cache = Cache::open(&place("cache"))?;
        let chosen = &self.with_twins(chosen);
        let imported = self.import_inputs(chosen, &cache)?;
        let mut kills = 0;
        if trial.kills {
            kills = self.run_and_kill(trial, chosen, &file, &folder)?;
        }
        let failures = self.run(trial, chosen, &file, &folder)?;
        let mut records = BTreeMap::new();
        for exhibit in self.exhibits.iter().filter(|exhibit| chosen.contains(&exhibit.index)) {
            // What was copied here was not made here.
            let made_here =
                exhibit.recorded.as_ref().filter(|recorded| !imported.contains(&recorded.record.fingerprint));
            let Some(recorded) = made_here else { continue };
            if let RecordState::Intact { record, .. } = cache.inspect_record(&recorded.record.fingerprint)? {
                records.insert(exhibit.index, record);
            }
        }
        Ok(Made { cache, records, failures, kills })
    }

    fn trial_folder(&self, trial: &Trial, name: &str) -> Result<PathBuf, NoTrial> {
        let mut folder = self.scratch.join(name);
        if folder.exists() {
            let failed = |error| NoTrial { reason: format!("cannot empty `{}`: {error}", folder.display()) };
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        if trial.other_path {
            // Spaces, quotes, letters of several bytes, and longer than anything a program may have allotted for it.
            folder = folder.join(format!("it's a path, mit Ümläuten/{}", "and long ".repeat(12).trim_end()));
        }
        let failed =
            |error: std::io::Error| NoTrial { reason: format!("cannot create `{}`: {error}", folder.display()) };
        fs::create_dir_all(&folder).map_err(failed)?;
        Ok(folder)
    }

    /// Returns the chosen instances with those of the same key: one result cannot be made again and be given.
    fn with_twins(&self, chosen: &[usize]) -> Vec<usize> {
        let keys: BTreeSet<Digest> =
            chosen.iter().filter_map(|index| self.exhibit(*index).and_then(Exhibit::key)).collect();
        let is_meant = |exhibit: &&Exhibit| {
            chosen.contains(&exhibit.index)
                || exhibit.is_current() && exhibit.key().is_some_and(|fingerprint| keys.contains(&fingerprint))
        };
        self.exhibits.iter().filter(is_meant).map(|exhibit| exhibit.index).collect()
    }

    /// Copies the recorded results that the chosen instances take but that are not made again, and returns their keys.
    fn import_inputs(&self, chosen: &[usize], into: &Cache) -> Result<BTreeSet<Digest>, NoTrial> {
        let mut imported = BTreeSet::new();
        let pipeline = self.subject.pipeline;
        let mut needed: Vec<usize> = chosen.iter().flat_map(|index| pipeline.instances[*index].parents()).collect();
        needed.retain(|index| !chosen.contains(index));
        // What a given result was made from must be known as well for its key to be known.
        let mut position = 0;
        while let Some(index) = needed.get(position).copied() {
            for parent in pipeline.instances[index].parents().filter(|parent| !chosen.contains(parent)) {
                if !needed.contains(&parent) {
                    needed.push(parent);
                }
            }
            position += 1;
        }
        needed.sort_unstable();
        needed.dedup();
        let from = self.subject.workspace.cache;
        for index in needed {
            let Some(Exhibit { recorded: Some(recorded), .. }) = self.exhibit(index) else { continue };
            into.import(from, &recorded.record).map_err(|error| NoTrial {
                reason: format!("the recorded result of `{}` cannot be used: {error}", pipeline.instances[index].id),
            })?;
            imported.insert(recorded.record.fingerprint);
        }
        Ok(imported)
    }

    /// Runs the program to its end, and returns why instances failed.
    fn run(
        &self,
        trial: &Trial,
        chosen: &[usize],
        file: &Path,
        folder: &Path,
    ) -> Result<BTreeMap<usize, String>, NoTrial> {
        let mut child = self.start(trial, chosen, file, folder, Stdio::piped())?;
        let mut failures = BTreeMap::new();
        let mut first = None;
        let stdout = child.stdout.take().expect("it was asked for");
        let has_ended = AtomicBool::new(false);
        let process = rustix::process::Pid::from_child(&child);
        std::thread::scope(|scope| {
            // Who asks the audit to stop does not want to wait for what a long stage has to say next.
            let watch = || {
                while !has_ended.load(Ordering::Acquire) {
                    if self.stop.is_raised() {
                        let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            };
            let _ = std::thread::Builder::new().name("watch".to_owned()).spawn_scoped(scope, watch);
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
                let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
                match event["event"].as_str() {
                    Some("failed") => {
                        let instance = text("instance");
                        let index =
                            self.subject.pipeline.instances.iter().position(|other| other.id.to_string() == instance);
                        failures.extend(index.map(|index| (index, text("message"))));
                    }
                    Some("error") => {
                        first.get_or_insert_with(|| text("message"));
                    }
                    _ => {}
                }
            }
            has_ended.store(true, Ordering::Release);
        });
        let status =
            child.wait().map_err(|error| NoTrial { reason: format!("the trial cannot be waited for: {error}") })?;
        if self.stop.is_raised() {
            return Err(NoTrial { reason: "interrupted".to_owned() });
        }
        if !status.success() && failures.is_empty() {
            let log = fs::read_to_string(folder.join("stderr")).unwrap_or_default();
            let said = first.or_else(|| log.lines().find(|line| line.starts_with("error")).map(str::to_owned));
            let said = said.unwrap_or_else(|| format!("it ended with {status}"));
            return Err(NoTrial { reason: said });
        }
        Ok(failures)
    }

    /// Starts the program and kills it, up to three times, at moments that are spread over the time it will take. Returns
    /// how often it could be killed.
    fn run_and_kill(&self, trial: &Trial, chosen: &[usize], file: &Path, folder: &Path) -> Result<u32, NoTrial> {
        const MOST: u32 = 3;
        let recorded = self.exhibits.iter().filter(|exhibit| chosen.contains(&exhibit.index));
        let seconds: f64 = recorded.filter_map(|exhibit| Some(exhibit.recorded.as_ref()?.record.times.seconds)).sum();
        let mut kills = 0;
        // A record may say anything.
        let mut expected = if seconds.is_finite() { seconds.clamp(0.02, 1e6) } else { 0.02 };
        for attempt in 0..2 * MOST {
            let mut child = self.start(trial, chosen, file, folder, Stdio::null())?;
            let begin = Instant::now();
            // Not before the program can have begun, and rather before the end than after it.
            let wait = Duration::from_secs_f64(0.02 + expected * (0.1 + 0.5 * self.random(attempt)));
            let mut has_ended = false;
            while begin.elapsed() < wait && !has_ended && !self.stop.is_raised() {
                std::thread::sleep(Duration::from_millis(5).min(wait));
                has_ended = child.try_wait().is_ok_and(|status| status.is_some());
            }
            // SIGKILL: nobody can do anything on the way out.
            let was_killed = !has_ended && child.kill().is_ok();
            let status = child.wait();
            if self.stop.is_raised() {
                return Err(NoTrial { reason: "interrupted".to_owned() });
            }
            if was_killed && status.is_ok_and(|status| !status.success()) {
                kills += 1;
                expected /= 1.5;
            } else if kills == 0 {
                // It was over sooner than it took then: once more from nothing.
                expected /= 4.0;
                let cache = folder.join("cache");
                let _ = fs::remove_dir_all(&cache);
                self.import_inputs(chosen, &Cache::open(&cache)?)?;
            } else {
                break;
            }
            if kills == MOST {
                break;
            }
        }
        Ok(kills)
    }

    fn start(
        &self,
        trial: &Trial,
        chosen: &[usize],
        file: &Path,
        folder: &Path,
        events: Stdio,
    ) -> Result<Child, NoTrial> {
        let failed = |what: &str, error: std::io::Error| NoTrial { reason: format!("cannot {what}: {error}") };
        let mut words: Vec<OsString> = vec!["--json".into(), "run".into(), file.into()];
        words.extend(self.subject.arguments.iter().map(Into::into));
        for index in chosen {
            words.push("--only".into());
            words.push(self.subject.pipeline.instances[*index].id.to_string().into());
        }
        words.extend(["--cache".into(), folder.join("cache").into(), "--out".into(), folder.join("out").into()]);
        words.push(format!("--threads={}", trial.threads.unwrap_or(self.subject.threads)).into());
        // One after another, so that the order is the only thing about time that can matter.
        words.extend(["--jobs=1".into(), "--checkpoint-seconds=1".into(), "--keep-going".into()]);
        // Whatever variables the pipeline looks at, nothing is taken from elsewhere instead of being made.
        words.push("--remote=".into());
        words.extend(trial.reversed.then(|| "--order=reversed".into()));
        let mut command = if trial.other_environment {
            let mut shell = Command::new("sh");
            shell.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(&self.program);
            shell
        } else {
            Command::new(&self.program)
        };
        command.args(words).current_dir(folder).stdin(Stdio::null()).stdout(events);
        // What would take results from elsewhere, or leave a mark there. What bits depend on stays: `SPDFLOW_SIMD`.
        for name in ["SPDFLOW_CACHE", "SPDFLOW_REMOTE", "SPDFLOW_SIGNING_KEY", "SPDFLOW_SIGNERS"] {
            command.env_remove(name);
        }
        command.env_remove("RAYON_NUM_THREADS");
        if trial.other_environment {
            vary_environment(&mut command, folder);
        }
        // What the pipeline looks at is part of the keys.
        for (name, value) in &self.subject.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let log = fs::File::options().create(true).append(true).open(folder.join("stderr"));
        command.stderr(log.map_err(|error| failed("write the trial's messages", error))?);
        command.spawn().map_err(|error| failed(&format!("start `{}`", self.program.display()), error))
    }
}

/// Gives a program the environment of another user, place and language, as far as names alone can.
fn vary_environment(command: &mut Command, folder: &Path) {
    let home = folder.join("home");
    let _ = fs::create_dir_all(&home);
    for name in ["LANG", "LC_ALL", "LANGUAGE", "EDITOR", "PAGER", "MAIL", "OLDPWD", "SSH_AUTH_SOCK", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    command
        .env("HOME", &home)
        .env("TMPDIR", folder)
        .env("TZ", "Pacific/Chatham")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("USER", "somebody-else")
        .env("LOGNAME", "somebody-else")
        .env("HOSTNAME", "elsewhere")
        .env("TERM", "dumb")
        .env("COLUMNS", "43")
        .env("SOURCE_DATE_EPOCH", "1")
        .env("PYTHONHASHSEED", "4711");
}
