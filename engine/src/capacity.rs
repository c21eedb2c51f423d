//! What a run may use of the machine, and what each of its stages takes of that while it runs.
//!
//! Nothing here is part of a fingerprint: with more or less of anything the results are the same.

use crate::diagnostic::{Diagnostic, Report};
use crate::memory;
use crate::pipeline::{Instance, Pipeline};
use crate::size;

/// A GPU that stages can be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// What `CUDA_VISIBLE_DEVICES` calls it: a number, or a name such as `GPU-8d2f…`.
    pub id: String,
    /// The number under which this process finds it.
    pub ordinal: usize,
}

/// What a run may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// How many stages may run at once.
    pub jobs: usize,
    /// How many threads they share.
    pub threads: usize,
    /// How much memory they share, if that is known.
    pub memory_bytes: Option<u64>,
    /// The GPUs, each for one stage at a time.
    pub gpus: Vec<Gpu>,
}

/// What one stage takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Demand {
    pub(crate) threads: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) gpus: usize,
}

impl Capacity {
    /// Returns what a run of `pipeline` may use. Where `memory_bytes` is absent it is that of the machine, which is
    /// looked up only if a stage asks for memory.
    #[must_use]
    pub fn new(pipeline: &Pipeline, jobs: usize, threads: usize, memory_bytes: Option<u64>, gpus: &[Gpu]) -> Self {
        let asks = |instance: &Instance| instance.resources.memory_bytes.is_some();
        let of_machine = || pipeline.instances.iter().any(asks).then(memory::available_bytes).flatten();
        let jobs = jobs.max(1);
        Self { jobs, threads: threads.max(jobs), memory_bytes: memory_bytes.or_else(of_machine), gpus: gpus.to_vec() }
    }

    /// Returns what an instance takes, never more than there is.
    pub(crate) fn demand(&self, instance: &Instance) -> Demand {
        let wanted = &instance.resources;
        let share = (self.threads / self.jobs).max(1);
        Demand {
            threads: wanted.threads.unwrap_or(share).clamp(1, self.threads),
            memory_bytes: wanted.memory_bytes.unwrap_or(0).min(self.memory_bytes.unwrap_or(u64::MAX)),
            gpus: wanted.gpus.min(self.gpus.len()),
        }
    }

    /// Refuses stages that could never start, since they ask for more memory or GPUs than there is.
    ///
    /// # Errors
    /// Every such stage, with its line.
    pub(crate) fn refuse_too_large(
        &self,
        pipeline: &Pipeline,
        indices: impl IntoIterator<Item = usize>,
    ) -> Result<(), Box<Report>> {
        let mut mistakes = Vec::new();
        for index in indices {
            let Instance { id, resources, .. } = &pipeline.instances[index];
            if let (Some(wanted), Some(total)) = (resources.memory_bytes, self.memory_bytes)
                && wanted > total
            {
                let (wanted, total) = (size::written(wanted), size::written(total));
                let message = format!("stage `{}` asks for {wanted} of memory, but the run has {total}", id.stage);
                let hint = format!("give the run more, `--memory {wanted}`, or the stage less");
                mistakes.push(Diagnostic::new(message).at(resources.memory_origin.as_ref()).hint(hint));
            }
            if resources.gpus > self.gpus.len() {
                let message = format!(
                    "stage `{}` asks for {}, but the run has {}",
                    id.stage,
                    counted(resources.gpus),
                    self.gpus_text()
                );
                let all: Vec<_> = (0..resources.gpus).map(|number| number.to_string()).collect();
                let hint = format!("name the GPUs that the run may use, as in `--gpus {}`", all.join(","));
                mistakes.push(Diagnostic::new(message).at(resources.gpus_origin.as_ref()).hint(hint));
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Box::new(Report::new(mistakes, pipeline.sources.clone()))) }
    }

    fn gpus_text(&self) -> String {
        let ids: Vec<_> = self.gpus.iter().map(|gpu| gpu.id.as_str()).collect();
        if ids.is_empty() { "none".to_owned() } else { format!("{} ({})", ids.len(), ids.join(", ")) }
    }
}

fn counted(gpus: usize) -> String {
    if gpus == 1 { "1 GPU".to_owned() } else { format!("{gpus} GPUs") }
}
