//! The report of an audit as Markdown, for a pull request or the appendix of a paper.

use super::report::{GRADES, Report};
use super::text::word;
use crate::report::text::duration;

/// Returns the report.
pub(super) fn page(report: &Report<'_>) -> String {
    let audit = report.audit;
    let mut text = format!("# Audit of {}\n\nUp to level {}; {}.\n\n", report.what, audit.level, report.counts());
    text += "| stage | grade | made again | signed by | because of |\n|---|---|---|---|---|\n";
    for stage in &report.stages {
        text += &format!(
            "| {} | {} | {} | {} | {} |\n",
            cell(stage.instance),
            stage.letter(),
            stage.reproduced(),
            cell(&stage.signers()),
            cell(stage.because().unwrap_or_default())
        );
    }
    text.push('\n');
    for (grade, meaning) in GRADES {
        text += &format!("* {grade}: {meaning}\n");
    }
    if !audit.trials.is_empty() {
        text += "\n## Made again\n\n| varied | results | killed | time |\n|---|---|---|---|\n";
        for trial in &audit.trials {
            let time = duration(trial.seconds);
            text += &format!("| {} | {} | {} | {time} |\n", cell(&trial.varied), trial.results, trial.kills);
        }
    }
    if let Some(challenge) = &audit.challenge {
        text += &format!(
            "\n## Compared with {}\n\n{} the same, {} with other bytes, {} not there.\n",
            cell(&challenge.against),
            challenge.same,
            challenge.other,
            challenge.absent
        );
    }
    if !audit.findings.is_empty() {
        text += "\n## Findings\n\n";
    }
    for group in &report.findings {
        let finding = group.finding;
        let of = group.named().map(|instances| format!("{instances}: ")).unwrap_or_default();
        text += &format!("* **{}** {of}{}", word(finding.fault.class()), finding.message);
        if let Some(place) = &finding.place {
            text += &format!(" (`{place}`)");
        }
        text.push('\n');
    }
    text += "\n## Outputs\n\n| stage | file | grade | digest (BLAKE3) |\n|---|---|---|---|\n";
    for verdict in &audit.outputs {
        let (instance, file, grade) = (cell(&verdict.instance), cell(&verdict.file), verdict.grade.letter());
        text += &format!("| {instance} | {file} | {grade} | `{}` |\n", verdict.digest);
    }
    text
}

/// Returns text that does not end the cell it stands in.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
