//! A run's state on disk, so that a stopped or killed run continues where it was.
//!
//! Tensors go into `NAME-STEP.safetensors`, everything else into `NAME.json`, which names the tensor file and is renamed
//! into place last: a reader that finds it may rely on the tensors. JSON keeps every f64 exactly.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{StageContext, StageError};

use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::{self, Tensor, Tensors};
use crate::bridge::Backend;
use crate::optimizer::parameters::Parameters;

/// What a checkpoint holds besides tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The next step to do.
    pub step: u64,
    /// Optimiser updates so far.
    pub updates: u64,
    /// The metrics recorded before that step.
    pub metrics: MetricLog,
    /// The name of the tensor file.
    tensors: String,
}

/// Where and how often a run saves its state.
pub struct Checkpoints {
    folder: PathBuf,
    name: String,
    every: Duration,
    last: Instant,
}

impl Checkpoints {
    /// Returns checkpoints called `name` in `folder`, due every `every`.
    #[must_use]
    pub fn new(folder: &Path, name: &str, every: Duration) -> Self {
        Self { folder: folder.to_path_buf(), name: name.to_owned(), every, last: Instant::now() }
    }

    fn manifest(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    /// Returns the last checkpoint, if there is a whole one. A damaged one counts as none: the run starts over.
    #[must_use]
    pub fn load(&self) -> Option<(Progress, Tensors)> {
        let text = fs::read_to_string(self.manifest()).ok()?;
        let progress: Progress = serde_json::from_str(&text).ok()?;
        let tensors = tensors::read(&self.folder.join(&progress.tensors)).ok()?;
        Some((progress, tensors))
    }

    /// Returns whether so much time has passed that a kill would cost too much.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= self.every
    }

    /// Saves the state before `step` if the user wants to stop or a save is due.
    ///
    /// # Errors
    /// [`StageError::Interrupted`] after saving when the user wants to stop; else as [`Checkpoints::save`].
    pub fn keep<D: Backend>(
        &mut self,
        context: &StageContext<'_>,
        step: u64,
        parameters: &Parameters<D>,
        metrics: &MetricLog,
    ) -> Result<(), StageError> {
        let stop = context.should_stop();
        self.keep_if(stop, step, parameters, metrics)?;
        if stop { Err(StageError::Interrupted) } else { Ok(()) }
    }

    /// Saves the state before `step` if it `must` be or a save is due.
    ///
    /// # Errors
    /// As [`Checkpoints::save`].
    pub fn keep_if<D: Backend>(
        &mut self,
        must: bool,
        step: u64,
        parameters: &Parameters<D>,
        metrics: &MetricLog,
    ) -> Result<(), StageError> {
        if must || self.is_due() {
            self.save(step, parameters.updates(), metrics, &parameters.checkpoint())?;
        }
        Ok(())
    }

    /// Saves the state before `step`.
    ///
    /// # Errors
    /// [`StageError::Io`] if the folder cannot be written; the previous checkpoint stays.
    pub fn save(
        &mut self,
        step: u64,
        updates: u64,
        metrics: &MetricLog,
        state: &[(String, Tensor)],
    ) -> Result<(), StageError> {
        let file = format!("{}-{step}.safetensors", self.name);
        let bytes = tensors::to_bytes(state.iter().map(|(name, tensor)| (&name[..], tensor)))?;
        write_durably(&self.folder.join(&file), &bytes)?;
        let progress = Progress { step, updates, metrics: metrics.clone(), tensors: file.clone() };
        let text = serde_json::to_string(&progress).expect("progress can be expressed in JSON");
        write_durably(&self.manifest(), text.as_bytes())?;
        self.remove_others(&file);
        self.last = Instant::now();
        Ok(())
    }

    /// Removes the tensors of earlier checkpoints; a leftover costs disk space, nothing else.
    fn remove_others(&self, keep: &str) {
        let prefix = format!("{}-", self.name);
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) && name.ends_with(".safetensors") && name != keep {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Writes to a temporary file, syncs it, and renames it into place.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    let temporary = path.with_extension("partial");
    let mut file = File::create(&temporary).map_err(StageError::io("create", &temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(StageError::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(StageError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(x: f32) -> Vec<(String, Tensor)> {
        vec![("value/V".to_owned(), Tensor::new(vec![2], vec![x, -0.0]))]
    }

    #[test]
    fn the_last_whole_checkpoint_comes_back_exactly() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut checkpoints = Checkpoints::new(folder.path(), "run", Duration::ZERO);
        assert!(checkpoints.load().is_none() && checkpoints.is_due());
        let mut metrics = MetricLog::new();
        metrics.push(3, "loss", 0.1 + 0.2);
        checkpoints.save(4, 4, &metrics, &state(1.5)).unwrap();
        checkpoints.save(9, 9, &metrics, &state(2.5)).unwrap();
        let (progress, tensors) = checkpoints.load().unwrap();
        assert_eq!((progress.step, progress.updates, progress.metrics), (9, 9, metrics));
        assert_eq!(tensors.get("value/V").unwrap(), &state(2.5)[0].1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "older tensors are removed");
    }

    #[test]
    fn a_damaged_checkpoint_counts_as_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut checkpoints = Checkpoints::new(folder.path(), "run", Duration::ZERO);
        checkpoints.save(4, 4, &MetricLog::new(), &state(1.0)).unwrap();
        fs::write(folder.path().join("run-4.safetensors"), b"cut off").unwrap();
        assert!(checkpoints.load().is_none());
    }
}
