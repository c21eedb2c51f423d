//! Renders reports in the look of rustc: message, place, the line with carets, hints.
//!
//! Styles are always written; `anstream` strips them when stderr is no terminal, `NO_COLOR` is set, `TERM=dumb` or
//! `--color never` was given.

use annotate_snippets::{AnnotationKind, Group, Level, Origin as Place, Renderer, Snippet};
use spdflow_engine::diagnostic::{Diagnostic, Report};

use crate::args::ColorChoice;

/// Makes everything printed through `anstream` follow `--color`.
pub(crate) fn choose_colors(choice: ColorChoice) {
    match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Prints a report to stderr.
pub(crate) fn print(report: &Report) {
    crate::output::message(&rendered(report));
}

/// Returns the text of a report, with styles.
fn rendered(report: &Report) -> String {
    let mut text =
        report.diagnostics.iter().map(|diagnostic| render(diagnostic, report)).collect::<Vec<_>>().join("\n\n");
    if report.diagnostics.len() > 1 {
        text += &format!("\n\nfound {} mistakes", report.diagnostics.len());
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
        .map(|diagnostic| {
            let labels: Vec<_> = diagnostic.labels.iter().map(|label| place(&label.origin, &label.text)).collect();
            serde_json::json!({ "message": diagnostic.message, "labels": labels, "hints": diagnostic.hints })
        })
        .collect();
    serde_json::json!({ "version": 1, "errors": errors })
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
        let mut snippet = Snippet::source(source.text.as_str()).path(source.name.as_str());
        for (position, label) in here.iter().enumerate() {
            let kind =
                if is_first_snippet && position == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let text = (!label.text.is_empty()).then_some(label.text.as_str());
            snippet = snippet.annotation(kind.span(label.origin.span.clone()).label(text));
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

#[cfg(test)]
mod tests;
