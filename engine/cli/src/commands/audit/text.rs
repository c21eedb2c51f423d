//! The report of an audit for a terminal.

use spdflow_engine::audit::finding::Class;

use super::report::{Group, Report};
use crate::report::table::Table;
use crate::report::text::duration;

/// More findings than this are cut, unless all are asked for.
const MOST: usize = 30;

/// Returns the whole report.
pub(super) fn page(report: &Report<'_>, is_whole: bool) -> String {
    let mut table = Table::new(&["stage", "grade", "made again", "signed by", "because of"]);
    for stage in &report.stages {
        table.row([
            stage.instance.to_owned(),
            stage.letter(),
            stage.reproduced().to_owned(),
            stage.signers(),
            stage.because().unwrap_or_default().to_owned(),
        ]);
    }
    let mut text = format!("{}\n\n{}", report.what, table.text());
    if !report.audit.trials.is_empty() {
        text += "\nmade again:\n";
    }
    for trial in &report.audit.trials {
        let kills = match trial.kills {
            0 => String::new(),
            1 => ", killed once".to_owned(),
            kills => format!(", killed {kills} times"),
        };
        let results = if trial.results == 1 { "result" } else { "results" };
        text += &format!("  {}: {} {results} in {}{kills}\n", trial.varied, trial.results, duration(trial.seconds));
    }
    if let Some(challenge) = &report.audit.challenge {
        let spdflow_engine::audit::Challenge { against, same, other, absent } = challenge;
        text += &format!("\n{against}: {same} the same, {other} with other bytes, {absent} not there\n");
    }
    for repair in &report.audit.repairs {
        text += &format!("repaired: {repair}\n");
    }
    let findings = findings(report, is_whole);
    if !findings.is_empty() {
        text += "\n";
        text += &findings;
    }
    text
}

/// Returns the findings.
pub(super) fn findings(report: &Report<'_>, is_whole: bool) -> String {
    let groups = &report.findings;
    let shown = if is_whole { groups.len() } else { MOST };
    let mut text: String = groups.iter().take(shown).map(finding).collect();
    if groups.len() > shown {
        text += &format!("and {} more; `-v` shows all\n", groups.len() - shown);
    }
    text
}

fn finding(group: &Group<'_>) -> String {
    let finding = group.finding;
    let mut text = format!("{}: ", word(finding.fault.class()));
    if let Some(instances) = group.named() {
        text += &format!("{instances}: ");
    }
    text += &finding.message;
    text.push('\n');
    if let Some(place) = &finding.place {
        text += &format!("  --> {place}\n");
    }
    if let Some(hint) = &finding.hint {
        text += &format!("  hint: {hint}\n");
    }
    text
}

/// Returns what a class of findings is called.
pub(super) fn word(class: Class) -> &'static str {
    match class {
        Class::Note => "note",
        Class::Drift => "drift",
        Class::Incomplete => "incomplete",
        Class::CouldNotRun => "could not run",
        Class::Challenge => "challenge",
        Class::NotReproducible => "not reproducible",
        Class::Authenticity => "authenticity",
        Class::Integrity => "integrity",
    }
}
