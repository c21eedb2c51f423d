//! Results side by side: a line for each instance, or for each group of instances.

use std::collections::BTreeMap;

use spdflow_engine::cache::Cache;
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::suggest::{did_you_mean, listed};

use super::{Measured, log_of, logged};
use crate::args::MetricsArgs;
use crate::failure::Failure;
use crate::report::table::Table;
use crate::report::text::number;

/// A table of results.
pub(super) struct Comparison {
    /// What tells the lines apart: `stage`, axes, parameters of the sweep.
    labels: Vec<String>,
    numbers: Vec<String>,
    lines: Vec<Line>,
    is_grouped: bool,
}

struct Line {
    labels: Vec<String>,
    /// How many results it stands for.
    count: usize,
    /// Mean and, of several, the standard deviation.
    numbers: Vec<Option<(f64, Option<f64>)>>,
}

/// What is known of one instance.
struct Row {
    labels: BTreeMap<String, String>,
    numbers: BTreeMap<String, f64>,
    has_result: bool,
}

impl Comparison {
    /// Makes the table that the command line asks for.
    ///
    /// # Errors
    /// If an order, a group or a column means nothing here.
    pub(super) fn new(
        pipeline: &Pipeline,
        measured: &[Measured<'_>],
        cache: &Cache,
        args: &MetricsArgs,
    ) -> Result<Self, Failure> {
        let mut numbers: Vec<String> = args.columns.clone();
        let mut rows: Vec<Row> = Vec::new();
        for one in measured {
            let mut row =
                Row { labels: labels(pipeline, one), numbers: BTreeMap::new(), has_result: one.record.is_some() };
            for metric in one.record.iter().flat_map(|record| &record.metrics) {
                if args.columns.is_empty() && !numbers.contains(&metric.name) {
                    numbers.push(metric.name.clone());
                }
                row.numbers.insert(metric.name.clone(), metric.value);
            }
            rows.push(row);
        }
        let mut all: Vec<String> = Vec::new();
        for name in rows.iter().flat_map(|row| row.labels.keys()) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all.sort_by_key(|name| (name != "stage", order_of(pipeline, name)));
        let sort = args.sort.as_deref().map(|name| name.strip_prefix('-').map_or((name, false), |name| (name, true)));
        // Numbers beside the headline are looked up where the run has logged them.
        let wanted = args.columns.iter().map(String::as_str).chain(sort.map(|(name, _)| name));
        let wanted: Vec<&str> = wanted.filter(|name| !all.iter().any(|label| label == name)).collect();
        for (row, one) in rows.iter_mut().zip(measured) {
            let missing: Vec<&str> = wanted.iter().copied().filter(|name| !row.numbers.contains_key(*name)).collect();
            let record = one.record.as_ref().filter(|_| !missing.is_empty());
            if let Some(log) = record.and_then(|record| log_of(cache, record)) {
                let found = missing.into_iter().filter_map(|name| Some((name.to_owned(), logged(&log, name)?)));
                row.numbers.extend(found);
            }
        }
        for name in wanted {
            let has_any = rows.iter().any(|row| row.numbers.contains_key(name));
            if !has_any && rows.iter().any(|row| row.has_result) {
                let message = format!("no result here has a number or label `{name}`");
                let known = all.iter().chain(&numbers).map(String::as_str).filter(|known| *known != name);
                return Err(unknown(message, name, &known.collect::<Vec<_>>()));
            }
            if !numbers.iter().any(|number| number == name) {
                numbers.push(name.to_owned());
            }
        }
        let labels = if args.group_by.is_empty() { all } else { args.group_by.clone() };
        for label in &labels {
            if !rows.iter().any(|row| row.labels.contains_key(label)) {
                let mut known: Vec<&str> = rows.iter().flat_map(|row| row.labels.keys()).map(String::as_str).collect();
                known.sort_unstable();
                known.dedup();
                let message = format!("nothing can be grouped by `{label}`");
                return Err(unknown(message, label, &known));
            }
        }
        let is_grouped = !args.group_by.is_empty();
        let mut lines = if is_grouped { grouped(&rows, &labels, &numbers) } else { single(&rows, &labels, &numbers) };
        if let Some((name, is_descending)) = sort {
            sort_lines(&mut lines, name, is_descending, &labels, &numbers);
        }
        Ok(Self { labels, numbers, lines, is_grouped })
    }

    /// Returns the table as text.
    pub(super) fn text(&self) -> String {
        let mut header: Vec<String> = self.labels.clone();
        header.extend(self.is_grouped.then(|| ">n".to_owned()));
        header.extend(self.numbers.iter().map(|name| format!(">{name}")));
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut table = Table::new(&header);
        for line in &self.lines {
            let cell = |value: &Option<(f64, Option<f64>)>| match value {
                None => String::new(),
                Some((mean, None)) => number(*mean),
                Some((mean, Some(deviation))) => format!("{} ± {}", number(*mean), number(*deviation)),
            };
            let count = self.is_grouped.then(|| line.count.to_string());
            table.row(line.labels.iter().cloned().chain(count).chain(line.numbers.iter().map(cell)));
        }
        table.text()
    }

    /// Returns the table as a document.
    pub(super) fn document(&self, pipeline: &str) -> serde_json::Value {
        let line = |line: &Line| {
            let labels: serde_json::Map<String, serde_json::Value> =
                self.labels.iter().cloned().zip(line.labels.iter().map(|text| text.as_str().into())).collect();
            let numbers = self.numbers.iter().cloned().zip(line.numbers.iter().map(|number| match number {
                None => serde_json::Value::Null,
                Some((mean, deviation)) => serde_json::json!({ "mean": mean, "std": deviation }),
            }));
            let numbers: serde_json::Map<String, serde_json::Value> = numbers.collect();
            serde_json::json!({ "labels": labels, "count": line.count, "numbers": numbers })
        };
        let lines: Vec<_> = self.lines.iter().map(line).collect();
        serde_json::json!({ "pipeline": pipeline, "rows": lines })
    }
}

fn unknown(message: String, name: &str, known: &[&str]) -> Failure {
    let known = || known.iter().copied();
    let hint = did_you_mean(name, known()).unwrap_or_else(|| format!("there are: {}", listed(known())));
    Failure::input(Diagnostic::new(message).hint(hint))
}

/// Returns what tells an instance from others: its stage, its axes, and at a point of the sweep the parameters there.
fn labels(pipeline: &Pipeline, measured: &Measured<'_>) -> BTreeMap<String, String> {
    let id = &measured.instance.id;
    let mut labels = BTreeMap::from([("stage".to_owned(), id.stage.clone())]);
    for (axis, value) in &id.axes {
        match pipeline.sweep.as_ref().filter(|sweep| sweep.name == *axis) {
            None => drop(labels.insert(axis.clone(), value.clone())),
            Some(sweep) => {
                let point = sweep.points.iter().find(|point| point.name == *value).expect("a point of the sweep");
                for (key, value) in sweep.keys.iter().zip(&point.values) {
                    labels.insert(key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                }
            }
        }
    }
    labels
}

/// Returns where a label stands among the columns: parameters of the sweep in their order, axes before them.
fn order_of(pipeline: &Pipeline, name: &str) -> usize {
    let keys = pipeline.sweep.iter().flat_map(|sweep| &sweep.keys);
    keys.into_iter().position(|key| key == name).map_or(0, |position| position + 1)
}

fn label_values(row: &Row, labels: &[String]) -> Vec<String> {
    labels.iter().map(|label| row.labels.get(label).cloned().unwrap_or_default()).collect()
}

fn single(rows: &[Row], labels: &[String], numbers: &[String]) -> Vec<Line> {
    let line = |row: &Row| Line {
        labels: label_values(row, labels),
        count: usize::from(row.has_result),
        numbers: numbers.iter().map(|name| row.numbers.get(name).map(|value| (*value, None))).collect(),
    };
    rows.iter().map(line).collect()
}

/// Returns a line for each group, in the order of their first instances.
fn grouped(rows: &[Row], labels: &[String], numbers: &[String]) -> Vec<Line> {
    let mut groups: Vec<(Vec<String>, Vec<&Row>)> = Vec::new();
    for row in rows.iter().filter(|row| labels.iter().all(|label| row.labels.contains_key(label))) {
        let values = label_values(row, labels);
        match groups.iter_mut().find(|(known, _)| *known == values) {
            Some((_, members)) => members.push(row),
            None => groups.push((values, vec![row])),
        }
    }
    let line = |(labels, members): (Vec<String>, Vec<&Row>)| Line {
        labels,
        count: members.iter().filter(|row| row.has_result).count(),
        numbers: numbers
            .iter()
            .map(|name| mean_and_deviation(&members.iter().filter_map(|row| row.numbers.get(name)).collect::<Vec<_>>()))
            .collect(),
    };
    groups.into_iter().map(line).collect()
}

/// Returns the mean and the standard deviation of a sample (divisor n − 1), the latter from two values on.
fn mean_and_deviation(values: &[&f64]) -> Option<(f64, Option<f64>)> {
    let n = values.len() as f64;
    let mean = values.iter().copied().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (*value - mean).powi(2)).sum();
    (!values.is_empty()).then(|| (mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt())))
}

/// Sorts by a number or a label; lines without it come last either way.
fn sort_lines(lines: &mut [Line], name: &str, is_descending: bool, labels: &[String], numbers: &[String]) {
    let direction = |order: std::cmp::Ordering| if is_descending { order.reverse() } else { order };
    if let Some(column) = labels.iter().position(|label| label == name) {
        let text = |line: &Line| line.labels[column].clone();
        lines.sort_by(|a, b| {
            let (a, b) = (text(a), text(b));
            let order = match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => a.total_cmp(&b),
                _ => a.cmp(&b),
            };
            a.is_empty().cmp(&b.is_empty()).then(direction(order))
        });
    } else if let Some(column) = numbers.iter().position(|number| number == name) {
        let value = |line: &Line| line.numbers[column].map(|(mean, _)| mean);
        lines.sort_by(|a, b| match (value(a), value(b)) {
            (Some(a), Some(b)) => direction(a.total_cmp(&b)),
            (a, b) => a.is_none().cmp(&b.is_none()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seed: &str, lr: &str, loss: Option<f64>) -> Row {
        Row {
            labels: [("stage", "a"), ("seed", seed), ("lr", lr)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            numbers: loss.map(|loss| ("loss".to_owned(), loss)).into_iter().collect(),
            has_result: loss.is_some(),
        }
    }

    #[test]
    fn groups_have_means_and_deviations_of_the_results_there_are() {
        let rows = [
            row("0", "0.1", Some(1.0)),
            row("1", "0.1", Some(3.0)),
            row("0", "0.01", Some(5.0)),
            row("1", "0.01", None),
        ];
        let names = ["lr".to_owned()];
        let mut lines = grouped(&rows, &names, &["loss".to_owned()]);
        let shown = |lines: &[Line]| {
            lines.iter().map(|line| (line.labels[0].clone(), line.count, line.numbers[0])).collect::<Vec<_>>()
        };
        let deviation = 2.0_f64.sqrt();
        let expected = [("0.1".to_owned(), 2, Some((2.0, Some(deviation)))), ("0.01".to_owned(), 1, Some((5.0, None)))];
        assert_eq!(shown(&lines), expected);
        sort_lines(&mut lines, "lr", false, &names, &["loss".to_owned()]);
        assert_eq!(lines[0].labels[0], "0.01", "numbers are sorted as numbers");
        sort_lines(&mut lines, "loss", false, &names, &["loss".to_owned()]);
        assert_eq!(lines[0].labels[0], "0.1");
    }

    #[test]
    fn lines_without_the_number_come_last_in_either_direction() {
        let rows = [row("0", "1", None), row("1", "1", Some(1.0)), row("2", "1", Some(2.0))];
        for (descending, expected) in [(false, ["1", "2", "0"]), (true, ["2", "1", "0"])] {
            let (labels, numbers) = (["seed".to_owned()], ["loss".to_owned()]);
            let mut lines = single(&rows, &labels, &numbers);
            sort_lines(&mut lines, "loss", descending, &labels, &numbers);
            assert_eq!(lines.iter().map(|line| line.labels[0].as_str()).collect::<Vec<_>>(), expected);
        }
    }
}
