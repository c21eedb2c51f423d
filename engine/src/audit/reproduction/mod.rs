//! Level 3, reproduction: makes results again in a scratch folder, with things varied that must not matter, and compares.
//!
//! Each trial (`trial.rs`) makes all chosen results at once. A result whose producers made the same bytes again has the
//! recorded inputs, by its key; one whose producers did not is made once more by itself from the recorded ones, so that every
//! difference found is the stage's own. Where a result differs in a trial that varied several things, each is tried alone.

mod choose;
mod compare;
mod trial;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use choose::Extent;

use crate::audit::Subject;
use crate::audit::exhibit::Exhibit;
use crate::audit::finding::{Fault, Finding, Reproduction};
use crate::audit::format::Formats;
use crate::kind::StopFlag;
use crate::machine::machine_info;
use compare::{Departure, compare};
use trial::{Made, NoTrial, Trial};

/// Something that is varied when a result is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variation {
    /// The number of threads.
    Threads,
    /// Where it is made.
    Path,
    /// User, language, time zone and other variables of the environment, and the file mode mask.
    Env,
    /// The program is killed on the way and started again.
    Kill,
    /// The order of stages.
    Order,
}

impl Variation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Threads, Self::Path, Self::Env, Self::Kill, Self::Order];

    fn sentence(self) -> &'static str {
        match self {
            Self::Threads => "it depends on the number of threads",
            Self::Path => "it depends on the folder in which it is made",
            Self::Env => "it depends on the environment",
            Self::Kill => "it depends on whether it is killed on the way",
            Self::Order => "it depends on which stages run before it in the same process",
        }
    }
}

/// Of so many results that differ, the first of the pipeline, it is found out what they depend on: each has to be made
/// several times more for that.
const MOST_ISOLATED: usize = 3;

/// What became of making results again.
#[derive(Debug, Default)]
pub(super) struct Reproduced {
    /// For each file that was made again and is as it should be, by index of the instance and path.
    pub(super) files: BTreeMap<(usize, String), Reproduction>,
    /// What was done, in words, with how often it was killed.
    pub(super) trials: Vec<TrialReport>,
}

/// What one trial was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrialReport {
    /// What was varied.
    pub varied: String,
    /// How many results were made.
    pub results: usize,
    /// How often the program was killed on the way.
    pub kills: u32,
    /// How long it took.
    pub seconds: f64,
}

/// Makes results again.
pub(super) struct Reproducer<'a> {
    pub(super) subject: &'a Subject<'a>,
    pub(super) exhibits: &'a [Exhibit],
    pub(super) formats: &'a Formats,
    /// The program.
    pub(super) program: PathBuf,
    /// Where trials are made.
    pub(super) scratch: &'a Path,
    pub(super) stop: &'a StopFlag,
    /// Hears what is being done.
    pub(super) tell: &'a dyn Fn(&str),
    numbers: Cell<usize>,
}

impl<'a> Reproducer<'a> {
    pub(super) fn new(
        subject: &'a Subject<'a>,
        exhibits: &'a [Exhibit],
        formats: &'a Formats,
        program: PathBuf,
        scratch: &'a Path,
        stop: &'a StopFlag,
        tell: &'a dyn Fn(&str),
    ) -> Self {
        Self { subject, exhibits, formats, program, scratch, stop, tell, numbers: Cell::new(0) }
    }

    /// Returns what the cache shows of the instance `index`, if that is audited.
    fn exhibit(&self, index: usize) -> Option<&'a Exhibit> {
        // They are in the order of the pipeline.
        let position = self.exhibits.binary_search_by_key(&index, |exhibit| exhibit.index).ok()?;
        Some(&self.exhibits[position])
    }

    fn next_number(&self) -> usize {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    /// Returns a number in [0, 1) that depends on what is audited and on `draw` alone.
    fn random(&self, draw: u32) -> f64 {
        let first = self.exhibits.iter().find_map(|exhibit| exhibit.fingerprint);
        let mut bytes = first.map_or([0; 32], |fingerprint| *fingerprint.as_bytes()).to_vec();
        bytes.extend(draw.to_le_bytes());
        bytes.extend(self.numbers.get().to_le_bytes());
        let digest = blake3::derive_key("spdflow audit kill v1", &bytes);
        let word = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
        f64::from(word) / 2f64.powi(32)
    }

    /// Makes results again under all variations asked for.
    pub(super) fn check(&self, vary: &[Variation], extent: Extent, findings: &mut Vec<Finding>) -> Reproduced {
        let trials = trials(vary, self.subject.threads);
        let candidates: Vec<&Exhibit> = self
            .exhibits
            .iter()
            .filter(|exhibit| {
                if exhibit.recorded.is_some() && exhibit.drift.is_some() {
                    let message = "it cannot be made again, since the pipeline has changed since";
                    findings.push(Finding::new(Fault::CouldNotRun, message).of(&exhibit.instance));
                }
                exhibit.is_current()
            })
            .collect();
        let chosen = choose::choose(self.subject.pipeline, &candidates, extent, trials.len());
        let mut reproduced = Reproduced::default();
        if chosen.is_empty() {
            return reproduced;
        }
        let mut departures: BTreeMap<usize, (Trial, Vec<Departure>)> = BTreeMap::new();
        for trial in &trials {
            if self.stop.is_raised() {
                break;
            }
            let mut left = chosen.clone();
            // What a stage finds in the process depends on all that ran before it, whatever is known of those already.
            if !trial.reversed {
                left.retain(|index| !departures.contains_key(index));
            }
            self.try_all(trial, &left, &mut reproduced, &mut departures, findings);
        }
        for (position, (index, (trial, departed))) in departures.iter().enumerate() {
            let cause = match position {
                0..MOST_ISOLATED => self.isolate(trial, *index, &mut reproduced),
                _ => trial.text(),
            };
            self.tell_departures(*index, departed, &cause, findings);
            reproduced.files.retain(|(instance, _), _| instance != index);
        }
        reproduced
    }

    /// Makes the results of one trial, those whose producers made something else in further rounds, and compares.
    fn try_all(
        &self,
        trial: &Trial,
        chosen: &[usize],
        reproduced: &mut Reproduced,
        departures: &mut BTreeMap<usize, (Trial, Vec<Departure>)>,
        findings: &mut Vec<Finding>,
    ) {
        let mut open = chosen.to_vec();
        while !open.is_empty() {
            let made = match self.timed(trial, &open, reproduced) {
                Ok(made) => made,
                Err(NoTrial { reason }) => {
                    for index in &open {
                        let message = format!("it could not be made again ({}): {reason}", trial.text());
                        findings.push(Finding::new(Fault::CouldNotRun, message).of(&self.id(*index)));
                    }
                    return;
                }
            };
            if trial.kills && made.kills == 0 {
                let message = "the program was over before it could be killed, so that was not tried";
                findings.push(Finding::new(Fault::Note, message));
            }
            let mut next = Vec::new();
            for index in &open {
                let Some(record) = made.records.get(index) else {
                    match made.failures.get(index) {
                        Some(message) => {
                            let message = format!("it failed when it was made again ({}): {message}", trial.text());
                            findings.push(Finding::new(Fault::CouldNotRun, message).of(&self.id(*index)));
                        }
                        None => next.push(*index),
                    }
                    continue;
                };
                let departed = compare(self, *index, record, &made.cache);
                for note in departed.notes {
                    let finding = Finding::new(Fault::Note, note).of(&self.id(*index));
                    if !findings.contains(&finding) {
                        findings.push(finding);
                    }
                }
                for (path, outcome) in departed.files {
                    let known = reproduced.files.entry((*index, path)).or_insert(outcome);
                    *known = (*known).max(outcome);
                }
                if !departed.departures.is_empty() {
                    departures.entry(*index).or_insert((trial.clone(), departed.departures));
                }
            }
            // Some result was made, or had failed, in each round; what nobody can make is told.
            if next.len() == open.len() {
                for index in &next {
                    let message = format!("it was not made again ({}), and the trial does not say why", trial.text());
                    findings.push(Finding::new(Fault::CouldNotRun, message).of(&self.id(*index)));
                }
                return;
            }
            open = next;
        }
    }

    fn timed(&self, trial: &Trial, chosen: &[usize], reproduced: &mut Reproduced) -> Result<Made, NoTrial> {
        let name = format!("trial-{}", self.next_number());
        self.timed_in(&name, trial, chosen, reproduced)
    }

    fn timed_in(
        &self,
        name: &str,
        trial: &Trial,
        chosen: &[usize],
        reproduced: &mut Reproduced,
    ) -> Result<Made, NoTrial> {
        let count = chosen.len();
        (self.tell)(&format!("{count} {} again, {}", if count == 1 { "result" } else { "results" }, trial.text()));
        let begin = std::time::Instant::now();
        let made = self.execute(trial, chosen, name)?;
        reproduced.trials.push(TrialReport {
            varied: trial.text(),
            results: made.records.len(),
            kills: made.kills,
            seconds: begin.elapsed().as_secs_f64(),
        });
        Ok(made)
    }

    /// Finds out which of the things that were varied a result depends on.
    fn isolate(&self, trial: &Trial, index: usize, reproduced: &mut Reproduced) -> String {
        // Made in the company it had: what another stage leaves behind in the process is a cause as well.
        let departs = |trial: &Trial, with: &[usize], reproduced: &mut Reproduced| {
            let made = self.timed(trial, with, reproduced).ok()?;
            Some(!compare(self, index, made.records.get(&index)?, &made.cache).departures.is_empty())
        };
        let company: Vec<usize> = if trial.reversed {
            self.exhibits.iter().filter(|exhibit| exhibit.is_current()).map(|exhibit| exhibit.index).collect()
        } else {
            vec![index]
        };
        // Twice at the same place, which cannot be that of the recorded result.
        let mut artifacts = Vec::new();
        for _ in 0..2 {
            let made = self.timed_in("plain", &Trial::default(), &company, reproduced).ok();
            let Some((record, cache)) = made.as_ref().and_then(|made| Some((made.records.get(&index)?, &made.cache)))
            else {
                return format!("made again with {}", trial.text());
            };
            if compare(self, index, record, cache).departures.is_empty() {
                break;
            }
            artifacts.push(record.artifact.digest);
        }
        if let [first, second] = artifacts[..] {
            let is_steady = first == second;
            return if is_steady {
                "it depends on the folder in which it is made, or on something else outside the pipeline"
            } else {
                "it is never the same, also with nothing varied"
            }
            .to_owned();
        }
        let parts = trial.parts();
        if let [(variation, _)] = parts[..] {
            return variation.sentence().to_owned();
        }
        let causes: Vec<&str> = parts
            .iter()
            .filter(|(_, part)| departs(part, &company, reproduced) == Some(true))
            .map(|(variation, _)| variation.sentence())
            .collect();
        if causes.is_empty() {
            return format!("with {}, but with none of these alone", trial.text());
        }
        causes.join("; ")
    }

    fn tell_departures(&self, index: usize, departures: &[Departure], cause: &str, findings: &mut Vec<Finding>) {
        let step = departures.iter().filter_map(|departure| departure.step).min();
        for departure in departures {
            let when = match step {
                Some(step) if departure.step != Some(step) => format!("; first at step {step}"),
                _ => String::new(),
            };
            let message = format!("made again it differs, {cause}: {}{when}", departure.message);
            let finding = Finding::new(Fault::NotReproduced, message).of(&self.id(index)).in_file(&departure.file);
            findings.push(match self.other_processor(index) {
                Some(hint) => finding.hint(hint),
                None => finding,
            });
        }
    }

    /// Bits may depend on what the processor can do; says so if it can do something else than the one of the record.
    fn other_processor(&self, index: usize) -> Option<String> {
        let recorded = self.exhibit(index)?.recorded.as_ref()?;
        let (then, now) = (&recorded.record.machine.cpu_features, machine_info().cpu_features);
        let lacks = |has: &[String], other: &[String]| {
            has.iter().filter(|feature| !other.contains(feature)).cloned().collect::<Vec<_>>()
        };
        let (missing, more) = (lacks(then, &now), lacks(&now, then));
        if missing.is_empty() && more.is_empty() {
            return None;
        }
        let listed =
            |features: Vec<String>| if features.is_empty() { "nothing".to_owned() } else { features.join(", ") };
        Some(format!(
            "the recorded one was made on another processor (it had {} that this one lacks, and lacked {}), on which bits may \
             depend: audit it on one of that kind, or with `SPDFLOW_SIMD`, or declare tolerances",
            listed(missing),
            listed(more)
        ))
    }

    fn id(&self, index: usize) -> String {
        self.subject.pipeline.instances[index].id.to_string()
    }
}

/// Returns the trials for the things to be varied: several at once, since nearly always none of them matters.
fn trials(vary: &[Variation], threads: usize) -> Vec<Trial> {
    let varies = |variation| vary.contains(&variation);
    let mut trials = vec![Trial {
        threads: varies(Variation::Threads).then_some(1),
        other_path: varies(Variation::Path),
        other_environment: varies(Variation::Env),
        ..Trial::default()
    }];
    // An odd number, and another one than that of the program as it is started.
    let other_threads = varies(Variation::Threads).then_some(if threads == 3 { 2 } else { 3 });
    if varies(Variation::Threads) || varies(Variation::Kill) {
        trials.push(Trial { threads: other_threads, kills: varies(Variation::Kill), ..Trial::default() });
    }
    if varies(Variation::Order) {
        trials.push(Trial { reversed: true, ..Trial::default() });
    }
    trials
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_asked_for_is_varied_in_few_trials() {
        let texts = |vary: &[Variation]| trials(vary, 2).iter().map(Trial::text).collect::<Vec<_>>();
        assert_eq!(texts(&[]), ["nothing varied"]);
        assert_eq!(
            texts(&Variation::ALL),
            ["1 thread, another path, another environment", "3 threads, killed on the way", "the other order"]
        );
        assert_eq!(texts(&[Variation::Kill]), ["nothing varied", "killed on the way"]);
        assert_eq!(texts(&[Variation::Order]), ["nothing varied", "the other order"]);
    }

    #[test]
    fn a_trial_is_taken_apart_into_what_it_varies() {
        let trial = Trial { threads: Some(3), kills: true, ..Trial::default() };
        let parts: Vec<_> = trial.parts().iter().map(|(variation, part)| (*variation, part.text())).collect();
        let expected =
            [(Variation::Threads, "3 threads".to_owned()), (Variation::Kill, "killed on the way".to_owned())];
        assert_eq!(parts, expected);
    }
}
