//! Renders reports in the look of rustc: message, place, the line with carets, hints.
//!
//! Styles are always written; `anstream` strips them when stderr is no terminal, `NO_COLOR` is set, `TERM=dumb` or
//! `--color never` was given.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin as Place, Renderer, Snippet};
use spdflow_engine::diagnostic::{Diagnostic, Label, Report};

use crate::args::ColorChoice;
use crate::commands;
use crate::failure::Failure;
use crate::output;

/// How many mistakes of a report are shown; nobody reads more, and a wrong name in a generated file makes thousands.
const MAX_SHOWN: usize = 100;

/// Makes everything printed through `anstream` follow `--color`.
pub(crate) fn choose_colors(choice: ColorChoice) {
    match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Tells why a command could not do its work: on stderr, and with `--json` also as a document, or as one event of a
/// stream.
pub(crate) fn tell(failure: &Failure, is_json: bool, is_stream: bool) {
    if is_json {
        let mut document = to_json(&failure.report);
        if is_stream {
            document["event"] = "error".into();
            output::data(&format!("{document}\n"));
        } else {
            commands::print_json(document);
        }
    }
    print(&failure.report);
}

/// Prints a report to stderr.
pub(crate) fn print(report: &Report) {
    output::message(&rendered(report));
}

/// Returns the text of a report, with styles.
fn rendered(report: &Report) -> String {
    let shown = report.diagnostics.iter().take(MAX_SHOWN);
    let mut text = shown.map(|diagnostic| render(diagnostic, report)).collect::<Vec<_>>().join("\n\n");
    let found = report.diagnostics.len();
    if found > MAX_SHOWN {
        text += &format!("\n\nfound {found} mistakes, of which these are the first {MAX_SHOWN}");
    } else if found > 1 {
        text += &format!("\n\nfound {found} mistakes");
    }
    text + "\n"
}

/// Returns the report as one JSON document.
pub(crate) fn to_json(report: &Report) -> serde_json::Value {
    let place = |origin: &spdflow_engine::value::Origin, text: &str| {
        let (line, column) = report.line_and_column(origin);
        let source = report.sources.get(origin.source).map_or("", |source| source.name.as_str());
        serde_json::json!({
            "source": source, "line": line, "column": column,
            "start": origin.span.start, "end": origin.span.end, "text": text,
        })
    };
    let errors: Vec<_> = report
        .diagnostics
        .iter()
        .take(MAX_SHOWN)
        .map(|diagnostic| {
            let labels: Vec<_> = diagnostic.labels.iter().map(|label| place(&label.origin, &label.text)).collect();
            serde_json::json!({ "message": diagnostic.message, "labels": labels, "hints": diagnostic.hints })
        })
        .collect();
    serde_json::json!({ "version": 1, "errors": errors, "error_count": report.diagnostics.len() })
}

fn render(diagnostic: &Diagnostic, report: &Report) -> String {
    let mut group = Group::with_title(Level::ERROR.primary_title(diagnostic.message.as_str()));
    let mut rest = diagnostic.labels.as_slice();
    while let Some(first) = rest.first() {
        // One snippet per text; labels of other texts follow in snippets of their own.
        let of_same_source = rest.iter().take_while(|label| label.origin.source == first.origin.source).count();
        let (here, after) = rest.split_at(of_same_source);
        let is_first_snippet = rest.len() == diagnostic.labels.len();
        rest = after;
        let Some(source) = report.sources.get(first.origin.source) else { continue };
        if source.text.is_empty() {
            group = group.element(Place::path(source.name.as_str()));
            continue;
        }
        let lines = lines_around(here, &source.text);
        let line_start = source.text[..lines.start].matches('\n').count() + 1;
        let text = &source.text[lines.clone()];
        let mut snippet = Snippet::source(text).line_start(line_start).path(source.name.as_str());
        for (position, label) in here.iter().enumerate() {
            let kind =
                if is_first_snippet && position == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let text = (!label.text.is_empty()).then_some(label.text.as_str());
            let span = label.origin.span.start - lines.start..label.origin.span.end - lines.start;
            snippet = snippet.annotation(kind.span(span).label(text));
        }
        group = group.element(snippet);
    }
    let hint = Level::HELP.with_name("hint");
    if diagnostic.labels.is_empty() {
        // Nothing to hang the hints on: they follow as lines of their own.
        let mut text = Renderer::styled().render(&[group]);
        for words in &diagnostic.hints {
            let title = hint.clone().secondary_title(words.as_str());
            text += &format!("\n  {}", Renderer::styled().render(&[Group::with_title(title)]));
        }
        return text;
    }
    group = group.elements(diagnostic.hints.iter().map(|words| hint.clone().message(words.as_str())));
    Renderer::styled().render(&[group])
}

/// Returns the whole lines that the labels lie in: the renderer's work grows with the text it is given.
fn lines_around(labels: &[Label], text: &str) -> Range<usize> {
    let first = labels.iter().map(|label| label.origin.span.start).min().unwrap_or(0);
    let last = labels.iter().map(|label| label.origin.span.end).max().unwrap_or(0);
    let start = text[..first].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[last..].find('\n').map_or(text.len(), |newline| last + newline + 1);
    start..end
}

#[cfg(test)]
mod tests;
