//! The report of an audit as one HTML page that needs nothing else.

use super::report::{GRADES, Report};
use super::text::word;
use crate::report::text::duration;

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
code { font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere; }
.grade { display: inline-block; width: 1.6em; text-align: center; border-radius: 0.3em; font-weight: 600; color: #fff; }
.A { background: #1a7f37; } .B { background: #4d8b31; } .C { background: #6b7280; } .D { background: #b45309; }
.F { background: #b91c1c; } .none { background: #9ca3af; }
li { margin-bottom: 0.5rem; }
";

/// Returns the page.
pub(super) fn page(report: &Report<'_>) -> String {
    let audit = report.audit;
    let what = escaped(&report.what);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Audit of {what}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Audit of {}</h1>\n<p>Up to level {}; {}.</p>\n",
        with_code(&report.what),
        audit.level,
        escaped(&report.counts())
    );
    text += "<table>\n<tr><th>stage<th>grade<th>made again<th>signed by<th>because of</tr>\n";
    for stage in &report.stages {
        text += &format!(
            "<tr><td><code>{}</code><td>{}<td>{}<td>{}<td>{}</tr>\n",
            escaped(stage.instance),
            mark(&stage.letter()),
            stage.reproduced(),
            escaped(&stage.signers()),
            escaped(stage.because().unwrap_or_default())
        );
    }
    text += "</table>\n<p>";
    let meanings = GRADES.map(|(grade, meaning)| format!("{} {meaning}", mark(grade)));
    text += &format!("{}</p>\n", meanings.join("<br>\n"));
    if !audit.trials.is_empty() {
        text += "<h2>Made again</h2>\n<table>\n<tr><th>varied<th>results<th>killed<th>time</tr>\n";
        for trial in &audit.trials {
            let (varied, time) = (escaped(&trial.varied), duration(trial.seconds));
            text += &format!("<tr><td>{varied}<td>{}<td>{}<td>{time}</tr>\n", trial.results, trial.kills);
        }
        text += "</table>\n";
    }
    if let Some(challenge) = &audit.challenge {
        text += &format!(
            "<h2>Compared with {}</h2>\n<p>{} the same, {} with other bytes, {} not there.</p>\n",
            escaped(&challenge.against),
            challenge.same,
            challenge.other,
            challenge.absent
        );
    }
    if !audit.findings.is_empty() {
        text += "<h2>Findings</h2>\n<ul>\n";
        for group in &report.findings {
            let finding = group.finding;
            let of = group.named().map(|instances| format!("{}: ", with_code(&instances)));
            let place = finding.place.as_ref().map(|place| format!("<br><code>{}</code>", escaped(place)));
            text += &format!(
                "<li><b>{}</b> {}{}{}</li>\n",
                word(finding.fault.class()),
                of.unwrap_or_default(),
                with_code(&finding.message),
                place.unwrap_or_default()
            );
        }
        text += "</ul>\n";
    }
    text += "<h2>Outputs</h2>\n<table>\n<tr><th>stage<th>file<th>grade<th>digest (BLAKE3)</tr>\n";
    for verdict in &audit.outputs {
        text += &format!(
            "<tr><td><code>{}</code><td><code>{}</code><td>{}<td><code>{}</code></tr>\n",
            escaped(&verdict.instance),
            escaped(&verdict.file),
            mark(&verdict.grade.letter().to_string()),
            verdict.digest
        );
    }
    text + "</table>\n</body>\n</html>\n"
}

fn mark(grade: &str) -> String {
    let class = if grade == "-" { "none" } else { grade };
    format!("<span class=\"grade {class}\">{grade}</span>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Returns text as HTML, what stands between backticks as code.
fn with_code(text: &str) -> String {
    let parts: Vec<String> = escaped(text).split('`').map(str::to_owned).collect();
    // An odd number of backticks is none of ours; then nothing is code.
    if parts.len().is_multiple_of(2) {
        return parts.join("`");
    }
    let part = |(index, part): (usize, &String)| {
        if index % 2 == 1 { format!("<code>{part}</code>") } else { part.clone() }
    };
    parts.iter().enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_backticks_is_code_and_nothing_is_markup() {
        assert_eq!(with_code("`a<b>` & c"), "<code>a&lt;b&gt;</code> &amp; c");
        assert_eq!(with_code("it's `odd"), "it's `odd");
    }
}
