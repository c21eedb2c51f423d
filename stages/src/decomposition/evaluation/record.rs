//! What the slow evaluations of a run leave behind: figures, the data they show (each chart's beside it, and everything
//! in one table), and saved components.
//!
//! Everything goes into the scratch folder at once, each file written durably, and only the finished run copies it into
//! the artifact. So a run that is stopped or killed finds there what it made before its last checkpoint; what it made
//! after that is made again, byte for byte the same.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{StageError, Summary};

use super::findings::{Datum, Findings};
use crate::artifact::json;
use crate::artifact::tables::{self, Column};
use crate::artifact::tensors::{self, Tensor};
use crate::checkpoint::write_durably;

/// The data behind the figures.
pub const EVALUATION_FILE: &str = "evaluation.parquet";

/// The figures and saved components of one run.
pub struct EvaluationRecords {
    folder: PathBuf,
}

/// The figures and data of one evaluation.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    figures: Vec<Drawn>,
    data: Vec<Datum>,
}

/// A figure that was kept.
#[derive(Debug, Serialize, Deserialize)]
struct Drawn {
    /// The stem of its files: `figures_uv_matrices_1000`.
    stem: String,
    /// What it shows.
    title: String,
    /// Whether its data lies beside it.
    has_chart: bool,
}

/// What one figure shows, in the form in which the reference keeps charts (spec section 6.7).
#[derive(Debug, Serialize)]
struct Chart<'a> {
    columns: [&'static str; 4],
    data: Vec<(&'a str, f64, f64, f64)>,
    step: u64,
}

impl EvaluationRecords {
    /// Returns the records in the scratch folder `scratch`, made if need be.
    ///
    /// # Errors
    /// [`StageError::Io`] if the folder cannot be made.
    pub fn open(scratch: &Path) -> Result<Self, StageError> {
        let folder = scratch.join("evaluation");
        fs::create_dir_all(&folder).map_err(StageError::io("create", &folder))?;
        Ok(Self { folder })
    }

    /// Keeps the figures and data of the evaluation at `step`.
    ///
    /// # Errors
    /// [`StageError::Io`] if a file cannot be written; [`StageError::Failed`] if a figure cannot be drawn.
    pub fn keep(&self, step: u64, findings: &Findings) -> Result<(), StageError> {
        let mut record = Record { figures: Vec::new(), data: findings.data.clone() };
        for (key, figure) in &findings.figures {
            let stem = format!("{}_{step}", key.replace('/', "_"));
            write_durably(&self.folder.join(format!("{stem}.svg")), figure.to_svg().as_bytes())?;
            write_durably(&self.folder.join(format!("{stem}.png")), &figure.to_png()?)?;
            let shown = findings.data.iter().filter(|datum| datum.key == *key);
            let data: Vec<_> = shown.map(|datum| (&datum.series[..], datum.x, datum.width, datum.value)).collect();
            let has_chart = !data.is_empty();
            if has_chart {
                let chart = Chart { columns: ["series", "x", "width", "value"], data, step };
                let text = serde_json::to_string(&chart).expect("texts and numbers can be expressed in JSON") + "\n";
                write_durably(&self.folder.join(format!("{stem}.json")), text.as_bytes())?;
            }
            record.figures.push(Drawn { stem, title: format!("{}, step {step}", figure.title), has_chart });
        }
        if record.figures.is_empty() && record.data.is_empty() {
            return Ok(());
        }
        // Last: what the record names is there.
        write_durably(&self.record(step), json::to_text(&record).as_bytes())
    }

    /// Keeps the components as they are after `step` updates.
    ///
    /// # Errors
    /// [`StageError::Io`] if the file cannot be written.
    pub fn keep_components(&self, step: u64, state: &[(String, Tensor)]) -> Result<(), StageError> {
        let bytes = tensors::to_bytes(state.iter().map(|(name, tensor)| (&name[..], tensor)))?;
        write_durably(&self.folder.join(components_file(step)), &bytes)
    }

    /// Copies what the evaluations at the steps `evaluated` and the saves at the steps `saved` left into `out`.
    ///
    /// # Errors
    /// [`StageError::Io`] if a file cannot be read or written; [`StageError::Failed`] if a record is damaged.
    pub fn export(
        &self,
        out: &Path,
        evaluated: impl Iterator<Item = u64>,
        saved: impl Iterator<Item = u64>,
        summary: &mut Summary,
    ) -> Result<(), StageError> {
        let mut rows: Vec<(u64, Datum)> = Vec::new();
        for step in evaluated.filter(|step| self.record(*step).exists()) {
            let record: Record = json::read(&self.record(step))?;
            for Drawn { stem, title, has_chart } in record.figures {
                for format in ["svg", "png"] {
                    self.copy(&format!("{stem}.{format}"), out, "figures", format, &title, summary)?;
                }
                if has_chart {
                    let title = format!("{title}, in numbers");
                    self.copy(&format!("{stem}.json"), out, "figures", "json", &title, summary)?;
                }
            }
            rows.extend(record.data.into_iter().map(|datum| (step, datum)));
        }
        for step in saved {
            let title = format!("target model, components and causal-importance networks after {step} updates");
            self.copy(&components_file(step), out, "checkpoints", "safetensors", &title, summary)?;
        }
        if !rows.is_empty() {
            write_table(&out.join(EVALUATION_FILE), rows)?;
            summary.file(EVALUATION_FILE, "parquet", "what the figures of the evaluations show, in numbers");
        }
        Ok(())
    }

    fn record(&self, step: u64) -> PathBuf {
        self.folder.join(format!("record_{step}.json"))
    }

    fn copy(
        &self,
        file: &str,
        out: &Path,
        below: &str,
        format: &str,
        title: &str,
        summary: &mut Summary,
    ) -> Result<(), StageError> {
        let folder = out.join(below);
        fs::create_dir_all(&folder).map_err(StageError::io("create", &folder))?;
        let (from, to) = (self.folder.join(file), folder.join(file));
        fs::copy(&from, &to).map_err(StageError::io("read", &from))?;
        summary.file(format!("{below}/{file}"), format, title);
        Ok(())
    }
}

fn components_file(step: u64) -> String {
    format!("components_{step}.safetensors")
}

fn write_table(path: &Path, rows: Vec<(u64, Datum)>) -> Result<(), StageError> {
    let (mut step, mut key, mut series) = (Vec::new(), Vec::new(), Vec::new());
    let (mut x, mut width, mut value) = (Vec::new(), Vec::new(), Vec::new());
    for (at, datum) in rows {
        step.push(i64::try_from(at).expect("steps are far below 2^63"));
        key.push(datum.key);
        series.push(datum.series);
        x.push(datum.x);
        width.push(datum.width);
        value.push(datum.value);
    }
    tables::write(
        path,
        &[
            ("step", Column::Int64(step)),
            ("key", Column::Text(key)),
            ("series", Column::Text(series)),
            ("x", Column::Float64(x)),
            ("width", Column::Float64(width)),
            ("value", Column::Float64(value)),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Axis, Figure, Mark, Panel, Rgb, Scale};

    fn findings(value: f64) -> Findings {
        let axis = || Axis::new("", Scale::Linear { min: 0.0, max: 2.0 });
        let dots = Mark::Points { points: vec![(1.0, value)], color: Rgb::BLUE, radius: 1.0, opacity: 1.0 };
        let mut findings = Findings::default();
        findings.figure("figures/dots", Figure::single("Dots", 100.0, 50.0, Panel::new("", axis(), axis()).with(dots)));
        findings.data("figures/dots", "linear1", [(0.0, 0.0, value)]);
        findings
    }

    #[test]
    fn what_an_interrupted_run_made_is_in_the_artifact_of_the_one_that_goes_on() {
        let (scratch, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tensor = |x: f32| vec![("x".to_owned(), Tensor::new(vec![1], vec![x]))];
        let first = EvaluationRecords::open(scratch.path()).unwrap();
        first.keep(0, &findings(0.5)).unwrap();
        first.keep(10, &findings(9.0)).unwrap();
        first.keep_components(5, &tensor(1.0)).unwrap();
        drop(first);
        // The last checkpoint was before step 10, so that evaluation is made again.
        let second = EvaluationRecords::open(scratch.path()).unwrap();
        let mut last = findings(1.5);
        last.data("subset_worst/kl_subset", "no_mlp_kl", [(0.0, 0.0, 2.5)]);
        second.keep(10, &last).unwrap();
        second.keep(15, &Findings::default()).unwrap();
        let mut summary = Summary::default();
        second.export(out.path(), [0, 10, 15].into_iter(), [5].into_iter(), &mut summary).unwrap();
        let files: Vec<_> = summary.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            files,
            [
                "figures/figures_dots_0.svg",
                "figures/figures_dots_0.png",
                "figures/figures_dots_0.json",
                "figures/figures_dots_10.svg",
                "figures/figures_dots_10.png",
                "figures/figures_dots_10.json",
                "checkpoints/components_5.safetensors",
                "evaluation.parquet",
            ]
        );
        assert!(files.iter().all(|file| out.path().join(file).exists()));
        let table = tables::read(&out.path().join(EVALUATION_FILE)).unwrap();
        assert_eq!(table.int64("step").unwrap(), [0, 10, 10]);
        assert_eq!(table.float64("value").unwrap(), [0.5, 1.5, 2.5]);
        let chart = fs::read_to_string(out.path().join("figures/figures_dots_10.json")).unwrap();
        let expected = r#"{"columns":["series","x","width","value"],"data":[["linear1",0.0,0.0,1.5]],"step":10}"#;
        assert_eq!(chart, format!("{expected}\n"), "the figure's own data, and only that of its step");
    }

    #[test]
    fn a_run_without_figures_leaves_no_file() {
        let (scratch, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let records = EvaluationRecords::open(scratch.path()).unwrap();
        records.keep(0, &Findings::default()).unwrap();
        let mut summary = Summary::default();
        records.export(out.path(), [0].into_iter(), std::iter::empty(), &mut summary).unwrap();
        assert!(summary.files.is_empty() && fs::read_dir(out.path()).unwrap().next().is_none());
    }
}
