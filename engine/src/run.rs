//! Runs a pipeline: plans it, then works on whatever is ready until nothing is left.
//!
//! A run that finds everything in place ends after that. Else what the plan found in place is done at once, without a
//! thread, and the rest goes through `schedule::Schedule` to
//! worker threads, each of which brings one instance at a time to its end (`stage::Session::work`).

mod compute;
mod exchange;
mod journal;
mod options;
mod progress;
mod ready;
mod recipe;
mod replay;
mod schedule;
pub(crate) mod simulate;
mod stage;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spdflow_cache::{Digest, MachineInfo};

use crate::capacity::Capacity;
use crate::error::RunError;
use crate::event::{EVENT_SCHEMA, Event, Listener, Outcome};
use crate::executor::Executor;
use crate::expectation::Expectation;
use crate::kind::NumericTarget;
use crate::machine::{machine_info, now_text};
use crate::pipeline::Pipeline;
use crate::plan::{Action, Plan, input_digests, plan};
use crate::workspace::Workspace;

use exchange::Exchange;
pub use exchange::RemoteOptions;
use journal::Journal;
pub use options::{Order, RunOptions};
use ready::Held;
pub use recipe::{Part, Recipe, RecipeError};
use schedule::{Done, Schedule, State};
pub use stage::StageFailure;
use stage::{End, Job, Session};
pub use summary::{InstanceResult, RunSummary};
use summary::{evidence, result, results, status};

/// How often a lost result is made again before the disk is blamed.
const REDO_LIMIT: u32 = 3;

/// Runs `pipeline`. A stage that fails is an outcome, not an error.
///
/// # Errors
/// [`RunError`] if the run had to be given up; whatever was finished before is safe in the cache.
pub fn run(
    pipeline: &Pipeline,
    workspace: &Workspace<'_>,
    options: &RunOptions,
    executor: &dyn Executor,
    listener: &dyn Listener,
) -> Result<RunSummary, RunError> {
    let begin = Instant::now();
    let folder = workspace.cache.create_run(&now_text().replace(['-', ':'], ""))?;
    let run = folder.id().to_owned();
    let lease = folder.lease(workspace.cache)?;
    let journal = Journal::new(folder, listener);

    // What the plan finds must not be collected as garbage before the run has said that it needs it.
    let hold = workspace.cache.hold()?;
    let target = NumericTarget::new(options.device, options.ranks);
    let plan = plan(pipeline, workspace, &options.scope, &target)?;
    let given: Vec<_> =
        plan.given.iter().map(|(index, key, known)| (*index, Some(*key), Some(known.artifact))).collect();
    let needed = plan.steps.iter().map(|step| step.fingerprint).chain(given.iter().map(|(_, key, _)| *key));
    let needed: Vec<Digest> = needed.flatten().collect();
    lease.add_held(&hold, &needed)?;
    drop(hold);
    let capacity = Capacity::new(pipeline, options.jobs, options.threads, options.memory_bytes, &options.gpus);
    let may_run = plan.steps.iter().filter(|step| matches!(step.action, Action::Run | Action::Maybe));
    capacity.refuse_too_large(pipeline, may_run.map(|step| step.index)).map_err(RunError::TooLarge)?;
    journal.write_plan(pipeline, &plan)?;
    // A run that finds everything in place does nothing that could be repeated.
    let is_repeatable = plan.steps.iter().any(|step| step.action != Action::Fresh);
    // What a run made that was killed before it was logged is logged by the next one that relies on it.
    let is_logged = is_repeatable | workspace.cache.forget_unlogged()?;
    if is_logged {
        workspace.cache.open_in_log(&run)?;
    }
    if is_repeatable {
        workspace.cache.remove_old_temporaries();
        workspace.out.remove_leftovers();
        journal.with_folder(|folder| replay::write_script(folder, pipeline, &options.build, &options.arguments))?;
    }
    journal.on_event(&Event::RunStarted {
        schema: EVENT_SCHEMA,
        run: run.clone(),
        pipeline: pipeline.name.clone(),
        instances: plan.steps.len(),
        fresh: plan.steps.iter().filter(|step| step.action == Action::Fresh).count(),
        out: workspace.out.path().display().to_string(),
        cache: workspace.cache.root().display().to_string(),
    });
    // Only records name it.
    let machine: LazyLock<MachineInfo> = LazyLock::new(machine_info);
    let session = Session {
        pipeline,
        workspace,
        executor,
        listener: &journal,
        audience: listener,
        device: options.device,
        target: &target,
        checkpoint_every: options.checkpoint_every,
        locked: options.locked.as_ref(),
        stop: &options.stop,
        exchange: options.remote.as_ref().map(Exchange::new),
        run: &run,
        build: &options.build,
        machine: &machine,
        lease: &lease,
        needed: Mutex::new(if is_repeatable { needed.into_iter().collect() } else { BTreeSet::new() }),
        checked: Mutex::default(),
        last_flush: Mutex::new(begin),
        said: Mutex::default(),
    };
    let worked = if is_repeatable {
        work_off(&session, options, capacity, plan, &journal)
    } else {
        Ok((in_place(&session, plan), Vec::new()))
    };
    // Also after an error: what is recorded must survive. A memo that cannot be written only costs time later.
    let _ = workspace.write_memos();
    let saved = workspace.cache.flush();
    let (results, failures) = worked?;
    saved?;

    let status = status(&results, options.keep_going);
    let mut counts = BTreeMap::new();
    for result in &results {
        *counts.entry(result.outcome).or_insert(0) += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let finished = Event::RunFinished { run: run.clone(), status, counts, seconds };
    journal.on_event(&finished);
    journal.finish(&finished)?;
    if is_logged {
        let results = results.iter().map(|result| (result.index, result.fingerprint, result.artifact));
        let evidence = evidence(pipeline, workspace, results.chain(given).collect())?;
        workspace.cache.log_run(&run, &now_text(), &evidence)?;
    }
    Ok(RunSummary { run, status, results, failures, seconds, is_logged })
}

/// Returns the results of a plan that found all of them in place.
fn in_place(session: &Session<'_>, plan: Plan) -> Vec<InstanceResult> {
    for (index, message) in plan.warnings {
        session.warn(&session.pipeline.instances[index], message);
    }
    let found = plan.steps.into_iter().filter_map(|step| {
        let fresh = Done::found(step.known?, step.fingerprint?);
        session.report_fresh(&session.pipeline.instances[step.index], &fresh);
        Some(result(step.index, fresh))
    });
    found.collect()
}

/// Does what the plan has left to do.
fn work_off(
    session: &Session<'_>,
    options: &RunOptions,
    capacity: Capacity,
    plan: Plan,
    journal: &Journal<'_>,
) -> Result<(Vec<InstanceResult>, Vec<StageFailure>), RunError> {
    let (states, failures) = session.while_sending(|| Runner::new(session, options, capacity, plan).work())?;
    if states.iter().all(|state| matches!(state, State::OutOfScope | State::Given(_) | State::Done(_))) {
        journal.with_folder(|folder| replay::write_results(folder, session.pipeline, &states))?;
    }
    Ok((results(states), failures))
}

struct Runner<'a> {
    session: &'a Session<'a>,
    options: &'a RunOptions,
    capacity: Capacity,
    expectation: Expectation,
    forced: Vec<bool>,
    /// Why an instance runs, where the plan knew.
    reasons: BTreeMap<usize, String>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    schedule: Schedule,
    failures: Vec<StageFailure>,
    error: Option<RunError>,
    redone: BTreeMap<usize, u32>,
    /// When what is being worked on was begun.
    begun: BTreeMap<usize, Instant>,
    /// When it was last told how long the rest will take, and how long it took to find out.
    last_outlook: Option<(Instant, Duration)>,
}

impl<'a> Runner<'a> {
    fn new(session: &'a Session<'a>, options: &'a RunOptions, capacity: Capacity, plan: Plan) -> Self {
        let expectation = Expectation::new(session.pipeline, &plan, session.cache());
        let instances = &session.pipeline.instances;
        for (index, message) in plan.warnings {
            session.warn(&instances[index], message);
        }
        let mut members = vec![false; instances.len()];
        let mut done: Vec<Option<Done>> = vec![None; instances.len()];
        let mut reasons = BTreeMap::new();
        for step in plan.steps {
            if step.action == Action::Run {
                reasons.insert(step.index, step.why);
            }
            members[step.index] = true;
            if let (Action::Fresh, Some(known), Some(fingerprint)) = (step.action, step.known, step.fingerprint) {
                let fresh = Done::found(known, fingerprint);
                session.report_fresh(&instances[step.index], &fresh);
                done[step.index] = Some(fresh);
            }
        }
        for (index, fingerprint, known) in plan.given {
            done[index] = Some(Done::found(known, fingerprint));
        }
        let urgency = match options.order {
            Order::Urgent => expectation.urgency(session.pipeline),
            Order::Reversed => (0..instances.len() as u64).collect(),
        };
        let progress = Progress {
            schedule: Schedule::new(session.pipeline, &members, &capacity, urgency, done),
            failures: Vec::new(),
            error: None,
            redone: BTreeMap::new(),
            begun: BTreeMap::new(),
            last_outlook: None,
        };
        let (progress, changed) = (Mutex::new(progress), Condvar::new());
        let forced = options.scope.forced(session.pipeline);
        Self { session, options, capacity, expectation, forced, reasons, progress, changed }
    }

    fn work(self) -> Result<(Vec<State>, Vec<StageFailure>), RunError> {
        let progress = self.lock();
        let is_open = |state: &&State| matches!(state, State::Waiting(_) | State::Ready);
        let workers = self.capacity.jobs.min(progress.schedule.states.iter().filter(is_open).count());
        let is_over = progress.schedule.is_over();
        drop(progress);
        if !is_over {
            std::thread::scope(|scope| {
                for number in 0..workers {
                    let thread = std::thread::Builder::new().name(format!("worker-{number}")).stack_size(STACK_BYTES);
                    let spawned = thread.spawn_scoped(scope, || self.worker());
                    // Without a single thread there is nothing to go on with; the system is out of everything.
                    spawned.expect("the system gives no thread");
                }
            });
        }
        let mut progress = self.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = progress.error {
            return Err(error);
        }
        for (index, state) in progress.schedule.states.iter_mut().enumerate() {
            if matches!(state, State::Waiting(_) | State::Ready) {
                *state = State::Ended(Outcome::Skipped, 0.0);
                let instance = self.session.pipeline.instances[index].id.to_string();
                self.session.listener.on_event(&Event::Skipped { instance, because: None });
            }
        }
        Ok((progress.schedule.states, progress.failures))
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self) {
        let mut progress = self.lock();
        loop {
            if self.options.stop.is_raised() {
                progress.schedule.is_halted = true;
            }
            if progress.schedule.is_over() {
                self.changed.notify_all();
                return;
            }
            let Some((index, held)) = progress.schedule.take() else {
                progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            progress.begun.insert(index, Instant::now());
            self.tell_outlook(&mut progress);
            let job = self.job(index, &held, &progress);
            drop(progress);
            let end = self.session.work(&job);
            progress = self.lock();
            progress.begun.remove(&index);
            self.note(&job, end, &mut progress);
            self.changed.notify_all();
        }
    }

    /// Tells now and then how long the rest will take, as far as durations are known.
    fn tell_outlook(&self, progress: &mut Progress) {
        let now = Instant::now();
        let is_early = |(last, cost)| now.duration_since(last) < outlook_pause(cost);
        if progress.last_outlook.is_some_and(is_early) || !self.expectation.is_known() {
            return;
        }
        let seconds = |index: usize| self.expectation.seconds(index).unwrap_or(0.0);
        let left = progress.schedule.states.iter().enumerate().map(|(index, state)| match state {
            State::Waiting(_) | State::Ready => Some(seconds(index)),
            State::Busy(_) => {
                let since = progress.begun.get(&index).map_or(0.0, |begin| now.duration_since(*begin).as_secs_f64());
                // What takes longer than expected will do so for a while.
                Some((seconds(index) - since).max(since / 10.0))
            }
            State::OutOfScope | State::Given(_) | State::Done(_) | State::Ended(..) => None,
        });
        let running: Vec<_> = progress.begun.keys().copied().collect();
        let pipeline = self.session.pipeline;
        let urgency = self.expectation.urgency(pipeline);
        let seconds_left = simulate::seconds(pipeline, &self.capacity, &urgency, left.collect(), &running);
        let told = Instant::now();
        progress.last_outlook = Some((told, told.duration_since(now)));
        self.session.listener.on_event(&Event::Outlook { seconds_left });
    }

    fn job(&self, index: usize, held: &Held, progress: &Progress) -> Job<'a> {
        let instance = &self.session.pipeline.instances[index];
        let done = |parent: usize| progress.schedule.done(parent);
        Job {
            index,
            instance,
            inputs: input_digests(instance, |parent| done(parent).map(|done| done.known.artifact)),
            parents: instance.parents().filter_map(|parent| Some((parent, done(parent)?.clone()))).collect(),
            is_forced: self.forced[index],
            planned_why: self.reasons.get(&index).cloned(),
            threads: held.threads,
            gpus: held.gpus.iter().map(|gpu| self.capacity.gpus[*gpu].clone()).collect(),
            expected_seconds: self
                .expectation
                .known_seconds(index)
                .filter(|_| self.expectation.seconds(index).is_some()),
        }
    }

    fn note(&self, job: &Job<'_>, end: Result<End, RunError>, progress: &mut Progress) {
        match end {
            Ok(End::Done(done)) => progress.schedule.finish(job.index, done),
            Ok(End::Interrupted) => {
                progress.schedule.end(job.index, Outcome::Interrupted, 0.0);
                progress.schedule.is_halted = true;
            }
            Ok(End::Failed(failure)) => {
                progress.failures.push(failure);
                progress.schedule.is_halted |= !self.options.keep_going;
                let because = Some(job.instance.id.to_string());
                for skipped in progress.schedule.end(job.index, Outcome::Failed, 0.0) {
                    let instance = self.session.pipeline.instances[skipped].id.to_string();
                    self.session.listener.on_event(&Event::Skipped { instance, because: because.clone() });
                }
            }
            Ok(End::Lost(producers)) => {
                let given = producers.iter().find(|index| matches!(progress.schedule.states[**index], State::Given(_)));
                if let Some(producer) = given {
                    let (instance, why) =
                        (job.instance.id.to_string(), "its files were lost from the cache".to_owned());
                    let input = self.session.pipeline.instances[*producer].id.to_string();
                    self.give_up(job, RunError::InputUnknown { instance, input, why }, progress);
                } else if let Err(report) =
                    self.capacity.refuse_too_large(self.session.pipeline, producers.iter().copied())
                {
                    self.give_up(job, RunError::TooLarge(report), progress);
                } else if let Some(producer) = self.redone_too_often(&producers, progress) {
                    let instance = self.session.pipeline.instances[producer].id.to_string();
                    self.give_up(job, RunError::KeepsBreaking { instance }, progress);
                } else {
                    progress.schedule.redo(job.index, &producers);
                }
            }
            Err(error) => self.give_up(job, error, progress),
        }
    }

    fn redone_too_often(&self, producers: &BTreeSet<usize>, progress: &mut Progress) -> Option<usize> {
        producers.iter().copied().find(|producer| {
            let count = progress.redone.entry(*producer).or_insert(0);
            *count += 1;
            *count > REDO_LIMIT
        })
    }

    fn give_up(&self, job: &Job<'_>, error: RunError, progress: &mut Progress) {
        progress.schedule.end(job.index, Outcome::Failed, 0.0);
        progress.schedule.is_halted = true;
        progress.error.get_or_insert(error);
        // The other stages save their state: the cache is in trouble, not they.
        self.options.stop.raise();
    }
}

/// How often it is told how long the rest will take.
const OUTLOOK_PAUSE: Duration = Duration::from_millis(500);

/// Returns the least time between two of these. No worker gets anything to do while it is found out, which takes the
/// longer the more instances there are: a twentieth of the time at most.
fn outlook_pause(cost: Duration) -> Duration {
    OUTLOOK_PAUSE.max(20 * cost)
}

/// Stages build deep computation graphs; the default of 2 MiB for threads is too little for recursive drops.
const STACK_BYTES: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_to_find_out_is_told_less_often() {
        let pause = |cost| outlook_pause(Duration::from_millis(cost)).as_millis();
        assert_eq!([pause(0), pause(25), pause(300)], [500, 500, 6_000]);
    }
}
